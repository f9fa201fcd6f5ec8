"""Fixtures that several folders of tests share. No test uses the network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real preference pairs beside the checkout, where they are."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not there: tests on real preference pairs are skipped")
    return folder


@pytest.fixture(scope="session")
def default_model_dir() -> Path:
    """The unpacked default model; `make test` fetches it before the tests."""
    folder = ROOT / "models" / "packaged" / "SmolLM2-135M-Instruct"
    if not (folder / "model.safetensors").is_file():
        pytest.fail("the packaged model is not unpacked; run `make test`, which fetches it first")
    return folder


@pytest.fixture(scope="session")
def default_tokenizer(default_model_dir: Path) -> Any:
    """Tokenizer of the default model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(default_model_dir, local_files_only=True)
