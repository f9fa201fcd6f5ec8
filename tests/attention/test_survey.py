"""Header and longest prompt of a run, over all shards."""

import pyarrow as pa
import pytest

from pipeline.attention.survey import check_context, survey
from pipeline.errors import ModelError


class FakeShard:
    def __init__(self, prompts):
        self._prompts = prompts

    def table(self, columns):
        full = pa.table(
            {
                "pair_id": [f"p{i // 2}" for i in range(len(self._prompts))],
                "round": [1 + i % 2 for i in range(len(self._prompts))],
                "input_ids": pa.array(self._prompts, pa.list_(pa.int32())),
            }
        )
        return full.select(columns)


def test_the_header_is_what_all_prompts_of_all_shards_share():
    shards = [FakeShard([[1, 2, 3, 4, 5], [1, 2, 3, 9]]), FakeShard([[1, 2, 3, 7], [1, 2, 8, 8, 8, 8]])]
    found = survey(shards)
    assert found.header == [1, 2]
    assert (found.longest, found.longest_name) == (6, "pair p0, round 2")


def test_every_prompt_keeps_a_token():
    assert survey([FakeShard([[1, 2, 3], [1, 2]])]).header == [1]
    assert survey([FakeShard([[1, 2]])]).header == [1]


def test_no_prompts():
    found = survey([FakeShard([])])
    assert (found.longest, found.header) == (0, [])
    check_context(found, 1, 0)


def test_a_prompt_beyond_the_context_is_named():
    found = survey([FakeShard([[1] * 5, [1] * 8])])
    check_context(found, 8, 0)
    with pytest.raises(ModelError, match=r"pair p0, round 2 has 8 tokens and 1 more to read.*ends at 8; lower"):
        check_context(found, 8, 1)
