"""What the chosen weight source and objective need of the other stages: `data/needs/`."""

from collections.abc import Collection

from pipeline.config.extract import ExtractParams
from pipeline.config.needs import needs, objective_needs
from pipeline.config.postprocess import PostprocessParams
from pipeline.config.prepare import PrepareParams
from pipeline.config.reference import ReferenceParams
from pipeline.config.score import ScoreParams
from pipeline.config.third import ThirdParams
from pipeline.config.tokenize import TokenizeParams
from pipeline.config.train import TrainParams
from pipeline.config.weights import WeightsParams
from pipeline.errors import ConfigError, DataError
from pipeline.io.atomic import write_json
from pipeline.io.parquet import read_table
from pipeline.models.load import load_config
from pipeline.models.manifest import read_manifest
from pipeline.models.named import named_model
from pipeline.models.scoring import check_same_words, check_scoring
from pipeline.schemas.pairs import PAIRS
from pipeline.weights.choose import check_heads, check_layer
from stages.common import Stage, main


def work(stage: Stage) -> None:
    """One file for each stage that can go without work."""
    weights, train = stage.params("weights", WeightsParams), stage.params("train", TrainParams)
    if "gold" in objective_needs(train):
        _check_gold(stage, train.objective)
    dtype = stage.params("reference", ReferenceParams).dtype
    found = needs(weights, train, stage.params("score", ScoreParams), stage.params("third", ThirdParams), dtype)
    _check_models(stage, weights.source, found["scores"]["models"])
    for name, need in found.items():
        if name == "scores":
            need["models"] = {role: read_manifest(stage.path(f"models/{role}.json")).digest for role in need["models"]}
        write_json(stage.path(f"data/needs/{name}.json"), need)


def _check_models(stage: Stage, source: str, contrasted: Collection[str]) -> None:
    """Of all models that are to give log-probs; a judge that writes its scores is not among them."""
    limits = stage.params("tokenize", TokenizeParams)
    for role in sorted({"start", *contrasted} - {"judge"}):
        check_scoring(named_model(stage.root, role), limits.max_tokens)
    if source == "judge":
        _check_rows(stage)
    if {"positive", "negative"} <= set(contrasted):
        _check_contrast(stage, source)
    if source == "critical":
        check_same_words(named_model(stage.root, "positive"), named_model(stage.root, "negative"))


def _check_contrast(stage: Stage, source: str) -> None:
    """Two names of the same weights: every score would be 0."""
    positive, negative = (named_model(stage.root, role) for role in ("positive", "negative"))
    if positive.files == negative.files:
        raise ConfigError(
            f"weights.source: {source} contrasts model.positive ({positive.name}) with model.negative"
            f" ({negative.name}), whose files are the same; name two models"
        )


def _check_rows(stage: Stage) -> None:
    """Hours of `extract` may lie between a layer or head that is not cached and `postprocess`, which asks for it."""
    extract, postprocess = stage.params("extract", ExtractParams), stage.params("postprocess", PostprocessParams)
    judge = load_config(named_model(stage.root, "judge")).get_text_config()
    check_layer(extract, postprocess, judge.num_hidden_layers)
    check_heads(extract, postprocess, judge.num_attention_heads)


def _check_gold(stage: Stage, objective: str) -> None:
    table = read_table(stage.path("data/pairs/train.parquet"), PAIRS, ["gold"])
    if table["gold"].null_count == len(table):
        params = stage.params("prepare", PrepareParams)
        raise DataError(
            f"train.objective: {objective} takes a third, best response, and no row of prepare.train: {params.train}"
            " has a field `gold`; add it to the data, or choose another objective"
        )


if __name__ == "__main__":
    main("needs", work)
