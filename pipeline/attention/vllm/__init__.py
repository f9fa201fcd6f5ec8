"""vLLM as extraction backend: its engine, the capture inside its workers, and what is checked before it is believed."""
