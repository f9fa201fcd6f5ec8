"""The transformers backend: the query row of any number of layers in one forward pass, each shared prefix once."""

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.attention.architectures import check_model, resolve_heads, resolve_layers, why_not_shared
from pipeline.attention.backend import (
    Judgement,
    JudgePrompt,
    QueryPosition,
    Source,
    Usage,
    VerdictProbs,
    check_prompts,
    describe,
)
from pipeline.attention.forward.capture import IMPLEMENTATION, capturing
from pipeline.attention.forward.packed_attention import PACKED
from pipeline.attention.forward.path import ForwardPath, Pass
from pipeline.attention.forward.plain import PlainForward
from pipeline.attention.forward.shared import SharedForward
from pipeline.attention.head import vocabulary_logits
from pipeline.attention.verdict import verdict
from pipeline.errors import ModelError, NonFiniteError
from pipeline.models.budget import TokenBudget
from pipeline.models.load import context_length
from pipeline.schemas.attention import MEAN_OVER_HEADS, ROLLOUT

_log = logging.getLogger("stages.extract")


class TransformersBackend:
    """A Backend (see `pipeline.attention.backend`) around a loaded causal language model.

    Args:
        layers: 0-based; negative ones count from the last. Not looked at for `source="rollout"`.
        verdict_ids: the tokens "A" and "B".
        token_budget: positions in one forward pass; halved when the device runs out of memory.
        header: tokens that the prompts of a run begin with, computed once. Any value gives the same rows.

    Rows, logits and probabilities are float32 whatever the model's dtype; results do not depend on `token_budget` or
    `header` beyond float tolerance.
    Raises ModelError for an architecture that the capture does not know and for layers or heads that the model lacks.
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
        source: Source = "attention",
        verdicts: bool = True,
        header: Sequence[int] = (),
    ) -> None:
        check_model(model)
        self._model = model.eval()
        self._config = model.config
        rollout = source == "rollout"
        self._layers = (ROLLOUT,) if rollout else resolve_layers(layers, self._config.num_hidden_layers)
        self._heads = (MEAN_OVER_HEADS,) if rollout else resolve_heads(heads, self._config.num_attention_heads)
        self._verdict_ids = verdict_ids
        self._budget = TokenBudget(token_budget, model.device)
        self._query = query
        self._verdicts = verdicts or query == "verdict_token_row"
        self._usage = Usage()
        self._vocabulary = int(model.get_input_embeddings().weight.shape[0])
        if not all(0 <= token < self._vocabulary for token in verdict_ids):
            raise ModelError(
                f"verdict tokens {verdict_ids} lie outside the judge's {self._vocabulary} embeddings; its tokenizer "
                "belongs to another model"
            )
        self._appended = 1 if query == "verdict_token_row" else 0
        self._plain = PlainForward(model, self._heads, self._appended)
        self._shared = SharedForward(model, self._heads, header)
        self._said = False

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
        check_prompts(prompts, context=context_length(self._config), vocabulary=self._vocabulary, extra=self._appended)
        path, implementation = self._path(max((len(prompt.input_ids) for prompt in prompts), default=0))

        def batches(waiting: Sequence[int], budget: int) -> list[list[int]]:
            found = path.batches([prompts[index].input_ids for index in waiting], budget)
            return [[waiting[place] for place in batch] for batch in found]

        def judge(batch: Sequence[int]) -> list[Judgement]:
            judged = self._judge(path, [prompts[index] for index in batch])
            for index, judgement in zip(batch, judged, strict=True):
                _check_finite(judgement, describe(prompts[index], index))
            if on_progress is not None:
                on_progress(len(batch))
            return judged

        def does_not_fit(index: int, device: torch.device) -> str:
            return (
                f"{describe(prompts[index], index)} does not fit the memory of {device} even alone; lower"
                " `render.max_tokens`, set `extract.dtype: bfloat16`, or use a device with more memory"
            )

        with torch.inference_mode(), capturing(self._model, implementation):
            return self._budget.run(len(prompts), batches, judge, does_not_fit)

    def _path(self, longest: int) -> tuple[ForwardPath, str]:
        """How these prompts are run; the same for all of them, whatever the batches."""
        reason = (
            "attention rollout needs every position's queries"
            if self._layers == (ROLLOUT,)
            else why_not_shared(self._config, longest + self._appended)
        )
        if reason is None:
            return self._shared, PACKED
        if not self._said:
            self._said = True
            _log.info("prompts run whole, without shared prefixes, in shards like this one: %s", reason)
        return self._plain, IMPLEMENTATION

    def _judge(self, path: ForwardPath, batch: list[JudgePrompt]) -> list[Judgement]:
        sequences = [list(prompt.input_ids) for prompt in batch]
        if self._query == "predicting_position":
            passed = self._counted(path.forward(sequences, self._layers, self._verdicts))
            probs = self._probabilities(passed)
        else:
            probs = self._probabilities(self._counted(path.forward(sequences, (), True)))
            assert probs is not None
            self._append_verdicts(sequences, probs)
            passed = self._counted(path.forward(sequences, self._layers, False))
        read = self._read(probs)
        self._usage.prompt_tokens += sum(len(prompt.input_ids) for prompt in batch)
        return [
            Judgement(
                rows={
                    layer: [rows[i][:, start:end].cpu().numpy() for start, end in prompt.spans]
                    for layer, rows in passed.rows.items()
                },
                verdict=read[i] if read else None,
            )
            for i, prompt in enumerate(batch)
        ]

    def _counted(self, passed: Pass) -> Pass:
        self._usage.computed_tokens += passed.positions
        self._usage.flops += passed.flops
        return passed

    def _probabilities(self, passed: Pass) -> Tensor | None:
        """Softmax over the whole vocabulary, float32 [B, V]."""
        if passed.hidden is None:
            return None
        head = self._model.get_output_embeddings()
        softcap = getattr(self._config, "final_logit_softcapping", None)
        logits = vocabulary_logits(passed.hidden, head.weight, bias=getattr(head, "bias", None), softcap=softcap)
        return logits.softmax(dim=-1)

    def _read(self, probs: Tensor | None) -> list[VerdictProbs]:
        if probs is None:
            return []
        a, b = self._verdict_ids
        columns = probs[:, a].tolist(), probs[:, b].tolist(), probs.argmax(dim=-1).tolist()
        return [VerdictProbs(*read) for read in zip(*columns, strict=True)]

    def _append_verdicts(self, sequences: list[list[int]], probs: Tensor) -> None:
        a, b = self._verdict_ids
        for sequence, read in zip(sequences, self._read(probs), strict=True):
            sequence.append(a if verdict(read.prob_a, read.prob_b) == "A" else b)


def _check_finite(judgement: Judgement, where: str) -> None:
    read = judgement.verdict
    if read is not None and not (math.isfinite(read.prob_a) and math.isfinite(read.prob_b)):
        raise NonFiniteError(f"{where}: the verdict's probability is not finite; try `extract.dtype: float32`")
    for layer, spans in judgement.rows.items():
        if not all(np.isfinite(scores).all() for scores in spans):
            raise NonFiniteError(
                f"{where}: layer {layer} holds a score that is not finite; try `extract.dtype: float32`"
            )
