"""From raw judge scores to token weights: rounds, normalization, attention sink, statistics."""
