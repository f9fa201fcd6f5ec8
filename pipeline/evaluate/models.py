"""The trained policy as a model to load: a folder without a manifest of its own."""

from dataclasses import replace
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.manifest import Manifest


def policy_manifest(folder: Path, start: Manifest) -> Manifest:
    """The policy in `folder`, which has the start's tokenizer and chat template.

    Raises ModelError when training has left no model there.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no model; train it with `dvc repro train`")
    return replace(start, role="trained", source="folder", path=folder, repo=None, revision=None, files={}, sizes={})
