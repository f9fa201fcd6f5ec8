"""Ways to run a transformers judge over many prompts and take its query rows: prefixes shared, or plain."""
