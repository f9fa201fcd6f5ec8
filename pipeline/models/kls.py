"""KL of the next token between reference and policy over the whole vocabulary, without storing the logits of a batch.

Both heads are read once, in blocks of the same words. The divergence KL(p || q) is put together by its chain rule:
between the distributions within a block, weighted by p's share of the block, plus between the shares of the blocks.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.models.head import LOGITS_AT_ONCE, HeadGradients, blocks, head_logits, softcap_slope

Direction = Literal["forward", "reverse"]
"""forward: KL(pi_ref || pi_theta); reverse: KL(pi_theta || pi_ref)."""
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
    direction: Direction = "forward",
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Tensor:
    """sum_v p(v) (log p(v) - log q(v)), in nats, in blocks of logits, differentiable once.

    forward: p is the reference, q the policy, as in TDPO (METHODS 4.1; its official code has the same direction).
    reverse: the other way round, as in TIS-DPO (METHODS 4.2). Gradient reaches `hidden`, `weight` and `bias`, the
    policy's; the reference is a constant.

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
    return _TokenKls.apply(
        hidden, weight, bias, ref_hidden, ref_weight, ref_bias, softcap, direction, logits_at_once // 2
    )


class _TokenKls(torch.autograd.Function):
    """Keeps the divergences and the normalizers of both models. The backward pass computes the logits again."""

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
        direction: Direction,
        logits_at_once: int,
    ) -> Tensor:
        forward = direction == "forward"
        kls = hidden.new_zeros(len(hidden), dtype=torch.float64)
        # Of p and of q, the log of the sum of exponentials of the words so far, in float64 as in `logps`.
        normalizers = hidden.new_full((2, len(hidden)), _LOWEST, dtype=torch.float64)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, words in blocks(len(hidden), len(weight), logits_at_once):
                policy = head_logits(hidden[rows], weight, bias, softcap, words)
                reference = head_logits(ref_hidden[rows], ref_weight, ref_bias, softcap, words)
                block_kls, block = _within_block(*((reference, policy) if forward else (policy, reference)))
                before = normalizers[:, rows]
                after = torch.logaddexp(before, block)
                kls[rows] = _part(kls[rows], before - after) + _part(block_kls, block - after)
                normalizers[:, rows] = after
        kls = kls.clamp_min_(0).float()
        of_policy, of_reference = (normalizers.flip(0) if forward else normalizers).float()
        ctx.save_for_backward(
            hidden, weight, bias, ref_hidden, ref_weight, ref_bias, of_policy, of_reference, None if forward else kls
        )
        ctx.softcap, ctx.logits_at_once = softcap, logits_at_once
        return kls

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_kls: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ref_hidden, ref_weight, ref_bias, of_policy, of_reference, kls = ctx.saved_tensors
        grads = HeadGradients(hidden, weight, bias, ctx.needs_input_grad)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, words in blocks(len(hidden), len(weight), ctx.logits_at_once):
                policy = head_logits(hidden[rows], weight, bias, ctx.softcap, words)
                reference = head_logits(ref_hidden[rows], ref_weight, ref_bias, ctx.softcap, words)
                slope = softcap_slope(policy, ctx.softcap)
                policy.sub_(of_policy[rows, None])
                reference.sub_(of_reference[rows, None])
                grad = (
                    _forward_slope(policy, reference) if kls is None else _reverse_slope(policy, reference, kls[rows])
                )
                grad.mul_(grad_kls[rows, None])
                grads.add(rows, words, grad if slope is None else grad.mul_(slope))
        return *grads.sums(), None, None, None, None, None, None


def _forward_slope(policy: Tensor, reference: Tensor) -> Tensor:
    """p_theta - p_ref [n, v], the derivative of KL(pi_ref || pi_theta) by the policy's logits; uses up log-probs."""
    return policy.exp_().sub_(reference.exp_())


def _reverse_slope(policy: Tensor, reference: Tensor, kls: Tensor) -> Tensor:
    """p_theta (log p_theta - log p_ref - KL) [n, v], the same of KL(pi_theta || pi_ref), `kls` [n]."""
    ratios = torch.sub(policy, reference, out=reference).sub_(kls[:, None])
    shares = policy.exp_()
    return ratios.masked_fill_(shares == 0, 0).mul_(shares)


def _within_block(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p || q) [n] of the distributions that logits over a block's words [n, v] make, and both normalizers [2, n].

    float64. Uses up the logits.
    """
    normalizers = torch.stack([p.logsumexp(-1), q.logsumexp(-1)]).clamp_min_(_LOWEST)
    p.sub_(normalizers[0, :, None])
    q.sub_(normalizers[1, :, None])
    shares = p.exp()
    # A word that p never says adds nothing, however impossible q holds it: 0 * -inf is NaN.
    ratios = p.sub_(q).masked_fill_(shares == 0, 0)
    return shares.mul_(ratios).sum(-1).double(), normalizers.double()


def _part(kls: Tensor, log_shares: Tensor) -> Tensor:
    """What some of the words add to KL(p || q) [n]: `kls` within them, `log_shares` [2, n] of p and q in all."""
    return log_shares[0].exp() * (kls + log_shares[0] - log_shares[1])
