"""Section `prepare`: where preference pairs come from and how they are split."""

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.config.base import Section


class HubDataset(Section):
    """A data set that `datasets.load_dataset` can read: a hub id, or a local data set folder."""

    id: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    config: str | None = None
    """The configuration (subset) of the data set, where it has several."""


class PrepareParams(Section):
    """Pairs come from files in `folder`, or from `hub` where that is given."""

    folder: Annotated[str, Field(min_length=1)] = "data/sample"
    hub: HubDataset | None = None
    train: Annotated[str, Field(min_length=1)] = "train.jsonl"
    """File below `folder` (.jsonl, .json, .parquet, and .jsonl.gz), or the name of the hub's split."""
    test: str | None = "test.jsonl"
    """The same for the pairs that `evaluate` alone reads; none: no test pairs."""
    validation_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of train prompts held out to pick the checkpoint, chosen by hash of the prompt."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use at most so many rows of each split, from its start: for pilots."""
    pairs_per_shard: Annotated[int, Field(ge=1)] = 256
    """Pairs in one Parquet shard of every later artifact."""

    @model_validator(mode="after")
    def _splits_differ(self) -> "PrepareParams":
        if self.test == self.train:
            raise ValueError(f"`train` and `test` both name {self.train!r}; test pairs must be other pairs")
        return self
