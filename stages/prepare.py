"""`prepare`: from preference rows to checked pairs of train, validation and test."""

import logging
from importlib.metadata import version

from pipeline.config.prepare import PrepareParams
from pipeline.data.metrics import prepare_metrics
from pipeline.data.pairs import write_pairs
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_sources
from pipeline.io.digest import value_digest
from pipeline.io.parquet import write_table
from pipeline.io.refusal import refusal_table
from pipeline.schemas.base import VERSION
from stages.common import Stage, main

_log = logging.getLogger("stages.prepare")


def work(stage: Stage) -> None:
    """Write `data/pairs/{split}.parquet`, the refused rows and the metrics. Takes seconds, so nothing is resumed."""
    params = stage.params("prepare", PrepareParams)
    prepared = prepare(open_sources(params, stage.root), params.validation_share, params.limit)
    # The key is made of the pairs themselves, not of params and code as in the long stages: where another version of
    # this one finds the same pairs, it writes the same bytes, and nothing that follows starts anew.
    key = value_digest({"pairs": prepared.digest, "schema": VERSION})[:20]
    facts = {"schema_version": VERSION, "key": key, "versions": {"pyarrow": version("pyarrow")}}
    for split, pairs in prepared.pairs.items():
        more = {"artifact": "pairs", "split": split, "pairs_per_shard": params.pairs_per_shard, "rows": [0, len(pairs)]}
        write_pairs(stage.path(f"data/pairs/{split}.parquet"), pairs, {**facts, **more})
    refused = refusal_table(prepared.refused)
    write_table(stage.path("data/refused/prepare.parquet"), refused, {**facts, "artifact": "refused"})
    metrics = prepare_metrics(prepared)
    stage.write_metrics(metrics)
    _log.info("pairs: %s", ", ".join(f"{number} {split}" for split, number in metrics["pairs"].items()))
    for split, reasons in metrics["refused"].items():
        for reason, number in reasons.items():
            _log.warning("%s: refused %d rows: %s", split, number, reason)


if __name__ == "__main__":
    main("prepare", work)
