"""Model folders: where they come from, loading, chat templates to token ids, per-token log-probs, generation."""
