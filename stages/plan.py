"""`make plan`: tokens, cut shares, disk and hours before any GPU work; `--rate N` for another machine's tokens/s."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.check import check_all
from pipeline.data.pairs import Pair
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_sources
from pipeline.errors import PipelineError
from pipeline.judge.prompt import load_prompt
from pipeline.judge.render import PairRefused, Renderer
from pipeline.models.chat import Chat
from pipeline.models.device import choose_device
from pipeline.models.load import load_config, load_model, load_tokenizer
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.models.resolve import resolve
from pipeline.models.template import TemplateRefusal
from pipeline.models.training_tokens import prompt_tokens, response_tokens
from pipeline.report.plan import describe, judge_prompts, measured_rate, plan
from pipeline.weights.sources.verbalized.prompt import VerbalChat, load_verbal_prompt

MEASURED_PAIRS = 16


def main() -> None:
    """Print the plan; the rate is measured unless it is given, on the judge where one is asked, else on the start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, help="forward tokens per second of the machine to plan for")
    given = parser.parse_args()
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    sections = check_all(root / "params.yaml")
    models, source, params = sections["model"], sections["weights"].source, sections["prepare"]
    pairs = prepare(open_sources(params, root), params.validation_share, params.limit).pairs
    start = resolve(models.start_ref, "start", root)
    trained = Chat(load_tokenizer(start), start.chat_template, role="start")
    asking: Renderer | VerbalChat | None = None
    measured, dtype, judge_heads = start, sections["reference"].dtype, 0
    if source in ("judge", "verbalized"):
        measured = judge = resolve(models.judge, "judge", root)
        chat = Chat(load_tokenizer(judge), judge.chat_template)
        if source == "judge":
            asking = Renderer(chat, load_prompt(root / "pipeline/judge/prompt.txt"), sections["render"])
            dtype = sections["extract"].dtype
            judge_heads = load_config(judge).get_text_config().num_attention_heads
        else:
            asking = VerbalChat(chat, load_verbal_prompt())
            dtype = sections["score"].dtype
    found = plan(pairs, asking, trained, sections, judge_heads)
    rate = given.rate
    if rate is None:
        rate = _rate(measured, dtype, asking, trained, pairs["train"][:MEASURED_PAIRS], sections)
    for line in describe(found, rate, sections):
        print(line)


def _rate(
    manifest: Manifest,
    dtype: str,
    asking: Renderer | VerbalChat | None,
    chat: Chat,
    pairs: Sequence[Pair],
    sections: Mapping[str, Any],
) -> float:
    """Forward tokens per second of a model, over judge prompts or, where no judge is asked, chosen responses."""
    runtime, limits = sections["runtime"], sections["tokenize"]
    model = LogProbModel(load_model(manifest, dtype, choose_device(runtime.device, runtime.threads)))
    sequences: list[list[int]] = []
    for pair in (pair.record() for pair in pairs):
        try:
            if asking:
                sequences += judge_prompts(asking, pair)
            else:
                ids, _ = prompt_tokens(chat, pair["prompt"], limits)
                sequences.append(ids + response_tokens(chat, pair["chosen"], limits.max_tokens - len(ids)).ids)
        except (PairRefused, TemplateRefusal):
            continue
    return measured_rate(model, sequences, runtime.token_budget)


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(f"plan: {error}")
