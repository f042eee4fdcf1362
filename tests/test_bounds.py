"""The bounds are the formulas that the docstring states, scale as the tensors they bound, and hold at the edges."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from algorithms import blocked, pairwise, sequential, two_pass
from builders import STEP_TENSORS, parameters, values
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.arithmetic import Array, Double, Multiprecision
from conformance.bounds import StepBounds, bounds
from conformance.conventions import CANONICAL
from conformance.layer import Parameters, Trace, Values
from conformance.problem import dtype_of
from conformance.reference import evaluate
from conformance.rounding import SUBNORMAL, UNIT_ROUNDOFF, Grade, accumulator, rounding


def limits(
    p: Parameters, *steps: Values, grade: Grade = "strict", dtype: str = "float32", layer: str = "float32", **how: Any
) -> list[StepBounds]:
    return bounds(evaluate(p, steps, CANONICAL, Double()), Double(), grade, dtype, layer, **how)


def drawn(n: int = 16, mode: str = "train", scale: float = 1.0, cotangent: float = 1.0) -> Values:
    random = np.random.RandomState(n)
    return values(scale * (3 + random.standard_normal((2, n))), cotangent * random.standard_normal((2, n)), mode)


def drifts(t: Trace, u: float) -> list[Array]:
    """d(g) and d(g·x̂) of (11) in the strict grade, one channel after another, (C, 1)."""
    assert t.g is not None
    channels = (drifts_of(*channel, u) for channel in zip(t.g, t.x, t.mu, t.inv, strict=True))
    return [np.array(column)[:, None] for column in zip(*channels, strict=True)]


def drifts_of(g: Array, x: Array, mu: float, inv: float, u: float) -> tuple[float, float]:
    def sums(terms: Array) -> Array:
        return np.array([terms[:k].sum() for k in range(len(terms) + 1)])

    def largest(terms: Array) -> float:
        lanes = [np.abs(sums(terms[j::32])).max() for j in range(32)] if n > 64 else []
        return float(max(np.abs(sums(terms)).max(), math.hypot(*lanes)))

    def lost(terms: Array, largest: float) -> float:
        found = []
        for spacing in (2.0 * u * 2.0 ** (math.floor(math.log2(largest)) - k) for k in range(3)):
            off = np.array([math.floor(term / spacing + 0.5) * spacing - term for term in terms])
            found += [abs(off[terms > 0].sum() - off[terms < 0].sum()), np.ptp(sums(off))]
        return float(max(found))

    n, products = len(g), g * (x - mu) * inv
    of_g, of_products = largest(g), largest(products)
    if n <= 64:
        return max(2 * math.sqrt(n), n / 2) * u * of_g, max(2 * math.sqrt(n), n / 2) * u * of_products
    forms = [lost(products, of_products), lost(g * (x - mu), of_products / inv) * inv]
    forms.append(lost(g * x, max(of_products / inv, abs(mu) * of_g)) * inv)
    root = 2 * math.sqrt(max(64, n // 8)) * u
    return root * of_g + 2 * lost(g, of_g), root * of_products + 2 * max(forms)


PLAIN = parameters(2, gamma=[2, -0.5], beta=[1, 3], running_mean=[1, 2], running_var=[3, 4])


def grows(before: StepBounds, after: StepBounds) -> dict[str, float]:
    """By what factor each bound grew; smallest subnormals aside, all elements by the same."""
    found = {}
    for name in STEP_TENSORS:
        a, b = np.asarray(vars(before)[name]), np.asarray(vars(after)[name])
        factors = b / a
        np.testing.assert_allclose(factors, factors.flat[0], rtol=1e-9)
        found[name] = float(factors.flat[0])
    return found


def test_doubling_x_with_four_times_eps_scales_the_bounds_as_the_tensors() -> None:
    """μ doubles, σ² is four times as large, y, dγ and dβ stay, dx halves; the state begins at zero."""
    state = {"running_mean": [0.0, 0.0], "running_var": [0.0, 0.0]}
    (plain,) = limits(parameters(2, **state), drawn())
    (twice,) = limits(parameters(2, eps=2.0, **state), drawn(scale=2))
    expected = {"y": 1, "running_mean": 2, "running_var": 4, "dx": 0.5, "dgamma": 1, "dbeta": 1}
    assert grows(plain, twice) == pytest.approx(expected)


def test_doubling_the_cotangent_doubles_the_bounds_of_the_gradients_alone() -> None:
    expected = {"y": 1, "running_mean": 1, "running_var": 1, "dx": 2, "dgamma": 2, "dbeta": 2}
    assert grows(*limits(PLAIN, drawn()), *limits(PLAIN, drawn(cotangent=2))) == pytest.approx(expected)


def test_doubling_gamma_and_beta_doubles_the_bounds_of_y_and_dx_alone() -> None:
    twice = parameters(2, gamma=2 * PLAIN.gamma, beta=2 * PLAIN.beta, running_mean=[1, 2], running_var=[3, 4])
    expected = {"y": 2, "running_mean": 1, "running_var": 1, "dx": 2, "dgamma": 1, "dbeta": 1}
    assert grows(*limits(PLAIN, drawn()), *limits(twice, drawn())) == pytest.approx(expected)


@pytest.mark.parametrize(("momentum", "handed_over"), [(0.0, 0), (0.5, 1), (1.0, 0)])
def test_momentum_weighs_the_error_of_the_batch(momentum: float, handed_over: int) -> None:
    """By hand: x = ±1 and more of them, so mean|x| = 1, μ = 0 and s = n/(n−1). 0 and 1 are handed over exactly."""
    n, u = 16, 2.0**-24
    x = [1.0, -1.0] * (n // 2)
    p = parameters(momentum=momentum, running_mean=[0.0], running_var=[0.0])
    (found,) = limits(p, values(x))
    delta_mean = (n * u / (1 - n * u) + u) * 1
    s = n / (n - 1)
    delta_s = ((n + 4) * u + delta_mean**2) * s + 2 * u * s
    mean = momentum * delta_mean + 2.0**-149
    var = momentum * delta_s + 3 * u * momentum * s + handed_over * u * s + u * momentum * s + 2.0**-149
    assert found.running_mean == pytest.approx([mean], rel=1e-12)
    assert found.running_var == pytest.approx([var], rel=1e-12)


def test_bounds_of_a_hand_made_batch() -> None:
    """x = ±1, γ = 2, β = 3, ε = 0: inv = 1, x̂ = x, g = 1 everywhere, so β' = n, γ' = 1 − 1 + 1 − 1 and dx = 0."""
    n, u, eta = 4, 2.0**-24, 2.0**-149  # eta is below what can be told of these, but for exact zeros
    p = parameters(eps=0.0, gamma=[2.0], beta=[3.0])
    (found,) = limits(p, values([1, -1, 1, -1], [1, 1, 1, 1]))
    delta_mu = n * u / (1 - n * u) + u
    delta_var = (n + 4) * u + delta_mu**2
    q = delta_var / 2
    delta_xhat = delta_mu + q + 5 * u
    sums = 2 * math.sqrt(n) * u * math.sqrt(n)
    delta_dgamma = (2 * math.sqrt(n) + 3) * u * math.sqrt(n) + delta_mu * n + 2 * math.sqrt(n) * u * 1
    y = 2 * delta_xhat + 2 * u * 3 + 3 * u * (2 * 1 + 3) + u * np.abs([5, 1, 5, 1]) + eta
    assert found.y == pytest.approx(np.array([y]), rel=1e-12)
    delta_dbeta = sums + 2 * math.sqrt(n) * u * n
    assert found.dbeta == pytest.approx([delta_dbeta + u * n + eta], rel=1e-12)
    assert found.dgamma == pytest.approx([delta_dgamma + eta], rel=1e-12)
    through = delta_dbeta / n + (1 + delta_xhat) * delta_dgamma / n
    assert found.dx == pytest.approx(np.full((1, n), 2 * (through + 3 * u * 2) + eta), rel=1e-12)


@pytest.mark.parametrize("grade", ["strict", "weak"])
def test_evaluation_carries_the_error_of_the_state_and_no_other(grade: Grade) -> None:
    """With γ = 1, β = 0 and x = μ: folded, u·|x| twice over, is all there is until the state has an error."""
    p = parameters(running_mean=[2.0], running_var=[3.5], eps=0.5)
    u, eta = 2.0**-24, 2.0**-149
    (alone,) = limits(p, values([2.0], mode="eval"), grade=grade)
    assert alone.y == pytest.approx(np.array([[0.5 * 4 * 3 * u + eta]]), rel=1e-12)
    assert alone.running_mean.tolist() == alone.running_var.tolist() == [0.0]
    trained, later = limits(p, values([1, 3, 2, 2]), values([2.0], mode="eval"), grade=grade)
    assert later.running_mean.tolist() == trained.running_mean.tolist()
    assert (later.y > alone.y).all()


@pytest.mark.parametrize("saved", ["accumulated", "rounded for gradients"])
@pytest.mark.parametrize("n", [16, 300])
def test_every_element_has_the_bound_that_the_equations_spell_out(n: int, saved: str) -> None:
    """(2) to (14) of docs/bounds.md, with an array for every δ; float16 in, so that saved statistics may be rounded."""
    step, conventions = drawn(n, scale=100), CANONICAL.but(statistics=saved)
    (t,) = evaluate(PLAIN, [step], conventions, Double())
    (found,) = bounds([t], Double(), "strict", "float16", "float32", conventions)
    assert t.g is not None
    assert t.dx is not None
    assert t.sums is not None

    u, u_o, eta, h = 2.0**-24, 2.0**-11, 2.0**-24, min(n, 64)
    root, coarse = 2 * math.sqrt(max(h, n // 8)) * u, 2.0**-11 if saved != "accumulated" else 0.0
    mu, var, inv, gamma, beta = (np.abs(each)[:, None] for each in (t.mu, t.var, t.inv, t.gamma, t.beta))
    x, xhat, g, y, dx = (np.abs(each) for each in (t.x, t.xhat, t.g, t.y, t.dx))
    beta_, gamma_ = (np.abs(each)[:, None] for each in t.sums)

    delta_mu = (h * u / (1 - h * u) + u) * x.mean(1, keepdims=True)
    delta_var = (h + 4) * u * var + 3 * u * mu * np.sqrt(var) + delta_mu**2
    q = (delta_var + u * np.maximum(var + t.eps - np.abs(var + t.eps), 0)) / (var + t.eps) / 2
    delta_xhat = inv * delta_mu + xhat * (q + 5 * u)
    spanned = inv * (x + mu)
    delta_y = gamma * delta_xhat + 2 * u * beta + 3 * u * (gamma * spanned + beta) + u_o * y + eta
    np.testing.assert_allclose(found.y, delta_y, rtol=1e-12)

    delta_mu, q = delta_mu + coarse * mu, q + 2 * coarse
    delta_xhat = delta_xhat + coarse * inv * mu + 2 * coarse * xhat
    of_beta, of_gamma = drifts(t, u)
    delta_beta = root * np.sqrt((g**2).sum(1, keepdims=True)) + of_beta
    delta_gamma = (root + 3 * u) * np.sqrt(((g * spanned) ** 2).sum(1, keepdims=True)) + of_gamma
    delta_gamma = delta_gamma + inv * (delta_mu * beta_ + mu * of_beta) + (q + 4 * u) * gamma_
    terms = delta_beta + delta_xhat * (gamma_ + delta_gamma) + xhat * delta_gamma
    rounded = 3 * u * (g + (beta_ + xhat * gamma_) / n)
    delta_dx = (q + 6 * u) * dx + gamma * inv * (terms / n + rounded) + u_o * dx + eta
    assert found.dx is not None
    assert found.dgamma is not None
    assert found.dbeta is not None
    np.testing.assert_allclose(found.dx, delta_dx, rtol=1e-12)
    np.testing.assert_allclose(found.dgamma, (delta_gamma + u * gamma_)[:, 0], rtol=1e-12)
    np.testing.assert_allclose(found.dbeta, (delta_beta + u * beta_)[:, 0], rtol=1e-12)


@pytest.mark.parametrize(
    ("gamma", "size"),
    [([2.0, -0.5], 1e-42), ([2.0, -0.5], 1.0), ([1e-37, -8e-38], 1e-42)],
    ids=["plain", "x̂ of some size", "subnormal over n"],
)
def test_among_subnormals_every_element_has_the_bound_that_the_equations_spell_out(
    gamma: list[float], size: float
) -> None:
    """(2) to (13), (8"), (12"), (13') and (13") where η_a is most of what there is, of dx at least."""
    n, u, eta = 16, 2.0**-24, 2.0**-149
    p, step = parameters(2, gamma=gamma, running_var=[0, 0]), drawn(n, "train", size, 1e-42)
    (t,), (found,) = evaluate(p, [step], CANONICAL, Double()), limits(p, step)
    assert t.g is not None
    assert t.dx is not None
    assert t.sums is not None
    assert found.dx is not None
    assert found.dgamma is not None
    mu, var, inv, scale = (np.abs(each)[:, None] for each in (t.mu, t.var, t.inv, t.gamma))
    x, xhat, g, y, dx = (np.abs(each) for each in (t.x, t.xhat, t.g, t.y, t.dx))
    beta_, gamma_ = (np.abs(each)[:, None] for each in t.sums)
    root, outer, spanned = 2 * math.sqrt(n) * u, scale * inv, inv * (x + mu)

    delta_mu = (n * u / (1 - n * u) + u) * x.mean(1, keepdims=True) + eta
    delta_var = (n + 4) * u * var + 3 * u * mu * np.sqrt(var) + delta_mu**2 + eta
    q = delta_var / (var + t.eps) / 2
    delta_xhat = inv * delta_mu + xhat * (q + 5 * u)
    delta_y = scale * (delta_xhat + eta) + 3 * u * scale * spanned + u * y + 2 * eta
    np.testing.assert_allclose(found.y, delta_y, rtol=1e-12)

    s = var[:, 0] * n / (n - 1)
    delta_s = delta_var[:, 0] * n / (n - 1) + 2 * u * s
    moved = 0.5 * delta_s + 3 * u * 0.5 * s + u * s + u * 0.5 * s + eta
    np.testing.assert_allclose(found.running_var, moved, rtol=1e-12)
    mean = 0.5 * delta_mu[:, 0] + 3 * u * 0.5 * mu[:, 0] + u * mu[:, 0] + u * 0.5 * mu[:, 0] + eta
    np.testing.assert_allclose(found.running_mean, mean, rtol=1e-12)

    of_beta, of_gamma = drifts(t, u)
    delta_beta = root * np.sqrt((g**2).sum(1, keepdims=True)) + of_beta
    delta_gamma = (root + 3 * u) * np.sqrt(((g * spanned) ** 2).sum(1, keepdims=True)) + of_gamma
    delta_gamma = delta_gamma + inv * (delta_mu * beta_ + mu * of_beta) + (q + 4 * u) * gamma_
    delta_gamma = delta_gamma + eta * (n * (1 + inv) + g.sum(1, keepdims=True))
    np.testing.assert_allclose(found.dgamma, (delta_gamma + u * gamma_ + eta)[:, 0], rtol=1e-12)
    terms = (delta_beta + delta_xhat * (gamma_ + delta_gamma) + xhat * delta_gamma) / n
    parts = g + (beta_ + xhat * gamma_) / n
    delta_dx = (q + 6 * u) * dx + outer * (terms + 3 * u * parts) + u * dx + eta
    delta_dx = delta_dx + eta * (1 + scale + inv) + outer * eta * (2 + gamma_ + xhat)
    if gamma[0] < 1e-30:
        delta_dx = delta_dx + eta * (n * parts + 3 * (1 + inv) * (1 + xhat))
    np.testing.assert_allclose(found.dx, delta_dx, rtol=1e-12)


def test_errors_of_the_state_pile_up_towards_a_limit() -> None:
    found = limits(parameters(2, momentum=0.5), *(drawn() for _ in range(40)))
    steps = np.array([step.running_mean[0] for step in found])
    assert (np.diff(steps[:10]) > 0).all()
    assert steps[-1] == pytest.approx(steps[-2], rel=1e-9)
    assert steps[-1] < 3 * steps[0]


@given(st.integers(1, 200), st.floats(-100, 100), st.sampled_from(["train", "eval"]))
@settings(deadline=None, max_examples=40)
def test_the_weak_bound_is_never_below_the_strict_one(n: int, shift: float, mode: str) -> None:
    step = values(shift + np.random.RandomState(n).standard_normal((2, n)), np.ones((2, n)), mode)
    (strict,), (weak,) = limits(PLAIN, step), limits(PLAIN, step, grade="weak")
    for name in STEP_TENSORS:
        a, b = vars(strict)[name], vars(weak)[name]
        assert ((a <= b) | (np.isnan(a) & np.isnan(b))).all(), name


@pytest.mark.parametrize("gamma", [1e-40, -3e-42, 2e-44])
@pytest.mark.parametrize("order", ["factor first", "products first"])
def test_a_factor_that_is_subnormal_is_rounded_by_its_spacing(gamma: float, order: str) -> None:
    """γ·inv has few bits left, or γ·(x−μ) and γ·g have; nobody who flushes them is within the bound."""
    p = parameters(2, gamma=[float(np.float32(gamma))] * 2, beta=[0, 0], running_mean=[1, -2], running_var=[0.01, 9])
    step = drawn(n=64, mode="eval", scale=4.0)
    x, g = (np.asarray(a, np.float32) for a in (step.x, step.g))
    step = values(x.astype(np.float64), g.astype(np.float64), "eval")
    scale, mu = np.float32(gamma), np.array([[1], [-2]], np.float32)
    inv = (1 / np.sqrt(np.array([[0.01], [9]], np.float32) + np.float32(p.eps))).astype(np.float32)
    if order == "factor first":
        y, dx = x * (scale * inv) - mu * (scale * inv), g * (scale * inv)
    else:
        y, dx = (scale * (x - mu)) * inv, (scale * g) * inv
    (trace,), (limit,) = evaluate(p, [step], CANONICAL, Double()), limits(p, step)
    assert limit.dx is not None
    assert trace.dx is not None
    assert (np.abs(y - trace.y) <= limit.y).all()
    assert (np.abs(dx - trace.dx) <= limit.dx).all()
    assert (np.abs(trace.y) > limit.y).mean() > (0.5 if abs(gamma) > 1e-43 else 0.0)


def assert_within(p: Parameters, step: Values, dx: Array, dgamma: Array) -> None:
    """The gradients of the one step, (C, n) and (C,), are within their strict bounds."""
    (trace,), (limit,) = evaluate(p, [step], CANONICAL, Double()), limits(p, step)
    assert limit.dx is not None
    assert limit.dgamma is not None
    assert trace.dx is not None
    assert trace.dgamma is not None
    assert (np.abs(dx - trace.dx) <= limit.dx).all()
    assert (np.abs(dgamma - trace.dgamma) <= limit.dgamma).all()


@pytest.mark.parametrize("n", [3, 5, 64, 1000])
def test_a_constant_channel_is_bounded_by_the_errors_of_its_mean_and_of_its_products(n: int) -> None:
    """x̂ and γ' are exactly 0; whoever computes them has the rounding of μ, times a gradient of one sign."""
    x = np.full((1, n), np.float32(1000.1))
    g = np.random.RandomState(n).standard_normal((1, n)).astype(np.float32) + np.float32(100)
    p = parameters(eps=1e-5)
    mu, var = two_pass(x, sequential if n < 64 else blocked)
    inv = np.float32(1) / np.sqrt(var + np.float32(1e-5))
    xhat = (x - mu[:, None]) * inv[:, None]
    dbeta, dgamma = pairwise(g), pairwise(g * xhat)
    size = np.float32(n)
    dx = inv[:, None] * (g - dbeta[:, None] / size - xhat * dgamma[:, None] / size)
    step = values(x.astype(np.float64), g.astype(np.float64))
    assert_within(p, step, dx, dgamma)


@pytest.mark.parametrize("order", ["inv first", "gamma first"])
@pytest.mark.parametrize("gamma", [1e-3, 1e6])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_what_is_subnormal_on_the_way_is_rounded_by_its_spacing(order: str, gamma: float, mode: str) -> None:
    """g of 10⁻⁴¹: products with x̂, and with inv or γ before the other makes a normal number of them again."""
    n = 1000
    p = parameters(2, gamma=[gamma] * 2, running_mean=[0.5, -0.5], running_var=[300, 0.5], eps=0.0)
    p = replace(p, gamma=p.gamma.astype(np.float32).astype(np.float64))
    drawn_ = drawn(n, mode=mode)
    x = drawn_.x.astype(np.float32)
    g = (np.random.RandomState(1).standard_normal((2, n)) * 1e-41).astype(np.float32)
    step = values(x.astype(np.float64), g.astype(np.float64), mode)
    held = p.running_mean.astype(np.float32), p.running_var.astype(np.float32)
    mu, var = two_pass(x, pairwise) if mode == "train" else held
    inv = np.float32(1) / np.sqrt(var)[:, None]
    xhat = (x - mu[:, None]) * inv
    dbeta, dgamma = pairwise(g)[:, None], pairwise(g * xhat)[:, None]
    size = np.float32(n)
    t = g - dbeta / size - xhat * (dgamma / size) if mode == "train" else g
    scale = np.float32(gamma)
    dx = (t * inv) * scale if order == "inv first" else (t * scale) * inv
    assert_within(p, step, dx, dgamma[:, 0])


def test_the_strict_bound_of_the_mean_stops_growing_with_n_and_the_weak_one_does_not() -> None:
    def of_mean(n: int, grade: Grade) -> float:
        x = np.ones((2, n))
        return float(limits(parameters(2, momentum=1.0), values(x), grade=grade)[0].running_mean[0])

    assert of_mean(64, "strict") == of_mean(4096, "strict") == of_mean(64, "weak")
    assert of_mean(4096, "weak") > 40 * of_mean(64, "weak")


def test_sums_in_eight_lanes_are_as_deep_as_one_lane_and_what_adds_the_eight() -> None:
    def deep(n: int, **how: Any) -> list[int]:
        r = rounding("strict", "float16", "float32", CANONICAL.but(**how))
        return [r.depth(n), r.lane(n)]

    assert [deep(n, summation="eight lanes") for n in (64, 300, 8000)] == [[64] * 2, [64] * 2, [1008] * 2]
    assert deep(8000, summation="sequential") == [8000, 8000]
    assert deep(8000) == [64, 1000]


LONG, DRAWN, PLACE = 65536, np.random.RandomState(0).standard_normal(65536), np.arange(65536)


def summed(g: Array, lanes: int) -> float:
    """Their sum in so many float32 chains."""
    chains = (np.cumsum(g[lane::lanes], dtype=np.float32)[-1] for lane in range(lanes))
    return math.fsum(float(chain) for chain in chains)


@pytest.mark.parametrize(
    ("g", "random"),
    [
        (DRAWN, True),
        (10 + DRAWN, True),
        (np.sort(DRAWN), True),
        (np.full(LONG, 0.7), False),
        (np.where(DRAWN > 0, DRAWN, -0.4), False),
        (np.where(PLACE % 2, 0.7, -0.3), False),
        (np.where(PLACE < LONG // 2, 0.7, -0.3), False),
        (0.6 - (DRAWN > 0), False),
        (np.where(PLACE == 0, 1e6, DRAWN**2), False),
    ],
    ids=["random", "drifting", "sorted", "alike", "half alike", "in turn", "in blocks", "two classes", "swamped"],
)
def test_long_sums_stay_within_what_their_own_terms_say_of_rounding(g: Array, random: bool) -> None:
    """(11): chains of float32 and lanes of them, where roundings are random, and where they are not."""
    g = g.astype(np.float32)
    p, step = parameters(1, running_mean=[0.0], running_var=[1.0]), values(np.ones((1, LONG)), g[None], "eval")
    partial, wider = np.abs(np.cumsum(g.astype(np.float64))).max(), []
    for grade, lanes, longest in ("strict", 8, LONG // 8), ("weak", 1, LONG):
        (found,) = limits(p, step, grade=cast(Grade, grade))
        assert found.dbeta is not None
        error, usual = abs(summed(g, lanes) - math.fsum(g)), 2 * math.sqrt(longest) * 2.0**-24
        usual *= float(np.linalg.norm(g)) + partial
        assert error <= found.dbeta[0] / 2
        assert not random or found.dbeta[0] < 5 * usual
        wider.append(error > usual)
    assert any(wider) is not random


def test_short_sums_that_drift_are_as_far_off_as_a_chain_may_be() -> None:
    """(11) and (12) in evaluation far from the running mean, where every g·x̂ of a drifting g has one sign."""
    x, g, u = 1000 + DRAWN[None, :64], 10 + DRAWN[None, 64:128], 2.0**-24
    (found,) = limits(parameters(1, running_mean=[0.0], running_var=[1.0], eps=0.0), values(x, g, "eval"))
    assert found.dbeta is not None
    assert found.dgamma is not None
    factors = [found.dbeta[0] / g.sum(), found.dgamma[0] / (g * x).sum()]
    assert factors == [pytest.approx(37 * u, rel=0.15)] * 2  # 64/2, and roundings of single terms


def test_coarser_dtypes_have_wider_bounds_where_they_are_used() -> None:
    (usual,) = limits(PLAIN, drawn())
    (half,) = limits(PLAIN, drawn(), dtype="float16")
    (brain,) = limits(PLAIN, drawn(), dtype="bfloat16")
    (layer,) = limits(PLAIN, drawn(), layer="float16")
    wider = {name for name in STEP_TENSORS if (vars(half)[name] > vars(usual)[name]).all()}
    assert wider == {"y", "dx"}
    assert (brain.y > half.y).all()
    wider = {name for name in STEP_TENSORS if (vars(layer)[name] > vars(usual)[name]).all()}
    assert wider == {"running_mean", "running_var", "dgamma", "dbeta"}


@pytest.mark.parametrize(("mean", "either"), [(1 + 2.0**-11, True), (1 + 2.0**-12, False)])
def test_a_mean_amid_two_halves_may_be_saved_as_either(mean: float, either: bool) -> None:
    step, saved = values([[mean - 0.5, mean + 0.5]]), CANONICAL.but(saved="deviation in float16")
    traces = evaluate(parameters(), [step], saved, Double())
    (limit,) = bounds(traces, Double(), "strict", "float32", "float32", saved)
    inv = float(np.float16(1 / math.sqrt(0.75)))
    admitted = [bool((np.abs((step.x - kept) * inv - traces[0].y) <= limit.y).all()) for kept in (1, 1 + 2.0**-10)]
    assert admitted == [True, either]


def test_statistics_that_are_rounded_widen_every_bound_but_that_of_dbeta() -> None:
    (usual,), (rounded,) = (
        limits(PLAIN, drawn(), layer="float16"),
        limits(PLAIN, drawn(), layer="float16", conventions=CANONICAL.but(statistics="rounded")),
    )
    wider = {name for name in STEP_TENSORS if (vars(rounded)[name] > vars(usual)[name]).all()}
    assert wider == set(STEP_TENSORS) - {"dbeta"}


def test_rounded_elements_widen_y_and_dgamma_by_what_their_operations_come_to() -> None:
    """Beyond what rounded terms do; dx follows from dγ."""
    terms, elements = (
        limits(PLAIN, drawn(), dtype="float16", conventions=CANONICAL.but(terms=how))[0]
        for how in ("rounded", "rounded, elements too")
    )
    (trace,) = evaluate(PLAIN, [drawn()], CANONICAL, Double())
    assert trace.g is not None
    assert elements.y - terms.y == pytest.approx(4 * 2.0**-11 * np.abs(trace.gamma[:, None] * trace.xhat), rel=1e-12)
    products = np.sqrt(np.square(trace.g * trace.xhat).sum(1))
    assert elements.dgamma is not None
    subnormal = 2 * math.sqrt(16) * 2.0**-24 * trace.inv
    assert elements.dgamma - terms.dgamma == pytest.approx(4 * 2.0**-11 * products + subnormal, rel=1e-12)
    assert elements.dx is not None
    assert (elements.dx > terms.dx).all()
    assert (elements.running_var == terms.running_var).all()


def test_terms_that_are_rounded_have_their_subnormals() -> None:
    """Without a cotangent nothing else is left of the bound of dx."""
    nothing = replace(drawn(), g=np.zeros((2, 16)))
    plain, terms = (
        limits(PLAIN, nothing, dtype="float16", conventions=CANONICAL.but(terms=how))[0].dx
        for how in ("accumulated", "rounded")
    )
    assert plain is not None
    (trace,) = evaluate(PLAIN, [nothing], CANONICAL, Double())
    outer = np.abs(trace.gamma * trace.inv)[:, None]
    np.testing.assert_allclose(terms - plain, 3 * 2.0**-24 * np.broadcast_to(outer, (2, 16)), rtol=1e-6)


def test_squares_that_are_rounded_move_the_variance_where_its_bound_reaches_a_midpoint() -> None:
    """±x with x² near 1 and n = 2: Σ(x−μ)² of 2 + 2⁻¹⁰ lies amid two numbers of float16, that of 2 on one."""
    held = CANONICAL.but(squares="in float16")
    amid, plain = (
        bounds(evaluate(parameters(), [step], held, Double()), Double(), "strict", "float32", "float32", held)[0]
        for step in (values([-math.sqrt(1 + 2.0**-11), math.sqrt(1 + 2.0**-11)]), values([-1, 1]))
    )
    assert amid.running_var[0] > 2.0**-12 > plain.running_var[0]


def test_the_chain_rule_has_the_rounding_of_its_subnormal_links() -> None:
    """(21) by hand, with x = ±10¹⁵, n = 2, g = [1, 0], and so β' = 1, γ' = −1, |x̂| = 1 and inv = 10⁻¹⁵."""
    step, p = values([-1e15, 1e15], [1, 0]), parameters(eps=0.0)
    closed, chain = (
        bounds(evaluate(p, [step], held, Double()), Double(), "strict", "float32", "float32", held)[0]
        for held in (CANONICAL, CANONICAL.but(derivation="chain"))
    )
    links = np.array([[1, 0]]) + 1 + (1 + 1) / 2 + 1e15 * (1 + (2 + 1e-45 + 1e15) / 2)
    assert closed.dx is not None
    np.testing.assert_allclose(chain.dx - closed.dx, 2.0**-149 * links, rtol=1e-3)


def test_the_roundoffs_are_those_of_the_dtypes() -> None:
    for dtype in ("float64", "float32", "float16"):
        assert UNIT_ROUNDOFF[dtype] == np.finfo(dtype).eps / 2
        assert SUBNORMAL[dtype] == np.finfo(dtype).smallest_subnormal
    brain = dtype_of("bfloat16").type
    assert float(brain(1 + 2 * UNIT_ROUNDOFF["bfloat16"])) > 1 == float(brain(1 + UNIT_ROUNDOFF["bfloat16"]))
    assert 0 < float(brain(SUBNORMAL["bfloat16"])) == SUBNORMAL["bfloat16"]
    assert float(brain(SUBNORMAL["bfloat16"] / 2)) == 0


def test_halves_are_accumulated_in_float32() -> None:
    assert accumulator("float16", "float32") == accumulator("bfloat16", "bfloat16") == UNIT_ROUNDOFF["float32"]
    assert accumulator("float32", "float64") == UNIT_ROUNDOFF["float64"]


# The edges


def test_a_step_without_a_cotangent_has_no_bounds_of_gradients() -> None:
    (found,) = limits(parameters(), values([1, 2, 3]))
    assert (found.dx, found.dgamma, found.dbeta) == (None, None, None)
    assert (found.y > 0).all()


def test_no_steps_have_no_bounds() -> None:
    assert limits(parameters()) == []


def test_an_empty_batch_has_empty_bounds() -> None:
    (found,) = limits(parameters(2), values(np.zeros((2, 0)), np.zeros((2, 0))))
    assert found.y.shape == (2, 0)


@pytest.mark.parametrize("spoiler", [math.nan, math.inf])
def test_a_special_value_leaves_the_bounds_of_other_channels(spoiler: float) -> None:
    g = np.ones((2, 3))
    (sound,) = limits(PLAIN, values([[1, 2, 3], [4, 5, 7]], g))
    (spoilt,) = limits(PLAIN, values([[1, spoiler, 3], [4, 5, 7]], g))
    for name in STEP_TENSORS:
        assert (vars(spoilt)[name][1] == vars(sound)[name][1]).all()
        assert not np.isfinite(vars(spoilt)[name][0]).all() or name == "dbeta"


def test_what_a_layer_does_not_learn_still_bounds_dx() -> None:
    step = drawn()
    (learned,) = limits(parameters(2), step)
    (plain,) = limits(parameters(2, scale=False, center=False), step)
    assert plain.dx == pytest.approx(learned.dx, rel=1e-9)


def test_a_mask_bounds_what_is_computed_over_the_values_kept() -> None:
    """Bounds of the statistics are those of a batch of the kept values alone."""
    x = np.array([[1.0, 2.0, 4.0, 9.0], [0.0, 1.0, 0.0, 3.0]])
    (alone,) = limits(PLAIN, values(x[:, [0, 2, 3]]))
    (masked,) = limits(PLAIN, values(x, mask=[1, 0, 1, 1]))
    factors = {name: vars(masked)[name] / vars(alone)[name] for name in ("running_mean", "running_var")}
    for factor in factors.values():  # the sum is one deeper, of a term that is zero
        assert (factor >= 1).all()
        assert (factor < 1.3).all()
    (rest,) = limits(PLAIN, values(x, np.ones((2, 4)), mask=[1, 0, 1, 1]))
    for name in STEP_TENSORS:
        assert np.isfinite(vars(rest)[name]).all()


def test_gamma_of_zero_leaves_a_finite_bound() -> None:
    (found,) = limits(parameters(gamma=[0.0]), values([1, 2, 4], [1, 0, 2]))
    for name in STEP_TENSORS:
        assert np.isfinite(vars(found)[name]).all()


def test_both_arithmetics_give_the_same_bounds() -> None:
    step = drawn()
    fine = bounds(
        evaluate(PLAIN, [step], CANONICAL, Multiprecision()), Multiprecision(), "strict", "float32", "float32"
    )
    for name in STEP_TENSORS:
        assert vars(fine[0])[name] == pytest.approx(vars(limits(PLAIN, step)[0])[name], rel=1e-9), name
