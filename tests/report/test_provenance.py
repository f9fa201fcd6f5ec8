"""Params as the page shows them."""

from pathlib import Path

from ruamel.yaml import YAML

from pipeline.report.provenance import params_text, shown_path


def test_params_are_shown_whole_except_what_names_a_machine(root: Path) -> None:
    params = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    shown = YAML(typ="safe").load(params_text(params))
    assert shown == {name: section for name, section in params.items() if name != "runtime"}


def test_paths_keep_their_last_part_only() -> None:
    assert shown_path({"a": ["/home/me/data", "~/x/y", r"C:\me\model", "data/sample", "/", "a / b"]}) == {
        "a": ["…/data", "…/y", "…/model", "data/sample", "/", "a / b"]
    }
