"""Rows of several ranks as one, and the worker's own code, without vLLM."""

import numpy as np
import pytest
import torch

from pipeline.attention.vllm.capture import _Finishing, _Layer, _token_at, _Wanted
from pipeline.attention.vllm.engine import merge_ranks, split_spans
from pipeline.errors import ModelError


def ranks(*rows):
    return [
        {"rank": rank, "rows": {7: {2: np.asarray(row, dtype=np.float32).tobytes()}}, "errors": {}}
        for rank, row in enumerate(rows)
    ]


def test_the_mean_over_heads_is_the_mean_of_the_ranks_means():
    rng = np.random.default_rng(0)
    heads = rng.random((9, 5), dtype=np.float32)
    merged = merge_ranks(ranks(*(heads[3 * rank : 3 * rank + 3].mean(0) for rank in range(3))), mean=True)
    np.testing.assert_allclose(split_spans(merged[7][2], [(4, 9)])[0], heads.mean(0)[None], rtol=1e-6)
    assert merged[7][2].dtype == np.float32


def test_single_heads_come_in_the_order_of_ranks():
    """Rank 1 holds none of the wanted heads; the ranks answer in any order."""
    heads = np.arange(18, dtype=np.float32).reshape(3, 6)
    parts = ranks(heads[:1], heads[:0], heads[1:])
    merged = merge_ranks(parts[::-1], mean=False)[7][2]
    first, second = split_spans(merged, [(10, 12), (3, 7)])
    np.testing.assert_array_equal(first, heads[:, :2])
    np.testing.assert_array_equal(second, heads[:, 2:])


def test_empty_spans_keep_their_shape():
    first, second, third = split_spans(np.arange(4, dtype=np.float32), [(3, 3), (5, 7), (9, 9)])
    assert (first.shape, second.shape, third.shape) == ((2, 0), (2, 2), (2, 0))
    assert [span.shape for span in split_spans(np.zeros(0, np.float32), [(1, 1), (2, 2)])] == [(1, 0), (1, 0)]


@pytest.mark.parametrize("missing", [{}, {7: {}}, {7: {3: b""}}])
def test_a_rank_that_lacks_a_row_is_an_error(missing):
    whole = ranks([1.0], [1.0])
    with pytest.raises(ModelError, match="captured different rows"):
        merge_ranks([whole[0], whole[1] | {"rows": missing}], mean=True)


class Module:
    sliding_window = None
    num_kv_heads = 2
    head_size = 4

    class impl:
        scale = 0.5
        logits_soft_cap = 0


class Group:
    num_slots = 40


class Runner:
    dtype = torch.float32
    device = torch.device("cpu")


@pytest.mark.parametrize("window", [None, 3, 6, 50])
@pytest.mark.parametrize("softcap", [0, 1.5])
def test_a_row_is_read_through_the_slots(window, softcap, monkeypatch):
    """numpy float64, keys scattered over the slots as a block table would."""
    monkeypatch.setattr(Module, "sliding_window", window)
    monkeypatch.setattr(Module.impl, "logits_soft_cap", softcap)
    rng = np.random.default_rng(1)
    slots = torch.tensor(rng.permutation(40)[:6])
    query, keys = rng.standard_normal((4, 4)), rng.standard_normal((6, 2, 4))
    layer = _Layer(5, Module, Group, Runner)
    layer.write(slots, torch.tensor(keys, dtype=torch.float32))
    wanted = _Wanted(0, [1] * 6, [[0, 2], [2, 6]])
    row = layer.row(torch.tensor(query).float(), _Finishing(wanted, 0, slots, torch.ones(6, dtype=torch.bool)), (-1,))
    scores = np.einsum("hd,khd->hk", query, np.repeat(keys, 2, axis=1)) * 0.5
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    if window is not None and window < 6:
        scores[:, : 6 - window] = -np.inf
    probs = np.exp(scores - scores.max(1, keepdims=True))
    expected = (probs / probs.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(row[:-1].numpy(), expected, atol=1e-6)
    assert row[-1] == 1


def test_a_foreign_key_matters_where_the_window_sees_it(monkeypatch):
    own = torch.tensor([True, True, False, True, True, True])
    wanted = _Wanted(0, [1] * 6, [[0, 6]])
    for window, flag in ((None, 0), (4, 0), (3, 1)):
        monkeypatch.setattr(Module, "sliding_window", window)
        row = _Layer(0, Module, Group, Runner).row(torch.ones(4, 4), _Finishing(wanted, 0, torch.arange(6), own), (0,))
        assert row[-1] == flag


def test_tokens_at_positions_are_told_apart():
    positions, ids = torch.tensor([0, 0, 1, 1, 2**20]), torch.tensor([0, 1, 0, 1, 2**18])
    assert len({0, *_token_at(positions, ids).tolist()}) == 6
