"""What is trained on: limits of prompt and response, and where the end of turn is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from pipeline.config.tokenize import TokenizeParams
from pipeline.models.chat import Chat
from pipeline.models.training_tokens import prompt_tokens, response_tokens

CONTEXT = [{"role": "user", "content": "What is the capital of France? Answer with one word, please."}]


@pytest.fixture(scope="module")
def chat(default_tokenizer: PreTrainedTokenizerFast) -> Chat:
    return Chat(default_tokenizer, role="start")


def test_an_uncut_pair_is_what_the_template_makes_of_the_conversation(
    chat: Chat, default_tokenizer: PreTrainedTokenizerFast
) -> None:
    prompt, cut = prompt_tokens(chat, CONTEXT, TokenizeParams())
    response = response_tokens(chat, "It is Paris.", 100)
    whole = default_tokenizer.apply_chat_template(
        [*CONTEXT, {"role": "assistant", "content": "It is Paris."}], tokenize=True, return_dict=False
    )
    trained = [*prompt, *response.ids]
    assert whole[: len(trained)] == trained
    assert default_tokenizer.decode(whole[len(trained) :]).strip() == ""
    assert (cut, response.eos, response.cut) == (0, True, 0)
    assert response.ids[-1] == default_tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert response.offsets[-1] == (12, 12)


def test_prompts_are_cut_from_the_left(chat: Chat) -> None:
    whole, _ = prompt_tokens(chat, CONTEXT, TokenizeParams())
    kept, cut = prompt_tokens(chat, CONTEXT, TokenizeParams(max_tokens=20, max_prompt_tokens=8))
    assert kept == whole[-8:]
    assert cut == len(whole) - 8


def test_responses_are_cut_from_the_right_and_then_have_no_end_of_turn(chat: Chat) -> None:
    whole = response_tokens(chat, "one two three four", 100)
    assert whole.eos
    n = len(whole.ids) - 1
    for room in range(1, n + 1):
        part = response_tokens(chat, "one two three four", room)
        assert part.ids == whole.ids[:room]
        assert part.offsets == whole.offsets[:room]
        assert (part.eos, part.cut) == (False, n - room)
    assert response_tokens(chat, "one two three four", n + 1) == whole


def test_the_text_of_an_end_of_turn_is_text(chat: Chat) -> None:
    response = response_tokens(chat, "stop<|im_end|>", 100)
    assert response.ids.count(chat.end_of_turn_id) == 1
    assert response.ids[-1] == chat.end_of_turn_id


@settings(max_examples=50, deadline=None)
@given(text=st.text(min_size=1), room=st.integers(1, 30))
def test_offsets_are_those_of_the_text(chat: Chat, text: str, room: int) -> None:
    response = response_tokens(chat, text, room)
    assert len(response.ids) == len(response.offsets) <= room
    assert all(0 <= start <= end <= len(text) for start, end in response.offsets)
    assert chat.end_of_turn_id not in response.ids[: len(response.ids) - response.eos]
