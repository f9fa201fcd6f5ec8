"""Uniform, verbalized, decaying, critical and random weights against their definitions."""

import numpy as np
import pytest

from pipeline.config.weights import CriticalWeights, DecayWeights, RandomWeights
from pipeline.weights.trained import critical, decay, random, uniform, verbalized
from tests.weights.trained.examples import tokens


@pytest.mark.parametrize("n", [1, 7])
def test_uniform_is_plain(n: int) -> None:
    made = uniform.weights_of(tokens([0.0] * n))
    assert made.weights.tolist() == [1 / n] * n
    assert made.length == n


def test_verbalized_scores_are_divided_by_their_sum() -> None:
    made = verbalized.weights_of(tokens([3, 0, 5, 0]))
    assert made.weights.tolist() == [0.375, 0, 0.625, 0]
    assert made.length == 4


def test_verbalized_without_any_score_has_no_weight() -> None:
    assert verbalized.weights_of(tokens([0, 0])).weights.tolist() == [0, 0]


def test_decay() -> None:
    made = decay.weights_of(tokens([0.0] * 4), DecayWeights(gamma=0.5))
    assert made.weights.tolist() == [1, 0.5, 0.25, 0.125]
    assert made.length == 1
    of_code = decay.weights_of(tokens([0.0] * 4), DecayWeights(gamma=0.5, first_exponent=1))
    assert of_code.weights.tolist() == [0.5, 0.25, 0.125, 0.0625]
    assert decay.weights_of(tokens([0.0] * 4), DecayWeights(gamma=1.0)).weights.tolist() == [1] * 4
    assert DecayWeights().gamma == 0.98


SCORES = [0.25, 1.0, 0.5]


@pytest.mark.parametrize(
    ("preferred", "eos", "params", "expected"),
    [
        (True, True, {}, [1, 1, 1]),
        (False, True, {}, [0.75, 0, 1]),
        (False, False, {}, [0.75, 0, 0.5]),
        (False, True, {"eos_weight": "scored"}, [0.75, 0, 0.5]),
        (False, True, {"eos_weight": "zero"}, [0.75, 0, 0]),
        (True, True, {"chosen": "scores"}, [0.25, 1, 1]),
        (True, False, {"chosen": "scores"}, [0.25, 1, 0.5]),
        (True, True, {"chosen": "scores", "eos_weight": "scored"}, [0.25, 1, 0.5]),
        (True, True, {"eos_weight": "zero"}, [1, 1, 1]),
    ],
)
def test_critical(preferred: bool, eos: bool, params: dict[str, str], expected: list[float]) -> None:
    scored = tokens(SCORES, preferred=preferred, eos=eos)
    made = critical.weights_of(scored, CriticalWeights(**params))
    assert made.weights.tolist() == expected
    assert made.length == 1
    assert scored.scores.tolist() == SCORES


def test_critical_scores_of_zero_weigh_as_in_dpo() -> None:
    """METHODS 7, no. 2."""
    assert critical.weights_of(tokens([0.0] * 3, preferred=False), CriticalWeights()).weights.tolist() == [1] * 3


def draw(n: int = 3, pair_id: str = "a", response: str = "chosen", **params: float) -> list[float]:
    made = random.weights_of(tokens([0.0] * n, pair_id=pair_id, response=response), RandomWeights(**params))
    assert made.length == 1
    return made.weights.tolist()


def test_random_depends_on_pair_response_and_seed_alone() -> None:
    assert draw() == draw()
    assert draw(5)[:3] == draw(3)
    others = [draw(pair_id="b"), draw(response="rejected"), draw(seed=1)]
    assert len({tuple(weights) for weights in [draw(), *others]}) == 4


def test_random_is_uniform_in_its_range() -> None:
    weights = np.sort(draw(4000, low=2.0, high=3.0))
    np.testing.assert_allclose(weights, 2 + (np.arange(4000) + 0.5) / 4000, atol=0.03)
    assert weights.min() >= 2
    assert weights.max() < 3
    assert draw(low=1.0, high=1.0) == [1] * 3


def test_random_numbers_are_the_same_everywhere() -> None:
    """A change of these is a change of every run with random weights."""
    from hashlib import sha256

    seed = int.from_bytes(sha256(b'[42, "a", "chosen"]').digest(), "big")
    expected = [0.7 + (1.3 - 0.7) * (int(raw) >> 11) / 2**53 for raw in np.random.PCG64(seed).random_raw(3)]
    assert draw() == pytest.approx(expected, rel=1e-15)
