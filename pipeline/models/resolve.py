"""From a model named in params.yaml to a folder on this machine that may be loaded, and its manifest."""

import json
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pipeline.config.model import ModelRef
from pipeline.errors import ModelError
from pipeline.models.manifest import Manifest, describe_files
from pipeline.models.packaged import NAME as PACKAGED_NAME
from pipeline.models.packaged import ensure_packaged

# Weights as safetensors, configuration, tokenizer. Nothing else of a repository is fetched, read or named.
FILE_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")
# Second copies of the same weights in another layout, and whatever lies in subfolders.
_IGNORED = ("consolidated*.safetensors", "*/*")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def resolve(ref: ModelRef, role: str, root: Path) -> Manifest:
    """Find, fetch or unpack the model that `ref` names and digest its files.

    Args:
        role: the key in params section `model`; errors name `model.<role>.…`.
        root: the repository root; relative paths in `ref` start there.

    Raises ModelError when the model is not there, would execute code, holds no safetensors or no tokenizer.
    """
    repo, revision = None, None
    if ref.source == "packaged":
        folder, repo = ensure_packaged(root), PACKAGED_NAME
    elif ref.source == "folder":
        folder = root / str(ref.name)
        if not folder.is_dir():
            raise ModelError(f"`model.{role}.name`: there is no folder {folder}.")
    else:
        folder, repo = _download(str(ref.name), ref.revision, role), ref.name
        revision = folder.name  # the hub's cache names a snapshot by its commit
    folder = Path(os.path.abspath(folder))
    names = [entry.name for entry in folder.iterdir() if entry.is_file() and _counts(entry.name)]
    _check(folder, names, role)
    files, sizes = describe_files(folder, names)
    return Manifest(
        role=role,
        source=ref.source,
        path=folder,
        repo=repo,
        revision=revision,
        files=files,
        sizes=sizes,
        chat_template=_template(ref.chat_template, role, root),
    )


def _counts(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in FILE_PATTERNS) and not any(fnmatch(name, p) for p in _IGNORED)


def _download(repo: str, revision: str | None, role: str) -> Path:
    where = f"`model.{role}`: {repo}" + (f" at revision {revision}" if revision else "")
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=list(FILE_PATTERNS), ignore_patterns=list(_IGNORED)
            )
        )
    except GatedRepoError as error:
        raise ModelError(f"{where} is gated: accept its terms on the hub and log in with `hf auth login`.") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{where}: the hub has no such revision; name a commit, tag or branch of it.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"{where}: the hub has no such repository that you may read; check `model.{role}.name` (owner/name) and, "
            "if it is private, log in with `hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, HTTPError, ConnectionError, TimeoutError) as error:
        raise ModelError(
            f"{where} is not in the local cache and the hub cannot be reached ({type(error).__name__}); run again when "
            f"it can, or copy the model here and set `model.{role}.source` to `folder`."
        ) from error


def _check(folder: Path, names: list[str], role: str) -> None:
    where = f"`model.{role}`: {folder}"
    config = _read_config(folder, where)
    if "adapter_config.json" in names:
        raise ModelError(f"{where} holds an adapter; merge it into its base model and save that.")
    if "model.safetensors" in names:
        weights = ["model.safetensors"]
    elif "model.safetensors.index.json" in names:
        weights = sorted(set(_read_json(folder / "model.safetensors.index.json", where)["weight_map"].values()))
    else:
        raise ModelError(
            f"{where} holds no weights as safetensors; pickled weights (*.bin, *.pt) are never opened because opening "
            "them executes what is in them. Convert the model with `save_pretrained` on a machine that you can afford "
            "to lose, or choose a version with safetensors."
        )
    if missing := [name for name in weights if name not in names]:
        raise ModelError(f"{where}: weights are missing that its index names: {', '.join(missing)}.")
    if config.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        remedy = (
            "it asks for code from its repository (auto_map), which is never run"
            if "auto_map" in config
            else "is it a causal language model, in a folder written by transformers?"
        )
        raise ModelError(
            f"{where}: the installed transformers has no causal language model of type "
            f"{config.get('model_type')!r}; {remedy}."
        )
    if not any(name in names for name in _TOKENIZER_FILES):
        raise ModelError(f"{where} holds no tokenizer ({', '.join(_TOKENIZER_FILES)}); copy the model's own beside it.")


def _read_config(folder: Path, where: str) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{where} holds no config.json: it is not a transformers model folder.")
    return _read_json(folder / "config.json", where)


def _read_json(file: Path, where: str) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{where}: {file.name} is not valid JSON; fetch it again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{where}: {file.name} is not a JSON object; fetch it again.")
    return value


def _template(name: str | None, role: str, root: Path) -> str | None:
    if name is None:
        return None
    try:
        return (root / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"`model.{role}.chat_template`: {root / name} cannot be read as a text file.") from error
