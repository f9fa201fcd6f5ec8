"""Policy against start on the test pairs: `reports/evaluate/`."""

from itertools import accumulate, pairwise

from pipeline.config.evaluate import EvaluateParams
from pipeline.config.train import TrainParams
from pipeline.evaluate.answers import answers_before_and_after
from pipeline.evaluate.models import load_policy
from pipeline.evaluate.pairs import evaluate_pairs
from pipeline.evaluate.table import pairs_table, summary
from pipeline.io.atomic import write_json
from pipeline.io.parquet import write_table
from pipeline.io.progress import Progress
from pipeline.models.budget import TokenBudget
from pipeline.models.chat import Chat
from pipeline.models.device import choose_device
from pipeline.models.load import load_model, load_tokenizer
from pipeline.models.logps import LogProbModel
from pipeline.models.named import named_model
from pipeline.train.order import stored_order
from pipeline.train.stream import PairArtifacts, PairStream, open_optional_split
from stages.common import Stage, library_versions, main


def work(stage: Stage) -> None:
    """Numbers of every test pair, their means with intervals, and a few answers before and after."""
    params, train = stage.params("evaluate", EvaluateParams), stage.params("train", TrainParams)
    manifest = named_model(stage.root, "start")
    device = choose_device(stage.runtime.device, stage.runtime.threads)
    start = load_model(manifest, train.dtype, device)
    policy = load_policy(stage.path("models/policy"), manifest, train.dtype, device)

    # Before log-probs, for which the models are set to attend in packed rows.
    tokenizer = load_tokenizer(manifest)
    chat = Chat(tokenizer, manifest.chat_template, "start")
    answers = answers_before_and_after(start, policy, tokenizer, chat, params.prompts, params.max_new_tokens)

    rows: list[tuple[str, dict[str, float]]] = []
    stream = open_optional_split(PairArtifacts.weighted(stage.path("data")), "test")
    if stream is not None:
        rows = _evaluate(stage, stream, LogProbModel(policy), LogProbModel(start), train)
    table = pairs_table(rows)
    facts = {"artifact": "evaluate", "model": manifest.name, "dtype": train.dtype, "versions": library_versions()}
    write_table(stage.path("reports/evaluate/pairs.parquet"), table, facts)

    write_json(stage.path("reports/evaluate/answers.json"), answers)
    stage.write_metrics(summary(table, params))


def _evaluate(
    stage: Stage, stream: PairStream, policy: LogProbModel, start: LogProbModel, train: TrainParams
) -> list[tuple[str, dict[str, float]]]:
    """One shard after the other, as stored."""
    order = stored_order(stream.shard_rows)
    progress = Progress(stage.name, len(stream))
    budget = TokenBudget(stage.runtime.token_budget, policy.model.device)
    rows = []
    for first, last in pairwise([0, *accumulate(stream.shard_rows)]):
        pairs = stream.block(order, first, last)
        rows += evaluate_pairs(policy, start, pairs, train, budget)
        progress.advance(len(pairs), sum(pair.tokens for pair in pairs))
    return rows


if __name__ == "__main__":
    main("evaluate", work)
