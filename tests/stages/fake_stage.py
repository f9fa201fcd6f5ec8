"""A stage without a model, to be run as `python -m stages.fake` in a folder of its own; FAULT says what goes wrong."""

import os
import signal
import time

import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.io.atomic import write_json
from pipeline.io.refusal import Refusal
from pipeline.io.tally import Totals
from pipeline.io.work import Out
from pipeline.schemas.reference import REFERENCE
from stages.common import Made, Maker, Report, Stage, main, map_model_shards

PLAN = {"train": [(2 * shard, 2 * shard + 2) for shard in range(6)], "test": [(0, 2), (2, 3)]}


def work(stage: Stage) -> None:
    """FAULT is `SPLIT SHARD WHAT`; WORKERS their number."""
    split_at, shard_at, fault = os.environ.get("FAULT", "none 0 none").split(maxsplit=2)
    depends = os.environ.get("DEPENDS", "") if stage.seat else ""
    run = stage.run({"depends": depends}, {}, mixable={"device": "cpu"})

    def note(text: str) -> None:
        with (stage.root / "made.log").open("a") as stream:
            stream.write(f"{os.getpid()} {text}\n")

    def open_maker() -> Maker:
        note("opens")
        if fault == "cannot open":
            raise PipelineError("layer 99 is not there; the model has 2")

        def make(split: str, shard: int, report: Report) -> Made:
            begin, end = PLAN[split][shard]
            report((end - begin) / 2, 10)
            if (split, shard) == (split_at, int(shard_at)):
                note(f"begins {split} {shard}")
                fail(fault)
            note(f"makes {split} {shard}")
            rows = [
                {"pair_id": f"{split}-{row}", "chosen_logps": [-row / 3], "rejected_logps": [-2.0]}
                for row in range(begin, end)
            ]
            refused = [Refusal(split, begin, f"{split}-{begin}", "empty")] if shard == 1 else []
            table = pa.Table.from_pylist(rows, schema=REFERENCE)
            return Made({"reference": table}, refused, tokens=100 * len(rows), counts={"flops": 0.5 * len(rows)})

        return make

    def fail(what: str) -> None:
        if what == "kill":
            print("about to die", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "refuse":
            raise PipelineError("pair train-4: a score is not finite; try float32\nand look at the model")
        if what == "defect":
            raise ZeroDivisionError("a defect")
        if what == "hang":
            try:
                time.sleep(600)
            finally:
                note("cleans up")

    def on_done(totals: Totals) -> None:
        write_json(stage.path("totals.json"), totals.__dict__)

    out = Out("reference", stage.path("data/reference"), REFERENCE)
    devices = [()] * int(os.environ.get("WORKERS", "1"))
    map_model_shards(stage, run, [out], PLAN, open_maker, devices, on_done)
    note("after")


if __name__ == "__main__":
    main("fake", work)
