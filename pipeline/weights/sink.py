"""The attention sink: models attend to the first tokens whatever these say (AttentionPO, Eq. 14)."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def fix_sink(weights: FloatArray, sink_tokens: int, min_tokens: int) -> FloatArray:
    """Give the first ``sink_tokens`` (K) weights [n] the mean weight and scale the others to the same total as before.

    Paper and released code: K = 1, ``min_tokens`` (K') = 5. Any K: each of the first K becomes total/n, the others
    share the remaining total * (1 - K/n) in the proportions they had. Unchanged are responses with n < K' or n <= K
    tokens (no others to scale), and all of them with K = 0.

    Where all others are 0 there are no proportions: they share the remainder evenly, so that all n weights become
    total/n (the released code divides by 0 there).
    """
    n = len(weights)
    if sink_tokens == 0 or n < min_tokens or n <= sink_tokens:
        return weights
    total = weights.sum()
    fixed = np.full(n, total / n)
    others = weights[sink_tokens:]
    others_total = others.sum()
    if others_total > 0:
        # Dividing first keeps the factor finite where the others are almost 0.
        fixed[sink_tokens:] = others / others_total * (total * (n - sink_tokens) / n)
    return fixed
