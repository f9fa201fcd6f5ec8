"""Soft-capped attention in blocks against transformers' own eager Gemma-2 attention."""

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from pipeline.models.packed.softcap import softcapped_attention

BATCH, HEADS, KEY_HEADS, LENGTH, SIZE = 2, 6, 2, 23, 8


class Layer:
    """What eager attention reads of its module."""

    num_key_value_groups = HEADS // KEY_HEADS
    training = False


@pytest.mark.parametrize("block", [1, 3 * BATCH * HEADS * LENGTH, 1 << 24])
@pytest.mark.parametrize("window", [None, 7])
def test_equals_eager(block, window):
    torch.manual_seed(0)
    query = torch.randn(BATCH, HEADS, LENGTH, SIZE)
    key, value = torch.randn(2, BATCH, KEY_HEADS, LENGTH, SIZE)
    positions = torch.arange(LENGTH)
    visible = positions[None, :] <= positions[:, None]
    if window is not None:
        visible &= positions[None, :] > positions[:, None] - window
    additive = torch.where(visible, 0.0, torch.finfo(torch.float32).min)[None, None]
    expected, _ = eager_attention_forward(Layer(), query, key, value, additive, scaling=0.9, softcap=1.2)
    mask = visible[None, None].expand(BATCH, 1, LENGTH, LENGTH) if window is not None else None
    output = softcapped_attention(query, key, value, 0.9, 1.2, mask, scores_per_block=block)
    torch.testing.assert_close(output.transpose(1, 2), expected, atol=1e-6, rtol=1e-6)


def test_keeps_the_dtype_of_the_model():
    query, key, value = (torch.randn(1, heads, 5, 4).bfloat16() for heads in (4, 2, 2))
    assert softcapped_attention(query, key, value, 1.0, 5.0).dtype == torch.bfloat16
