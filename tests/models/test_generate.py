"""Greedy answers."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from pipeline.config.model import ModelRef
from pipeline.errors import ModelError
from pipeline.models.chat import Chat
from pipeline.models.generate import greedy
from pipeline.models.load import load_model
from pipeline.models.resolve import resolve
from tests.models import tiny

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
SUM = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def default_model(root: Path, default_model_dir: Path) -> object:
    return load_model(resolve(ModelRef(), "judge", root), "float32", "cpu")


def test_the_default_model_knows_paris(default_model: object, default_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = Chat(default_tokenizer)
    answers = greedy(default_model, default_tokenizer, chat, [PARIS, SUM], max_new_tokens=16)
    assert "Paris" in answers[0].text
    assert 0 < answers[0].tokens <= 16
    assert answers[1] == greedy(default_model, default_tokenizer, chat, [SUM], max_new_tokens=16)[0]
    assert "<|im_end|>" not in answers[0].text


def test_equals_generate_and_ignores_the_generation_config() -> None:
    tokenizer = tiny.byte_level()
    chat = Chat(tokenizer, tiny.ZEPHYR)
    config = tiny.CONFIGS["llama"]()
    config.vocab_size = len(tokenizer)
    config.max_position_embeddings = 200
    torch.manual_seed(1)
    model = type(tiny.model("llama"))(config).eval()
    conversation = [{"role": "user", "content": "Hello"}]
    ids = torch.tensor([chat.encode(conversation)])
    theirs = model.generate(
        ids, do_sample=False, max_new_tokens=12, eos_token_id=tokenizer.eos_token_id, pad_token_id=0
    )
    expected = tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)
    model.generation_config.update(do_sample=True, temperature=3.0, repetition_penalty=5.0)
    assert greedy(model, tokenizer, chat, [conversation], max_new_tokens=12) == [(expected, 12)]


def test_stops_at_the_end_of_the_context() -> None:
    tokenizer = tiny.byte_level()
    chat = Chat(tokenizer, tiny.ZEPHYR)
    config = tiny.CONFIGS["llama"]()
    config.vocab_size = len(tokenizer)
    conversation = [{"role": "user", "content": "Hello"}]
    config.max_position_embeddings = len(chat.encode(conversation)) + 3
    model = type(tiny.model("llama"))(config).eval()
    [answer] = greedy(model, tokenizer, chat, [conversation], 50)
    assert answer.tokens <= 3
    config.max_position_embeddings -= 3
    with pytest.raises(ModelError, match="no room for an answer"):
        greedy(model, tokenizer, chat, [conversation], 50)
