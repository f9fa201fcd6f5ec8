"""One row of the judge's attention per prompt, at every wanted layer: `data/attention/`, `data/verdicts/`."""

import logging
from dataclasses import asdict, replace

import numpy as np
import torch

from pipeline.attention.backends import check_backend, open_backend, positions_after
from pipeline.attention.flops import peak_flops
from pipeline.attention.metrics import verdict_metrics
from pipeline.attention.survey import check_context, survey
from pipeline.attention.tables import attention_table, judge_prompts, verdict_table
from pipeline.config.extract import ExtractParams
from pipeline.io.artifact import Artifact
from pipeline.io.tally import Totals
from pipeline.io.work import Out
from pipeline.models.device import choose_device
from pipeline.models.load import context_length, load_config
from pipeline.models.named import named_model
from pipeline.schemas.attention import ATTENTION, VERDICTS
from pipeline.schemas.base import SPLITS
from pipeline.schemas.judge import JUDGE
from stages.common import Made, Maker, Report, Stage, main, map_model_shards, skip

_log = logging.getLogger("stages.extract")


def work(stage: Stage) -> None:
    """Judge every prompt; then say how good the judge is."""
    params = stage.params("extract", ExtractParams)
    judge = Artifact(stage.path("data/judge"), JUDGE)
    shards = {split: judge.shards(split) for split in SPLITS}
    plan = {split: [shard.rows for shard in of] for split, of in shards.items()}
    outs = [
        Out("attention", stage.path("data/attention"), ATTENTION),
        Out("verdicts", stage.path("data/verdicts"), VERDICTS),
    ]
    if judge.skipped:
        skip(stage, outs, plan, judge.skipped)
        return
    manifest = named_model(stage.root, "judge")
    config = load_config(manifest)
    depth = config.get_text_config().num_hidden_layers
    device = choose_device(stage.runtime.device, stage.runtime.threads)
    check_backend(stage.runtime, params, manifest, device)
    found = survey(shard for split in SPLITS for shard in shards[split])
    check_context(found, context_length(config), positions_after(stage.runtime, params))
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
        mixable={"backend": stage.runtime.attention_backend, "device": device.type},
    )

    def open_maker() -> Maker:
        backend = open_backend(stage.runtime, params, manifest, device, found.header)

        def make(split: str, shard: int, report: Report) -> Made:
            rows = list(shards[split][shard].records())
            tokens = sum(len(row["input_ids"]) for row in rows)
            before = replace(backend.usage)
            # Two prompts a pair.
            judgements = backend.run(
                judge_prompts(rows), on_progress=lambda number: report(number / 2, number * tokens // len(rows))
            )
            return Made(
                {
                    "attention": attention_table(rows, judgements, backend.heads, params.source),
                    "verdicts": verdict_table(rows, judgements),
                },
                tokens=tokens,
                counts={name: after - getattr(before, name) for name, after in asdict(backend.usage).items()},
            )

        return make

    devices = stage.worker_devices(device, each=stage.runtime.tensor_parallel)

    def on_done(totals: Totals) -> None:
        _log.info(spent(totals, params.dtype, device, stage.runtime.tensor_parallel))

    map_model_shards(stage, run, outs, plan, open_maker, devices, on_done)
    verdicts = Artifact(stage.path("data/verdicts"), VERDICTS)
    stage.write_metrics({split: _verdict_metrics(verdicts, split) for split in SPLITS})


def spent(totals: Totals, dtype: str, device: torch.device, tensor_parallel: int = 1) -> str:
    """What the run took: pairs and tokens a second, what sharing saved, and how much of the devices it used."""
    counts = totals.counts
    computed, given = counts["computed_tokens"], counts["prompt_tokens"]
    seconds = max(totals.seconds, 1e-9)
    parts = [
        f"{totals.pairs} pairs in {totals.seconds:.1f} s: {totals.pairs / seconds:.2f} pairs/s",
        f"{given / seconds:,.0f} prompt tokens/s",
        f"{computed:,.0f} tokens computed for {given:,.0f}",
    ]
    if computed < given:
        parts[-1] += f", {1 - computed / given:.1%} saved by shared prefixes"
    if counts["flops"]:
        parts.append(f"{counts['flops'] / seconds / 1e12:.2f} TFLOP/s")
        if peak := peak_flops(device, dtype):
            used = peak * min(totals.workers * tensor_parallel, torch.cuda.device_count())
            parts.append(f"{counts['flops'] / seconds / used:.1%} model FLOP utilization")
    return ", ".join(parts)


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
