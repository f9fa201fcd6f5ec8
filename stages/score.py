"""Raw scores of the trained tokens, for weights that no judge's attention gives: `data/scores/`."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.config.score import ScoreParams
from pipeline.config.tokenize import TokenizeParams
from pipeline.data.pairs import open_pairs
from pipeline.io.artifact import Artifact, Shard
from pipeline.io.digest import file_digest
from pipeline.io.lists import arrays_of, list_array
from pipeline.io.refusal import Refusal
from pipeline.io.work import Out
from pipeline.models.device import choose_device
from pipeline.models.manifest import read_manifest
from pipeline.models.named import named_model
from pipeline.schemas.base import FLOATS, RESPONSES, SPLITS
from pipeline.schemas.scores import SCORES
from pipeline.schemas.tokens import TOKENS
from pipeline.weights.sources.base import NotScored, PairScores, SourcePair, SourceResponse
from pipeline.weights.sources.registry import Opening, open_source
from pipeline.weights.sources.verbalized.generators import answer_backend
from stages.common import CODE, Made, Maker, Report, Stage, check_train_left, main, map_model_shards, skip

_log = logging.getLogger("stages.score")


def work(stage: Stage) -> None:
    """Score every token of every pair; pairs that the source cannot score go to `refused`."""
    params, limits = stage.params("score", ScoreParams), stage.params("tokenize", TokenizeParams)
    tokens = Artifact(stage.path("data/tokens"), TOKENS)
    shards = {split: tokens.shards(split) for split in SPLITS}
    plan = {split: [shard.rows for shard in of] for split, of in shards.items()}
    out = Out("scores", stage.path("data/scores"), SCORES)
    need = stage.need("scores")
    source = need["source"]
    if source is None:
        skip(stage, [out], plan, "the weight source reads no raw scores", may_refuse=True)
        return
    pairs = {split: open_pairs(stage.path(f"data/pairs/{split}.parquet")) for split in SPLITS}
    device = choose_device(stage.runtime.device, stage.runtime.threads)
    # Only answers are written by a backend of choice.
    writer = _writer(stage, params, device) if source == "verbalized" else None
    if writer:
        _log.info("answers are written by %s (runtime.backend: %s)", writer, stage.runtime.backend)
    run = stage.run(
        {"source": source, "params": need["params"]},
        {"tokens": tokens.digest, **need["models"], **(_prompt_digests() if source == "verbalized" else {})},
        facts={"source": source, "dtype": params.dtype, "models": _models(stage, need["models"])},
        mixable={"device": device.type, **({"backend": writer} if writer else {})},
    )

    def open_maker() -> Maker:
        scorer = open_source(source, Opening(stage.root, params, limits, stage.runtime, device))

        def make(split: str, shard: int, report: Report) -> Made:
            found = shards[split][shard]
            texts = pairs[split].records(*found.rows)
            rows = {pair["pair_id"]: found.rows[0] + place for place, pair in enumerate(texts)}
            given = source_pairs(found, {pair["pair_id"]: pair for pair in texts})
            results = scorer.run(given, on_progress=report)
            refused = [
                Refusal(split, rows[pair.pair_id], pair.pair_id, result.reason, result.detail)
                for pair, result in zip(given, results, strict=True)
                if isinstance(result, NotScored)
            ]
            return Made({"scores": _table(given, results)}, refused)

        return make

    each = stage.runtime.tensor_parallel if writer == "vllm" else 1
    devices = stage.worker_devices(device, each=each)
    refused = map_model_shards(stage, run, [out], plan, open_maker, devices, may_refuse=True)
    scores = Artifact(out.path, SCORES)
    stage.write_metrics({"source": source, **{split: _metrics(scores, split) for split in SPLITS}, "refused": refused})
    check_train_left(stage, scores)


def _writer(stage: Stage, params: ScoreParams, device: torch.device) -> str:
    if params.verbalized.answers == "partition":
        return "transformers"  # whose tokens are chosen here
    return answer_backend(stage.runtime, named_model(stage.root, "judge"), device)


def _models(stage: Stage, roles: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """Name and revision of the models of a source, by role."""
    manifests = {role: read_manifest(stage.path(f"models/{role}.json")) for role in roles}
    return {role: {"model": of.name, "revision": of.revision} for role, of in manifests.items()}


def _prompt_digests() -> dict[str, str]:
    """Of the texts with which the judge is asked."""
    return {
        name: file_digest(CODE / "pipeline/weights/sources/verbalized" / name) for name in ("system.txt", "user.txt")
    }


def source_pairs(tokens: Shard, pairs: dict[str, dict[str, Any]]) -> list[SourcePair]:
    """The tokenized pairs of a shard, with their text."""
    table = tokens.table()
    columns = {
        name: arrays_of(table[name])
        for name in ("prompt_ids", *(f"{side}_{what}" for side in RESPONSES for what in ("ids", "offsets")))
    }
    eos = {side: table[f"{side}_eos"].to_pylist() for side in RESPONSES}
    found = []
    for row, pair_id in enumerate(table["pair_id"].to_pylist()):
        chosen, rejected = (
            SourceResponse(
                text=pairs[pair_id][side],
                ids=columns[f"{side}_ids"][row],
                offsets=columns[f"{side}_offsets"][row],
                eos=eos[side][row],
            )
            for side in RESPONSES
        )
        prompt_ids, messages = columns["prompt_ids"][row], pairs[pair_id]["prompt"]
        found.append(
            SourcePair(pair_id=pair_id, messages=messages, prompt_ids=prompt_ids, chosen=chosen, rejected=rejected)
        )
    return found


def _table(pairs: Sequence[SourcePair], results: Sequence[PairScores | NotScored]) -> pa.Table:
    scored = [
        (pair.pair_id, result) for pair, result in zip(pairs, results, strict=True) if isinstance(result, PairScores)
    ]
    columns: dict[str, Any] = {"pair_id": pa.array([pair_id for pair_id, _ in scored], pa.string())}
    for side in RESPONSES:
        found = [getattr(result, side) for _, result in scored]
        columns[f"{side}_scores"] = list_array([response.scores for response in found], FLOATS)
        columns[f"{side}_prompt_score"] = pa.array([response.prompt_score for response in found], pa.float32())
    return pa.table(columns)


def _metrics(scores: Artifact, split: str) -> dict[str, float]:
    """Pairs, and mean and population standard deviation of the raw scores per response."""
    table = pa.concat_tables([shard.table() for shard in scores.shards(split)])
    metrics: dict[str, float] = {"pairs": len(table)}
    for side in RESPONSES if len(table) else ():
        values = np.concatenate(arrays_of(table[f"{side}_scores"])).astype(np.float64)
        metrics |= {f"{side}_score_mean": float(values.mean()), f"{side}_score_std": float(values.std())}
    return metrics


if __name__ == "__main__":
    main("score", work)
