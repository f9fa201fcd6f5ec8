"""TRL's trainer takes a step with each recipe and learns from its reward, on a model that often answers well."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.errors import ConfigError, DataError, ModelError
from recipes import grpo, logic_rl

CHAIN = ["<think>", "hm", "</think>", "<answer>", "Zoey", "is", "a", "knight", "</answer>", "</s>"]
WORDS = [*CHAIN, "begin", "<unk>", "knave", "5"]
"""Each is most likely followed by the next."""
SOLUTION = "(1) Zoey is a knight"
SMALL = {
    "use_cpu": True,
    "bf16": False,
    "num_generations": 8,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 14,
    "max_steps": 1,
    "seed": 1,
    "disable_tqdm": True,
    "save_strategy": "no",
    "gradient_checkpointing": False,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose blocks add nothing; its head knows which word follows which, the first one after `begin`."""
    folder = tmp_path_factory.mktemp("start")
    size = len(WORDS)
    config = LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=512, tie_word_embeddings=False, bos_token_id=None, eos_token_id=WORDS.index("</s>"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    following = torch.zeros(size, 16)
    for index, word in enumerate(WORDS):
        following[0 if word == "begin" else (index + 1) % size, index] = 1.1
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size, 16))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.copy_(following)
    model.save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.content }} {% endfor %}{% if add_generation_prompt %}begin{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


def arguments(start: Path, tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> list[str]:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(map(json.dumps, rows)))
    given = ["--model", str(start), "--prompts", str(prompts), "--output", str(tmp_path / "trained")]
    for name, value in {**SMALL, **changes}.items():
        given += ["--set", f"{name}={json.dumps(value)}"]
    return given


def logged(trainer: Any) -> list[dict[str, float]]:
    return [line for line in trainer.state.log_history if "reward" in line]


def likelihood(model: torch.nn.Module) -> float:
    """Log-probability of the whole right answer."""
    ids = torch.tensor([[WORDS.index("begin"), *range(WORDS.index("</s>") + 1)]])
    logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return logps.gather(1, ids[0, 1:, None]).sum().item()


def test_grpo_raises_the_likelihood_of_right_answers(start: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{word} begin", "solution_text_format": SOLUTION} for word in ("5", "hm")]
    trainer = grpo.main([*arguments(start, tmp_path, rows, max_steps=6, learning_rate=0.02), "--reward", "knights"])
    lines = logged(trainer)
    assert len(lines) == 6
    for line in lines:
        form, answer = line["rewards/format_reward/mean"], line["rewards/knights_reward/mean"]
        assert line["reward"] == pytest.approx(form + answer, abs=1e-5)
    # Good and bad ones, or there would be nothing to learn from.
    assert -1 < lines[0]["rewards/format_reward/mean"] < 1
    before, after = (LlamaForCausalLM.from_pretrained(folder) for folder in (start, tmp_path / "trained"))
    assert likelihood(after) > likelihood(before) + 0.3
    # The reference is another model: the KL to it is no longer 0.
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert lines[-1]["kl"] > 1e-3


def test_logic_rl_takes_a_step_on_turns(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"quiz": "Zoey says 5", "solution_text_format": SOLUTION}
    rows = [row, row, row, row, {**row, "quiz": "hm " * 400}]
    trainer = logic_rl.main(arguments(start, tmp_path, rows, learning_rate=0.01))
    (line,) = logged(trainer)
    assert -3 < line["reward"] < 3
    assert line["reward_std"] > 0
    assert "prompts: 4, 1 longer than 400 tokens left out; 4 × 8 completions" in capsys.readouterr().out
    before, after = (LlamaForCausalLM.from_pretrained(folder) for folder in (start, tmp_path / "trained"))
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)


def test_a_prompt_may_begin_the_thoughts(start: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "5 begin <think>"}] * 2
    (line,) = logged(grpo.main([*arguments(start, tmp_path, rows), "--reward", "format"]))
    assert line["reward"] > -1


def test_too_few_prompts_for_a_batch_are_refused(start: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 prompts do not fill one batch of 2"):
        grpo.main([*arguments(start, tmp_path, [{"prompt": "begin"}]), "--reward", "format"])


def test_prompts_that_are_all_too_long_are_refused(start: Path, tmp_path: Path) -> None:
    given = [*arguments(start, tmp_path, [{"prompt": "hm hm begin"}] * 2), "--reward", "format"]
    with pytest.raises(DataError, match="all 2 prompts are longer than 2 tokens"):
        grpo.main([*given, "--max-prompt-tokens", "2"])


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--model .*absent: its tokenizer cannot be loaded"):
        grpo.main([*arguments(tmp_path / "absent", tmp_path, [{"prompt": "begin"}] * 2), "--reward", "format"])


def test_turns_without_a_chat_template_are_refused(start: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(start)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    rows = [{"quiz": "Zoey says 5", "solution_text_format": SOLUTION}] * 2
    with pytest.raises(ModelError, match="no chat template"):
        logic_rl.main(arguments(folder, tmp_path, rows))
