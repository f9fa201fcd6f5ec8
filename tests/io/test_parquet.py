"""Encodings read back from the footer, torn files, foreign files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ShardError
from pipeline.io.lists import arrays_of, list_array
from pipeline.io.parquet import read_facts, read_table, write_table
from pipeline.schemas.aligned import ALIGNED
from pipeline.schemas.attention import ATTENTION, VERDICTS
from pipeline.schemas.base import FLOATS, TOKEN_IDS
from pipeline.schemas.judge import JUDGE
from pipeline.schemas.pairs import PAIRS
from pipeline.schemas.reference import REFERENCE
from pipeline.schemas.refused import REFUSED
from pipeline.schemas.tokens import TOKENS
from pipeline.schemas.weights import WEIGHTS

SCHEMAS = [PAIRS, REFUSED, JUDGE, ATTENTION, VERDICTS, WEIGHTS, TOKENS, ALIGNED, REFERENCE]


def weights_table() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.Table.from_pylist(
        [
            {
                "pair_id": f"{i:064x}",
                "response": "chosen",
                "token_ids": list(range(50)),
                "offsets": [{"start": k, "end": k + 1} for k in range(50)],
                "weights": rng.random(50).astype(np.float32),
            }
            for i in range(20)
        ],
        schema=WEIGHTS,
    )


def test_encodings_are_those_that_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    write_table(path, weights_table(), {"key": "k"})
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    weights = columns["weights.list.element"]
    assert "BYTE_STREAM_SPLIT" in weights.encodings
    assert not weights.has_dictionary_page
    assert columns["token_ids.list.element"].has_dictionary_page
    for end in ("start", "end"):
        assert "DELTA_BINARY_PACKED" in columns[f"offsets.list.element.{end}"].encodings
    assert all(column.compression == "ZSTD" for column in columns.values())


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = weights_table()
    write_table(path, table, {"key": "k", "rows": [0, 20]})
    assert read_table(path, WEIGHTS).equals(table.replace_schema_metadata(None))
    assert read_facts(path) == {"key": "k", "rows": [0, 20]}


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, weights_table(), {"b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_can_be_written_and_read_empty(tmp_path: Path, schema: pa.Schema) -> None:
    write_table(tmp_path / "a", schema.empty_table(), {})
    assert len(read_table(tmp_path / "a", schema)) == 0


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_column_says_what_it_means(schema: pa.Schema) -> None:
    assert all(schema.field(name).metadata[b"meaning"] for name in schema.names)


def test_torn_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    with pytest.raises(ShardError, match=r"part-00000\.parquet: no such file"):
        read_table(path, WEIGHTS)
    write_table(path, weights_table(), {})
    path.write_bytes(path.read_bytes()[:-100])
    for read in (lambda: read_table(path, WEIGHTS), lambda: read_facts(path)):
        with pytest.raises(ShardError, match=r"part-00000\.parquet: torn"):
            read()
    pq.write_table(weights_table(), path)
    with pytest.raises(ShardError, match="not written by this pipeline"):
        read_facts(path)
    with pytest.raises(ShardError, match="columns are not those"):
        read_table(path, TOKENS)


def test_lists_become_arrays_and_return(tmp_path: Path) -> None:
    table = weights_table()
    arrays = arrays_of(table["weights"])
    assert [array.tolist() for array in arrays] == table["weights"].to_pylist()
    assert list_array(arrays, FLOATS).equals(table["weights"].combine_chunks())
    spans = arrays_of(table["offsets"])
    assert spans[3].tolist() == [[span["start"], span["end"]] for span in table["offsets"][3].as_py()]
    sliced = arrays_of(table.slice(5, 3)["token_ids"])
    assert [array.tolist() for array in sliced] == table["token_ids"].to_pylist()[5:8]
    assert list_array([], TOKEN_IDS).type == TOKEN_IDS
    with pytest.raises(ValueError, match="null"):
        arrays_of(pa.chunked_array([pa.array([None, [1.0]], FLOATS)]))
