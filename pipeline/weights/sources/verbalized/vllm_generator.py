"""Greedy answers by vLLM: all prompts at once, the shared beginnings computed once."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch

from pipeline.attention.vllm.check import check_installed, check_judge
from pipeline.config.runtime import RuntimeParams
from pipeline.errors import ConfigError, ModelError, NonFiniteError
from pipeline.models.budget import out_of_memory
from pipeline.models.generation.base import Answer, OnAnswers, rooms
from pipeline.models.load import context_length, load_config
from pipeline.models.manifest import Manifest
from pipeline.models.vllm import engine_settings, prepare_environment, start_engine


class VllmGenerator:
    """A Generator (see `pipeline.models.generation.base`) around vLLM, which starts at once.

    In float32 the answers are those of transformers; in bfloat16 a token may be another where two are as good as
    equally likely, and so may all that follow it. Every call starts with an empty prefix cache.

    Raises ConfigError when vLLM is not installed as tested, or for a device or a number of ranks; ModelError for an
    architecture that it computes otherwise than transformers does, and when it does not start.
    """

    def __init__(
        self,
        manifest: Manifest,
        stops: Collection[int],
        max_new_tokens: int,
        dtype: str,
        runtime: RuntimeParams,
        device: torch.device,
    ) -> None:
        check_installed(device.type)
        check_judge(load_config(manifest), runtime.tensor_parallel)
        if device.index:
            raise ConfigError(
                f"`runtime.backend: vllm` works on the first visible devices, not on {device}; choose them by "
                "CUDA_VISIBLE_DEVICES, or set `runtime.backend: transformers`"
            )
        self._context = context_length(load_config(manifest))
        self._stops = sorted(stops)
        self._max_new_tokens = max_new_tokens
        self._submitted = 0
        prepare_environment(runtime.tensor_parallel if device.type == "cpu" else 1)
        settings = engine_settings(
            manifest,
            dtype,
            device.type,
            runtime.tensor_parallel,
            runtime.token_budget,
            runtime.vllm_kv_cache_gib,
            runtime.gpu_memory_utilization,
        )
        self._llm = start_engine(settings)
        self._engine = self._llm.llm_engine

    @property
    def context(self) -> int:
        return self._context

    def answers(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        room = rooms(prompts, names, self.context, self._max_new_tokens)
        self._check_cache(prompts, room, names)
        # A token is the same whatever keys are cached, but for the last bits of its logit: a resumed run would differ.
        if not self._llm.reset_prefix_cache():
            raise ModelError("vLLM did not clear its prefix cache; set `runtime.backend: transformers`")
        first = self._submitted
        self._submitted += len(prompts)
        found: dict[int, Answer] = {}
        try:
            for index in sorted(range(len(prompts)), key=lambda place: list(prompts[place])):
                self._submit(first + index, prompts[index], room[index])
            while self._engine.has_unfinished_requests():
                finished = [output for output in self._engine.step() if output.finished]
                for output in finished:
                    index = int(output.request_id) - first
                    found[index] = _answer(output, names[index])
                if finished and on_answers is not None:
                    on_answers(len(finished), sum(_computed(output) for output in finished))
        except BaseException as error:
            self._engine.abort_request([str(first + index) for index in range(len(prompts))])
            if out_of_memory(error):
                raise ModelError(
                    "vLLM ran out of memory while it wrote; lower `runtime.token_budget`, lower "
                    "`runtime.gpu_memory_utilization`, or give its cache less by `runtime.vllm_kv_cache_gib`"
                ) from error
            raise
        return [found[index] for index in range(len(prompts))]

    def _check_cache(self, prompts: Sequence[Sequence[int]], room: Sequence[int], names: Sequence[str]) -> None:
        """What is free on the machine must not decide where an answer is cut."""
        holds = int(self._engine.model_config.max_model_len)
        for ids, more, name in zip(prompts, room, names, strict=True):
            if len(ids) + more > holds:
                raise ModelError(
                    f"{name}: prompt and answer may have {len(ids) + more} tokens, and vLLM's cache holds {holds}; "
                    "raise `runtime.vllm_kv_cache_gib`, lower `score.verbalized.max_new_tokens`, or set "
                    "`runtime.backend: transformers`"
                )

    def close(self) -> None:
        """End worker processes and give memory back."""
        self._engine.engine_core.shutdown()

    def _submit(self, number: int, ids: Sequence[int], room: int) -> None:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        params = SamplingParams(
            max_tokens=room,
            temperature=0.0,
            stop_token_ids=self._stops,
            ignore_eos=True,  # the model's config names stops of its own
            detokenize=False,
            logprobs=0,  # of the written tokens alone: one that is no number shows a broken model
        )
        self._engine.add_request(str(number), TokensPrompt(prompt_token_ids=list(ids)), params)


def _answer(output: Any, name: str) -> Answer:
    said = output.outputs[0]
    if not math.isfinite(said.cumulative_logprob):
        raise NonFiniteError(
            f"{name}: the model's logits are not numbers; its weights are broken, or its dtype is too narrow: try "
            "float32"
        )
    ids = list(said.token_ids)
    return Answer(ids[:-1], ids[-1]) if said.finish_reason == "stop" else Answer(ids, None)


def _computed(output: Any) -> int:
    return len(output.prompt_token_ids) - int(output.num_cached_tokens or 0) + len(output.outputs[0].token_ids)
