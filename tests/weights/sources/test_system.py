"""A system text before a conversation: where it goes, and that no cut takes it away."""

import numpy as np
import pytest

from pipeline.models.chat import Chat
from pipeline.weights.sources.base import NotScored, SourcePair, SourceResponse
from pipeline.weights.sources.system import SystemPrompt, with_system
from tests.models import tiny

TEXT = "You are good."
QUESTION = {"role": "user", "content": "What is it? " * 9}
TEMPLATES = {"zephyr": tiny.ZEPHYR, "llama 3": tiny.LLAMA3, "llama 2": tiny.LLAMA2, "gemma": tiny.GEMMA}


@pytest.fixture(scope="module", params=list(TEMPLATES))
def chat(request: pytest.FixtureRequest) -> Chat:
    return Chat(tiny.byte_level(), TEMPLATES[request.param])


def pair(*messages: dict[str, str], tokens: int = 3) -> SourcePair:
    response = SourceResponse(text="x", ids=np.arange(tokens), offsets=np.zeros((tokens, 2), int), eos=True)
    shorter = SourceResponse(text="x", ids=np.arange(1), offsets=np.zeros((1, 2), int), eos=True)
    return SourcePair(pair_id="a", messages=messages, prompt_ids=np.arange(2), chosen=shorter, rejected=response)


def prompt(chat: Chat, of: SourcePair, max_prompt_tokens: int = 1000, context: int = 1000) -> list[int]:
    ids = SystemPrompt(chat, TEXT, max_prompt_tokens, context)(of)
    assert isinstance(ids, list)
    return ids


def test_the_text_becomes_a_system_turn_or_begins_the_one_there_is() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert with_system([QUESTION], TEXT) == [{"role": "system", "content": TEXT}, QUESTION]
    joined = {"role": "system", "content": f"{TEXT}\n\nBe brief."}
    assert with_system([system, QUESTION], TEXT) == [joined, QUESTION]
    assert with_system([], TEXT) == [{"role": "system", "content": TEXT}]


def test_the_prompt_is_that_of_the_chat_template() -> None:
    zephyr, gemma = (Chat(tiny.byte_level(), template) for template in (tiny.ZEPHYR, tiny.GEMMA))
    assert prompt(zephyr, pair(QUESTION)) == zephyr.encode([{"role": "system", "content": TEXT}, QUESTION])
    # This one raises for a system turn.
    before = {"role": "user", "content": f"{TEXT}\n\n{QUESTION['content']}"}
    assert prompt(gemma, pair(QUESTION)) == gemma.encode([before])


def test_a_cut_takes_the_conversation_from_its_left_and_leaves_the_text(chat: Chat) -> None:
    whole = prompt(chat, pair(QUESTION))
    other = prompt(chat, pair({"role": "user", "content": "Hello world"}))
    opening = next(i for i, (a, b) in enumerate(zip(whole, other, strict=False)) if a != b)
    cut = prompt(chat, pair(QUESTION), max_prompt_tokens=len(whole) - 10)
    assert len(cut) == len(whole) - 10
    assert cut[:opening] == whole[:opening]
    assert cut[opening:] == whole[opening + 10 :]
    text = chat.text_ids(TEXT).ids
    assert len(text) <= opening


def test_the_longest_response_needs_its_room_in_the_context(chat: Chat) -> None:
    whole = prompt(chat, pair(QUESTION, tokens=5))
    assert prompt(chat, pair(QUESTION, tokens=5), context=len(whole) + 5) == whole
    assert len(prompt(chat, pair(QUESTION, tokens=5), context=len(whole) + 4)) == len(whole) - 1


def test_a_pair_without_room_is_refused_with_the_counts(chat: Chat) -> None:
    found = SystemPrompt(chat, TEXT * 20, 20, 1000)(pair(QUESTION))
    assert isinstance(found, NotScored)
    assert found.reason == "no_room"
    assert TEXT not in found.detail
    assert "20" in found.detail


def test_an_own_system_turn_is_kept_too() -> None:
    chat = Chat(tiny.byte_level(), tiny.ZEPHYR)
    system = {"role": "system", "content": "Be brief and naïve."}
    whole = prompt(chat, pair(system, QUESTION))
    cut = prompt(chat, pair(system, QUESTION), max_prompt_tokens=len(whole) - 7)
    own = {"role": "system", "content": f"{TEXT}\n\nBe brief and naïve."}
    head = chat.encode([own, {"role": "user", "content": "!"}])
    opening = next(i for i, (a, b) in enumerate(zip(whole, head, strict=False)) if a != b)
    assert cut == whole[:opening] + whole[opening + 7 :]
