"""Per-token log-probabilities without ever storing the logits of a batch.

The head's matrix product, softmax and gather run over a block of logits at a time, forward and backward, in float32
whatever the model's dtype: bfloat16 logits alone put an error of 0.06 to 0.12 on a log-probability.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from pipeline.errors import ModelError
from pipeline.models.packed.attention import PackedAttention
from pipeline.models.packed.layout import PackedRow
from pipeline.models.rope import longrope_boundaries

# Architectures whose logits are `head(body(x))`, soft-capped where the config says so, and nothing else. Others scale
# their logits (Cohere, Granite) or add to them: a wrong log-probability looks like a right one, so they are refused.
SUPPORTED_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3")

LOGITS_AT_ONCE = 2**24
"""64 MiB of float32."""
TOKENS_AT_ONCE = 4096
"""So many share a block, so that its part of the vocabulary is wide enough for fast products."""


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

    def forward(self, row: PackedRow) -> Tensor:
        """Log-probability of every response token given all before it in its sequence: float32 [M]."""
        head = self.model.lm_head
        return token_logps(
            self.hidden(row),
            head.weight,
            row.targets,
            bias=head.bias,
            softcap=getattr(self.model.config, "final_logit_softcapping", None),
            logits_at_once=self.logits_at_once,
        )

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
        head = self.model.lm_head
        softcap = getattr(self.model.config, "final_logit_softcapping", None)
        return _logits(hidden, head.weight, head.bias, softcap).log_softmax(-1)


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
        normalizers = hidden.new_full((len(hidden),), float("-inf"), dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, words in _blocks(len(hidden), len(weight), logits_at_once):
                logits = _logits(hidden[rows], weight[words], None if bias is None else bias[words], softcap)
                normalizers[rows] = torch.logaddexp(normalizers[rows], logits.logsumexp(-1))
                column, inside = _columns(targets[rows], words)
                chosen[rows] += logits.gather(1, column)[:, 0] * inside
        ctx.save_for_backward(hidden, weight, bias, targets, normalizers)
        ctx.softcap, ctx.logits_at_once = softcap, logits_at_once
        return chosen - normalizers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logps: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normalizers = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32) if wants_hidden else None
        # In float32 where several blocks of tokens add to it.
        kind = weight.dtype if len(hidden) <= TOKENS_AT_ONCE else torch.float32
        grad_weight = torch.zeros_like(weight, dtype=kind) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, words in _blocks(len(hidden), len(weight), ctx.logits_at_once):
                logits = _logits(hidden[rows], weight[words], None if bias is None else bias[words], ctx.softcap)
                grad = _logits_grad(logits, normalizers[rows], targets[rows], words, grad_logps[rows], ctx.softcap)
                if grad_bias is not None:
                    grad_bias[words] += grad.sum(0)
                # From here on in the type of the weights: products of a bfloat16 model are bfloat16 in its body too.
                grad = grad.to(weight.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] += grad @ weight[words]
                if grad_weight is not None:
                    grad_weight[words] += grad.T @ hidden[rows].to(weight.dtype)
        return (
            None if grad_hidden is None else grad_hidden.to(hidden.dtype),
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _logits(hidden: Tensor, head: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """float32 logits [n, v], soft-capped."""
    if not head.is_cuda or head.dtype == torch.float32 or hidden.dtype != head.dtype:
        # Only CUDA makes float32 products of 16-bit factors without a copy.
        logits = hidden.float() @ head.float().T
    else:
        logits = torch.mm(hidden, head.T, out_dtype=torch.float32)
    if bias is not None:
        logits += bias.float()
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


def _logits_grad(
    logits: Tensor, normalizers: Tensor, targets: Tensor, words: slice, grad_logps: Tensor, softcap: float | None
) -> Tensor:
    """Gradient [n, v] with respect to the logits before the soft-cap, float32; it takes the place of `logits`."""
    slope = None if softcap is None else 1 - (logits / softcap).square_()
    grad = logits.sub_(normalizers[:, None]).exp_().mul_(-grad_logps[:, None])
    column, inside = _columns(targets, words)
    grad.scatter_add_(1, column, (grad_logps * inside)[:, None])
    return grad if slope is None else grad.mul_(slope)


def _columns(targets: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """Each target's column in a block of the vocabulary [n, 1], and whether it lies there at all [n]."""
    column = (targets - words.start).clamp(0, words.stop - words.start - 1)
    return column[:, None], (targets >= words.start) & (targets < words.stop)


def _blocks(tokens: int, vocabulary: int, logits_at_once: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of tokens × words, the words of the same tokens one after the other."""
    for first in range(0, tokens, TOKENS_AT_ONCE):
        rows = slice(first, min(first + TOKENS_AT_ONCE, tokens))
        width = max(1, logits_at_once // (rows.stop - rows.start))
        for start in range(0, vocabulary, width):
            yield rows, slice(start, min(start + width, vocabulary))
