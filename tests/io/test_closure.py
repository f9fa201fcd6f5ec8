"""The code a stage depends on: what dvc.yaml lists, and what must not be in it."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.io.closure import code_dependencies, code_digest
from tests.code_deps import code_deps, comparison_deps, data_deps


def stages(root: Path, file: str = "dvc.yaml") -> dict[str, dict[str, list[str]]]:
    content: dict[str, dict[str, dict[str, list[str]]]] = YAML(typ="safe", pure=True).load((root / file).read_text())
    return content["stages"]


def test_dvc_yaml_lists_the_closure_of_every_stage(root: Path) -> None:
    for name, stage in stages(root).items():
        listed = [dep for dep in stage["deps"] if dep not in data_deps(stage["deps"])]
        assert listed == code_deps(name), f"{name}: run `make code-deps`"


def test_the_comparison_lists_the_closures_of_all_stages(root: Path) -> None:
    for name, stage in stages(root, "compare/dvc.yaml").items():
        listed = [dep for dep in stage["deps"] if dep not in data_deps(stage["deps"])]
        assert listed == comparison_deps(name), f"{name}: run `make code-deps`"


def test_every_stage_lists_its_own_section(root: Path) -> None:
    for name, stage in stages(root).items():
        # `needs` chooses by keys of others, and tells `score` and `third` what concerns them.
        assert name in ("needs", "score", "third") or name in stage["params"]


def project(tmp_path: Path) -> Path:
    files = {
        "stages/a.py": "from pipeline.x import f\nimport numpy\nimport pipeline.io.shards\n",
        "pipeline/x.py": "from pipeline.sub import y\n",
        "pipeline/sub/__init__.py": "",
        "pipeline/sub/y.py": "def late():\n    import pipeline.z\n",
        "pipeline/z.py": "",
        "pipeline/unused.py": "",
        "pipeline/io/shards.py": "import pipeline.schemas.refused\n",
        "pipeline/schemas/refused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_imports_are_followed_also_inside_functions(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert code_dependencies(root / "stages/a.py", root) == [
        "pipeline/sub/y.py",
        "pipeline/x.py",
        "pipeline/z.py",
        "stages/a.py",
    ]


def test_the_digest_changes_with_a_dependency_and_with_nothing_else(tmp_path: Path) -> None:
    root = project(tmp_path)
    before = code_digest(root / "stages/a.py", root)
    (root / "pipeline/unused.py").write_text("x = 1\n")
    assert code_digest(root / "stages/a.py", root) == before
    (root / "pipeline/z.py").write_text("x = 1\n")
    assert code_digest(root / "stages/a.py", root) != before


@pytest.mark.parametrize(
    "stage", ["model", "prepare", "render", "extract", "postprocess", "tokenize", "realign", "reference"]
)
def test_no_objective_is_among_the_dependencies_of_the_stages_before_training(stage: str) -> None:
    assert not [dep for dep in code_deps(stage) if dep.startswith(("pipeline/objectives/", "pipeline/train/"))]


def test_extract_depends_on_no_other_stages_params_or_schemas() -> None:
    deps = [dep for dep in code_deps("extract") if dep.startswith(("pipeline/config/", "pipeline/schemas/"))]
    assert deps == ["pipeline/config/extract.py", "pipeline/schemas/attention.py", "pipeline/schemas/judge.py"]
