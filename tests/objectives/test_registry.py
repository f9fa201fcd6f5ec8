"""Names of objectives."""

from typing import get_args

import pytest

from pipeline.config.train import TrainParams
from pipeline.errors import ConfigError
from pipeline.objectives.registry import OBJECTIVES, find_objective
from pipeline.objectives.twdpo import twdpo


def test_params_offer_exactly_the_registered_objectives() -> None:
    assert set(get_args(TrainParams.model_fields["objective"].annotation)) == set(OBJECTIVES)


def test_an_objective_is_found_by_name_and_says_what_it_needs() -> None:
    assert find_objective("twdpo").loss is twdpo
    assert find_objective("twdpo").needs == {"ref_logps"}


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"train\.objective.*'dpoo'.*twdpo"):
        find_objective("dpoo")
