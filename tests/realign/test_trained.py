"""Weights of trained tokens, from tables of tokens and scores."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.weights import WeightsParams
from pipeline.errors import DataError
from pipeline.realign.aligned import NotAligned
from pipeline.realign.rows import AlignedPair
from pipeline.realign.trained import trained_rows
from pipeline.schemas.scores import SCORES
from pipeline.schemas.tokens import TOKENS


def tokens(*lengths: tuple[int, int]) -> pa.Table:
    rows = []
    for number, of_pair in enumerate(lengths):
        row: dict[str, Any] = {"pair_id": f"p{number}", "prompt_ids": [1, 2, 3], "prompt_cut": 0}
        for name, length in zip(("chosen", "rejected"), of_pair, strict=True):
            offsets = [{"start": k, "end": k + 1} for k in range(length)]
            row |= {f"{name}_ids": list(range(length)), f"{name}_offsets": offsets}
            row |= {f"{name}_eos": True, f"{name}_cut": 0}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=TOKENS)


def scores(**by_pair: tuple[list[float], list[float]]) -> pa.Table:
    rows = [
        {
            "pair_id": pair_id,
            "chosen_scores": chosen,
            "chosen_prompt_score": 0.0,
            "rejected_scores": rejected,
            "rejected_prompt_score": 0.0,
        }
        for pair_id, (chosen, rejected) in by_pair.items()
    ]
    return pa.Table.from_pylist(rows, schema=SCORES)


def made(table: pa.Table, found: pa.Table | None, flip: float = 0.0, **params: Any) -> list[AlignedPair]:
    rows = [row for _, _, row in trained_rows(table, found, WeightsParams(**params), flip, 42)]
    assert all(isinstance(row, AlignedPair) for row in rows)
    return rows  # type: ignore[return-value]


def test_uniform_weights_are_dpo() -> None:
    [first, second] = made(tokens((4, 2), (1, 5)), None, source="uniform")
    assert first.chosen.weights.tolist() == [0.25] * 4
    assert (first.chosen.length, first.rejected.length, second.rejected.length) == (4.0, 2.0, 5.0)
    assert first.chosen.weights.dtype == np.float32


def test_raw_weights_are_not_multiplied_by_a_length() -> None:
    [pair] = made(tokens((3, 2)), None, source="decay", decay={"gamma": 0.5})
    assert pair.chosen.weights.tolist() == [1.0, 0.5, 0.25]
    assert pair.chosen.length == 1.0


def test_pairs_without_scores_are_left_out() -> None:
    found = scores(p1=([1.0, 3.0], [1.0, 1.0]))
    rows = made(tokens((2, 2), (2, 2)), found, source="verbalized")
    assert [row.pair_id for row in rows] == ["p1"]
    assert rows[0].chosen.weights.tolist() == [0.25, 0.75]


def test_scores_of_other_tokens_are_an_error() -> None:
    with pytest.raises(DataError, match="p0, chosen"):
        made(tokens((3, 2)), scores(p0=([1.0, 1.0], [1.0, 1.0])), source="verbalized")


def test_a_flipped_pair_s_weights_follow_its_label() -> None:
    found = scores(p0=([1.0, -1.0, 0.5], [-1.0, 1.0, 0.25]))
    contrast = {"transform": "origin", "eos_weight": "scored"}
    [right] = made(tokens((3, 3)), found, source="contrast", contrast=contrast)
    [wrong] = made(tokens((3, 3)), found, 1.0, source="contrast", contrast=contrast)
    assert (right.flipped, wrong.flipped) == (False, True)
    assert wrong.chosen.weights.tolist() == [-1.0, 1.0, -0.5]
    assert right.chosen.weights.tolist() == [1.0, -1.0, 0.5]
    assert wrong.rejected.weights.tolist() == [-1.0, 1.0, 0.25]


def test_a_response_without_a_selected_token_refuses_its_pair() -> None:
    found = scores(p0=([1.0, 2.0, 3.0, 4.0], [1.0, 2.0]), p1=([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]))
    params = WeightsParams(source="contrast", contrast={"transform": "select", "select_share": 0.3})
    [(row, pair_id, refused), (_, _, kept)] = trained_rows(tokens((4, 2), (4, 4)), found, params, 0.0, 42)
    assert (row, pair_id) == (0, "p0")
    assert isinstance(refused, NotAligned)
    assert (refused.reason, refused.detail) == ("no_weight", "rejected: none of 2 tokens")
    assert isinstance(kept, AlignedPair)
    assert kept.chosen.weights.tolist() == [0, 0, 0, 1]
    assert kept.rejected.weights.tolist() == [0, 0, 0, 1]


def test_tokens_that_the_judge_left_out_are_counted() -> None:
    found = scores(p0=([2.0, 0.0, 2.0, 0.0], [1.0, 1.0, 0.0]))
    [pair] = made(tokens((4, 3)), found, source="verbalized")
    # The last token ends the turn, and nobody scores it.
    assert pair.chosen.matched_tokens == pytest.approx(2 / 3)
    assert pair.rejected.matched_tokens == 1.0
