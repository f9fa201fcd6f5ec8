"""Write a profile's literal values into params.yaml: `python -m pipeline.config.profile clean`.

Literal values, no indirection: DVC sees exactly the params that change, and re-runs the stages that use them.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.config.check import check_all
from pipeline.config.load import read_params
from pipeline.config.merge import both_mappings
from pipeline.errors import ConfigError, PipelineError
from pipeline.io.atomic import atomic_path


def apply_profile(root: Path, name: str) -> list[str]:
    """Change params.yaml, comments kept, and return the changed paths as `section.key: old -> new`.

    Raises ConfigError for an unknown profile, or when the result is not valid; params.yaml is unchanged then.
    """
    file = root / "profiles" / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(found.stem for found in file.parent.glob("*.yaml")))
        raise ConfigError(f"profile {name!r} does not exist; there are: {known}")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    params: Any = yaml.load((root / "params.yaml").read_text(encoding="utf-8"))
    changed = _changes(params, read_params(file))
    with atomic_path(root / "params.yaml") as temporary:
        with temporary.open("w", encoding="utf-8") as stream:
            yaml.dump(params, stream)
        check_all(temporary)
    return changed


def _changes(params: Any, values: Mapping[str, Any], where: str = "") -> list[str]:
    """Put the values into `params`, in place. Returns the changed paths."""
    changed = []
    for key, value in values.items():
        old = params.get(key)
        if both_mappings(key, old, value):
            changed += _changes(old, value, f"{where}{key}.")
        elif old != value:
            params[key] = value
            changed.append(f"{where}{key}: {old} -> {value}")
    return changed


if __name__ == "__main__":
    try:
        print("\n".join(apply_profile(Path(), sys.argv[1])) or "params.yaml already holds this profile")
    except IndexError:
        sys.exit("usage: python -m pipeline.config.profile NAME")
    except PipelineError as error:
        sys.exit(str(error))
