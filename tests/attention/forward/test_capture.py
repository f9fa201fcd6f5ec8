"""A row is right, or there is an error: gaps and mask disagreements are never silent."""

import pytest
import torch

from pipeline.attention.forward.capture import IMPLEMENTATION, RowCapture, capturing, query_row_attention
from pipeline.errors import ModelError
from pipeline.schemas.attention import MEAN_OVER_HEADS

LENGTH = 6
MEAN = (MEAN_OVER_HEADS,)


def record(capture, layer=0, *, queries=LENGTH, batch=1, window=None, mask=None):
    query = torch.randn(batch, 4, queries, 8)
    key = torch.randn(batch, 2, LENGTH, 8)
    capture.record(layer, query, key, 0.3, softcap=None, window=window, mask=mask)


def causal_mask(window=None):
    positions = torch.arange(LENGTH)
    mask = positions[None, :] <= positions[:, None]
    if window is not None:
        mask &= positions[None, :] > positions[:, None] - window
    return mask[None, None]


def test_a_layer_that_was_not_seen_is_an_error():
    capture = RowCapture([0, 2], [LENGTH - 1], MEAN)
    record(capture, 0)
    with pytest.raises(ModelError, match=r"layers \[2\]"):
        capture.rows()


def test_a_layer_seen_twice_is_an_error():
    capture = RowCapture([0], [LENGTH - 1], MEAN)
    record(capture, 0)
    with pytest.raises(ModelError, match="twice"):
        record(capture, 0)


@pytest.mark.parametrize("call", [{"batch": 2}, {"queries": 1}], ids=["another batch", "a cached step"])
def test_states_of_another_batch_are_an_error(call):
    with pytest.raises(ModelError, match="whole sequences"):
        record(RowCapture([0], [LENGTH - 1], MEAN), **call)


def test_unwanted_layers_are_not_kept():
    capture = RowCapture([1], [2], MEAN)
    record(capture, 0)
    record(capture, 1)
    rows = capture.rows()
    assert list(rows) == [1]
    assert [tuple(row.shape) for row in rows[1]] == [(1, 3)]


@pytest.mark.parametrize("window", [None, 3, LENGTH])
def test_the_model_mask_is_accepted(window):
    capture = RowCapture([0], [4], MEAN)
    record(capture, window=window, mask=causal_mask(window))
    assert capture.rows()[0][0].shape == (1, 5)


@pytest.mark.parametrize(
    ("window", "mask"),
    [(None, causal_mask(3)), (3, causal_mask()), (3, None), (None, torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool))],
    ids=["masks more", "masks less", "no mask for a window", "sees the future"],
)
def test_a_mask_that_is_not_the_rows_rule_is_an_error(window, mask):
    with pytest.raises(ModelError, match="layer 0 ran with a mask"):
        record(RowCapture([0], [4], MEAN), window=window, mask=mask)


def test_sinks_are_refused():
    module = torch.nn.Linear(1, 1)
    states = torch.randn(1, 2, 3, 4)
    with pytest.raises(ModelError, match="s_aux"):
        query_row_attention(module, states, states, states, None, s_aux=torch.zeros(2))


def test_a_layer_that_goes_around_the_registry_is_an_error(tiny_model):
    model = tiny_model("llama")
    attention = model.model.layers[1].self_attn
    attention.forward = lambda hidden_states, **_: (hidden_states, None)
    capture = RowCapture([0, 1, 3], [4], MEAN)
    with torch.inference_mode(), capturing(model):
        model.base_model(input_ids=torch.arange(5)[None], use_cache=False, row_capture=capture)
    with pytest.raises(ModelError, match=r"layers \[1\]"):
        capture.rows()


def test_the_implementation_is_restored_also_after_an_error(tiny_model):
    model = tiny_model("llama", "eager")
    with capturing(model):
        assert model.config._attn_implementation == IMPLEMENTATION
    unknown_token = torch.tensor([[10_000]])
    with pytest.raises(IndexError), capturing(model):
        model.base_model(input_ids=unknown_token, use_cache=False)
    assert model.config._attn_implementation == "eager"
