"""One thin file per DVC stage, run as `python -m stages.NAME`."""

import os

# Before torch loads its OpenMP: on a machine that others use too, threads that spin at every barrier cost ten times the
# time of threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
