"""What the tests of adapters share: params, sequences, runs, bfloat16 pairs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps
from pipeline.train.fsdp import process_group
from pipeline.train.run import Job, Training
from tests.models.tiny import budget
from tests.train.tiny import make_rows, write_split

LORA: dict[str, Any] = {"rank": 4, "alpha": 8, "merge": False}
LEARN: dict[str, Any] = {"lora": LORA, "learning_rate": 1e-2}
LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
"""Every linear module of the tiny Llama's blocks."""


def items(seed: int = 5) -> list[Prompted]:
    """Three prompts with two responses each, 33 response tokens in all."""
    random = np.random.default_rng(seed)
    return [Prompted(random.integers(2, 64, 5), [random.integers(2, 64, size) for size in (7, 4)]) for _ in range(3)]


def logps(model: LogProbModel) -> Tensor:
    """Log-probs [33] of `items`, one response after the other."""
    return torch.from_numpy(
        np.concatenate([part for item in response_logps(model, items(), budget(4096)) for part in item])
    )


@contextmanager
def training(job: Job) -> Iterator[Training]:
    """A run whose policy is still there."""
    with process_group(torch.device("cpu")):
        made = Training(job)
        made.run()
        yield made


@pytest.fixture(scope="module")
def rough(start: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root like `root` whose reference is bfloat16's; to be read alone."""
    root = tmp_path_factory.mktemp("rough")
    write_split(root / "data", "train", make_rows(start, 22, dtype="bfloat16"))
    write_split(root / "data", "validation", make_rows(start, 5, seed=1, dtype="bfloat16"))
    return root
