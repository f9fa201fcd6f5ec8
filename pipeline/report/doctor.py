"""Everything that can be known to fail before any work: params, data, models, memory, disk. Loads no weights."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from pipeline.attention.architectures import check_architecture
from pipeline.attention.backends import check_engine
from pipeline.attention.verdict import verdict_ids
from pipeline.config.check import check_all
from pipeline.config.model import ModelRef
from pipeline.config.needs import models_of, objective_needs
from pipeline.data.checks import usable_pair
from pipeline.data.rows import RowProblem
from pipeline.data.sources import Source, open_sources
from pipeline.errors import PipelineError
from pipeline.models.chat import Chat
from pipeline.models.device import choose_device
from pipeline.models.generation.base import stop_ids
from pipeline.models.load import context_length, load_config, load_tokenizer
from pipeline.models.manifest import Manifest
from pipeline.models.resolve import resolve
from pipeline.models.scoring import check_same_words, check_scoring
from pipeline.models.vocabulary import check_vocabulary
from pipeline.train.trackers import check_installed
from pipeline.weights.choose import check_heads, check_layer

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}
TRAINED_BYTES = 16
"""Per parameter, in float32: master weight, gradient and the two moments of AdamW."""
GOLD_ROWS = 1000
"""First rows of the train source in which a third response is looked for."""
CHECKPOINT_BYTES = 12
"""Per parameter: the same without the gradient. Adapters are a hundredth of a model, and not counted."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Literal["ok", "warning", "error"]
    text: str


def examine(root: Path) -> Iterator[Finding]:
    """Look at everything; nothing is raised, so that one problem does not hide the next."""
    sections: dict[str, Any] = {}
    found = _tried(lambda: sections.update(check_all(root / "params.yaml")), "params.yaml: every section is valid")
    yield found
    if found.level == "error":
        return
    yield from _data(sections, root)
    sizes: dict[str, int] = {}
    models = sections["model"]
    for role in ("judge", "start"):
        yield from _model(role, models.ref(role), sections, root, sizes)
    for role in ("positive", "negative"):
        yield from _contrasted(role, sections, root, sizes)
    yield from _memory(sections, sizes)
    yield from _disk(root, sizes, sections)


def _data(sections: dict[str, Any], root: Path) -> Iterator[Finding]:
    params = sections["prepare"]
    if params.hub is not None and not (root / params.hub.id).is_dir():
        yield Finding("ok", f"prepare.hub: {params.hub.id} is looked up by `prepare`; not checked here")
        return
    try:
        sources = open_sources(params, root)
        for source in sources.values():
            rows = list(itertools.islice(source.rows(), 1))
            yield Finding(
                "ok" if rows else "error", f"{source.params_path}: {source.label} {'opens' if rows else 'is empty'}"
            )
            train = sections["train"]
            if rows and source.split == "train" and "gold" in objective_needs(train):
                yield _gold(source, params.limit, train.objective)
    except PipelineError as error:
        yield Finding("error", str(error))


def _gold(source: Source, limit: int | None, objective: str) -> Finding:
    looked_at, unread = 0, False
    for row in itertools.islice(source.rows(), limit):
        if looked_at == GOLD_ROWS:
            unread = True  # and may have one: `needs` reads them all
            break
        looked_at += 1
        try:
            if row.columns is not None and usable_pair(row.columns, source.label)[0].gold:
                return Finding("ok", f"{source.params_path}: has a third response (`gold`) for {objective}")
        except RowProblem:
            continue
    return Finding(
        "warning" if unread else "error",
        f"train.objective: {objective} needs a third response, and none of the first {looked_at} rows of"
        f" {source.params_path} ({source.label}) has a `gold` that can be used; add the column, or choose an objective"
        " without it",
    )


def _model(role: str, ref: ModelRef, sections: dict[str, Any], root: Path, sizes: dict[str, int]) -> Iterator[Finding]:
    if ref.source == "hub":
        yield Finding("ok", f"model.{role}: {ref.name} is fetched by `model`; not checked here")
        return
    manifests: list[Manifest] = []
    found = _tried(
        lambda: manifests.append(resolve(ref, role, root)), f"model.{role}: safetensors, tokenizer, config are there"
    )
    yield found
    if found.level == "error":
        return
    manifest = manifests[0]
    if role == "start":
        checks = _start_checks
    elif sections["weights"].source == "judge":
        checks = _judge_checks
    elif sections["weights"].source == "verbalized":
        checks = _writer_checks
    else:
        # A judge that nobody asks needs to be there, and no more.
        return
    config = load_config(manifest)
    sizes[role] = _parameters(config)
    for check, fine in checks(manifest, config, sections):
        yield _tried(check, fine)


def _contrasted(role: str, sections: dict[str, Any], root: Path, sizes: dict[str, int]) -> Iterator[Finding]:
    """`model` compares both with the start, whatever the weight source; one that is the start has nothing to fail."""
    models = sections["model"]
    ref, start = models.ref(role), models.start_ref
    if ref == start:
        sizes |= {role: sizes["start"]} if "start" in sizes else {}
        return
    if "hub" in (ref.source, start.source):
        yield Finding("ok", f"model.{role}: is compared with the start by `model`; not checked here")
        return

    def check() -> None:
        manifest = resolve(ref, role, root)
        check_vocabulary(manifest, resolve(start, "start", root))
        if role in models_of(sections["weights"], sections["score"]):
            check_scoring(manifest, sections["tokenize"].max_tokens)
            # Once, with the first of the two that is no start.
            if sections["weights"].source == "critical" and (role == "positive" or models.ref("positive") == start):
                check_same_words(*(resolve(models.ref(each), each, root) for each in ("positive", "negative")))
        sizes[role] = _parameters(load_config(manifest))

    yield _tried(check, f"model.{role}: is there, with the start's tokenizer")


def _parameters(config: PretrainedConfig) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())


Checks = Iterator[tuple[Callable[[], object], str]]


def _judge_checks(manifest: Manifest, config: PretrainedConfig, sections: dict[str, Any]) -> Checks:
    depth, heads = config.get_text_config().num_hidden_layers, config.get_text_config().num_attention_heads
    yield lambda: check_architecture(config), f"model.judge: attention of {config.model_type} is known"
    extract, postprocess = sections["extract"], sections["postprocess"]
    yield (
        lambda: check_layer(extract, postprocess, depth),
        f"extract.layers, postprocess.layer: the judge has {depth} layers",
    )
    yield (
        lambda: check_heads(extract, postprocess, heads),
        f"extract.heads, postprocess.heads: the judge's layers have {heads} heads",
    )
    runtime, limit = sections["runtime"], sections["render"].max_tokens

    def long_enough() -> None:
        if (context := context_length(config)) < limit:
            raise PipelineError(
                f"model.judge: reads {context} tokens, render.max_tokens is {limit}: lower render.max_tokens or choose"
                " another model"
            )

    yield long_enough, f"model.judge: reads render.max_tokens = {limit} tokens"
    yield (
        lambda: check_engine(runtime, config, choose_device(runtime.device)),
        f"runtime.backend: {runtime.attention_backend} is installed and computes this judge",
    )
    yield (
        lambda: verdict_ids(load_tokenizer(manifest), manifest.chat_template),
        "model.judge: chat template, and the verdicts A and B are one token each",
    )


def _writer_checks(manifest: Manifest, config: PretrainedConfig, sections: dict[str, Any]) -> Checks:
    """Of a judge that writes its scores: nothing of its attention is read."""
    runtime = sections["runtime"]
    if runtime.backend == "vllm":
        yield (
            lambda: check_engine(runtime, config, choose_device(runtime.device)),
            "runtime.backend: vllm is installed and computes this judge",
        )

    def ends() -> None:
        tokenizer = load_tokenizer(manifest)
        stop_ids(tokenizer, Chat(tokenizer, manifest.chat_template))

    yield ends, "model.judge: chat template with an end of turn"


def _start_checks(manifest: Manifest, config: PretrainedConfig, sections: dict[str, Any]) -> Checks:
    limit = sections["tokenize"].max_tokens
    yield (
        lambda: check_installed(sections["runtime"].trackers),
        "runtime.trackers: installed, or none wanted",
    )
    yield (
        lambda: check_scoring(manifest, limit),
        f"model.start: log-probs of {config.model_type} are known, up to tokenize.max_tokens = {limit}",
    )
    yield (
        lambda: Chat(load_tokenizer(manifest), manifest.chat_template, role="start").end_of_turn_id,
        "model.start: chat template with an end of turn",
    )


def _memory(sections: dict[str, Any], sizes: dict[str, int]) -> Iterator[Finding]:
    try:
        device = choose_device(sections["runtime"].device)
    except PipelineError as error:
        yield Finding("error", str(error))
        return
    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available
    for stage, need in _held(sections, sizes, device.type == "cuda").items():
        level: Literal["ok", "warning"] = "ok" if need < 0.9 * free else "warning"
        yield Finding(
            level,
            f"memory: {stage} holds {need / GIB:.1f} GiB and activations; {free / GIB:.1f} GiB are free on {device}",
        )


def _held(sections: dict[str, Any], sizes: dict[str, int], cuda: bool) -> dict[str, int]:
    """Bytes of models by stage, of the stages whose models are all there to be looked at."""
    runtime, train = sections["runtime"], sections["train"]
    needs = objective_needs(train)
    readers: dict[str, tuple[tuple[str, ...], str]] = {
        "extract": (("judge",) if sections["weights"].source == "judge" else (), sections["extract"].dtype),
        "score": (models_of(sections["weights"], sections["score"]), sections["score"].dtype),
        "third": (("start",) if needs & {"anchor", "kl_pairs"} else (), sections["reference"].dtype),
    }
    # On CUDA each process has a device of its own; on the CPU they share the memory.
    workers = 1 if cuda else runtime.workers or 1
    held = {
        stage: workers * BYTES[dtype] * sum(sizes[role] for role in roles)
        for stage, (roles, dtype) in readers.items()
        if roles and all(role in sizes for role in roles)
    }
    if "start" in sizes:
        copy = BYTES[train.dtype] if train.lora or train.dtype != "float32" else 0
        policy = sizes["start"] * (copy + (0 if train.lora else TRAINED_BYTES)) // (runtime.processes if cuda else 1)
        # The reference is whole in every process; with adapters it is the policy without them.
        second = sizes["start"] * BYTES[train.dtype] if "ref_model" in needs and not train.lora else 0
        # Every process reads the whole model before it is sharded.
        read = sizes["start"] * BYTES[train.dtype if train.lora else "float32"]
        held["train"] = max(policy + second * (1 if cuda else runtime.processes), read)
    return held


def _disk(root: Path, sizes: dict[str, int], sections: dict[str, Any]) -> Iterator[Finding]:
    free = shutil.disk_usage(root).free
    train = sections["train"]
    # Besides the newest: the best, and the one that is being written before an old one goes.
    kept = 0 if train.lora else sections["runtime"].keep_checkpoints + 2
    policy = 0 if train.lora and not train.lora.merge else BYTES[train.dtype]
    need = sizes.get("start", 0) * (policy + CHECKPOINT_BYTES * kept)
    level: Literal["ok", "warning"] = "ok" if need < free else "warning"
    yield Finding(level, f"disk: policy and checkpoints take up to {need / GIB:.1f} GiB; {free / GIB:.1f} GiB are free")


def _tried(check: Callable[[], object], fine: str) -> Finding:
    try:
        check()
    except PipelineError as error:
        return Finding("error", str(error))
    return Finding("ok", fine)
