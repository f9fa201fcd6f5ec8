"""Identity of pairs, and `data/pairs/{split}.parquet` written and read."""

import hashlib
import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.pairs import Pair, open_pairs, pair_id, prompt_key, write_pairs
from pipeline.data.splits import in_validation
from pipeline.errors import ShardError
from pipeline.io.parquet import write_table
from pipeline.schemas.pairs import PAIRS

FACTS = {"artifact": "pairs", "split": "train", "key": "k", "pairs_per_shard": 4}


def make_pair(number: int, chosen: str = "yes") -> Pair:
    prompt = [{"role": "user", "content": f"Question {number}?"}]
    return Pair(prompt, chosen, "no", 1.5, None, None, f"here#{number}")


def test_pair_id_is_sha256_of_canonical_json() -> None:
    context = [{"role": "user", "content": 'é "q"'}]
    text = json.dumps([[["user", 'é "q"']], "ja", "nein\u2028"]).replace(", ", ",")
    assert pair_id(context, "ja", "nein\u2028") == hashlib.sha256(text.encode()).hexdigest()


def test_identity_depends_on_texts_and_roles_alone() -> None:
    pair = make_pair(1)
    ids = {
        pair.pair_id,
        pair_id(pair.prompt, pair.rejected, pair.chosen),
        pair_id(pair.prompt, pair.chosen + " ", pair.rejected),
        pair_id([{**pair.prompt[0], "role": "system"}], pair.chosen, pair.rejected),
        pair_id([*pair.prompt, {"role": "assistant", "content": pair.chosen}], pair.rejected, ""),
    }
    assert len(ids) == 5
    other = Pair(pair.prompt, pair.chosen, pair.rejected, None, 9.0, "best", "elsewhere")
    assert other.pair_id == pair.pair_id
    assert prompt_key(pair.prompt) != prompt_key([])


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(), max_size=9))
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("pairs") / "train.parquet"
    pairs = [make_pair(number, text) for number, text in enumerate(texts)]
    write_pairs(path, pairs, FACTS)
    read = open_pairs(path)
    assert [row for begin, end in read.shards for row in read.records(begin, end)] == [pair.record() for pair in pairs]


@pytest.mark.parametrize(
    ("number", "shards"), [(0, [(0, 0)]), (1, [(0, 1)]), (4, [(0, 4)]), (9, [(0, 4), (4, 8), (8, 9)])]
)
def test_shards_are_fixed_ranges_of_rows(tmp_path: Path, number: int, shards: list[tuple[int, int]]) -> None:
    write_pairs(tmp_path / "train.parquet", [make_pair(row) for row in range(number)], FACTS)
    pairs = open_pairs(tmp_path / "train.parquet")
    assert pairs.pairs_per_shard == 4
    assert pairs.shards == shards
    assert pairs.table.num_rows == number


def test_many_batches_are_one_table(tmp_path: Path) -> None:
    pairs = [make_pair(row) for row in range(2500)]
    write_pairs(tmp_path / "train.parquet", pairs, FACTS)
    assert pq.read_table(tmp_path / "train.parquet")["pair_id"].to_pylist() == [pair.pair_id for pair in pairs]


def test_another_artifact_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    with pytest.raises(ShardError, match=r"train\.parquet: no such file"):
        open_pairs(path)
    write_table(path, PAIRS.empty_table(), {"artifact": "tokens"})
    with pytest.raises(ShardError, match=r"train\.parquet: holds 'tokens', not pairs"):
        open_pairs(path)


def test_validation_share_is_met_and_grows_by_adding_prompts() -> None:
    keys = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]
    held = {share: {key for key in keys if in_validation(key, share)} for share in (0.0, 0.05, 0.1, 0.5)}
    assert not held[0.0]
    assert held[0.05] < held[0.1] < held[0.5]
    for share, found in held.items():
        assert abs(len(found) / len(keys) - share) < 0.01
    assert in_validation("f" * 64, 0.999) is False
    assert in_validation("0" * 64, 1e-9) is True


def test_no_other_row_has_a_say_in_the_split() -> None:
    keys = [make_pair(number).prompt_key for number in range(200)]
    alone = {key: in_validation(key, 0.2) for key in keys}
    random.Random(0).shuffle(keys)
    assert all(in_validation(key, 0.2) == alone[key] for key in keys)
