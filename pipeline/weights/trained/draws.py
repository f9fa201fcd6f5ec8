"""Random numbers of a response that depend on nothing but its name: not on its shard, nor on what was drawn before."""

import json
from hashlib import sha256

import numpy as np

from pipeline.weights.trained.tokens import FloatArray, ScoredTokens


def uniform_draws(scored: ScoredTokens, seed: int, count: int) -> FloatArray:
    """[count] independent U[0, 1), the same for the same seed, pair and response on every machine."""
    name = json.dumps([seed, scored.pair_id, scored.response])
    # The raw stream of a bit generator is fixed for all versions of numpy; what Generator makes of it is not.
    stream = np.random.PCG64(int.from_bytes(sha256(name.encode()).digest(), "big"))
    return (stream.random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
