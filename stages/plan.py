"""`make plan`: tokens, cut shares, disk and hours before any GPU work; `--rate N` for another machine's tokens/s."""

import argparse
import os
import sys
from pathlib import Path

from pipeline.config.check import check_all
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_sources
from pipeline.errors import PipelineError
from pipeline.judge.prompt import load_prompt
from pipeline.judge.render import PairRefused, Renderer
from pipeline.models.chat import Chat
from pipeline.models.device import choose_device
from pipeline.models.load import load_config, load_model, load_tokenizer
from pipeline.models.logps import LogProbModel
from pipeline.models.resolve import resolve
from pipeline.report.plan import describe, measured_rate, plan


def main() -> None:
    """Print the plan; the rate is measured on the judge unless it is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, help="forward tokens per second of the machine to plan for")
    given = parser.parse_args()
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    sections = check_all(root / "params.yaml")
    models, runtime = sections["model"], sections["runtime"]
    judge, start = resolve(models.judge, "judge", root), resolve(models.start_ref, "start", root)
    params = sections["prepare"]
    pairs = prepare(open_sources(params, root), params.validation_share, params.limit).pairs
    chat = Chat(load_tokenizer(judge), judge.chat_template)
    renderer = Renderer(chat, load_prompt(root / "pipeline/judge/prompt.txt"), sections["render"])
    trained = Chat(load_tokenizer(start), start.chat_template, role="start")
    judge_heads = load_config(judge).get_text_config().num_attention_heads
    found = plan(pairs, renderer, trained, sections, judge_heads)
    rate = given.rate
    if rate is None:
        device = choose_device(runtime.device, runtime.threads)
        model = LogProbModel(load_model(judge, sections["extract"].dtype, device))
        prompts = []
        for pair in pairs["train"][:16]:
            try:
                prompts += [each.input_ids for each in renderer.render(pair.record()).rounds]
            except PairRefused:
                continue
        rate = measured_rate(model, prompts, runtime.token_budget)
    for line in describe(found, rate, sections["train"]):
        print(line)


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(f"plan: {error}")
