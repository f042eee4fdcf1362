"""The reference is BatchNorm: held against the definition in 80 digits, and against numbers by hand.

`Textbook` has no formula for a gradient: it takes central differences of the loss Σg·y, whose error at 80 digits is
some 1e-50.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import gmpy2
import mpmath
import numpy as np
import pytest
from builders import one, parameters, running, tensors, values
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.arithmetic import Arithmetic, Array, Double, Multiprecision, in_blocks
from conformance.bounds import bounds
from conformance.conventions import CANONICAL
from conformance.layer import Parameters, Values
from conformance.reference import evaluate

MP = mpmath.MPContext()
MP.dps = 80

BOTH = pytest.mark.parametrize("arithmetic", [Double(), Multiprecision()], ids=["double", "multiprecision"])


# The definition


@dataclass(frozen=True)
class Textbook:
    """One channel of BatchNorm from its definition; numbers are mpmath's, in 80 digits.

    `held` are statistics that take no part in differentiation, None for the batch's own; `mask` says which values
    those are taken over.
    """

    x: list[Any]
    g: list[Any]
    gamma: Any
    beta: Any
    eps: Any
    held: tuple[Any, Any] = (None, None)
    mask: Sequence[bool] | None = None

    def y(self, x: Sequence[Any], gamma: Any, beta: Any) -> list[Any]:
        kept = [v for v, counts in zip(x, self.mask or [True] * len(x), strict=True) if counts]
        mu = MP.fsum(kept) / len(kept) if self.held[0] is None else self.held[0]
        var = MP.fsum((v - mu) ** 2 for v in kept) / len(kept) if self.held[1] is None else self.held[1]
        return [gamma * (v - mu) / MP.sqrt(var + self.eps) + beta for v in x]

    def loss(self, x: Sequence[Any], gamma: Any, beta: Any) -> Any:
        return MP.fsum(g * y for g, y in zip(self.g, self.y(x, gamma, beta), strict=True))

    def gradients(self) -> dict[str, list[float]]:
        def nudged(index: int) -> Callable[[Any], Any]:
            return lambda v: self.loss([*self.x[:index], v, *self.x[index + 1 :]], self.gamma, self.beta)

        return {
            "y": [float(v) for v in self.y(self.x, self.gamma, self.beta)],
            "dx": [slope(nudged(index), v) for index, v in enumerate(self.x)],
            "dgamma": [slope(lambda gamma: self.loss(self.x, gamma, self.beta), self.gamma)],
            "dbeta": [slope(lambda beta: self.loss(self.x, self.gamma, beta), self.beta)],
        }


def slope(function: Callable[[Any], Any], at: Any) -> float:
    """The derivative by a central difference."""
    step = MP.mpf("1e-25")
    return float((function(at + step) - function(at - step)) / (2 * step))


def textbook(p: Parameters, step: Values, channel: int, held: tuple[Any, Any] = (None, None)) -> Textbook:
    """A channel of a step."""
    assert step.g is not None

    def exact(row: Array) -> list[Any]:
        return [MP.mpf(float(v)) for v in row]

    gamma, beta = MP.mpf(float(p.gamma[channel])), MP.mpf(float(p.beta[channel]))
    mask = None if step.mask is None else [bool(kept) for kept in step.mask]
    return Textbook(exact(step.x[channel]), exact(step.g[channel]), gamma, beta, MP.mpf(p.eps), held, mask)


SIZES = pytest.mark.parametrize("n", [1, 2, 3, 8])


def drawn(n: int, mean: float = 3.0, mode: str = "train", features: int = 3) -> tuple[Parameters, Values]:
    random = np.random.RandomState([n, 7])
    p = parameters(
        eps=1e-3,
        gamma=random.standard_normal(features),
        beta=random.standard_normal(features),
        running_mean=random.standard_normal(features),
        running_var=random.random_sample(features) + 0.5,
    )
    x, g = mean + 2 * random.standard_normal((features, n)), random.standard_normal((features, n))
    return p, Values(mode, x, g, False)


@SIZES
@pytest.mark.parametrize("mean", [0.0, 3.0, 1e4])
def test_training_is_the_definition_and_its_derivative(n: int, mean: float) -> None:
    p, step = drawn(n, mean)
    found = one(p, step)
    for channel in range(3):
        for name, expected in textbook(p, step, channel).gradients().items():
            np.testing.assert_allclose(np.ravel(found[name][channel]), expected, rtol=1e-14, atol=1e-22, err_msg=name)


@pytest.mark.parametrize("mask", [[1, 0, 1, 1, 0, 1, 1, 0], [0, 0, 0, 1, 0, 0, 0, 0], [1] * 8])
def test_a_mask_says_which_values_the_statistics_are_taken_over(mask: list[int]) -> None:
    """Every value is normalised, the masked ones too."""
    p, step = drawn(8)
    masked = values(step.x, step.g, mask=mask)
    found = one(p, masked)
    for channel in range(3):
        for name, expected in textbook(p, masked, channel).gradients().items():
            np.testing.assert_allclose(np.ravel(found[name][channel]), expected, rtol=1e-14, atol=1e-22, err_msg=name)
        kept = step.x[channel][np.array(mask, bool)]
        before = float(p.running_mean[channel]), float(p.running_var[channel])
        assert found["running_mean"][channel] == pytest.approx((before[0] + kept.mean()) / 2)
        if len(kept) > 1:
            assert found["running_var"][channel] == pytest.approx((before[1] + kept.var(ddof=1)) / 2)


@SIZES
def test_evaluation_is_the_definition_with_the_running_statistics_held(n: int) -> None:
    p, step = drawn(n, mode="eval")
    found = one(p, step)
    for channel in range(3):
        held = (MP.mpf(float(p.running_mean[channel])), MP.mpf(float(p.running_var[channel])))
        for name, expected in textbook(p, step, channel, held).gradients().items():
            np.testing.assert_allclose(np.ravel(found[name][channel]), expected, rtol=1e-14, atol=1e-22, err_msg=name)


@pytest.mark.parametrize(
    ("gradient", "detached"),
    [("detached", (True, True)), ("mean detached", (True, False)), ("variance detached", (False, True))],
)
def test_a_detached_statistic_is_a_constant_to_the_derivative(gradient: Any, detached: tuple[bool, bool]) -> None:
    p, step = drawn(6)
    found = one(p, step, CANONICAL.but(gradient=gradient))
    for channel in range(3):
        x = [MP.mpf(float(v)) for v in step.x[channel]]
        mean = MP.fsum(x) / len(x)
        var = MP.fsum(v * v for v in x) / len(x) - mean**2
        held = (mean if detached[0] else None, var if detached[1] else None)
        expected = textbook(p, step, channel, held).gradients()
        np.testing.assert_allclose(found["y"][channel], expected["y"], rtol=1e-14)
        np.testing.assert_allclose(found["dx"][channel], expected["dx"], rtol=1e-14)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("mean", [0.0, 10.0, 1e4])
@pytest.mark.parametrize("n", [2, 64, 1000])
def test_double_errs_a_hundred_times_less_than_the_bound_it_feeds(n: int, mean: float, mode: str) -> None:
    p, step = drawn(n, mean, mode)
    step = Values(mode, step.x.astype(np.float32).astype(float), step.g, False)
    coarse = evaluate(p, [step], CANONICAL, Double())
    limits = vars(bounds(coarse, Double(), "strict", "float32", "float32")[0])
    exact = tensors(evaluate(p, [step], CANONICAL, Multiprecision())[0], Multiprecision())
    for name, value in tensors(coarse[0], Double()).items():
        assert (np.abs(value - exact[name]) <= limits[name] / 100).all(), name


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(-100, 100, width=32)),
        min_size=2,
        max_size=9,
    ),
    st.sampled_from([1e-12, 1e-5, 1e-3, 1.0]),
)
@settings(deadline=None, max_examples=60)
def test_double_and_multiprecision_agree_on_any_numbers(pairs: list[tuple[float, float]], eps: float) -> None:
    x, g = zip(*pairs, strict=True)
    p, steps = parameters(eps=eps), [values(x, g), values(x, g, "eval")]
    coarse = evaluate(p, steps, CANONICAL, Double())
    fine = evaluate(p, steps, CANONICAL, Multiprecision())
    limits = bounds(coarse, Double(), "strict", "float32", "float32")
    for trace, exact, limit in zip(coarse, fine, limits, strict=True):
        for name, value in tensors(trace, Double()).items():
            error = np.abs(value - tensors(exact, Multiprecision())[name])
            assert (error <= vars(limit)[name] / 100).all(), name


# Running statistics by hand. The batch 1, 2, 3, 6 has mean 3 and variance 14/4, unbiased 14/3; 0, 2 has 1, 1, 2.

FIRST, SECOND, THIRD = [1, 2, 3, 6], [0, 2], [-1, -1, 5]


@pytest.mark.parametrize(
    ("momentum", "means", "variances"),
    [
        (0.5, (1.5, 1.25, 1.125), (17 / 6, 29 / 12, 173 / 24)),
        (0.25, (0.75, 0.8125, 0.859375), (23 / 12, 31 / 16, 285 / 64)),
        (0.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        (1.0, (3.0, 1.0, 1.0), (14 / 3, 2.0, 12.0)),
        (None, (3.0, 2.0, 5 / 3), (14 / 3, 10 / 3, 56 / 9)),
        (-0.5, (-1.5, -2.75, -4.625), (-5 / 6, -9 / 4, -75 / 8)),
    ],
)
def test_running_statistics_by_hand(
    momentum: float | None, means: tuple[float, ...], variances: tuple[float, ...]
) -> None:
    found = running(parameters(momentum=momentum), values(FIRST), values(SECOND), values(THIRD))
    assert [mean for mean, _, _ in found] == pytest.approx(list(means), rel=1e-15)
    assert [var for _, var, _ in found] == pytest.approx(list(variances), rel=1e-15)
    assert [count for _, _, count in found] == [1, 2, 3]


@given(
    st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=5), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.125, 0.5, 0.75, 1.0, None]),
)
@settings(deadline=None)
def test_running_statistics_are_rational_arithmetic(batches: list[list[int]], momentum: float | None) -> None:
    mean: Any = Fraction(0)
    var: Any = Fraction(1)
    for count, batch in enumerate(batches, 1):
        m = Fraction(1, count) if momentum is None else Fraction(momentum)
        mu = Fraction(sum(batch), len(batch))
        mean += m * (mu - mean)
        var += m * (sum((v - mu) ** 2 for v in batch) / (len(batch) - 1) - var)
    *_, found = running(parameters(momentum=momentum), *(values(batch) for batch in batches))
    assert found[0] == pytest.approx(float(mean), abs=1e-14)
    assert found[1] == pytest.approx(float(var), abs=1e-14)
    assert found[2] == len(batches)


def test_evaluation_uses_the_statistics_and_leaves_them() -> None:
    p = parameters(running_mean=[2.0], running_var=[3.5], eps=0.5)
    assert one(p, values([2, 4, 6], mode="eval"))["y"].tolist() == [[0.0, 1.0, 2.0]]
    assert running(p, values(FIRST, mode="eval")) == [(2.0, 3.5, 0)]


def test_a_layer_without_statistics_evaluates_by_the_batch_and_tracks_nothing() -> None:
    p = parameters(track_running_stats=False)
    assert one(p, values(FIRST, mode="eval"))["y"].tolist() == one(p, values(FIRST))["y"].tolist()
    assert running(p, values(FIRST), values(FIRST, mode="eval")) == [(0.0, 1.0, 0)] * 2


def test_training_normalises_by_the_biased_variance() -> None:
    y = one(parameters(), values(FIRST))["y"]
    np.testing.assert_allclose(y, [[-1.0, -0.5, 0.0, 1.5]], rtol=1e-15)  # (x − 3)/√(14/4 + ½)


@BOTH
def test_one_value_has_no_unbiased_variance(arithmetic: Arithmetic) -> None:
    (trace,) = evaluate(parameters(), [values([3.0])], CANONICAL, arithmetic)
    found = tensors(trace, arithmetic)
    assert found["y"].tolist() == [[0.0]]
    assert found["running_mean"].tolist() == [1.5]
    assert math.isnan(found["running_var"][0])


@BOTH
def test_an_empty_batch_is_counted_and_moves_nothing(arithmetic: Arithmetic) -> None:
    step = Values("train", np.zeros((2, 0)), np.zeros((2, 0)), False)
    (trace,) = evaluate(parameters(2), [step], CANONICAL, arithmetic)
    found = tensors(trace, arithmetic)
    assert found["y"].shape == found["dx"].shape == (2, 0)
    assert (found["running_mean"].tolist(), found["running_var"].tolist()) == ([0.0, 0.0], [1.0, 1.0])
    assert trace.num_batches_tracked == 1
    assert found["dgamma"].tolist() == found["dbeta"].tolist() == [0.0, 0.0]


@BOTH
@pytest.mark.parametrize("spoiler", [math.nan, math.inf, -math.inf])
def test_a_special_value_spoils_its_channel_and_no_other(arithmetic: Arithmetic, spoiler: float) -> None:
    sound = values([[1.0, 2.0, 3.0], FIRST[:3]], np.ones((2, 3)))
    spoilt = values([[1.0, spoiler, 3.0], FIRST[:3]], np.ones((2, 3)))
    (before,) = evaluate(parameters(2), [sound], CANONICAL, arithmetic)
    (after,) = evaluate(parameters(2), [spoilt], CANONICAL, arithmetic)
    for name, value in tensors(after, arithmetic).items():
        np.testing.assert_array_equal(value[1], tensors(before, arithmetic)[name][1])
    assert np.isnan(tensors(after, arithmetic)["y"][0]).all()
    assert np.isnan(tensors(after, arithmetic)["running_var"][0])


@BOTH
def test_a_zero_variance_without_eps_is_no_number_and_raises_nothing(arithmetic: Arithmetic) -> None:
    (trace,) = evaluate(parameters(), [values([2.0, 2.0])], CANONICAL.but(eps_added_to="nothing"), arithmetic)
    assert np.isnan(tensors(trace, arithmetic)["y"]).all()


@pytest.mark.parametrize(
    ("changes", "missing"),
    [({"scale": False}, {"dgamma"}), ({"center": False}, {"dbeta"}), ({}, set())],
)
def test_what_is_not_learned_has_no_gradient(changes: dict[str, bool], missing: set[str]) -> None:
    learned = set(one(parameters(gamma=[2.0], beta=[3.0]), values(FIRST, FIRST)))
    assert learned - set(one(parameters(gamma=[2.0], beta=[3.0], **changes), values(FIRST, FIRST))) == missing
    frozen = set(one(parameters(), values(FIRST, FIRST, frozen=True)))
    assert learned - frozen == {"dgamma", "dbeta"}


def test_gamma_and_beta_that_are_not_learned_are_one_and_zero() -> None:
    plain = one(parameters(), values(FIRST))["y"]
    assert one(parameters(gamma=[7.0], scale=False), values(FIRST))["y"].tolist() == plain.tolist()
    assert one(parameters(beta=[7.0], center=False), values(FIRST))["y"].tolist() == plain.tolist()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_layer_may_override_the_mode_of_every_step(mode: Any) -> None:
    told = evaluate(parameters(mode=mode), [values(FIRST), values(FIRST, mode="eval")], CANONICAL, Double())
    assert [trace.batch for trace in told] == [mode == "train"] * 2


# Sums

SIZED = st.floats(-1e300, 1e300)

#: Few terms one by one, over a tree, and over blocks of columns and then a tree.
EVERY_WAY = pytest.mark.parametrize(
    "double", [Double(), Double(few=0), Double(few=0, width=4)], ids=["few", "tree", "blocks"]
)


@EVERY_WAY
@given(terms=st.lists(SIZED, max_size=70))
@settings(deadline=None)
def test_double_sums_as_if_in_twice_the_precision(double: Double, terms: list[float]) -> None:
    """|computed − exact| ≤ u·|exact| + n²·u²·Σ|x|."""
    terms = [term / 128 for term in terms]
    found = float(double.sum(np.array([terms]))[0])
    exact, scale = math.fsum(terms), math.fsum(map(abs, terms))
    u = 2.0**-53
    assert abs(found - exact) <= 2 * u * abs(exact) + len(terms) ** 2 * u * (u * scale) + 5e-324


@EVERY_WAY
@pytest.mark.parametrize(
    "terms",
    [
        [],
        [0.0],
        [0.1],
        [0.1] * 10,
        [1e16, 1.0, -1e16],
        [1.0, 1e100, 1.0, -1e100],
        [1e-320, 1e-320, 1e-320],
        [-0.0],
        [1e16, -1e16, 1.0, 1.0],
        [1e16, 1.0, -1e16, 0.5, 1e16, -1.0, -1e16],
    ],
)
def test_double_sums_like_fsum(double: Double, terms: list[float]) -> None:
    assert double.sum(np.array([terms], float)).tolist() == [math.fsum(terms)]


@EVERY_WAY
def test_rows_are_summed_each_by_its_own_size(double: Double) -> None:
    rows = np.array([[1e300, 1.0, -1e300, 1.0], [1e-300, 1e-316, -1e-300, 0.0], [3.0, 4.0, 5.0, 6.0]])
    assert double.sum(rows[1:]).tolist() == [1e-316, 18.0]
    with np.errstate(all="ignore"):
        assert double.sum(np.array([rows[2], [math.inf] * 4, [1.5e308] * 4])).tolist() == [18.0, math.inf, math.inf]


@EVERY_WAY
@pytest.mark.parametrize("terms", [[1, math.inf], [math.inf, 1, 2], [-math.inf, 1, -math.inf], [1, math.nan, 2]])
def test_special_values_sum_as_in_fsum(double: Double, terms: list[float]) -> None:
    with np.errstate(all="ignore"):
        (found,) = double.sum(np.array([terms]))
    assert found == math.fsum(terms) or (math.isnan(found) and math.isnan(math.fsum(terms)))


@EVERY_WAY
def test_a_sum_beyond_the_largest_number_is_infinite(double: Double) -> None:
    with np.errstate(all="ignore"):
        assert double.sum(np.array([[1.7e308] * 3, [-1.7e308] * 3])).tolist() == [math.inf, -math.inf]


@pytest.mark.parametrize("shape", [(3, 70_001), (40_000, 2), (1, 16_385), (5, 4), (20_000, 1), (3, 0)])
def test_a_formula_in_blocks_is_the_formula(shape: tuple[int, int]) -> None:
    a, column = np.random.RandomState(0).standard_normal(shape), np.arange(float(shape[0]))[:, None]
    found = in_blocks(lambda a, b, column: column * a + b, a, a[::-1], column)
    assert (found == column * a + a[::-1]).all()


@pytest.mark.parametrize("shape", [(3, 70_001), (2_000, 2), (1, 66_000), (5, 4), (70_000, 1), (3, 0)])
def test_the_sum_of_a_formula_is_that_of_its_values(shape: tuple[int, int]) -> None:
    a, column = np.random.RandomState(0).standard_normal(shape), np.arange(float(shape[0]))[:, None]
    b, row = a[::-1], np.arange(float(shape[1]))[None]
    found = Double().sum_of(lambda a, b, column, row: column * a + b * row, a, b, column, row)
    assert (found == Double().sum(column * a + b * row)).all()
    assert found.shape == shape[:1]


@BOTH
def test_opposite_infinities_have_no_sum(arithmetic: Arithmetic) -> None:
    terms = np.array([[math.inf, 1, -math.inf], [1, 2, 3]])
    with np.errstate(all="ignore"):
        found = arithmetic.lower(arithmetic.sum(arithmetic.lift(terms)))
    assert math.isnan(found[0])
    assert found[1] == 6


@BOTH
def test_rows_are_summed_apart_over_the_last_axis(arithmetic: Arithmetic) -> None:
    terms = np.arange(24.0).reshape(2, 3, 4)
    found = arithmetic.lower(arithmetic.sum(arithmetic.lift(terms)))
    assert found.tolist() == terms.sum(-1).tolist()
    assert arithmetic.lower(arithmetic.sum(arithmetic.lift(terms[..., :0]))).tolist() == np.zeros((2, 3)).tolist()


def test_multiprecision_keeps_float64_whole() -> None:
    arithmetic = Multiprecision()
    terms = np.array([0.1, -5e-324, 1.7e308, math.inf])
    assert arithmetic.lower(arithmetic.lift(terms)).tolist() == terms.tolist()
    assert float(arithmetic.sum(arithmetic.lift(np.array([1.0, 1e-40, -1.0])))) == 1e-40
    assert float(arithmetic.sqrt(arithmetic.lift(np.array([2.0])))[0] ** 2 - 2) == pytest.approx(0, abs=1e-49)
    assert math.isnan(arithmetic.sqrt(arithmetic.lift(np.array([-1.0])))[0])
    assert arithmetic.lower(arithmetic.reciprocal(arithmetic.lift(np.array([0.0]))))[0] == math.inf


def test_a_coarser_context_of_gmpy2_is_told_of() -> None:
    """Whoever shares the thread may set it; the reference would be a float64's."""
    arithmetic = Multiprecision()
    a = arithmetic.lift(np.array([0.1]))
    gmpy2.set_context(gmpy2.context(precision=53))
    with pytest.raises(RuntimeError, match="not computed in 168 bits"):
        arithmetic.lower(a * a)
    assert arithmetic.lower(arithmetic.lift(np.array([0.1])) - a).tolist() == [0]


def test_multiprecision_returns_nan_quietly() -> None:
    arithmetic = Multiprecision()
    assert math.isnan(arithmetic.lower(arithmetic.lift(np.array([math.nan])))[0])
