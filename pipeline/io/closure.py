"""The code a stage depends on: its entry file and everything of this project that it imports, directly or not."""

import ast
from functools import cache
from pathlib import Path

from pipeline.io.digest import file_digest, value_digest

PACKAGES = ("pipeline", "stages")
NOT_COUNTED = (
    "pipeline/config/base.py",
    "pipeline/config/check.py",
    "pipeline/config/load.py",
    "pipeline/config/runtime.py",
    "pipeline/errors.py",
    "pipeline/io/",
    "pipeline/schemas/base.py",
    "stages/common.py",
)
"""Files whose changes cannot change a result: io, logs, progress, params checks; nor does what they import. A change of
what they write raises `pipeline.schemas.base.VERSION` instead, which is part of every key."""


def code_dependencies(entry: Path, root: Path) -> list[str]:
    """Paths relative to `root`, sorted, that a result depends on; `NOT_COUNTED` and empty package files left out."""
    found: set[Path] = set()
    open_files = [entry.resolve()]
    while open_files:
        file = open_files.pop()
        name = file.relative_to(root.resolve()).as_posix()
        if file not in found and not name.startswith(NOT_COUNTED):
            found.add(file)
            open_files += _imports(file, root.resolve())
    names = (file.relative_to(root.resolve()).as_posix() for file in found)
    return sorted(name for name in names if not name.endswith("__init__.py"))


def code_digest(entry: Path, root: Path) -> str:
    """sha256 of a stage's code dependencies."""
    return value_digest({name: file_digest(root / name) for name in code_dependencies(entry, root)})


@cache
def _imports(file: Path, root: Path) -> tuple[Path, ...]:
    modules: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    paths = []
    for module in modules:
        if module.split(".")[0] in PACKAGES:
            candidate = root.joinpath(*module.split(".")).with_suffix(".py")
            if candidate.is_file():
                paths.append(candidate)
    return tuple(paths)
