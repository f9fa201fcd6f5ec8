"""Rows of a data set that `datasets` reads: a hub id or a local data set folder. None of its code is run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config.prepare import HubDataset
from pipeline.data.arrow_rows import SourceRow, rows_of_batches, wanted_columns
from pipeline.errors import DataError

_BATCH = 1024


def open_split(hub: HubDataset, split: str, root: Path, where: str) -> Callable[[], Iterator[SourceRow]]:
    """The rows of one split; `where` is the params path that names it.

    hub.id: a folder below `root` where there is one, else a repository of the hub, read from the local cache when it is
    offline. Raises DataError when the data set, its configuration, the split or its columns are not there.
    """
    folder = root / hub.id
    if not folder.is_dir() and "/" not in hub.id:
        raise DataError(f"prepare.hub.id: {hub.id!r} is neither a folder (in {root}) nor an id `owner/name` of the hub")
    # Imported here: it takes seconds, which runs on local files need not wait for.
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetsError

    name = str(folder.resolve()) if folder.is_dir() else hub.id
    try:
        builder = load_dataset_builder(name, hub.config, revision=hub.revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(
            f"prepare.hub: the data set {hub.id!r} can't be opened ({_first_line(error)}); check its id, config and"
            " revision, that you may read it, and the network (offline, it must be in the local cache)"
        ) from None
    _check_revision(hub, builder)
    there = _splits(builder)
    if there and split not in there:
        raise DataError(f"{where}: {hub.id} has no split {split!r}; it has {', '.join(there)}")
    try:
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        # The message of this error may quote a row; its kind does not.
        cause = error.__cause__ or error
        raise DataError(
            f"{where}: {hub.id}, split {split!r}, can't be read ({type(cause).__name__}); check that its files are"
            " whole and all of one format, and that the disk has room for the cache of `datasets`"
        ) from None
    columns = wanted_columns(dataset.column_names, f"{where}: {hub.id}, split {split!r}")
    return lambda: rows_of_batches(_batches(dataset.select_columns(columns).with_format("arrow")))


def _check_revision(hub: HubDataset, builder: Any) -> None:
    # Without the hub, `datasets` takes the newest version in its cache, whatever revision was asked for.
    if hub.revision is not None and builder.name == "cache" and builder.hash != hub.revision:
        raise DataError(
            f"prepare.hub.revision: the hub can't be reached, and the local cache holds {hub.id} at {builder.hash}, not"
            f" at {hub.revision}; connect to the network, or ask for the commit that is there"
        )


def _splits(builder: Any) -> list[str]:
    if builder.info.splits:
        return [str(name) for name in builder.info.splits]
    return [str(name) for name in builder.config.data_files or ()]


def _batches(dataset: Any) -> Iterator[pa.RecordBatch]:
    for table in dataset.iter(batch_size=_BATCH):
        yield from table.to_batches()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
