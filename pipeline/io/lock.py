"""One writer per work folder: a lock file with host, process id and start time."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pipeline.errors import LockError
from pipeline.io.atomic import write_json


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    The lock of a process that no longer runs on this host is taken over; so is one whose process id now belongs to a
    process with another start time. Raises LockError, naming the holder, otherwise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    whole = path.parent / f".{path.name}.{os.getpid()}"
    write_json(whole, mine)
    try:
        _take(whole, path)
        yield
    finally:
        whole.unlink(missing_ok=True)
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _take(whole: Path, path: Path) -> None:
    # A hard link appears with its content or not at all, so no reader ever sees an empty lock.
    for _ in range(2):
        try:
            os.link(whole, path)
            return
        except FileExistsError:
            holder = _read(path)
            if holder is not None and not _is_gone(holder):
                raise LockError(_message(path, holder)) from None
            path.unlink(missing_ok=True)
    raise LockError(_message(path, _read(path) or {}))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return content


def _is_gone(holder: dict[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) > 1.0
    except psutil.NoSuchProcess:
        return True


def _message(path: Path, holder: dict[str, Any]) -> str:
    return (
        f"{path}: process {holder.get('pid')} on {holder.get('host')} is writing here; wait for it or stop it. If that"
        f" process no longer exists, remove {path} and run again"
    )
