"""Several processes of one stage on this machine. Their launcher holds the lock, shows one progress and publishes."""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.errors import PipelineError
from pipeline.io.atomic import write_json
from pipeline.io.logs import relay
from pipeline.io.seat import DEALT, VARIABLE
from pipeline.io.tally import Item, Tally

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 10.0
"""For an interrupted worker to end by itself; and for the last lines of one that has ended."""

Inbox = queue.SimpleQueue[tuple[int, str, Any]]


@dataclass
class _Worker:
    name: str
    process: subprocess.Popen[str]
    reports: IO[str]
    item: Item | None = None
    """The shard that it is working on."""
    begun: bool = False
    message: str | None = None
    """The error that the worker itself has told."""
    last_line: str = ""
    readers: list[threading.Thread] = field(default_factory=list)


def run_workers(
    module: str,
    root: Path,
    folder: Path,
    key: str,
    missing: Sequence[Item],
    devices: Sequence[Sequence[str]],
    environment: Mapping[str, str],
    tally: Tally,
) -> None:
    """Run `python -m module` once for each entry of `devices` until all of `missing` is made.

    Args:
        root: where they run.
        folder: the run's work folder, whose lock this process holds.
        key: of the run; a worker that sees another one refuses to work.
        missing: the shards to make, dealt by rank: worker r of n makes `missing[r::n]`.
        devices: for each worker, what its CUDA_VISIBLE_DEVICES names; empty: as this process has it.
        environment: more variables of all workers.
        tally: told what the workers report.

    A worker that fails does not stop the others. Raises PipelineError, after the last has ended, that names each failed
    worker, its shard and its message. Whatever ends this function, no worker outlives it; whatever ends this process,
    they die with it.
    """
    write_json(folder / DEALT, [list(item) for item in missing])
    inbox: Inbox = queue.SimpleQueue()
    workers: list[_Worker] = []
    try:
        for rank, own in enumerate(devices):
            place = {"rank": rank, "world": len(devices), "key": key, "launcher": os.getpid()}
            visible = {"CUDA_VISIBLE_DEVICES": ",".join(own)} if own else {}
            name = f"worker {rank} of {len(devices)}" + (f" (CUDA device {','.join(own)})" if own else "")
            workers.append(_start(name, module, root, place, {**os.environ, **environment, **visible}))
        # Threads only after the last fork.
        for rank, worker in enumerate(workers):
            _listen(rank, worker, inbox)
        failures = _follow(workers, inbox, tally)
    finally:
        _stop(workers)
    if failures:
        raise PipelineError(_failed(failures))


def _start(name: str, module: str, root: Path, place: Mapping[str, Any], environment: Mapping[str, str]) -> _Worker:
    read, write = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=root,
            env={**environment, "PYTHONUNBUFFERED": "1", VARIABLE: json.dumps({**place, "pipe": write})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(write,),
            process_group=0,  # Ctrl-C reaches this process alone, which then stops its workers
        )
    finally:
        os.close(write)
    return _Worker(name, process, os.fdopen(read, encoding="utf-8", errors="replace"))


def _listen(rank: int, worker: _Worker, inbox: Inbox) -> None:
    """Put reports, lines of output and at last the exit status of a worker into the inbox."""

    def reports() -> None:
        for line in worker.reports:
            if line.endswith("\n"):  # the last one of a killed worker may be torn
                kind, value = json.loads(line)
                inbox.put((rank, kind, value))

    def output() -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            if line.strip():
                inbox.put((rank, "line", line.rstrip()))

    def end() -> None:
        status = worker.process.wait()
        # With a limit: processes that the worker leaves behind may hold its pipes open.
        for reader in worker.readers:
            reader.join(_GRACE_SECONDS)
        inbox.put((rank, "ended", status))

    worker.readers = [threading.Thread(target=target, daemon=True) for target in (reports, output)]
    for thread in (*worker.readers, threading.Thread(target=end, daemon=True)):
        thread.start()


def _follow(workers: Sequence[_Worker], inbox: Inbox, tally: Tally) -> dict[str, list[str]]:
    """Hear all workers until the last has ended. Returns the messages of those that failed, and who said each."""
    failures: dict[str, list[str]] = {}
    running = len(workers)
    while running:
        rank, kind, value = inbox.get()
        worker = workers[rank]
        if kind == "ended":
            running -= 1
            if value:
                where = _where(worker)
                message = worker.message or _last_words(value, worker.last_line)
                failures.setdefault(message, []).append(f"{worker.name} failed {where}")
                _log.error("%s failed %s%s", worker.name, where, "; the others go on" if running else "")
            if worker.item:
                tally.drop(worker.item)
        else:
            _hear(rank, worker, kind, value, tally)
    return failures


def _hear(rank: int, worker: _Worker, kind: str, value: Any, tally: Tally) -> None:
    if kind == "line":
        worker.last_line = value
        _log.info("worker %d: %s", rank, value, extra={"worker": rank})
    elif kind == "log":
        relay(value, rank)
    elif kind == "failed":
        worker.message = value
    elif kind == "begin":
        split, shard = value
        worker.item, worker.begun = (split, shard), True
        tally.begin(worker.item)
    elif kind == "part":
        (split, shard), pairs, tokens = value
        tally.part((split, shard), pairs, tokens)
    elif kind == "made":
        (split, shard), tokens, counts = value
        worker.item = None
        tally.made((split, shard), tokens, counts)


def _stop(workers: Sequence[_Worker]) -> None:
    """Interrupt what still runs, and kill what does not end, with the processes that it started."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()


def _where(worker: _Worker) -> str:
    if worker.item:
        return f"at {worker.item[0]} shard {worker.item[1]}"
    return "between two shards" if worker.begun else "before its first shard"


def _last_words(status: int, last_line: str) -> str:
    if status == -signal.SIGKILL:
        return (
            "killed by SIGKILL; where memory ran out, choose fewer processes (runtime.workers) or a smaller"
            " runtime.token_budget"
        )
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return f"{how}; all it said is in the log above" + (f", its last line: {last_line}" if last_line else "")


def _failed(failures: Mapping[str, Sequence[str]]) -> str:
    return "\n".join(
        [
            *(f"{', '.join(who)}: {message}" for message, who in failures.items()),
            "Every finished shard is kept: run the stage again to make the rest",
        ]
    )
