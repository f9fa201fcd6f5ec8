"""What a config says of rotary embeddings that depends on a sequence's length."""

from typing import Any


def longrope_boundaries(config: Any) -> frozenset[int]:
    """Lengths beyond which transformers rotates a whole batch by other frequencies (longrope, Phi-3 128k).

    The choice falls by the longest sequence of a batch, so prompts on both sides of a boundary must not share one.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [entry for entry in parameters.values() if isinstance(entry, dict)]
    ropes = nested or [parameters]
    return frozenset(
        int(rope["original_max_position_embeddings"]) for rope in ropes if rope.get("rope_type") == "longrope"
    )
