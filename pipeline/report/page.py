"""`reports/index.md`: one page on a run, put together from what the stages wrote. It holds no time and no machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.report import ReportParams
from pipeline.data.pairs import open_pairs
from pipeline.evaluate.table import EVALUATED
from pipeline.io.parquet import read_table
from pipeline.report.curves import training_section
from pipeline.report.data import data_section, judge_section
from pipeline.report.evaluation import answers_section, evaluation_section
from pipeline.report.examples import OFF, Example, choose_examples, examples_section
from pipeline.report.numbers import percent, significant
from pipeline.report.profiles import profiles_line
from pipeline.report.provenance import provenance_section
from pipeline.report.read import read_curves, read_json, read_metrics, read_refused
from pipeline.report.weight_rows import weight_tables
from pipeline.report.weights import gather_shapes, scored_section, weights_section

STAGES = ("prepare", "render", "extract", "postprocess", "tokenize", "score", "realign", "train", "evaluate")


def build_page(root: Path, figures: Path, params: ReportParams, all_params: Mapping[str, Any]) -> str:
    """The page as Markdown; its images go into `figures`, which the page names `figures/`.

    `all_params`: the content of params.yaml. Text of pairs is read only where `params.include_text` is on.
    Raises ShardError, naming the file, where something that it reads is missing or torn, and ConfigError for a profile
    that cannot be read.
    """
    metrics = {stage: read_metrics(root, stage) for stage in STAGES}
    shapes = gather_shapes(weight_tables(root, "train"))
    evaluated = read_table(root / "reports" / "evaluate" / "pairs.parquet", EVALUATED)
    examples = examples_section(_examples(root, params.examples), figures) if params.include_text else OFF
    sections = {
        "Policy against start": evaluation_section(metrics["evaluate"], evaluated, figures),
        "Tokens by weight": examples,
        "Answers before and after": answers_section(read_json(root / "reports" / "evaluate" / "answers.json")),
        "Training": training_section(read_curves(root / "reports" / "train"), metrics["train"], figures),
        "Weights": (
            weights_section(metrics["postprocess"], shapes, figures, show_tokens=params.include_text)
            if metrics["realign"]["source"] == "judge"
            else scored_section(metrics["realign"]["source"], metrics["score"], shapes, figures)
        ),
        "Judge": judge_section(metrics["extract"]),
        "Data": data_section(metrics, read_refused(root / "data" / "refused")),
        "What this run was made of": provenance_section(root, all_params, profiles_line(root, all_params)),
    }
    contents = " · ".join(f"[{title}](#{title.lower().replace(' ', '-')})" for title in sections)
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# Run report\n\n{_summary(metrics)}\n\n{contents}\n\n{body}\n"


def _examples(root: Path, number: int) -> list[Example]:
    """Of the test split, or of train where there are no test pairs."""
    for split in ("test", "train"):
        pairs = open_pairs(root / "data" / "pairs" / f"{split}.parquet")
        if pairs.table.num_rows:
            return choose_examples(pairs, weight_tables(root, split), split, number)
    return []


def _summary(metrics: Mapping[str, Any]) -> str:
    train, evaluate = metrics["train"], metrics["evaluate"]
    text = (
        f"{train['steps']:,} steps on {train['pairs']:,} preference pairs took the loss on training batches from"
        f" {significant(train['first_tenth']['loss'])} to {significant(train['last_tenth']['loss'])}"
        " (means of the first and last tenth of the steps)."
    )
    if not evaluate["pairs"]:
        return text
    accuracy = evaluate["weighted_accuracy"]
    return (
        f"{text} On {evaluate['pairs']:,} test pairs the policy's weighted implicit reward prefers the chosen response"
        f" in {percent(accuracy['mean'])} ({percent(accuracy['low'])} to {percent(accuracy['high'])}); its start is at"
        " 50%."
    )
