"""Real judge prompts: pairs rendered for a judge, both rounds."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.attention.backend import JudgePrompt
from pipeline.config.render import RenderParams
from pipeline.data.rows import read_candidate
from pipeline.judge.prompt import load_prompt
from pipeline.judge.render import PairRefused, Renderer
from pipeline.models.chat import Chat

ROOT = Path(__file__).resolve().parent.parent.parent


def rendered(tokenizer: Any, lines: Iterable[str], pairs: int, longest: int) -> list[JudgePrompt]:
    """Prompts of the first pairs whose rounds have at most `longest` tokens; spans of chosen and rejected."""
    renderer = Renderer(Chat(tokenizer, None), load_prompt(ROOT / "pipeline/judge/prompt.txt"), RenderParams())
    prompts: list[JudgePrompt] = []
    for number, line in enumerate(lines):
        candidate = read_candidate(json.loads(line))
        chosen, rejected = candidate.chosen[-1]["content"], candidate.rejected[-1]["content"]
        try:
            pair = renderer.render({"prompt": candidate.chosen[:-1], "chosen": chosen, "rejected": rejected})
        except PairRefused:
            continue
        if max(len(of.input_ids) for of in pair.rounds) <= longest:
            prompts += [
                JudgePrompt(of.input_ids, (of.spans["chosen"], of.spans["rejected"]), f"pair {number}, round {turn}")
                for turn, of in enumerate(pair.rounds, start=1)
            ]
        if len(prompts) == 2 * pairs:
            break
    assert len(prompts) == 2 * pairs
    return prompts
