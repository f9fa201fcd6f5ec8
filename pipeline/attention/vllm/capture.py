"""Query rows inside vLLM's workers: an extension of the worker class, called through `collective_rpc`.

vLLM keeps keys in a paged cache whose layout differs by kernel and processor and which is never read here. Each wanted
layer's keys are kept a second time, in a plain tensor under the same slot numbers: what prefix caching, chunked
prefill, eviction and preemption do to the slots then holds for these keys too. The attention of the wanted layers is
wrapped where vLLM hands query and key to its kernel, so they are those after projection, biases, q/k norms and rotary
embedding, whatever the model class.

Every slot also remembers which token at which position it was written for. A row is given out only if all its slots
hold the prompt's own tokens; a missing or foreign key is an error, never a gap.

A worker is a process of its own: errors go back as text, rows as bytes of float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.attention.backend import MEAN_OVER_HEADS
from pipeline.attention.row import attention_row, choose_heads

REQUEST = "attention_rows"
"""Key of `SamplingParams.extra_args`: {"id": int, "spans": [[start, end], ...]} of a request whose rows are wanted."""


class AttentionRows:
    """Mixed into vLLM's worker class by `worker_extension_cls`; its methods are the calls of `collective_rpc`."""

    def attention_rows_install(self, layers: Sequence[int], heads: Sequence[int], num_layers: int) -> dict[str, Any]:
        """Wrap the wanted layers. `heads` as `resolve_heads` gives them, over the heads of all ranks.

        Returns {"problems": [why this worker cannot give right rows], "rank": int, "heads": heads of a layer here}.
        Call `reset_prefix_cache` afterwards: keys of blocks computed before are not held.
        """
        worker: Any = self
        problems, found = wanted_layers(worker, layers, num_layers)
        if problems:
            return {"problems": problems, "rank": worker.rank, "heads": 0}
        self._attention_rows = _Capture(worker, found, heads)
        return {"problems": [], "rank": worker.rank, "heads": next(iter(found.values())).num_heads}

    def attention_rows_take(self) -> dict[str, Any]:
        """What was captured since the last call.

        {"rank": int, "rows": {request id: {layer: bytes of [K here, tokens of all spans]}}, "errors": {id: text}}.
        """
        return self._attention_rows.take()


def wanted_layers(worker: Any, layers: Sequence[int], num_layers: int) -> tuple[list[str], dict[int, Any]]:
    """The attention modules of the wanted layers, and why rows cannot be taken from this worker."""
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.models.utils import extract_layer_index

    config = worker.vllm_config
    parallel = config.parallel_config
    refused = {
        "Model Runner V2 (set VLLM_USE_V2_MODEL_RUNNER=0)": getattr(worker, "use_v2_model_runner", False),
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "context parallelism": getattr(parallel, "decode_context_parallel_size", 1) > 1,
        "speculative decoding": config.speculative_config is not None,
        "multi-head latent attention": config.model_config.use_mla,
    }
    problems = [name for name, present in refused.items() if present]
    by_layer: dict[int, list[Any]] = {}
    for name, module in config.compilation_config.static_forward_context.items():
        if isinstance(module, Attention):
            by_layer.setdefault(extract_layer_index(name), []).append(module)
    if sorted(by_layer) != list(range(num_layers)) or any(len(modules) != 1 for modules in by_layer.values()):
        problems.append(f"attention modules in layers {sorted(by_layer)}, not one in each of {num_layers}")
        return problems, {}
    found = {layer: by_layer[layer][0] for layer in layers}
    for layer, module in found.items():
        problems += [f"layer {layer}: {reason}" for reason in _layer_problems(module, Attention)]
    return problems, found


def _layer_problems(module: Any, plain: type) -> list[str]:
    impl = module.impl
    present = {
        f"{type(module).__name__} in place of plain attention": type(module) is not plain,
        "it shares another layer's keys": module.kv_sharing_target_layer_name is not None,
        "ALiBi": getattr(impl, "alibi_slopes", None) is not None,
        "attention sinks": getattr(impl, "sinks", None) is not None or getattr(module, "has_sink", False),
        "bidirectional attention": module.attn_type != "decoder",
        f"a cache of {module.kv_cache_dtype}": "fp8" in module.kv_cache_dtype or "fp4" in module.kv_cache_dtype,
        f"{type(impl).__name__} does not say its scale and soft-cap": not (
            hasattr(impl, "scale") and hasattr(impl, "logits_soft_cap")
        ),
    }
    return [reason for reason, is_so in present.items() if is_so]


@dataclass(frozen=True)
class _Wanted:
    """A request whose rows are wanted."""

    id: int
    prompt: list[int]
    spans: list[list[int]]


@dataclass(frozen=True)
class _Finishing:
    """A wanted request whose last prompt position is computed in this step."""

    wanted: _Wanted
    last: int
    """Index of that position among the step's tokens."""
    slots: Tensor
    """[L] slot of every prompt position."""
    own: Tensor
    """bool [L]: the slot was last written for this token at this position."""


class _Group:
    """The slots of one KV cache group: all its layers share slot numbers."""

    def __init__(self, runner: Any, index: int) -> None:
        spec = runner.kv_cache_config.kv_cache_groups[index].kv_cache_spec
        self.table = runner.input_batch.block_table[index]
        self.num_slots = runner.kv_cache_config.num_blocks * spec.block_size
        self.written_for = torch.zeros(self.num_slots, dtype=torch.int64, device=runner.device)
        self._in_block = torch.arange(self.table.block_size, device=runner.device)

    def step(self, tokens: Tensor, finishing: list[tuple[int, int, _Wanted]]) -> tuple[Tensor, list[_Finishing]]:
        """Note what the step writes, tokens[n] as `_token_at` makes them; its slots [n] and the finishing requests."""
        written = self.table.slot_mapping.gpu[: len(tokens)].long()
        self.written_for[written] = tokens
        found = []
        for row, last, wanted in finishing:
            length = len(wanted.prompt)
            blocks = self.table.block_table.gpu[row, : -(-length // self.table.block_size)].long()
            slots = (blocks[:, None] * self.table.block_size + self._in_block).flatten()[:length]
            prompt = torch.tensor(wanted.prompt, device=tokens.device)
            expected = _token_at(torch.arange(length, device=tokens.device), prompt)
            found.append(_Finishing(wanted, last, slots, self.written_for[slots] == expected))
        return written, found


class _Layer:
    """Keys of one layer, and its rows."""

    def __init__(self, index: int, module: Any, group: _Group, runner: Any) -> None:
        self.index = index
        self.module = module
        self.group = group
        self.window: int | None = module.sliding_window
        self.scale = float(module.impl.scale)
        self.softcap: float | None = float(module.impl.logits_soft_cap or 0) or None
        self.keys = torch.zeros(
            group.num_slots, module.num_kv_heads, module.head_size, dtype=runner.dtype, device=runner.device
        )

    def write(self, slots: Tensor, key: Tensor) -> None:
        self.keys[slots] = key[: len(slots)].view(-1, *self.keys.shape[1:])

    def row(self, query: Tensor, finishing: _Finishing, heads: Sequence[int]) -> Tensor:
        """float32 [K · tokens of all spans + 1] of query[H, d]; the last number is 1 if every key was the prompt's own.

        Keys before the sliding window are neither held nor needed: their scores are 0.
        """
        length = len(finishing.slots)
        start = 0 if self.window is None else max(0, length - self.window)
        keys = self.keys[finishing.slots[start:]].transpose(0, 1)
        seen = choose_heads(attention_row(query, keys, self.scale, softcap=self.softcap), heads)
        row = torch.nn.functional.pad(seen, (start, 0))
        spans = [row[:, begin:end] for begin, end in finishing.wanted.spans]
        scores = torch.cat(spans, dim=1) if spans else row[:, :0]
        return torch.cat([scores.flatten(), finishing.own[start:].all().float()[None]])


class _Capture:
    """The state of one worker: what is wanted, keys, and the rows not yet taken."""

    def __init__(self, worker: Any, modules: dict[int, Any], heads: Sequence[int]) -> None:
        self._rank = int(worker.rank)
        self._runner = worker.model_runner
        local = next(iter(modules.values())).num_heads
        first = local * int(worker.rank)
        mean = tuple(heads) == (MEAN_OVER_HEADS,)
        self._heads = tuple(heads) if mean else tuple(h - first for h in heads if first <= h < first + local)
        self._wanted: dict[str, _Wanted] = {}
        self._captured: list[tuple[int, int, Tensor]] = []
        self._rows: dict[int, dict[int, bytes]] = {}
        self._errors: dict[int, str] = {}
        self._scheduled: Any = None
        self._steps: dict[int, tuple[Tensor, list[_Finishing]]] = {}
        self._execute_model = self._runner.execute_model
        self._runner.execute_model = self._execute
        self.groups: dict[int, _Group] = {}
        for index, module in modules.items():
            group = next(
                number
                for number, known in enumerate(self._runner.kv_cache_config.kv_cache_groups)
                if module.layer_name in known.layer_names
            )
            if group not in self.groups:
                self.groups[group] = _Group(self._runner, group)
            self._wrap(_Layer(index, module, self.groups[group], self._runner))

    def take(self) -> dict[str, Any]:
        taken = {"rank": self._rank, "rows": self._rows, "errors": self._errors}
        self._rows, self._errors = {}, {}
        return taken

    def _wrap(self, layer: _Layer) -> None:
        impl = layer.module.impl
        forward = impl.forward

        def forward_and_capture(module: Any, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
            output = forward(module, query, key, *args, **kwargs)
            if self._scheduled is not None:  # none: vLLM measures memory or warms up
                self._capture(layer, query, key)
            return output

        impl.forward = forward_and_capture

    def _execute(self, scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        """One step of the model runner: learn of new requests before it, bring its rows to the host after it."""
        for request in scheduled.finished_req_ids:
            self._wanted.pop(request, None)
        for new in scheduled.scheduled_new_reqs:
            asked = (new.sampling_params.extra_args or {}).get(REQUEST)
            if asked is not None:
                self._wanted[new.req_id] = _Wanted(int(asked["id"]), list(new.prompt_token_ids), asked["spans"])
        self._scheduled = scheduled if scheduled.total_num_scheduled_tokens else None
        try:
            return self._execute_model(scheduled, *args, **kwargs)
        finally:
            self._scheduled = None
            self._steps.clear()
            self._bring_home()

    @torch.inference_mode()
    def _capture(self, layer: _Layer, query: Tensor, key: Tensor) -> None:
        group = id(layer.group)
        if group not in self._steps:
            self._steps[group] = layer.group.step(self._tokens(), self._finishing())
        slots, finishing = self._steps[group]
        layer.write(slots, key)
        for request in finishing:
            states = query[request.last].view(layer.module.num_heads, layer.module.head_size)
            self._captured.append((request.wanted.id, layer.index, layer.row(states, request, self._heads)))

    def _tokens(self) -> Tensor:
        count = self._scheduled.total_num_scheduled_tokens
        return _token_at(self._runner.positions[:count], self._runner.input_ids.gpu[:count])

    def _finishing(self) -> list[tuple[int, int, _Wanted]]:
        """(row of the batch, index of the last token, request) where the step computes the last prompt position."""
        batch = self._runner.input_batch
        found, end = [], 0
        for row, request in enumerate(batch.req_ids):
            scheduled = self._scheduled.num_scheduled_tokens[request]
            end += scheduled
            wanted = self._wanted.get(request)
            if wanted and int(batch.num_computed_tokens_cpu[row]) + scheduled == len(wanted.prompt):
                found.append((row, end - 1, wanted))
        return found

    def _bring_home(self) -> None:
        """Copies wait for the device, so they come after the whole step is under way."""
        for request, layer, row in self._captured:
            values = row.cpu().numpy()
            if values[-1] != 1:
                missing = f"layer {layer}: keys of the prompt are missing from the mirror of vLLM's cache"
                self._errors.setdefault(request, missing)
            self._rows.setdefault(request, {})[layer] = values[:-1].tobytes()
        self._captured.clear()


def _token_at(positions: Tensor, ids: Tensor) -> Tensor:
    """A number for each token at its position, never 0, which stands for a slot that was not written."""
    return positions.long() * 2**32 + ids.long() + 1
