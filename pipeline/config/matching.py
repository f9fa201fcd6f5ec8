"""Which profiles some params hold, found from the values themselves: a recorded name would outlive its values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.check import check_params
from pipeline.config.merge import merged
from pipeline.config.objective import parse_settings
from pipeline.config.profile import profile_names, read_profile
from pipeline.errors import ConfigError


def matching_profiles(params: Mapping[str, Any], folder: Path, depth: int | None = None) -> list[str]:
    """The profiles of a folder that would change nothing of what these params mean, in alphabetical order.

    A key that is left out has its default. A folder of a model that a profile names is a place to fill in: any model of
    the user's own is as good there. `depth`: of the judge, whose layer -1 is then the same as its last one.
    Raises ConfigError for a profile that cannot be read.
    """
    profiles = {name: read_profile(folder, name) for name in profile_names(folder)}
    now = _meaning(params, depth)
    if now is None:
        return []
    return [name for name, values in profiles.items() if _meaning(_on_top(params, values), depth) == now]


def _on_top(params: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Params after the profile, and after the user has named the models that it left to be named."""
    models = params.get("model") or {}
    own = {
        role: models[role]
        for role, ref in values.get("model", {}).items()
        if _source(ref) == "folder" and _source(models.get(role)) in ("folder", "hub")
    }
    return merged(params, values, {"model": own} if own else {})


def _source(ref: Any) -> str | None:
    return ref.get("source") if isinstance(ref, Mapping) else None


def _meaning(params: Mapping[str, Any], depth: int | None) -> dict[str, Any] | None:
    """Every section with its defaults; None where the params do not fit one another."""
    try:
        sections = check_params(params, "params.yaml")
    except ConfigError:
        return None
    train, postprocess = sections["train"], sections["postprocess"]
    settings = parse_settings(train.objective, train.settings).model_dump()
    layer = postprocess.layer + depth if depth and postprocess.layer < 0 else postprocess.layer
    return {
        **sections,
        "train": train.model_copy(update={"settings": settings}),
        "postprocess": postprocess.model_copy(update={"layer": layer}),
    }
