"""Write each stage's code dependencies into dvc.yaml: `make code-deps`. A test compares them with this."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.io.closure import code_dependencies
from stages.compare_folder import FIRST, HERE
from stages.compare_row import ALONE

ROOT = Path(__file__).resolve().parent.parent


def code_deps(stage: str) -> list[str]:
    """What dvc.yaml must list for a stage besides its data."""
    return code_dependencies(ROOT / "stages" / f"{stage}.py", ROOT)


def comparison_deps(stage: str) -> list[str]:
    """What compare/dvc.yaml must list for a stage besides its data: a row runs all stages of the pipeline."""
    entries = {"row": ["compare_row", *FIRST, *HERE, *ALONE], "table": ["compare"]}[stage]
    return sorted({dep for entry in entries for dep in code_deps(entry)})


def data_deps(deps: list[str]) -> list[str]:
    """The deps of a stage that are not code."""
    return [dep for dep in deps if not dep.endswith(".py")]


def updated(text: str, code: Callable[[str], list[str]] = code_deps) -> str:
    """A dvc.yaml with the code dependencies as they are now."""
    yaml = YAML()
    yaml.width = 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    content: Any = yaml.load(text)
    for name, stage in content["stages"].items():
        stage["deps"] = [*data_deps(stage["deps"]), *code(name)]
    stream = io.StringIO()
    yaml.dump(content, stream)
    # A blank line between stages, which ruamel keeps only after values that it did not replace.
    lines = stream.getvalue().splitlines()
    spaced = []
    for line in lines:
        starts_stage = line.startswith("  ") and line[2:3].isalpha() and line.endswith(":")
        if starts_stage and spaced[-1] not in ("", "stages:"):
            spaced.append("")
        spaced.append(line)
    return "\n".join(spaced) + "\n"


if __name__ == "__main__":
    for name, code in (("dvc.yaml", code_deps), ("compare/dvc.yaml", comparison_deps)):
        file = ROOT / name
        file.write_text(updated(file.read_text(encoding="utf-8"), code), encoding="utf-8")
