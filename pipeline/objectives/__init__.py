"""The losses, as pure functions of per-token log-probs and weights."""
