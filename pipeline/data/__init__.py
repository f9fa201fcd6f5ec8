"""Sources of preference pairs, checks and splits."""
