"""What is known to fail in scoring is said from configs alone, by the model's name in params."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.models.manifest import Manifest
from pipeline.models.scoring import SUPPORTED_MODEL_TYPES, check_same_words, check_scoring
from tests.models import tiny


def manifest(folder: Path, role: str, **changes: Any) -> Manifest:
    """A model of which nothing but the config is there."""
    path = folder / role
    tiny.model("llama").config.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))
    return Manifest(role=role, source="folder", path=path, repo=None, revision=None, files={}, sizes={})


@pytest.mark.parametrize("kind", SUPPORTED_MODEL_TYPES)
def test_a_known_model_with_enough_context_passes(kind: str, tmp_path: Path) -> None:
    check_scoring(manifest(tmp_path, "positive", model_type=kind, max_position_embeddings=512), 512)


def test_a_shorter_context_is_refused(tmp_path: Path) -> None:
    found = manifest(tmp_path, "positive", max_position_embeddings=512)
    with pytest.raises(ConfigError, match=r"model\.positive: .* reads 512 tokens, and tokenize\.max_tokens is 513"):
        check_scoring(found, 513)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.negative: negative is a 'granite' model.*choose one of llama"):
        check_scoring(manifest(tmp_path, "negative", model_type="granite"), 16)


def test_sequences_beyond_one_rotary_embedding_are_refused(tmp_path: Path) -> None:
    factors = [1.0] * 4
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": factors,
        "long_factor": factors,
        "original_max_position_embeddings": 128,
    }
    found = manifest(tmp_path, "start", rope_parameters=rope, max_position_embeddings=512)
    check_scoring(found, 128)
    with pytest.raises(ConfigError, match=r"from 128 tokens on it rotates .* \(longrope\).*lower it to 128"):
        check_scoring(found, 129)


def test_logits_of_other_words_have_no_difference(tmp_path: Path) -> None:
    positive = manifest(tmp_path, "positive", vocab_size=300)
    check_same_words(positive, manifest(tmp_path / "same", "negative", vocab_size=300))
    with pytest.raises(ConfigError, match=r"model\.positive .* 300 words and model\.negative .* 304"):
        check_same_words(positive, manifest(tmp_path, "negative", vocab_size=304))
