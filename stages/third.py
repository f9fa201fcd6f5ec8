"""The third response that an objective takes beside chosen and rejected: `data/third/`."""

from typing import Any

import pyarrow as pa

from pipeline.config.reference import ReferenceParams
from pipeline.config.third import ThirdParams
from pipeline.config.tokenize import TokenizeParams
from pipeline.io.artifact import Artifact
from pipeline.io.parquet import read_table
from pipeline.io.refusal import Refusal, positions_left
from pipeline.io.work import Out
from pipeline.models.device import choose_device
from pipeline.models.named import named_model
from pipeline.schemas.base import SPLITS
from pipeline.schemas.refused import REFUSED
from pipeline.schemas.third import THIRD
from pipeline.schemas.tokens import TOKENS
from pipeline.train.third import ThirdRefused, open_third
from stages.common import Made, Maker, Report, Stage, check_train_left, main, map_model_shards, skip

READ = ("train", "validation")
"""Splits that training reads."""


def work(stage: Stage) -> None:
    """Take, choose or sample one response for every pair; pairs that have none go to `refused`."""
    tokens = Artifact(stage.path("data/tokens"), TOKENS)
    shards = {split: tokens.shards(split) for split in SPLITS}
    plan = {split: [shard.rows for shard in of] for split, of in shards.items()}
    out = Out("third", stage.path("data/third"), THIRD)
    need = stage.need("third")
    kind = need["kind"]
    if kind is None:
        skip(stage, [out], plan, "the objective takes no third response", may_refuse=True)
        return
    params, dtype = stage.params("third", ThirdParams), stage.params("reference", ReferenceParams).dtype
    limits = stage.params("tokenize", TokenizeParams)
    start = named_model(stage.root, "start")
    untokenized = read_table(stage.path("data/refused/tokenize.parquet"), REFUSED).to_pylist()
    device = choose_device(stage.runtime.device, stage.runtime.threads)
    run = stage.run(
        {
            "kind": kind,
            "anchor": need["params"],
            "dtype": need["dtype"],
            "max_tokens": limits.max_tokens,
        },
        {"tokens": tokens.digest, "model": start.digest},
        facts={"kind": kind, "model": start.name, "revision": start.revision, "dtype": dtype},
        mixable={"device": device.type},
    )

    def open_maker() -> Maker:
        find = open_third(kind, start, params, limits.max_tokens, dtype, stage.runtime, device)

        def make(split: str, shard: int, report: Report) -> Made:
            if split not in READ:
                return Made({"third": THIRD.empty_table()})
            records = list(shards[split][shard].records())
            found = find(records, report)
            positions = positions_left(shards[split][shard].rows, split, untokenized)
            rows: list[dict[str, Any]] = []
            refused = []
            for row, record, third in zip(positions, records, found, strict=True):
                if isinstance(third, ThirdRefused):
                    refused.append(Refusal(split, row, record["pair_id"], third.reason, third.detail))
                else:
                    rows.append({"pair_id": record["pair_id"], "third_ids": third.ids, "third_logps": third.logps})
            return Made({"third": pa.Table.from_pylist(rows, schema=THIRD)}, refused)

        return make

    refused = map_model_shards(stage, run, [out], plan, open_maker, stage.worker_devices(device), may_refuse=True)
    third = Artifact(out.path, THIRD)
    pairs = {split: sum(len(shard.table(["pair_id"])) for shard in third.shards(split)) for split in READ}
    stage.write_metrics({"kind": kind, "pairs": pairs, "refused": refused})
    check_train_left(stage, third)


if __name__ == "__main__":
    main("third", work)
