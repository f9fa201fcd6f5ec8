"""Verbalized self-judged weights: the judge splits each response into parts and scores them, 1 to 5 (paper 4.2)."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from pipeline.config.verbalized import VerbalizedParams
from pipeline.models.chat import Chat
from pipeline.models.generation.base import Answer, Generator
from pipeline.weights.sources.base import NotScored, PairScores, Report, ResponseScores, SourcePair, SourceResponse
from pipeline.weights.sources.verbalized import parse
from pipeline.weights.sources.verbalized.generators import GeneratorAbout
from pipeline.weights.sources.verbalized.match import Matched, match_parts
from pipeline.weights.sources.verbalized.parse import AnswerRefused, parse_parts
from pipeline.weights.sources.verbalized.prompt import VerbalChat, VerbalPrompt, load_verbal_prompt

REASONS = parse.REASONS | {
    "unmatched": "fewer than `min_matched` of the tokens of a response were found in the judge's parts",
    "verbal_prompt_too_long": "the prompt about a response leaves no room for an answer in the judge's context",
}
"""Reason -> what it means, of pairs that this source refuses."""
_SIDES = ("chosen", "rejected")


class VerbalizedSource:
    """A Source (see `pipeline.weights.sources.base`): scores 1 to 5, and 0 for tokens that the judge left out.

    The judge is shown the characters that are trained on: of a response that was cut, no more than what is left. A pair
    is refused when either answer cannot be read, was cut, or misses too many tokens.

    Args:
        generator: the judge. Its answers end at the stops of `chat`.
        tokenizer: the judge's.
        partitions: makes of the responses' texts a generator that answers each prompt with a partition of its text;
            `generator` then only says how much the judge reads.
    """

    def __init__(
        self,
        generator: Generator,
        tokenizer: PreTrainedTokenizerFast,
        chat: Chat,
        params: VerbalizedParams,
        prompt: VerbalPrompt | None = None,
        partitions: GeneratorAbout | None = None,
    ) -> None:
        self._generator = generator
        self._partitions = partitions
        self._tokenizer = tokenizer
        self._chat = VerbalChat(chat, prompt or load_verbal_prompt())
        self._params = params

    def run(self, pairs: Sequence[SourcePair], on_progress: Report) -> list[PairScores | NotScored]:
        """In the order of pairs. Raises NonFiniteError, naming the pair, where the judge computes no numbers."""
        prompts = [[self._prompt(pair, response) for response in pair.responses] for pair in pairs]
        asked = [place for place, both in enumerate(prompts) if all(self._fits(ids) for ids in both)]
        progress = _Progress(on_progress)
        given = [ids for place in asked for ids in prompts[place]]
        answers = self._answering([pairs[place] for place in asked], given).answers(
            given,
            [f"pair {pairs[place].pair_id}, {side} response" for place in asked for side in _SIDES],
            progress.advance,
        )
        progress.finish(len(pairs))
        found = {place: answers[2 * index : 2 * index + 2] for index, place in enumerate(asked)}
        return [
            self._score(pair, found[place]) if place in found else self._too_long(prompts[place])
            for place, pair in enumerate(pairs)
        ]

    def _answering(self, pairs: Sequence[SourcePair], prompts: Sequence[Sequence[int]]) -> Generator:
        if self._partitions is None:
            return self._generator
        return self._partitions([_text(response) for pair in pairs for response in pair.responses], prompts)

    def _prompt(self, pair: SourcePair, response: SourceResponse) -> list[int]:
        return self._chat.encode(pair.messages, _text(response))

    def _fits(self, prompt: Sequence[int]) -> bool:
        return len(prompt) < self._generator.context

    def _too_long(self, prompts: Sequence[Sequence[int]]) -> NotScored:
        side, longest = max(zip(_SIDES, map(len, prompts), strict=True), key=lambda named: named[1])
        return NotScored("verbal_prompt_too_long", f"{side}: {longest} tokens, {self._generator.context} fit")

    def _score(self, pair: SourcePair, answers: Sequence[Answer]) -> PairScores | NotScored:
        matched = []
        for side, response, answer in zip(_SIDES, pair.responses, answers, strict=True):
            try:
                matched.append(self._match(response, answer))
            except AnswerRefused as refusal:
                return NotScored(refusal.reason, f"{side}: {refusal.detail}")
        if not all(one.reaches(self._params.min_matched) for one in matched):
            return NotScored(
                "unmatched", "; ".join(f"{side}: {one}" for side, one in zip(_SIDES, matched, strict=True))
            )
        chosen, rejected = (ResponseScores(one.scores) for one in matched)
        return PairScores(chosen, rejected)

    def _match(self, response: SourceResponse, answer: Answer) -> Matched:
        if answer.stop is None:
            raise AnswerRefused("unfinished_list", f"cut after {len(answer.ids)} tokens")
        # Special tokens in the midst of an answer stay: they are no text of the response, and must not read as nothing.
        said = self._tokenizer.decode(answer.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        parts = parse_parts(said)
        start, end = _trained(response)
        offsets = np.clip(response.offsets, start, end) - start
        return match_parts(_text(response), offsets, parts, self._params.min_matched)


def _text(response: SourceResponse) -> str:
    """What the judge is shown of a response."""
    return response.text[slice(*_trained(response))]


def _trained(response: SourceResponse) -> tuple[int, int]:
    """The half-open range of characters that the trained tokens cover."""
    covering = response.offsets[response.offsets[:, 0] < response.offsets[:, 1]]
    return (int(covering[:, 0].min()), int(covering[:, 1].max())) if len(covering) else (0, 0)


class _Progress:
    """Answers as pairs: one for every two."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._answers = 0
        self._pairs = 0

    def advance(self, answers: int, tokens: int) -> None:
        self._answers += answers
        pairs = self._answers // 2
        self._report(pairs - self._pairs, tokens)
        self._pairs = pairs

    def finish(self, pairs: int) -> None:
        """Those that were never asked about are done too."""
        if pairs > self._pairs:
            self._report(pairs - self._pairs, 0)
            self._pairs = pairs
