"""Sharded Parquet, resumable work folders, locks, code digests, logs and progress."""
