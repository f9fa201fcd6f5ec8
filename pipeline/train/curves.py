"""Curves for `dvc plots`, written by dvclive. The checkpoint holds every line, so a resumed run writes all anew."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dvclive import Live
from scmrepo.exceptions import SCMError

from pipeline.errors import PipelineError

Line = Mapping[str, float]
"""One step: `step`, and a value for each curve by name, such as `train/loss`."""


class Curves:
    """`folder/plots/metrics/**.tsv`, one file per curve, and `folder/metrics.json` with the newest values."""

    def __init__(self, folder: Path, history: Sequence[Line]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os.environ["DVC_STUDIO_OFFLINE"] = "true"  # dvclive uploads metrics wherever it finds a token
        # `end()` and `next_step()` are never called: they run git, and re-read every curve at every step.
        try:
            self._live = Live(dir=str(folder), save_dvc_exp=False, dvcyaml=None)
        except SCMError as error:
            raise PipelineError(
                f"dvclive cannot write curves here: the git repository has no commit yet ({error}); make one with"
                " `git commit` and run again"
            ) from error
        for line in history:
            self._write(line)
        self._live.make_summary()

    def add(self, line: Line) -> None:
        """Append one step to every curve that the line names."""
        self._write(line)
        self._live.make_summary()

    def _write(self, line: Line) -> None:
        self._live.step = int(line["step"])
        for name, value in line.items():
            if name != "step":
                self._live.log_metric(name, value)
