"""What every stage does around its work: root, params, logs, metrics, shards, errors in plain words."""

import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from pipeline.config.base import Section
from pipeline.config.check import check_all
from pipeline.config.load import load_section
from pipeline.config.runtime import RuntimeParams
from pipeline.errors import DataError, PipelineError, ShardError
from pipeline.io.artifact import Artifact
from pipeline.io.atomic import write_json
from pipeline.io.closure import code_digest
from pipeline.io.digest import value_digest
from pipeline.io.logs import start_logging, start_worker_logging
from pipeline.io.processes import fair_threads
from pipeline.io.refusal import Refusal
from pipeline.io.seat import Seat, take_seat
from pipeline.io.tally import Item, Listener, Tally, Totals
from pipeline.io.work import Out, Run, Work, join_work, open_work
from pipeline.io.workers import run_workers

if TYPE_CHECKING:
    import torch

CODE = Path(__file__).resolve().parent.parent
"""The folder that holds `pipeline/` and `stages/`; the root of a run may be another one."""
S = TypeVar("S", bound=Section)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A running stage: where it runs and what it may read of params.yaml."""

    name: str
    root: Path
    runtime: RuntimeParams
    seat: Seat | None = None
    """The place of this process among the workers of the stage; None: it is no worker."""

    def params(self, section: str, model: type[S]) -> S:
        """A section of params.yaml."""
        return load_section(self.root / "params.yaml", section, model)

    def path(self, relative: str) -> Path:
        """A path below the root."""
        return self.root / relative

    def need(self, name: str) -> dict[str, Any]:
        """What the stage `needs` has written for this one."""
        path = self.path(f"data/needs/{name}.json")
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ShardError(f"{path}: {error}; make it with `dvc repro needs`") from None
        return found

    def worker_devices(self, device: "torch.device", each: int = 1) -> list[tuple[str, ...]]:
        """For each process of a stage that runs a model, the CUDA devices that it sees; a worker has its own."""
        from pipeline.models.device import worker_devices

        return [()] if self.seat else worker_devices(self.runtime.workers, device, each)

    def run(
        self,
        params: Mapping[str, Any],
        inputs: Mapping[str, str],
        facts: Mapping[str, Any] | None = None,
        mixable: Mapping[str, str] | None = None,
    ) -> Run:
        """The identity of this stage's result: its params, its inputs' digests and its code."""
        return Run(
            stage=self.name,
            depends={
                "params": dict(params),
                "inputs": dict(inputs),
                "code": code_digest(CODE / "stages" / f"{self.name}.py", CODE),
            },
            facts={"versions": library_versions(), **(facts or {})},
            mixable=mixable or {},
            allow_mixed=self.runtime.allow_mixed,
        )

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write `reports/metrics/<stage>.json`, which DVC shows by `dvc metrics`."""
        write_json(self.root / "reports" / "metrics" / f"{self.name}.json", dict(metrics))


@dataclass(frozen=True)
class Made:
    """What a stage makes of one shard: a table per out, the pairs it refused, the tokens it computed."""

    tables: Mapping[str, pa.Table]
    refused: Sequence[Refusal] = field(default_factory=tuple)
    tokens: int = 0
    counts: Mapping[str, float] = field(default_factory=dict)
    """Figures that `Totals` sums over the shards of a run."""


Plan = Mapping[str, Sequence[tuple[int, int]]]
"""By split the half-open range of pairs of each shard."""
Report = Callable[[float, int], None]
"""So many more pairs, and tokens, of the shard in the making are done. One of a pair's two prompts is 0.5 pairs."""
Maker = Callable[[str, int, Report], Made]
"""Makes a shard of a split; may report parts of it, so that a shard of minutes shows movement."""


def map_shards(
    stage: Stage,
    run: Run,
    outs: Sequence[Out],
    plan: Plan,
    make: Callable[[str, int], Made],
    may_refuse: bool = False,
) -> dict[str, int]:
    """Make every missing shard in this process, then publish all.

    A stage that `may_refuse` pairs writes `data/refused/<stage>.parquet`. Returns the refused pairs by reason.
    """
    with open_work(stage.root, run, outs, _refused(stage) if may_refuse else None) as work:
        with closing(_tally(stage, work, plan)) as tally:
            _make_shards(work, plan, _missing(work, plan), lambda: lambda split, shard, _: make(split, shard), tally)
        return _publish(stage, work, plan)


def check_train_left(stage: Stage, out: Artifact) -> None:
    """Raises DataError where a stage has refused every train pair: hours of those that follow would be for nothing."""
    if not any(len(shard.table(["pair_id"])) for shard in out.shards("train")):
        raise DataError(f"no train pair is left; data/refused/{stage.name}.parquet says why")


def skip(stage: Stage, outs: Sequence[Out], plan: Plan, why: str, may_refuse: bool = False) -> None:
    """Publish outs without a row, marked by `skipped` in their footers and in the stage's metrics; nothing is loaded.

    `why`: who has no need of them. Their shards cover the same pairs as full ones would.
    """
    run = stage.run({"skipped": why}, {"plan": value_digest({split: list(of) for split, of in plan.items()})},
                    facts={"skipped": why})  # fmt: skip
    empty = {out.name: out.schema.empty_table() for out in outs}
    with open_work(stage.root, run, outs, _refused(stage) if may_refuse else None) as work:
        for split, shard in _missing(work, plan):
            work.write(split, shard, len(plan[split]), plan[split][shard], empty)
        work.publish({split: len(ranges) for split, ranges in plan.items()})
    stage.write_metrics({"skipped": why})
    _log.info("nothing to do: %s", why)


def map_model_shards(
    stage: Stage,
    run: Run,
    outs: Sequence[Out],
    plan: Plan,
    open_maker: Callable[[], Maker],
    devices: Sequence[Sequence[str]],
    on_done: Callable[[Totals], None] | None = None,
    may_refuse: bool = False,
) -> dict[str, int]:
    """Make every missing shard in one process for each entry of `devices`, then publish all.

    Args:
        open_maker: loads the model. Called once in each process that makes shards, and only there.
        devices: for each process what its CUDA_VISIBLE_DEVICES is to name (`pipeline.models.device.worker_devices`).
            No more processes are started than shards are missing; a single one is this process itself.
        on_done: told what this run has made, if it made anything.

    In a worker this makes its share of the shards, and ends the process: what comes after is the launcher's.
    Returns the refused pairs by reason; a stage that `may_refuse` pairs writes `data/refused/<stage>.parquet`.
    Raises PipelineError that names the failed workers, when the others have made their shares.
    """
    if stage.seat is not None:
        work = join_work(stage.root, run, outs)
        _make_shards(work, plan, stage.seat.shards(work.folder, run.key), open_maker, stage.seat)
        sys.exit(0)
    with open_work(stage.root, run, outs, _refused(stage) if may_refuse else None) as work:
        missing = _missing(work, plan)
        used = devices[: len(missing)]
        with closing(_tally(stage, work, plan, workers=max(1, len(used)))) as tally:
            # The last shard of several processes is a worker's too: it has no more threads than the others had.
            if len(devices) > 1 and used:
                _log.info("%d shards are missing: starting %d workers", len(missing), len(used))
                threads = stage.runtime.threads or os.environ.get("OMP_NUM_THREADS") or fair_threads(len(devices))
                environment = {"OMP_NUM_THREADS": str(threads)}
                module = f"stages.{stage.name}"
                run_workers(module, stage.root, work.folder, run.key, missing, used, environment, tally)
            else:
                _make_shards(work, plan, missing, open_maker, tally)
        if on_done and (totals := tally.totals()):
            on_done(totals)
        return _publish(stage, work, plan)


def _publish(stage: Stage, work: Work, plan: Plan) -> dict[str, int]:
    """Put all shards into the outs. Returns the refused pairs by reason, which the log names too."""
    refused = work.publish({split: len(ranges) for split, ranges in plan.items()})
    if refused:
        reasons = ", ".join(f"{number} {reason}" for reason, number in refused.items())
        _log.info("refused %d pairs (%s): data/refused/%s.parquet", sum(refused.values()), reasons, stage.name)
    return refused


def _refused(stage: Stage) -> Path:
    return stage.path(f"data/refused/{stage.name}.parquet")


def _missing(work: Work, plan: Plan) -> list[Item]:
    return [(split, shard) for split, ranges in plan.items() for shard in work.missing(split, len(ranges))]


def _tally(stage: Stage, work: Work, plan: Plan, workers: int = 1) -> Tally:
    pairs = {(split, shard): end - begin for split, ranges in plan.items() for shard, (begin, end) in enumerate(ranges)}
    return Tally(stage.name, pairs, sum(number for item, number in pairs.items() if work.is_done(*item)), workers)


def _make_shards(
    work: Work, plan: Plan, items: Sequence[Item], open_maker: Callable[[], Maker], listener: Listener
) -> None:
    """Make and write shards one after the other. Without any, no model is loaded."""
    if not items:
        return
    make = open_maker()
    for item in items:
        split, shard = item
        listener.begin(item)
        made = make(split, shard, partial(listener.part, item))
        work.write(split, shard, len(plan[split]), plan[split][shard], made.tables, made.refused)
        listener.made(item, made.tokens, made.counts)


def library_versions() -> dict[str, str]:
    """Versions of what can change a number or a file."""
    names = ("torch", "transformers", "tokenizers", "pyarrow", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def main(name: str, work: Callable[[Stage], None]) -> None:
    """Run a stage. Expected errors end it with their message alone and exit status 1; a worker's launcher says them."""
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    seat = take_seat()
    try:
        sections = check_all(root / "params.yaml")
        runtime: RuntimeParams = sections["runtime"]
        if seat:
            start_worker_logging(seat.log, runtime.log_level)
        else:
            start_logging(name, root, runtime.log_level)
        began = time.monotonic()
        work(Stage(name, root, runtime, seat))
        _log.info("done in %.1f s", time.monotonic() - began)
    except PipelineError as error:
        if seat is None:
            sys.exit(f"{name}: {error}")
        seat.failed(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; run again to go on where it stopped")
