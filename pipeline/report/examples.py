"""Pairs shown token by token: which ones, and their pictures (AttentionPO, Figures 4 and 5)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.pairs import Pairs
from pipeline.io.atomic import write_text
from pipeline.io.lists import arrays_of
from pipeline.report.boxes import BoxedResponse, boxed
from pipeline.report.markdown import image
from pipeline.report.token_page import token_page
from pipeline.report.token_svg import draw_pair
from pipeline.schemas.base import RESPONSES

SHOWN_TOKENS = 120
"""Tokens of a response in a picture."""
PAGE_TOKENS = 1000
"""Tokens of a response on the page of HTML."""
PROMPT_CHARACTERS = 600
_FEWEST_TOKENS = 8

OFF = (
    "Not shown: pairs may be private. Set `report.include_text: true` to see responses here with their tokens shaded by"
    " weight."
)


@dataclass(frozen=True)
class Example:
    """One pair with both responses cut into tokens."""

    title: str
    prompt: str
    responses: tuple[BoxedResponse, ...]


def examples_section(examples: Sequence[Example], figures: Path) -> str:
    """Pictures of the pairs, and the page on which longer texts can be read; writes both into `figures`."""
    if not examples:
        return "No pair to show (`report.examples`)."
    images = []
    for number, example in enumerate(examples, start=1):
        name = f"tokens-{number}.svg"
        write_text(figures / name, draw_pair(example.title, example.prompt, example.responses, SHOWN_TOKENS))
        images.append(image(f"figures/{name}", f"Pair {number}: tokens of both responses, shaded by weight"))
    page = token_page([(of.title, of.prompt, of.responses) for of in examples], PAGE_TOKENS)
    write_text(figures / "tokens.html", page)
    return "\n\n".join(
        [
            "Each token is shaded by its weight, after the sink fix where a judge gives it, as a multiple of the"
            " uniform weight; ⏎ is a new line. Tokens that share a character are one box, shaded by their mean. At most"
            f" {SHOWN_TOKENS} tokens of a response are drawn; [figures/tokens.html](figures/tokens.html) shows up to"
            f" {PAGE_TOKENS:,} and the weight of each.",
            *images,
        ]
    )


def choose_examples(pairs: Pairs, weights: Iterable[pa.Table], split: str, number: int) -> list[Example]:
    """The first pairs whose responses fit a picture whole; where these are too few, the first others.

    `weights`: tables of `pipeline.report.weight_rows`.
    """
    if number == 0:
        return []
    fitting: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for rows in weights:
        for found in _weighted_pairs(rows):
            fits = all(_FEWEST_TOKENS <= len(found[name][1]) <= SHOWN_TOKENS for name in RESPONSES)
            chosen = fitting if fits else others
            if len(chosen) < number:
                chosen.append(found)
        if len(fitting) == number:
            break
    kept = (fitting + others)[:number]
    by_id = _rows_by_id(pairs, {found["pair_id"] for found in kept})
    return [_example(by_id[found["pair_id"]], found, split) for found in kept]


def _weighted_pairs(table: pa.Table) -> Iterator[dict[str, Any]]:
    """`pair_id` and, by response, (offsets [n, 2], weights [n]) of the pairs of one shard."""
    names = zip(table["pair_id"].to_pylist(), table["response"].to_pylist(), strict=True)
    found: dict[str, dict[str, Any]] = {}
    for (pair_id, response), offsets, values in zip(
        names, arrays_of(table["offsets"]), arrays_of(table["weights"]), strict=True
    ):
        found.setdefault(pair_id, {"pair_id": pair_id})[response] = (offsets, values)
    return (pair for pair in found.values() if all(name in pair for name in RESPONSES))


def _rows_by_id(pairs: Pairs, wanted: set[str]) -> dict[str, dict[str, Any]]:
    ids = pairs.table["pair_id"].to_pylist()
    return {ids[row]: pairs.records(row, row + 1)[0] for row in np.flatnonzero([of in wanted for of in ids]).tolist()}


def _example(row: dict[str, Any], found: dict[str, Any], split: str) -> Example:
    responses = tuple(boxed(name, row[name], *found[name]) for name in RESPONSES)
    return Example(f"Pair {row['pair_id'][:12]} ({split})", _prompt_text(row["prompt"]), responses)


def _prompt_text(turns: Sequence[dict[str, str]]) -> str:
    """The last characters of the context; roles are named where there is more than one turn."""
    text = "\n".join(turn["content"] if len(turns) == 1 else f"{turn['role']}: {turn['content']}" for turn in turns)
    text = text.strip()
    return text if len(text) <= PROMPT_CHARACTERS else f"… {text[-PROMPT_CHARACTERS:]}"
