"""The contrast of two models, or of one under two system texts (TIS-DPO, SePO; METHODS 4.2, 4.3)."""

from collections.abc import Callable, Sequence

from pipeline.models.budget import TokenBudget
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import Floats, response_logps
from pipeline.weights.sources.base import NotScored, PairScores, Report, SourcePair
from pipeline.weights.sources.finite import pair_scores

PromptIds = Callable[[SourcePair], Sequence[int] | NotScored]
"""The prompt that a model reads before both responses of a pair, or why the pair cannot be scored."""


def trained_prompt(pair: SourcePair) -> Sequence[int]:
    """The prompt as it is trained on."""
    ids: list[int] = pair.prompt_ids.tolist()
    return ids


class ContrastSource:
    """s_t = log pi+(y_t | x+, y_<t) - log pi-(y_t | x-, y_<t) of every trained token, in float32.

    Args:
        positive: pi+.
        negative: pi-; may be the same object where the prompts differ.
        budget: of one packed row; a result does not depend on it.
        share: a prompt is computed once for both responses.
        positive_prompts: x+ of a pair; the trained prompt unless given.
        negative_prompts: x- of a pair.
    """

    def __init__(
        self,
        positive: LogProbModel,
        negative: LogProbModel,
        budget: TokenBudget,
        share: bool = True,
        positive_prompts: PromptIds | None = None,
        negative_prompts: PromptIds | None = None,
    ) -> None:
        self._models = (positive, negative)
        self._prompts = (positive_prompts or trained_prompt, negative_prompts or trained_prompt)
        self._budget = budget
        self._share = share

    def run(self, pairs: Sequence[SourcePair], on_progress: Report) -> list[PairScores | NotScored]:
        found: dict[int, PairScores | NotScored] = {}
        items: tuple[list[Prompted], list[Prompted]] = ([], [])
        for index, pair in enumerate(pairs):
            above, below = (prompt_of(pair) for prompt_of in self._prompts)
            if isinstance(above, NotScored):
                found[index] = above
            elif isinstance(below, NotScored):
                found[index] = below
            else:
                for side, prompt in zip(items, (above, below), strict=True):
                    side.append(Prompted(prompt, [response.ids for response in pair.responses]))
        if found:
            on_progress(len(found), 0)
        # A pair is done when the second model has read it too.
        positive = self._logps(0, items[0], lambda done, tokens: on_progress(0, tokens))
        negative = self._logps(1, items[1], on_progress)
        waiting = [index for index in range(len(pairs)) if index not in found]
        for index, *both in zip(waiting, positive, negative, strict=True):
            chosen, rejected = (plus - minus for plus, minus in zip(*both, strict=True))
            found[index] = pair_scores(pairs[index], (chosen, rejected))
        return [found[index] for index in range(len(pairs))]

    def _logps(self, side: int, items: Sequence[Prompted], on_progress: Report) -> list[list[Floats]]:
        return response_logps(self._models[side], items, self._budget, self._share, on_progress)
