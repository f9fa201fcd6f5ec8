"""Two judge prompts per pair, chosen and rejected in both orders: `data/judge/`."""

from pipeline.config.render import RenderParams
from pipeline.data.pairs import open_pairs
from pipeline.io.artifact import Artifact
from pipeline.io.digest import file_digest
from pipeline.io.refusal import Refusal
from pipeline.io.work import Out
from pipeline.judge.metrics import COLUMNS, render_metrics
from pipeline.judge.prompt import load_prompt
from pipeline.judge.render import PairRefused, Renderer
from pipeline.judge.table import judge_table
from pipeline.models.chat import Chat
from pipeline.models.load import load_tokenizer
from pipeline.models.manifest import read_manifest
from pipeline.schemas.base import SPLITS
from pipeline.schemas.judge import JUDGE
from stages.common import CODE, Made, Stage, main, map_shards, skip

PROMPT = "pipeline/judge/prompt.txt"
NO_JUDGE = "the weights do not come from a judge's attention"


def work(stage: Stage) -> None:
    """Judge prompts of every pair; pairs that cannot be judged go to `refused`."""
    params = stage.params("render", RenderParams)
    pairs = {split: open_pairs(stage.path(f"data/pairs/{split}.parquet")) for split in SPLITS}
    plan = {split: of.shards for split, of in pairs.items()}
    out = Out("judge", stage.path("data/judge"), JUDGE)
    if not stage.need("judge")["needed"]:
        skip(stage, [out], plan, NO_JUDGE, may_refuse=True)
        return
    manifest = read_manifest(stage.path("models/judge.json"))
    prompt = load_prompt(CODE / PROMPT)
    renderer = Renderer(Chat(load_tokenizer(manifest), manifest.chat_template), prompt, params)

    def make(split: str, shard: int) -> Made:
        begin, end = pairs[split].shards[shard]
        rendered, refused = [], []
        for row, pair in enumerate(pairs[split].records(begin, end), start=begin):
            try:
                rendered.append((pair["pair_id"], renderer.render(pair)))
            except PairRefused as why:
                refused.append(Refusal(split, row, pair["pair_id"], why.reason, why.detail))
        tokens = sum(len(of.input_ids) for _, pair in rendered for of in pair.rounds)
        return Made({"judge": judge_table(rendered)}, refused, tokens)

    inputs = {split: file_digest(stage.path(f"data/pairs/{split}.parquet")) for split in SPLITS}
    inputs |= {"model": manifest.digest, "prompt": file_digest(CODE / PROMPT)}
    facts = {"model": manifest.name, "revision": manifest.revision, "tokenizer": manifest.tokenizer_digest}
    run = stage.run(params.model_dump(), inputs, facts=facts)
    refused = map_shards(stage, run, [out], plan, make, may_refuse=True)
    judge = Artifact(out.path, JUDGE)
    metrics = {split: render_metrics(shard.table(COLUMNS) for shard in judge.shards(split)) for split in SPLITS}
    stage.write_metrics({**metrics, "refused": refused})


if __name__ == "__main__":
    main("render", work)
