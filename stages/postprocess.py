"""Raw rows to the weights a_t: `data/weights/`, with the numbers of the paper's Tables 1 and 2."""

from collections.abc import Iterator
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.postprocess import PostprocessParams
from pipeline.errors import ConfigError
from pipeline.io.artifact import Artifact, Shard
from pipeline.io.lists import arrays_of, list_array
from pipeline.io.work import Out
from pipeline.models.load import load_tokenizer
from pipeline.models.named import named_model
from pipeline.schemas.attention import ATTENTION
from pipeline.schemas.base import FLOATS, RESPONSES, SPLITS
from pipeline.schemas.weights import WEIGHTS
from pipeline.weights.rows import ScoredResponse, postprocess_rows
from pipeline.weights.stats import WeightStatistics
from stages.common import Made, Stage, main, map_shards


def work(stage: Stage) -> None:
    """Weights of every response; then what they look like on the train split."""
    params = stage.params("postprocess", PostprocessParams)
    attention = Artifact(stage.path("data/attention"), ATTENTION)
    shards = {split: attention.shards(split) for split in SPLITS}
    layer = cached_layer(attention, params.layer)

    def make(split: str, shard: int) -> Made:
        table = _rows_of_layer(shards[split][shard], layer)
        weights = list(postprocess_rows(_scored(table), params, _no_statistics()))
        kept = table.select(["pair_id", "response", "token_ids", "offsets"])
        return Made({"weights": kept.append_column("weights", list_array(weights, FLOATS))})

    # The tables of most weighted tokens change metrics only, yet they are params of this stage.
    made_by = {name: attention.facts()[name] for name in ("model", "revision", "tokenizer", "dtype")}
    run = stage.run({**params.model_dump(), "layer": layer}, {"attention": attention.digest}, facts=made_by)
    out = Out("weights", stage.path("data/weights"), WEIGHTS)
    map_shards(stage, run, [out], {split: [shard.rows for shard in of] for split, of in shards.items()}, make)

    statistics = _no_statistics()
    for shard in shards["train"]:
        for _ in postprocess_rows(_scored(_rows_of_layer(shard, layer)), params, statistics):
            pass
    _write_statistics(stage, params, layer, statistics)


def cached_layer(attention: Artifact, layer: int) -> int:
    """The 0-based layer to use. Raises ConfigError when `extract` did not cache it."""
    depth = attention.facts()["num_layers"]
    cached = sorted(set(pc.unique(attention.shards("train")[0].table(["layer"])["layer"]).to_pylist()))
    wanted = layer + depth if layer < 0 else layer
    if wanted not in cached:
        raise ConfigError(
            f"postprocess.layer: layer {wanted} is not cached; data/attention holds {cached}. Choose one of them,"
            f" or add {wanted} to extract.layers"
        )
    return wanted


def _rows_of_layer(shard: Shard, layer: int) -> pa.Table:
    table = shard.table()
    return table.filter(pc.equal(table["layer"], layer))


def _scored(table: pa.Table) -> Iterator[ScoredResponse]:
    columns = (arrays_of(table[name]) for name in ("token_ids", "round_1", "round_2"))
    names = zip(table["pair_id"].to_pylist(), table["response"].to_pylist(), strict=True)
    for (pair_id, response), token_ids, round_1, round_2 in zip(names, *columns, strict=True):
        yield ScoredResponse(pair_id=pair_id, response=response, token_ids=token_ids, round_1=round_1, round_2=round_2)


def _no_statistics() -> dict[str, WeightStatistics]:
    return {name: WeightStatistics() for name in RESPONSES}


def _write_statistics(
    stage: Stage, params: PostprocessParams, layer: int, statistics: dict[str, WeightStatistics]
) -> None:
    tokenizer = load_tokenizer(named_model(stage.root, "judge"))
    metrics: dict[str, object] = {"layer": layer}
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
