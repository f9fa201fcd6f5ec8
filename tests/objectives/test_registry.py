"""Names of objectives."""

import pytest

from pipeline.config.objective import SPECS
from pipeline.errors import ConfigError
from pipeline.objectives.registry import OBJECTIVES, find_objective
from pipeline.objectives.twdpo import twdpo


def test_every_objective_has_a_spec_and_every_spec_an_objective() -> None:
    assert list(OBJECTIVES) == list(SPECS)


def test_an_objective_is_found_by_name() -> None:
    assert find_objective("twdpo") is twdpo


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"train\.objective.*'dpoo'.*twdpo"):
        find_objective("dpoo")
