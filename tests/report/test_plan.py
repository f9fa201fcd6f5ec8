"""The plan's numbers are those of the artifacts that the stages then write."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from pipeline.config.check import check_all
from pipeline.config.train import TrainParams
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_sources
from pipeline.judge.prompt import load_prompt
from pipeline.judge.render import Renderer
from pipeline.models.chat import Chat
from pipeline.models.training_tokens import prompt_tokens, response_tokens
from pipeline.report.plan import describe, plan


def test_tokens_are_counted_as_the_stages_count_them(root: Path, default_tokenizer: PreTrainedTokenizerFast) -> None:
    sections = check_all(root / "params.yaml")
    sections["prepare"] = sections["prepare"].model_copy(update={"limit": 12})
    params = sections["prepare"]
    pairs = prepare(open_sources(params, root), params.validation_share, params.limit).pairs
    chat = Chat(default_tokenizer)
    renderer = Renderer(chat, load_prompt(root / "pipeline/judge/prompt.txt"), sections["render"])
    found = plan(pairs, renderer, chat, sections)
    rows = [pair.record() for pair in pairs["train"]]
    judge = [len(each.input_ids) for row in rows for each in renderer.render(row).rounds]
    trained = 0
    for row in rows:
        prompt, _ = prompt_tokens(chat, row["prompt"], sections["tokenize"])
        trained += 2 * len(prompt) + sum(
            len(response_tokens(chat, row[name], 2048).ids) for name in ("chosen", "rejected")
        )
    assert found.judge_tokens == pytest.approx(sum(judge) / len(rows))
    assert found.training_tokens == pytest.approx(trained / len(rows))
    assert (found.sampled, found.refused, found.judge_cut_share) == (len(rows), 0, 0.0)
    assert set(found.bytes_per_pair) == {"data/judge", "data/attention", "data/reference"}
    train = TrainParams(epochs=2, global_batch_pairs=2, max_steps=3)
    lines = list(describe(found, rate=1000.0, train=train))
    assert f"judge      {found.judge_tokens * sum(found.pairs.values()):,.0f} tokens" in lines[2]
    assert lines[4] == f"train      {found.training_tokens * 6:,.0f} tokens in 3 steps"
    assert [line.split()[1] for line in lines if line.startswith("time")] == ["extract:", "reference:", "train:"]
    assert not [line for line in describe(found, rate=None, train=train) if line.startswith("time")]
