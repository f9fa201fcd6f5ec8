"""Online RL beside the pipeline: TRL's trainer with documented settings, run as `python -m recipes.NAME`."""

import os

# TRL reports every trainer that is made; it asks huggingface_hub, which reads this when it is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
