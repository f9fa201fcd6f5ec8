"""A preference pair as two judge prompts: the answers in both orders, every response token known by construction."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.render import RenderParams
from pipeline.judge.prompt import PromptTemplate
from pipeline.judge.question import question_text
from pipeline.judge.spans import Offsets, Span, as_offsets, response_offsets, token_span
from pipeline.judge.truncate import first_tokens, last_tokens
from pipeline.models.chat import Chat
from pipeline.schemas.base import RESPONSES

REASONS = {
    "judge_prompt_too_long": "the judge prompt has `render.max_tokens` or more with the question cut to nothing",
    "round_mismatch": "a response has other tokens in round 2 than in round 1, not counting its first and last one",
    "empty_span": "a response has no token: the tokenizer drops its characters, or all were cut off",
}
"""Reason -> what it means, in `data/refused/render.parquet`."""

_ANSWERS = ({"chosen": "answer_a", "rejected": "answer_b"}, {"chosen": "answer_b", "rejected": "answer_a"})


class PairRefused(Exception):
    """Why a pair cannot be judged: a reason of `REASONS`, and a detail that holds no text of it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Round:
    """One judge prompt. Per response: its half-open range of tokens, and the characters [n, 2] that each one covers,
    as indices into the response as stored."""

    input_ids: list[int]
    spans: dict[str, Span]
    offsets: dict[str, Offsets]


@dataclass(frozen=True)
class JudgePair:
    """Round 1 (chosen is answer A) and round 2 (rejected is A), and the tokens cut from each text in both of them."""

    rounds: tuple[Round, Round]
    cut: dict[str, int]
    """By `prompt`, `chosen`, `rejected`: tokens of the text on its own that lie not wholly in what was kept."""


@dataclass(frozen=True)
class _Texts:
    question: str
    chosen: str
    rejected: str


class Renderer:
    """Makes judge prompts in the chat format of one judge.

    Responses are judged as stored, leading and trailing white space included, so that offsets are indices into them;
    the official code strips them first.
    """

    def __init__(self, chat: Chat, prompt: PromptTemplate, params: RenderParams) -> None:
        self._chat = chat
        self._prompt = prompt
        self._params = params

    def render(self, pair: Mapping[str, Any]) -> JudgePair:
        """Both rounds of a row of `pairs`. Raises PairRefused."""
        texts = _Texts(question_text(pair["prompt"]), pair["chosen"], pair["rejected"])
        rounds = self._rounds(texts)
        cut = {"prompt": 0, "chosen": 0, "rejected": 0}
        if _tokens(rounds) >= self._params.max_tokens:
            rounds, cut = self._truncated(texts)
        _check_rounds(*rounds)
        if self._params.spans == "official_trim":
            first, second = (_trimmed(of, self._params.official_trim_tokens) for of in rounds)
            rounds = first, second
        for name in RESPONSES:
            if not len(rounds[0].offsets[name]):
                raise PairRefused("empty_span", f"{name}: {len(pair[name])} characters, {cut[name]} tokens cut")
        return JudgePair(rounds, cut)

    def _rounds(self, texts: _Texts) -> tuple[Round, Round]:
        return self._round(texts, _ANSWERS[0]), self._round(texts, _ANSWERS[1])

    def _round(self, texts: _Texts, answers: Mapping[str, str]) -> Round:
        values = {"question": texts.question, answers["chosen"]: texts.chosen, answers["rejected"]: texts.rejected}
        filled = self._prompt.fill(values)
        encoded = self._chat.encode_user(filled.text)
        offsets = as_offsets(encoded.offsets)
        spans = {name: token_span(offsets, filled.spans[answers[name]]) for name in RESPONSES}
        inner = {name: response_offsets(offsets, spans[name], filled.spans[answers[name]]) for name in RESPONSES}
        return Round(encoded.ids, spans, inner)

    def _truncated(self, texts: _Texts) -> tuple[tuple[Round, Round], dict[str, int]]:
        """Answers to their first tokens, the question to its last; then the question further, until the prompt fits."""
        params = self._params
        chosen = first_tokens(*self._measured(texts.chosen), params.answer_tokens)
        rejected = first_tokens(*self._measured(texts.rejected), params.answer_tokens)
        short = replace(
            texts, chosen=texts.chosen[slice(*chosen.characters)], rejected=texts.rejected[slice(*rejected.characters)]
        )
        measured = self._measured(texts.question)
        room = params.max_tokens - params.reserve_tokens - chosen.tokens - rejected.tokens
        while True:
            kept = last_tokens(*measured, room)
            rounds = self._rounds(replace(short, question=texts.question[slice(*kept.characters)]))
            excess = _tokens(rounds) - params.max_tokens + 1
            if excess <= 0:
                return rounds, {"prompt": kept.cut, "chosen": chosen.cut, "rejected": rejected.cut}
            room = kept.tokens - excess
            if room < 1:
                raise PairRefused(
                    "judge_prompt_too_long",
                    f"{_tokens(rounds)} tokens with {chosen.tokens} of chosen, {rejected.tokens} of rejected and"
                    f" {kept.tokens} of the question; {params.max_tokens - 1} fit",
                )

    def _measured(self, text: str) -> tuple[Offsets, int]:
        return as_offsets(self._chat.text_ids(text).offsets), len(text)


def _tokens(rounds: tuple[Round, Round]) -> int:
    return max(len(of.input_ids) for of in rounds)


def _check_rounds(first: Round, second: Round) -> None:
    """Raises PairRefused: weights of the two rounds could not be averaged token by token."""
    for name in RESPONSES:
        ids, others = (of.input_ids[slice(*of.spans[name])] for of in (first, second))
        if len(ids) != len(others):
            raise PairRefused("round_mismatch", f"{name}: {len(ids)} tokens in round 1, {len(others)} in round 2")
        differing = sum(a != b for a, b in zip(ids[1:-1], others[1:-1], strict=True))
        if differing:
            raise PairRefused("round_mismatch", f"{name}: {differing} of {len(ids)} tokens differ between the rounds")


def _trimmed(of: Round, tokens: int) -> Round:
    """A round whose spans end `tokens` tokens earlier, a first token always left, as in the code (METHODS A6)."""
    lengths = {name: max(min(1, end - start), end - start - tokens) for name, (start, end) in of.spans.items()}
    return replace(
        of,
        spans={name: (of.spans[name][0], of.spans[name][0] + length) for name, length in lengths.items()},
        offsets={name: of.offsets[name][:length] for name, length in lengths.items()},
    )
