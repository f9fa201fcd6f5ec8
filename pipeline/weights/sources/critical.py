"""cDPO's contrastive estimation: how likely a token is under the good model against the bad one (METHODS 4.4)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.config.score import CriticalScores
from pipeline.errors import ModelError
from pipeline.models.budget import TokenBudget
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted, pack
from pipeline.models.response_logps import item_lengths, split_responses
from pipeline.weights.sources.base import NotScored, PairScores, Report, SourcePair
from pipeline.weights.sources.finite import pair_scores

POSITIONS_AT_ONCE = 256
"""Positions whose distributions over the vocabulary exist at one time."""


class CriticalSource:
    """s_t = softmax_v((1 + c) logits_p - c logits_q)[y_t] of every trained token, float32 in [0, 1]; small is critical.

    Args:
        positive: p, trained on correct answers.
        negative: q, trained on incorrect ones; on the same device.
        budget: of one packed row; a result does not depend on it.
        share: a prompt is computed once for both responses.

    Raises ModelError when the two have different vocabularies: their logits have no difference.
    """

    def __init__(
        self,
        positive: LogProbModel,
        negative: LogProbModel,
        params: CriticalScores,
        budget: TokenBudget,
        share: bool = True,
    ) -> None:
        words = [model.head.weight.shape[0] for model in (positive, negative)]
        if words[0] != words[1]:
            raise ModelError(
                f"The positive model knows {words[0]} words and the negative one {words[1]}: the source `critical` "
                "needs two models of one vocabulary; choose both from the same family."
            )
        self._models = (positive, negative)
        self._strength = params.strength
        self._budget = budget
        self._share = share

    def run(self, pairs: Sequence[SourcePair], on_progress: Report) -> list[PairScores | NotScored]:
        items = [Prompted(pair.prompt_ids, [response.ids for response in pair.responses]) for pair in pairs]

        def row(batch: Sequence[int]) -> list[PairScores]:
            chosen = [items[index] for index in batch]
            scores = split_responses(self._score(chosen).cpu().numpy(), chosen)
            return [pair_scores(pairs[index], (of[0], of[1])) for index, of in zip(batch, scores, strict=True)]

        found: list[PairScores | NotScored] = []
        found += self._budget.run_packed(item_lengths(items, self._share), row, on_progress)
        return found

    @torch.inference_mode()
    def _score(self, items: Sequence[Prompted]) -> Tensor:
        """[M]: of the response tokens of one packed row."""
        positive, negative = self._models
        row = pack(items, self._share).to(positive.model.device)
        hidden = [model.hidden(row) for model in self._models]
        scores = []
        for first in range(0, len(row.targets), POSITIONS_AT_ONCE):
            places = slice(first, first + POSITIONS_AT_ONCE)
            # Log-probs are logits less one number per position, which the softmax takes off again.
            good, bad = positive.log_probs(hidden[0][places]), negative.log_probs(hidden[1][places])
            contrast = (1 + self._strength) * good - self._strength * bad
            probs = contrast.softmax(-1).gather(-1, row.targets[places, None]).squeeze(-1)
            scores.append(probs.clamp(0, 1))
        return torch.cat(scores)
