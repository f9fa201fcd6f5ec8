"""Reward functions with TRL's signature, `(prompts, completions, **columns) -> list[float]`. They need no TRL."""
