"""The one progress of shards that several processes make, and its log."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.io import progress, tally
from pipeline.io.logs import relay, start_logging, start_worker_logging
from pipeline.io.tally import Tally

PAIRS = {("train", 0): 4, ("train", 1): 4, ("train", 2): 4, ("test", 0): 2}


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (progress, tally):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Logs go there; afterwards nowhere again."""
    start_logging("extract", tmp_path)
    yield tmp_path
    for name in ("pipeline", "stages"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True


def lines(root: Path) -> list[dict[str, Any]]:
    [file] = (root / "logs").glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_parts_of_shards_move_the_progress_and_end_in_exact_totals(root: Path, clock: Clock) -> None:
    shards = Tally("extract", PAIRS, done=4, workers=2)
    clock.now += 1000  # models are loaded: no part of the speed
    shards.begin(("train", 1))
    shards.begin(("train", 2))
    clock.now += 20
    shards.part(("train", 1), 0.5, 70)
    clock.now += 20
    shards.part(("train", 2), 2.5, 330)
    shards.made(("train", 1), 600, {"flops": 2.0, "shared": 5.0})
    clock.now += 20
    shards.part(("train", 2), 1.3, 200)
    shards.made(("train", 2), 500, {"flops": 3.0})
    shards.begin(("test", 0))
    clock.now += 20
    shards.part(("test", 0), 2.7, 90)  # more than there are: not believed, nor that the shard is written
    shards.made(("test", 0), 100, {})
    said = [line["message"] for line in lines(root)]
    # 4 pairs were there before: 0.5 more in 20 s leave 9.5, for 380 s; 3.0 in 40 s leave 7, for 93 s.
    assert said[0] == "extract 4/14 pairs, 0.03 pairs/s, 4 tokens/s, 6:20 left, train shards 1, 2"
    assert said[1] == "extract 7/14 pairs, 0.07 pairs/s, 10 tokens/s, 1:33 left, train shards 1, 2"
    assert said[2] == "extract 11/14 pairs, 0.13 pairs/s, 19 tokens/s, 0:17 left, train shard 2"
    assert said[-1] == "extract 14/14 pairs, 0.12 pairs/s, 15 tokens/s, in 1:20, test shard 0"
    assert [line["done"] for line in lines(root)] == [4.5, 7.0, 11.8, 13.98, 14]
    assert lines(root)[-1]["done"] == lines(root)[-1]["total"] == 14
    totals = shards.totals()
    assert totals is not None
    assert (totals.pairs, totals.tokens, totals.seconds, totals.workers) == (10, 1200, 80.0, 2)
    assert totals.counts == {"flops": 5.0, "shared": 5.0}


def test_what_a_lost_worker_had_begun_does_not_count(root: Path, clock: Clock) -> None:
    shards = Tally("extract", PAIRS)
    shards.begin(("train", 0))
    shards.begin(("test", 0))
    shards.part(("train", 0), 3.0, 300)
    shards.drop(("train", 0))
    clock.now += 20
    shards.made(("test", 0), 100, {})
    assert [line["message"] for line in lines(root)] == [
        "extract 2/14 pairs, 0.10 pairs/s, 5 tokens/s, 2:00 left, test shard 0"
    ]
    totals = shards.totals()
    assert totals is not None
    assert (totals.pairs, totals.tokens) == (2, 100)


def test_nothing_made_is_no_total() -> None:
    shards = Tally("extract", PAIRS, done=14)
    shards.close()
    assert shards.totals() is None


@pytest.mark.parametrize("whole", [True, False])
def test_a_terminal_shows_one_line_and_leaves_it_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: Clock, whole: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    shards = Tally("extract", {("train", 0): 4})
    shards.begin(("train", 0))
    for _ in range(3):
        clock.now += 1
        shards.part(("train", 0), 1.0, 10)
    if whole:
        shards.made(("train", 0), 40, {})
    shards.close()
    shown = capsys.readouterr().err
    assert shown.count("\r\x1b[Kextract") == 3 + whole
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    assert "extract 2/4 pairs, 1.00 pairs/s, 10 tokens/s, 0:02 left, train shard 0" in shown


def test_a_worker_s_records_are_written_by_its_launcher(root: Path) -> None:
    launcher = {name: logging.getLogger(name).handlers for name in ("pipeline", "stages")}
    sent: list[dict[str, Any]] = []
    start_worker_logging(sent.append)
    logging.getLogger("pipeline.models.device").warning("budget %d", 512, extra={"budget": 512})
    try:
        raise ZeroDivisionError("a defect")
    except ZeroDivisionError:
        logging.getLogger("stages.common").exception("failed")
    logging.getLogger("stages.common").debug("not asked for")
    assert lines(root) == []
    for name, handlers in launcher.items():
        logging.getLogger(name).handlers = handlers
    for line in json.loads(json.dumps(sent)):
        relay(line, worker=3)
    first, second = lines(root)
    assert (first["level"], first["logger"], first["worker"], first["budget"]) == (
        "WARNING",
        "pipeline.models.device",
        3,
        512,
    )
    assert first["message"] == "worker 3: budget 512"
    assert second["level"] == "ERROR"
    assert "ZeroDivisionError: a defect" in second["message"]
