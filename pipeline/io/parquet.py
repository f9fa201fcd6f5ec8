"""One Parquet file: encodings by column type, one JSON object of facts in the footer, atomic writing.

Encodings follow what was measured for these artifacts: byte-stream-split floats, dictionary-coded token ids and
delta-coded offsets with zstd take two thirds of the space of pyarrow's defaults.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ShardError
from pipeline.io.atomic import atomic_path

FACTS = b"attentionpo"
"""Key of the footer's metadata under which the facts of a file lie, as JSON."""


def write_table(path: Path, table: pa.Table, facts: dict[str, Any]) -> None:
    """Write a table whole or not at all; `facts` (JSON-like) go into the footer."""
    dictionary, encodings = encodings_of(table.schema)
    footer = {FACTS: json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()}
    with atomic_path(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(footer),
            temporary,
            compression="zstd",
            compression_level=3,
            use_dictionary=dictionary,
            column_encoding=encodings,
            write_statistics=True,
        )


def encodings_of(schema: pa.Schema) -> tuple[list[str], dict[str, str]]:
    """Column paths to dictionary-code, and the encoding of other leaves. pyarrow ignores a wrong path silently."""
    dictionary, encodings = [], {}
    for path, kind in (leaf for field in schema for leaf in _leaves(field.name, field.type)):
        if pa.types.is_floating(kind):
            encodings[path] = "BYTE_STREAM_SPLIT"
        elif path.endswith("ids.list.element") or pa.types.is_string(kind):
            dictionary.append(path)
        elif pa.types.is_integer(kind) and kind.bit_width >= 32:
            encodings[path] = "DELTA_BINARY_PACKED"
    return dictionary, encodings


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a file and check its schema. Raises ShardError, naming the file, when it is missing, torn or another's."""
    try:
        table = pq.read_table(path, columns=columns, partitioning=None)
    except FileNotFoundError:
        raise ShardError(f"{path}: no such file; run `dvc repro` to make it") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ShardError(f"{path}: torn or not a Parquet file ({error}); remove it and run `dvc repro`") from None
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    if not table.schema.equals(wanted, check_metadata=False):
        raise ShardError(
            f"{path}: columns are not those of this artifact; was it made by another version? Run `dvc repro`"
        )
    return table


def read_facts(path: Path) -> dict[str, Any]:
    """The facts in a file's footer. Raises ShardError that names the file."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise ShardError(f"{path}: no such file; run `dvc repro` to make it") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ShardError(f"{path}: torn or not a Parquet file ({error}); remove it and run `dvc repro`") from None
    if FACTS not in metadata:
        raise ShardError(f"{path}: was not written by this pipeline; move it out of the artifact's folder")
    facts: dict[str, Any] = json.loads(metadata[FACTS])
    return facts


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            child = kind.field(index)
            yield from _leaves(f"{path}.{child.name}", child.type)
    else:
        yield path, kind
