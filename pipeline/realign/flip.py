"""Wrong labels on purpose: the robustness test of TI-DPO, which trains with 0 to 40% of the preferences flipped."""

import hashlib

_RANGE = 2**64


def is_flipped(pair_id: str, share: float, seed: int) -> bool:
    """Whether a pair is among the `share` of all pairs whose label is flipped.

    By a hash of the pair: it depends on no other pair, and a larger share flips all that a smaller one does.
    """
    digest = hashlib.sha256(f"{seed}:{pair_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * _RANGE
