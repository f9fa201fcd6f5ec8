"""The settings of each side of the training benchmark, and the search for the fastest among them."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

Setting = dict[str, Any]
PRECISIONS = {"float32": ["float32"], "bfloat16": ["autocast", "bfloat16"]}
"""TRL's ways to a dtype. autocast: float32 weights; bfloat16: weights, gradients and optimizer too."""
NOT_CHOSEN = {
    "reference": "model: TRL's reference as a second model in memory instead of sums computed before",
    "keep_freed_memory": "this project's malloc settings, which a user of TRL does not have",
}
"""Settings that are timed to tell what they give; a run with one of them is never TRL's best."""


@dataclass
class Tried:
    """A setting, with what it gave on one global batch of pairs spread over all lengths."""

    setting: Setting
    seconds_per_pair: float | None = None
    peak_mib: float | None = None
    """Above model and optimizer."""
    total_peak_mib: float | None = None
    failed: str | None = None
    """Why it could not run."""

    @property
    def eligible(self) -> bool:
        """Whether it may be the best."""
        usual = self.setting.get("reference") != "model" and not self.setting.get("keep_freed_memory")
        return usual and self.failed is None


def grid(side: str, given: argparse.Namespace) -> list[Setting]:
    """What is tried of a side first."""
    checkpointing = [word == "on" for word in given.checkpointing]
    if side == "trl":
        micro_batches = [size for size in given.trl_micro_batches if not given.global_batch % size]
        if not micro_batches:
            raise SystemExit(
                f"--trl-micro-batches: none of {given.trl_micro_batches} divides --global-batch {given.global_batch}"
            )
        return [
            {
                "precision": precision,
                "micro_batch": micro_batch,
                "gradient_checkpointing": on,
                "optimizer": "adamw_torch_fused",
                "reference": "precomputed",
                "torch_compile": False,
                "keep_freed_memory": False,
            }
            for precision, micro_batch, on in product(PRECISIONS[given.dtype], micro_batches, checkpointing)
        ]
    return [
        {
            "micro_batch_tokens": tokens,
            "activation_checkpointing": "full" if on else "none",
            "share_prompts": side == "ours",
            "compile": False,
        }
        for tokens, on in product(given.micro_batch_tokens, checkpointing)
    ]


def variants(side: str, best: Setting, given: argparse.Namespace) -> list[Setting]:
    """What is tried on top of the fastest of the grid."""
    changes: list[Setting] = []
    if given.torch_compile:
        changes.append({"torch_compile" if side == "trl" else "compile": True})
    if side == "trl" and given.variants:
        changes += [{"optimizer": "adamw_torch"}, {"reference": "model"}]
        if given.device == "cpu":
            changes.append({"keep_freed_memory": True})
    return [best | change for change in changes]


def search(side: str, given: argparse.Namespace, measure: Callable[[Setting], Tried]) -> list[Tried]:
    """All settings tried, the fastest eligible one first; a setting without rivals is not tried. Exits where none could
    run.
    """
    settings = grid(side, given)
    if len(settings) == 1 and not variants(side, settings[0], given):
        return [Tried(settings[0])]
    found = [measure(setting) for setting in settings]
    found += [measure(setting) for setting in variants(side, _fastest(side, found).setting, given)]
    best = _fastest(side, found)
    return [best, *(tried for tried in found if tried is not best)]


def smallest(found: Iterable[Tried]) -> Tried:
    """The eligible setting with the smallest peak."""
    return min((tried for tried in found if tried.eligible), key=lambda tried: tried.peak_mib or 0.0)


def _fastest(side: str, found: list[Tried]) -> Tried:
    eligible = [tried for tried in found if tried.eligible]
    if not eligible:
        raise SystemExit(f"{side}: no setting could run: {found[0].failed}")
    return min(eligible, key=lambda tried: tried.seconds_per_pair or 0.0)
