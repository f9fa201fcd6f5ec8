"""Where preference pairs come from: a file below `prepare.folder`, or a split of a data set that `datasets` reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config.prepare import PrepareParams
from pipeline.data.arrow_rows import SourceRow
from pipeline.data.files import known_reader, read_file
from pipeline.data.hub import open_split
from pipeline.errors import DataError

SourceSplit = Literal["train", "test"]


@dataclass(frozen=True)
class Source:
    """The rows of one source split, read anew by every call of `rows`."""

    split: SourceSplit
    label: str
    """How refusals' readers find it again, without the root: `data/sample/train.jsonl`, or `owner/name:split`."""
    params_path: str
    """The field of params.yaml that names it."""
    rows: Callable[[], Iterator[SourceRow]]


def open_sources(params: PrepareParams, root: Path) -> dict[SourceSplit, Source]:
    """The train source, and the test source where one is named.

    root: relative folders of the params are below it. Raises DataError when a file, data set or split is not there;
    what is wrong inside a file shows when its rows are read.
    """
    named: dict[SourceSplit, str | None] = {"train": params.train, "test": params.test}
    return {split: _source(params, root, split, name) for split, name in named.items() if name is not None}


def _source(params: PrepareParams, root: Path, split: SourceSplit, name: str) -> Source:
    where = f"prepare.{split}"
    if params.hub is None:
        path = root / params.folder / name
        if not (root / params.folder).is_dir():
            raise DataError(f"prepare.folder: {params.folder} is not a folder (looked in {root}); correct it")
        if not path.is_file():
            raise DataError(f"{where}: no file {name} in prepare.folder ({params.folder}); {_files_there(path.parent)}")
        known_reader(path, where)
        return Source(split, f"{params.folder.rstrip('/')}/{name}", where, lambda: read_file(path, where))
    table = open_split(params.hub, name, root, where)
    config = f"/{params.hub.config}" if params.hub.config else ""
    revision = f"@{params.hub.revision}" if params.hub.revision else ""
    return Source(split, f"{params.hub.id}{config}{revision}:{name}", where, table)


def _files_there(folder: Path) -> str:
    names = sorted(item.name for item in folder.iterdir() if item.is_file()) if folder.is_dir() else []
    if not names:
        return "the folder holds no file"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"there are {', '.join(names[:10])}{more}"
