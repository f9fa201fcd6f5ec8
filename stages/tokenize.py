"""Pairs in the policy's chat template, exactly as trained on: `data/tokens/`."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.tokenize import TokenizeParams
from pipeline.data.pairs import open_pairs
from pipeline.io.artifact import Artifact
from pipeline.io.digest import file_digest
from pipeline.io.refusal import Refusal
from pipeline.io.work import Out
from pipeline.models.chat import Chat, TemplateRefusal
from pipeline.models.load import load_tokenizer
from pipeline.models.named import named_model
from pipeline.models.training_tokens import NotTrained, PairTokens, pair_tokens
from pipeline.schemas.base import SPLITS
from pipeline.schemas.tokens import TOKENS
from stages.common import Made, Stage, check_train_left, main, map_shards


def work(stage: Stage) -> None:
    """Token ids of every pair; pairs that the template refuses, or that leave no token to train on or are refused by
    their length, go to `refused`."""
    params = stage.params("tokenize", TokenizeParams)
    manifest = named_model(stage.root, "start")
    chat = Chat(load_tokenizer(manifest), manifest.chat_template, role="start")
    pairs = {split: open_pairs(stage.path(f"data/pairs/{split}.parquet")) for split in SPLITS}

    def make(split: str, shard: int) -> Made:
        low, high = pairs[split].shards[shard]
        rows, refused = [], []
        for position, pair in enumerate(pairs[split].records(low, high), start=low):
            try:
                rows.append(_row(pair["pair_id"], pair_tokens(chat, pair, params)))
            except TemplateRefusal as refusal:
                refused.append(Refusal(split, position, pair["pair_id"], "chat_template", str(refusal)))
            except NotTrained as refusal:
                refused.append(Refusal(split, position, pair["pair_id"], refusal.reason, str(refusal)))
        return Made({"tokens": pa.Table.from_pylist(rows, schema=TOKENS)}, refused)

    inputs = {split: file_digest(stage.path(f"data/pairs/{split}.parquet")) for split in SPLITS}
    facts = {"model": manifest.name, "revision": manifest.revision, "tokenizer": manifest.tokenizer_digest}
    run = stage.run(params.model_dump(), {**inputs, "model": manifest.digest}, facts)
    out = Out("tokens", stage.path("data/tokens"), TOKENS)
    refused = map_shards(stage, run, [out], {split: of.shards for split, of in pairs.items()}, make, may_refuse=True)
    tokens = Artifact(out.path, TOKENS)
    stage.write_metrics({**{split: _metrics(tokens, split) for split in SPLITS}, "refused": refused})
    check_train_left(stage, tokens)


def _row(pair_id: str, tokens: PairTokens) -> dict[str, Any]:
    row: dict[str, Any] = {"pair_id": pair_id, "prompt_ids": tokens.prompt_ids, "prompt_cut": tokens.prompt_cut}
    for name, response in tokens.responses.items():
        row |= {
            f"{name}_ids": response.ids,
            f"{name}_offsets": [{"start": begin, "end": end} for begin, end in response.offsets],
            f"{name}_eos": response.eos,
            f"{name}_cut": response.cut,
        }
    return row


def _metrics(tokens: Artifact, split: str) -> dict[str, float]:
    """Lengths and cuts of one split."""
    names = ("prompt", "chosen", "rejected")
    columns = [f"{name}_{what}" for name in names for what in ("ids", "cut")]
    table = pa.concat_tables([shard.table(columns) for shard in tokens.shards(split)])
    metrics: dict[str, float] = {"pairs": len(table)}
    if not len(table):
        return metrics
    for name in names:
        lengths, cut = pc.list_value_length(table[f"{name}_ids"]), table[f"{name}_cut"]
        metrics |= {
            f"{name}_tokens_mean": pc.mean(lengths).as_py(),
            f"{name}_tokens_max": pc.max(lengths).as_py(),
            f"{name}_cut_share": pc.mean(pc.greater(cut, 0).cast(pa.float64())).as_py(),
            f"{name}_cut_tokens": pc.sum(cut).as_py(),
        }
    return metrics


if __name__ == "__main__":
    main("tokenize", work)
