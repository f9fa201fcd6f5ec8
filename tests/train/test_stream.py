"""Reading pairs from shards: joined by id, little in memory, every mismatch named."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import DataError, NonFiniteError, ShardError
from pipeline.models.manifest import Manifest
from pipeline.train.order import shuffled_order, stored_order
from pipeline.train.stream import PairArtifacts, PairStream, check_fits, open_optional_split, open_split
from tests.train.tiny import Rows, make_rows, make_third, mark_third, write_split


@pytest.fixture
def rows(start: Manifest) -> Rows:
    return make_rows(start, 12)


def opened(data: Path, rows: Rows, pairs_per_shard: int = 5) -> PairStream:
    write_split(data, "train", rows, pairs_per_shard)
    return open_split(PairArtifacts.below(data), "train")


def test_a_pair_holds_what_the_three_artifacts_say(tmp_path: Path, rows: Rows) -> None:
    stream = opened(tmp_path, rows)
    pairs = stream.block(stored_order(stream.shard_rows), 0, len(stream))
    assert [pair.pair_id for pair in pairs] == [row["pair_id"] for row in rows["tokens"]]
    pair, tokens, aligned, reference = pairs[7], rows["tokens"][7], rows["aligned"][7], rows["reference"][7]
    assert pair.prompt_ids.tolist() == tokens["prompt_ids"]
    assert pair.rejected.ids.tolist() == tokens["rejected_ids"]
    assert pair.rejected.weights == pytest.approx(aligned["rejected_weights"])
    assert pair.rejected.length == aligned["rejected_length"]
    assert pair.rejected.ref_logps == pytest.approx(reference["rejected_logps"])
    assert pair.tokens == 2 * 5 + len(tokens["chosen_ids"]) + len(tokens["rejected_ids"])


def test_pairs_that_realign_refused_are_left_out_and_the_order_of_tokens_is_kept(tmp_path: Path, rows: Rows) -> None:
    gone = {rows["tokens"][index]["pair_id"] for index in (0, 6, 7)}
    rows["aligned"] = [row for row in reversed(rows["aligned"]) if row["pair_id"] not in gone]
    rows["reference"].reverse()
    stream = opened(tmp_path, rows)
    assert stream.shard_rows == [4, 3, 2]
    pairs = stream.block(stored_order(stream.shard_rows), 0, len(stream))
    assert [pair.pair_id for pair in pairs] == [r["pair_id"] for r in rows["tokens"] if r["pair_id"] not in gone]
    for pair in pairs:
        [reference] = [row for row in rows["reference"] if row["pair_id"] == pair.pair_id]
        assert pair.chosen.ref_logps == pytest.approx(reference["chosen_logps"])


def test_any_cut_of_an_epoch_into_blocks_gives_the_same_pairs(tmp_path: Path, rows: Rows) -> None:
    stream = opened(tmp_path, rows, 3)
    order = shuffled_order(0, 0, stream.shard_rows, window_shards=2)
    whole = [pair.pair_id for pair in stream.block(order, 0, 12)]
    for cuts in ([0, 12], [0, 1, 5, 12], [0, 4, 8, 12]):
        blocks = [stream.block(order, begin, end) for begin, end in pairwise(cuts)]
        assert [pair.pair_id for block in blocks for pair in block] == whole
    assert len(set(whole)) == 12


def test_no_more_than_a_window_of_shards_is_held(tmp_path: Path, rows: Rows) -> None:
    stream = opened(tmp_path, rows, 2)
    order = shuffled_order(0, 0, stream.shard_rows, window_shards=2)
    for position in range(12):
        stream.block(order, position, position + 1)
        assert len(stream._loaded) <= 2


def test_a_split_without_pairs(tmp_path: Path, rows: Rows) -> None:
    empty: Rows = {name: [] for name in rows}
    write_split(tmp_path, "validation", empty)
    artifacts = PairArtifacts.below(tmp_path)
    assert open_optional_split(artifacts, "validation") is None
    assert open_optional_split(artifacts, "test") is None
    with pytest.raises(DataError, match="validation: no usable pair"):
        open_split(artifacts, "validation")


def breakages() -> dict[str, tuple[Any, type[Exception], str]]:
    def nan_weight(rows: Rows) -> None:
        rows["aligned"][3]["chosen_weights"][1] = float("nan")

    def infinite_logp(rows: Rows) -> None:
        rows["reference"][3]["rejected_logps"][0] = -np.inf

    def nan_length(rows: Rows) -> None:
        rows["aligned"][3]["rejected_length"] = float("nan")

    def short_weights(rows: Rows) -> None:
        rows["aligned"][3]["chosen_weights"].pop()

    def no_reference(rows: Rows) -> None:
        del rows["reference"][3]

    def twice(rows: Rows) -> None:
        rows["tokens"][4] = rows["tokens"][3]

    return {
        "nan weight": (nan_weight, NonFiniteError, r"aligned.*part-00000.*chosen_weights of pair pair-0-003"),
        "infinite log-prob": (infinite_logp, NonFiniteError, r"reference.*rejected_logps of pair pair-0-003"),
        "nan length": (nan_length, NonFiniteError, r"aligned.*rejected_length of pair pair-0-003"),
        "short weights": (short_weights, ShardError, r"aligned.*chosen_weights of pair pair-0-003.*tokens"),
        "no reference": (no_reference, ShardError, r"reference.*lacks pair pair-0-003"),
        "twice": (twice, ShardError, r"tokens.*part-00000.*twice"),
    }


@pytest.mark.parametrize("name", breakages())
def test_broken_artifacts_are_named(tmp_path: Path, rows: Rows, name: str) -> None:
    break_it, error, message = breakages()[name]
    break_it(rows)
    stream = opened(tmp_path, rows)
    with pytest.raises(error, match=message):
        stream.block(stored_order(stream.shard_rows), 0, len(stream))


def test_shards_over_other_pairs_are_refused(tmp_path: Path, rows: Rows) -> None:
    write_split(tmp_path / "other", "train", rows, 4)
    write_split(tmp_path, "train", rows, 5)
    for name in ("tokens", "aligned"):
        (tmp_path / "other" / name).rename(tmp_path / f"other-{name}")
    artifacts = PairArtifacts.below(tmp_path)
    mixed = PairArtifacts(artifacts.tokens, artifacts.aligned, PairArtifacts.below(tmp_path / "other").reference)
    with pytest.raises(ShardError, match=r"other/reference/train: its shards cover other pairs"):
        open_split(mixed, "train")


@pytest.fixture
def thirds(tmp_path: Path, start: Manifest) -> Path:
    """Artifacts for TI-DPO: a reference, and third responses of kind anchor."""
    rows = make_rows(start, 3)
    rows["third"] = make_third(rows, start)
    write_split(tmp_path, "train", rows)
    mark_third(tmp_path, "anchor")
    return tmp_path


def test_artifacts_of_the_objective_fit(thirds: Path, tmp_path: Path, rows: Rows) -> None:
    check_fits(PairArtifacts.below(thirds), {"ref_logps", "anchor"})
    write_split(tmp_path / "two", "train", rows)
    check_fits(PairArtifacts.below(tmp_path / "two"), {"ref_logps"})
    check_fits(PairArtifacts.below(tmp_path / "two"), set())
    check_fits(PairArtifacts.below(tmp_path / "nothing"), {"ref_logps", "gold"})  # who opens a split says what is gone


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (
            {"ref_logps", "kl_pairs"},
            r"data/third: .* of kind anchor, but train\.objective takes those of kind kl_pairs",
        ),
        ({"gold"}, r"data/third: .* of kind anchor, but train\.objective takes those of kind gold; run `dvc repro`"),
        ({"ref_logps"}, r"data/third: .* of kind anchor, but train\.objective takes none; run `dvc repro`"),
    ],
)
def test_third_responses_for_another_objective_are_refused(
    thirds: Path, tmp_path_factory: pytest.TempPathFactory, needs: set[str], message: str
) -> None:
    data = tmp_path_factory.mktemp("root") / "data"
    thirds.rename(data)
    with pytest.raises(ShardError, match=message):
        check_fits(PairArtifacts.below(data), needs)


def test_third_responses_of_no_known_kind_are_refused(tmp_path: Path, start: Manifest, rows: Rows) -> None:
    rows["third"] = make_third(rows, start)
    write_split(tmp_path, "train", rows)
    for needs in ({"gold"}, {"ref_logps"}):
        with pytest.raises(ShardError, match="third: holds third responses of kind None"):
            check_fits(PairArtifacts.below(tmp_path), needs)


def test_artifacts_that_were_left_empty_for_another_objective_are_refused(tmp_path: Path, rows: Rows) -> None:
    del rows["reference"]
    write_split(tmp_path, "train", rows)
    artifacts = PairArtifacts.below(tmp_path)
    assert artifacts.reference is None
    assert artifacts.third is None
    with pytest.raises(ShardError, match=r"/reference: was left empty, but train\.objective needs .*; run `dvc repro`"):
        check_fits(artifacts, {"ref_logps"})
    with pytest.raises(ShardError, match=r"/third: was left empty, .* train\.objective needs .* gold; run `dvc repro`"):
        check_fits(artifacts, {"gold"})
