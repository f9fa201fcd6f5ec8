"""TensorBoard and W&B beside the curves of DVC, where `runtime.trackers` asks for them: the same figures, step by step.

Both write below `reports/`, one folder per run, and get numbers only: figures, and the params as the run's config. A
resumed run makes its folder anew from the checkpoint's history, as the curves do, so no point is there twice and none
is lost. W&B looks at no code, git, console or machine, and is offline unless the user's own WANDB_MODE says otherwise.
A tracker that fails is left out with one warning: it never costs the run.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import ConfigError
from pipeline.train.curves import Line

_log = logging.getLogger(__name__)
_FLUSH_SECONDS = 10
_UPLOAD_SECONDS = 60.0
"""How long the end of a run waits for an upload, where the user has asked for one."""


class Tracker(Protocol):
    """One library's writer for one run."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """One step's figures by name."""

    def close(self) -> None:
        """Everything is written."""


class TensorBoard:
    """Event files in `folder`."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A TensorBoard that watched the run before it was resumed drops what it holds from step 0 on.
        self._writer = SummaryWriter(str(folder), purge_step=0, flush_secs=_FLUSH_SECONDS)
        self._writer.add_text("params", f"```json\n{json.dumps(config, indent=2)}\n```")

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B in `folder`, named as it; `wandb sync` can upload it later."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True)
        # Read at the import. W&B would report its own crashes, and keep its logs in the home folder.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            save_code=False,
            silent=True,
            finish_timeout=_UPLOAD_SECONDS,
            host="",
            use_dot_wandb=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "attentionpo"),
            name=folder.name,
            dir=str(folder),
            mode=mode,
            config=dict(config),
            reinit="create_new",
            settings=settings,
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step, commit=True)

    def close(self) -> None:
        self._run.finish()


_KINDS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def check_installed(names: Sequence[str]) -> None:
    """Raises ConfigError when a tracker's package is not there."""
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a mere folder of that name, such as W&B's own, has no origin
            raise ConfigError(
                f"runtime.trackers: the package {name} is not installed; install it with"
                " `pip install 'attentionpo[watch]'`, or take it out of the list"
            )


class Trackers:
    """The trackers of one run.

    Args:
        names: `tensorboard`, `wandb`.
        reports: folder in which each tracker has its own, and there one for the run.
        run: the run's name, the same when it is resumed.
        config: params; no text of pairs.
        history: the lines of a resumed run so far.
    """

    def __init__(
        self, names: Sequence[str], reports: Path, run: str, config: Mapping[str, Any], history: Sequence[Line]
    ) -> None:
        self._open: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            folder = reports / name / run
            try:
                if folder.exists():
                    shutil.rmtree(folder)
                self._open[name] = _KINDS[name](folder, config)
            except Exception as error:
                self._leave_out(name, error)
        for line in history:
            self.add(line)

    def add(self, line: Line) -> None:
        """One step in every tracker."""
        figures = {name: value for name, value in line.items() if name != "step"}
        for name, tracker in list(self._open.items()):
            try:
                tracker.write(int(line["step"]), figures)
            except Exception as error:
                self._leave_out(name, error)

    def close(self) -> None:
        """The run is at its end. Not for a run that failed: the libraries then end, and mark it, by themselves."""
        for name, tracker in list(self._open.items()):
            try:
                tracker.close()
            except Exception as error:
                self._leave_out(name, error)
        self._open.clear()

    def _leave_out(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        _log.warning(
            "runtime.trackers: %s failed and gets nothing more of this run (%s: %s); the training goes on",
            name,
            type(error).__name__,
            error,
        )
