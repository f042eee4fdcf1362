"""Statistics lost to coarse arithmetic: what a target must have used in their place, recovered from its running ones.

E[x²] − E[x]² in working precision is off by about u·(σ² + μ²), which a mean far above the deviation makes more than σ²
itself, or less than −ε; sums in half precision are off by thousands of u. What a statistic then is no bound can say.
But a layer that tracks says it itself: from r' = (1−m)·r + m·s follows s, and every other tensor must follow from s.
(Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from conformance.arithmetic import Arithmetic, Array
from conformance.catalogue import CANCELLED, IN_HALF, Hypothesis
from conformance.conventions import Conventions
from conformance.layer import Trace
from conformance.rounding import UNIT_ROUNDOFF, accumulator

#: Statistics of more channels are not recovered.
CHANNELS = 4096


@dataclass(frozen=True)
class Loss:
    """A way to lose a statistic.

    Attributes:
        mean: whether the mean is lost too.
        grid: whether a mean or variance, or n times that, must be a number of half precision in every channel.
        reach: n, the mean size of x, μ and σ² of every channel, u → how far mean and variance can be off.
    """

    cause: Hypothesis
    mean: bool
    grid: bool
    reach: Callable[[int, Array, Array, Array, float], tuple[Array, Array]]


def _cancelled(n: int, _: Array, mu: Array, var: Array, u: float) -> tuple[Array, Array]:
    return np.zeros_like(mu), (n + 4) * u * (var + mu * mu)


def _in_half(n: int, size: Array, mu: Array, var: Array, _: float) -> tuple[Array, Array]:
    """No more than a fraction of what is summed, or any error would do."""
    relative = min((n + 4) * UNIT_ROUNDOFF["float16"], 1 / 16)
    mean = relative * size
    return mean, relative * var + mean * mean


LOSSES = (Loss(CANCELLED, False, False, _cancelled), Loss(IN_HALF, True, True, _in_half))


def recovered(
    loss: Loss,
    traces: list[Trace],
    observed: Mapping[str, Array],
    conventions: Conventions,
    arithmetic: Arithmetic,
    dtypes: tuple[str, ...],
) -> Conventions | None:
    """`conventions` with the statistics (C,) that each training step used; None where such a loss is no cause.

    It is not where the running statistics do not tell (nothing updates them, or momentum is 0), and where a statistic
    is further off than the loss can take it.

    Args:
        traces: the case under `conventions`.
        observed: running_mean[0], running_var[0], running_mean[1] …
        dtypes: of inputs and layer.
    """
    u = accumulator(*dtypes) if conventions.precision == "as given" else accumulator()
    means: list[tuple[float, ...] | None] = []
    variances: list[tuple[float, ...] | None] = []
    for index, t in enumerate(traces):
        if t.mu.size > CHANNELS or not {f"running_mean[{index}]", f"running_var[{index}]"} <= observed.keys():
            return None
        if not t.batch or not t.weight or t.sample_var is None or t.count < 2:
            means.append(None)
            variances.append(None)
            continue
        mu, var = arithmetic.lower(t.mu), arithmetic.lower(t.var)
        with np.errstate(all="ignore"):
            (mean, off), (sample_var, var_off) = (
                _weighed_in(which, index, t, observed, arithmetic, u) for which in (0, 1)
            )
            used = sample_var / t.correction
            reach = loss.reach(t.count, np.abs(arithmetic.lower(t.x)).mean(1), mu, var, u)
            known = (not loss.mean or (np.abs(mean - mu) <= reach[0]).all()) and (np.abs(used - var) <= reach[1]).all()
            if loss.grid:
                known = known and (_in_half_steps(mean, t.count, off) or _in_half_steps(used, t.count, var_off))
        if not known:
            return None
        means.append(tuple(map(float, mean)) if loss.mean else None)
        variances.append(tuple(map(float, used)))
    if not any(variances):
        return None
    return conventions.but(means=tuple(means) if loss.mean else None, variances=tuple(variances))


def _in_half_steps(statistic: Array, n: int, off: Array) -> bool:
    """Whether a statistic (C,), known but for so much, or n times it, may be a number of half precision throughout."""
    return any(
        (np.abs(value.astype(np.float16).astype(np.float64) - value) <= error).all()
        for value, error in ((statistic, off), (n * statistic, n * off))
    )


def _weighed_in(
    which: int, index: int, t: Trace, observed: Mapping[str, Array], arithmetic: Arithmetic, u: float
) -> tuple[Array, Array]:
    """s of r' = (1−m)·r + m·s, and how far it may be off, (16) of docs/bounds.md."""
    assert t.weight is not None
    name = ("running_mean", "running_var")[which]
    before = observed[f"{name}[{index - 1}]"] if index else arithmetic.lower(t.before[which])
    after = observed[f"{name}[{index}]"]
    off = 8 * u * (np.abs(before) + np.abs(after)) / abs(t.weight)
    return np.asarray((after - (1 - t.weight) * before) / t.weight), off
