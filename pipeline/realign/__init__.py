"""From judge-context tokens to training-context tokens."""
