"""A warning where the judge's tokens match fewer trained tokens than the paper expects."""

from stages.realign import few_matched


def test_only_what_lies_below_95_percent_is_named() -> None:
    metrics = {
        "train": {"pairs": 2, "chosen_matched_tokens": 0.94, "rejected_matched_tokens": 0.95},
        "validation": {"pairs": 0},
    }
    (message,) = few_matched(metrics)
    assert message.startswith("train: on average only 94.0% of the chosen responses' tokens")
