"""Rows of local files: JSON lines (also gzipped), JSON and Parquet. A file must be what its name says."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.arrow_rows import SourceRow, rows_of_batches, wanted_columns
from pipeline.errors import DataError

_BOM = b"\xef\xbb\xbf"
_BATCH = 1024
_STARTS = (
    (b"PAR1", "Parquet: name it .parquet"),
    (b"\x1f\x8b", "gzip: name it .jsonl.gz or unpack it"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data: run `git lfs pull`"),
    (b"<", "HTML or XML, perhaps an error page saved in its place: download it again"),
    (b"[", "a JSON list: name it .json"),
    (b"{", "broken JSON: every line must be one whole object"),
)


def read_file(path: Path, where: str) -> Iterator[SourceRow]:
    """Rows of a file by the ending of its name. `where`: the params path that names it, for errors.

    Raises DataError when the file cannot be opened or is not what its name says. A single broken line of a JSONL file
    is a row with reason `bad_json`.
    """
    reader = known_reader(path, where)
    try:
        yield from reader(path, where)
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise DataError(
            f"{where}: {path} can't be read to its end ({_reason(error)}); check that it is whole"
        ) from None


def known_reader(path: Path, where: str) -> Callable[[Path, str], Iterator[SourceRow]]:
    """The reader for a file's name. Raises DataError when there is none."""
    for ending, reader in _READERS.items():
        if path.name.endswith(ending):
            return reader
    raise DataError(f"{where}: {path.name} has none of the known endings {', '.join(_READERS)}; convert it to one")


def _read_jsonl(path: Path, where: str) -> Iterator[SourceRow]:
    with path.open("rb") as lines:
        yield from _json_lines(lines, path, where)


def _read_jsonl_gz(path: Path, where: str) -> Iterator[SourceRow]:
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"\x1f\x8b":
        raise DataError(f"{where}: {path} is not gzip; remove .gz from its name if it is plain JSON lines")
    with gzip.open(path, "rb") as lines:
        yield from _json_lines(lines, path, where)


def _json_lines(lines: IO[bytes] | gzip.GzipFile, path: Path, where: str) -> Iterator[SourceRow]:
    # Binary lines end at \n alone; text lines would also end at a \r inside a row.
    first = True
    for number, line in enumerate(lines):
        content = (line.removeprefix(_BOM) if number == 0 else line).strip()
        if not content:
            continue
        value = _parse(content)
        if first and not isinstance(value, dict):
            raise DataError(f"{where}: {path}: line {number + 1} is not a JSON object; {_looks_like(content)}")
        first = False
        yield _object_row(number, value)


def _read_json(path: Path, where: str) -> Iterator[SourceRow]:
    content = path.read_bytes().removeprefix(_BOM)
    value = _parse(content.strip())
    if isinstance(value, dict):
        lists = [name for name, item in value.items() if isinstance(item, list)]
        if len(lists) != 1:
            raise DataError(
                f"{where}: {path} holds an object with {len(lists)} lists; rows are taken from a list, or from an"
                " object with exactly one. One object per line? Then name it .jsonl"
            )
        value = value[lists[0]]
    if not isinstance(value, list):
        raise DataError(f"{where}: {path} is not a JSON list of rows; {_instead_of_json(content)}")
    if value and not any(isinstance(item, dict) for item in value):
        raise DataError(f"{where}: {path} holds a list, but none of its items is an object with columns")
    for number, item in enumerate(value):
        yield _object_row(number, item)


def _read_parquet(path: Path, where: str) -> Iterator[SourceRow]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid:
        with path.open("rb") as stream:
            start = stream.read(64)
        hint = "it is torn: get it again" if start.startswith(b"PAR1") else _looks_like(start)
        raise DataError(f"{where}: {path} is not a whole Parquet file; {hint}") from None
    with file:
        columns = wanted_columns(file.schema_arrow.names, f"{where}: {path}")
        yield from rows_of_batches(file.iter_batches(_BATCH, columns=columns))


_READERS: dict[str, Callable[[Path, str], Iterator[SourceRow]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl_gz,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _parse(content: bytes) -> Any:
    """The value, or None for what is not JSON; every row that matters is an object."""
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _object_row(number: int, value: Any) -> SourceRow:
    if isinstance(value, dict):
        return SourceRow(number, value)
    return SourceRow(number, None, "bad_json", "not a JSON object")


def _instead_of_json(content: bytes) -> str:
    if isinstance(_parse(content.split(b"\n")[0]), dict):
        return "it is JSON lines: name it .jsonl"
    if content.lstrip()[:1] in (b"[", b"{"):
        return "it is broken JSON: get it again or correct it"
    return _looks_like(content)


def _looks_like(content: bytes) -> str:
    start = content.removeprefix(_BOM).lstrip()
    for magic, what in _STARTS:
        if start.startswith(magic):
            return f"it looks like {what}"
    return "it does not look like the format that its name says; convert it or correct its name"


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
