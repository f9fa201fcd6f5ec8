"""`make bench-train`: TRL's DPOTrainer and this project's trainer on the same pairs, each in its own process.

trl            TRL's trainer, with the fastest of the settings that are tried; it gets our token ids and the sums of our
               cached reference log-probs, so that both sides hold one model
ours           this project's Learner, prompts shared by the responses of a pair, also with its fastest setting
ours_unshared  the same without sharing

With uniform weights (a_t = 1 / T, |y| = T) Eq. 5 is DPO's loss. The policy is moved from the reference by seeded noise
and its learning rate is next to 0, so every step's loss is known: before anything is timed, losses and gradients' norms
of all sides are compared. Then the sides take turns, round by round. Prints a table, and as the last line JSON; `--save
NAME` keeps it under benchmarks/results/.
"""

import argparse
import datetime
import json
import math
import statistics
import sys
import tempfile
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks.process import Process, machine
from benchmarks.train_search import NOT_CHOSEN, Setting, Tried, grid, search, smallest
from benchmarks.train_sides import SIDES, arguments, parsed
from benchmarks.train_workload import BETA, FLOPS, LEARNING_RATE, NOISE, config, open_pairs, work
from benchmarks.workload import ROOT, SHAPES
from pipeline.attention.flops import peak_flops

WORKLOAD = ("model", "layers", "lengths", "dtype", "device", "threads", "pairs", "global_batch", "seed")
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.15}
"""Largest difference of a global batch's mean loss. In bfloat16 TRL's logits are bfloat16 too: 0.1 on each token's
log-prob, over hundreds of tokens. So what both compute is compared in float32, and bfloat16 only as far as it goes."""
NORM_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25}
"""Largest difference of a gradient's norm, as a share of it."""
MEANING = {
    "pairs_per_s": "forward and backward passes and optimizer steps over all global batches; medians of rounds",
    "ratio": "pairs_per_s / trl_pairs_per_s",
    "peak_mib": "most memory above what model and optimizer state hold; so is trl_peak_mib",
    "loss_diff": "largest |difference| of a global batch's mean loss between a side and the first one, in float32",
    "trl_smallest_peak": "of TRL's settings the one with the smallest peak, on the same pairs",
    "policy": f"the reference with noise of {NOISE} times each matrix's root mean square added; beta {BETA}, learning "
    f"rate {LEARNING_RATE}: the weights stay where they are, so that every round computes the same losses",
    "tried": "on one global batch of pairs spread over all lengths, the fastest first; seconds_per_pair of one step",
    "never_chosen": NOT_CHOSEN,
    "trl_rows": "in order of length within a global batch, so that its micro-batches pad little",
    "flops": FLOPS,
}

Found = dict[str, Any]


class Seat:
    """A side's process. On CUDA it lives for one `ask` at a time: the device holds one model and its optimizer."""

    def __init__(self, side: str, setting: Setting, reference: str, given: argparse.Namespace) -> None:
        self._arguments = side, setting, reference, given
        self._process = None if given.device == "cuda" else start(*self._arguments)

    def ask(self, *commands: str) -> list[Found]:
        """The answers. Exits where the side ran out of memory."""
        process = self._process or start(*self._arguments)
        answers = [process.ready]
        for command in commands:
            if "failed" in answers[-1]:
                break
            answers.append(process.ask(*command.split()))
        if self._process is None:
            process.close()
        if "failed" in answers[-1]:
            raise SystemExit(f"{self._arguments[0]} with {self._arguments[1]}: {answers[-1]['failed']}")
        return answers[1:]

    def close(self) -> None:
        if self._process:
            self._process.close()


def start(side: str, setting: Setting | None, reference: str, given: argparse.Namespace) -> Process:
    """One side at work."""
    command = [sys.executable, "-m", "benchmarks.train_sides", side, "--reference", reference]
    for name in WORKLOAD:
        if getattr(given, name) is not None:
            command += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    return Process(side, [*command, *(["--setting", json.dumps(setting)] if setting else [])], given.threads)


def measure(side: str, setting: Setting, reference: str, given: argparse.Namespace) -> Tried:
    """A setting on the pairs of the search, in a process of its own."""
    tried = Tried(setting)
    try:
        seat = Seat(side, setting, reference, given)
        steps, peak = seat.ask("run search", "peak")
        seat.close()
        tried.seconds_per_pair = sum(steps["seconds"]) / given.global_batch
        tried.peak_mib, tried.total_peak_mib = peak["above_mib"], peak["total_mib"]
        note = f"{tried.seconds_per_pair:.3f} s a pair, peak {tried.peak_mib:,.0f} MiB"
    except SystemExit as error:
        note = tried.failed = str(error)
    print(f"{side} {setting}: {note}", flush=True)
    return tried


def compare(found: dict[str, Found], dtype: str) -> tuple[float, float]:
    """Largest difference of losses, and of gradients' norms as a share, of all sides from the first one.

    Exits where one is larger than the dtype's tolerance, or where the losses could not tell.
    """
    (first, expected), *others = found.items()
    tolerance = LOSS_TOLERANCE[dtype]
    largest = {"losses": 0.0, "grad_norms": 0.0}
    for side, steps in others:
        for name, bound, what in (
            ("losses", tolerance, "loss"),
            ("grad_norms", NORM_TOLERANCE[dtype], "gradient's norm"),
        ):
            if len(steps[name]) != len(expected[name]):
                raise SystemExit(
                    f"{side} took {len(steps[name])} steps, {first} {len(expected[name])}: nothing is timed"
                )
            for index, (value, other) in enumerate(zip(steps[name], expected[name], strict=True)):
                difference = abs(value - other) / (abs(other) if name == "grad_norms" else 1.0)
                if not difference <= bound:
                    raise SystemExit(
                        f"global batch {index}: the {what} of {side} is {value:.6g}, {first}'s {other:.6g}; they "
                        f"differ by more than {bound:g}{' of it' if name == 'grad_norms' else ''}: nothing is timed"
                    )
                largest[name] = max(largest[name], difference)
    moved = max(abs(loss - math.log(2)) for loss in expected["losses"])
    if dtype == "float32" and moved <= 2 * tolerance:
        raise SystemExit(
            f"every loss of {first} is log 2 within {moved:.2g}: the policy is too near its reference for the "
            "comparison to tell anything; nothing is timed"
        )
    return largest["losses"], largest["grad_norms"]


def compare_exactly(folder: str, given: argparse.Namespace) -> tuple[float, float]:
    """`compare` in float32, each side with the first setting of its grid; on CUDA on two blocks, for its memory."""
    layers = min(given.layers or 2, 2) if given.device == "cuda" and given.model in SHAPES else given.layers
    alike = argparse.Namespace(**{**vars(given), "dtype": "float32", "layers": layers})
    reference = f"{folder}/reference-float32.npz"
    start("reference", None, reference, alike).close()
    found = {}
    for side in given.sides:
        seat = Seat(side, grid(side, alike)[0], reference, alike)
        [found[side]] = seat.ask("check all")
        seat.close()
        print(f"{side} in float32: losses", *(f"{loss:.6f}" for loss in found[side]["losses"]), flush=True)
    return compare(found, "float32")


def figures(seconds: dict[str, list[float]], peaks: dict[str, float], pairs: int, loss_diff: float | None) -> Found:
    """The result's first lines; None for what a side that did not run would say."""
    speed = {side: pairs / statistics.median(times) for side, times in seconds.items()}

    def ratio(side: str) -> float | None:
        return speed[side] / speed["trl"] if {side, "trl"} <= speed.keys() else None

    return {
        "pairs_per_s": speed.get("ours"),
        "trl_pairs_per_s": speed.get("trl"),
        "ratio": ratio("ours"),
        "ratio_without_prefix_sharing": ratio("ours_unshared"),
        "peak_mib": peaks.get("ours"),
        "trl_peak_mib": peaks.get("trl"),
        "loss_diff": loss_diff,
    }


def utilization(seconds: dict[str, list[float]], given: argparse.Namespace) -> Found:
    """Tokens, operations and, where the device's peak is known, the share of it that each side reaches."""
    shape = config(given.model, given.layers)
    total = work(open_pairs(given.lengths, given.pairs, shape.vocab_size, given.seed), shape)
    found: Found = {
        "tokens": total.tokens,
        "tokens_saved_by_sharing": total.tokens - total.shared_tokens,
        "response_tokens": total.response_tokens,
        "model_flops": total.model_flops,
        "computed_flops_with_sharing": total.computed_flops,
    }
    if peak := peak_flops(torch.device(given.device), given.dtype):
        computed = {"ours": total.computed_flops}
        medians = {side: statistics.median(times) for side, times in seconds.items()}
        found["flop_utilization"] = {
            side: {
                "model": total.model_flops / median / peak,
                "computed": computed.get(side, total.model_flops) / median / peak,
            }
            for side, median in medians.items()
        }
    return found


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """What was given, checked."""

    def numbers(text: str) -> list[int]:
        found = [int(word) for word in text.split(",")]
        if min(found) < 1:
            raise ValueError
        return found

    parser = arguments()
    parser.description = __doc__
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", default=",".join(SIDES), help="names with commas between; losses are compared with "
                        "the first one's")  # fmt: skip
    parser.add_argument("--trl-micro-batches", type=numbers, default=[1, 2, 4], help="pairs; tried for TRL")
    parser.add_argument("--micro-batch-tokens", type=numbers, default=[1024, 2048, 4096], help="tried for this trainer")
    parser.add_argument("--checkpointing", default="off,on", help="tried for both: off, on, or off,on")
    parser.add_argument("--no-variants", dest="variants", action="store_false", help="don't try TRL's other optimizer, "
                        "reference as a model, and this project's malloc settings")  # fmt: skip
    parser.add_argument("--torch-compile", action="store_true", help="try it on the fastest setting of each side")
    parser.add_argument("--save", help="name of a file below benchmarks/results/")
    given = parsed(parser, words)
    given.sides = list(dict.fromkeys(given.sides.split(",")))
    if unknown := [side for side in given.sides if side not in SIDES]:
        parser.error(f"--sides: unknown {', '.join(map(repr, unknown))}; choose from {', '.join(SIDES)}")
    given.checkpointing = given.checkpointing.split(",")
    if not set(given.checkpointing) <= {"off", "on"}:
        parser.error("--checkpointing: choose off, on, or off,on")
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    if "trl" in given.sides and find_spec("trl") is None:
        parser.error("trl is not installed: pip install -e '.[dev]', or leave it out with --sides ours,ours_unshared")
    return given


def main() -> None:
    """Search, check, time, print."""
    given = parse()
    shape = config(given.model, given.layers)
    open_pairs(given.lengths, given.pairs, shape.vocab_size, given.seed)  # what is missing is said here
    with tempfile.TemporaryDirectory() as folder:
        loss_diff, norm_diff = compare_exactly(folder, given) if len(given.sides) > 1 else (None, None)
        reference = f"{folder}/reference.npz"
        start("reference", None, reference, given).close()
        tried = {side: search(side, given, lambda setting, side=side: measure(side, setting, reference, given))  # type: ignore[misc]
                 for side in given.sides}  # fmt: skip
        seats = {side: Seat(side, found[0].setting, reference, given) for side, found in tried.items()}
        checked, peaks, totals = {}, {}, {}
        for side, seat in seats.items():
            [checked[side]] = seat.ask("check all")
        own_diffs = compare(checked, given.dtype) if len(seats) > 1 else (None, None)
        seconds: dict[str, list[float]] = {side: [] for side in seats}
        for number in range(1, given.rounds + 1):
            for side, seat in seats.items():
                steps, peak = seat.ask("run all", "peak")
                seconds[side].append(sum(steps["seconds"]))
                peaks[side] = max(peaks.get(side, 0.0), peak["above_mib"])
                totals[side] = max(totals.get(side, 0.0), peak["total_mib"])
            print(f"round {number}:", *(f"{side} {times[-1]:.2f} s" for side, times in seconds.items()), flush=True)
        for seat in seats.values():
            seat.close()
        lean = _lean(tried["trl"], reference, given) if "trl" in tried and len(tried["trl"]) > 1 else None
    print(f"\n{given.pairs} pairs, global batch {given.global_batch}, {given.dtype}, {given.device}, {given.threads} "
          f"threads, {given.rounds} rounds")  # fmt: skip
    print(f"{'':16}{'pairs/s':>9}{'median s':>10}{'peak MiB':>10}{'with model':>12}")
    for side, times in seconds.items():
        median = statistics.median(times)
        print(f"{side:16}{given.pairs / median:>9.3f}{median:>10.3f}{peaks[side]:>10.0f}{totals[side]:>12.0f}")
    print("peak MiB: above model and optimizer; with model: of the whole process (on CUDA: of its allocator)")
    details = {
        "dtype": given.dtype,
        "chosen": {side: found[0].setting for side, found in tried.items()},
        "seconds": seconds,
        "peaks_mib": peaks,
        "total_peaks_mib": totals,
        "losses": {side: steps["losses"] for side, steps in checked.items()},
        "grad_norm_diff": norm_diff,
        "diffs_in_dtype": dict(zip(("loss", "grad_norm"), own_diffs, strict=True)),
        "trl_smallest_peak": lean,
        **utilization(seconds, given),
        "tried": {side: [vars(each) for each in found] for side, found in tried.items()},
        "meaning": MEANING,
        "workload": {name: getattr(given, name) for name in WORKLOAD},
        "machine": machine(given.device, ["torch", "transformers", *(["trl"] if "trl" in tried else [])]),
        "date": datetime.date.today().isoformat(),
    }
    result = {**figures(seconds, peaks, given.pairs, loss_diff), "details": details}
    if given.save:
        path = ROOT / "benchmarks" / "results" / given.save
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def _lean(tried: list[Tried], reference: str, given: argparse.Namespace) -> Found:
    """TRL with its smallest peak, one round over all pairs."""
    setting = smallest(tried).setting
    seat = Seat("trl", setting, reference, given)
    steps, peak = seat.ask("run all", "peak")
    seat.close()
    return {
        "setting": setting,
        "pairs_per_s": given.pairs / sum(steps["seconds"]),
        "peak_mib": peak["above_mib"],
        "total_peak_mib": peak["total_mib"],
    }


if __name__ == "__main__":
    main()
