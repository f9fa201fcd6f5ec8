"""Queries at the end of their keys, against softmax written out in float64."""

import pytest
import torch

from pipeline.models.packed import causal
from pipeline.models.packed.causal import CausalAttention
from pipeline.models.packed.softcap import softcapped_attention

CUDA = torch.cuda.is_available()


def reference(query, key, value, scale, softcap):
    query, key, value = query.double(), key.double(), value.double()
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    own, length = scores.shape[2:]
    visible = torch.arange(length)[None] <= torch.arange(length - own, length)[:, None]
    visible = visible.to(query.device)
    return scores.masked_fill(~visible, float("-inf")).softmax(-1) @ value


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(("heads", "key_heads"), [(6, 2), (4, 4)])
@pytest.mark.parametrize(("own", "length"), [(1, 1), (1, 9), (5, 40), (30, 40), (40, 40), (70, 150), (33, 3000)])
def test_equals_definition(own, length, heads, key_heads, softcap, monkeypatch):
    monkeypatch.setattr(causal, "QUERIES_PER_BLOCK", 32)
    torch.manual_seed(0)
    query = 3 * torch.randn(1, heads, own, 8)
    key, value = torch.randn(1, key_heads, length, 8), torch.randn(1, key_heads, length, 8)
    attention = CausalAttention()
    for _ in range(2):
        output = attention(query, key, value, 0.4, softcap)
        torch.testing.assert_close(output.double(), reference(query, key, value, 0.4, softcap), atol=1e-5, rtol=0)


def test_one_object_serves_growing_lengths_and_other_types():
    attention = CausalAttention()
    for length, dtype in ((20, torch.float32), (4000, torch.float32), (50, torch.bfloat16)):
        query, states = torch.randn(1, 2, 10, 8).to(dtype), torch.randn(1, 2, length, 8).to(dtype)
        output = attention(query, states, states, 0.4, None)
        assert output.dtype == dtype
        torch.testing.assert_close(
            output.double(),
            reference(query, states, states, 0.4, None),
            atol=2e-2 if dtype == torch.bfloat16 else 1e-5,
            rtol=0,
        )


def test_soft_cap_in_blocks_of_queries_at_the_end():
    query, states = torch.randn(1, 4, 7, 8), torch.randn(1, 2, 19, 8)
    whole = softcapped_attention(query, states, states, 0.4, 1.5)
    blocks = softcapped_attention(query, states, states, 0.4, 1.5, scores_per_block=4 * 19 * 2)
    torch.testing.assert_close(blocks, whole)
    torch.testing.assert_close(whole.double(), reference(query, states, states, 0.4, 1.5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not CUDA, reason="no GPU"))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("own", "length", "size"), [(7, 19, 8), (1, 19, 64), (40, 300, 64), (40, 300, 256)])
def test_lower_right_bias_aligns_queries_and_keys_at_their_ends(own, length, size, dtype, device):
    """On the CPU torch materializes the bias; on CUDA its flash or memory-efficient kernel runs."""
    query = torch.randn(1, 4, own, size, dtype=dtype, device=device)
    states = torch.randn(1, 2, length, size, dtype=dtype, device=device)
    output = causal._lower_right(query, states, states, 0.4)
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(output.double(), reference(query, states, states, 0.4, None), atol=tolerance, rtol=0)
