"""From raw scores of trained tokens to their weights: one module per source."""
