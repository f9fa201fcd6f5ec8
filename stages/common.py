"""What every stage does around its work: root, params, logs, metrics, shards, errors in plain words."""

import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.config.base import Section
from pipeline.config.check import check_all
from pipeline.config.load import load_section
from pipeline.config.runtime import RuntimeParams
from pipeline.errors import PipelineError
from pipeline.io.atomic import write_json
from pipeline.io.closure import code_digest
from pipeline.io.logs import start_logging
from pipeline.io.progress import Progress
from pipeline.io.refusal import Refusal
from pipeline.io.work import Out, Run, open_work

S = TypeVar("S", bound=Section)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A running stage: where it runs and what it may read of params.yaml."""

    name: str
    root: Path
    runtime: RuntimeParams

    def params(self, section: str, model: type[S]) -> S:
        """A section of params.yaml."""
        return load_section(self.root / "params.yaml", section, model)

    def path(self, relative: str) -> Path:
        """A path below the root."""
        return self.root / relative

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
                "code": code_digest(self.root / "stages" / f"{self.name}.py", self.root),
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


def map_shards(
    stage: Stage,
    run: Run,
    outs: Sequence[Out],
    plan: Mapping[str, Sequence[tuple[int, int]]],
    make: Callable[[str, int], Made],
    may_refuse: bool = False,
) -> dict[str, int]:
    """Make every missing shard, then publish all. `plan`: by split the range of pairs of each shard.

    A stage that `may_refuse` pairs writes `data/refused/<stage>.parquet`. Returns the refused pairs by reason.
    """
    refused = stage.path(f"data/refused/{stage.name}.parquet") if may_refuse else None
    with open_work(stage.root, run, outs, refused) as work:
        pairs = {
            (split, shard): rows[1] - rows[0] for split, ranges in plan.items() for shard, rows in enumerate(ranges)
        }
        done = sum(number for (split, shard), number in pairs.items() if work.is_done(split, shard))
        progress = Progress(stage.name, sum(pairs.values()), done=done)
        for split, ranges in plan.items():
            for shard in work.missing(split, len(ranges)):
                made = make(split, shard)
                work.write(split, shard, len(ranges), ranges[shard], made.tables, made.refused)
                progress.advance(pairs[split, shard], made.tokens, f"{split} shard {shard}")
        return work.publish({split: len(ranges) for split, ranges in plan.items()})


def library_versions() -> dict[str, str]:
    """Versions of what can change a number or a file."""
    names = ("torch", "transformers", "tokenizers", "pyarrow", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def main(name: str, work: Callable[[Stage], None]) -> None:
    """Run a stage. Expected errors end it with their message alone and exit status 1."""
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    try:
        sections = check_all(root / "params.yaml")
        runtime: RuntimeParams = sections["runtime"]
        start_logging(name, root, runtime.log_level)
        began = time.monotonic()
        work(Stage(name, root, runtime))
        _log.info("done in %.1f s", time.monotonic() - began)
    except PipelineError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; run again to go on where it stopped")
