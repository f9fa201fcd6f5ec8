"""The sections on data and judge: how many pairs went how far, what was cut or refused, how good the verdicts are."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.markdown import escaped, table
from pipeline.report.numbers import decimal, percent
from pipeline.report.read import Refused
from pipeline.schemas.base import RESPONSES, SPLITS

Metrics = Mapping[str, Any]


def data_section(metrics: Mapping[str, Metrics], refused: Sequence[Refused]) -> str:
    """Pairs by split and stage, cut and matched shares, refusals. `metrics`: by the stage that wrote them."""
    rows = [
        ["rows read", "", *_by_split(metrics["prepare"]["rows"])],
        ["usable pairs", "`prepare`", *_by_split(metrics["prepare"]["pairs"])],
        ["judged", "`render`", *_each(metrics["render"], "pairs")],
        ["tokenized", "`tokenize`", *_each(metrics["tokenize"], "pairs")],
        ["with weights", "`realign`", *_each(metrics["realign"], "pairs")],
        ["judge prompts cut", "`render`", *_each(metrics["render"], "cut_share")],
        *(
            [f"{name} responses cut in training", "`tokenize`", *_each(metrics["tokenize"], f"{name}_cut_share")]
            for name in RESPONSES
        ),
        *(
            [f"{name}: tokens matched", "`realign`", *_each(metrics["realign"], f"{name}_matched_tokens")]
            for name in RESPONSES
        ),
        *(
            [f"{name}: weight carried over", "`realign`", *_each(metrics["realign"], f"{name}_matched_mass")]
            for name in RESPONSES
        ),
    ]
    if metrics["realign"]["source"] == "judge":
        how = "by characters" if metrics["realign"]["by_characters"] else "by tokens"
        how = f"Judge tokens are matched with trained tokens {how}."
    else:
        how = f"Weights come from source `{metrics['realign']['source']}`, one for each trained token."
    flipped = metrics["realign"].get("train", {}).get("flipped", 0)
    if flipped:
        how += f" The labels of {flipped:,} train pairs are flipped."
    removed = metrics["prepare"]["prompts_removed_from_train"]
    parts = [
        f"{how} Prompts of test removed from train: {removed:,}.",
        table(["", "stage", *SPLITS], rows, left=2),
        "No pair was refused." if not refused else "Refused pairs:",
    ]
    if refused:
        listed = [[f"`{of.stage}`", of.split, escaped(of.reason), f"{of.pairs:,}"] for of in refused]
        parts.append(table(["stage", "split", "reason", "pairs"], listed, left=3))
    return "\n\n".join(parts)


def judge_section(metrics: Metrics) -> str:
    """Metrics of the judge's verdicts by split, and what they mean."""
    if "skipped" in metrics:
        return "No judge was asked: the weights do not come from its attention."
    judged = {split: metrics[split] for split in SPLITS if metrics.get(split)}
    if not judged:
        return "No verdict was read: `extract.verdicts` is off, or there are no pairs."
    rows = [
        ["accuracy against the labels", *(percent(of["judge_accuracy"]) for of in judged.values())],
        ["position bias, −50% (always B) to 50% (always A)", *(percent(of["position_bias"]) for of in judged.values())],
        ["pairs whose two rounds agree", *(percent(of["round_agreement"]) for of in judged.values())],
        ["exact ties", *(percent(of["tie_share"]) for of in judged.values())],
        ["probability of A or B, mean", *(decimal(of["verdict_mass"]) for of in judged.values())],
    ]
    parts = [
        "Each pair is judged twice, with the answers in both orders. Verdicts are not used as labels: the weights come"
        " from where the judge looks.",
        table(["", *judged], rows),
    ]
    first = judged.get("train") or next(iter(judged.values()))
    if first["round_agreement"] < 0.5 and abs(first["position_bias"]) > 0.25:
        letter = "A" if first["position_bias"] > 0 else "B"
        parts.append(
            f"This judge mostly answers {letter}, whatever stands there: its verdicts say little about the answers."
        )
    return "\n\n".join(parts)


def _by_split(counts: Metrics) -> list[str]:
    return [f"{counts[split]:,}" if split in counts else "" for split in SPLITS]


def _each(metrics: Metrics, name: str) -> list[str]:
    """One metric of every split; empty where a split has no pairs. Shares as percentages."""
    cells = []
    for split in SPLITS:
        value = metrics.get(split, {}).get(name)
        cells.append("" if value is None else f"{value:,}" if name == "pairs" else percent(value))
    return cells
