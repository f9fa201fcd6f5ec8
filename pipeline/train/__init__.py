"""Batches, FSDP2, checkpoints and the training loop."""
