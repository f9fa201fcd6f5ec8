"""`compare/params.yaml`: which rows are compared, and how."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.config.base import Section
from pipeline.config.load import problems_message, read_params, validate
from pipeline.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Also of a folder below `compare/rows`."""
Changes = dict[str, dict[str, Any] | None]
"""Values by section that replace those of params.yaml."""


class CompareParams(Section):
    """The whole file."""

    rows: Annotated[list[Name], Field(min_length=1)]
    """Rows that are trained and shown, in this order; the first is what the others are compared with."""
    answers: Annotated[int, Field(ge=0)]
    """Test prompts that each policy answers, for the mean length of answers."""
    bootstrap_samples: Annotated[int, Field(ge=1)]
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)]
    base: Changes = Field(default_factory=dict)
    """What all rows change of params.yaml."""
    all: Annotated[dict[Name, Changes | None], Field(min_length=1)]
    """By name what each row changes besides."""

    @model_validator(mode="after")
    def _rows_are_there_once(self) -> "CompareParams":
        if unknown := [name for name in self.rows if name not in self.all]:
            raise ValueError(
                f"rows: no row {', '.join(map(repr, unknown))} under `all`; there are {', '.join(self.all)}"
            )
        if "store" in self.all:
            raise ValueError("all: store is the name of what rows share; name the row otherwise")
        if twice := sorted({name for name in self.rows if self.rows.count(name) > 1}):
            raise ValueError(f"rows: {', '.join(twice)} stand there more than once; name each row once")
        return self


def read_comparison(root: Path) -> CompareParams:
    """`compare/params.yaml` below a root. Raises ConfigError that lists every problem with its path."""
    path = root / "compare" / "params.yaml"
    problems, found = validate({"compare": read_params(path)}, "compare", CompareParams)
    if found is None:
        of_file = [problem.removeprefix("compare.").removeprefix("compare: ") for problem in problems]
        raise ConfigError(problems_message("compare/params.yaml", of_file))
    return found
