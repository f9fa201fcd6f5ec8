"""Chunked divergences over the vocabulary against torch's own in float64, of heads and of whole packed models."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from pipeline.models.kls import Direction, token_kls
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import PackedRow, Prompted, pack
from pipeline.models.scoring import SUPPORTED_MODEL_TYPES
from tests.models import tiny
from tests.models.test_logps import gradients, items

Head = tuple[Tensor, Tensor, Tensor | None]
"""Hidden states [N, H], weight [V, H], bias [V]."""
BOTH = pytest.mark.parametrize("direction", get_args(Direction))


def reference(policy: Head, frozen: Head, softcap: float | None = None, direction: Direction = "forward") -> Tensor:
    """The definition, in the precision of its arguments."""
    ours, theirs = (_log_probs(*head, softcap) for head in (policy, frozen))
    return divergence(ours, theirs, direction)


def divergence(ours: Tensor, theirs: Tensor, direction: Direction) -> Tensor:
    """Of log-probs [N, V], by torch: `kl_div(x, y)` is KL(y || x)."""
    x, y = (ours, theirs) if direction == "forward" else (theirs, ours)
    return kl_div(x, y, reduction="none", log_target=True).sum(-1)


def _log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    logits = hidden @ weight.T
    if bias is not None:
        logits = logits + bias
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.log_softmax(-1)


def chunked(
    policy: Head,
    frozen: Head,
    softcap: float | None = None,
    logits_at_once: int = 1000,
    direction: Direction = "forward",
) -> Tensor:
    (hidden, weight, bias), (ref_hidden, ref_weight, ref_bias) = policy, frozen
    return token_kls(
        hidden,
        weight,
        ref_hidden,
        ref_weight,
        bias=bias,
        ref_bias=ref_bias,
        softcap=softcap,
        direction=direction,
        logits_at_once=logits_at_once,
    )


def heads(with_bias: bool = False, tokens: int = 50, size: int = 16, seed: int = 0) -> tuple[Head, Head]:
    """Policy and reference over 97 words; the reference's hidden states are wider."""
    torch.manual_seed(seed)
    first, second = (
        (torch.randn(tokens, each), 0.5 * torch.randn(97, each), torch.randn(97) if with_bias else None)
        for each in (size, size + 3)
    )
    return first, second


def double(head: Head) -> Head:
    hidden, weight, bias = head
    return hidden.double(), weight.double(), None if bias is None else bias.double()


def learnt(head: Sequence[Tensor | None]) -> Head:
    hidden, weight, bias = (None if part is None else part.clone().requires_grad_() for part in head)
    assert hidden is not None
    assert weight is not None
    return hidden, weight, bias


@pytest.mark.parametrize(
    ("tokens_at_once", "logits_at_once"), [(20, 1), (1, 20), (7, 200), (20, 3880), (1000, 600), (1000, 10**6)]
)
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [False, True])
@BOTH
def test_values_and_gradients_equal_the_definition_in_float64(
    direction: Direction,
    tokens_at_once: int,
    logits_at_once: int,
    softcap: float | None,
    with_bias: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.models.head.TOKENS_AT_ONCE", tokens_at_once)
    policy, frozen = heads(with_bias)
    upstream = torch.randn(50)
    single, exact = learnt(policy), learnt(double(policy))
    ours = chunked(single, frozen, softcap, logits_at_once, direction)
    theirs = reference(exact, double(frozen), softcap, direction)
    (ours * upstream).sum().backward()
    (theirs * upstream.double()).sum().backward()
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    for one, other in zip(single, exact, strict=True):
        if one is not None:
            torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-5, rtol=1e-5)


@BOTH
def test_bfloat16_logits_are_float32(direction: Direction) -> None:
    """From bfloat16 factors it is exact to float32; with logits in bfloat16 it would be 0.01 and more off."""
    torch.manual_seed(0)
    policy, frozen = ((torch.randn(64, 64).bfloat16(), torch.randn(501, 64).bfloat16(), None) for _ in range(2))
    exact = reference(double(policy), double(frozen), direction=direction)
    ours = chunked(policy, frozen, direction=direction)
    torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=1e-5)
    assert (reference(policy, frozen, direction=direction).double() - exact).abs().max() > 1e-2


@BOTH
def test_bfloat16_gradients(direction: Direction) -> None:
    policy, frozen = heads(tokens=300, size=64)
    policy = (policy[0].bfloat16(), (0.3 * policy[1]).bfloat16(), None)
    frozen = (frozen[0].bfloat16(), (0.3 * frozen[1]).bfloat16(), None)
    single, exact, upstream = learnt(policy), learnt(double(policy)), torch.rand(300)
    (chunked(single, frozen, direction=direction) * upstream).sum().backward()
    (reference(exact, double(frozen), direction=direction) * upstream.double()).sum().backward()
    for one, other in zip(single[:2], exact[:2], strict=True):
        assert one.grad.dtype == torch.bfloat16
        assert (one.grad.double() - other.grad).norm() < 5e-3 * other.grad.norm()


@pytest.mark.parametrize("softcap", [None, 3.0])
@BOTH
def test_same_heads_have_no_divergence_and_no_gradient(direction: Direction, softcap: float | None) -> None:
    policy, _ = heads(with_bias=True)
    moved = learnt(policy)
    kls = chunked(moved, policy, softcap, direction=direction)
    kls.sum().backward()
    assert not kls.any()
    for part in moved:
        assert part is not None
        assert part.grad is not None
        assert not part.grad.any()


@BOTH
def test_is_never_negative(direction: Direction) -> None:
    """Also where the two are so close that rounding is larger than the divergence."""
    policy, _ = heads(tokens=500)
    for step in (1e-6, 1e-4, 1e-2):
        moved = (policy[0] + step * torch.randn_like(policy[0]), policy[1], None)
        kls = chunked(moved, policy, direction=direction)
        assert (kls >= 0).all()
        exact = reference(double(moved), double(policy), direction=direction)
        torch.testing.assert_close(kls.double(), exact, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize(("scale", "largest"), [(30.0, 50.0), (1e4, 2e4)])
@BOTH
def test_logits_far_apart_stay_finite(direction: Direction, scale: float, largest: float) -> None:
    """Words that one of the two never says: their probability is 0 in float32, and the log-ratio in the thousands."""
    policy, frozen = heads(tokens=20)
    policy, frozen = (policy[0], scale * policy[1], None), (frozen[0], scale * frozen[1], None)
    single, exact = learnt(policy), learnt(double(policy))
    ours = chunked(single, frozen, direction=direction)
    theirs = reference(exact, double(frozen), direction=direction)
    ours.sum().backward()
    theirs.sum().backward()
    assert theirs.max() > largest
    torch.testing.assert_close(ours.double(), theirs, atol=5e-7 * largest, rtol=1e-5)
    factors = (exact[1], exact[0])
    for one, other, factor in zip(single[:2], exact[:2], factors, strict=True):
        assert one.grad.isfinite().all()
        # A reverse gradient holds log-ratios less their mean: as exact as float32 holds the ratios.
        rounding = 1e-7 * float(theirs.detach().max() * factor.detach().norm()) if direction == "reverse" else 0.0
        assert (one.grad.double() - other.grad).norm() < 1e-4 * other.grad.norm() + rounding


@pytest.mark.parametrize("masked", [slice(3, 4), slice(0, 25), slice(90, 97)], ids=["a word", "first block", "last"])
@BOTH
def test_words_that_neither_says_play_no_part(direction: Direction, masked: slice) -> None:
    """A bias of -inf, as of words that pad a vocabulary: 0 * (-inf - -inf) is left out."""
    policy, frozen = heads(with_bias=True)
    kept = torch.ones(97, dtype=torch.bool)
    kept[masked] = False
    for _, _, bias in (policy, frozen):
        assert bias is not None
        bias[masked] = -torch.inf
    moved = learnt(policy)
    # Blocks of 10 words.
    kls = chunked(moved, frozen, logits_at_once=1000, direction=direction)
    kls.sum().backward()
    first, second = (
        double((hidden, weight[kept], bias[kept])) for hidden, weight, bias in (policy, frozen) if bias is not None
    )
    torch.testing.assert_close(kls.double(), reference(first, second, direction=direction), atol=1e-5, rtol=1e-5)
    assert moved[1].grad is not None
    assert not moved[1].grad[masked].any()
    assert moved[1].grad.isfinite().all()


@BOTH
@pytest.mark.parametrize("logits_at_once", [100, 1000])
def test_a_word_that_only_the_second_never_says_is_infinitely_far(direction: Direction, logits_at_once: int) -> None:
    policy, frozen = heads(with_bias=True)
    bias = (policy if direction == "forward" else frozen)[2]
    assert bias is not None
    bias[5] = -torch.inf
    assert chunked(policy, frozen, logits_at_once=logits_at_once, direction=direction).isposinf().all()


@BOTH
@pytest.mark.parametrize("logits_at_once", [100, 1000])
def test_a_word_that_only_the_first_never_says_adds_nothing(direction: Direction, logits_at_once: int) -> None:
    """Its probability is 0; the other's log-ratio to it is infinite, and 0 * inf is left out, of gradients too."""
    policy, frozen = heads(with_bias=True)
    bias = (frozen if direction == "forward" else policy)[2]
    assert bias is not None
    bias[5] = -1e4
    exact = learnt(double(policy))
    expected = reference(exact, double(frozen), direction=direction)
    expected.sum().backward()
    bias[5] = -torch.inf
    moved = learnt(policy)
    kls = chunked(moved, frozen, logits_at_once=logits_at_once, direction=direction)
    kls.sum().backward()
    torch.testing.assert_close(kls.double(), expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(moved, exact, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-5, rtol=1e-5)


@BOTH
def test_no_logits_are_kept_for_the_backward_pass(direction: Direction) -> None:
    kept: list[Tensor] = []

    def remember(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    policy = learnt((torch.randn(400, 8), torch.randn(300, 8), None))
    frozen = (torch.randn(400, 8), torch.nn.Parameter(torch.randn(300, 8)), None)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        chunked(policy, frozen, logits_at_once=6000, direction=direction)
    assert max(tensor.numel() for tensor in kept) == policy[0].numel()
    # A Parameter stays one: where activations are kept on the CPU, it is known by its class.
    assert any(tensor is frozen[1] for tensor in kept)


@BOTH
def test_blocks_of_both_models_share_the_limit(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.models import kls

    sizes: list[int] = []
    head_logits = kls.head_logits

    def measured(*given: object) -> Tensor:
        logits = head_logits(*given)
        sizes.append(logits.numel())
        return logits

    monkeypatch.setattr(kls, "head_logits", measured)
    policy, frozen = heads()
    chunked(learnt(policy), frozen, logits_at_once=1000, direction=direction).sum().backward()
    assert max(sizes) == 500


@BOTH
def test_no_gradient_reaches_the_reference(direction: Direction) -> None:
    policy, frozen = heads(with_bias=True)
    before = torch.randn(1, requires_grad=True)
    hidden, weight, bias = learnt(frozen)
    chunked(learnt(policy), (hidden * before, weight, bias), direction=direction).sum().backward()
    assert [part.grad for part in (hidden, weight, bias, before) if part is not None] == [None] * 4


def test_autocast_does_not_reach_the_heads() -> None:
    policy, frozen = heads()
    with torch.autocast("cpu", torch.bfloat16):
        inside = chunked(policy, frozen)
        mixed = chunked((policy[0].bfloat16(), *policy[1:]), (frozen[0].bfloat16(), *frozen[1:]))
    assert torch.equal(inside, chunked(policy, frozen))
    rounded = [(hidden.bfloat16(), weight, None) for hidden, weight, _ in (policy, frozen)]
    torch.testing.assert_close(mixed.double(), reference(*map(double, rounded)), atol=1e-5, rtol=1e-5)


def test_other_vocabularies_and_positions_are_refused() -> None:
    policy, (hidden, weight, _) = heads()
    with pytest.raises(ValueError, match="vocabularies of 97 and 96"):
        chunked(policy, (hidden, weight[:96], None))
    with pytest.raises(ValueError, match="50 and 49 positions"):
        chunked(policy, (hidden[:49], weight, None))


def eager_kls(policy: PreTrainedModel, frozen: PreTrainedModel, given: list[Prompted], direction: Direction) -> Tensor:
    """[M] from transformers' eager attention over one sequence at a time, and whole logits."""
    found = []
    for model in (policy, frozen):
        model.set_attn_implementation("eager")
    for item in given:
        for response in item.responses:
            ids = torch.from_numpy(np.concatenate([item.prompt_ids, response]))[None]
            ours, theirs = (
                model(input_ids=ids, use_cache=False).logits[0, len(item.prompt_ids) - 1 : -1].log_softmax(-1)
                for model in (policy, frozen)
            )
            found.append(divergence(ours, theirs.detach(), direction))
    return torch.cat(found)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("kind", SUPPORTED_MODEL_TYPES)
@BOTH
def test_packed_models_equal_single_rows_of_the_models_own_in_float64(
    direction: Direction, kind: str, share: bool
) -> None:
    """Values, gradients, and log-probs as without a reference."""
    model, frozen = tiny.model(kind), tiny.model(kind, seed=1)
    exact, exact_frozen = tiny.model(kind, torch.float64), tiny.model(kind, torch.float64, seed=1)
    policy, row = LogProbModel(model, logits_at_once=500), pack(items(), share)
    logps, kls = policy(row, LogProbModel(frozen), direction)
    theirs = eager_kls(exact, exact_frozen, items(), direction)
    upstream = torch.randn(len(theirs))
    (kls * upstream).sum().backward()
    (theirs * upstream.double()).sum().backward()
    assert torch.equal(logps, policy(row))
    assert kls.dtype == torch.float32
    torch.testing.assert_close(kls.double(), theirs, atol=1e-5, rtol=1e-5)
    assert all(parameter.grad is None for parameter in frozen.parameters())
    largest = max(float(grad.abs().max()) for grad in gradients(exact).values())
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad.double(), gradients(exact)[name], atol=1e-5 * max(1.0, largest), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@BOTH
def test_a_policy_at_its_start_has_no_divergence_and_no_gradient(direction: Direction, dtype: torch.dtype) -> None:
    """METHODS 7, no. 9."""
    model = tiny.model("gemma2", dtype)
    frozen = LogProbModel(tiny.model("gemma2", dtype))
    _, kls = LogProbModel(model)(pack(items(), share=True), frozen, direction)
    kls.sum().backward()
    assert not kls.any()
    assert all(grad is not None and not grad.any() for grad in gradients(model).values())


def test_the_reference_reads_the_row_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, frozen = LogProbModel(tiny.model("llama")), LogProbModel(tiny.model("llama", seed=1))
    hidden, grads = frozen.hidden, []

    def watched(row: PackedRow) -> Tensor:
        states = hidden(row)
        grads.append(states.requires_grad)
        return states

    monkeypatch.setattr(frozen, "hidden", watched)
    policy(pack(items(), share=True), frozen)
    assert grads == [False]
