"""The vLLM backend: prompts in an order that shares prefixes, the first of them compared with transformers."""

import gc
import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from pipeline.attention.architectures import check_architecture, resolve_heads, resolve_layers
from pipeline.attention.backend import Judgement, JudgePrompt, Usage, VerdictProbs, check_prompts, describe
from pipeline.attention.flops import LayerFlops
from pipeline.attention.transformers_backend import TransformersBackend
from pipeline.attention.verdict import verdict
from pipeline.attention.vllm.check import COMPARED, check_judge, compare
from pipeline.attention.vllm.engine import Answer, Request, VllmEngine
from pipeline.config.extract import ExtractParams
from pipeline.config.runtime import RuntimeParams
from pipeline.errors import ConfigError, ModelError, NonFiniteError
from pipeline.models.load import context_length, load_config, load_model
from pipeline.models.manifest import Manifest

_log = logging.getLogger("stages.extract")


class VllmBackend:
    """A Backend (see `pipeline.attention.backend`) around vLLM.

    vLLM starts with the first prompts: the first COMPARED of them are judged by the transformers backend before, in the
    same dtype and on the same device (on the CPU where the judge is divided among several), and a row or probability
    that differs by more than the tolerances of `pipeline.attention.vllm.check` ends the run. `usage` does not count
    this comparison. Every `run` starts with an empty prefix cache: its judgements do not depend on earlier ones.
    Rows and probabilities are float32 whatever the dtype. `prefix_caching=False` computes every prompt whole.

    Raises ModelError for an architecture, layer or head that it cannot work with, ConfigError for a device or a number
    of ranks, before any weight is loaded.
    """

    def __init__(
        self,
        manifest: Manifest,
        params: ExtractParams,
        runtime: RuntimeParams,
        device: torch.device,
        verdict_ids: tuple[int, int],
        *,
        prefix_caching: bool = True,
    ) -> None:
        config = self._config = load_config(manifest)
        check_architecture(config)
        check_judge(config, runtime.tensor_parallel)
        if params.source == "rollout":
            raise ConfigError("`runtime.backend: vllm` has no attention rollout; set `runtime.backend: transformers`")
        if device.index:
            raise ConfigError(
                f"`runtime.backend: vllm` works on the first visible devices, not on {device}; choose them by "
                "CUDA_VISIBLE_DEVICES, or set `runtime.backend: transformers`"
            )
        self._manifest = manifest
        self._params = params
        self._runtime = runtime
        self._device = device
        self._verdict_ids = verdict_ids
        self._prefix_caching = prefix_caching
        self._num_layers = int(config.num_hidden_layers)
        self._layers = resolve_layers(params.layers, self._num_layers)
        self._heads = resolve_heads(params.heads, config.num_attention_heads)
        self._context = context_length(config)
        self._vocabulary = int(config.vocab_size)
        self._two_passes = params.query == "verdict_token_row"
        self._usage = Usage()
        self._engine: VllmEngine | None = None
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
        # vLLM samples a token after the prompt, which must have a position too.
        extra = 2 if self._two_passes else 1
        check_prompts(prompts, context=self._context, vocabulary=self._vocabulary, extra=extra)
        if not prompts:
            return []
        engine = self._engine or self._start_compared(prompts, extra)
        _check_fits(engine, prompts, extra)
        # A row is the same whatever keys are cached, but for its last bits: a resumed run would write other bytes.
        engine.reset_prefix_cache()
        return self._judge(engine, prompts, self._usage, on_progress)

    def close(self) -> None:
        """Give vLLM's memory and processes back; the next `run` starts it anew."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
            _free()

    def reset_prefix_cache(self) -> None:
        """Compute the next prompts as if they were the first."""
        if self._engine is not None:
            self._engine.reset_prefix_cache()

    def _start_compared(self, prompts: Sequence[JudgePrompt], extra: int) -> VllmEngine:
        """vLLM, which stays only if it judges the first prompts as transformers does; those judgements are dropped."""
        first = prompts[:COMPARED]
        expected = self._by_transformers(first)
        engine = self._engine = self._start()
        try:
            _check_fits(engine, prompts, extra)
            compare(first, expected, self._judge(engine, first, Usage()), self._params.dtype)
        except BaseException:
            self.close()
            raise
        _log.info("vLLM's rows of the first %d prompts are those of transformers", len(first))
        return engine

    def _start(self) -> VllmEngine:
        return VllmEngine(
            self._manifest,
            dtype=self._params.dtype,
            device=self._device.type,
            layers=self._layers,
            heads=self._heads,
            num_layers=self._num_layers,
            verdict_ids=self._verdict_ids,
            tensor_parallel=self._runtime.tensor_parallel,
            kv_cache_gib=self._runtime.vllm_kv_cache_gib,
            memory_share=self._runtime.gpu_memory_utilization,
            batched_tokens=self._runtime.token_budget,
            prefix_caching=self._prefix_caching,
        )

    def _by_transformers(self, prompts: Sequence[JudgePrompt]) -> list[Judgement]:
        """The reference, its model freed again before vLLM measures what memory is left."""
        params = self._params
        device, ranks = self._device, self._runtime.tensor_parallel
        if ranks > 1 and device.type == "cuda":
            # A judge that is divided may not fit one device.
            device = torch.device("cpu")
            _log.info("tensor_parallel: %d: transformers judges the first %d prompts on the CPU", ranks, len(prompts))
        backend = TransformersBackend(
            load_model(self._manifest, params.dtype, device),
            layers=params.layers,
            verdict_ids=self._verdict_ids,
            token_budget=self._runtime.token_budget,
            heads=params.heads,
            query=params.query,
            verdicts=params.verdicts,
        )
        judgements = backend.run(prompts)
        del backend
        _free()
        return judgements

    @cached_property
    def _flops(self) -> LayerFlops:
        with torch.device("meta"):
            return LayerFlops(AutoModelForCausalLM.from_config(self._config))

    def _judge(
        self,
        engine: VllmEngine,
        prompts: Sequence[JudgePrompt],
        usage: Usage,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Judgement]:
        """Judgements in the order of prompts; what they took is added to `usage`."""
        # Sorted by their ids, prompts that begin alike follow each other: rounds of a pair, and all with one header.
        order = sorted(range(len(prompts)), key=lambda index: list(prompts[index].input_ids))
        ids = {index: list(prompts[index].input_ids) for index in order}
        where = {index: describe(prompts[index], index) for index in order}
        read: dict[int, VerdictProbs] = {}
        if self._two_passes:
            requests = [Request(ids[index], None, True, where[index]) for index in order]
            for index, answer in zip(order, self._answers(engine, requests, usage, None), strict=True):
                read[index] = _verdict(answer, where[index])
                letter = verdict(read[index].prob_a, read[index].prob_b)
                ids[index].append(self._verdict_ids[0 if letter == "A" else 1])
        wants_verdict = self._params.verdicts and not self._two_passes
        requests = [Request(ids[index], prompts[index].spans, wants_verdict, where[index]) for index in order]
        done: dict[int, Judgement] = {}
        for index, answer in zip(order, self._answers(engine, requests, usage, on_progress), strict=True):
            if wants_verdict:
                read[index] = _verdict(answer, where[index])
            for layer, spans in answer.rows.items():
                if not all(np.isfinite(scores).all() for scores in spans):
                    raise NonFiniteError(
                        f"{where[index]}: layer {layer} holds a score that is not finite; try `extract.dtype: float32`"
                    )
            done[index] = Judgement(answer.rows, read.get(index))
        usage.prompt_tokens += sum(len(prompt.input_ids) for prompt in prompts)
        return [done[index] for index in range(len(prompts))]

    def _answers(
        self,
        engine: VllmEngine,
        requests: list[Request],
        usage: Usage,
        on_finished: Callable[[int], None] | None,
    ) -> list[Answer]:
        answers = engine.answer(requests, on_finished)
        for request, answer in zip(requests, answers, strict=True):
            length, cached = len(request.prompt_ids), answer.cached_tokens
            # Position i sees i + 1 keys; the head works at the last position of every request, wanted or not.
            scores = (length * (length + 1) - cached * (cached + 1)) // 2
            usage.computed_tokens += length - cached
            usage.flops += self._flops.of(length - cached, scores, self._num_layers, 1)
        return answers


def _check_fits(engine: VllmEngine, prompts: Sequence[JudgePrompt], extra: int) -> None:
    longest = max(len(prompt.input_ids) for prompt in prompts) + extra
    if longest > engine.context:
        raise ModelError(
            f"vLLM's key-value cache holds {engine.context} tokens, but a judge prompt needs {longest}; "
            "raise `runtime.vllm_kv_cache_gib` or `runtime.gpu_memory_utilization`, or lower `render.max_tokens`"
        )


def _verdict(answer: Answer, where: str) -> VerdictProbs:
    assert answer.log_probs is not None
    prob_a, prob_b = (math.exp(value) for value in answer.log_probs)
    if not (math.isfinite(prob_a) and math.isfinite(prob_b)):
        raise NonFiniteError(f"{where}: the verdict's probability is not finite; try `extract.dtype: float32`")
    return VerdictProbs(prob_a, prob_b, answer.top_token)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
