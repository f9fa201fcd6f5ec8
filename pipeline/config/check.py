"""All sections at once. Every stage calls this first, so that a typing error in `train` costs no hours of `extract`.

The sections are loaded by name, not imported: the code a stage depends on must not grow with other stages' params.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.config.load import problems_message, read_params, validate
from pipeline.errors import ConfigError

SECTIONS = {
    "model": "ModelParams",
    "prepare": "PrepareParams",
    "render": "RenderParams",
    "extract": "ExtractParams",
    "postprocess": "PostprocessParams",
    "tokenize": "TokenizeParams",
    "realign": "RealignParams",
    "reference": "ReferenceParams",
    "train": "TrainParams",
    "evaluate": "EvaluateParams",
    "report": "ReportParams",
    "runtime": "RuntimeParams",
}


def check_all(path: Path) -> dict[str, Any]:
    """Every section, validated alone and against the others. Raises one ConfigError with all problems."""
    params = read_params(path)
    problems = [f"{name}: unknown section; known: {', '.join(SECTIONS)}" for name in params if name not in SECTIONS]
    sections: dict[str, Any] = {}
    for name, class_name in SECTIONS.items():
        found, section = validate(params, name, getattr(import_module(f"pipeline.config.{name}"), class_name))
        problems += found
        sections[name] = section
    problems += _contradictions(sections)
    if problems:
        raise ConfigError(problems_message(path, problems))
    return sections


def _contradictions(sections: dict[str, Any]) -> list[str]:
    found = []
    extract, postprocess = sections["extract"], sections["postprocess"]
    # The same layer can be named from either end; only `extract` knows the model's depth, and checks the rest.
    if extract and postprocess and postprocess.layer not in extract.layers:
        named_alike = all((layer < 0) == (postprocess.layer < 0) for layer in extract.layers)
        if named_alike:
            found.append(
                f"postprocess.layer: {postprocess.layer} is not among extract.layers {extract.layers};"
                " add it there or choose one of them"
            )
    reference, train = sections["reference"], sections["train"]
    if reference and train and reference.dtype != train.dtype:
        found.append(
            f"reference.dtype: {reference.dtype} differs from train.dtype {train.dtype}; the cached log-probs would not"
            " be the policy's first ones; set both to the same"
        )
    runtime = sections["runtime"]
    if runtime and train and train.global_batch_pairs % runtime.processes:
        found.append(
            f"train.global_batch_pairs: {train.global_batch_pairs} can't be divided among runtime.processes"
            f" = {runtime.processes}; choose a multiple"
        )
    return found
