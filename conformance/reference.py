"""What exact arithmetic returns: BatchNorm over a sequence of steps, under stated conventions.

Ioffe and Szegedy, "Batch Normalization" (2015), with x laid out as (C, n), n values per channel:

    train   μ = Σx/n, σ² = Σ(x−μ)²/n              eval   μ = running_mean, σ² = running_var
    inv = 1/√(σ²+ε)      x̂ = (x−μ)·inv      y = γ·x̂ + β
    dβ = Σg      dγ = Σg·x̂      dx = γ·inv·(g − dβ/n − x̂·dγ/n) in train, γ·inv·g in eval
    running ← (1−m)·running + m·s, with s the batch's mean, and its variance with n−1 in place of n

A mask takes values out of the sums of μ and σ², so that n counts what is left and the two terms of dx vanish outside.

The same formulas run in two arithmetics: `Double` for inputs of float32 and below, where float64 with accurate sums is
2⁻²⁹ finer than what is judged, and `Multiprecision` (mpmath, 50 digits) for float64 inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import mpmath
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DIGITS = 50


@dataclass(frozen=True)
class Conventions:
    """The choices on which BatchNorms differ; the defaults are the canonical ones, which are torch's.

    The fields up to `subnormals` are choices that a profile may declare; the others are mistakes and shortcuts that
    only a diagnosis supposes. `mode_lasts`: a mode holds for later calls that name none. `unlearned`: whether a
    γ or β that the layer does not learn is absent (1 and 0), or applied as it was set. `mask_count`: whether sums over
    what a mask keeps are divided by its count, or by 10⁻⁷ more, so that a mask that keeps nothing has moments of 0.
    `least_eps`: what an ε that is not above it is raised to; 0 where none is.

    Six are matters of precision. `precision`: float64 is taken to float32 on the way in, and computed there. The others
    widen the bounds and leave the values: `statistics` rounded to the layer's dtype, or to the narrower of the layer's
    and the input's and for the gradients only; `terms` of gradients, their sums, rounded to the input's dtype;
    `summation` of one value after another; `variance` in one pass, E[x²] − E[x]²; `subnormals` flushed to zero.

    `sums` that overflow are infinite from float32's largest number on. `empty`: a batch of no values is skipped, or
    averaged to 0/0. `variances`: per step, the biased variance of each channel that was used, whatever it should be.
    """

    running_variance: Literal["unbiased", "biased"] = "unbiased"
    batch_variance: Literal["biased", "unbiased"] = "biased"
    default_mode: Literal["train", "eval"] = "train"
    mode_lasts: bool = True
    momentum_weighs: Literal["new", "old"] = "new"
    default_eps: float = 1e-5
    least_eps: float = 0.0
    default_momentum: float = 0.1
    frozen: Literal["mode", "eval"] = "mode"
    unlearned: Literal["absent", "applied"] = "absent"
    mask_count: Literal["exact", "padded"] = "exact"
    statistics: Literal["accumulated", "rounded", "rounded for gradients"] = "accumulated"
    terms: Literal["accumulated", "rounded"] = "accumulated"
    precision: Literal["as given", "float32"] = "as given"
    summation: Literal["blocked", "sequential"] = "blocked"
    variance: Literal["two-pass", "one-pass"] = "two-pass"
    subnormals: Literal["kept", "flushed"] = "kept"
    eps_added_to: Literal["variance", "deviation", "nothing"] = "variance"
    eps: float | None = None
    momentum: float | None = None
    train_statistics: Literal["batch", "running"] = "batch"
    eval_statistics: Literal["running", "batch"] = "running"
    updates: Literal[0, 1, 2] = 1
    update_in_eval: bool = False
    update_first: bool = False
    mean_updated: bool = True
    variance_updated: bool = True
    averaging: Literal["as given", "exponential", "cumulative"] = "as given"
    gamma: Literal["applied", "ignored", "swapped"] = "applied"
    beta: Literal["applied", "ignored"] = "applied"
    gradient: Literal["full", "detached", "mean detached", "variance detached"] = "full"
    sums: Literal["exact", "overflow"] = "exact"
    empty: Literal["skipped", "averaged"] = "skipped"
    variances: tuple[tuple[float, ...] | None, ...] | None = None

    def but(self, **changes: Any) -> Conventions:
        """These conventions with some changed."""
        return replace(self, **changes)


CANONICAL = Conventions()


@dataclass(frozen=True)
class Parameters:
    """A layer's numbers in canonical terms; gamma, beta and the statistics are (C,) float64, exact.

    `mode` overrides the mode of every step (MindSpore's use_batch_statistics); None leaves it to the step. A layer that
    is not `trainable` (Keras's argument) is frozen in every step.
    """

    eps: float
    momentum: float | None
    scale: bool
    center: bool
    track_running_stats: bool
    gamma: Array
    beta: Array
    running_mean: Array
    running_var: Array
    mode: Literal["train", "eval"] | None = None
    trainable: bool = True


@dataclass(frozen=True)
class Values:
    """One step's tensors, exact in float64: x and the cotangent g, (C, n).

    `mask`, (n,) of ones and zeros, says which values the batch's statistics are taken over; None: all of them.
    """

    mode: str
    x: Array
    g: Array | None
    frozen: bool
    mask: Array | None = None


@dataclass(frozen=True)
class Trace:
    """Everything one step computed, in the reference's arithmetic: (C, n) for x, xhat, y, g, dx; (C,) for the rest.

    Attributes:
        batch: the batch's own statistics normalised, not the running ones.
        mask: as in `Values`.
        count: how many values a channel's statistics were taken over.
        weight: the m of this step's update; None when nothing was updated.
        mean, sample_var: what the update weighed in; None when nothing was updated.
        before: running_mean and running_var before the step.
    """

    batch: bool
    mask: Array | None
    count: int
    x: Array
    g: Array | None
    gamma: Array
    beta: Array
    eps: float
    mu: Array
    var: Array
    inv: Array
    xhat: Array
    y: Array
    dx: Array | None
    dgamma: Array | None
    dbeta: Array | None
    weight: float | None
    mean: Array | None
    sample_var: Array | None
    before: tuple[Array, Array]
    running_mean: Array
    running_var: Array
    num_batches_tracked: int


class Arithmetic(Protocol):
    """Numbers fine enough to judge with; arrays of them support NumPy's + − × and broadcasting."""

    def lift(self, a: Array) -> Array:
        """float64 → this arithmetic, exactly."""

    def lower(self, a: Array) -> Array:
        """This arithmetic → float64, rounded once."""

    def sum(self, a: Array) -> Array:
        """Σ over the last axis."""

    def sqrt(self, a: Array) -> Array: ...

    def reciprocal(self, a: Array) -> Array:
        """1/a, infinite at zero."""


class Double:
    """float64 with sums as accurate as if taken in twice the precision."""

    def lift(self, a: Array) -> Array:
        return np.asarray(a, np.float64)

    def lower(self, a: Array) -> Array:
        return a

    def sum(self, a: Array) -> Array:
        """Pairwise sums that carry each addition's rounding error along (TwoSum).

        Source: Ogita, Rump and Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26 (2005), algorithm 4.4,
        over a tree instead of a chain.
        """
        total, error = a, np.zeros_like(a)
        while total.shape[-1] > 1:
            if total.shape[-1] % 2:
                pad = np.zeros((*total.shape[:-1], 1))
                total, error = np.concatenate((total, pad), -1), np.concatenate((error, pad), -1)
            half = total.shape[-1] // 2
            left, right = total[..., :half], total[..., half:]
            total = left + right
            part = total - left
            error = error[..., :half] + error[..., half:] + ((left - (total - part)) + (right - part))
        if not total.shape[-1]:
            return np.zeros(total.shape[:-1])
        total, error = total[..., 0], error[..., 0]
        return np.where(np.isfinite(error), total + error, total)  # the error of an infinite sum is NaN

    def sqrt(self, a: Array) -> Array:
        return np.sqrt(a)

    def reciprocal(self, a: Array) -> Array:
        return np.asarray(1 / a)


class Multiprecision:
    """Object arrays of mpmath's mpf with `DIGITS` digits; slow, so for float64 inputs alone."""

    def __init__(self) -> None:
        self.context = mpmath.MPContext()
        self.context.dps = DIGITS

    def _each(self, function: Any, a: Array) -> Array:
        out = np.empty(np.shape(a), object)
        out.ravel()[:] = [function(value) for value in np.ravel(a)]
        return out

    def lift(self, a: Array) -> Array:
        return self._each(lambda value: self.context.mpf(float(value)), a)

    def lower(self, a: Array) -> Array:
        with np.errstate(invalid="ignore"):  # NumPy warns of a NaN among Python objects
            return np.asarray(a, np.float64) if np.size(a) else np.zeros(np.shape(a))

    def sum(self, a: Array) -> Array:
        out = np.empty(a.shape[:-1], object)
        for index in np.ndindex(*out.shape):
            out[index] = self.context.fsum(a[index])
        return out

    def sqrt(self, a: Array) -> Array:
        return self._each(lambda value: self.context.sqrt(value) if not value < 0 else self.context.nan, a)

    def reciprocal(self, a: Array) -> Array:
        return self._each(lambda value: 1 / value if value else self.context.inf, a)


def evaluate(
    parameters: Parameters, steps: Sequence[Values], conventions: Conventions, arithmetic: Arithmetic
) -> list[Trace]:
    """Run the steps under the conventions; one `Trace` a step.

    The running statistics pass exactly from step to step: they are never rounded to a layer's dtype.
    """
    lift = arithmetic.lift
    if conventions.precision == "float32":
        held = {"running_mean": parameters.running_mean, "running_var": parameters.running_var}  # as they were set
        parameters, steps = replace(_single(parameters), **held), [_single(step) for step in steps]
    gamma, beta = _affine(parameters, conventions)
    state = State(lift(parameters.running_mean), lift(parameters.running_var), 0)
    traces = []
    modes = _modes(parameters, steps, conventions)
    used = conventions.variances or (None,) * len(steps)
    with np.errstate(all="ignore"):
        for step, mode, var in zip(steps, modes, used, strict=True):
            given = None if var is None else lift(np.asarray(var, np.float64))
            trace = _step(parameters, step, mode, conventions, arithmetic, lift(gamma), lift(beta), state, given)
            state = State(trace.running_mean, trace.running_var, trace.num_batches_tracked)
            traces.append(trace)
    return traces


def _single(given: Any) -> Any:
    """Parameters or values with every array rounded to float32; the state is not, as it may pass untouched."""
    with np.errstate(over="ignore"):
        arrays = {
            name: value.astype(np.float32).astype(np.float64)
            for name, value in vars(given).items()
            if isinstance(value, np.ndarray) and not name.startswith("running")
        }
    return replace(given, **arrays)


@dataclass(frozen=True)
class State:
    """What a layer carries from step to step: statistics (C,) and the number of batches seen."""

    running_mean: Array
    running_var: Array
    count: int


def _affine(parameters: Parameters, conventions: Conventions) -> tuple[Array, Array]:
    gamma, beta = parameters.gamma, parameters.beta
    if conventions.gamma == "swapped":
        gamma, beta = beta, gamma
    absent = conventions.unlearned == "absent"
    if (absent and not parameters.scale) or conventions.gamma == "ignored":
        gamma = np.ones_like(gamma)
    if (absent and not parameters.center) or conventions.beta == "ignored":
        beta = np.zeros_like(beta)
    return gamma, beta


def _step(
    p: Parameters,
    step: Values,
    mode: str,
    c: Conventions,
    arithmetic: Arithmetic,
    gamma: Array,
    beta: Array,
    state: State,
    var_used: Array | None = None,
) -> Trace:
    statistics = c.train_statistics if mode == "train" else c.eval_statistics
    batch = statistics == "batch" or not p.track_running_stats
    updating = p.track_running_stats and (mode == "train" or c.update_in_eval)
    x, g = arithmetic.lift(step.x), None if step.g is None else arithmetic.lift(step.g)
    n = x.shape[1] if step.mask is None else int(step.mask.sum())
    kept = 1 if step.mask is None else arithmetic.lift(step.mask)
    after, weight, mean, sample_var = state, None, None, None
    if batch or updating:
        mu, used = _moments(x, kept, n + (1e-7 if _padded(step, c) else 0), arithmetic, c)
        used = used if var_used is None else var_used
    if updating and not n and c.empty == "skipped" and not _padded(step, c):
        after = replace(state, count=state.count + 1)
    elif updating:
        mean, sample_var = mu, used if c.running_variance == "biased" else _unbiased(used, n)
        after, weight = _updated(state, mean, sample_var, p, c, arithmetic)
    if not batch:
        held = after if c.update_first else state
        mu, used = held.running_mean, held.running_var
    elif c.batch_variance == "unbiased":
        used = _unbiased(used, n)
    eps = p.eps if c.eps is None else c.eps
    if c.least_eps and not eps > c.least_eps:  # NaN too
        eps = c.least_eps
    if c.eps_added_to == "variance":
        inv = arithmetic.reciprocal(arithmetic.sqrt(used + eps))
    else:
        inv = arithmetic.reciprocal(arithmetic.sqrt(used) + (eps if c.eps_added_to == "deviation" else 0))
    xhat = (x - mu[:, None]) * inv[:, None]
    y = gamma[:, None] * xhat + beta[:, None]
    dx = dgamma = dbeta = None
    if g is not None:
        dbeta, dgamma = _sum(g, arithmetic, c), _sum(g * xhat, arithmetic, c)
        if batch and not n and c.empty == "averaged":
            dgamma = dgamma * inv  # which is no number
        inner = g
        if batch and n and c.gradient in ("full", "variance detached"):
            inner = inner - kept * (dbeta / n)[:, None]
        if batch and n and c.gradient in ("full", "mean detached"):
            inner = inner - kept * xhat * (dgamma / n)[:, None]
        dx = (gamma * inv)[:, None] * inner
    learned = p.trainable and not step.frozen
    return Trace(
        batch=batch,
        mask=step.mask,
        count=n,
        x=x,
        g=g,
        gamma=gamma,
        beta=beta,
        eps=eps,
        mu=mu,
        var=used,
        inv=inv,
        xhat=xhat,
        y=y,
        dx=dx,
        dgamma=dgamma if p.scale and learned else None,
        dbeta=dbeta if p.center and learned else None,
        weight=weight,
        mean=mean,
        sample_var=sample_var,
        before=(state.running_mean, state.running_var),
        running_mean=after.running_mean,
        running_var=after.running_var,
        num_batches_tracked=after.count,
    )


def _modes(p: Parameters, steps: Sequence[Values], c: Conventions) -> list[str]:
    """The mode that each step runs in: train or eval."""
    modes = []
    standing: str = c.default_mode
    for step in steps:
        mode = standing if step.mode == "default" else step.mode
        if c.mode_lasts:
            standing = mode
        if (step.frozen or not p.trainable) and c.frozen == "eval":
            mode = "eval"
        modes.append(p.mode or mode)
    return modes


def _padded(step: Values, c: Conventions) -> bool:
    return step.mask is not None and c.mask_count == "padded"


def _moments(x: Array, kept: Any, n: float, arithmetic: Arithmetic, c: Conventions) -> tuple[Array, Array]:
    """Mean and biased variance over the n values kept of every row, two-pass; NaN where there are none.

    What a mask leaves out may be no number.
    """
    if not n:
        nothing = arithmetic.lift(np.full(x.shape[0], np.nan))
        return nothing, nothing
    within = np.asarray(kept, bool)
    mu = _sum(np.where(within, x, 0), arithmetic, c) / n
    centred = np.where(within, x - mu[:, None], 0)
    return mu, _sum(centred * centred, arithmetic, c) / n


def _sum(a: Array, arithmetic: Arithmetic, c: Conventions) -> Array:
    """Σ over the last axis; infinite beyond float32's range where sums overflow."""
    total = arithmetic.sum(a)
    if c.sums == "overflow":
        size = arithmetic.lower(total)
        beyond = np.abs(size) > np.finfo(np.float32).max
        total = total.copy()
        total[beyond] = arithmetic.lift(np.copysign(np.inf, size[beyond]))
    return total


def _unbiased(var: Array, n: int) -> Array:
    """Bessel's correction; 0/0, which is NaN, for a single value."""
    return var * n / (n - 1) if n > 1 else var * np.nan


def _updated(
    state: State, mean: Array, var: Array, p: Parameters, c: Conventions, arithmetic: Arithmetic
) -> tuple[State, float]:
    """r ← (1−m)·r + m·s, `c.updates` times; also the last m."""
    given = p.momentum if c.momentum is None else c.momentum
    cumulative = c.averaging == "cumulative" or (given is None and c.averaging == "as given")
    m = arithmetic.lift(np.asarray(c.default_momentum if given is None else given))
    for _ in range(c.updates):
        count = state.count + 1
        if cumulative:
            m = arithmetic.reciprocal(arithmetic.lift(np.asarray(float(count))))
        kept, new = (m, 1 - m) if c.momentum_weighs == "old" else (1 - m, m)
        state = State(
            kept * state.running_mean + new * mean if c.mean_updated else state.running_mean,
            kept * state.running_var + new * var if c.variance_updated else state.running_var,
            count,
        )
    return state, float(1 - m if c.momentum_weighs == "old" else m)
