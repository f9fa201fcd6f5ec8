"""A worker's place beside others that share a stage's shards, and what it tells the launcher.

The launcher (`pipeline.io.workers`) names the place in one environment variable. A worker reports by JSON lines on a
pipe of its own, so that nothing that a library prints is taken for a report.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.io.processes import die_with_parent
from pipeline.io.tally import Item

VARIABLE = "ATTENTIONPO_WORKER"
"""Environment variable by which a worker learns its place."""
DEALT = "dealt.json"
"""File of the work folder with the shards that are missing, the same for all workers."""
_PART_SECONDS = 0.2


class Seat:
    """One of `world` workers on the run `key`; `pipe`: the file descriptor of its reports.

    Takes the reports of `pipeline.io.tally.Tally` and sends them to the launcher's.
    """

    def __init__(self, rank: int, world: int, key: str, launcher: int, pipe: int) -> None:
        self.rank, self.world, self.key, self.launcher = rank, world, key, launcher
        os.set_inheritable(pipe, False)
        self._pipe = os.fdopen(pipe, "w", buffering=1, encoding="utf-8")
        self._writing = threading.Lock()
        self._pairs, self._tokens, self._sent = 0.0, 0, 0.0

    def shards(self, folder: Path, key: str) -> list[Item]:
        """This worker's share of the missing shards: every `world`-th of them.

        `key`: of the run as this worker sees it. Raises PipelineError when the launcher sees another run.
        """
        if key != self.key:
            raise PipelineError(
                "params.yaml, the code or an input changed while the workers were starting; run the stage again"
            )
        dealt = json.loads((folder / DEALT).read_text(encoding="utf-8"))
        return [(split, shard) for split, shard in dealt[self.rank :: self.world]]

    def begin(self, item: Item) -> None:
        self._pairs, self._tokens = 0.0, 0
        self.send("begin", item)

    def part(self, item: Item, pairs: float, tokens: int) -> None:
        """So many more of the shard's pairs; sent a few times a second at most, because batches may be tiny."""
        self._pairs += pairs
        self._tokens += tokens
        if time.monotonic() - self._sent >= _PART_SECONDS:
            self._sent = time.monotonic()
            self.send("part", [item, self._pairs, self._tokens])
            self._pairs, self._tokens = 0.0, 0

    def made(self, item: Item, tokens: int, counts: Mapping[str, float]) -> None:
        self.send("made", [item, tokens, dict(counts)])

    def failed(self, message: str) -> None:
        """The error that ends this worker, in words for people."""
        self.send("failed", message)

    def log(self, line: Mapping[str, Any]) -> None:
        """A log record, as `pipeline.io.logs` makes it."""
        self.send("log", line)

    def send(self, kind: str, value: Any) -> None:
        """One report. Ends the process when nobody listens any more."""
        with self._writing:
            try:
                self._pipe.write(json.dumps([kind, value], default=str) + "\n")
            except BrokenPipeError:
                sys.exit("the launcher of this worker is gone")


def take_seat() -> Seat | None:
    """The place of this process, or None where no launcher started it. To be called once, before any work.

    From here on the process dies with its launcher, and SIGTERM interrupts it as Ctrl-C does.
    """
    value = os.environ.pop(VARIABLE, None)
    if value is None:
        return None
    seat = Seat(**json.loads(value))
    die_with_parent()
    if os.getppid() != seat.launcher:  # it died before the line above
        sys.exit("the launcher of this worker is gone")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return seat
