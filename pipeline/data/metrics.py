"""Figures of the prepared pairs, for `reports/metrics/prepare.json`."""

from collections.abc import Sequence
from typing import Any

from pipeline.data.pairs import Pair
from pipeline.data.prepare import Prepared
from pipeline.io.refusal import count_reasons


def prepare_metrics(prepared: Prepared) -> dict[str, Any]:
    """Rows, pairs and refusals by split and reason; lengths and shares of each split that has pairs."""
    train = prepared.sources["train"]
    return {
        "rows": {split: source.rows for split, source in prepared.sources.items()},
        "pairs": {split: len(pairs) for split, pairs in prepared.pairs.items()},
        "refused": {
            split: count_reasons(refusal.reason for refusal in source.refused)
            for split, source in prepared.sources.items()
        },
        "refused_total": len(prepared.refused),
        "prompts_removed_from_train": len(train.prompts_in_test),
        "scores_dropped": sum(source.scores_dropped for source in prepared.sources.values()),
        **{split: describe(pairs) for split, pairs in prepared.pairs.items() if pairs},
    }


def describe(pairs: Sequence[Pair]) -> dict[str, float]:
    """Mean lengths in characters and shares of the pairs. `multi_turn_share`: more than one user turn."""
    roles = [[turn["role"] for turn in pair.prompt] for pair in pairs]
    return {
        "mean_prompt_characters": _mean([sum(len(turn["content"]) for turn in pair.prompt) for pair in pairs]),
        "mean_chosen_characters": _mean([len(pair.chosen) for pair in pairs]),
        "mean_rejected_characters": _mean([len(pair.rejected) for pair in pairs]),
        "multi_turn_share": _mean([turns.count("user") > 1 for turns in roles]),
        "system_turn_share": _mean(["system" in turns for turns in roles]),
        "scored_share": _mean([pair.score_chosen is not None and pair.score_rejected is not None for pair in pairs]),
        "gold_share": _mean([pair.gold is not None for pair in pairs]),
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
