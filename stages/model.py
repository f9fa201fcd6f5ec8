"""Name the models with the digest of every file: `models/{judge,start,positive,negative}.json`."""

from pipeline.config.model import ModelParams
from pipeline.models.manifest import write_manifest
from pipeline.models.resolve import resolve
from pipeline.models.vocabulary import check_vocabulary
from stages.common import Stage, main

ROLES = ("judge", "start", "positive", "negative")


def work(stage: Stage) -> None:
    """Resolve all models and write their manifests."""
    params = stage.params("model", ModelParams)
    found = {role: resolve(params.ref(role), role, stage.root) for role in ROLES}
    for role in ("positive", "negative"):
        check_vocabulary(found[role], found["start"])
    for role, manifest in found.items():
        write_manifest(stage.path(f"models/{role}.json"), manifest)


if __name__ == "__main__":
    main("model", work)
