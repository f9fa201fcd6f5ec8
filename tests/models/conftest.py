"""Fixtures of the tests of pipeline/models."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tests.models.tiny import TOKENIZERS


@pytest.fixture(scope="session")
def tiny_tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """One tokenizer of every family, built once."""
    return {name: build() for name, build in TOKENIZERS.items()}


@pytest.fixture(params=list(TOKENIZERS))
def tiny_tokenizer(request: pytest.FixtureRequest, tiny_tokenizers: dict[str, PreTrainedTokenizerFast]) -> object:
    """Each tokenizer family in turn."""
    return tiny_tokenizers[request.param]


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
