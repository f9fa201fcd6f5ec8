"""The loss that the official code of cDPO computes (METHODS 4.4). The paper's, on sums, is `twdpo` with its weights."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from pipeline.config.objective import NoSettings
from pipeline.objectives.positions import by_position
from pipeline.objectives.response import PairLosses, Pairs, Response, log_ratios, masked, weighted_sum


def cdpo_positionwise(pairs: Pairs, beta: float, settings: NoSettings) -> PairLosses:
    """L = mean_t -log sigma(beta (w^w_t r^w_t - w^l_t r^l_t)), per pair: chosen and rejected paired index by index.

    t runs over the positions of the pair's own longer response; where the shorter one has ended its term is 0. The
    official code's mean runs over all positions of the padded batch: prompt and padding positions, left out here, add
    log 2 each and no gradient, so they only scale a pair's gradient down by a factor that depends on its neighbours.
    Rewards are beta times the weighted sums of log-ratios.
    """
    width = max(pairs.chosen.mask.shape[-1], pairs.rejected.mask.shape[-1])
    chosen, of_chosen = by_position(pairs.chosen, _weighted_ratios(pairs.chosen), width)
    rejected, of_rejected = by_position(pairs.rejected, _weighted_ratios(pairs.rejected), width)
    either = of_chosen | of_rejected
    losses = (-logsigmoid(beta * (chosen - rejected)) * either).sum(dim=-1) / either.sum(dim=-1).clamp(min=1)
    return PairLosses(
        losses,
        *(beta * weighted_sum(side, log_ratios(side)) for side in (pairs.chosen, pairs.rejected)),
    )


def _weighted_ratios(response: Response) -> Tensor:
    """[B, T] terms whose sum is `weighted_sum` of the log-ratios."""
    weights = masked(response, response.weights.detach())
    return response.lengths.detach().unsqueeze(-1) * weights * log_ratios(response)
