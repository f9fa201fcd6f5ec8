"""Per-token log-probabilities without ever storing the logits of a batch.

The head's matrix product, softmax and gather run over a few tokens at a time, forward and backward, in float32 whatever
the model's dtype: bfloat16 logits alone put an error of 0.06 to 0.12 on a log-probability.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from pipeline.errors import ModelError

# Architectures whose logits are `head(body(x))`, soft-capped where the config says so, and nothing else. Others scale
# their logits (Cohere, Granite) or add to them: a wrong log-probability looks like a right one, so they are refused.
SUPPORTED_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3")


class LogProbModel(nn.Module):
    """A causal language model whose forward returns log-probabilities of tokens.

    As a root for FSDP2: body and head are both used within its forward, so `fully_shard` on it gathers the head (and a
    tied embedding stays one parameter).

    Args:
        chunk_size: response tokens whose logits exist at one time; chunk_size * vocabulary * 4 bytes, twice.

    Raises ModelError for an architecture whose logits this module does not know.
    """

    def __init__(self, model: PreTrainedModel, chunk_size: int = 256) -> None:
        super().__init__()
        if model.config.model_type not in SUPPORTED_MODEL_TYPES:
            raise ModelError(
                f"Log-probabilities of a {model.config.model_type!r} model are not supported: how it makes its logits "
                f"has not been checked. Supported: {', '.join(SUPPORTED_MODEL_TYPES)}."
            )
        self.model = model
        self.chunk_size = chunk_size

    def forward(
        self,
        input_ids: Tensor,
        response_mask: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Log-probability of every response token given all before it.

        Args:
            input_ids: int64 [B, S].
            response_mask: bool [B, S], true at response tokens; never at position 0. It may be true nowhere.
            attention_mask: [B, S], 1 at tokens and 0 at padding on the right; or [B, 1, S, S] of one's own making.
            position_ids: int64 [B, S]. Several sequences packed into one row restart at 0, without `attention_mask`.

        Returns:
            float32 [B, S]: entry t is log p(input_ids[t] | input_ids[<t]); 0 outside `response_mask`.
        """
        if position_ids is not None and attention_mask is not None and attention_mask.dim() == 2:
            # transformers sees packed sequences in position_ids only where there is no mask; with one, attention
            # crosses their borders in silence.
            raise ValueError("pass position_ids or a 2-D attention_mask, not both")
        hidden = self.model.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state
        if bool(response_mask[:, 0].any()):
            raise ValueError("response_mask is true at position 0, which nothing predicts")
        predicted = response_mask[:, 1:]
        head = self.model.lm_head
        logps = token_logps(
            hidden[:, :-1][predicted],
            head.weight,
            input_ids[:, 1:][predicted],
            bias=head.bias,
            softcap=getattr(self.model.config, "final_logit_softcapping", None),
            chunk_size=self.chunk_size,
        )
        return torch.zeros(input_ids.shape, dtype=torch.float32, device=logps.device).masked_scatter(
            response_mask, logps
        )

    def log_probs(self, hidden: Tensor) -> Tensor:
        """float32 log-probabilities [N, V] of the whole vocabulary after each hidden state [N, H]; not differentiable.

        For few positions at a time: nothing here is chunked.
        """
        head = self.model.lm_head
        softcap = getattr(self.model.config, "final_logit_softcapping", None)
        return _logits(hidden, _head(head.weight), head.bias, softcap).log_softmax(-1)


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    chunk_size: int = 256,
) -> Tensor:
    """log softmax(softcap(hidden @ weight.T + bias))[targets], chunk by chunk, differentiable once.

    Args:
        hidden: [N, H], any floating dtype.
        weight: [V, H]; bias: [V].
        targets: int64 [N], each in [0, V).
        softcap: c of Gemma-2's c * tanh(logits / c).

    Returns:
        float32 [N].
    """
    return _TokenLogps.apply(hidden, weight, bias, targets, softcap, chunk_size)


class _TokenLogps(torch.autograd.Function):
    """The backward pass computes each chunk's logits again, and sums the head's gradient over chunks in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        chunk_size: int,
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.softcap, ctx.chunk_size = softcap, chunk_size
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            head = _head(weight)
            for rows in _chunks(len(hidden), chunk_size):
                log_softmax = _logits(hidden[rows], head, bias, softcap).log_softmax(-1)
                logps[rows] = log_softmax.gather(-1, targets[rows, None]).squeeze(-1)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logps: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            head = _head(weight)
            for rows in _chunks(len(hidden), ctx.chunk_size):
                logits = _logits(hidden[rows], head, bias, ctx.softcap)
                grad = _logits_grad(logits, targets[rows], grad_logps[rows], ctx.softcap)
                if grad_bias is not None:
                    grad_bias += grad.sum(0)
                # From here on in the type of the weights: products of a bfloat16 model are bfloat16 in its body too.
                grad = grad.to(weight.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = (grad @ weight).to(hidden.dtype)
                if grad_weight is not None:
                    grad_weight += grad.T @ hidden[rows].to(weight.dtype)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _head(weight: Tensor) -> Tensor:
    """The head as `_logits` multiplies by it: only CUDA makes float32 products of 16-bit factors without a copy."""
    return weight if weight.is_cuda else weight.float()


def _logits(hidden: Tensor, head: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """float32 logits [n, V], soft-capped."""
    if head.dtype == torch.float32 or hidden.dtype != head.dtype:
        logits = hidden.float() @ head.float().T
    else:
        logits = torch.mm(hidden, head.T, out_dtype=torch.float32)
    if bias is not None:
        logits += bias.float()
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


def _logits_grad(logits: Tensor, targets: Tensor, grad_logps: Tensor, softcap: float | None) -> Tensor:
    """Gradient [n, V] with respect to the logits before the soft-cap, float32."""
    grad = logits.softmax(-1).mul_(-grad_logps[:, None])
    grad[torch.arange(len(targets), device=grad.device), targets] += grad_logps
    if softcap is not None:
        grad *= 1 - (logits / softcap).square_()
    return grad


def _chunks(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]
