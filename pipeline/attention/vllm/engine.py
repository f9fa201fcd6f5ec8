"""A running vLLM with the capture in it: prompts in, rows and verdicts out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.attention.backend import MEAN_OVER_HEADS
from pipeline.attention.vllm.capture import REQUEST, AttentionRows
from pipeline.errors import ModelError
from pipeline.models.budget import out_of_memory
from pipeline.models.manifest import Manifest
from pipeline.models.vllm import engine_settings, prepare_environment, start_engine

TAKE_EVERY = 64
"""Finished requests whose rows may wait in the workers."""
Row = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """One prompt. `spans`: whose scores of its last position are wanted; none: no row. `verdict`: P(A), P(B) too."""

    prompt_ids: list[int]
    spans: tuple[tuple[int, int], ...] | None
    verdict: bool
    where: str
    """How errors name it."""


@dataclass(frozen=True)
class Answer:
    """Rows by layer, one [K, n] per span; log P(A), log P(B) over the whole vocabulary and its most probable token."""

    rows: dict[int, list[Row]]
    log_probs: tuple[float, float] | None
    top_token: int
    cached_tokens: int
    """Tokens of the prompt whose keys came from the prefix cache."""


class VllmEngine:
    """A running vLLM with the capture installed.

    Args:
        kv_cache_gib: of each device; None: on CUDA what `memory_share` leaves, on CPU CPU_CACHE_GIB.
        batched_tokens: positions in one step; longer prompts are computed in chunks.

    Raises ModelError when vLLM does not start or the capture refuses the judge.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        dtype: str,
        device: str,
        layers: Sequence[int],
        heads: Sequence[int],
        num_layers: int,
        verdict_ids: tuple[int, int],
        tensor_parallel: int,
        kv_cache_gib: float | None,
        memory_share: float,
        batched_tokens: int,
        prefix_caching: bool = True,
    ) -> None:
        self._layers = tuple(layers)
        self._mean = tuple(heads) == (MEAN_OVER_HEADS,)
        self._verdict_ids = verdict_ids
        self._submitted = 0
        settings = engine_settings(
            manifest,
            dtype,
            device,
            tensor_parallel,
            batched_tokens,
            kv_cache_gib,
            memory_share,
            mirrors=len(layers) / (2 * num_layers),
        ) | {
            "enable_prefix_caching": prefix_caching,
            # In bfloat16 the logits of "A" and "B" are often equal (see `pipeline.attention.head`).
            "hf_overrides": {"head_dtype": "float32"},
            "worker_extension_cls": f"{AttentionRows.__module__}.{AttentionRows.__qualname__}",
        }
        prepare_environment(tensor_parallel if device == "cpu" else 1)
        self._llm = start_engine(settings)
        self._engine = self._llm.llm_engine
        self.context = int(self._engine.model_config.max_model_len)
        """Tokens of the longest prompt and the token after it."""
        installed = self._llm.collective_rpc(
            "attention_rows_install", args=(list(self._layers), list(heads), num_layers)
        )
        if problems := sorted({problem for rank in installed for problem in rank["problems"]}):
            self.close()
            raise ModelError(
                f"rows of this judge cannot be taken out of vLLM: {'; '.join(problems)}. Set `runtime.backend: "
                "transformers`"
            )
        self.reset_prefix_cache()

    def reset_prefix_cache(self) -> None:
        """Forget all keys."""
        if not self._llm.reset_prefix_cache():
            raise ModelError("vLLM did not clear its prefix cache; set `runtime.backend: transformers`")

    def answer(self, requests: Sequence[Request], on_finished: Callable[[int], None] | None = None) -> list[Answer]:
        """Answers in the order of requests; vLLM works on them in that order, so neighbours share their prefixes.

        Raises ModelError, naming the prompt, when keys of it are missing, and when a device runs out of memory.
        """
        first = self._submitted
        self._submitted += len(requests)
        numbered = dict(enumerate(requests, start=first))
        outputs: dict[int, Any] = {}
        rows: dict[int, dict[int, Row]] = {}
        try:
            for number, request in numbered.items():
                self._submit(number, request)
            waiting = 0
            while self._engine.has_unfinished_requests():
                finished = {int(output.request_id): output for output in self._engine.step() if output.finished}
                outputs |= finished
                waiting += len(finished)
                if waiting >= TAKE_EVERY:
                    rows |= self._take(numbered)
                    waiting = 0
                if finished and on_finished is not None:
                    on_finished(len(finished))
            rows |= self._take(numbered)
        except BaseException as error:
            self._engine.abort_request([str(number) for number in numbered])
            if out_of_memory(error):
                raise ModelError(
                    "vLLM ran out of memory while it judged; lower `runtime.token_budget`, lower "
                    "`runtime.gpu_memory_utilization`, or give its cache less by `runtime.vllm_kv_cache_gib`"
                ) from error
            raise
        return [self._answer(request, outputs[number], rows.get(number, {})) for number, request in numbered.items()]

    def close(self) -> None:
        """End worker processes and give memory back."""
        self._engine.engine_core.shutdown()

    def _submit(self, number: int, request: Request) -> None:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        extra = None
        if request.spans is not None:
            extra = {REQUEST: {"id": number, "spans": [list(span) for span in request.spans]}}
        params = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            ignore_eos=True,
            detokenize=False,
            logprob_token_ids=list(self._verdict_ids) if request.verdict else None,
            extra_args=extra,
        )
        self._engine.add_request(str(number), TokensPrompt(prompt_token_ids=request.prompt_ids), params)

    def _take(self, numbered: Mapping[int, Request]) -> dict[int, dict[int, Row]]:
        ranks = self._llm.collective_rpc("attention_rows_take")
        for number, error in (entry for rank in ranks for entry in rank["errors"].items()):
            if number in numbered:
                raise ModelError(f"{numbered[number].where}: {error}; set `runtime.backend: transformers`")
        return merge_ranks(ranks, self._mean)

    def _answer(self, request: Request, output: Any, rows: Mapping[int, Row]) -> Answer:
        if request.spans is not None and (missing := sorted(set(self._layers) - rows.keys())):
            raise ModelError(
                f"{request.where}: vLLM ran without the capture in layers {missing}; set `runtime.backend: "
                "transformers`"
            )
        said = output.outputs[0]
        log_probs = None
        if request.verdict:
            found = said.logprobs[0]
            a, b = (found[token].logprob for token in self._verdict_ids)
            log_probs = (a, b)
        return Answer(
            rows={layer: split_spans(row, request.spans or ()) for layer, row in sorted(rows.items())},
            log_probs=log_probs,
            # Nothing restricts what is sampled at temperature 0: it is the most probable token of the vocabulary.
            top_token=int(said.token_ids[0]),
            cached_tokens=int(output.num_cached_tokens or 0),
        )


def merge_ranks(ranks: Sequence[Mapping[str, Any]], mean: bool) -> dict[int, dict[int, Row]]:
    """Rows [K, tokens] by request and layer from those of all tensor-parallel ranks, which hold equally many heads.

    `mean`: the mean over ranks of their means; otherwise the heads of rank 0, 1, … one after the other.
    Raises ModelError when a rank lacks a row that another one has.
    """
    ordered = [rank["rows"] for rank in sorted(ranks, key=lambda rank: rank["rank"])]
    merged: dict[int, dict[int, Row]] = {}
    for number in ordered[0]:
        if any(number not in rows or rows[number].keys() != ordered[0][number].keys() for rows in ordered):
            raise ModelError("vLLM's ranks captured different rows; set `runtime.backend: transformers`")
        merged[number] = {}
        for layer in ordered[0][number]:
            parts = [np.frombuffer(rows[number][layer], dtype=np.float32) for rows in ordered]
            merged[number][layer] = np.mean(parts, axis=0, dtype=np.float32) if mean else np.concatenate(parts)
    return merged


def split_spans(row: Row, spans: Sequence[tuple[int, int]]) -> list[Row]:
    """The [K, n] of every span from the flat row of K heads, each with the tokens of all spans."""
    lengths = [end - start for start, end in spans]
    heads = row.reshape(-1, sum(lengths)) if sum(lengths) else row.reshape(1, 0)
    return np.split(heads, np.cumsum(lengths)[:-1].tolist(), axis=1)
