"""Manifests name what a model is, wherever it lies, and notice when it changes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.models.manifest import SMALL_FILE, Manifest, describe_files, read_manifest, verify_quick, write_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\0" * (SMALL_FILE + 1))
    files, sizes = describe_files(folder, ["model.safetensors", "config.json"])
    return Manifest("judge", "folder", folder, None, None, files, sizes, "{{ messages }}")


def test_round_trip(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(tmp_path / "models" / "judge.json", manifest)
    assert read_manifest(tmp_path / "models" / "judge.json") == manifest
    assert list(manifest.files) == ["config.json", "model.safetensors"]
    assert manifest.files["config.json"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_a_model_inside_the_repository_is_named_relative_to_it(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(tmp_path / "models" / "judge.json", manifest)
    text = (tmp_path / "models" / "judge.json").read_text()
    assert json.loads(text)["path"] == "models/mine"
    assert str(tmp_path) not in text


def test_the_file_moves_with_the_repository(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path / "models" / "judge.json", manifest)
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    (tmp_path / "clone").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "clone" / "models")
    monkeypatch.chdir(tmp_path / "clone")
    verify_quick(read_manifest(Path("models/judge.json")))


def test_a_model_outside_is_named_by_its_absolute_path(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(tmp_path / "repo" / "models" / "judge.json", manifest)
    assert read_manifest(tmp_path / "repo" / "models" / "judge.json").path == manifest.path


def test_the_digest_is_of_the_content_alone(manifest: Manifest, tmp_path: Path) -> None:
    moved = replace(manifest, role="start", path=tmp_path / "other", source="hub", repo="a/b", revision="c")
    assert moved.digest == manifest.digest
    assert replace(manifest, chat_template=None).digest != manifest.digest
    assert replace(manifest, files={**manifest.files, "config.json": "0"}).digest != manifest.digest


@pytest.mark.parametrize("change", ["gone", "longer", "other small", "folder gone"])
def test_a_changed_folder_is_noticed(manifest: Manifest, tmp_path: Path, change: str) -> None:
    verify_quick(manifest)
    if change == "gone":
        (manifest.path / "config.json").unlink()
    elif change == "longer":
        (manifest.path / "model.safetensors").write_bytes(b"\0" * (SMALL_FILE + 2))
    elif change == "other small":
        (manifest.path / "config.json").write_text("[]")
    else:
        manifest.path.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="run `dvc repro -f model`"):
        verify_quick(manifest)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"path": "x"}', '{"path": "x", "unknown": 1}'])
def test_a_broken_manifest_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "judge.json").write_text(text)
    with pytest.raises(ModelError, match="dvc repro -f model"):
        read_manifest(tmp_path / "judge.json")


def test_a_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="dvc repro model"):
        read_manifest(tmp_path / "judge.json")
