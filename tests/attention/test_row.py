"""The row against a float64 reference that spells the definition out."""

import math

import numpy as np
import pytest
import torch

from pipeline.attention.row import attention_row, choose_heads
from pipeline.schemas.attention import MEAN_OVER_HEADS


def reference(query, keys, scale, softcap=None, window=None):
    """softmax over the visible keys, head by head, in float64."""
    heads, length = query.shape[0], keys.shape[1]
    row = np.zeros((heads, length))
    for head in range(heads):
        key_head = head // (heads // keys.shape[0])
        for position in range(length):
            score = float(np.dot(query[head], keys[key_head, position])) * scale
            if softcap is not None:
                score = softcap * math.tanh(score / softcap)
            visible = window is None or position > length - 1 - window
            row[head, position] = math.exp(score) if visible else 0.0
    return row / row.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("heads", "key_heads"), [(6, 6), (6, 2), (6, 1)])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 5, 12, 13, 40])
def test_equals_definition(heads, key_heads, softcap, window):
    rng = np.random.default_rng(0)
    query, keys = rng.normal(size=(heads, 8)), rng.normal(size=(key_heads, 13, 8))
    row = attention_row(
        torch.tensor(query, dtype=torch.float32),
        torch.tensor(keys, dtype=torch.float32),
        0.7,
        softcap=softcap,
        window=window,
    )
    assert row.dtype == torch.float32
    np.testing.assert_allclose(row.numpy(), reference(query, keys, 0.7, softcap, window), atol=1e-6)


def test_bfloat16_states_give_a_float32_row():
    query, keys = torch.randn(4, 16), torch.randn(2, 50, 16)
    half_query, half_keys = query.bfloat16(), keys.bfloat16()
    row = attention_row(half_query, half_keys, 0.25)
    assert row.dtype == torch.float32
    exact = reference(half_query.double().numpy(), half_keys.double().numpy(), 0.25)
    np.testing.assert_allclose(row.numpy(), exact, atol=1e-6)


def test_rows_are_distributions():
    row = attention_row(30 * torch.randn(4, 16), torch.randn(4, 200, 16), 1.0)
    torch.testing.assert_close(row.sum(-1), torch.ones(4))
    torch.testing.assert_close(choose_heads(row, [MEAN_OVER_HEADS]).sum(), torch.tensor(1.0))


def test_mean_is_float32_for_half_precision_rows():
    assert choose_heads(torch.rand(3, 5).bfloat16(), [MEAN_OVER_HEADS]).dtype == torch.float32


@pytest.mark.parametrize(("query", "keys"), [((4, 8), (2, 5, 16)), ((4, 8), (3, 5, 8))])
def test_refuses_states_of_different_layers(query, keys):
    with pytest.raises(ValueError, match="do not belong to one layer"):
        attention_row(torch.zeros(query), torch.zeros(keys), 1.0)


def test_chosen_heads_in_their_order():
    row = torch.arange(12.0).view(4, 3)
    torch.testing.assert_close(choose_heads(row, [1, 3]), row[[1, 3]])
    torch.testing.assert_close(choose_heads(row, [MEAN_OVER_HEADS]), row.mean(0, keepdim=True))
