"""How weight is spread, against loops over tokens."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.report.weight_shape import POSITIONS, WeightShape
from pipeline.schemas.base import FLOATS


def responses() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    drawn = [random.exponential(size=length) for length in (1, 3, 20, 57, 200)]
    return [weights / weights.sum() for weights in drawn]


def test_equals_loops_over_tokens() -> None:
    shape = WeightShape()
    shape.add(pa.chunked_array([responses()[:2], responses()[2:]], FLOATS))
    relative, sums, counts = [], np.zeros(POSITIONS), np.zeros(POSITIONS)
    for weights in responses():
        for place, weight in enumerate(weights):
            relative.append(float(np.float32(weight)) * len(weights))
            sums[place * POSITIONS // len(weights)] += relative[-1]
            counts[place * POSITIONS // len(weights)] += 1
    assert shape.tokens.sum() == len(relative) == 281
    assert shape.mass.sum() == pytest.approx(281, rel=1e-6)
    np.testing.assert_allclose(shape.by_position(), sums / counts)
    ordered = np.sort(relative)[::-1]
    assert shape.share_of_top(0.1) == pytest.approx(ordered[:28].sum() / ordered.sum(), abs=0.01)


def test_uniform_weights_are_not_concentrated() -> None:
    shape = WeightShape()
    shape.add(pa.chunked_array([[np.full(50, 1 / 50)]], FLOATS))
    tokens, mass = shape.concentration()
    np.testing.assert_allclose(tokens, mass, atol=1e-6)
    np.testing.assert_allclose(shape.by_position()[~np.isnan(shape.by_position())], 1.0, rtol=1e-6)


def test_slices_and_empty_columns_count_only_their_rows() -> None:
    whole, part = WeightShape(), WeightShape()
    column = pa.chunked_array([responses()], FLOATS)
    whole.add(pa.chunked_array([responses()[1:3]], FLOATS))
    part.add(column.slice(1, 2))
    part.add(column.slice(0, 0))
    np.testing.assert_array_equal(part.tokens, whole.tokens)
    np.testing.assert_array_equal(part.position_mass, whole.position_mass)


def test_weights_of_zero_and_far_out_are_counted() -> None:
    shape = WeightShape()
    shape.add(pa.chunked_array([[[0.0] * 999 + [1.0]]], FLOATS))
    assert shape.tokens[0] == 999
    assert shape.tokens[-1] == 1
    assert shape.share_of_top(0.001) == pytest.approx(1.0)
