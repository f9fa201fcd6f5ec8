"""Several training processes on this machine, by torchrun."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.io.atomic import write_text
from pipeline.io.lock import locked
from pipeline.io.processes import die_with_parent, fair_threads
from pipeline.train.finish import Finished, read_finished
from pipeline.train.run import Job, run_training

WORK_VARIABLE = "ATTENTIONPO_TRAIN_WORK"
"""Environment variable by which a worker learns the run's work folder."""
_FAILURE = "failure-{rank}.txt"
"""What a worker has to say at its end: each in its own file, or the last of several would hide the others' words."""


def launch(module: str, processes: int, threads: int | None, work: Path, root: Path) -> Finished:
    """Run `python -m module` in so many processes on the run whose work folder is given, until it is finished.

    Raises PipelineError with the workers' messages, each once, when one fails.
    """
    failures = [work / _FAILURE.format(rank=rank) for rank in range(processes)]
    for failure in failures:
        failure.unlink(missing_ok=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {
        **os.environ,
        WORK_VARIABLE: str(work),
        "OMP_NUM_THREADS": str(threads or fair_threads(processes)),
    }
    status = subprocess.Popen([*torchrun, "-m", module], cwd=root, env=environment, preexec_fn=die_with_parent).wait()
    finished = read_finished(work)
    if status or finished is None:
        said = [failure.read_text(encoding="utf-8") for failure in failures if failure.is_file()]
        raise PipelineError(
            "\n".join(dict.fromkeys(said))
            or f"a training process ended with status {status}; its own message is above. Run again to go on from the"
            " last checkpoint"
        )
    return finished


def is_worker() -> bool:
    """Whether `launch` started this process."""
    return WORK_VARIABLE in os.environ


def worker_folder() -> Path:
    """The work folder of the run that this worker belongs to."""
    return Path(os.environ[WORK_VARIABLE])


def run_worker(job: Job) -> None:
    """One worker's part of a run."""
    die_with_parent()
    try:
        if os.environ["RANK"] == "0":
            # Workers outlive a killed launcher for a moment; its lock is gone by then.
            with locked(job.work / "worker.json"):
                run_training(job)
        else:
            run_training(job)
    except PipelineError as error:
        write_text(job.work / _FAILURE.format(rank=os.environ["RANK"]), str(error))
        raise
