"""How far rounding may take a correct implementation from the reference, element by element.

The bounds follow from the data, by first-order error analysis (Higham, "Accuracy and Stability of Numerical
Algorithms", 2002, ch. 3 and 4; Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983). u is
the unit roundoff of the accumulator, u_o that of the output, n the values per channel, h the depth of a summation and
γ_h = h·u/(1−h·u). With x̂ = (x−μ)·inv:

    δμ   = (γ_h + u)·mean|x|
    δσ²  = (h+4)·u·σ² + δμ²                       strict: two-pass and updating algorithms
    δσ²  = (h+4)·u·(σ²+μ²) + δμ²                  weak: one-pass, E[x²] − μ²
    q    = δσ²/(2(σ²+ε))                          relative error of inv
    δx̂   = inv·δμ + |x̂|(q + 5u)
    δy   = |γ|·δx̂ + 2u|β| + 3u(|γ|·inv·(|x|+|μ|) + |β|) + u_o|y| + η
    δr'  = |1−m|·δr + |m|·δs + 3u(|(1−m)r| + |m·s|) + u(|r|+|s|) + u_o|r'| + η
    δβ'  = 2√l·u·√Σg² + u_o|β'| + η
    δγ'  = 2√l·u·√Σ(g·x̂)² + inv·δμ·|β'| + (q+4u)|γ'| + u_o|γ'| + η
    δx'  = |γ|·inv·((q+4u)|t| + δβ'/n + δx̂·|γ'|/n + |x̂|·δγ'/n + 3u(|g| + |β'|/n + |x̂·γ'|/n)) + u_o|dx| + η
           where dx = γ·inv·t, t = g − β'/n − x̂·γ'/n

3u(…) in δy admits the folded form y = x·a + b that real kernels use; u(|r|+|s|) in δr' admits a momentum that was
handed over in float32 as the weight of the other term (1 − 0.9 is not 0.1). l in δβ' and δγ' is the length of a
vector lane's chain: kernels sum gradients over n in 64 lanes or so, without blocks. Statistics that come from `running`
carry the error they have accumulated in place of δμ and δσ². η is the smallest subnormal of the output, for
gradual underflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from conformance.reference import Arithmetic, Trace

Array = NDArray[Any]
Grade = Literal["strict", "weak"]

#: Unit roundoff 2⁻ᵖ and smallest subnormal of each output dtype.
UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SUBNORMAL = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}

#: Depth of a blocked or pairwise summation, which the strict grade admits.
BLOCKED_DEPTH = 64


def accumulator(*dtypes: str) -> float:
    """Unit roundoff of the accumulator: float64's where float64 goes in, else float32's."""
    return UNIT_ROUNDOFF["float64" if "float64" in dtypes else "float32"]


@dataclass(frozen=True)
class _Precision:
    """u of the accumulator, the dtypes that results are rounded to, and whether the batch's statistics are too."""

    u: float
    io_dtype: str
    layer_dtype: str
    rounded: bool

    @property
    def statistics(self) -> float:
        """Unit roundoff of the rounding that the batch's statistics go through beyond the accumulator's."""
        return UNIT_ROUNDOFF[self.layer_dtype] if self.rounded else 0.0


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
    io_dtype: str,
    layer_dtype: str,
    rounded: bool = False,
) -> list[StepBounds]:
    """Bounds of every step; errors of the running statistics accumulate from step to step.

    Args:
        io_dtype: dtype of y and dx.
        layer_dtype: dtype of parameters, their gradients and the running statistics.
        rounded: the batch's mean and inv may be rounded to layer_dtype too, before they are used.
    """
    precision = _Precision(accumulator(io_dtype, layer_dtype), io_dtype, layer_dtype, rounded)
    lower = arithmetic.lower
    start = np.zeros_like(lower(traces[0].before[0])) if traces else np.zeros(0)
    held = (start, start)
    found = []
    with np.errstate(all="ignore"):
        for trace in traces:
            step = _step_bounds(trace, lower, grade, precision, held)
            held = (step.running_mean, step.running_var)
            found.append(step)
    return found


def _step_bounds(t: Trace, lower: Any, grade: Grade, precision: _Precision, held: tuple[Array, Array]) -> StepBounds:
    u, u_o, eta = precision.u, UNIT_ROUNDOFF[precision.io_dtype], SUBNORMAL[precision.io_dtype]
    layer_dtype, u_s = precision.layer_dtype, precision.statistics
    x, xhat, y = lower(t.x), np.abs(lower(t.xhat)), np.abs(lower(t.y))
    mu, var, inv = lower(t.mu), lower(t.var), lower(t.inv)
    gamma, beta = np.abs(lower(t.gamma)), np.abs(lower(t.beta))
    n, h = t.count, _depth(x.shape[1], grade)
    kept = np.ones(x.shape[1]) if t.mask is None else t.mask
    exact_mean = lower(t.mu) if t.mean is None else lower(t.mean)
    delta_mean = (_gamma(h, u) + u) * (kept * np.abs(x)).sum(1) / max(n, 1) + u_s * np.abs(exact_mean)
    if t.batch:
        delta_mu, delta_var = delta_mean, _delta_var(var, mu, delta_mean, h, u, grade)
    else:
        delta_mu, delta_var = held
    q = delta_var / (2 * (var + t.eps)) + 2 * u_s
    delta_xhat = (inv * delta_mu)[:, None] + xhat * (q + 5 * u)[:, None]
    folded = (gamma * inv)[:, None] * (np.abs(x) + np.abs(mu)[:, None]) + beta[:, None]
    delta_y = gamma[:, None] * delta_xhat + 2 * u * beta[:, None] + 3 * u * folded + u_o * y + eta

    delta_state = held
    if t.weight is not None and t.mean is not None and t.sample_var is not None:
        mean, sample_var = lower(t.mean), lower(t.sample_var)
        delta_sample = _delta_var(sample_var, mean, delta_mean, h, u, grade) * n / max(n - 1, 1)
        delta_sample = delta_sample + 2 * (u + u_s) * sample_var
        m, before, after = abs(t.weight), [lower(r) for r in t.before], (lower(t.running_mean), lower(t.running_var))
        delta_state = (
            _delta_running(m, before[0], mean, delta_mean, held[0], after[0], u + u_s, layer_dtype),
            _delta_running(m, before[1], sample_var, delta_sample, held[1], after[1], u + u_s, layer_dtype),
        )
    if t.g is None or t.dx is None:
        return StepBounds(delta_y, *delta_state, None, None, None)

    g = np.abs(lower(t.g))
    exact_dbeta, exact_dgamma = _parameter_gradients(t, lower)
    beta_, gamma_ = np.abs(exact_dbeta), np.abs(exact_dgamma)
    root = 2 * np.sqrt(_lanes(x.shape[1], grade)) * u
    sum_dbeta = root * np.sqrt((g * g).sum(1))
    sum_dgamma = root * np.sqrt(((g * xhat) ** 2).sum(1)) + inv * delta_mu * beta_ + (q + 4 * u) * gamma_
    dx = np.abs(lower(t.dx))
    outer = (gamma * inv)[:, None]
    if t.batch and n:
        inner = _quotient(dx, outer)
        through = (sum_dbeta / n)[:, None] + delta_xhat * (gamma_ / n)[:, None] + xhat * (sum_dgamma / n)[:, None]
        spread = g + kept * ((beta_ / n)[:, None] + xhat * (gamma_ / n)[:, None])
        delta_inner = (q + 4 * u)[:, None] * inner + kept * through + 3 * u * spread
    else:
        delta_inner = (q + 4 * u)[:, None] * g
    delta_dx = outer * delta_inner + u_o * dx + eta
    u_p, eta_p = UNIT_ROUNDOFF[layer_dtype], SUBNORMAL[layer_dtype]
    return StepBounds(
        delta_y,
        *delta_state,
        delta_dx,
        sum_dgamma + u_p * gamma_ + eta_p,
        sum_dbeta + u_p * beta_ + eta_p,
    )


def _depth(n: int, grade: Grade) -> int:
    """h: n terms are never summed deeper than n, and blocked or pairwise no deeper than `BLOCKED_DEPTH`."""
    return n if grade == "weak" else min(n, BLOCKED_DEPTH)


def _lanes(n: int, grade: Grade) -> int:
    """l: as `_depth`, but a 64th of n where that is longer."""
    return max(_depth(n, grade), n // 64)


def _gamma(h: int, u: float) -> float:
    """γ_h = h·u/(1−h·u), Higham's lemma 3.1."""
    return h * u / (1 - h * u)


def _delta_var(var: Array, mu: Array, delta_mu: Array, h: int, u: float, grade: Grade) -> Array:
    """δσ²; a one-pass variance also loses what it cancels, σ² + μ²."""
    scale = var if grade == "strict" else var + mu * mu
    return np.asarray((h + 4) * u * scale + delta_mu * delta_mu)


def _delta_running(
    m: float, r: Array, s: Array, delta_s: Array, delta_r: Array, after: Array, u: float, dtype: str
) -> Array:
    """δr' of one update."""
    kept, new = np.abs((1 - m) * r), np.abs(m * s)
    handed_over = u * (np.abs(r) + np.abs(s))
    return np.asarray(
        abs(1 - m) * delta_r
        + m * delta_s
        + 3 * u * (kept + new)
        + handed_over
        + UNIT_ROUNDOFF[dtype] * np.abs(after)
        + SUBNORMAL[dtype]
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
