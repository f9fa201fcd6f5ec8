"""Pairs to scores, with a generator that says what the test wants, and with a real model that says what it can."""

from collections.abc import Sequence

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from pipeline.config.verbalized import VerbalizedParams
from pipeline.models.chat import Chat
from pipeline.models.generation.base import Answer, stop_ids
from pipeline.models.generation.batches import TransformersGenerator
from pipeline.weights.sources.base import NotScored, PairScores, SourcePair, SourceResponse
from pipeline.weights.sources.verbalized.prompt import load_verbal_prompt
from pipeline.weights.sources.verbalized.source import REASONS, VerbalizedSource
from tests.models import tiny

STOP = 1


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.byte_level()


@pytest.fixture(scope="module")
def chat(tokenizer: PreTrainedTokenizerFast) -> Chat:
    return Chat(tokenizer, tiny.ZEPHYR)


class Says:
    """Answers by the order of prompts; None: the answer is cut."""

    def __init__(self, chat: Chat, answers: Sequence[str | None], context: int = 10_000) -> None:
        self.context = context
        self._chat = chat
        self._answers = answers
        self.prompts: list[list[int]] = []
        self.names: list[str] = []

    def answers(self, prompts, names, on_answers=None):
        self.prompts += map(list, prompts)
        self.names += names
        found = []
        for text in self._answers:
            ids = self._chat.text_ids(text or '[{"a", 1}]').ids
            found.append(Answer(ids, None if text is None else STOP))
            if on_answers is not None:
                on_answers(1, len(ids))
        assert len(found) == len(prompts)
        return found


def response(chat: Chat, text: str, tokens: int | None = None) -> SourceResponse:
    """As `tokenize` leaves it: cut after so many tokens, else with the end of turn."""
    ids, offsets = chat.text_ids(text)
    if tokens is None:
        ids, offsets = [*ids, chat.end_of_turn_id], [*offsets, (len(text), len(text))]
    return SourceResponse(text=text, ids=np.array(ids[:tokens]), offsets=np.array(offsets[:tokens]), eos=tokens is None)


def pair(chat: Chat, chosen: str, rejected: str, name: str = "p1", tokens: int | None = None) -> SourcePair:
    messages = [{"role": "user", "content": "What is it?"}]
    return SourcePair(
        pair_id=name,
        messages=messages,
        prompt_ids=np.array(chat.encode(messages)),
        chosen=response(chat, chosen, tokens),
        rejected=response(chat, rejected),
    )


def run(chat, tokenizer, pairs, says, **params):
    told: list[tuple[int, int]] = []
    source = VerbalizedSource(says, tokenizer, chat, VerbalizedParams(**params))
    found = source.run(pairs, lambda *done: told.append(done))
    assert sum(count for count, _ in told) == len(pairs)
    return found


def test_scores_of_both_responses(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> None:
    one = pair(chat, "It is good. 🙂", "What is it")
    says = Says(chat, ['[{"It is", 1}, {"good.", 5}, {"🙂", 3}]', '```json\n[["What", 2], ["is it", 4]]\n```'])
    (found,) = run(chat, tokenizer, [one], says)
    assert isinstance(found, PairScores)
    for scored, of in zip((found.chosen, found.rejected), one.responses, strict=True):
        assert scored.scores.dtype == np.float32
        assert scored.scores.shape == of.ids.shape
        assert scored.scores[-1] == 0, "the end of turn"
        assert (scored.scores[:-1] > 0).all()
    words = {"It": 1, "is": 1, "good.": 5, "🙂": 3}
    for (start, end), score in zip(one.chosen.offsets.tolist(), found.chosen.scores.tolist(), strict=True):
        if token := one.chosen.text[start:end].strip():
            assert {value for word, value in words.items() if token in word} == {score}


def test_what_the_judge_is_asked(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> None:
    says = Says(chat, ['[{"a", 1}]', '[{"b", 1}]'])
    run(chat, tokenizer, [pair(chat, "a", "b")], says)
    for text, ids in zip("ab", says.prompts, strict=True):
        expected = chat.encode(load_verbal_prompt().messages([{"role": "user", "content": "What is it?"}], text))
        assert ids == expected
    assert says.names == ["pair p1, chosen response", "pair p1, rejected response"]


def test_only_what_is_trained_is_asked_about(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> None:
    whole = "  It is good and it is so"
    offsets = chat.text_ids(whole).offsets
    one = pair(chat, whole, "b", tokens=4)
    kept = whole[: offsets[3][1]]
    says = Says(chat, [f'[{{"{kept.strip()}", 2}}]', '[{"b", 1}]'])
    (found,) = run(chat, tokenizer, [one], says, min_matched=1.0)
    assert found.chosen.scores.tolist() == [2.0] * 4
    shown = tokenizer.decode(says.prompts[0])
    assert f"Response: {kept}" in shown
    assert "and it is so" not in shown


def test_white_space_that_the_template_trims_is_not_asked_about(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> None:
    inner = response(chat, "good")
    trimmed = SourceResponse(text="\n\n good ", ids=inner.ids, offsets=inner.offsets + 3, eos=True)
    one = pair(chat, "x", "b")
    one = SourcePair(
        pair_id="p", messages=one.messages, prompt_ids=one.prompt_ids, chosen=trimmed, rejected=one.rejected
    )
    says = Says(chat, ['[{"good", 4}]', '[{"b", 1}]'])
    (found,) = run(chat, tokenizer, [one], says, min_matched=1.0)
    assert set(found.chosen.scores[:-1].tolist()) == {4.0}
    assert "Response: good</s>" in tokenizer.decode(says.prompts[0])


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason", "detail"),
    [
        ("No.", '[{"b", 1}]', "no_list", "chosen: 3 characters"),
        ('[{"a", 1}]', '[{"b", 7}]', "score_out_of_range", "rejected: part 1"),
        ('[{"a", 1}]', None, "unfinished_list", "rejected: cut after "),
        ('[{"z", 1}]', '[{"b", 1}]', "unmatched", "chosen: 0 of 1 tokens matched, 1 parts not found; rejected: 1 of 1"),
        ('[{"a", 1}]', '[{"z", 1}]', "unmatched", "rejected: 0 of 1 tokens matched"),
        ('[{"a", 1}]</s>', '[{"b", 1}]', "text_around_list", "chosen: after 1 parts"),
    ],
)
def test_one_bad_answer_refuses_the_pair(chat, tokenizer, chosen, rejected, reason, detail) -> None:
    says = Says(chat, [chosen, rejected, '[{"c", 1}]', '[{"d", 1}]'])
    first, second = run(chat, tokenizer, [pair(chat, "a", "b"), pair(chat, "c", "d", "p2")], says)
    assert isinstance(first, NotScored)
    assert first.reason == reason
    assert detail in first.detail
    assert reason in REASONS
    assert isinstance(second, PairScores)


def test_a_special_token_in_the_midst_of_an_answer_is_not_dropped(chat: Chat, tokenizer) -> None:
    class WithSpecial(Says):
        def answers(self, prompts, names, on_answers=None):
            first, *rest = super().answers(prompts, names, on_answers)
            at = first.ids.index(chat.text_ids("a").ids[0])
            return [Answer([*first.ids[:at], tokenizer.eos_token_id, *first.ids[at:]], STOP), *rest]

    says = WithSpecial(chat, ['[{"a", 1}]', '[{"b", 1}]'])
    (found,) = run(chat, tokenizer, [pair(chat, "a", "b")], says)
    assert isinstance(found, NotScored)
    assert found.reason == "unmatched"


def test_a_prompt_too_long_refuses_its_pair_alone(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [pair(chat, "a", "b" * 300, "long"), pair(chat, "a", "b", "short")]
    short = len(
        VerbalizedSource(Says(chat, []), tokenizer, chat, VerbalizedParams())._prompt(pairs[1], pairs[1].chosen)
    )
    says = Says(chat, ['[{"a", 1}]', '[{"b", 1}]'], context=short + 5)
    first, second = run(chat, tokenizer, pairs, says)
    assert isinstance(first, NotScored)
    assert first.reason == "verbal_prompt_too_long"
    assert first.detail.startswith("rejected: ")
    assert first.detail.endswith(f"tokens, {short + 5} fit")
    assert isinstance(second, PairScores)
    assert says.names == ["pair short, chosen response", "pair short, rejected response"]


def test_no_pairs(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> None:
    assert run(chat, tokenizer, [], Says(chat, [])) == []


def test_refusals_hold_no_text(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> None:
    for answer in ("secret", '[{"secret", 9}]', '[{"secret", 1}]', 'secret [{"a", 1}]', None):
        (found,) = run(chat, tokenizer, [pair(chat, "secret a", "b")], Says(chat, [answer, '[{"b", 1}]']))
        if isinstance(found, NotScored):
            assert "secret" not in found.detail


def test_a_model_that_cannot_do_it_refuses_and_goes_on(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> None:
    config = tiny.CONFIGS["llama"]()
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 2000
    model = type(tiny.model("llama"))(config).eval()
    generator = TransformersGenerator(model, stop_ids(tokenizer, chat), 8, tiny.budget(4000))
    found = run(chat, tokenizer, [pair(chat, "It is", "good"), pair(chat, "a", "b")], generator)
    assert [type(one) for one in found] == [NotScored, NotScored]
