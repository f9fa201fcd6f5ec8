"""Params with some values replaced: a profile, or a row of the comparison, on top of params.yaml."""

from collections.abc import Mapping
from typing import Any

REPLACED = ("settings",)
"""Mappings that are replaced whole: they belong to the objective that is named beside them."""


def merged(base: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `changes`, later ones last. Mappings are merged key by key, all else is replaced."""
    result = dict(base)
    for change in changes:
        for key, value in change.items():
            result[key] = merged(result[key], value) if both_mappings(key, result.get(key), value) else value
    return result


def both_mappings(key: str, old: Any, new: Any) -> bool:
    """Whether the values of a key are merged."""
    return isinstance(old, Mapping) and isinstance(new, Mapping) and key not in REPLACED
