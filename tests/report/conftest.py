"""A finished run made by hand: every file that the report reads, with text that tries to break out of it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.evaluate import EvaluateParams
from pipeline.data.pairs import Pair, write_pairs
from pipeline.evaluate.table import NUMBERS, pairs_table, summary
from pipeline.io.parquet import write_table
from pipeline.schemas.base import RESPONSES, SPLITS
from pipeline.schemas.refused import REFUSED
from pipeline.schemas.weights import WEIGHTS

HOSTILE = (
    'SECRET <script>alert("x")</script> &amp; | `code` **bold** [a](http://evil.example/x) ![i](https://evil.example/i)\n'
    "]]> </text></svg> \u202e\x07\x00 \ud7ff 👩‍👩‍👧 日本語 مرحبا e\u0301\tend\r\n```\n# no heading\n"
)
PARAMS = {
    "model": {"judge": {"source": "folder", "name": "/home/somebody/models/tiny"}},
    "train": {"beta": 0.1, "learning_rate": 5e-06},
    "evaluate": {"prompts": ["```\n<script>", "www.evil.example | two"]},
    "report": {"include_text": True, "examples": 3},
    "runtime": {"device": "cuda"},
}


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a run into a new folder and return its root. `test_pairs`: how many test pairs it has."""

    def make(test_pairs: int = 12) -> Path:
        root = tmp_path_factory.mktemp("run")
        random = np.random.default_rng(0)
        for split, number in zip(SPLITS, (10, 0, test_pairs), strict=True):
            _pairs_and_weights(root, split, number, random)
        _evaluation(root, test_pairs, random)
        _curves(root / "reports" / "train" / "plots" / "metrics", random)
        for stage, metrics in _metrics(test_pairs).items():
            _json(root / "reports" / "metrics" / f"{stage}.json", metrics)
        refused = {"split": "train", "row": 3, "pair_id": "", "reason": "empty_response", "detail": "chosen"}
        write_table(root / "data" / "refused" / "prepare.parquet", pa.Table.from_pylist([refused], schema=REFUSED), {})
        return root

    return make


def _pairs_and_weights(root: Path, split: str, number: int, random: np.random.Generator) -> None:
    pairs = [
        Pair([{"role": "user", "content": f"{split} {row} {HOSTILE}"}], *_texts(row), None, None, None, "hand")
        for row in range(number)
    ]
    facts = {"artifact": "pairs", "split": split, "pairs_per_shard": 64, "rows": [0, number]}
    write_pairs(root / "data" / "pairs" / f"{split}.parquet", pairs, facts)
    rows = []
    for pair in pairs:
        for response in RESPONSES:
            offsets = tokens_of(getattr(pair, response))
            weights = random.exponential(size=len(offsets)) ** 2
            rows.append(
                {
                    "pair_id": pair.pair_id,
                    "response": response,
                    "token_ids": list(range(len(offsets))),
                    "offsets": [{"start": begin, "end": end} for begin, end in offsets],
                    "weights": (weights / weights.sum()).astype(np.float32),
                }
            )
    more = {"key": "k", "artifact": "weights", "shards": 1, "rows": [0, number], "model": "tiny", "dtype": "float32"}
    table = pa.Table.from_pylist(rows, schema=WEIGHTS)
    write_table(root / "data" / "weights" / split / "part-00000.parquet", table, {"split": split, **more})


def _texts(row: int) -> tuple[str, str]:
    return f"Chosen {row}. {HOSTILE}", f"Rejected {row}. " + HOSTILE * (1 + 8 * (row % 2))


def tokens_of(text: str) -> list[tuple[int, int]]:
    """Words with the space before them; the last character is left to truncation."""
    return [found.span() for found in re.finditer(r"\s?[^\s]+|\s", text[:-1])]


def _evaluation(root: Path, pairs: int, random: np.random.Generator) -> None:
    rows = [(f"{row:064x}", {name: float(random.normal(0.1)) for name in NUMBERS}) for row in range(pairs)]
    for _, numbers in rows:
        numbers |= {name: float(random.random() < 0.7) for name in NUMBERS if name.endswith("accuracy")}
    table = pairs_table(rows)
    folder = root / "reports" / "evaluate"
    facts = {"artifact": "evaluate", "model": "tiny", "dtype": "float32", "versions": {"torch": "2.13.0"}}
    write_table(folder / "pairs.parquet", table, facts)
    answers = [{"prompt": "<script> | `x`", "before": f"a\n# b {HOSTILE}", "after": "https://evil.example"}]
    _json(folder / "answers.json", answers)
    _json(root / "reports" / "metrics" / "evaluate.json", summary(table, EvaluateParams()))


def _curves(folder: Path, random: np.random.Generator) -> None:
    names = ["loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "plain/accuracies"]
    curves = {f"train/{name}": range(1, 31) for name in [*names, "grad_norm", "learning_rate", "tokens_per_s"]}
    curves |= {f"validation/{name}": range(10, 31, 10) for name in names}
    for name, steps in curves.items():
        path = folder / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{step}\t{abs(random.normal(0.5, 0.1)):.4f}" for step in steps]
        path.write_text("\n".join([f"step\t{path.stem}", *lines]) + "\n", encoding="utf-8")


def _metrics(test_pairs: int) -> dict[str, Any]:
    verdicts = {
        "judge_accuracy": 0.5, "position_bias": 0.5, "round_agreement": 0.0, "tie_share": 0.0, "verdict_mass": 0.145,
    }  # fmt: skip
    matched = {f"{name}_{what}": 0.99 for name in RESPONSES for what in ("matched_tokens", "matched_mass", "cut_share")}
    splits = {"train": {"pairs": 10, "cut_share": 0.0, **matched}, "validation": {"pairs": 0}}
    splits |= {"test": {"pairs": test_pairs, "cut_share": 0.0, **matched} if test_pairs else {"pairs": 0}}
    spread = {"std": 0.04, "max": 0.24, "length": 82.4, "share_1": 0.137, "share_2": 0.08, "share_3": 0.03}
    top = [{"token": " SECRET`|<b>\n", "token_id": 7, "mean_weight": 0.02, "occurrences": 1234}]
    tables = {"before_sink_fix": spread, "after_sink_fix": spread, "top_tokens": top}
    figures = dict.fromkeys(("loss", "rewards/margins", "rewards/accuracies", "plain/accuracies"), 0.5)
    return {
        "prepare": {
            "rows": {"train": 11, "test": test_pairs},
            "pairs": {"train": 10, "validation": 0, "test": test_pairs},
            "prompts_removed_from_train": 1,
        },
        "render": splits,
        "tokenize": splits,
        "score": {"skipped": "not needed"},
        "realign": {"source": "judge", "by_characters": False, **splits},
        "extract": {"train": verdicts, "validation": {}, "test": verdicts if test_pairs else {}},
        "postprocess": {
            "source": "attention", "layer": 29, "heads": "mean",
            "chosen": tables, "rejected": {**tables, "top_tokens": []},
        },
        "train": {
            "pairs": 10, "validation_pairs": 0, "steps": 30, "kept_step": 20,
            "first_tenth": figures, "last_tenth": figures, "validation": {},
        },
    }  # fmt: skip


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
