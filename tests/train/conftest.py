"""Fixtures of the tests of pipeline/train."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.models.manifest import Manifest
from tests.train.tiny import make_rows, save_start, write_split


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The policy's start."""
    return save_start(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="session")
def _written(start: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    write_split(root / "data", "train", make_rows(start, 22))
    write_split(root / "data", "validation", make_rows(start, 5, seed=1))
    return root / "data"


@pytest.fixture
def root(_written: Path, tmp_path: Path) -> Path:
    """A fresh root whose `data/` holds 22 train pairs in five shards, and 5 validation pairs."""
    shutil.copytree(_written, tmp_path / "data")
    return tmp_path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
