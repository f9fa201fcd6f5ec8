"""Which model a run uses, named by the sha256 of its files: `models/<role>.json`."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pipeline.errors import ModelError
from pipeline.io.atomic import write_json
from pipeline.io.digest import file_digest, value_digest

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt")
SMALL_FILE = 1_000_000  # bytes; below it a digest costs next to nothing


@dataclass(frozen=True)
class Manifest:
    """A model folder and the digests of the files in it that count."""

    role: str
    """`judge`, `start`, `positive` or `negative`: the key in params section `model`."""
    source: Literal["packaged", "folder", "hub"]
    path: Path
    """The folder, absolute."""
    repo: str | None
    """Hub repository; none for a local folder."""
    revision: str | None
    """Hub commit that was resolved."""
    files: Mapping[str, str]
    """sha256 by file name."""
    sizes: Mapping[str, int]
    """Bytes by file name."""
    chat_template: str | None = None
    """Text of the Jinja file that replaces the tokenizer's own template."""

    @property
    def digest(self) -> str:
        """sha256 of what the model is, wherever it lies and whatever its role."""
        return value_digest({"files": dict(self.files), "chat_template": self.chat_template})

    @property
    def tokenizer_digest(self) -> str:
        """sha256 of the files that make text into ids: where it is equal, equal ids mean equal tokens."""
        return value_digest({name: self.files[name] for name in TOKENIZER_FILES if name in self.files})

    @property
    def name(self) -> str:
        """What people call the model: its repository, else its folder's name."""
        return self.repo or self.path.name


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `<root>/models/<role>.json`; a model below `<root>` is named relative to it, so that the file is the same
    in every clone.
    """
    root = _root(path)
    inside = manifest.path.is_relative_to(root)
    where = manifest.path.relative_to(root) if inside else manifest.path
    write_json(path, asdict(manifest) | {"path": where.as_posix()})


def read_manifest(path: Path) -> Manifest:
    """Read `<root>/models/<role>.json`.

    Raises ModelError when it is not there or not such a file.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(**fields | {"path": _root(path) / fields["path"]})
    except FileNotFoundError as error:
        raise ModelError(f"{path} is not there; make it with `dvc repro model`.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a model manifest; make it again with `dvc repro -f model`.") from error


def describe_files(folder: Path, names: list[str]) -> tuple[dict[str, str], dict[str, int]]:
    """sha256 and size of each named file, in the order of names."""
    found = {name: (folder / name).stat() for name in sorted(names)}
    digests = {name: _digest(folder / name, of.st_ino, of.st_size, of.st_mtime_ns) for name, of in found.items()}
    return digests, {name: of.st_size for name, of in found.items()}


@cache
def _digest(path: Path, inode: int, size: int, modified: int) -> str:
    """Once in a process for the same file: roles share models, and so do the rows of a comparison."""
    return file_digest(path)


def verify_quick(manifest: Manifest) -> None:
    """Check that the model folder is still the one that was named: every size, and the digest of every small file.

    Raises ModelError at the first file that is gone or different.
    """
    for name, digest in manifest.files.items():
        file = manifest.path / name
        try:
            size = file.stat().st_size
        except OSError as error:
            raise ModelError(_changed(manifest, f"{file} is gone")) from error
        if size != manifest.sizes[name] or (size < SMALL_FILE and file_digest(file) != digest):
            raise ModelError(_changed(manifest, f"{file} is not the file that was there"))


def _changed(manifest: Manifest, what: str) -> str:
    return (
        f"The {manifest.role} model changed after `models/{manifest.role}.json` was written: {what}. Put the file "
        "back, or run `dvc repro -f model` to use the folder as it is now (what depends on it is computed again)."
    )


def _root(path: Path) -> Path:
    return Path(os.path.abspath(path)).parent.parent
