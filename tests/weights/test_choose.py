"""Which cached rows the params choose, and what is said where they are not there."""

import pytest

from pipeline.config.postprocess import PostprocessParams
from pipeline.errors import ConfigError
from pipeline.schemas.attention import MEAN_OVER_HEADS, ROLLOUT
from pipeline.weights.choose import RowsChosen, choose_heads, choose_rows

CACHED = {"source": "attention", "layers": [29, 14], "heads": [8, 0, 3], "num_layers": 30}


def choose(cached=CACHED, **params):
    return choose_rows(PostprocessParams(**params), **cached)


def test_layers_from_either_end_and_heads_ascending():
    assert choose() == RowsChosen("attention", 29, (0, 3, 8))
    assert choose(layer=14, heads=[8, 3]) == choose(layer=-16, heads=[3, 8]) == RowsChosen("attention", 14, (3, 8))


def test_the_mean_is_one_head_of_its_own():
    assert choose_heads("all", [MEAN_OVER_HEADS]) == (MEAN_OVER_HEADS,)


def test_rollout_has_one_row_and_no_layer_is_asked_for():
    rollout = {**CACHED, "source": "rollout", "layers": [ROLLOUT], "heads": [MEAN_OVER_HEADS]}
    assert choose(rollout, layer=7) == RowsChosen("rollout", ROLLOUT, (MEAN_OVER_HEADS,))
    with pytest.raises(ConfigError, match=r"postprocess\.heads: \[2\].*rollout.*Set postprocess\.heads: all"):
        choose(rollout, heads=[2])


@pytest.mark.parametrize(
    ("cached", "params", "message"),
    [
        ({}, {"layer": 13}, r"postprocess\.layer: 13 of the judge's 30 .*: extract\.layers come to \[14, 29\]"),
        ({}, {"layer": -29}, r"postprocess\.layer: -29 of .* is not cached.* or add 1 there"),
        ({}, {"heads": [3, 9, 1]}, r"postprocess\.heads: \[1, 9\] not cached; there are rows of heads \[0, 3, 8\]"),
        ({"heads": [-1]}, {"heads": [0]}, r"postprocess\.heads: \[0\].*only the mean.*extract\.heads: each"),
    ],
)  # fmt: skip
def test_what_is_not_cached_is_named_with_the_remedy(cached, params, message):
    with pytest.raises(ConfigError, match=message):
        choose({**CACHED, **cached}, **params)
