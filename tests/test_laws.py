"""What holds of BatchNorm whatever the batch: shifts, scales, permutations, and what follows from the definition."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from builders import one, parameters, tensors, values
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.arithmetic import Array, Double, Multiprecision
from conformance.conventions import CANONICAL
from conformance.reference import evaluate

#: A batch of mean 3.
FIRST = [1, 2, 3, 6]

#: Multiples of 1/8, so that shifts and doublings are exact.
EIGHTHS = st.integers(-800, 800).map(lambda n: n / 8)
BATCH = st.lists(st.tuples(EIGHTHS, EIGHTHS), min_size=2, max_size=8)
law = settings(deadline=None, max_examples=40)


def split(batch: list[tuple[float, float]]) -> tuple[Array, Array]:
    x, g = zip(*batch, strict=True)
    return np.array([x]), np.array([g])


def close(found: dict[str, Array], expected: dict[str, Array]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-14, atol=1e-30, err_msg=name)


@given(BATCH, EIGHTHS)
@law
def test_a_shift_of_the_input_moves_the_mean_alone(batch: list[tuple[float, float]], shift: float) -> None:
    x, g = split(batch)
    moved = one(parameters(momentum=1.0), values(x + shift, g))
    still = one(parameters(momentum=1.0), values(x, g))
    mean = (Fraction(x.sum()) + x.size * Fraction(shift)) / x.size
    close(moved, still | {"running_mean": np.array([float(mean)])})


@given(BATCH, st.sampled_from([0.125, 3.0, 100.0, -1.0]))
@law
def test_a_scaled_input_with_scaled_eps_is_normalised_alike(batch: list[tuple[float, float]], a: float) -> None:
    x, g = split(batch)
    plain = one(parameters(momentum=1.0), values(x, g))
    scaled = one(parameters(momentum=1.0, eps=0.5 * a * a), values(a * x, g))
    sign = math.copysign(1, a)
    expected = {
        "y": sign * plain["y"],
        "dx": plain["dx"] / abs(a),
        "dgamma": sign * plain["dgamma"],
        "dbeta": plain["dbeta"],
        "running_mean": a * plain["running_mean"],
        "running_var": a * a * plain["running_var"],
    }
    close(scaled, expected)


@given(BATCH)
@law
def test_doubling_x_with_four_times_eps_is_exact_in_float64(batch: list[tuple[float, float]]) -> None:
    x, g = split(batch)
    (plain,) = evaluate(parameters(momentum=1.0), [values(x, g)], CANONICAL, Double())
    (twice,) = evaluate(parameters(momentum=1.0, eps=2.0), [values(2 * x, g)], CANONICAL, Double())
    before, after = tensors(plain, Double()), tensors(twice, Double())
    assert (after["y"] == before["y"]).all()
    assert (after["dx"] == before["dx"] / 2).all()
    assert (after["running_mean"] == 2 * before["running_mean"]).all()
    assert (after["running_var"] == 4 * before["running_var"]).all()


@given(BATCH, st.randoms(use_true_random=False))
@law
def test_a_permuted_batch_gives_the_permuted_result(batch: list[tuple[float, float]], random: Any) -> None:
    order = list(range(len(batch)))
    random.shuffle(order)
    x, g = split(batch)
    permuted, plain = one(parameters(), values(x[:, order], g[:, order])), one(parameters(), values(x, g))
    close(permuted, plain | {"y": plain["y"][:, order], "dx": plain["dx"][:, order]})


@given(BATCH)
@law
def test_a_batch_taken_twice_is_normalised_alike(batch: list[tuple[float, float]]) -> None:
    x, g = split(batch)
    plain = one(parameters(), values(x, g))["y"]
    assert (one(parameters(), values(np.tile(x, 2), np.tile(g, 2)))["y"] == np.tile(plain, 2)).all()


@given(BATCH)
@law
def test_the_output_has_mean_beta_and_the_input_gradient_has_mean_zero(batch: list[tuple[float, float]]) -> None:
    x, g = split(batch)
    (trace,) = evaluate(parameters(gamma=[3.0], beta=[0.75]), [values(x, g)], CANONICAL, Multiprecision())
    assert float(sum(trace.y[0]) / x.size) == pytest.approx(0.75, abs=1e-40)
    assert trace.dx is not None
    assert float(sum(trace.dx[0])) == pytest.approx(0, abs=1e-40)


@given(BATCH, st.floats(-4, 4, width=16))
@law
def test_gradients_are_linear_in_the_cotangent(batch: list[tuple[float, float]], factor: float) -> None:
    x, g = split(batch)
    plain, scaled = one(parameters(), values(x, g)), one(parameters(), values(x, factor * g))
    close(scaled, plain | {name: factor * plain[name] for name in ("dx", "dgamma", "dbeta")})


@given(BATCH)
@law
def test_a_masked_value_moves_no_other(batch: list[tuple[float, float]]) -> None:
    x, g = split(batch)
    plain = one(parameters(), values(x, g))
    masked = one(parameters(), values(np.append(x, [[77.0]], 1), np.append(g, [[0.0]], 1), mask=[1] * x.size + [0]))
    close(masked | {name: masked[name][:, :-1] for name in ("y", "dx")}, plain)


def test_channels_do_not_meet() -> None:
    together = one(parameters(2, gamma=[2, 3]), values([FIRST, [4, 4, 0, 1]], [FIRST, [1, 0, 0, 2]]))
    alone = one(parameters(1, gamma=[3]), values([4, 4, 0, 1], [1, 0, 0, 2]))
    for name, value in alone.items():
        assert together[name][1].tolist() == value[0].tolist()
