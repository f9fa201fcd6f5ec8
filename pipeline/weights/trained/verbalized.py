"""Scores that a model wrote for the parts of a response, as weights (AttentionPO paper 4.2; METHODS 2.3)."""

from pipeline.weights.trained.tokens import ScoredTokens, TrainedWeights


def weights_of(scored: ScoredTokens) -> TrainedWeights:
    """The scores over their sum; |y| = T. Tokens that no part covers have score 0, the end of turn among them.

    The paper does not say how it scales the scores: a sum of 1 is what its objective (Eq. 5) wants of every source.
    All 0 where no token has a score.
    """
    total = scored.scores.sum()
    return TrainedWeights(scored.scores / total if total > 0 else scored.scores, float(scored.tokens))
