"""Work folders: resume, publish, locks, shards of other runs, a full disk."""

import errno
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from pipeline.errors import LockError, ShardError
from pipeline.io.artifact import Artifact
from pipeline.io.atomic import atomic_path
from pipeline.io.lock import locked
from pipeline.io.parquet import read_table
from pipeline.io.refusal import Refusal
from pipeline.io.work import KEEP, Out, Run, Work, open_work
from pipeline.schemas.reference import REFERENCE
from pipeline.schemas.refused import REFUSED


def run(**depends: Any) -> Run:
    return Run("reference", depends or {"params": {}}, {"model": "m"}, {"backend": "transformers", "device": "cpu"})


ON_CUDA = replace(run(), mixable={"backend": "transformers", "device": "cuda"})
"""The same run on another device."""


def table(shard: int, rows: int = 2) -> pa.Table:
    return pa.Table.from_pylist(
        [{"pair_id": f"{shard}-{i}", "chosen_logps": [-1.0], "rejected_logps": [-2.0]} for i in range(rows)],
        schema=REFERENCE,
    )


def out(root: Path) -> Out:
    return Out("reference", root / "data" / "reference", REFERENCE)


def write(work: Work, shard: int) -> None:
    refused = [Refusal("train", 2 * shard, f"{shard}-0", "empty")] if shard == 1 else []
    work.write("train", shard, 3, (2 * shard, 2 * shard + 2), {"reference": table(shard)}, refused)


def published(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.glob("data/**/*.parquet"))}


def test_a_resumed_run_does_only_the_rest_and_gives_the_same_bytes(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for root in (whole, halves):
        root.mkdir()
    with open_work(whole, run(), [out(whole)], whole / "data/refused/reference.parquet") as work:
        for shard in range(3):
            write(work, shard)
        assert work.publish({"train": 3}) == {"empty": 1}
    with open_work(halves, run(), [out(halves)], halves / "data/refused/reference.parquet") as work:
        write(work, 1)
    with open_work(halves, run(), [out(halves)], halves / "data/refused/reference.parquet") as work:
        assert work.missing("train", 3) == [0, 2]
        with pytest.raises(ShardError, match=r"shards \[0, 2\] of train are not finished"):
            work.publish({"train": 3})
        write(work, 0)
        write(work, 2)
        work.publish({"train": 3})
    assert published(whole) == published(halves)
    assert read_table(halves / "data/refused/reference.parquet", REFUSED)["reason"].to_pylist() == ["empty"]


def test_other_params_start_another_folder(tmp_path: Path) -> None:
    with open_work(tmp_path, run(params={"dtype": "float32"}), [out(tmp_path)]) as work:
        write(work, 0)
    with open_work(tmp_path, run(params={"dtype": "bfloat16"}), [out(tmp_path)]) as work:
        assert work.missing("train", 3) == [0, 1, 2]


def test_killed_after_publishing_nothing_is_done_again(tmp_path: Path) -> None:
    with open_work(tmp_path, run(), [out(tmp_path)]) as work:
        for shard in range(3):
            write(work, shard)
        work.publish({"train": 3})
    with open_work(tmp_path, run(), [out(tmp_path)]) as work:
        assert work.missing("train", 3) == []
    with open_work(tmp_path, Run("train", {}, {}, {}), []):
        pass
    assert not list((tmp_path / ".work" / "reference").glob("*/run.json"))


def test_another_device_is_refused_unless_mixing_is_allowed(tmp_path: Path) -> None:
    with open_work(tmp_path, run(), [out(tmp_path)]):
        pass
    with pytest.raises(ShardError, match=r"device cpu, now cuda.*allow_mixed"), open_work(tmp_path, ON_CUDA, []):
        pass
    with open_work(tmp_path, replace(ON_CUDA, allow_mixed=True), []):
        pass


def finished(root: Path) -> Path:
    """The folder of work that was published and is kept."""
    (root / ".work").mkdir()
    (root / ".work" / KEEP).touch()
    with open_work(root, run(), [out(root)]) as work:
        work.write("train", 0, 1, (0, 2), {"reference": table(0)})
        work.publish({"train": 1})
        return work.folder


def test_finished_work_is_taken_on_any_device(tmp_path: Path) -> None:
    begun = (finished(tmp_path) / "run.json").read_bytes()
    with open_work(tmp_path, ON_CUDA, [out(tmp_path)]) as work:
        assert work.missing("train", 1) == []
        work.publish({"train": 1})
        assert (work.folder / "run.json").read_bytes() == begun


def test_a_lost_shard_of_finished_work_is_not_made_on_another_device(tmp_path: Path) -> None:
    (finished(tmp_path) / "reference" / "train" / "part-00000.parquet").unlink()
    with pytest.raises(ShardError, match="device cpu, now cuda"), open_work(tmp_path, ON_CUDA, [out(tmp_path)]):
        pass


def test_a_second_writer_is_refused_by_name(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock.json"),
        pytest.raises(LockError, match=f"process {os.getpid()} on {socket.gethostname()}"),
        locked(tmp_path / "lock.json"),
    ):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    script = (
        "import os, signal; from pathlib import Path; from pipeline.io.lock import locked\n"
        f"with locked(Path({str(tmp_path)!r}) / 'lock.json'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert (tmp_path / "lock.json").is_file()
    with locked(tmp_path / "lock.json"):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock.json").exists()


def test_a_reused_process_id_does_not_hold_a_lock(tmp_path: Path) -> None:
    old = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time() - 1000}
    (tmp_path / "lock.json").write_text(json.dumps(old))
    with locked(tmp_path / "lock.json"):
        pass


def test_a_lock_of_another_host_says_how_to_clear_it(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}))
    with pytest.raises(LockError, match=r"process 1 on elsewhere.*remove .*lock\.json"), locked(tmp_path / "lock.json"):
        pass


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    with open_work(tmp_path, run(), [out(tmp_path)]) as work:
        for shard in range(3):
            write(work, shard)
        work.publish({"train": 3})
    return Artifact(tmp_path / "data" / "reference", REFERENCE)


def test_shards_come_in_order_with_their_rows(artifact: Artifact) -> None:
    shards = artifact.shards("train")
    assert [shard.rows for shard in shards] == [(0, 2), (2, 4), (4, 6)]
    assert [row["pair_id"] for shard in shards for row in shard.records()] == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    assert artifact.facts()["model"] == "m"


def test_a_missing_shard_is_named(artifact: Artifact) -> None:
    (artifact.path / "train" / "part-00001.parquet").unlink()
    with pytest.raises(ShardError, match=r"part-00001\.parquet is missing"):
        artifact.shards("train")


def test_a_missing_last_shard_is_noticed(artifact: Artifact) -> None:
    (artifact.path / "train" / "part-00002.parquet").unlink()
    with pytest.raises(ShardError, match="2 of 3 shards"):
        artifact.shards("train")


def test_a_missing_split_says_what_to_run(artifact: Artifact) -> None:
    with pytest.raises(ShardError, match=r"test: no shards; run `dvc repro`"):
        artifact.shards("test")


def test_a_shard_of_other_params_is_named(artifact: Artifact, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with open_work(other, run(params={"dtype": "bfloat16"}), [out(other)]) as work:
        for shard in range(3):
            write(work, shard)
        work.publish({"train": 3})
    os.replace(other / "data/reference/train/part-00001.parquet", artifact.path / "train" / "part-00001.parquet")
    with pytest.raises(ShardError, match=r"part-00001\.parquet: made by another run.*key differs"):
        artifact.shards("train")


def test_a_full_disk_keeps_finished_work_and_leaves_nothing_torn(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"shard: the disk is full .*free some space"), atomic_path(tmp_path / "shard"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_really_full_device_is_said_so(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full is not there")
    with pytest.raises(ShardError, match="disk is full"), atomic_path(tmp_path / "shard"), full.open("wb", 0) as stream:
        stream.write(b"x" * 4096)
