"""Logits at single positions."""

import pytest
import torch

from pipeline.attention.head import vocabulary_logits


@pytest.mark.parametrize("rows_per_chunk", [1, 7, 100])
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 29)])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_chunks_equal_one_product(rows_per_chunk, bias, softcap):
    torch.manual_seed(0)
    hidden, weight = torch.randn(3, 16), torch.randn(29, 16)
    expected = hidden.double() @ weight.double().T + (0 if bias is None else bias.double())
    if softcap is not None:
        expected = softcap * torch.tanh(expected / softcap)
    logits = vocabulary_logits(hidden, weight, bias=bias, softcap=softcap, rows_per_chunk=rows_per_chunk)
    torch.testing.assert_close(logits.double(), expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_weights_give_float32_logits():
    """In bfloat16 logits these two letters would tie: 8.00 and 8.01 round to the same number."""
    hidden = torch.ones(1, 2, dtype=torch.bfloat16)
    weight = torch.tensor([[8.0, 0.0], [8.0, 0.0099]], dtype=torch.bfloat16)
    logits = vocabulary_logits(hidden, weight)
    assert logits.dtype == torch.float32
    assert logits[0, 1] > logits[0, 0]
