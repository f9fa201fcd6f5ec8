"""TI-DPO's saliency: how much each token's embedding moves what the model predicts (Eq. 5, 6; METHODS 3.1 to 3.3)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.score import GradientScores
from pipeline.models.budget import TokenBudget
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import PackedRow, Prompted, Segment, pack, row_length
from pipeline.weights.sources.base import NotScored, PairScores, Report, SourcePair
from pipeline.weights.sources.embeddings import leaf_embeddings
from pipeline.weights.sources.finite import pair_scores

POSITIONS_AT_ONCE = 256
"""Positions whose logits over the vocabulary exist at one time."""


class GradientSource:
    """I_i = || d target / d e_i || for every token of prompt and response, in float32.

    The prompt's part is returned as its sum. One forward and one backward pass of a packed row; the targets of its
    sequences are summed, and as no sequence sees another, each gets the gradient of its own. Weights get no gradient.

    Args:
        model: set to its parameters frozen.
        budget: of one packed row; a result does not depend on it.
    """

    def __init__(self, model: LogProbModel, params: GradientScores, budget: TokenBudget) -> None:
        self._model = model.requires_grad_(False)
        self._params = params
        self._budget = budget

    def run(self, pairs: Sequence[SourcePair], on_progress: Report) -> list[PairScores | NotScored]:
        lengths = [
            # Not shared between the responses: the prompt's scores are those of one of them.
            row_length(len(pair.prompt_ids), [len(response.ids) for response in pair.responses], share=False)
            for pair in pairs
        ]
        found: list[PairScores | NotScored] = []
        found += self._budget.run_packed(
            lengths, lambda batch: self._score([pairs[index] for index in batch]), on_progress
        )
        return found

    def _score(self, pairs: Sequence[SourcePair]) -> list[PairScores]:
        items = [Prompted(pair.prompt_ids, [response.ids for response in pair.responses]) for pair in pairs]
        row = pack(items, share=False).to(self._model.model.device)
        saliency = self._saliency(row)
        segments = iter(row.segments)
        scored = []
        for pair in pairs:
            parts = [_split(saliency, next(segments), len(pair.prompt_ids)) for _ in pair.responses]
            (chosen_prompt, chosen), (rejected_prompt, rejected) = parts
            scored.append(pair_scores(pair, (chosen, rejected), (chosen_prompt, rejected_prompt)))
        return scored

    def _saliency(self, row: PackedRow) -> NDArray[np.float32]:
        """[N]: of every token of the row."""
        with torch.enable_grad(), leaf_embeddings(self._model.model) as leaves:
            target = self._target(row)
        (gradient,) = torch.autograd.grad(target, leaves)
        norms = torch.linalg.vector_norm(gradient[0].float(), ord=self._params.norm, dim=-1)
        found: NDArray[np.float32] = norms.cpu().numpy()
        return found

    def _target(self, row: PackedRow) -> Tensor:
        """The sum over the row's sequences of what their tokens are to explain."""
        if self._params.target == "sequence":
            log_probs: Tensor = self._model(row)
            return log_probs.sum()
        # Of the last two tokens of a sequence the first predicts the second, which predicts what would follow.
        back = 1 if self._params.target == "after_last" else 2
        places = torch.tensor([segment.stop - back for segment in row.segments], device=row.input_ids.device)
        return _highest_logits(self._model, self._model.hidden(replace(row, predictors=places))).sum()


def _split(saliency: NDArray[np.float32], segment: Segment, prompt: int) -> tuple[float, NDArray[np.float32]]:
    """The sum over the prompt's tokens, and the scores of the response's."""
    begin = segment.start + prompt
    return float(saliency[segment.start : begin].sum(dtype=np.float64)), saliency[begin : segment.stop]


def _highest_logits(model: LogProbModel, hidden: Tensor) -> Tensor:
    """max_v logits_v after each hidden state [S, H]: float32 [S]. Its gradient flows through that one word's logit."""
    head = model.head
    with torch.no_grad():
        words = torch.cat([model.log_probs(states).argmax(-1) for states in hidden.split(POSITIONS_AT_ONCE)])
    logits = (hidden.float() * head.weight[words].float()).sum(-1)
    if head.bias is not None:
        logits = logits + head.bias[words].float()
    softcap = getattr(model.model.config, "final_logit_softcapping", None)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
