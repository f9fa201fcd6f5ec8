"""One row of the judge's attention per prompt, at every wanted layer: `data/attention/`, `data/verdicts/`."""

import numpy as np

from pipeline.attention.architectures import resolve_layers
from pipeline.attention.backends import open_backend
from pipeline.attention.metrics import verdict_metrics
from pipeline.attention.tables import attention_table, judge_prompts, verdict_table
from pipeline.config.extract import ExtractParams
from pipeline.io.artifact import Artifact
from pipeline.io.work import Out
from pipeline.models.device import choose_device
from pipeline.models.load import load_config
from pipeline.models.named import named_model
from pipeline.schemas.attention import ATTENTION, VERDICTS
from pipeline.schemas.base import SPLITS
from pipeline.schemas.judge import JUDGE
from stages.common import Made, Stage, main, map_shards


def work(stage: Stage) -> None:
    """Judge every prompt; then say how good the judge is."""
    params = stage.params("extract", ExtractParams)
    manifest = named_model(stage.root, "judge")
    judge = Artifact(stage.path("data/judge"), JUDGE)
    shards = {split: judge.shards(split) for split in SPLITS}
    depth = load_config(manifest).get_text_config().num_hidden_layers
    resolve_layers(params.layers, depth)
    device = choose_device(stage.runtime.device, stage.runtime.threads)
    run = stage.run(
        params.model_dump(),
        {"judge": judge.digest, "model": manifest.digest},
        facts={
            "model": manifest.name,
            "revision": manifest.revision,
            "tokenizer": manifest.tokenizer_digest,
            "dtype": params.dtype,
            "num_layers": depth,
        },
        mixable={"backend": stage.runtime.backend, "device": device.type},
    )
    backend = open_backend(stage.runtime, params, manifest, device)

    def make(split: str, shard: int) -> Made:
        rows = list(shards[split][shard].records())
        judgements = backend.run(judge_prompts(rows))
        return Made(
            {
                "attention": attention_table(rows, judgements, backend.heads, params.source),
                "verdicts": verdict_table(rows, judgements),
            },
            tokens=sum(len(row["input_ids"]) for row in rows),
        )

    outs = [
        Out("attention", stage.path("data/attention"), ATTENTION),
        Out("verdicts", stage.path("data/verdicts"), VERDICTS),
    ]
    map_shards(stage, run, outs, {split: [shard.rows for shard in of] for split, of in shards.items()}, make)
    verdicts = Artifact(stage.path("data/verdicts"), VERDICTS)
    stage.write_metrics({split: _verdict_metrics(verdicts, split) for split in SPLITS})


def _verdict_metrics(verdicts: Artifact, split: str) -> dict[str, float]:
    """Judge accuracy, position bias and agreement of the rounds; nothing for an empty split."""
    if not any(len(shard.table(["prob_a"])) for shard in verdicts.shards(split)):
        return {}
    columns = [shard.table(["prob_a", "prob_b"]) for shard in verdicts.shards(split)]
    prob_a, prob_b = (
        np.concatenate([table[name].to_numpy() for table in columns]).reshape(-1, 2).T for name in ("prob_a", "prob_b")
    )
    return verdict_metrics(prob_a, prob_b)


if __name__ == "__main__":
    main("extract", work)
