"""The transformers backend: right-padded batches under SDPA, the query row of any number of layers in one forward."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.attention.architectures import (
    check_model,
    longrope_boundaries,
    resolve_heads,
    resolve_layers,
)
from pipeline.attention.backend import (
    Judgement,
    JudgePrompt,
    QueryPosition,
    Usage,
    VerdictProbs,
    check_prompts,
    describe,
)
from pipeline.attention.capture import RowCapture, capturing
from pipeline.attention.head import vocabulary_logits
from pipeline.attention.verdict import verdict
from pipeline.errors import ModelError, NonFiniteError
from pipeline.models.batching import token_batches
from pipeline.models.load import context_length


class TransformersBackend:
    """A Backend (see `pipeline.attention.backend`) around a loaded causal language model.

    Rows, logits and probabilities are float32 whatever the model's dtype; results do not depend on `token_budget`
    beyond float tolerance. `layers` may be negative; `verdict_ids` are the tokens "A" and "B".
    Raises ModelError for an architecture that the capture does not know and for layers that the model lacks.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        layers: Sequence[int],
        verdict_ids: tuple[int, int],
        token_budget: int,
        heads: Sequence[int] | str = "mean",
        query: QueryPosition = "predicting_position",
        verdicts: bool = True,
    ) -> None:
        check_model(model)
        self._model = model.eval()
        self._config = model.config
        self._layers = resolve_layers(layers, self._config.num_hidden_layers)
        self._verdict_ids = verdict_ids
        self._token_budget = token_budget
        self._heads = resolve_heads(heads, self._config.num_attention_heads)
        self._query = query
        self._verdicts = verdicts
        self._usage = Usage()
        self._vocabulary = int(model.get_input_embeddings().weight.shape[0])
        if not all(0 <= token < self._vocabulary for token in verdict_ids):
            raise ModelError(
                f"verdict tokens {verdict_ids} lie outside the judge's {self._vocabulary} embeddings; its tokenizer "
                "belongs to another model"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        return self._layers

    @property
    def heads(self) -> tuple[int, ...]:
        return self._heads

    @property
    def usage(self) -> Usage:
        return self._usage

    def run(self, prompts: Sequence[JudgePrompt], on_progress: Callable[[int], None] | None = None) -> list[Judgement]:
        appended = 1 if self._query == "verdict_token_row" else 0
        check_prompts(prompts, context=context_length(self._config), vocabulary=self._vocabulary, extra=appended)
        boundaries = longrope_boundaries(self._config)
        # The longer of the two forward passes crosses a boundary one token earlier.
        boundaries = boundaries | {boundary - appended for boundary in boundaries}
        lengths = [len(prompt.input_ids) for prompt in prompts]
        done: dict[int, Judgement] = {}
        with torch.inference_mode(), capturing(self._model):
            for batch in token_batches(lengths, self._token_budget, boundaries):
                judged = self._judge([prompts[index] for index in batch])
                for index, judgement in zip(batch, judged, strict=True):
                    _check_finite(judgement, describe(prompts[index], index))
                    done[index] = judgement
                if on_progress is not None:
                    on_progress(len(batch))
        return [done[index] for index in range(len(prompts))]

    def _judge(self, batch: list[JudgePrompt]) -> list[Judgement]:
        """One batch; the place where running out of memory is to be met."""
        sequences = [list(prompt.input_ids) for prompt in batch]
        if self._query == "predicting_position":
            hidden, rows = self._forward(sequences, self._layers)
            probs = self._probabilities(hidden)
        else:
            hidden, _ = self._forward(sequences, ())
            probs = self._probabilities(hidden)
            self._append_verdicts(sequences, probs)
            _, rows = self._forward(sequences, self._layers)
        a, b = self._verdict_ids
        prob_a, prob_b = probs[:, a].tolist(), probs[:, b].tolist()
        top = probs.argmax(dim=-1).tolist()
        return [
            Judgement(
                rows={
                    layer: [row[i][:, start:end].cpu().numpy() for start, end in prompt.spans]
                    for layer, row in rows.items()
                },
                verdict=VerdictProbs(prob_a[i], prob_b[i], top[i]) if self._verdicts else None,
            )
            for i, prompt in enumerate(batch)
        ]

    def _forward(self, sequences: list[list[int]], layers: Sequence[int]) -> tuple[Tensor, dict[int, list[Tensor]]]:
        """The body on a right-padded batch: last hidden state [B, D] at each sequence's last position, and its rows."""
        device = self._model.device
        last = [len(sequence) - 1 for sequence in sequences]
        input_ids = torch.zeros(len(sequences), max(last) + 1, dtype=torch.long)
        for i, sequence in enumerate(sequences):
            input_ids[i, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        capture = RowCapture(layers, last, self._heads)
        output = self._model.base_model(input_ids=input_ids.to(device), use_cache=False, row_capture=capture)
        positions = torch.tensor(last, device=device)
        hidden = output.last_hidden_state[torch.arange(len(sequences), device=device), positions]
        return hidden, capture.rows()

    def _probabilities(self, hidden: Tensor) -> Tensor:
        """Softmax over the whole vocabulary, float32 [B, V]."""
        head = self._model.get_output_embeddings()
        softcap = getattr(self._config, "final_logit_softcapping", None)
        logits = vocabulary_logits(hidden, head.weight, bias=getattr(head, "bias", None), softcap=softcap)
        return logits.softmax(dim=-1)

    def _append_verdicts(self, sequences: list[list[int]], probs: Tensor) -> None:
        a, b = self._verdict_ids
        for sequence, prob_a, prob_b in zip(sequences, probs[:, a].tolist(), probs[:, b].tolist(), strict=True):
            sequence.append(a if verdict(prob_a, prob_b) == "A" else b)


def _check_finite(judgement: Judgement, where: str) -> None:
    read = judgement.verdict
    if read is not None and not (math.isfinite(read.prob_a) and math.isfinite(read.prob_b)):
        raise NonFiniteError(f"{where}: the verdict's probability is not finite; try `extract.dtype: float32`")
    for layer, spans in judgement.rows.items():
        if not all(np.isfinite(scores).all() for scores in spans):
            raise NonFiniteError(
                f"{where}: layer {layer} holds a score that is not finite; try `extract.dtype: float32`"
            )
