"""What vLLM's judgements are compared with: transformers, one judge loaded per call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.attention.backend import Judgement, JudgePrompt
from pipeline.attention.transformers_backend import TransformersBackend
from pipeline.models.load import load_model
from tests.vllm.conftest import CPU, LETTERS, manifest


def by_transformers(folder: Path, prompts: Sequence[JudgePrompt], dtype: str = "float32", **settings: Any) -> Any:
    """The transformers backend's judgements; `settings` as its constructor takes them."""
    settings = {"layers": [0, 14, 29], "verdict_ids": LETTERS, "token_budget": 2048} | settings
    return TransformersBackend(load_model(manifest(folder), dtype, CPU), **settings).run(prompts)


def assert_same(found: Sequence[Judgement], expected: Sequence[Judgement], atol: float = 2e-6) -> None:
    """Rows, probabilities and top tokens; scores are shares of 1, float32."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours.rows) == list(theirs.rows)
        for layer, spans in theirs.rows.items():
            for mine, reference in zip(ours.rows[layer], spans, strict=True):
                assert mine.dtype == np.float32
                np.testing.assert_allclose(mine, reference, atol=atol, rtol=0, err_msg=f"layer {layer}")
        if theirs.verdict is None:
            assert ours.verdict is None
            continue
        assert ours.verdict is not None
        assert ours.verdict.prob_a == pytest.approx(theirs.verdict.prob_a, abs=max(10 * atol, 1e-5))
        assert ours.verdict.prob_b == pytest.approx(theirs.verdict.prob_b, abs=max(10 * atol, 1e-5))
        assert ours.verdict.top_token == theirs.verdict.top_token
