"""params.yaml as frozen models: one module per stage, unknown keys refused, every error named by its path."""
