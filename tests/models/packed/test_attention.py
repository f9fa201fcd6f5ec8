"""Attention over a packed row: every implementation against transformers' own over padded rows; what each refuses."""

import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError, ModelError
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.attention import PackedAttention, packed_segments
from pipeline.models.packed.causal import CausalAttention
from pipeline.models.packed.layout import PackedRow, Prompted, pack
from pipeline.models.packed.masks import block_mask, dense_mask
from tests.models import tiny
from tests.models.test_logps import items, padded_logps


def visible(row: PackedRow) -> Tensor:
    """By the definition: its own segment up to it, and all of its prefix."""
    length = row.input_ids.shape[1]
    mask = torch.zeros(length, length, dtype=torch.bool)
    for segment in row.segments:
        for query in range(segment.start, segment.stop):
            mask[query, segment.start : query + 1] = True
            mask[query, slice(*segment.prefix)] = True
    return mask


@pytest.mark.parametrize("share", [False, True])
def test_masks_are_the_definition(share: bool) -> None:
    row = pack(items(), share)
    length = row.input_ids.shape[1]
    assert torch.equal(dense_mask(row)[0, 0], visible(row))
    sees = block_mask(row).mask_mod
    places = torch.arange(length)
    assert torch.equal(sees(None, None, places[:, None], places[None, :]), visible(row))


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3"])
def test_transformers_sdpa(kind: str, share: bool) -> None:
    ours = LogProbModel(tiny.model(kind), attention="sdpa")(pack(items(), share))
    torch.testing.assert_close(ours, padded_logps(tiny.model(kind), items()), atol=1e-5, rtol=1e-5)


def test_positions_that_restart_keep_transformers_from_crossing_borders() -> None:
    """The reason why no mask and no cache are passed: with either, attention crosses in silence."""
    model, row = tiny.model("llama"), pack(items(), share=False)
    expected = padded_logps(tiny.model("llama"), items())
    model.set_attn_implementation("sdpa")
    crossing = model.model(input_ids=row.input_ids, position_ids=row.position_ids, use_cache=True)
    states = crossing.last_hidden_state[0, row.predictors]
    logps = model.lm_head(states).log_softmax(-1).gather(-1, row.targets[:, None])[:, 0]
    assert (logps - expected).abs().max() > 0.01


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 3, 300])
def test_windows_and_soft_caps_with_long_blocks(
    window: int | None, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.models.packed.causal.QUERIES_PER_BLOCK", 4)
    row = pack([Prompted([0] * 5, [[0] * 6, [0] * 9]), Prompted([0] * 2, [[0] * 3])], share=True)
    length = row.input_ids.shape[1]
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, length, 8).double().requires_grad_() for heads in (4, 2, 2))
    scores = query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.7
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    distance = row.position_ids[0][:, None] - row.position_ids[0][None]
    mask = visible(row) & (distance < (window or length))
    expected = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ value.repeat_interleave(2, 1)

    single = [part.detach().float().requires_grad_() for part in (query, key, value)]
    module = torch.nn.Module()
    output, _ = packed_segments(
        module,
        *single,
        None,
        segments=row.segments,
        causal=CausalAttention(),
        scaling=0.7,
        softcap=softcap,
        sliding_window=window,
    )
    upstream = torch.randn(output.shape)
    (output * upstream).sum().backward()
    (expected.transpose(1, 2) * upstream.double()).sum().backward()
    torch.testing.assert_close(output.double(), expected.transpose(1, 2), atol=1e-5, rtol=1e-5)
    for one, other in zip(single, (query, key, value), strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "implementation", "reason"),
    [
        ("gemma2", "sdpa", "drops the soft-cap"),
        ("llama", "flash_attention_2", "needs a CUDA device"),
        ("llama", "flex_attention", "needs a CUDA device"),
    ],
)
def test_what_an_implementation_lacks_is_said(kind: str, implementation: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"runtime\.attention: {implementation} {reason}.*; set `segments`"):
        PackedAttention(tiny.model(kind), implementation)


def test_a_window_and_shared_prompts_under_sdpa() -> None:
    head = LogProbModel(tiny.model("mistral"), attention="sdpa")
    head(pack(items(), share=False))
    with pytest.raises(ConfigError, match=r"sliding window of 5; set runtime\.share_prompts: false"):
        head(pack(items(), share=True))


def test_biases_and_masks_are_refused() -> None:
    states = torch.zeros(1, 1, 2, 4)
    row = pack([Prompted([0], [[0]])], share=True)
    given = {"segments": row.segments, "causal": CausalAttention()}
    with pytest.raises(ModelError, match="adds \\['s_aux'\\]"):
        packed_segments(torch.nn.Linear(1, 1), states, states, states, None, **given, s_aux=states)
    with pytest.raises(ModelError, match="Linear brought a mask"):
        packed_segments(torch.nn.Linear(1, 1), states, states, states, states, **given)
