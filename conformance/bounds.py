"""How far rounding may take a correct implementation from the reference, element by element.

The bounds follow from the data, by first-order error analysis (Higham, "Accuracy and Stability of Numerical
Algorithms", 2002, ch. 3 and 4; Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983). u is
the unit roundoff of the accumulator, u_o that of the output, n the values per channel, h the depth of a summation and
γ_h = h·u/(1−h·u). With x̂ = (x−μ)·inv:

    δμ   = (γ_h + u)·mean|x|
    δσ²  = (h+4)·u·σ² + 3u|μ|σ + δμ²                       strict: two-pass and updating algorithms
    δσ²  = (h+4)·u·(σ²+μ²) + 3u|μ|σ + δμ²                  weak: one-pass, E[x²] − μ², as long as it keeps d below ¼
    d    = (δσ² + u(|σ²|+|ε|−|σ²+ε|))/(σ²+ε)      relative error of σ²+ε; a negative one of them cancels
    q    = d/2                                    relative error of inv; weak: d/2·(1+d)
    δx̂   = inv·δμ + |x̂|(q + 5u)
    δy   = |γ|·δx̂ + 2u|β| + 3u(|γ|·inv·(|x|+|μ|) + |β|) + u_o|y| + η
    δr'  = |1−m|·δr + |m|·δs + 3u(|(1−m)r| + |m·s|) + u(|r|+|s|) + u_o|r'| + η
    δβ'  = 2√l·u·(√Σg² + |β'|) + u_o|β'| + η
    δγ'  = (2√l+3)·u·√Σ(g·w)² + inv·δμ·|β'| + (q+4u)|γ'| + u_o|γ'| + η      with w = inv·(|x|+|μ|)
    δx'  = |γ|·inv·((q+4u)|t| + δβ'/n + δx̂·|γ'|/n + |x̂|·δγ'/n + 3u(|g| + |β'|/n + |x̂·γ'|/n)) + u_o|dx| + η
           where dx = γ·inv·t, t = g − β'/n − x̂·γ'/n

3u(…) in δy admits the folded form y = x·a + b that real kernels use, and w, in place of |x̂|, its derivative
dγ = inv·(Σg·x − μ·Σg); |β'| is as far as partial sums get; u(|r|+|s|) in δr' admits a momentum that was
handed over in float32 as the weight of the other term (1 − 0.9 is not 0.1), and is left out where m is 0 or 1, which
are exact. l in δβ' and δγ' is the length of a vector lane's chain: kernels sum gradients over n in 64 lanes or so,
without blocks. Statistics that come from `running` carry the error they have accumulated in place of δμ and δσ². η is
the smallest subnormal of the output, for gradual underflow.

Conventions that are matters of precision widen these. h = l = n where `summation` is sequential, as in the weak grade.
The weak δσ² and q hold where `variance` is one-pass.
`statistics` that are rounded add their unit roundoff to the relative errors of μ and inv, `terms` to those of β', γ',
t and its three parts.
Subnormals that are flushed add the smallest normal number times what it is multiplied by on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from conformance.reference import CANONICAL, Arithmetic, Conventions, Trace

Array = NDArray[Any]
Grade = Literal["strict", "weak"]

#: Unit roundoff 2⁻ᵖ and smallest subnormal of each output dtype.
UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SUBNORMAL = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}

#: Smallest normal number of each accumulator.
NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126}

#: Depth of a blocked or pairwise summation, which the strict grade admits.
BLOCKED_DEPTH = 64


def accumulator(*dtypes: str) -> float:
    """Unit roundoff of the accumulator: float64's where float64 goes in, else float32's."""
    return UNIT_ROUNDOFF["float64" if "float64" in dtypes else "float32"]


@dataclass(frozen=True)
class _Rounding:
    """What the dtypes, the grade and the conventions come to.

    Attributes:
        u: unit roundoff of the accumulator.
        io_dtype, layer_dtype: what y and dx, and the rest, are rounded to.
        statistics: unit roundoff of what the batch's mean and inv go through beyond the accumulator's.
        saved: the same, of the mean and inv that gradients are taken with.
        terms: the same, of the sums of gradients.
        tiny: what is flushed to zero is smaller.
    """

    u: float
    io_dtype: str
    layer_dtype: str
    statistics: float
    saved: float
    terms: float
    tiny: float
    grade: Grade
    conventions: Conventions

    @property
    def sequential(self) -> bool:
        return self.grade == "weak" or self.conventions.summation == "sequential"

    @property
    def one_pass(self) -> bool:
        known = self.conventions.variances is not None
        return not known and (self.grade == "weak" or self.conventions.variance == "one-pass")


def _rounding(grade: Grade, io_dtype: str, layer_dtype: str, conventions: Conventions) -> _Rounding:
    if conventions.precision == "float32":
        io_dtype, layer_dtype = (name.replace("float64", "float32") for name in (io_dtype, layer_dtype))
    wide = accumulator(io_dtype, layer_dtype)
    narrower = max(UNIT_ROUNDOFF[io_dtype], UNIT_ROUNDOFF[layer_dtype])
    rounded = {
        "accumulated": (0.0, 0.0),
        "rounded": (UNIT_ROUNDOFF[layer_dtype],) * 2,
        "rounded for gradients": (0.0, narrower),
    }[conventions.statistics]
    terms = UNIT_ROUNDOFF[io_dtype] if conventions.terms == "rounded" else 0.0
    statistics, saved, terms = (u if u > wide else 0.0 for u in (*rounded, terms))
    tiny = NORMAL["float64" if wide == UNIT_ROUNDOFF["float64"] else "float32"]
    flushed = conventions.subnormals == "flushed"
    smallest = tiny if flushed else 0.0
    return _Rounding(wide, io_dtype, layer_dtype, statistics, saved, terms, smallest, grade, conventions)


@dataclass(frozen=True)
class StepBounds:
    """Absolute bounds of one step's tensors: (C, n) for y and dx, (C,) for the rest; None where there is none."""

    y: Array
    running_mean: Array
    running_var: Array
    dx: Array | None
    dgamma: Array | None
    dbeta: Array | None


def bounds(
    traces: Sequence[Trace],
    arithmetic: Arithmetic,
    grade: Grade,
    io_dtype: str | Sequence[str],
    layer_dtype: str,
    conventions: Conventions = CANONICAL,
) -> list[StepBounds]:
    """Bounds of every step; errors of the running statistics accumulate from step to step.

    Args:
        io_dtype: dtype of y and dx, of every step or of each.
        layer_dtype: dtype of parameters, their gradients and the running statistics.
        conventions: those of the traces; matters of precision among them widen the bounds.
    """
    lower = arithmetic.lower
    dtypes = [io_dtype] * len(traces) if isinstance(io_dtype, str) else io_dtype
    start = np.zeros_like(lower(traces[0].before[0])) if traces else np.zeros(0)
    held = (start, start)
    found = []
    with np.errstate(all="ignore"):
        for trace, dtype in zip(traces, dtypes, strict=True):
            step = _step_bounds(trace, lower, _rounding(grade, dtype, layer_dtype, conventions), held)
            held = (step.running_mean, step.running_var)
            found.append(step)
    return found


def _step_bounds(t: Trace, lower: Any, r: _Rounding, held: tuple[Array, Array]) -> StepBounds:
    u, u_o, eta, tiny = r.u, UNIT_ROUNDOFF[r.io_dtype], SUBNORMAL[r.io_dtype], r.tiny
    u_s = r.statistics
    x, xhat, y = lower(t.x), np.abs(lower(t.xhat)), np.abs(lower(t.y))
    mu, var, inv = lower(t.mu), lower(t.var), lower(t.inv)
    gamma, beta = np.abs(lower(t.gamma)), np.abs(lower(t.beta))
    n, h = t.count, _depth(x.shape[1], r)
    kept = np.ones(x.shape[1]) if t.mask is None else t.mask
    exact_mean = lower(t.mu) if t.mean is None else lower(t.mean)
    delta_mean = (_gamma(h, u) + u) * np.where(kept, np.abs(x), 0).sum(1) / max(n, 1) + u_s * np.abs(exact_mean) + tiny
    recovered = None
    if r.conventions.variances is not None and t.weight:  # from running_var, and its rounding with it
        recovered = 8 * u * (np.abs(lower(t.before[1])) + np.abs(lower(t.running_var))) / abs(t.weight)
    if t.batch:
        delta_mu = delta_mean
        delta_var = _delta_var(var, mu, delta_mean, h, t, r) if recovered is None else recovered
    else:
        delta_mu, delta_var = held
    cancelled = u * (np.abs(var) + abs(t.eps) - np.abs(var + t.eps))
    d = np.where(np.isinf(var + t.eps), 0.0, (delta_var + cancelled) / (var + t.eps))
    q = d / 2 * (1 + d if r.one_pass else 1) + 2 * u_s
    delta_xhat = (inv * delta_mu)[:, None] + xhat * (q + 5 * u)[:, None] + tiny * (inv[:, None] + 1)
    spanned = inv[:, None] * (np.abs(x) + np.abs(mu)[:, None])
    folded = gamma[:, None] * spanned + beta[:, None]
    delta_y = gamma[:, None] * delta_xhat + 2 * u * beta[:, None] + 3 * u * folded + u_o * y + eta
    delta_y = delta_y + tiny * (xhat + np.abs(x) + np.abs(mu)[:, None] + 3)

    delta_state = held
    if t.weight is not None and t.mean is not None and t.sample_var is not None:
        mean, sample_var = lower(t.mean), lower(t.sample_var)
        delta_sample = _delta_var(sample_var, mean, delta_mean, h, t, r) if recovered is None else recovered
        delta_sample = delta_sample * n / max(n - 1, 1)
        delta_sample = delta_sample + 2 * (u + u_s) * np.abs(sample_var)
        m, before, after = abs(t.weight), [lower(r) for r in t.before], (lower(t.running_mean), lower(t.running_var))
        delta_state = (
            _delta_running(m, before[0], mean, delta_mean, held[0], after[0], u + u_s, r),
            _delta_running(m, before[1], sample_var, delta_sample, held[1], after[1], u + u_s, r),
        )
    if t.g is None or t.dx is None:
        return StepBounds(delta_y, *delta_state, None, None, None)

    g = np.abs(lower(t.g))
    exact_dbeta, exact_dgamma = _parameter_gradients(t, lower)
    beta_, gamma_ = np.abs(exact_dbeta), np.abs(exact_dgamma)
    if t.batch:
        delta_mu, q = delta_mu + (r.saved - u_s) * np.abs(mu), q + 2 * (r.saved - u_s)
        delta_xhat = delta_xhat + (r.saved - u_s) * (inv * np.abs(mu))[:, None] + 2 * (r.saved - u_s) * xhat
    root = 2 * np.sqrt(_lanes(x.shape[1], r)) * u
    sum_dbeta = root * (np.sqrt((g * g).sum(1)) + beta_) + r.terms * beta_ + tiny * x.shape[1]
    sum_dgamma = (root + 3 * u) * np.sqrt(((g * spanned) ** 2).sum(1)) + tiny * (
        g * (1 + inv[:, None]) + xhat + spanned + 1
    ).sum(1)
    if n:
        sum_dgamma = sum_dgamma + inv * delta_mu * beta_ + (q + 4 * u + r.terms) * gamma_
    dx = np.abs(lower(t.dx))
    outer = (gamma * inv)[:, None]
    if t.batch and n:
        inner = _quotient(dx, outer)
        through = (sum_dbeta / n)[:, None] + delta_xhat * (gamma_ / n)[:, None] + xhat * (sum_dgamma / n)[:, None]
        spread = g + kept * ((beta_ / n)[:, None] + xhat * (gamma_ / n)[:, None])
        delta_inner = (q + 4 * u + r.terms)[:, None] * inner + kept * through + (3 * u + r.terms) * spread
    else:
        delta_inner = (q + 4 * u)[:, None] * g
    delta_dx = outer * delta_inner + u_o * dx + eta
    met = xhat if t.batch else np.zeros_like(xhat)
    delta_dx = delta_dx + tiny * (outer * (2 + met) + inv[:, None] + gamma[:, None] + g * (1 + met) + 1)
    u_p, eta_p = UNIT_ROUNDOFF[r.layer_dtype], SUBNORMAL[r.layer_dtype]
    return StepBounds(
        delta_y,
        *delta_state,
        delta_dx,
        sum_dgamma + u_p * gamma_ + eta_p,
        sum_dbeta + u_p * beta_ + eta_p,
    )


def _depth(n: int, r: _Rounding) -> int:
    """h: n terms are never summed deeper than n, and blocked or pairwise no deeper than `BLOCKED_DEPTH`."""
    return n if r.sequential else min(n, BLOCKED_DEPTH)


def _lanes(n: int, r: _Rounding) -> int:
    """l: as `_depth`, but a 64th of n where that is longer."""
    return max(_depth(n, r), n // 64)


def _gamma(h: int, u: float) -> float:
    """γ_h = h·u/(1−h·u), Higham's lemma 3.1."""
    return h * u / (1 - h * u)


def _delta_var(var: Array, mu: Array, delta_mu: Array, h: int, t: Trace, r: _Rounding) -> Array:
    """δσ²; a one-pass variance also loses what it cancels, σ² + μ², up to a quarter of what it is added to."""
    two_pass = (h + 4) * r.u * var + 3 * r.u * np.abs(mu) * np.sqrt(var) + delta_mu * delta_mu + r.tiny
    if not r.one_pass:
        return np.asarray(two_pass)
    one_pass = two_pass + (h + 4) * r.u * mu * mu
    return np.maximum(two_pass, np.minimum(one_pass, (var + t.eps) / 4))


def _delta_running(
    m: float, before: Array, s: Array, delta_s: Array, delta_r: Array, after: Array, u: float, r: _Rounding
) -> Array:
    """δr' of one update."""
    kept, new = np.abs((1 - m) * before), np.abs(m * s)
    handed_over = 0.0 if m in (0, 1) else u * (np.abs(before) + np.abs(s))
    return np.asarray(
        abs(1 - m) * delta_r
        + m * delta_s
        + 3 * u * (kept + new)
        + handed_over
        + UNIT_ROUNDOFF[r.layer_dtype] * np.abs(after)
        + SUBNORMAL[r.layer_dtype]
        + 3 * r.tiny
    )


def _parameter_gradients(t: Trace, lower: Any) -> tuple[Array, Array]:
    """β' = Σg and γ' = Σg·x̂, also where the layer does not learn them: dx needs them."""
    if t.dbeta is not None and t.dgamma is not None:
        return lower(t.dbeta), lower(t.dgamma)
    g, xhat = lower(t.g), lower(t.xhat)
    return g.sum(1), (g * xhat).sum(1)


def _quotient(a: Array, b: Array) -> Array:
    """a/b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)
