"""KL(pi_ref || pi_theta) of the next token over the whole vocabulary, without ever storing the logits of a batch.

Both heads are read once, in blocks of the same words. The divergence is put together by its chain rule: between the
distributions within a block, weighted by the reference's share of the block, plus between the shares of the blocks.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.models.head import LOGITS_AT_ONCE, HeadGradients, blocks, head_logits, softcap_slope

_LOWEST = torch.finfo(torch.float32).min
"""Stands for the log of nothing: its differences are finite, those of -inf are not."""


def token_kls(
    hidden: Tensor,
    weight: Tensor,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    *,
    bias: Tensor | None = None,
    ref_bias: Tensor | None = None,
    softcap: float | None = None,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Tensor:
    """sum_v p_ref(v) (log p_ref(v) - log p_theta(v)), in nats, in blocks of logits, differentiable once.

    The forward divergence of TDPO (METHODS 4.1; its official code has the same direction). Gradient reaches `hidden`,
    `weight` and `bias`, the policy's; the reference is a constant.

    Args:
        hidden, ref_hidden: [N, H] and [N, H'], any floating dtype, of the same N positions.
        weight, ref_weight: [V, H] and [V, H'], of the same vocabulary; bias, ref_bias: [V].
        softcap: c of Gemma-2's c * tanh(logits / c), in both models.
        logits_at_once: logits of both models together that exist at one time, 4 bytes each.

    Returns:
        float32 [N], at least 0 (what rounding leaves below is 0).

    Raises ValueError where the two have other numbers of positions or words.
    """
    if len(hidden) != len(ref_hidden) or len(weight) != len(ref_weight):
        raise ValueError(
            f"policy and reference differ: {len(hidden)} and {len(ref_hidden)} positions, vocabularies of "
            f"{len(weight)} and {len(ref_weight)}"
        )
    # Not detached: what keeps activations elsewhere knows a Parameter by its class, and no gradient is made for it.
    return _TokenKls.apply(hidden, weight, bias, ref_hidden, ref_weight, ref_bias, softcap, logits_at_once // 2)


class _TokenKls(torch.autograd.Function):
    """Keeps the normalizers of both models. The backward pass computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ref_hidden: Tensor,
        ref_weight: Tensor,
        ref_bias: Tensor | None,
        softcap: float | None,
        logits_at_once: int,
    ) -> Tensor:
        kls = hidden.new_zeros(len(hidden), dtype=torch.float64)
        # Policy, reference: log of the sum of exponentials of the words so far, in float64 as in `logps`.
        normalizers = hidden.new_full((2, len(hidden)), _LOWEST, dtype=torch.float64)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, words in blocks(len(hidden), len(weight), logits_at_once):
                policy = head_logits(hidden[rows], weight, bias, softcap, words)
                reference = head_logits(ref_hidden[rows], ref_weight, ref_bias, softcap, words)
                block_kls, block = _within_block(policy, reference)
                before = normalizers[:, rows]
                after = torch.logaddexp(before, block)
                kls[rows] = _part(kls[rows], before - after) + _part(block_kls, block - after)
                normalizers[:, rows] = after
        ctx.save_for_backward(hidden, weight, bias, ref_hidden, ref_weight, ref_bias, normalizers.float())
        ctx.softcap, ctx.logits_at_once = softcap, logits_at_once
        return kls.clamp_min_(0).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_kls: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ref_hidden, ref_weight, ref_bias, normalizers = ctx.saved_tensors
        grads = HeadGradients(hidden, weight, bias, ctx.needs_input_grad)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, words in blocks(len(hidden), len(weight), ctx.logits_at_once):
                policy = head_logits(hidden[rows], weight, bias, ctx.softcap, words)
                reference = head_logits(ref_hidden[rows], ref_weight, ref_bias, ctx.softcap, words)
                slope = softcap_slope(policy, ctx.softcap)
                # p_theta - p_ref
                grad = policy.sub_(normalizers[0, rows, None]).exp_()
                grad.sub_(reference.sub_(normalizers[1, rows, None]).exp_()).mul_(grad_kls[rows, None])
                grads.add(rows, words, grad if slope is None else grad.mul_(slope))
        return *grads.sums(), None, None, None, None, None


def _within_block(policy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """KL [n] between the two distributions over a block's words [n, v], and both normalizers [2, n]; float64.

    Uses up the logits.
    """
    normalizers = torch.stack([policy.logsumexp(-1), reference.logsumexp(-1)]).clamp_min_(_LOWEST)
    policy.sub_(normalizers[0, :, None])
    reference.sub_(normalizers[1, :, None])
    shares = reference.exp()
    # A word that the reference never says adds nothing, however impossible the policy holds it: 0 * -inf is NaN.
    ratios = reference.sub_(policy).masked_fill_(shares == 0, 0)
    return shares.mul_(ratios).sum(-1).double(), normalizers.double()


def _part(kls: Tensor, log_shares: Tensor) -> Tensor:
    """What some of the words add to KL [n]: `kls` within them, `log_shares` [2, n] of policy and reference in all."""
    return log_shares[1].exp() * (kls + log_shares[1] - log_shares[0])
