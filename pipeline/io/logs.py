"""Logs of a stage: lines for people on stderr, and one JSON object a line in `logs/`.

A worker writes neither: it hands its records to its launcher, who has the one terminal and the one file.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_RESERVED = frozenset(logging.makeLogRecord({}).__dict__)
_LOGGERS = ("pipeline", "stages")


def start_logging(stage: str, root: Path, level: str = "INFO") -> None:
    """Send records of `pipeline` and `stages` to stderr and to a fresh file `logs/<stage>-<time>.jsonl`."""
    folder = root / "logs"
    folder.mkdir(exist_ok=True)
    people = logging.StreamHandler(sys.stderr)
    # On a terminal a record takes the place of the unfinished line of the progress.
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    people.setFormatter(logging.Formatter(f"{clear}%(asctime)s {stage}: %(message)s", "%H:%M:%S"))
    machine = logging.FileHandler(folder / f"{stage}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl", encoding="utf-8")
    machine.setFormatter(_JsonLines())
    _handle([people, machine], level)


def start_worker_logging(send: Callable[[dict[str, Any]], None], level: str = "INFO") -> None:
    """Hand records of `pipeline` and `stages` to the launcher, who calls `relay` with each."""
    _handle([_Sender(send)], level)


def relay(line: Mapping[str, Any], worker: int) -> None:
    """Write a worker's record, as its `start_worker_logging` sent it, to the logs of this process."""
    fields = dict(line)
    logger, level = logging.getLogger(fields.pop("logger")), logging.getLevelName(fields.pop("level"))
    message = f"worker {worker}: {fields.pop('message')}"
    if exception := fields.pop("exception", None):
        message = f"{message}\n{exception}"
    fields.pop("time")
    logger.log(level, "%s", message, extra={**fields, "worker": worker})


def _handle(handlers: list[logging.Handler], level: str) -> None:
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = handlers
        logger.setLevel(level)
        logger.propagate = False


class _Sender(logging.Handler):
    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(_line(record))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_line(record), ensure_ascii=False, default=str)


def _line(record: logging.LogRecord) -> dict[str, Any]:
    line = {
        "time": round(record.created, 3),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
        **{key: value for key, value in record.__dict__.items() if key not in _RESERVED and key != "message"},
    }
    if record.exc_info:
        line["exception"] = logging.Formatter().formatException(record.exc_info)
    return line
