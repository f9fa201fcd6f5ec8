"""Per-token log-probs of the policy's first weights: `data/reference/`."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.reference import ReferenceParams
from pipeline.errors import NonFiniteError
from pipeline.io.artifact import Artifact
from pipeline.io.lists import arrays_of
from pipeline.io.work import Out
from pipeline.models.budget import TokenBudget
from pipeline.models.device import choose_device
from pipeline.models.load import load_model
from pipeline.models.logps import LogProbModel
from pipeline.models.named import named_model
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import item_lengths, response_logps
from pipeline.schemas.base import RESPONSES, SPLITS
from pipeline.schemas.reference import REFERENCE
from pipeline.schemas.tokens import TOKENS, TRAINED
from stages.common import Made, Maker, Report, Stage, main, map_model_shards, skip


def work(stage: Stage) -> None:
    """Log-probs of every trained token under the start."""
    params = stage.params("reference", ReferenceParams)
    tokens = Artifact(stage.path("data/tokens"), TOKENS)
    shards = {split: tokens.shards(split) for split in SPLITS}
    plan = {split: [shard.rows for shard in of] for split, of in shards.items()}
    out = Out("reference", stage.path("data/reference"), REFERENCE)
    if not stage.need("reference")["needed"]:
        skip(stage, [out], plan, "the objective takes no reference")
        return
    manifest = named_model(stage.root, "start")
    device = choose_device(stage.runtime.device, stage.runtime.threads)
    run = stage.run(
        params.model_dump(),
        {"tokens": tokens.digest, "model": manifest.digest},
        facts={"model": manifest.name, "revision": manifest.revision, "dtype": params.dtype},
        mixable={"device": device.type},
    )

    def open_maker() -> Maker:
        model = LogProbModel(load_model(manifest, params.dtype, device), attention=stage.runtime.attention)
        budget = TokenBudget(stage.runtime.token_budget, device)

        def make(split: str, shard: int, report: Report) -> Made:
            rows = list(shards[split][shard].records())
            names = [[name for name in TRAINED if row[f"{name}_ids"] is not None] for row in rows]
            items = [
                Prompted(row["prompt_ids"], [row[f"{name}_ids"] for name in given])
                for row, given in zip(rows, names, strict=True)
            ]
            share = stage.runtime.share_prompts
            logps = response_logps(model, items, budget, share, on_progress=report)
            made: list[dict[str, Any]] = []
            for row, given, of_row in zip(rows, names, logps, strict=True):
                for name, found in zip(given, of_row, strict=True):
                    if not np.isfinite(found).all():
                        raise NonFiniteError(
                            f"pair {row['pair_id']}: a log-prob of its {name} response is not finite under"
                            f" {manifest.name} in {params.dtype}; try reference.dtype and train.dtype: float32"
                        )
                found_by_name = {f"{name}_logps": found for name, found in zip(given, of_row, strict=True)}
                made.append({"pair_id": row["pair_id"], **found_by_name})
            table = pa.Table.from_pylist(made, schema=REFERENCE)
            return Made({"reference": table}, tokens=sum(item_lengths(items, share)))

        return make

    map_model_shards(stage, run, [out], plan, open_maker, stage.worker_devices(device))
    reference = Artifact(out.path, REFERENCE)
    stage.write_metrics({split: _metrics(reference, split) for split in SPLITS})


def _metrics(reference: Artifact, split: str) -> dict[str, float]:
    """Mean log-prob per token of chosen and rejected; nothing for an empty split."""
    table = pa.concat_tables([shard.table(["chosen_logps", "rejected_logps"]) for shard in reference.shards(split)])
    if not len(table):
        return {}
    return {
        f"{name}_logp_mean": float(np.concatenate(arrays_of(table[f"{name}_logps"])).mean(dtype=np.float64))
        for name in RESPONSES
    } | {"tokens": sum(pc.sum(pc.list_value_length(table[f"{name}_logps"])).as_py() for name in RESPONSES)}


if __name__ == "__main__":
    main("reference", work)
