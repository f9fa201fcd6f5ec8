"""Flipped labels: how many, and that a larger share keeps a smaller one's."""

import pytest

from pipeline.realign.flip import is_flipped

IDS = [f"pair-{number}" for number in range(4000)]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_the_share_is_what_it_says(share: float) -> None:
    flipped = [is_flipped(pair_id, share, 42) for pair_id in IDS]
    assert abs(sum(flipped) / len(IDS) - share) < 4 * (share * (1 - share) / len(IDS)) ** 0.5


def test_none_and_all() -> None:
    assert not any(is_flipped(pair_id, 0.0, 42) for pair_id in IDS)
    assert all(is_flipped(pair_id, 1.0, 42) for pair_id in IDS)


def test_a_larger_share_flips_what_a_smaller_one_does() -> None:
    some, more = ({pair_id for pair_id in IDS if is_flipped(pair_id, share, 1)} for share in (0.1, 0.4))
    assert some < more


def test_the_seed_chooses_the_pairs() -> None:
    first, second = ([is_flipped(pair_id, 0.4, seed) for pair_id in IDS] for seed in (1, 2))
    both = sum(a and b for a, b in zip(first, second, strict=True)) / len(IDS)
    assert abs(both - 0.16) < 0.03
