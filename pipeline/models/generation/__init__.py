"""Token ids that follow prompts: greedy or sampled, many prompts at once."""
