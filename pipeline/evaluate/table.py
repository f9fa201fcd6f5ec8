"""`reports/evaluate/pairs.parquet`: what was measured on each test pair, and its means with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.evaluate import EvaluateParams
from pipeline.evaluate.bootstrap import mean_intervals
from pipeline.schemas.base import RESPONSES, column

_REWARDS = {
    "weighted": "Eq. 5 with the weights of the run, without |y| where the objective has none",
    "plain": "DPO, weight 1 on every trained token",
}

NUMBERS = {
    **{
        f"{kind}_{name}": f"{meaning}; rewards: {rewards}"
        for kind, rewards in _REWARDS.items()
        for name, meaning in {
            "accuracy": "1 where the chosen response has the greater implicit reward, 0.5 on a tie; the start has 0.5",
            "margin": "implicit reward of the chosen response less that of the rejected one; the start has 0",
            "loss": "-log sigma(margin); the start has log 2",
            "chosen_reward": "implicit reward of the chosen response",
            "rejected_reward": "implicit reward of the rejected response",
        }.items()
    },
    **{
        f"{response}_{name}": meaning.format(response)
        for response in RESPONSES
        for name, meaning in {
            "shift": "log pi_theta(y|x) - log pi_ref(y|x) of the {} response, nats",
            "shift_per_token": "the same per trained token",
            "kl_forward": "KL(pi_ref || pi_theta), whole vocabulary, mean over the positions of the {} response, nats",
            "kl_reverse": "KL(pi_theta || pi_ref), whole vocabulary, at the same positions, nats",
        }.items()
    },
    "start_likelihood_accuracy": "1 where the start gives the chosen response more log-prob per token; 0.5 on a tie",
    "policy_likelihood_accuracy": "the same of the policy",
}
"""Every number of a pair, with its meaning."""

EVALUATED = pa.schema(
    [
        column("pair_id", pa.string(), "as in `pairs`"),
        *(column(name, pa.float64(), meaning) for name, meaning in NUMBERS.items()),
    ]
)


def pairs_table(rows: Sequence[tuple[str, dict[str, float]]]) -> pa.Table:
    """(pair_id, numbers) of every pair, as a table of schema EVALUATED."""
    columns = {name: [numbers[name] for _, numbers in rows] for name in NUMBERS}
    return pa.table({"pair_id": [pair_id for pair_id, _ in rows], **columns}, schema=EVALUATED)


def summary(table: pa.Table, params: EvaluateParams) -> dict[str, Any]:
    """Metrics: the number of pairs and, where there are any, of every number `mean`, `low` and `high`."""
    if not len(table):
        return {"pairs": 0}
    values = np.stack([table[name].to_numpy() for name in NUMBERS], axis=1)
    intervals = mean_intervals(values, params.bootstrap_samples, params.confidence, params.seed)
    means = {name: asdict(interval) for name, interval in zip(NUMBERS, intervals, strict=True)}
    return {"pairs": len(table), "confidence": params.confidence, **means}
