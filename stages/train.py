"""Train the policy on cached weights and cached reference log-probs: `models/policy/`, curves in `reports/train/`."""

import json
import logging
import os

from pipeline.config.train import TrainParams
from pipeline.io.digest import tree_digest
from pipeline.io.work import open_work
from pipeline.models.device import choose_device
from pipeline.models.named import named_model
from pipeline.train.finish import publish, read_finished
from pipeline.train.launch import is_worker, launch, run_worker, worker_folder
from pipeline.train.run import Job, run_training
from pipeline.train.stream import PairArtifacts
from stages.common import Stage, main

READ = ("train", "validation")


def work(stage: Stage) -> None:
    """Train in this process or in as many as `runtime.processes` says; a finished run is only published again."""
    if is_worker():
        _work_as_one_of_many(stage)
        return
    params = stage.params("train", TrainParams)
    start = named_model(stage.root, "start")
    artifacts = PairArtifacts.below(stage.path("data"))
    inputs = {
        name: tree_digest([artifact.path / split for split in READ])
        for name, artifact in (
            ("tokens", artifacts.tokens),
            ("aligned", artifacts.aligned),
            ("reference", artifacts.reference),
            ("third", artifacts.third),
        )
        if artifact is not None
    }
    device = choose_device(stage.runtime.device, stage.runtime.threads)
    run = stage.run(params.model_dump(), {**inputs, "model": start.digest}, mixable={"device": device.type})
    with open_work(stage.root, run, outs=[]) as opened:
        folder, curves = opened.folder, stage.path("reports/train")
        finished = read_finished(folder)
        if finished is None and stage.runtime.processes > 1:
            finished = launch("stages.train", stage.runtime.processes, stage.runtime.threads, folder, stage.root)
        elif finished is None:
            finished = run_training(Job(params, stage.runtime, artifacts, start, folder, curves, run.depends))
        stage.write_metrics(finished.summary)
        publish(folder, finished, stage.path("models/policy"), curves)
        opened.publish({})


def _work_as_one_of_many(stage: Stage) -> None:
    """Params come from the launcher's record of the run, so that all processes have the same."""
    if os.environ["RANK"] != "0":
        logging.getLogger("pipeline").setLevel(logging.ERROR)
    folder = worker_folder()
    depends = json.loads((folder / "run.json").read_text(encoding="utf-8"))["depends"]
    run_worker(
        Job(
            TrainParams.model_validate(depends["params"]),
            stage.runtime,
            PairArtifacts.below(stage.path("data")),
            named_model(stage.root, "start"),
            folder,
            stage.path("reports/train"),
            depends,
        )
    )


if __name__ == "__main__":
    main("train", work)
