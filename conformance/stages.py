"""The stages of a step, each a formula under the conventions that concern it; `conformance.reference` strings them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from conformance.arithmetic import Arithmetic, Array, in_blocks
from conformance.conventions import Affine, Conventions, Differentiating, Modes, Moments, Normalising, Updating
from conformance.layer import Parameters, State, Trace, Values

# Modes


def modes(p: Parameters, steps: Sequence[Values], c: Modes) -> list[str]:
    """The mode that each step runs in: train or eval."""
    modes = []
    standing: str = c.default_mode
    first: dict[tuple[int, ...], str] = {}
    for step in steps:
        mode = standing if step.mode == "default" else step.mode
        if c.mode_lasts:
            standing = mode
        if (step.frozen or not p.trainable) and c.frozen == "eval":
            mode = "eval"
        if step.reloaded:
            first.clear()  # as its layer is another one
        if step.forward and c.tangent_mode == "of the first of its shape":
            mode = first.setdefault((step.samples, *step.x.shape), mode)
        modes.append(p.mode or mode)
    return modes


def parameters_at(p: Parameters, steps: Sequence[Values], c: Modes) -> list[Parameters]:
    """The layer's numbers in each step, as attributes were assigned, or captured by the first call of its kind."""
    found, captured = [], dict[tuple[object, ...], Parameters]()
    for step in steps:
        values: dict[str, Any] = dict(step.assigned)
        p = replace(p, **values) if c.assigned != "ignored" and values else p
        given = step.g is None, step.v is None, step.mask is None
        kind = (step.mode, step.frozen, step.x.shape, step.samples, *given, step.forward, step.by)
        found.append(captured.setdefault(kind, p) if c.assigned == "captured" else p)
    return found


# Moments


def values_kept(step: Values) -> int:
    """n, the values per channel that the mask keeps."""
    return step.x.shape[1] if step.mask is None else int(step.mask.sum())


def counted(step: Values, c: Moments) -> int:
    """The n of corrections and gradients."""
    n = values_kept(step)
    return {"values": n, "samples": step.samples, "values up to 255": min(n, 255)}[c.count]


def padded(step: Values, c: Moments) -> bool:
    """Whether the mask's count is padded."""
    return step.mask is not None and c.mask_count == "padded"


def moments(x: Array, kept: Any, n: float, index: int, arithmetic: Arithmetic, c: Moments) -> tuple[Array, Array]:
    """Mean and biased variance over the n values kept of every row, two-pass; NaN where there are none.

    What a mask leaves out may be no number.
    """
    mean, var = (None if given is None else given[index] for given in (c.means, c.variances))
    if not n:
        nothing = arithmetic.lift(np.full(x.shape[0], np.nan))
        return nothing, nothing
    within = None if np.ndim(kept) == 0 else np.asarray(kept)[None]

    def taken(values: Array, within: Array) -> Array:
        return values * within if c.mask == "multiplied" else np.where(within.astype(bool), values, 0)

    def total(formula: Callable[..., Array], *arrays: Array) -> Array:
        if within is None:
            return in_range(arithmetic.sum_of(formula, *arrays), arithmetic, c)
        masked = arithmetic.sum_of(lambda *block: taken(formula(*block[:-1]), block[-1]), *arrays, within)
        return in_range(masked, arithmetic, c)

    mu = total(lambda x: x, x) / n if mean is None else arithmetic.lift(np.asarray(mean))
    mu = mu if c.shared == "nothing" else of_all(mu, arithmetic)
    if var is not None:
        return mu, arithmetic.lift(np.asarray(var))
    biased = divided(total(lambda x, mu: np.square(x - mu), x, mu[:, None]), n, arithmetic, c)
    if c.sums == "overflow, of squares too":
        cancelling = total(np.square, x) / n - in_range(np.square(mu), arithmetic, c)
        biased = where_finite(biased, cancelling, arithmetic)
    return mu, of_all(biased, arithmetic) if c.shared == "both" else biased


def divided(squares: Array, n: float, arithmetic: Arithmetic, c: Moments) -> Array:
    """σ² of Σ(x−μ)², in the formats that these and n are held in."""
    if c.squares == "as computed":
        return squares / n
    if c.squares == "in range of float16":
        return in_range_of("float16", squares, arithmetic) / n
    held = partial(held_as, c.squares.removeprefix("in "), arithmetic=arithmetic)
    return held(held(squares) / held(arithmetic.lift(np.asarray(float(n)))))


def where_finite(usual: Array, other: Array, arithmetic: Arithmetic) -> Array:
    """What another way of computing makes of a number: the same, unless that is infinite or none."""
    return np.where(np.isfinite(arithmetic.lower(other)), usual, other)


def of_all(a: Array, arithmetic: Arithmetic) -> Array:
    """The mean over all channels, for each of them."""
    return np.full(a.shape, arithmetic.sum(a) / max(a.size, 1), a.dtype)


def in_range(sums: Array, arithmetic: Arithmetic, c: Moments) -> Array:
    """Sums as they are held: infinite beyond float32's range where sums overflow."""
    if c.sums == "exact":
        return sums
    size = arithmetic.lower(sums)
    beyond = np.abs(size) > np.finfo(np.float32).max
    held = sums.copy()
    held[beyond] = arithmetic.lift(np.copysign(np.inf, size[beyond]))
    return held


# The update


def unbiased(var: Any, n: int) -> Any:
    """Bessel's correction; 0/0, which is NaN, for a single value."""
    return var * n / (n - 1) if n > 1 else var * np.nan


def stored(var: Array, eps: float, c: Updating, arithmetic: Arithmetic) -> Array:
    """What running_var averages."""
    if c.stored == "deviation":
        return arithmetic.sqrt(var)
    return var + eps if c.stored == "variance and eps" else var


def updated(
    state: State, mean: Array, var: Array, p: Parameters, c: Conventions, arithmetic: Arithmetic, step: Values
) -> tuple[State, float]:
    """r ← (1−m)·r + m·s, as often as such a step updates; what s weighs in all."""
    given = p.momentum if c.momentum is None else c.momentum
    cumulative = c.averaging == "cumulative" or (given is None and c.averaging == "as given")
    given = c.default_momentum if given is None else given
    given = min(max(given, 0.0), 1.0) if c.momentum_range == "clipped" else given
    m = arithmetic.lift(np.asarray(given))
    weight: Any = 0.0
    again = c.updates_along_tangent if step.forward or step.by else c.updates_in_backward
    for _ in range(c.updates + (0 if step.g is None else again)):
        count = 1 if c.counting == "to one" else state.count + 1
        if cumulative:
            m = arithmetic.reciprocal(arithmetic.lift(np.asarray(float(count))))
        m = held_as(c.momentum_held, m, arithmetic)
        kept, new = (m, 1 - m) if c.momentum_weighs == "old" else (1 - m, m)
        state = State(
            kept * state.running_mean + new * mean if c.mean_updated else state.running_mean,
            kept * state.running_var + new * var if c.variance_updated else state.running_var,
            count,
        )
        weight = kept * weight + new
    return state, float(weight)


# The inverse deviation


def epsilon(p: Parameters, c: Normalising) -> float:
    """The ε that is added; one that is not above the least admitted, NaN too, is raised to it."""
    eps = p.eps if c.eps is None else c.eps
    eps = p.eps_beside if c.eps_of == "the layer beside" and p.eps_beside is not None else eps
    eps = eps if c.eps_held == "as given" else float(np.asarray(eps).astype(c.eps_held))
    return c.least_eps if c.least_eps and not eps > c.least_eps else eps


def saved_as(which: str, batch: bool, c: Normalising) -> str:
    """The dtype that a mean, variance or deviation, the batch's or not, is rounded to, or as given."""
    rounded, _, dtype = c.saved.partition(" in ")
    return dtype if batch and dtype and which in ("mean", rounded) else "as given"


def inverse(var: Array, eps: float, c: Normalising, arithmetic: Arithmetic) -> tuple[Array, Array]:
    """σ²+ε and 1/√(σ²+ε), or what stands in for them."""
    if c.eps_added_to == "variance as a floor":
        radicand = np.where(var < eps, arithmetic.lift(np.full(var.shape, eps)), var)
    else:
        radicand = var + (2 * eps if c.eps_added_to == "variance twice" else eps)
    if c.divisor == "variance":
        return radicand, arithmetic.reciprocal(radicand)
    if c.eps_added_to in ("deviation", "nothing"):
        return radicand, arithmetic.reciprocal(arithmetic.sqrt(var) + (eps if c.eps_added_to == "deviation" else 0))
    return radicand, arithmetic.reciprocal(arithmetic.sqrt(radicand))


# The affine map


def affine(parameters: Parameters, c: Affine) -> tuple[Array, Array]:
    """The γ and β that are applied."""
    gamma, beta = parameters.gamma, parameters.beta
    if c.gamma == "swapped":
        gamma, beta = beta, gamma
    absent = c.unlearned == "absent"
    if (absent and not parameters.scale) or c.gamma == "ignored":
        gamma = np.ones_like(gamma)
    if (absent and not parameters.center) or c.beta == "ignored":
        beta = np.zeros_like(beta)
    if c.gamma == "reversed":
        gamma = gamma[::-1]
    return np.full_like(gamma, gamma[0]) if c.gamma == "of the first channel" and gamma.size else gamma, beta


def folded(y: Array, x: Array, factors: tuple[Array, ...], arithmetic: Arithmetic) -> Array:
    """y as x·a + b has it, with a = γ·inv and b = β − μ·a: another one where a or b is infinite.

    x·a + b is rounded once, as processors do that fuse the two.

    Args:
        factors: γ, β, μ and inv.
    """
    gamma, beta, mu, inv = factors
    held = partial(held_as, arithmetic.computed_in, arithmetic=arithmetic)
    scale = held(gamma * inv)
    shift = held(beta - held(mu * scale))
    return where_finite(y, x * scale[:, None] + shift[:, None], arithmetic)


# The gradients


def divisors(n: int, c: Differentiating) -> tuple[int, int]:
    """What β' and x̂·γ' are divided by before they are taken off g; 0 where they are not taken off."""
    return {
        "full": (n, n),
        "detached": (0, 0),
        "mean detached": (0, n),
        "variance detached": (n, 0),
        "sums of g undivided": (1, n),
        "sums of g·x̂ undivided": (n, 1),
    }[c.gradient]


def dx(given: tuple[Array, Array, Any], sums: tuple[Array, Array], divisors: tuple[int, int], outer: Array) -> Array:
    """outer·(g − β'/n − x̂·γ'/n), without the terms whose divisor is 0.

    Args:
        given: g, x̂ and what the mask keeps, outside of which neither term is taken off.
        sums: β' and γ'.
    """

    def formula(g: Array, xhat: Array, kept: Array, outer: Array, first: Array, second: Array) -> Array:
        inner = g - kept * first if divisors[0] else g
        inner = inner - xhat * (kept * second) if divisors[1] else inner
        return np.asarray(outer * inner)

    g, xhat, kept = given
    kept = np.broadcast_to(kept, (len(g), g.shape[1] if np.ndim(kept) else 1))
    taken_off = (np.asarray(total / (divisor or 1))[:, None] for total, divisor in zip(sums, divisors, strict=True))
    return in_blocks(formula, g, xhat, kept, outer[:, None], *taken_off)


def chained(
    dx: Array,
    given: tuple[Array, Array, Any],
    beta_: Array,
    factors: tuple[Array, Array, Array],
    n: int,
    c: Conventions,
    arithmetic: Arithmetic,
) -> Array:
    """dx by the chain rule: another one in the channels of which a link is infinite, or too small for its digits.

    With y = x·a + (β − μ·a) and a = γ·inv these are a, a' = Σg·x − μ·β', μ' = −a·β', inv' = γ·a', inv³ and
    σ²' = −½·inv³·inv', so that dx = g·a + μ'/n + 2(x−μ)·σ²'/n. Through the mean that σ² is taken about goes 0·σ²' more;
    with σ² = Σx²/n − μ², dx is g·a + (μ' − 2μ·σ²')/n + 2x·σ²'/n. Means hand back an nth, which is a link, too.

    Args:
        dx: by its closed form.
        given: g, x and what the mask keeps, outside of which σ² and μ do not reach.
        beta_: β'.
        factors: γ, μ and inv.
    """
    (g, x, kept), (gamma, mu, inv) = given, factors
    links = []

    def held(exact: Array) -> Array:
        return in_range_of(arithmetic.computed_in, exact, arithmetic, flushed=c.subnormals == "flushed")

    def link(exact: Array) -> Array:
        found = held(exact)
        links.append(arithmetic.lower(found) == arithmetic.lower(exact))
        return found

    slope, cube = link(gamma * inv), link(inv * inv * inv)
    together = link(arithmetic.sum_of(np.multiply, g, x)) - link(mu * beta_)
    of_slope = where_finite(arithmetic.sum_of(products, g, x, mu[:, None]), together, arithmetic)
    of_mean = link(-slope * beta_)
    of_variance = link(-cube / 2 * link(gamma * of_slope))
    about = mu
    if c.derivation == "chain through the mean":
        of_mean = of_mean + 0 * of_variance
    elif c.derivation == "chain of squares":
        about, of_mean = 0 * mu, of_mean - 2 * mu * of_variance
    of_mean, of_variance = link(of_mean / n), link(of_variance / n)

    def formula(g: Array, x: Array, kept: Array, *columns: Array) -> Array:
        slope, of_mean, of_variance, about = columns
        return np.asarray(held(g * slope) + kept * (of_mean + held(2 * (x - about) * of_variance)))

    kept = np.broadcast_to(kept, (len(g), g.shape[1] if np.ndim(kept) else 1))
    columns = (slope, of_mean, of_variance, about)
    by_links = in_blocks(formula, g, x, kept, *(column[:, None] for column in columns))
    return np.where(np.all(links, axis=0)[:, None], dx, by_links)


def of_two_sums(
    sums: tuple[Array, Array], given: tuple[Array, Array], statistics: tuple[Array, Array], arithmetic: Arithmetic
) -> Array:
    """dγ as inv·(Σg·x − μ·Σg) has it: another one where one of these is infinite.

    Args:
        sums: β' and γ'.
        given: g and x.
        statistics: μ and inv.
    """
    (dbeta, dgamma), (mu, inv) = sums, statistics
    held = partial(held_as, arithmetic.computed_in, arithmetic=arithmetic)
    return where_finite(dgamma, inv * (held(arithmetic.sum_of(np.multiply, *given)) - held(mu * dbeta)), arithmetic)


def of_products(
    sums: tuple[Array, Array], given: tuple[Array, Array], statistics: tuple[Array, Array], arithmetic: Arithmetic
) -> Array:
    """γ' as inv·Σg·(x−μ) has it: another one where that sum is infinite; arguments as for `of_two_sums`."""
    mu, inv = statistics
    total = held_as(arithmetic.computed_in, arithmetic.sum_of(products, *given, mu[:, None]), arithmetic)
    return where_finite(sums[1], inv * total, arithmetic)


def products(g: Array, x: Array, mu: Array) -> Array:
    """g·(x−μ)."""
    return np.asarray(g * (x - mu))


def returned(
    sums: tuple[Array, Array], inv: Array, n: int, c: Differentiating, arithmetic: Arithmetic
) -> tuple[Array, Array]:
    """dβ and dγ as the layer hands them out."""
    dbeta, dgamma = sums
    if c.dgamma == "unnormalised":
        dgamma = dgamma * arithmetic.reciprocal(inv)
    if c.parameter_gradients == "averaged" and n:
        dbeta, dgamma = dbeta / n, dgamma / n
    return (dgamma, dbeta) if c.parameter_gradients == "swapped" else (dbeta, dgamma)


def piled_up(t: Trace, earlier: tuple[Any, Any]) -> tuple[Trace, tuple[Any, Any]]:
    """A step whose dβ and dγ are added to those before."""
    dbeta = None if t.dbeta is None else t.dbeta + earlier[0]
    dgamma = None if t.dgamma is None else t.dgamma + earlier[1]
    held = earlier[0] if dbeta is None else dbeta, earlier[1] if dgamma is None else dgamma
    return replace(t, dbeta=dbeta, dgamma=dgamma), held


def never_thawed(t: Trace) -> Trace:
    """A step in which γ and β have gradients of 0."""
    return t.but(dgamma=None if t.dgamma is None else 0 * t.dgamma, dbeta=None if t.dbeta is None else 0 * t.dbeta)


# Coarse formats


def held_as(dtype: str, a: Array, arithmetic: Arithmetic) -> Array:
    """As numbers of a dtype, infinite beyond its range; untouched where that is as given."""
    return a if dtype == "as given" else arithmetic.lift(arithmetic.lower(a).astype(dtype).astype(np.float64))


def in_range_of(dtype: str, a: Array, arithmetic: Arithmetic, *, flushed: bool = False) -> Array:
    """Left alone among a dtype's normal numbers, infinite beyond them, and below them subnormal or, flushed, zero."""
    exact = np.asarray(arithmetic.lower(a), np.float64)
    below = np.abs(exact) < np.finfo(dtype).tiny
    held = np.where(below & flushed, 0 * a, held_as(dtype, a, arithmetic))
    return np.where(~below & (np.abs(exact) <= np.finfo(dtype).max), a, held)


def through_half(a: Array, arithmetic: Arithmetic) -> Array:
    """Rounded to float16 and back; left alone outside its normal range, where other things make numbers 0 or inf."""
    exact = np.asarray(arithmetic.lower(a), np.float64)
    normal = ((np.abs(exact) >= 2.0**-14) & (np.abs(exact) <= 65504)) | (exact == 0)
    return np.where(normal, held_as("float16", a, arithmetic), a)


def eleven_bits(a: Array, arithmetic: Arithmetic) -> Array:
    """Rounded to a significand of 11 bits, float16's and TF32's, whatever the exponent."""
    fraction, exponent = np.frexp(arithmetic.lower(a))
    return arithmetic.lift(np.ldexp(np.rint(np.ldexp(fraction, 11)), exponent - 11))
