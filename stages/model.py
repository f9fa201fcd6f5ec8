"""Name the judge and the policy's start: `models/judge.json`, `models/start.json`."""

from pipeline.config.model import ModelParams
from pipeline.models.manifest import write_manifest
from pipeline.models.resolve import resolve
from stages.common import Stage, main


def work(stage: Stage) -> None:
    """Resolve both models and write their manifests."""
    params = stage.params("model", ModelParams)
    for role, ref in (("judge", params.judge), ("start", params.start_ref)):
        write_manifest(stage.path(f"models/{role}.json"), resolve(ref, role, stage.root))


if __name__ == "__main__":
    main("model", work)
