"""What may be loaded, what is refused, and the word for each."""

import json
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pipeline.config.model import ModelRef
from pipeline.errors import ModelError
from pipeline.models.resolve import FILE_PATTERNS, resolve
from tests.models import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model folder, with what else such folders hold."""
    path = tmp_path / "mine"
    tiny.model("llama").save_pretrained(path)
    tiny.byte_level().save_pretrained(path)
    for name in ("README.md", "pytorch_model.bin", "consolidated.safetensors", "modeling_mine.py", "training_args.bin"):
        (path / name).write_bytes(b"x")
    (path / "checkpoint-1").mkdir()
    (path / "checkpoint-1" / "model.safetensors").write_bytes(b"x")
    return path


def of(name: str, **more: Any) -> ModelRef:
    return ModelRef(source="folder", name=name, **more)


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_folder(folder: Path, tmp_path: Path) -> None:
    manifest = resolve(of("mine"), "start", tmp_path)
    assert (manifest.role, manifest.source, manifest.path) == ("start", "folder", folder)
    assert (manifest.repo, manifest.revision, manifest.name) == (None, None, "mine")
    assert set(manifest.files) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert manifest.sizes["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    assert resolve(of(str(folder)), "judge", tmp_path).digest == manifest.digest


def test_a_template_file_is_read_into_the_manifest(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}é", encoding="utf-8")
    assert resolve(of("mine", chat_template="chat.jinja"), "judge", tmp_path).chat_template == "{{ messages }}é"
    with pytest.raises(ModelError, match=r"`model\.judge\.chat_template`.*none\.jinja cannot be read"):
        resolve(of("mine", chat_template="none.jinja"), "judge", tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"`model\.start\.name`: there is no folder .*nowhere"):
        resolve(of("nowhere"), "start", tmp_path)


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no weights as safetensors; pickled weights .* are never opened"):
        resolve(of("mine"), "judge", tmp_path)


def test_shards_that_the_index_names_must_be_there(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelError, match=r"weights are missing .*: model-00002-of-00002\.safetensors\."):
        resolve(of("mine"), "judge", tmp_path)


def test_remote_code_is_refused_unless_transformers_has_the_architecture(folder: Path, tmp_path: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    assert resolve(of("mine"), "judge", tmp_path).files
    edit(folder / "config.json", model_type="mine")
    with pytest.raises(
        ModelError, match=r"'mine'; it asks for code from its repository \(auto_map\), which is never run"
    ):
        resolve(of("mine"), "judge", tmp_path)


def test_another_kind_of_model_is_refused(folder: Path, tmp_path: Path) -> None:
    edit(folder / "config.json", model_type="vit")
    with pytest.raises(ModelError, match="no causal language model of type 'vit'"):
        resolve(of("mine"), "judge", tmp_path)


def test_an_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter; merge it"):
        resolve(of("mine"), "judge", tmp_path)


@pytest.mark.parametrize(
    ("gone", "message"), [("tokenizer.json", "holds no tokenizer"), ("config.json", r"holds no config\.json")]
)
def test_a_folder_that_is_not_whole(folder: Path, tmp_path: Path, gone: str, message: str) -> None:
    (folder / gone).unlink()
    with pytest.raises(ModelError, match=message):
        resolve(of("mine"), "judge", tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_config(folder: Path, tmp_path: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json is not"):
        resolve(of("mine"), "judge", tmp_path)


def test_the_packaged_model(default_model_dir: Path, root: Path) -> None:
    manifest = resolve(ModelRef(), "judge", root)
    assert manifest.path == default_model_dir
    assert manifest.name == "SmolLM2-135M-Instruct"
    assert "model.safetensors" in manifest.files


def test_a_hub_repository(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.parent.mkdir()
    folder.rename(snapshot)
    asked: dict[str, Any] = {}

    def download(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    manifest = resolve(ModelRef(source="hub", name="owner/name", revision="main"), "judge", tmp_path)
    assert (manifest.repo, manifest.revision, manifest.path) == ("owner/name", COMMIT, snapshot)
    assert (asked["repo"], asked["revision"]) == ("owner/name", "main")
    assert asked["allow_patterns"] == list(FILE_PATTERNS)
    assert not any(pattern.endswith((".bin", ".pt", ".py", ".pth")) for pattern in asked["allow_patterns"])


def test_a_hub_repository_with_pickles_only(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(ModelError, match="never opened"):
        resolve(ModelRef(source="hub", name="owner/name", revision="main"), "judge", tmp_path)


def _http(kind: type) -> Exception:
    return kind("no", response=httpx2.Response(404, request=httpx2.Request("GET", "https://hub.invalid")))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_http(GatedRepoError), "is gated: accept its terms"),
        (_http(RepositoryNotFoundError), "no such repository that you may read"),
        (_http(RevisionNotFoundError), "no such revision"),
        (LocalEntryNotFoundError("no"), r"cannot be reached \(LocalEntryNotFoundError\)"),
        (OfflineModeIsEnabled("no"), "cannot be reached"),
        (httpx2.ProxyError("no"), "cannot be reached"),
    ],
)
def test_what_the_hub_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ModelError, match=rf"`model\.judge`: owner/name at revision v1.*{message}"):
        resolve(ModelRef(source="hub", name="owner/name", revision="v1"), "judge", tmp_path)


def test_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such repository"):
        resolve(ModelRef(source="hub", name="not a name", revision="main"), "judge", tmp_path)


def test_a_real_request_offline_ends_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match="cannot be reached"):
        resolve(ModelRef(source="hub", name="owner/name", revision="main"), "judge", tmp_path)
