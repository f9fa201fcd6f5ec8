"""One thin file per DVC stage, run as `python -m stages.NAME`."""
