"""Sequences in one row without padding, and the attention that keeps them apart."""
