"""Weights of the trained tokens, from the judge's or from raw scores of their own: `data/aligned/`."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.realign import RealignParams
from pipeline.config.weights import WeightsParams, reads_scores
from pipeline.errors import ShardError
from pipeline.io.artifact import Artifact, Shard
from pipeline.io.lists import arrays_of, list_array
from pipeline.io.parquet import read_table
from pipeline.io.refusal import Refusal, positions_left
from pipeline.io.work import Out
from pipeline.realign.aligned import JudgeTokens, NotAligned, TrainTokens
from pipeline.realign.flip import is_flipped
from pipeline.realign.rows import AlignedPair, PairTokens, align_rows
from pipeline.realign.trained import trained_rows
from pipeline.schemas.aligned import ALIGNED
from pipeline.schemas.base import FLOATS, RESPONSES, SPLITS
from pipeline.schemas.refused import REFUSED
from pipeline.schemas.scores import SCORES
from pipeline.schemas.tokens import TOKENS
from pipeline.schemas.weights import WEIGHTS
from stages.common import Made, Plan, Stage, check_train_left, main, map_shards

EXPECTED_MATCH = 0.95
"""Share of tokens that the paper's Appendix D says are matched in most cases."""
_log = logging.getLogger("stages.realign")


def work(stage: Stage) -> None:
    """Weights of every pair; warn where few tokens match."""
    params, source = stage.params("realign", RealignParams), stage.params("weights", WeightsParams)
    tokens = Artifact(stage.path("data/tokens"), TOKENS)
    plan = {split: [shard.rows for shard in tokens.shards(split)] for split in SPLITS}
    out = Out("aligned", stage.path("data/aligned"), ALIGNED)
    if source.source == "judge":
        by_characters, refused = _from_judge(stage, params, tokens, out, plan)
    else:
        by_characters, refused = False, _from_scores(stage, params, source, tokens, out, plan)
    aligned = Artifact(out.path, ALIGNED)
    metrics = {split: _metrics(aligned, split) for split in SPLITS}
    stage.write_metrics({"source": source.source, "by_characters": by_characters, **metrics, "refused": refused})
    check_train_left(stage, aligned)
    for message in few_matched(metrics):
        _log.warning(message)


def _from_judge(
    stage: Stage, params: RealignParams, tokens: Artifact, out: Out, plan: Plan
) -> tuple[bool, dict[str, int]]:
    """Carry the judge's weights over. Returns whether by characters, and the refused pairs by reason."""
    weights = Artifact(stage.path("data/weights"), WEIGHTS)
    if weights.skipped:
        raise ShardError(f"{weights.path}: was left empty, and weights.source is judge; run `dvc repro`")
    weight_shards = {split: weights.shards(split) for split in SPLITS}
    token_shards = {split: tokens.shards(split) for split in SPLITS}
    # Equal ids mean equal tokens only under one tokenizer; every artifact of tokens says under which it was made.
    same_tokenizer = weights.facts()["tokenizer"] == tokens.facts()["tokenizer"]
    by_characters = params.tokenizers == "characters" or not same_tokenizer
    untokenized = read_table(stage.path("data/refused/tokenize.parquet"), REFUSED).to_pylist()

    def make(split: str, shard: int) -> Made:
        positions = positions_left(token_shards[split][shard].rows, split, untokenized)
        made, refused = _align_shard(weight_shards[split][shard], token_shards[split][shard], params, by_characters)
        flipped = [
            replace(pair, flipped=is_flipped(pair.pair_id, _flip(params, split), params.flip_seed)) for pair in made
        ]
        return Made(
            {"aligned": _table(flipped)},
            [Refusal(split, positions[row], pair_id, no.reason, no.detail) for row, pair_id, no in refused],
        )

    carried = params.model_dump(exclude={"flip_labels", "flip_seed"})
    run = stage.run(
        {**carried, **_flips(params), "by_characters": by_characters},
        {"weights": weights.digest, "tokens": tokens.digest},
        facts={"source": "judge", **{name: weights.facts()[name] for name in ("model", "revision", "dtype")}},
    )
    return by_characters, map_shards(stage, run, [out], plan, make, may_refuse=True)


def _from_scores(
    stage: Stage, params: RealignParams, source: WeightsParams, tokens: Artifact, out: Out, plan: Plan
) -> dict[str, int]:
    """Weights from raw scores of the trained tokens, or from nothing but their number. Returns pairs refused."""
    token_shards = {split: tokens.shards(split) for split in SPLITS}
    untokenized = read_table(stage.path("data/refused/tokenize.parquet"), REFUSED).to_pylist()
    scores = Artifact(stage.path("data/scores"), SCORES) if reads_scores(source) else None
    score_shards = {split: _scores_of(scores, split, source.source, of) for split, of in token_shards.items() if scores}

    def make(split: str, shard: int) -> Made:
        found = score_shards[split][shard].table() if scores else None
        flip = _flip(params, split)
        of = token_shards[split][shard]
        positions = positions_left(of.rows, split, untokenized)
        rows = list(trained_rows(of.table(), found, source, flip, params.flip_seed))
        return Made(
            {"aligned": _table([made for _, _, made in rows if isinstance(made, AlignedPair)])},
            [
                Refusal(split, positions[row], pair_id, made.reason, made.detail)
                for row, pair_id, made in rows
                if isinstance(made, NotAligned)
            ],
        )

    inputs = {"tokens": tokens.digest, **({"scores": scores.digest} if scores else {})}
    made_by = {name: scores.facts()[name] for name in ("models", "dtype")} if scores else {}
    used = source.in_use()
    run = stage.run({**_flips(params), "weights": used}, inputs, facts={**used, **made_by})
    return map_shards(stage, run, [out], plan, make, may_refuse=True)


def _scores_of(scores: Artifact, split: str, source: str, tokens: list[Shard]) -> list[Shard]:
    """The shards of a split, of this source and beside those of `tokens`. Raises ShardError when they are not."""
    shards = scores.shards(split)
    if (made_by := scores.facts(split).get("source")) != source:
        raise ShardError(
            f"{scores.path}: holds scores of {made_by or 'no source'}, and weights.source is {source}; run `dvc repro`"
        )
    if [shard.rows for shard in shards] != [shard.rows for shard in tokens]:
        raise ShardError(f"{scores.path / split}: other pairs to a shard than in data/tokens; run `dvc repro`")
    return shards


def _flips(params: RealignParams) -> dict[str, Any]:
    """Which labels are flipped; the seed of none plays no part."""
    return {"flip_labels": params.flip_labels, "flip_seed": params.flip_seed if params.flip_labels else None}


def _flip(params: RealignParams, split: str) -> float:
    """Labels are flipped where they are learned from alone."""
    return params.flip_labels if split == "train" else 0.0


def few_matched(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A message for each split and response of which, on average, fewer tokens match than the paper expects."""
    return [
        f"{split}: on average only {found[f'{name}_matched_tokens']:.1%} of the {name} responses' tokens carry a weight"
        f" (expected: {EXPECTED_MATCH:.0%}); are many cut (render.answer_tokens), or do judge and policy have different"
        " tokenizers?"
        for split, found in metrics.items()
        for name in RESPONSES
        if found.get(f"{name}_matched_tokens", 1.0) < EXPECTED_MATCH
    ]


def _align_shard(
    weights: Shard, tokens: Shard, params: RealignParams, by_characters: bool
) -> tuple[list[AlignedPair], list[tuple[int, str, NotAligned]]]:
    """Pairs of one shard in the order of tokens, without those that `render` refused; and who is refused, by row."""
    if weights.rows != tokens.rows:
        raise ShardError(f"{weights.path}: covers pairs {weights.rows}, {tokens.path} {tokens.rows}; run `dvc repro`")
    table = tokens.table()
    rows = {pair_id: row for row, pair_id in enumerate(table["pair_id"].to_pylist())}
    pairs = list(_pairs(weights.table(), table))
    results = list(align_rows(pairs, params, by_characters=by_characters))
    refused = [
        (rows[pair.pair_id], pair.pair_id, result)
        for pair, result in zip(pairs, results, strict=True)
        if isinstance(result, NotAligned)
    ]
    return [result for result in results if isinstance(result, AlignedPair)], refused


def _pairs(weights: pa.Table, tokens: pa.Table) -> Iterator[PairTokens]:
    judged: dict[tuple[str, str], JudgeTokens] = {}
    names = zip(weights["pair_id"].to_pylist(), weights["response"].to_pylist(), strict=True)
    columns = (arrays_of(weights[name]) for name in ("token_ids", "offsets", "weights"))
    for name, ids, offsets, a in zip(names, *columns, strict=True):
        judged[name] = JudgeTokens(token_ids=ids, offsets=offsets, weights=a)
    trained = {name: list(_trained(tokens, name)) for name in RESPONSES}
    for row, pair_id in enumerate(tokens["pair_id"].to_pylist()):
        if (pair_id, "chosen") in judged:
            yield PairTokens(
                pair_id=pair_id,
                chosen=(judged[pair_id, "chosen"], trained["chosen"][row]),
                rejected=(judged[pair_id, "rejected"], trained["rejected"][row]),
            )


def _trained(tokens: pa.Table, name: str) -> Iterator[TrainTokens]:
    columns = arrays_of(tokens[f"{name}_ids"]), arrays_of(tokens[f"{name}_offsets"]), tokens[f"{name}_eos"].to_pylist()
    for ids, offsets, eos in zip(*columns, strict=True):
        yield TrainTokens(token_ids=ids, offsets=offsets, eos=eos)


def _table(rows: list[AlignedPair]) -> pa.Table:
    columns: dict[str, Any] = {
        "pair_id": pa.array([row.pair_id for row in rows], pa.string()),
        "flipped": pa.array([row.flipped for row in rows], pa.bool_()),
    }
    for name in RESPONSES:
        found = [getattr(row, name) for row in rows]
        columns[f"{name}_weights"] = list_array([response.weights for response in found], FLOATS)
        for column in ("length", "matched_tokens", "matched_mass"):
            columns[f"{name}_{column}"] = pa.array([getattr(response, column) for response in found], pa.float32())
    return pa.table(columns)


def _metrics(aligned: Artifact, split: str) -> dict[str, float]:
    """Means of what was matched, per response; how many labels are flipped."""
    names = [f"{name}_{what}" for name in RESPONSES for what in ("matched_tokens", "matched_mass")]
    table = pa.concat_tables([shard.table(["flipped", *names]) for shard in aligned.shards(split)])
    if not len(table):
        return {"pairs": 0}
    means = {name: pc.mean(table[name].cast(pa.float64())).as_py() for name in names}
    return {"pairs": len(table), "flipped": pc.sum(table["flipped"]).as_py(), **means}


if __name__ == "__main__":
    main("realign", work)
