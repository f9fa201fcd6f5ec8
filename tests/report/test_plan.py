"""The plan's numbers are those of the artifacts that the stages then write."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from pipeline.attention.backend import Judgement
from pipeline.attention.tables import attention_table
from pipeline.config.check import check_all
from pipeline.config.extract import ExtractParams
from pipeline.config.train import TrainParams
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_sources
from pipeline.io.parquet import write_table
from pipeline.judge.prompt import load_prompt
from pipeline.judge.render import Renderer
from pipeline.judge.table import judge_table
from pipeline.models.chat import Chat
from pipeline.models.training_tokens import prompt_tokens, response_tokens
from pipeline.report.plan import Plan, describe, plan


@dataclass(frozen=True)
class Sample:
    """Some pairs of the sample and what the plan needs to read them."""

    pairs: Any
    sections: dict[str, Any]
    renderer: Renderer
    chat: Chat

    def plan(self, **extract: Any) -> Plan:
        sections = self.sections | {"extract": ExtractParams(**extract)} if extract else self.sections
        return plan(self.pairs, self.renderer, self.chat, sections, judge_heads=9)


@pytest.fixture(scope="module")
def sample(root: Path, default_tokenizer: PreTrainedTokenizerFast) -> Sample:
    sections = check_all(root / "params.yaml")
    sections["prepare"] = sections["prepare"].model_copy(update={"limit": 12})
    params = sections["prepare"]
    pairs = prepare(open_sources(params, root), params.validation_share, params.limit).pairs
    chat = Chat(default_tokenizer)
    return Sample(
        pairs, sections, Renderer(chat, load_prompt(root / "pipeline/judge/prompt.txt"), sections["render"]), chat
    )


def test_tokens_are_counted_as_the_stages_count_them(sample: Sample) -> None:
    pairs, sections, renderer, chat = sample.pairs, sample.sections, sample.renderer, sample.chat
    found = sample.plan()
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


@pytest.mark.parametrize(
    ("params", "layers", "heads"),
    [
        ({"layers": [0, 5, 9]}, [0, 5, 9], [-1]),
        ({"layers": [0, 5], "heads": "each"}, [0, 5], list(range(9))),
        ({"layers": [-1], "heads": [8, 2]}, [29], [2, 8]),
        ({"layers": [0, 5, 9], "source": "rollout"}, [-1], [-1]),
    ],
)
@pytest.mark.parametrize("rows", [8192, 40])
def test_attention_takes_what_extract_writes(
    sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    params: dict[str, Any],
    layers: list[int],
    heads: list[int],
) -> None:
    """With few `rows`, fewer pairs than the sample stand for all."""
    monkeypatch.setattr("pipeline.report.plan.ATTENTION_ROWS", rows)
    random = np.random.default_rng(1)
    pairs = [pair.record() for pair in sample.pairs["train"]]
    judged = judge_table([(pair["pair_id"], sample.renderer.render(pair)) for pair in pairs]).to_pylist()
    judgements = []
    for row in judged:
        lengths = [row[f"{name}_end"] - row[f"{name}_start"] for name in ("chosen", "rejected")]
        scores = {layer: [random.random((len(heads), n), dtype=np.float32) for n in lengths] for layer in layers}
        judgements.append(Judgement(rows=scores))
    path = tmp_path / "part.parquet"
    write_table(path, attention_table(judged, judgements, heads, params.get("source", "attention")), {})
    found = sample.plan(**params).bytes_per_pair["data/attention"]
    # A file of few rows carries a larger share of footer.
    assert found == pytest.approx(path.stat().st_size / len(pairs), rel=0.03 if rows == 8192 else 0.4)
