"""Per-token log-probabilities without ever storing the logits of a batch.

The head's matrix product, softmax and gather run over a block of logits at a time, forward and backward, in float32
whatever the model's dtype: bfloat16 logits alone put an error of 0.06 to 0.12 on a log-probability.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from pipeline.errors import ModelError
from pipeline.models.head import LOGITS_AT_ONCE, HeadGradients, blocks, head_logits, softcap_slope
from pipeline.models.kls import Direction, token_kls
from pipeline.models.packed.attention import PackedAttention
from pipeline.models.packed.layout import PackedRow
from pipeline.models.rope import longrope_boundaries
from pipeline.models.scoring import SUPPORTED_MODEL_TYPES


class Reference(Protocol):
    """A model beside the policy whose distributions over the same vocabulary it is compared with."""

    @property
    def head(self) -> nn.Linear:
        """From hidden states [M, H] to logits [M, V], before a soft-cap."""

    def hidden(self, row: PackedRow) -> Tensor:
        """As LogProbModel.hidden."""


class LogProbModel(nn.Module):
    """A causal language model whose forward returns log-probabilities of response tokens.

    As a root for FSDP2: body and head are both used within its forward, so `fully_shard` on it gathers the head (and a
    tied embedding stays one parameter).

    Args:
        attention: one of `pipeline.models.packed.attention.IMPLEMENTATIONS`; the model is set to it.
        logits_at_once: logits that exist at one time, 4 bytes each, whatever the vocabulary and the number of tokens.

    Raises ModelError for an architecture whose logits this module does not know, ConfigError for an attention that
    model or machine do not have.
    """

    def __init__(
        self, model: PreTrainedModel, attention: str = "segments", logits_at_once: int = LOGITS_AT_ONCE
    ) -> None:
        super().__init__()
        if model.config.model_type not in SUPPORTED_MODEL_TYPES:
            raise ModelError(
                f"Log-probabilities of a {model.config.model_type!r} model are not supported: how it makes its logits "
                f"has not been checked. Supported: {', '.join(SUPPORTED_MODEL_TYPES)}."
            )
        self.model = model
        self.logits_at_once = logits_at_once
        self._attention = PackedAttention(model, attention)
        self._longest = min(longrope_boundaries(model.config), default=None)

    def forward(
        self, row: PackedRow, reference: Reference | None = None, direction: Direction = "forward"
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Log-probability of every response token given all before it in its sequence: float32 [M].

        With a reference also KL(pi_ref || pi_theta) of the next token where each token stands, or the reverse of it: a
        pair of float32 [M]. The reference is of the same architecture, reads the same row, and gets no gradient. Raises
        ValueError where its vocabulary has another size.
        """
        hidden, head, softcap = self.hidden(row), self.head, self._softcap
        logps = token_logps(
            hidden, head.weight, row.targets, bias=head.bias, softcap=softcap, logits_at_once=self.logits_at_once
        )
        if reference is None:
            return logps
        with torch.no_grad():
            ref_hidden = reference.hidden(row)
        kls = token_kls(
            hidden,
            head.weight,
            ref_hidden,
            reference.head.weight,
            bias=head.bias,
            ref_bias=reference.head.bias,
            softcap=softcap,
            direction=direction,
            logits_at_once=self.logits_at_once,
        )
        return logps, kls

    @property
    def head(self) -> nn.Linear:
        """From hidden states [M, H] to logits [M, V], before a soft-cap."""
        return self.model.lm_head

    def hidden(self, row: PackedRow) -> Tensor:
        """The hidden states [M, H], after the final norm, that predict the row's response tokens."""
        if self._longest is not None and row.longest > self._longest:
            raise ModelError(
                f"a sequence of {row.longest} tokens: beyond {self._longest} this model rotates all positions by other"
                " frequencies (longrope), and sequences of both kinds cannot share a row; lower tokenize.max_tokens"
            )
        output = self.model.model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            # With a cache, transformers does not look for sequences in the positions: attention crosses their borders.
            use_cache=False,
            **self._attention.arguments(row),
        )
        return output.last_hidden_state[0].index_select(0, row.predictors)

    def log_probs(self, hidden: Tensor) -> Tensor:
        """float32 log-probabilities [N, V] of the whole vocabulary after each hidden state [N, H]; not differentiable.

        For few positions at a time: nothing here is chunked.
        """
        head = self.head
        return head_logits(hidden, head.weight, head.bias, self._softcap).log_softmax(-1)

    @property
    def _softcap(self) -> float | None:
        return getattr(self.model.config, "final_logit_softcapping", None)


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Tensor:
    """log softmax(softcap(hidden @ weight.T + bias))[targets], in blocks of logits, differentiable once.

    Args:
        hidden: [N, H], any floating dtype.
        weight: [V, H]; bias: [V].
        targets: int64 [N], each in [0, V).
        softcap: c of Gemma-2's c * tanh(logits / c).
        logits_at_once: as in LogProbModel.

    Returns:
        float32 [N].
    """
    return _TokenLogps.apply(hidden, weight, bias, targets, softcap, logits_at_once)


class _TokenLogps(torch.autograd.Function):
    """Blocks of the vocabulary, for thousands of tokens at a time: each part of the head is read, cast and given its
    gradient once. The backward pass computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        logits_at_once: int,
    ) -> Tensor:
        chosen = hidden.new_zeros(len(hidden), dtype=torch.float32)
        # Summed over blocks in float64: in float32 a hundred narrow blocks put 1e-5 on it.
        normalizers = hidden.new_full((len(hidden),), float("-inf"), dtype=torch.float64)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, words in blocks(len(hidden), len(weight), logits_at_once):
                logits = head_logits(hidden[rows], weight, bias, softcap, words)
                normalizers[rows] = torch.logaddexp(normalizers[rows], logits.logsumexp(-1).double())
                column, inside = _columns(targets[rows], words)
                chosen[rows] += logits.gather(1, column)[:, 0] * inside
        ctx.save_for_backward(hidden, weight, bias, targets, normalizers.float())
        ctx.softcap, ctx.logits_at_once = softcap, logits_at_once
        return (chosen - normalizers).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logps: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normalizers = ctx.saved_tensors
        grads = HeadGradients(hidden, weight, bias, ctx.needs_input_grad)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, words in blocks(len(hidden), len(weight), ctx.logits_at_once):
                logits = head_logits(hidden[rows], weight, bias, ctx.softcap, words)
                grad = _logits_grad(logits, normalizers[rows], targets[rows], words, grad_logps[rows], ctx.softcap)
                grads.add(rows, words, grad)
        return *grads.sums(), None, None, None


def _logits_grad(
    logits: Tensor, normalizers: Tensor, targets: Tensor, words: slice, grad_logps: Tensor, softcap: float | None
) -> Tensor:
    """Gradient [n, v] with respect to the logits before the soft-cap, float32; it takes the place of `logits`."""
    slope = softcap_slope(logits, softcap)
    grad = logits.sub_(normalizers[:, None]).exp_().mul_(-grad_logps[:, None])
    column, inside = _columns(targets, words)
    grad.scatter_add_(1, column, (grad_logps * inside)[:, None])
    return grad if slope is None else grad.mul_(slope)


def _columns(targets: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """Each target's column in a block of the vocabulary [n, 1], and whether it lies there at all [n]."""
    column = (targets - words.start).clamp(0, words.stop - words.start - 1)
    return column[:, None], (targets >= words.start) & (targets < words.stop)
