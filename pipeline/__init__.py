"""AttentionPO as a staged, cached pipeline. The order of the folders is the order of the data's way."""
