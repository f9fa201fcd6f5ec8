"""Raw rows to the weights a_t: `data/weights/`, with the numbers of the paper's Tables 1 and 2."""

from collections.abc import Iterator
from dataclasses import asdict

import pyarrow as pa

from pipeline.config.postprocess import PostprocessParams
from pipeline.errors import DataError
from pipeline.io.artifact import Artifact
from pipeline.io.lists import arrays_of, list_array
from pipeline.io.work import Out
from pipeline.models.load import load_tokenizer
from pipeline.models.named import named_model
from pipeline.schemas.attention import ATTENTION
from pipeline.schemas.base import FLOATS, RESPONSES, SPLITS
from pipeline.schemas.weights import WEIGHTS
from pipeline.weights.choose import MEAN_OVER_HEADS, RowsChosen, choose_rows
from pipeline.weights.heads import mean_over_heads
from pipeline.weights.rows import ScoredResponse, postprocess_rows
from pipeline.weights.stats import WeightStatistics
from stages.common import Made, Stage, main, map_shards, skip

READ_BY_STATISTICS = ["pair_id", "response", "layer", "head", "token_ids", "round_1", "round_2"]


def work(stage: Stage) -> None:
    """Weights of every response; then what they look like on the train split."""
    params = stage.params("postprocess", PostprocessParams)
    attention = Artifact(stage.path("data/attention"), ATTENTION)
    shards = {split: attention.shards(split) for split in SPLITS}
    plan = {split: [shard.rows for shard in of] for split, of in shards.items()}
    out = Out("weights", stage.path("data/weights"), WEIGHTS)
    if attention.skipped:
        skip(stage, [out], plan, attention.skipped)
        return
    chosen = cached_rows(attention, params)

    def make(split: str, shard: int) -> Made:
        table = mean_over_heads(shards[split][shard].table(), chosen.layer, chosen.heads)
        weights = list(postprocess_rows(_scored(table), params, _no_statistics()))
        kept = table.select(["pair_id", "response", "token_ids", "offsets"])
        return Made({"weights": kept.append_column("weights", list_array(weights, FLOATS))})

    made_by = {name: attention.facts()[name] for name in ("model", "revision", "tokenizer", "dtype")}
    # What is shown in the tables of most weighted tokens changes metrics only.
    made_of = params.model_dump(exclude={"top_tokens", "top_tokens_min_count"})
    run = stage.run({**made_of, **asdict(chosen)}, {"attention": attention.digest}, facts=made_by)
    map_shards(stage, run, [out], plan, make)

    statistics = _no_statistics()
    for shard in shards["train"]:
        table = mean_over_heads(shard.table(READ_BY_STATISTICS), chosen.layer, chosen.heads)
        for _ in postprocess_rows(_scored(table), params, statistics):
            pass
    _write_statistics(stage, params, chosen, statistics)


def cached_rows(attention: Artifact, params: PostprocessParams) -> RowsChosen:
    """The rows to use. Raises ConfigError when `extract` did not cache them, DataError when it cached none at all."""
    for split in SPLITS:
        for shard in attention.shards(split):
            table = shard.table(["source", "layer", "head"])
            if len(table):
                sources, layers, heads = (table[name].unique().to_pylist() for name in table.column_names)
                return choose_rows(
                    params, source=sources[0], layers=layers, heads=heads, num_layers=attention.facts()["num_layers"]
                )
    raise DataError(f"{attention.path}: holds no row: every pair was refused; data/refused/render.parquet says why")


def _scored(table: pa.Table) -> Iterator[ScoredResponse]:
    columns = (arrays_of(table[name]) for name in ("token_ids", "round_1", "round_2"))
    names = zip(table["pair_id"].to_pylist(), table["response"].to_pylist(), strict=True)
    for (pair_id, response), token_ids, round_1, round_2 in zip(names, *columns, strict=True):
        yield ScoredResponse(pair_id=pair_id, response=response, token_ids=token_ids, round_1=round_1, round_2=round_2)


def _no_statistics() -> dict[str, WeightStatistics]:
    return {name: WeightStatistics() for name in RESPONSES}


def _write_statistics(
    stage: Stage, params: PostprocessParams, chosen: RowsChosen, statistics: dict[str, WeightStatistics]
) -> None:
    tokenizer = load_tokenizer(named_model(stage.root, "judge"))
    heads = "mean" if chosen.heads == (MEAN_OVER_HEADS,) else list(chosen.heads)
    metrics: dict[str, object] = {"source": chosen.source, "layer": chosen.layer, "heads": heads}
    for name, found in statistics.items():
        top = found.tokens.most_weighted(params.top_tokens, params.top_tokens_min_count)
        metrics[name] = {
            "before_sink_fix": found.with_sink.means(),
            "after_sink_fix": found.without_sink.means(),
            "top_tokens": [{"token": tokenizer.decode([row.token_id]), **asdict(row)} for row in top],
        }
    stage.write_metrics(metrics)


if __name__ == "__main__":
    main("postprocess", work)
