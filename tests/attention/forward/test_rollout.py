"""Rollout's row against the dense product, in float64, of transformers' own eager attentions."""

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.attention.forward.capture import capturing
from pipeline.attention.forward.rollout import RolloutCapture
from pipeline.errors import ModelError
from pipeline.schemas.attention import ROLLOUT

MODELS = ["llama", "mistral", "qwen2-sliding", "qwen3", "gemma2", "gemma3_text", "phi3", "phi3-sliding"]
LENGTHS = [30, 7, 41, 1, 24]
"""Shorter and longer than the tiny models' windows of 9 to 12."""


def make_ids(lengths=LENGTHS):
    rng = np.random.default_rng(5)
    return [rng.integers(3, 61, length).tolist() for length in lengths]


@torch.inference_mode()
def captured(model, sequences, positions=None, **settings):
    """A RolloutCapture that the model has run through, on a right-padded batch."""
    positions = [len(ids) - 1 for ids in sequences] if positions is None else positions
    batch = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    for row, ids in zip(batch, sequences, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    capture = RolloutCapture(model.config.num_hidden_layers, positions, **settings)
    with capturing(model):
        model.base_model(input_ids=batch, use_cache=False, row_capture=capture)
    return capture


@torch.inference_mode()
def rollout(model, sequences, positions=None, **settings):
    rows = captured(model, sequences, positions, **settings).rows()
    assert list(rows) == [ROLLOUT]
    assert all(row.dtype == torch.float32 for row in rows[ROLLOUT])
    return [row.numpy() for row in rows[ROLLOUT]]


@torch.inference_mode()
def attentions(eager, ids):
    """Per layer the mean over heads, float64 [S, S]."""
    output = eager(torch.tensor([ids]), output_attentions=True, use_cache=False)
    return [attention[0].double().mean(0).numpy() for attention in output.attentions]


def dense(eager, ids):
    """R = Â_L … Â_1 [S, S], every matrix written out."""
    product = np.eye(len(ids))
    for attention in attentions(eager, ids):
        product = (0.5 * attention + 0.5 * np.eye(len(ids))) @ product
    return product


def of_one_layer(model):
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    return model


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_dense_product_batched_and_alone(name, tiny_model):
    sequences = make_ids()
    eager = tiny_model(name, "eager")
    expected = [dense(eager, ids)[-1] for ids in sequences]
    assert expected[2][:-1].max() > 2 / LENGTHS[2], "near uniform: proves little"
    model = tiny_model(name)
    alone = [rollout(model, [ids])[0] for ids in sequences]
    for rows in (alone, rollout(model, sequences)):
        for row, reference in zip(rows, expected, strict=True):
            np.testing.assert_allclose(row, reference[None], rtol=0, atol=1e-5)
            assert row.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_the_query_position_may_be_any(name, tiny_model):
    sequences, positions = make_ids([30, 41, 35]), [17, 40, 0]
    eager = tiny_model(name, "eager")
    for ids, position, row in zip(sequences, positions, rollout(tiny_model(name), sequences, positions), strict=True):
        np.testing.assert_allclose(row, dense(eager, ids)[position, None, : position + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_of_one_layer_it_is_half_attention_half_identity(name, tiny_model):
    ids = make_ids([20])[0]
    eager = of_one_layer(tiny_model(name, "eager"))
    expected = 0.5 * attentions(eager, ids)[0][-1] + 0.5 * np.eye(20)[-1]
    row = rollout(of_one_layer(tiny_model(name)), [ids])[0]
    np.testing.assert_allclose(row[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen2-sliding"])
@pytest.mark.parametrize("scores_per_block", [1, 8 * 41 * 3, 8 * 41 * 16])
def test_the_block_size_does_not_change_the_rows(scores_per_block, name, tiny_model):
    model, sequences = tiny_model(name), make_ids()
    whole = rollout(model, sequences, scores_per_block=1 << 24)
    for row, expected in zip(rollout(model, sequences, scores_per_block=scores_per_block), whole, strict=True):
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-6)


def test_bfloat16_states_are_multiplied_in_float32():
    """The states as they are rounded, the rest in float32: a bfloat16 product would be off by about 1e-3."""
    torch.manual_seed(1)
    query, key = torch.randn(2, 1, 4, 50, 8).bfloat16()
    capture = RolloutCapture(2, [49])
    reference = RolloutCapture(2, [49])
    for layer in range(2):
        capture.record(layer, query, key, 0.6, softcap=None, window=None, mask=None)
        reference.record(layer, query.float(), key.float(), 0.6, softcap=None, window=None, mask=None)
    row = capture.rows()[ROLLOUT][0]
    torch.testing.assert_close(row, reference.rows()[ROLLOUT][0], rtol=0, atol=1e-7)


class Watch(TorchDispatchMode):
    """The elements of the largest tensor that any operation returned, and the fewest of `storages` then alive."""

    def __init__(self, storages=()):
        super().__init__()
        self.storages = storages
        self.largest = 0
        self.fewest = len(storages)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        self.fewest = min(self.fewest, sum(not storage.expired() for storage in self.storages))
        return output


@pytest.mark.parametrize("name", ["llama", "qwen2-sliding", "gemma2"])
def test_no_attention_matrix_is_ever_held(name, tiny_model):
    model = tiny_model(name)
    model.config.max_position_embeddings = length = 600
    capture = captured(model, make_ids([length]))
    with torch.inference_mode(), Watch() as watch:
        capture.rows()
    heads = model.config.num_attention_heads
    assert length * heads < watch.largest < heads * length * length / 4


def test_the_top_layer_costs_one_row(tiny_model):
    model = of_one_layer(tiny_model("llama"))
    model.config.max_position_embeddings = length = 600
    capture = captured(model, make_ids([length]))
    with torch.inference_mode(), Watch() as watch:
        capture.rows()
    states = length * model.config.hidden_size
    assert watch.largest <= max(states, length * model.config.num_attention_heads)


def test_what_lies_beyond_every_window_is_0_and_not_computed():
    """Two layers with windows of 3 reach 4 positions back; NaN beyond them does not come through."""
    query, key = torch.randn(2, 1, 4, 20, 8)
    query[:, :, :15] = key[:, :, :15] = float("nan")
    capture = RolloutCapture(2, [19])
    for layer in range(2):
        capture.record(layer, query, key, 0.3, softcap=None, window=3, mask=causal_mask(20, 3))
    row = capture.rows()[ROLLOUT][0][0]
    assert (row[15:] > 0).all()
    assert (row[:15] == 0).all()
    assert row.sum() == pytest.approx(1)


def test_a_nan_that_is_attended_to_shows_in_the_row():
    query, key = torch.randn(2, 1, 4, 20, 8)
    key[:, :, 7] = float("nan")
    capture = RolloutCapture(1, [19])
    capture.record(0, query, key, 0.3, softcap=None, window=None, mask=None)
    assert capture.rows()[ROLLOUT][0].isnan().any()


def record(capture, layer=0, *, queries=6, batch=1, window=None, mask=None):
    """Random states [batch, 4 and 2, queries and 6, 8]; weak references to their memory."""
    query, key = torch.randn(batch, 4, queries, 8), torch.randn(batch, 2, 6, 8)
    capture.record(layer, query, key, 0.3, softcap=None, window=window, mask=mask)
    return [StorageWeakRef(states.untyped_storage()) for states in (query, key)]


def causal_mask(length=6, window=None):
    positions = torch.arange(length)
    mask = positions[None, :] <= positions[:, None]
    if window is not None:
        mask &= positions[None, :] > positions[:, None] - window
    return mask[None, None]


def test_a_layer_is_released_once_the_row_has_passed_it():
    capture = RolloutCapture(4, [5])
    storages = [storage for layer in range(4) for storage in record(capture, layer)]
    with Watch(storages) as watch:
        capture.rows()
    assert watch.fewest == 2, "while the lowest layer is worked on, its states alone are left"
    assert all(storage.expired() for storage in storages)


def test_padding_is_not_kept():
    capture = RolloutCapture(1, [3, 4])
    assert all(storage.expired() for storage in record(capture, batch=2))


def test_a_layer_that_was_not_seen_is_an_error():
    capture = RolloutCapture(3, [5])
    record(capture, 1)
    with pytest.raises(ModelError, match=r"layers \[0, 2\]"):
        capture.rows()


def test_a_layer_that_goes_around_the_registry_is_an_error(tiny_model):
    model = tiny_model("llama")
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(ModelError, match=r"layers \[1\]"):
        rollout(model, make_ids([5]))


def test_a_layer_seen_twice_is_an_error():
    capture = RolloutCapture(2, [5])
    record(capture, 1)
    with pytest.raises(ModelError, match="layer 1 ran twice"):
        record(capture, 1)


def test_a_layer_beyond_those_announced_is_an_error():
    with pytest.raises(ModelError, match="layer 2 ran, but rollout was set up for 2 layers"):
        record(RolloutCapture(2, [5]), 2)


@pytest.mark.parametrize("call", [{"batch": 2}, {"queries": 1}], ids=["another batch", "a cached step"])
def test_states_of_another_batch_are_an_error(call):
    with pytest.raises(ModelError, match="whole sequences"):
        record(RolloutCapture(1, [5]), **call)


@pytest.mark.parametrize("window", [None, 3, 6])
def test_the_model_mask_is_accepted(window):
    capture = RolloutCapture(1, [4])
    record(capture, window=window, mask=causal_mask(window=window))
    assert capture.rows()[ROLLOUT][0].shape == (1, 5)


def without(mask, query, key):
    mask = mask.clone()
    mask[..., query, key] = False
    return mask


@pytest.mark.parametrize(
    ("window", "mask"),
    [
        (None, causal_mask(window=3)),
        (3, causal_mask()),
        (3, None),
        (None, torch.ones(1, 1, 6, 6, dtype=torch.bool)),
        (None, without(causal_mask(), 2, 1)),
        (None, causal_mask().float()),
    ],
    ids=["masks more", "masks less", "no mask for a window", "sees the future", "an earlier query's", "additive"],
)
def test_a_mask_that_is_not_rollouts_rule_is_an_error(window, mask):
    with pytest.raises(ModelError, match="layer 0 ran with a mask"):
        record(RolloutCapture(1, [4]), window=window, mask=mask)


def test_the_mask_behind_the_query_position_plays_no_part():
    record(RolloutCapture(1, [4]), mask=without(causal_mask(), 5, 1))
