"""Disk that the artifacts of a run will take, from files of a sample that are really written."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.attention.architectures import resolve_heads
from pipeline.config.extract import ExtractParams
from pipeline.io.lists import list_array
from pipeline.io.parquet import write_table
from pipeline.judge.render import JudgePair
from pipeline.judge.table import judge_table
from pipeline.schemas.attention import ATTENTION, ROLLOUT
from pipeline.schemas.base import FLOATS, RESPONSES
from pipeline.schemas.reference import REFERENCE
from pipeline.schemas.scores import SCORES
from pipeline.schemas.third import THIRD

ATTENTION_ROWS = 8192
"""Rows of `data/attention` that are written to be weighed: with a row per head, a few pairs make so many."""
VOCABULARY = 50_000
"""Of made-up ids; how many words there are changes their size little."""


@dataclass(frozen=True)
class Trained:
    """Tokens of one pair as it is trained on."""

    pair_id: str
    prompt: int
    response_tokens: tuple[int, int]
    gold: int | None
    cut: bool

    @property
    def tokens(self) -> int:
        return 2 * self.prompt + sum(self.response_tokens)


def rows_of_response(params: ExtractParams, judge_heads: int) -> list[tuple[str, int, int]]:
    """Source, layer and head of each row that `extract` writes for a response."""
    layers = [ROLLOUT] if params.source == "rollout" else range(len(params.layers))
    return [(params.source, layer, head) for layer in layers for head in resolve_heads(params.heads, judge_heads)]


def bytes_per_pair(
    judged: list[tuple[str, JudgePair]],
    rows: Sequence[tuple[str, int, int]],
    trained: Sequence[Trained],
    *,
    reference: bool,
    scores: bool,
    third: Sequence[int],
) -> dict[str, float]:
    """Files of the sample written for real; scores and log-probs are random, which compresses as badly as real ones.

    Args:
        rows: of each response in data/attention. Of that artifact fewer pairs are written, and weighed by their tokens.
        reference, scores: whether the trained tokens get log-probs, raw scores.
        third: tokens of the third response of each pair that has one.
    """
    random = np.random.default_rng(0)
    sizes = {}
    if judged:
        few = judged[:: -(-2 * len(rows) * len(judged) // ATTENTION_ROWS)]
        attention = _file_size(_attention(few, rows, random)) * _span_tokens(judged) / _span_tokens(few)
        sizes["data/judge"] = _file_size(judge_table(judged)) / len(judged)
        sizes["data/attention"] = attention / len(judged)
    tables = {
        "data/scores": _of_responses(trained if scores else [], "scores", SCORES, random),
        "data/reference": _of_responses(trained if reference else [], "logps", REFERENCE, random),
        "data/third": _thirds(third, random),
    }
    return sizes | {name: _file_size(table) / len(trained) for name, table in tables.items() if len(table)}


def _of_responses(trained: Sequence[Trained], what: str, schema: pa.Schema, random: np.random.Generator) -> pa.Table:
    """A random number for each trained token of chosen and rejected, in the columns `<response>_<what>`."""
    rows = [
        {"pair_id": of.pair_id}
        | {
            f"{name}_{what}": random.random(n, dtype=np.float32)
            for name, n in zip(RESPONSES, of.response_tokens, strict=True)
        }
        | ({f"{name}_prompt_score": 0.0 for name in RESPONSES} if what == "scores" else {})
        for of in trained
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def _thirds(lengths: Sequence[int], random: np.random.Generator) -> pa.Table:
    rows = [
        {
            "pair_id": f"{number:064x}",
            "third_ids": random.integers(0, VOCABULARY, n, dtype=np.int32),
            "third_logps": random.random(n, dtype=np.float32),
        }
        for number, n in enumerate(lengths)
    ]
    return pa.Table.from_pylist(rows, schema=THIRD)


def _attention(
    judged: Sequence[tuple[str, JudgePair]], rows: Sequence[tuple[str, int, int]], random: np.random.Generator
) -> pa.Table:
    """`data/attention` of some pairs, as `extract` orders it, with random scores."""
    responses = []
    for pair_id, pair in judged:
        first = pair.rounds[0]
        for name, (start, end) in first.spans.items():
            offsets = [{"start": int(a), "end": int(b)} for a, b in first.offsets[name]]
            responses.append((pair_id, name, first.input_ids[start:end], offsets))
    # Ids and offsets are the same in each row of a response: made once as Python objects, then repeated.
    repeated = np.repeat(np.arange(len(responses)), len(rows))
    columns = {
        name: pa.array(values, ATTENTION.field(name).type).take(repeated)
        for name, values in zip(
            ("pair_id", "response", "token_ids", "offsets"), zip(*responses, strict=True), strict=True
        )
    }
    for name, values in zip(("source", "layer", "head"), zip(*rows, strict=True), strict=True):
        columns[name] = pa.array(list(values) * len(responses), ATTENTION.field(name).type)
    for name in ("round_1", "round_2"):
        scores = [random.random(len(responses[row][2]), dtype=np.float32) for row in repeated]
        columns[name] = list_array(scores, FLOATS)
    return pa.table([columns[name] for name in ATTENTION.names], schema=ATTENTION)


def _span_tokens(judged: Sequence[tuple[str, JudgePair]]) -> int:
    return sum(end - start for _, pair in judged for start, end in pair.rounds[0].spans.values())


def _file_size(table: pa.Table) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        write_table(path, table, {})
        return path.stat().st_size
