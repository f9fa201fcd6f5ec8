"""Logs of a stage: lines for people on stderr, and one JSON object a line in `logs/`."""

import json
import logging
import sys
import time
from pathlib import Path

_RESERVED = frozenset(logging.makeLogRecord({}).__dict__)


def start_logging(stage: str, root: Path, level: str = "INFO") -> None:
    """Send records of `pipeline` and `stages` to stderr and to a fresh file `logs/<stage>-<time>.jsonl`."""
    folder = root / "logs"
    folder.mkdir(exist_ok=True)
    people = logging.StreamHandler(sys.stderr)
    people.setFormatter(logging.Formatter(f"%(asctime)s {stage}: %(message)s", "%H:%M:%S"))
    machine = logging.FileHandler(folder / f"{stage}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl", encoding="utf-8")
    machine.setFormatter(_JsonLines())
    for name in ("pipeline", "stages"):
        logger = logging.getLogger(name)
        logger.handlers = [people, machine]
        logger.setLevel(level)
        logger.propagate = False


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        extra = {key: value for key, value in record.__dict__.items() if key not in _RESERVED and key != "message"}
        line = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **extra,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
