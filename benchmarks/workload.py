"""What the extraction benchmark runs on: judge prompts of real pairs, or of UltraFeedback's lengths, and the judge."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from pipeline.attention.backend import JudgePrompt
from pipeline.attention.forward.prefixes import common_prefix
from pipeline.config.prepare import PrepareParams
from pipeline.config.render import RenderParams
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_sources
from pipeline.judge.prompt import load_prompt
from pipeline.judge.render import PairRefused, Renderer
from pipeline.models.chat import Chat
from pipeline.schemas.base import RESPONSES

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
PACKAGED = ROOT / "models" / "packaged" / "SmolLM2-135M-Instruct"
SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rope_theta": 500_000.0,
    },
    "tiny": {
        "vocab_size": 1000,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
    },
}
"""Llama shapes with random weights, for speed and memory where no weights are at hand."""
HEADER_TOKENS, QUESTION_TOKENS, CHOSEN_TOKENS, REJECTED_TOKENS, FRAME_TOKENS = 213, 190, 270, 235, 40
"""Mean lengths for random shapes: about 950 tokens a judge prompt, as UltraFeedback has. FRAME: what stands around and
between the answers."""
LONGEST = 2047
SCORE_DEVIATION = 2.5
"""Of the attention scores of random weights, in logits. Far from uniform, so that a wrong row shows: at transformers'
initialization every row is nearly 1 / length. At 3 and more, bfloat16 alone moves the rows of 32 layers too far."""
LOG_NORMAL_SIGMA = 0.9


@dataclass(frozen=True)
class Workload:
    """Judge prompts, both rounds of every pair one after the other, and the verdicts' tokens."""

    prompts: list[JudgePrompt]
    verdict_ids: tuple[int, int]

    @property
    def header(self) -> list[int]:
        """What all prompts begin with."""
        first = list(self.prompts[0].input_ids)
        return first[: min(common_prefix(first, prompt.input_ids) for prompt in self.prompts[1:])]


def open_workload(judge: str, pairs: int) -> Workload:
    """`packaged`: the first usable pairs of train.jsonl.gz; a name of SHAPES: random ids in UltraFeedback's lengths."""
    if judge in SHAPES:
        return Workload(_random_pairs(pairs, SHAPES[judge]["vocab_size"]), (7, 11))
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED, local_files_only=True)
    a, b = tokenizer.convert_tokens_to_ids(["A", "B"])
    return Workload(_real_pairs(tokenizer, pairs), (a, b))


def open_judge(judge: str, dtype: str, device: str, implementation: str) -> PreTrainedModel:
    """The model in evaluation mode; the same random weights for the same shape on the same device.

    Random query weights are scaled: inputs of RMS 1 and weights of deviation s give scores of deviation s^2 * hidden.
    """
    kind = getattr(torch, dtype)
    if judge not in SHAPES:
        model = AutoModelForCausalLM.from_pretrained(
            PACKAGED, dtype=kind, attn_implementation=implementation, local_files_only=True
        )
        return model.to(device).eval()
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            LlamaConfig(**SHAPES[judge]), dtype=kind, attn_implementation=implementation
        )
    scale = SCORE_DEVIATION / (model.config.initializer_range**2 * model.config.hidden_size)
    with torch.no_grad():
        for layer in model.base_model.layers:
            layer.self_attn.q_proj.weight.mul_(scale)
    return model.eval()


def _real_pairs(tokenizer: PreTrainedTokenizerFast, pairs: int) -> list[JudgePrompt]:
    if not SHARED.is_dir():
        raise SystemExit(f"{SHARED} is not there: this benchmark runs on the real preference pairs of that folder")
    params = PrepareParams(folder=str(SHARED), train="train.jsonl.gz", test=None, validation_share=0.0, limit=2 * pairs)
    renderer = Renderer(Chat(tokenizer), load_prompt(ROOT / "pipeline/judge/prompt.txt"), RenderParams())
    prompts: list[JudgePrompt] = []
    for pair in prepare(open_sources(params, ROOT), 0.0, params.limit).pairs["train"]:
        try:
            rounds = renderer.render(pair.record()).rounds
        except PairRefused:
            continue
        prompts += [
            JudgePrompt(each.input_ids, tuple(each.spans[name] for name in RESPONSES), f"pair {pair.pair_id}")
            for each in rounds
        ]
    return list(islice(prompts, 2 * pairs))


def _random_pairs(pairs: int, vocabulary: int) -> list[JudgePrompt]:
    rng = random.Random(0)

    def ids(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    def length(mean: int) -> int:
        # The mean of a log-normal is exp(mu + sigma^2 / 2).
        return max(4, round(rng.lognormvariate(math.log(mean) - LOG_NORMAL_SIGMA**2 / 2, LOG_NORMAL_SIGMA)))

    header, frame = ids(HEADER_TOKENS), ids(FRAME_TOKENS)
    prompts: list[JudgePrompt] = []
    for _ in range(pairs):
        room = LONGEST - HEADER_TOKENS - FRAME_TOKENS
        question = ids(min(length(QUESTION_TOKENS), room // 4))
        answers = [
            ids(min(length(mean), 768, (room - len(question)) // 2)) for mean in (CHOSEN_TOKENS, REJECTED_TOKENS)
        ]
        for order in ((0, 1), (1, 0)):
            text = [*header, *question]
            spans: dict[int, tuple[int, int]] = {}
            for which in order:
                spans[which] = len(text), len(text) + len(answers[which])
                text += answers[which]
            prompts.append(JudgePrompt([*text, *frame], (spans[0], spans[1])))
    return prompts


def total_tokens(prompts: Sequence[JudgePrompt]) -> int:
    """Of all prompts as they are."""
    return sum(len(prompt.input_ids) for prompt in prompts)
