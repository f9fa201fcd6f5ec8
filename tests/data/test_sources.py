"""Rows of files and of data sets: what is read, and what is said when a source is not what its name says."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.prepare import HubDataset, PrepareParams
from pipeline.data.arrow_rows import SourceRow
from pipeline.data.sources import open_sources
from pipeline.errors import DataError

ODD = "line\u2028separator \x85 next\rreturn \u000b\u001c tab\t end\n"


def pair(number: int, text: str = ODD) -> dict[str, Any]:
    def turns(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"Question {number}"}, {"role": "assistant", "content": answer}]

    return {"prompt": f"Question {number}", "chosen": turns(text), "rejected": turns("no"), "score_chosen": 1.0}


ROWS = [pair(number) for number in range(5)]
LINES = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS)


def write_parquet(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.jsonl": lambda path: path.write_bytes(LINES),
    "bom.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + LINES),
    "crlf.jsonl": lambda path: path.write_bytes(LINES.replace(b"\n", b"\r\n")),
    "no-last-newline.jsonl": lambda path: path.write_bytes(LINES[:-1]),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "list.json": lambda path: path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8"),
    "object.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS}), encoding="utf-8"),
    "a.parquet": write_parquet,
}


def read(folder: Path, name: str) -> list[SourceRow]:
    params = PrepareParams(folder=str(folder), train=name, test=None)
    return list(open_sources(params, Path("/"))["train"].rows())


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert read(tmp_path, name) == [SourceRow(number, row) for number, row in enumerate(ROWS)]


def test_a_broken_line_is_one_refused_row(tmp_path: Path) -> None:
    good = json.dumps(pair(0)).encode()
    broken = [b'{"chosen": ', b"[1, 2]", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b'"text"']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, *broken, b"", b"  ", good]))
    rows = read(tmp_path, "a.jsonl")
    assert [row.number for row in rows] == [*range(7), 9]
    assert [row.reason for row in rows] == ["", *["bad_json"] * 6, ""]
    assert rows[0].columns == rows[-1].columns == pair(0)


def test_items_of_a_json_list_that_are_no_objects_are_refused_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([pair(0), 3, pair(1)]), encoding="utf-8")
    assert [row.reason for row in read(tmp_path, "a.json")] == ["", "bad_json", ""]


def test_other_columns_of_parquet_are_not_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{**pair(0), "all_generated_responses": ["a", "b"], "messages": [{"x": 1}]}])
    assert read(tmp_path, "a.parquet") == [SourceRow(0, pair(0))]


def test_text_in_parquet_that_is_not_utf8_is_one_refused_row(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"\xff\xfe", b"good"], pa.binary())
    latin = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    plain = pa.array(["a", "b", "c"])
    pq.write_table(pa.table({"prompt": plain, "chosen": latin, "rejected": plain}), tmp_path / "a.parquet")
    assert [row.reason for row in read(tmp_path, "a.parquet")] == ["", "bad_text", ""]


PARQUET_BYTES = b"PAR1" + b"\x00" * 100
NOT_WHAT_THEY_SAY = [
    ("a.jsonl", PARQUET_BYTES, "looks like Parquet"),
    ("a.jsonl", gzip.compress(LINES), "looks like gzip"),
    ("a.jsonl", b"<!DOCTYPE html><html>", "looks like HTML"),
    ("a.jsonl", b"chosen,rejected\na,b\n", "line 1 is not a JSON object"),
    ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ("a.jsonl", json.dumps(ROWS).encode(), "name it .json"),
    ("a.jsonl", json.dumps(ROWS, indent=1).encode(), "name it .json"),
    ("a.jsonl", b'{"chosen": ', "broken JSON"),
    ("a.json", b'[{"chosen": ', "broken JSON"),
    ("a.jsonl", b"PK\x03\x04", "zip"),
    ("a.jsonl", LINES.decode().encode("utf-16"), "line 1 is not a JSON object"),
    ("a.jsonl.gz", LINES, "is not gzip"),
    ("a.jsonl.gz", gzip.compress(LINES)[:-20], "can't be read to its end"),
    ("a.jsonl.gz", gzip.compress(PARQUET_BYTES), "looks like Parquet"),
    ("a.json", LINES, "name it .jsonl"),
    ("a.json", b"<html>", "looks like HTML"),
    ("a.json", b'{"train": [], "test": []}', "2 lists"),
    ("a.json", b"[1, 2]", "none of its items"),
    ("a.json", b"7", "not a JSON list"),
    ("a.parquet", LINES, "not a whole Parquet file"),
    ("a.parquet", PARQUET_BYTES, "torn"),
    ("a.parquet", b"", "not a whole Parquet file"),
    ("a.csv", b"chosen,rejected", "known endings .jsonl"),
]


@pytest.mark.parametrize(("name", "content", "message"), NOT_WHAT_THEY_SAY)
def test_a_file_that_is_not_what_its_name_says_is_fatal(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read(tmp_path, name)
    assert message in str(error.value)
    assert "prepare.train" in str(error.value)
    assert name in str(error.value)
    assert "Question" not in str(error.value)


def test_a_torn_parquet_file_is_fatal(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:40] + bytes(len(content) - 2000) + content[len(content) - 1960 :])
    with pytest.raises(DataError, match=r"prepare\.train: .*a\.parquet"):
        read(tmp_path, "a.parquet")


def test_columns_that_are_not_there_are_fatal_and_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"question": "a", "chosen": "b"}])
    with pytest.raises(DataError, match="no column rejected; found: question, chosen"):
        read(tmp_path, "a.parquet")


def test_what_is_not_there_is_named_with_its_param(tmp_path: Path) -> None:
    (tmp_path / "here.jsonl").write_bytes(LINES)
    with pytest.raises(DataError, match=r"prepare\.folder: .*nowhere is not a folder"):
        read(tmp_path / "nowhere", "a.jsonl")
    with pytest.raises(DataError, match=r"prepare\.train: no file a\.jsonl .* there are here\.jsonl"):
        read(tmp_path, "a.jsonl")
    params = PrepareParams(folder=str(tmp_path), train="here.jsonl", test="test.jsonl")
    with pytest.raises(DataError, match=r"prepare\.test: no file test\.jsonl"):
        open_sources(params, Path("/"))


def test_no_test_source_when_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    params = PrepareParams(folder=tmp_path.name, train="a.jsonl", test=None)
    sources = open_sources(params, tmp_path.parent)
    assert list(sources) == ["train"]
    assert sources["train"].label == f"{tmp_path.name}/a.jsonl"


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set as on the hub: named splits in Parquet, described by its card."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "set" / "data").mkdir(parents=True)
    write_parquet(tmp_path / "set" / "data" / "train_prefs-00000-of-00001.parquet", [pair(0), pair(1)])
    write_parquet(tmp_path / "set" / "data" / "test_prefs-00000-of-00001.parquet", [pair(2)])
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - {split: train_prefs, path: data/train_prefs-*}\n  - {split: test_prefs, path: data/test_prefs-*}\n---\n"
    )
    return tmp_path


def hub_params(**changes: Any) -> PrepareParams:
    fields = {"hub": HubDataset(id="set"), "train": "train_prefs", "test": "test_prefs"}
    return PrepareParams(**(fields | changes))


def test_named_splits_of_a_local_data_set_folder(hub_folder: Path) -> None:
    sources = open_sources(hub_params(), hub_folder)
    assert [row.columns for row in sources["train"].rows()] == [pair(0), pair(1)]
    assert list(sources["train"].rows()) == list(sources["train"].rows())
    assert list(sources["test"].rows()) == [SourceRow(0, pair(2))]
    assert sources["test"].label == "set:test_prefs"


def test_a_data_set_folder_of_json_lines(hub_folder: Path) -> None:
    for file in [*(hub_folder / "set" / "data").iterdir(), hub_folder / "set" / "README.md"]:
        file.unlink()
    (hub_folder / "set" / "data" / "train_prefs-00000-of-00001.jsonl").write_bytes(LINES)
    sources = open_sources(hub_params(test=None), hub_folder)
    assert [row.columns for row in sources["train"].rows()] == ROWS


def test_a_split_that_is_not_there_is_fatal_and_the_others_named(hub_folder: Path) -> None:
    with pytest.raises(DataError, match=r"prepare\.test: set has no split 'test'; it has train_prefs, test_prefs"):
        open_sources(hub_params(test="test"), hub_folder)


@pytest.mark.parametrize(
    ("hub", "message"),
    [
        (HubDataset(id="owner/absent"), r"prepare\.hub: the data set 'owner/absent' can't be opened"),
        (HubDataset(id="json"), r"prepare\.hub\.id: 'json' is neither a folder"),
        (HubDataset(id="set", config="other"), r"prepare\.hub: the data set 'set' can't be opened .*'other' not found"),
    ],
)
def test_a_data_set_that_is_not_there_is_fatal(hub_folder: Path, hub: HubDataset, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_sources(hub_params(hub=hub), hub_folder)


def test_a_data_set_with_code_is_refused(hub_folder: Path) -> None:
    (hub_folder / "set" / "set.py").write_text("raise SystemExit('was run')")
    with pytest.raises(DataError, match="scripts are no longer supported"):
        open_sources(hub_params(), hub_folder)


def test_a_torn_file_of_a_data_set_is_fatal_without_its_text(hub_folder: Path) -> None:
    (hub_folder / "set" / "data" / "train_prefs-00000-of-00001.parquet").write_bytes(b"PAR1 Question")
    with pytest.raises(DataError, match=r"prepare\.train: set, split 'train_prefs', can't be read \(ArrowInvalid\)"):
        open_sources(hub_params(), hub_folder)


def test_columns_of_a_data_set_that_are_not_there_are_fatal(hub_folder: Path) -> None:
    for split in ("train", "test"):
        write_parquet(hub_folder / "set" / "data" / f"{split}_prefs-00000-of-00001.parquet", [{"text": "a"}])
    with pytest.raises(DataError, match=r"prepare\.train: set.* no column chosen and rejected; found: text"):
        open_sources(hub_params(), hub_folder)


def test_offline_another_commit_than_the_one_asked_for_is_fatal(
    hub_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` falls back to the newest version in its cache, whatever revision was asked for."""
    import datasets

    made = datasets.load_dataset_builder(str(hub_folder / "set"))
    made.download_and_prepare()
    cached = hub_folder / "cache" / "owner___set" / "default" / "0.0.0" / ("a" * 40)
    cached.parent.mkdir(parents=True)
    Path(made.cache_dir).rename(cached)
    info = json.loads((cached / "dataset_info.json").read_text())
    (cached / "dataset_info.json").write_text(json.dumps(info | {"dataset_name": "set"}))

    def labels(revision: str | None) -> list[str]:
        hub = HubDataset(id="owner/set", revision=revision)
        return [source.label for source in open_sources(hub_params(hub=hub), hub_folder).values()]

    assert labels("a" * 40)[0] == f"owner/set@{'a' * 40}:train_prefs"
    assert labels(None)[0] == "owner/set:train_prefs"
    with pytest.raises(DataError, match=r"prepare\.hub\.revision: .* holds owner/set at aaaa"):
        labels("b" * 40)
