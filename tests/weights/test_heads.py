"""The mean over heads, response by response in numpy; and tables whose heads are not what they should be."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import DataError
from pipeline.schemas.attention import ATTENTION
from pipeline.weights.heads import mean_over_heads

HEADS, LAYERS = (0, 2, 5, 6), (1, 3)
LENGTHS = {("p0", "chosen"): 3, ("p0", "rejected"): 1, ("p1", "chosen"): 0, ("p1", "rejected"): 7}


def rows(heads=HEADS, layers=LAYERS, lengths=LENGTHS):
    """As `extract` writes them: responses, then layers, then heads."""
    random = np.random.default_rng(5)
    return [
        {
            "pair_id": pair_id, "response": response, "source": "attention", "layer": layer, "head": head,
            "token_ids": np.arange(n), "offsets": [{"start": k, "end": k + 1} for k in range(n)],
            "round_1": random.random(n, dtype=np.float32), "round_2": random.random(n, dtype=np.float32),
        }
        for (pair_id, response), n in lengths.items() for layer in layers for head in heads
    ]  # fmt: skip


def table(made):
    return pa.Table.from_pylist(made, schema=ATTENTION)


@pytest.mark.parametrize("heads", [HEADS, (2,), (0, 6)])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_response_keeps_its_place_and_gets_the_mean_of_its_heads(layer, heads):
    made = rows()
    result = mean_over_heads(table(made), layer, heads)
    assert list(zip(result["pair_id"].to_pylist(), result["response"].to_pylist(), strict=True)) == list(LENGTHS)
    assert result["token_ids"].to_pylist() == [list(range(n)) for n in LENGTHS.values()]
    assert [len(offsets) for offsets in result["offsets"].to_pylist()] == list(LENGTHS.values())
    for name in ("round_1", "round_2"):
        for key, got in zip(LENGTHS, result[name].to_pylist(), strict=True):
            expected = [
                row[name].astype(np.float64)
                for row in made
                if (row["pair_id"], row["response"]) == key and row["layer"] == layer and row["head"] in heads
            ]
            np.testing.assert_allclose(got, np.mean(expected, axis=0), rtol=1e-15)


def test_rows_in_several_chunks_are_one_table():
    whole = table(rows())
    parts = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 0), whole.slice(3, 14), whole.slice(17)])
    assert len(parts["head"].chunks) > 1
    assert mean_over_heads(parts, 3, HEADS).equals(mean_over_heads(whole, 3, HEADS))


def test_the_mean_row_passes_unchanged():
    made = rows(heads=(-1,))
    result = mean_over_heads(table(made), 1, (-1,))
    assert result["round_2"].to_pylist() == [row["round_2"].tolist() for row in made if row["layer"] == 1]


def test_float64_before_the_division():
    """A float32 sum would lose every small score beside the large one."""
    made = rows(heads=tuple(range(32)), layers=(0,), lengths={("p0", "chosen"): 1})
    for row in made:
        row["round_1"] = np.array([1.0 if row["head"] == 0 else 2e-8], dtype=np.float32)
    [[mean]] = mean_over_heads(table(made), 0, range(32))["round_1"].to_pylist()
    assert mean == pytest.approx((1 + 31 * np.float64(np.float32(2e-8))) / 32, rel=1e-14)


def test_no_pairs():
    result = mean_over_heads(table([]), 0, HEADS)
    assert len(result) == 0
    assert "round_1" in result.column_names


@pytest.mark.parametrize("gone", range(4), ids=lambda head: f"head {HEADS[head]}")
def test_a_lacking_head_names_the_response(gone):
    made = [
        row
        for row in rows()
        if (row["pair_id"], row["response"], row["layer"], row["head"]) != ("p0", "rejected", 3, HEADS[gone])
    ]
    assert mean_over_heads(table(made), 1, HEADS)["pair_id"].to_pylist() == ["p0", "p0", "p1", "p1"]
    with pytest.raises(DataError, match=r"pair p0, rejected response: its rows of layer 3 are not those of heads"):
        mean_over_heads(table(made), 3, HEADS)


def test_a_lacking_last_row_names_the_response():
    with pytest.raises(DataError, match="pair p1, rejected response"):
        mean_over_heads(table(rows()[:-1]), 3, HEADS)


def test_heads_of_two_responses_are_not_mixed():
    made = rows(layers=(3,), lengths={("p0", "chosen"): 3, ("p0", "rejected"): 3})
    made[2]["response"], made[6]["response"] = "rejected", "chosen"
    with pytest.raises(DataError, match="pair p0, chosen response: its rows of layer 3"):
        mean_over_heads(table(made), 3, HEADS)


def test_heads_of_different_lengths_name_the_response():
    made = rows()
    made[-2]["round_2"] = made[-2]["round_2"][:-1]
    with pytest.raises(DataError, match="pair p1, rejected response: its heads cover different numbers of tokens"):
        mean_over_heads(table(made), 3, HEADS)


def test_a_head_that_is_there_twice_names_the_response():
    made = rows()
    made[-2]["head"] = made[-3]["head"]
    with pytest.raises(DataError, match="pair p1, rejected response: its rows of layer 3 are not those of heads"):
        mean_over_heads(table(made), 3, HEADS)
