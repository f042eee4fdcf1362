"""Calibration: the bounds admit every legitimate way of computing BatchNorm, refuse lossy ones, and are not vacuous."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from algorithms import (
    Algorithm,
    blocked,
    centred,
    chan,
    folded,
    one_pass,
    pairwise,
    sequential,
    shuffled,
    two_pass,
    welford,
)
from builders import STEP_TENSORS, parameters, tensors, values
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.arithmetic import Array, Double, Multiprecision
from conformance.bounds import Grade, StepBounds, bounds
from conformance.conventions import CANONICAL
from conformance.layer import Parameters, Values
from conformance.problem import dtype_of
from conformance.reference import evaluate

CHANNELS = 8
#: Values per channel: fewest, odd, one block, several with a remainder, many.
SIZES = (2, 3, 17, 64, 1000, 4096)
#: Mean over deviation.
RATIOS = (0.0, 1.0, 10.0, 100.0, 1e4)
MODES = ("train", "eval")


@functools.cache
def problem(n: int, ratio: float, dtype: str = "float32", held: str = "float32") -> tuple[Parameters, Array, Array]:
    """Deviation 2; γ, β and the running statistics are nobody's defaults. x and g in `dtype`, the layer in `held`."""
    random = np.random.RandomState([n, int(ratio)])

    def rounded(exact: Array) -> Array:
        return exact.astype(dtype_of(held)).astype(float)

    p = parameters(
        eps=1e-5,
        momentum=0.1,
        gamma=rounded(random.standard_normal(CHANNELS)),
        beta=rounded(random.standard_normal(CHANNELS)),
        running_mean=rounded(random.standard_normal(CHANNELS)),
        running_var=rounded(random.random_sample(CHANNELS) + 0.5),
    )
    x = 2 * ratio + 2 * random.standard_normal((CHANNELS, n))
    return p, x.astype(dtype_of(dtype)), random.standard_normal((CHANNELS, n)).astype(dtype_of(dtype))


Judged = tuple[dict[str, Array], dict[Grade, StepBounds]]


@functools.cache
def judged(n: int, ratio: float, mode: str, dtype: str = "float32") -> Judged:
    """The exact tensors and both grades of bounds, for a float32 layer."""
    p, x, g = problem(n, ratio, dtype)
    traces = evaluate(p, [Values(mode, x.astype(float), g.astype(float), False)], CANONICAL, Double())
    grades: dict[Grade, StepBounds] = {
        grade: bounds(traces, Double(), grade, dtype, "float32")[0] for grade in ("strict", "weak")
    }
    return tensors(traces[0], Double()), grades


def ratios(
    algorithm: Algorithm, grade: Grade, sizes: Sequence[int] = SIZES, means: Sequence[float] = RATIOS
) -> dict[str, float]:
    """The largest error of each tensor over the grid, as a fraction of its bound."""
    worst = dict.fromkeys(STEP_TENSORS, 0.0)
    for n in sizes:
        for ratio in means:
            p, x, g = problem(n, ratio)
            for mode in MODES:
                exact, grades = judged(n, ratio, mode)
                for name, found in algorithm.run(p, x, g, train=mode == "train").items():
                    off = np.abs(found - exact[name]) / vars(grades[grade])[name]
                    worst[name] = max(worst[name], float(off.max()))
    return worst


SUMS = (pairwise, blocked, shuffled)
TWO_PASS = [Algorithm(total, two_pass, apply) for total in SUMS for apply in (centred, folded)]
UPDATING = [
    Algorithm(statistics=statistics, apply=apply) for statistics in (welford, chan) for apply in (centred, folded)
]


@pytest.mark.parametrize("algorithm", TWO_PASS, ids=str)
def test_two_pass_algorithms_are_within_the_strict_bound(algorithm: Algorithm) -> None:
    assert max(ratios(algorithm, "strict").values()) <= 1


@pytest.mark.parametrize("algorithm", UPDATING, ids=str)
def test_updating_algorithms_are_within_the_strict_bound_near_a_mean_of_zero(algorithm: Algorithm) -> None:
    assert max(ratios(algorithm, "strict", (17, 64, 1000), (0.0, 1.0)).values()) <= 1


@pytest.mark.parametrize("algorithm", UPDATING, ids=str)
def test_updating_algorithms_are_within_the_strict_bound_far_from_zero(algorithm: Algorithm) -> None:
    assert max(ratios(algorithm, "strict", (3, 17, 64, 1000), (10.0, 100.0, 1e3, 1e4)).values()) <= 1


@pytest.mark.parametrize("algorithm", [*UPDATING, Algorithm(sequential), Algorithm(sequential, apply=folded)], ids=str)
def test_sequential_sums_and_updating_algorithms_are_within_the_weak_bound(algorithm: Algorithm) -> None:
    assert max(ratios(algorithm, "weak", (2, 3, 64, 1000, 2048)).values()) <= 1


@pytest.mark.parametrize("total", [pairwise, sequential])
def test_a_one_pass_variance_is_within_the_weak_bound_while_it_has_digits(total: Any) -> None:
    assert max(ratios(Algorithm(total, one_pass), "weak", means=(0.0, 1.0, 10.0, 100.0)).values()) <= 1


def test_a_one_pass_variance_is_beyond_the_strict_bound_where_it_cancels() -> None:
    worst = ratios(Algorithm(statistics=one_pass), "strict", (1000,), (100.0,))
    assert {name for name, ratio in worst.items() if ratio > 1} == {"y", "dx", "dgamma", "running_var"}


def test_a_sequential_sum_of_many_values_is_beyond_the_strict_bound() -> None:
    assert ratios(Algorithm(sequential), "strict", (65536,), (100.0,))["running_mean"] > 1


@pytest.mark.parametrize("name", STEP_TENSORS)
def test_the_strict_bound_is_not_vacuous(name: str) -> None:
    """Some legitimate algorithm comes within a fiftieth of it."""
    assert max(ratios(algorithm, "strict", (2, 3, 64, 1000))[name] for algorithm in TWO_PASS) >= 0.02


@pytest.mark.parametrize("name", STEP_TENSORS)
def test_the_strict_bound_is_not_vacuous_for_many_values(name: str) -> None:
    assert max(ratios(algorithm, "strict", (4096,), (0.0, 1.0))[name] for algorithm in TWO_PASS[:3]) >= 0.002


@given(st.integers(2, 40), st.floats(0, 1e4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_legitimate_algorithms_are_within_the_strict_bound_of_any_draw(n: int, ratio: float, seed: int) -> None:
    random = np.random.RandomState(seed)
    x = (ratio + random.standard_normal((3, n))).astype(np.float32)
    g = random.standard_normal((3, n)).astype(np.float32)
    p = parameters(3, eps=1e-5, momentum=0.1)
    traces = evaluate(p, [Values("train", x.astype(float), g.astype(float), False)], CANONICAL, Double())
    limits = vars(bounds(traces, Double(), "strict", "float32", "float32")[0])
    exact = tensors(traces[0], Double())
    for algorithm in TWO_PASS:
        for name, found in algorithm.run(p, x, g, train=True).items():
            assert (np.abs(found - exact[name]) <= limits[name]).all(), (str(algorithm), name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("algorithm", [TWO_PASS[0], TWO_PASS[3]], ids=str)
def test_halves_accumulated_in_float32_are_within_the_strict_bound(algorithm: Algorithm, dtype: str) -> None:
    worst = _through(algorithm, dtype, np.float32)
    assert min(worst["y"], worst["dx"]) >= 0.02
    assert max(worst.values()) <= 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_accumulated_in_halves_are_beyond_the_weak_bound(dtype: str) -> None:
    worst = _through(TWO_PASS[0], dtype, dtype_of(dtype), "weak")
    assert all(worst[name] > 1 for name in ("y", "running_mean", "running_var", "dgamma", "dbeta"))


def _through(algorithm: Algorithm, dtype: str, accumulated: Any, grade: Grade = "strict") -> dict[str, float]:
    """Half inputs and outputs, a float32 layer."""
    p, x, g = problem(64, 1.0, dtype)
    found = algorithm.run(p, x.astype(accumulated), g.astype(accumulated), train=True, io_dtype=dtype_of(dtype))
    exact, grades = judged(64, 1.0, "train", dtype)
    limits = vars(grades[grade])
    return {
        name: float((np.abs(value.astype(float) - exact[name]) / limits[name]).max()) for name, value in found.items()
    }


def test_float64_is_held_to_its_own_roundoff() -> None:
    p, x, g = problem(64, 1.0, "float64", "float64")
    arithmetic = Multiprecision()
    (trace,) = evaluate(p, [Values("train", x, g, False)], CANONICAL, arithmetic)
    (limit,) = bounds([trace], arithmetic, "strict", "float64", "float64")

    def ratio(found: Array, name: str) -> float:
        off = np.abs(arithmetic.lower(arithmetic.lift(found) - getattr(trace, name)))
        return float((off / vars(limit)[name]).max())

    fine = TWO_PASS[0].run(p, x, g, train=True)
    coarse = TWO_PASS[0].run(p, x.astype(np.float32), g.astype(np.float32), train=True)
    for name in STEP_TENSORS:
        assert 0.01 <= ratio(fine[name], name) <= 1, name
        assert ratio(coarse[name], name) > 1e6, name


def test_errors_of_many_steps_stay_within_what_accumulates() -> None:
    steps, r_mean, r_var = 30, np.zeros(CHANNELS), np.ones(CHANNELS)
    p = parameters(CHANNELS, eps=1e-5, momentum=0.1)
    batches = [problem(64 + step, 10.0)[1] for step in range(steps)]
    traces = evaluate(p, [values(x) for x in batches], CANONICAL, Double())
    limits = bounds(traces, Double(), "strict", "float32", "float32")
    worst = 0.0
    for x, trace, limit in zip(batches, traces, limits, strict=True):
        p = parameters(CHANNELS, eps=1e-5, momentum=0.1, running_mean=r_mean, running_var=r_var)
        found = TWO_PASS[0].run(p, x, x, train=True)
        r_mean, r_var = found["running_mean"], found["running_var"]
        off = (
            np.abs(r_mean - trace.running_mean) / limit.running_mean,
            np.abs(r_var - trace.running_var) / limit.running_var,
        )
        worst = max(worst, float(np.max(off)))
    assert 0.02 <= worst <= 1
