"""Write a profile's literal values into params.yaml: `python -m pipeline.config.profile clean`.

Literal values, no indirection: DVC sees exactly the params that change, and re-runs the stages that use them. A profile
may begin with `extends: NAME`: then it holds what differs from that one, whose values are written too. So nothing of a
method stays behind when another one follows: every method writes the same keys, those of `method`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from pipeline.config.check import check_params
from pipeline.config.load import read_params
from pipeline.config.merge import both_mappings, merged
from pipeline.errors import ConfigError, PipelineError
from pipeline.io.atomic import atomic_path

EXTENDS = "extends"
WIDE = 4096
"""Columns of a line that is written: long values of the user stay on theirs."""


def apply_profile(root: Path, name: str) -> list[str]:
    """Change params.yaml, comments kept, and return the changed paths as `section.key: old -> new`.

    Raises ConfigError for an unknown profile, or when the result is not valid; params.yaml is unchanged then.
    """
    values = read_profile(root / "profiles", name)
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = WIDE
    yaml.indent(mapping=2, sequence=4, offset=2)
    params: Any = yaml.load((root / "params.yaml").read_text(encoding="utf-8"))
    changed = _changes(params, values)
    with atomic_path(root / "params.yaml") as temporary:
        with temporary.open("w", encoding="utf-8") as stream:
            yaml.dump(params, stream)
        check_params(read_params(temporary), f"profile {name} on top of params.yaml, which stays as it was")
    return changed


def profile_names(folder: Path) -> list[str]:
    """The profiles of a folder, in alphabetical order."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def read_profile(folder: Path, name: str) -> dict[str, Any]:
    """The values of a profile on top of those that it extends.

    Raises ConfigError where one of them is not in the folder, naming both files, or where they extend each other.
    """
    known = profile_names(folder)
    if name not in known:
        raise ConfigError(f"profile {name!r} does not exist; there are: {', '.join(known)}")
    names, chain = [name], []
    while True:
        file = folder / f"{names[-1]}.yaml"
        values = read_params(file)
        above = values.pop(EXTENDS, None)
        chain.append(values)
        if above is None:
            return merged({}, *reversed(chain))
        if above not in known:
            raise ConfigError(
                f"{file}: {EXTENDS}: {above}, but {folder / f'{above}.yaml'} does not exist; there are: "
                + ", ".join(known)
            )
        if above in names:
            way = " -> ".join([*names[names.index(above) :], above])
            raise ConfigError(
                f"{file}: {EXTENDS}: {above}, but {folder / f'{above}.yaml'} extends it in turn ({way}); remove one of"
                f" these lines `{EXTENDS}:`"
            )
        names.append(above)


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


class _Representer(RoundTripRepresenter):
    """Writes `null` where the file had `null`, not nothing."""


_Representer.add_representer(type(None), lambda made, _: made.represent_scalar("tag:yaml.org,2002:null", "null"))


if __name__ == "__main__":
    try:
        print("\n".join(apply_profile(Path(), sys.argv[1])) or "params.yaml already holds this profile")
    except IndexError:
        sys.exit("usage: python -m pipeline.config.profile NAME")
    except PipelineError as error:
        sys.exit(str(error))
