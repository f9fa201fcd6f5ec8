"""All sections at once. Every stage calls this first, so that a typing error in `train` costs no hours of `extract`.

The sections are loaded by name, not imported: the code a stage depends on must not grow with other stages' params.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.config.load import problems_message, read_params, validate
from pipeline.config.objective import Settings, leaves_length_out, parse_settings, weights_of
from pipeline.config.weights import may_be_negative, reads_scores, scale_of
from pipeline.errors import ConfigError

SECTIONS = {
    "model": "ModelParams",
    "prepare": "PrepareParams",
    "render": "RenderParams",
    "extract": "ExtractParams",
    "postprocess": "PostprocessParams",
    "tokenize": "TokenizeParams",
    "weights": "WeightsParams",
    "score": "ScoreParams",
    "realign": "RealignParams",
    "reference": "ReferenceParams",
    "third": "ThirdParams",
    "train": "TrainParams",
    "evaluate": "EvaluateParams",
    "report": "ReportParams",
    "runtime": "RuntimeParams",
}


def check_all(path: Path) -> dict[str, Any]:
    """Every section of a params.yaml, validated alone and against the others. Raises ConfigError with all problems."""
    return check_params(read_params(path), path)


def check_params(params: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """The same of params in memory. `where`: what the message of the ConfigError begins with."""
    problems = [f"{name}: unknown section; known: {', '.join(SECTIONS)}" for name in params if name not in SECTIONS]
    sections: dict[str, Any] = {}
    for name, class_name in SECTIONS.items():
        found, section = validate(params, name, getattr(import_module(f"pipeline.config.{name}"), class_name))
        problems += found
        sections[name] = section
    problems += _contradictions(sections)
    if problems:
        raise ConfigError(problems_message(where, problems))
    return sections


def _contradictions(sections: dict[str, Any]) -> list[str]:
    found = []
    extract, postprocess = sections["extract"], sections["postprocess"]
    if extract and postprocess:
        found += _rows_not_cached(extract, postprocess)
    reference, train = sections["reference"], sections["train"]
    if reference and train and reference.dtype != train.dtype:
        found.append(
            f"reference.dtype: {reference.dtype} differs from train.dtype {train.dtype}; the cached log-probs would not"
            " be the policy's first ones; set both to the same"
        )
    weights, score = sections["weights"], sections["score"]
    if train:
        try:
            settings = parse_settings(train.objective, train.settings)
        except ConfigError as error:  # a name that is none, or settings that the objective does not take
            found += str(error).splitlines()
        else:
            found += _does_not_fit(weights, train, settings) if weights else []
    if weights and score and sections["model"]:
        found += _same_models(weights, score, sections["model"])
    runtime = sections["runtime"]
    if runtime and train and train.global_batch_pairs % runtime.processes:
        found.append(
            f"train.global_batch_pairs: {train.global_batch_pairs} can't be divided among runtime.processes"
            f" = {runtime.processes}; choose a multiple"
        )
    if runtime and extract:
        found += _backend_cannot(runtime, extract)
    if runtime and train and runtime.attention == "flash_attention_2":
        found += _flash_attention_cannot(runtime, train)
        if weights and score:
            found += _flash_attention_cannot_score(weights, score)
    return found


def _does_not_fit(weights: Any, train: Any, settings: Settings) -> list[str]:
    """A weight source whose weights the objective has no use for."""
    kind, scale = weights_of(train.objective, settings), scale_of(weights)
    pair = f"weights.source: {weights.source} and train.objective: {train.objective}"
    if kind == "none" and weights.source != "uniform":
        return [
            f"{pair} don't fit: {train.objective} gives every token the same weight; set weights.source: uniform, or"
            " train.objective: twdpo"
        ]
    if kind == "mask" and scale != "mask":
        return [
            f"{pair} don't fit: {train.objective} takes the 0/1 weights of weights.source: contrast with"
            " weights.contrast.transform: select"
        ]
    if scale != "sum1" and leaves_length_out(train.objective, settings):
        return [
            f"{pair} don't fit: {train.objective} without |y| takes weights of sum 1, and these are {scale}; their sum"
            " grows with the length. Choose another source, train.objective: twdpo, or tidpo with train.settings:"
            " {length_normalized: false}"
        ]
    if kind == "nonnegative" and may_be_negative(weights):
        return [
            f"{pair} don't fit: {train.objective} {settings.against_negative()}, and weights.contrast.transform:"
            f" {weights.contrast.transform} may be negative; choose another transform"
        ]
    return []


def _same_models(weights: Any, score: Any, model: Any) -> list[str]:
    """A contrast of a model with itself."""
    contrasted = weights.source == "critical" or (weights.source == "contrast" and score.contrast.models == "given")
    if contrasted and reads_scores(weights) and model.ref("positive") == model.ref("negative"):
        return [
            f"weights.source: {weights.source} contrasts model.positive with model.negative, which are the same; name"
            " two models, or set score.contrast.models: prompts with weights.source: contrast"
        ]
    return []


def _flash_attention_cannot(runtime: Any, train: Any) -> list[str]:
    found = []
    if train.dtype == "float32":
        found.append(
            "runtime.attention: flash_attention_2 has no float32; set reference.dtype and train.dtype to bfloat16, or"
            " runtime.attention: segments"
        )
    if runtime.share_prompts:
        found.append(
            "runtime.attention: flash_attention_2 has no shared prompts; set runtime.share_prompts: false, or"
            " runtime.attention: segments"
        )
    return found


def _flash_attention_cannot_score(weights: Any, score: Any) -> list[str]:
    # The verbalized source generates, for which runtime.attention plays no part.
    if score.dtype != "float32" or not reads_scores(weights) or weights.source == "verbalized":
        return []
    return [
        f"runtime.attention: flash_attention_2 has no float32, and weights.source: {weights.source} reads raw scores;"
        " set score.dtype: bfloat16, or runtime.attention: segments"
    ]


def _backend_cannot(runtime: Any, extract: Any) -> list[str]:
    """What the extraction backend has no way to do. Both take every choice of layers, heads, query and dtype."""
    found = []
    if runtime.backend == "vllm" and extract.source == "rollout":
        found.append(
            "extract.source: rollout needs the queries of every position in all layers, which runtime.backend: vllm"
            " does not keep; set runtime.backend: transformers"
        )
    if runtime.backend != "vllm" and runtime.tensor_parallel > 1:
        found.append(
            f"runtime.tensor_parallel: {runtime.tensor_parallel} is for runtime.backend: vllm alone; set it to 1"
        )
    return found


def _rows_not_cached(extract: Any, postprocess: Any) -> list[str]:
    """Layer and heads that `postprocess` asks for and `extract` will not cache."""
    found = []
    rollout = extract.source == "rollout"
    # The same layer can be named from either end; only `extract` knows the model's depth, and checks the rest.
    named_alike = all((layer < 0) == (postprocess.layer < 0) for layer in extract.layers)
    if not rollout and named_alike and postprocess.layer not in extract.layers:
        found.append(
            f"postprocess.layer: {postprocess.layer} is not among extract.layers {extract.layers};"
            " add it there or choose one of them"
        )
    if postprocess.heads == "all" or extract.heads == "each":
        return found
    if extract.heads == "mean":
        remedy = "" if rollout else ", or extract.heads to each or a list with these heads"
        found.append(
            f"postprocess.heads: {postprocess.heads} can't be chosen: {'rollout' if rollout else 'extract.heads: mean'}"
            f" caches no rows of single heads; set postprocess.heads: all{remedy}"
        )
    elif missing := sorted(set(postprocess.heads) - set(extract.heads)):
        found.append(
            f"postprocess.heads: {missing} not among extract.heads {extract.heads}; add them there or choose of these"
        )
    return found
