"""TI-DPO's triplet loss: the policy's own answer should be nearer to the chosen response than to the rejected one."""

from torch import Tensor
from torch.nn.functional import relu

from pipeline.objectives.positions import by_position
from pipeline.objectives.response import Pairs, Response, log_ratios


def triplet(pairs: Pairs, margin: float) -> Tensor:
    """[B] max(0, sum_t (d_t - b_t)^2 - sum_t (d_t - c_t)^2 + margin), TI-DPO's Eq. 12.

    d, b and c are the log-ratios of anchor (`pairs.third`), chosen and rejected, token by token; each sum runs over the
    positions where both of its responses have a token (official code; the paper leaves it open). No weights, no beta,
    not divided by length; gradient flows through all three. Raises ValueError without an anchor.
    """
    if pairs.third is None:
        raise ValueError("the triplet loss needs an anchor for each pair")
    anchor = pairs.third
    return relu(_distance(anchor, pairs.chosen) - _distance(anchor, pairs.rejected) + margin)


def _distance(anchor: Response, other: Response) -> Tensor:
    width = max(anchor.mask.shape[-1], other.mask.shape[-1])
    ours, of_anchor = by_position(anchor, log_ratios(anchor), width)
    theirs, of_other = by_position(other, log_ratios(other), width)
    return ((ours - theirs) ** 2 * (of_anchor & of_other)).sum(dim=-1)
