"""A stage's resumable work folder.

DVC deletes a stage's outs before it runs and leaves an orphan when it is killed, so a stage writes finished shards to
`.work/<stage>/<key>/` and publishes them when all are there. The key is made of everything the result depends on: a run
with the same key goes on where the last one stopped, any other key starts its own folder.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import ShardError
from pipeline.io.artifact import part_name
from pipeline.io.atomic import link_or_copy, write_json
from pipeline.io.digest import value_digest
from pipeline.io.lock import locked
from pipeline.io.parquet import read_table, write_table
from pipeline.io.refusal import Refusal, count_reasons, refusal_table
from pipeline.schemas.base import VERSION
from pipeline.schemas.refused import REFUSED

_log = logging.getLogger(__name__)
KEEP = "keep"
"""A file in `.work` by whose presence nothing there is removed: a store that several runs share."""
_PUBLISHED = "published"
_RUN = "run.json"


@dataclass(frozen=True)
class Out:
    """One sharded artifact of a stage, published as the folder `path`."""

    name: str
    path: Path
    schema: pa.Schema


@dataclass(frozen=True)
class Run:
    """What a result depends on (`depends`), and how it was made as far as that changes it within tolerance only."""

    stage: str
    depends: Mapping[str, Any]
    facts: Mapping[str, Any]
    mixable: Mapping[str, str]
    """Backend and device kind: resuming with others is refused unless the run says `allow_mixed`."""
    allow_mixed: bool = False

    @property
    def key(self) -> str:
        """Content key of the result."""
        return value_digest({"stage": self.stage, "schema": VERSION, **self.depends})[:20]


class Work:
    """The open work folder of one run. Shards may be written by several processes; one launcher opens and publishes."""

    def __init__(self, folder: Path, run: Run, outs: Sequence[Out], refused: Path | None) -> None:
        self.folder = folder
        self.run = run
        self.outs = list(outs)
        self.refused = refused
        self._refused_out = Out("refused", refused or folder, REFUSED)

    def is_done(self, split: str, shard: int) -> bool:
        """Every file of the shard is there; files appear whole or not at all."""
        return all(self._part(out, split, shard).is_file() for out in (self._refused_out, *self.outs))

    def missing(self, split: str, shards: int) -> list[int]:
        """The shards that are still to be made."""
        return [shard for shard in range(shards) if not self.is_done(split, shard)]

    def is_published(self) -> bool:
        """Whether it was published, and every file of it is still there."""
        marker = self.folder / _PUBLISHED
        if not marker.is_file():
            return False
        # Empty where an earlier version wrote it: then the files are taken to be there.
        shards: dict[str, int] = json.loads(marker.read_text(encoding="utf-8") or "{}")
        return not any(self.missing(split, number) for split, number in shards.items())

    def write(
        self,
        split: str,
        shard: int,
        shards: int,
        rows: tuple[int, int],
        tables: Mapping[str, pa.Table],
        refused: Sequence[Refusal] = (),
    ) -> None:
        """Write one finished shard of every out, and its refused pairs."""
        facts = {
            **self.run.facts,
            **self.run.mixable,
            "schema_version": VERSION,
            "key": self.run.key,
            "split": split,
            "shard": shard,
            "shards": shards,
            "rows": list(rows),
        }
        for out in self.outs:
            table = tables[out.name].cast(out.schema)
            write_table(self._part(out, split, shard), table, {**facts, "artifact": out.name})
        write_table(
            self._part(self._refused_out, split, shard), refusal_table(refused), {**facts, "artifact": "refused"}
        )

    def publish(self, shards: Mapping[str, int]) -> dict[str, int]:
        """Put all shards into the outs' folders. `shards`: their number by split. Returns refused pairs by reason."""
        for split, number in shards.items():
            if missing := self.missing(split, number):
                raise ShardError(f"{self.folder}: shards {missing} of {split} are not finished; run the stage again")
        for out in self.outs:
            self._publish_folder(out, shards)
        tables = [
            read_table(self._part(self._refused_out, split, shard), REFUSED)
            for split, number in shards.items()
            for shard in range(number)
        ]
        merged = pa.concat_tables(tables) if tables else REFUSED.empty_table()
        if self.refused is not None:
            write_table(self.refused, merged, {"artifact": "refused", "key": self.run.key, "schema_version": VERSION})
        write_json(self.folder / _PUBLISHED, dict(shards))
        return count_reasons(merged["reason"].to_pylist())

    def _publish_folder(self, out: Out, shards: Mapping[str, int]) -> None:
        fresh = out.path.parent / f".{out.path.name}.publishing"
        shutil.rmtree(fresh, ignore_errors=True)
        for split, number in shards.items():
            (fresh / split).mkdir(parents=True)
            for shard in range(number):
                link_or_copy(self._part(out, split, shard), fresh / split / part_name(shard))
        shutil.rmtree(out.path, ignore_errors=True)
        os.rename(fresh, out.path)

    def _part(self, out: Out, split: str, shard: int) -> Path:
        return self.folder / out.name / split / part_name(shard)


@contextmanager
def open_work(root: Path, run: Run, outs: Sequence[Out], refused: Path | None = None) -> Iterator[Work]:
    """Open the run's work folder under its lock.

    Raises LockError when another process writes there, ShardError when the folder was begun by another backend or
    device kind and the run does not allow mixing.
    """
    sweep_published(root, keep=run.stage)
    folder = _folder(root, run)
    with locked(folder / "lock.json"):
        work = Work(folder, run, outs, refused)
        if not work.is_published():  # else nothing is left to make that could be mixed
            _check_mixing(folder / _RUN, run)
        done = sum(1 for _ in folder.glob("refused/*/part-*.parquet"))
        if done:
            _log.info("resuming %s: %d finished shards in %s", run.stage, done, folder)
        yield work


def join_work(root: Path, run: Run, outs: Sequence[Out]) -> Work:
    """The work folder that the launcher of this process has opened, to write shards into it: no lock, no publishing.

    Raises ShardError when this process has another backend or device kind than the launcher, which is never allowed:
    `allow_mixed` is for runs one after the other.
    """
    opened = _folder(root, run) / _RUN
    if opened.is_file():  # else this is another run than the launcher's, which a worker finds out by its key
        begun = json.loads(opened.read_text(encoding="utf-8"))["mixable"]
        if begun != dict(run.mixable):
            raise ShardError(f"this worker has {dict(run.mixable)}, its launcher {begun}; is its device out of order?")
    return Work(_folder(root, run), run, outs, None)


def sweep_published(root: Path, keep: str) -> None:
    """Remove work folders that other stages have published.

    A stage cannot do this itself: killed after publishing, but before DVC has recorded its outs, it would find them
    deleted and have to do everything again. When another stage runs, DVC has them.
    """
    if (root / ".work" / KEEP).exists():
        return
    for marker in (root / ".work").glob(f"*/*/{_PUBLISHED}"):
        if marker.parent.parent.name != keep:
            shutil.rmtree(marker.parent, ignore_errors=True)


def _folder(root: Path, run: Run) -> Path:
    return root / ".work" / run.stage / run.key


def _check_mixing(path: Path, run: Run) -> None:
    if path.is_file():
        begun = json.loads(path.read_text(encoding="utf-8"))["mixable"]
        for name, value in run.mixable.items():
            if begun.get(name) != value and not run.allow_mixed:
                raise ShardError(
                    f"{path.parent}: begun with {name} {begun.get(name)}, now {value}; that would be mixed. Go on with"
                    f" {begun.get(name)}, set runtime.allow_mixed: true, or remove the folder"
                )
    write_json(path, {"stage": run.stage, "depends": dict(run.depends), "mixable": dict(run.mixable)})
