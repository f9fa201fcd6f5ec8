"""params.yaml to one section's model. YAML 1.2 through ruamel, as DVC reads it: PyYAML takes `1e-5` for a string."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.config.base import Section
from pipeline.errors import ConfigError

S = TypeVar("S", bound=Section)


def read_params(path: Path) -> dict[str, Any]:
    """The plain content of params.yaml. Raises ConfigError when it is missing or no YAML mapping."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; stages run in the folder that holds params.yaml")
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of sections such as `prepare:` and `train:`")
    return content


def load_section(path: Path, name: str, model: type[S]) -> S:
    """Section `name` of params.yaml. Raises ConfigError that lists every problem of the section with its path."""
    problems, section = validate(read_params(path), name, model)
    if section is None:
        raise ConfigError(problems_message(path, problems))
    return section


def validate(params: Mapping[str, Any], name: str, model: type[S]) -> tuple[list[str], S | None]:
    """All problems of one section, as `path: what is wrong`, or the section. A missing section has its defaults."""
    try:
        content = params.get(name)
        return [], model.model_validate({} if content is None else content)
    except ValidationError as error:
        return [_problem(name, dict(detail)) for detail in error.errors()], None


def _problem(section: str, detail: dict[str, Any]) -> str:
    # Of a union pydantic also names the member, such as `function-after[_names_what_it_needs(), ModelRef]`.
    where = ".".join([section, *(str(part) for part in detail["loc"] if "(" not in str(part))])
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or correct its spelling"
    what = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{where}: {what}"
    return f"{where}: {what} (found {detail['input']!r})"


def problems_message(where: Path | str, problems: list[str]) -> str:
    """One message for all problems of a params file, or of what would become one."""
    return f"{where}: {len(problems)} problem(s)\n" + "\n".join(f"  {problem}" for problem in problems)
