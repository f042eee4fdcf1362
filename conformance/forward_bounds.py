"""Rounding errors of a step, stage by stage, up to y and the running statistics: (1) to (10) of docs/bounds.md."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from conformance.arithmetic import Arithmetic, Array, Double, blocks, in_blocks
from conformance.layer import Trace
from conformance.rounding import SUBNORMAL, UNIT_ROUNDOFF, Rounding
from conformance.stages import divided, held_as, saved_as


class Forward:
    """One step's errors up to y and the running statistics.

    Attributes:
        t: the step's trace in float64.
        held: errors of the running statistics before it.
    """

    def __init__(self, trace: Trace, r: Rounding, held: tuple[Array, Array], arithmetic: Arithmetic) -> None:
        self.trace, self.r, self.held, self.arithmetic = trace, r, held, arithmetic
        self.u_o, self.eta = UNIT_ROUNDOFF[r.io_dtype], SUBNORMAL[r.io_dtype]
        self.h = r.depth(trace.x.shape[1])

    @cached_property
    def t(self) -> Trace:
        return self.trace if isinstance(self.arithmetic, Double) else _lowered(self.trace, self.arithmetic.lower)

    @cached_property
    def delta_mean(self) -> Array:
        """δμ of the batch."""
        t, r = self.t, self.r
        recovered = self._recovered(0, r.conventions.means)
        if recovered is not None:
            return np.asarray(recovered)
        size = self._average(np.abs)
        if r.conventions.shared != "nothing":
            size = np.full_like(size, size.max(initial=0))
        mean = t.mu if t.mean is None else t.mean
        delta = (_gamma(self.h, r.u) + r.u) * size + r.subnormal  # (2)
        return np.asarray(delta + r.statistics * np.abs(mean) + r.tiny)

    @cached_property
    def delta_mu(self) -> Array:
        """δμ of what normalises."""
        t = self.t
        delta = self.delta_mean if t.batch else self.held[0]
        return self._saved("mean", delta, lambda: self._average(np.asarray))

    @cached_property
    def q(self) -> Array:
        """q, relative."""
        t, r = self.t, self.r
        delta_var = self._delta_var(t.var, t.mu) if t.batch else self.held[1]
        q = self._inverse(self._saved("variance", delta_var, lambda: t.var)) + 2 * r.statistics
        if saved_as("deviation", t.batch, r.conventions) == "as given":
            return q
        exact = 1 / np.sqrt(t.radicand)
        return over(self._saved("deviation", (q + 3 * r.u) * exact, lambda: exact), t.inv)

    @cached_property
    def xhat(self) -> Array:
        """|x̂|, (C, n)."""
        return np.abs(self.t.xhat)

    @cached_property
    def of_xhat(self) -> tuple[Array, Array]:
        """δx̂ as a multiple of |x̂| and what is the same all over the channel."""
        t, r = self.t, self.r
        return self.q + 5 * r.u, t.inv * self.delta_mu + (r.tiny * (t.inv + 1) if r.tiny else 0)  # (7)

    def delta_xhat(self, of_xhat: tuple[Array, Array]) -> Array:
        """δx̂, (C, n)."""
        relative, absolute = of_xhat
        return np.asarray(self.xhat * relative[:, None] + absolute[:, None])

    def _average(self, formula: Callable[..., Array], *columns: Array) -> Array:
        """The mean of an elementwise formula of the values that count, and of columns beside them, (C,)."""
        t = self.t
        if t.mask is None:
            sums = total(formula, t.x, *columns)
        else:
            mask = np.broadcast_to(t.mask, t.x.shape)
            sums = total(lambda mask, *block: np.where(mask, formula(*block), 0), mask, t.x, *columns)
        return sums / max(t.count, 1)

    def _saved(self, which: str, delta: Array, exact: Callable[[], Array]) -> Array:
        """How far a mean, variance or deviation may be off once it is saved: near a tie it rounds either way."""
        dtype = saved_as(which, self.t.batch, self.r.conventions)
        if dtype == "as given":
            return delta
        low, high = (held_as(dtype, exact() + off, Double()) for off in (-delta, delta))
        return np.where(np.isfinite(high), high - low, delta)  # (17)

    def lost_below(self, factor: Array) -> Array | None:
        """What rounding takes off a channel's factor at most where that is subnormal, (C, 1); None where none is."""
        subnormal = (factor > 0) & (factor < self.r.normal)
        return np.where(subnormal, self.r.subnormal, 0.0)[:, None] if subnormal.any() else None

    def _recovered(self, which: int, given: Any) -> Any:
        """(16): what followed from a running statistic has the rounding of its update, magnified by 1/m."""
        if given is None or not self.t.weight:
            return None
        after = (self.t.running_mean, self.t.running_var)[which]
        return 8 * self.r.u * (np.abs(self.t.before[which]) + np.abs(after)) / abs(self.t.weight)

    def _delta_var(self, var: Array, mu: Array) -> Array:
        """δσ²; a one-pass variance also loses what it cancels, σ² + μ², up to a quarter of what it is added to."""
        recovered = self._recovered(1, self.r.conventions.variances)
        if recovered is not None:
            return np.asarray(recovered)
        u, delta = self.r.u, self.delta_mean
        two_pass = (self.h + 4) * u * var + 3 * u * np.abs(mu) * np.sqrt(var) + delta * delta
        two_pass = self._divided(two_pass + self.r.subnormal + self.r.tiny)  # (3)
        if not self.r.one_pass:
            return np.asarray(two_pass)
        one_pass = two_pass + (self.h + 4) * u * mu * mu  # (4)
        return np.maximum(two_pass, np.minimum(one_pass, (var + self.t.eps) / 4))

    def _divided(self, delta: Array) -> Array:
        """δσ² where Σ(x−μ)², n and σ² are held in a coarse format."""
        c, n = self.r.conventions, self.t.count
        if c.squares == "as computed" or not n:
            return delta
        mu = self._average(np.asarray)
        exact = self._average(lambda x, mu: np.square(x - mu), mu[:, None])
        low, high = (divided(np.maximum(exact + off, 0) * n, n, Double(), c) for off in (-delta, delta))
        return np.where(np.isfinite(high), high - low, delta)  # (17)

    def _inverse(self, delta_var: Array) -> Array:
        """q, relative."""
        t, r = self.t, self.r
        cancelled = r.u * np.maximum(np.abs(t.var) + abs(t.eps) - np.abs(t.radicand), 0)
        d = np.where(np.isinf(t.radicand), 0.0, (delta_var + cancelled) / t.radicand)  # (5)
        q = d / 2 * (1 + d if r.one_pass else 1)  # (6)
        if r.conventions.divisor == "variance":
            q = 2 * q
        if r.conventions.coarse == "deviation":
            exact = 1 / np.sqrt(t.radicand)
            q = q + ties(exact, q + 3 * r.u) / t.inv  # (17)
        return np.asarray(q)

    def output(self) -> Array:
        """δy."""
        t, r = self.t, self.r
        gamma, beta = np.abs(t.gamma)[:, None], np.abs(t.beta)[:, None]
        relative, absolute = self.of_xhat
        spanned = 3 * r.u * t.inv
        relative = relative + 4 * r.elements  # (14)
        columns = (relative, spanned, absolute + spanned * np.abs(t.mu) + r.subnormal)
        least = self.eta + r.subnormal  # (8")
        delta = in_blocks(
            lambda y, x, xhat, gamma, of_xhat, of_x, rest, of_beta: (
                gamma * (of_xhat * np.abs(xhat) + of_x * np.abs(x) + rest) + self.u_o * np.abs(y) + of_beta
            ),
            *(t.y, t.x, t.xhat, gamma, *(column[:, None] for column in columns), 5 * r.u * beta + least),
        )  # (8)
        if r.conventions.coarse == "factors":
            delta = delta + gamma * ties(self.xhat, over(self.delta_xhat(self.of_xhat), self.xhat))  # (17)
        if r.conventions.coarse == "output":
            exact = t.gamma[:, None] * t.xhat + t.beta[:, None]
            return np.asarray(ties(exact, over(delta, np.abs(exact))) + self.eta)  # (17)
        lost = self.lost_below(np.abs(t.gamma) * t.inv)
        if lost is not None:
            delta = delta + lost * (np.abs(t.x) + np.abs(t.mu)[:, None] + 1 + t.inv[:, None])  # (8')
        if r.tiny:
            delta = delta + r.tiny * (self.xhat + np.abs(t.x) + np.abs(t.mu)[:, None] + 3)
        return delta

    def running(self) -> tuple[Array, Array]:
        """δr' of the mean and of the variance."""
        t, r = self.t, self.r
        if t.weight is None or t.mean is None or t.sample_var is None:
            return self.held
        biased = t.sample_var / t.correction
        if r.conventions.stored != "variance":
            biased = t.var if t.batch else np.square(biased)
        delta = self._delta_var(biased, t.mean) * t.correction + 2 * (r.u + r.statistics) * np.abs(t.sample_var)  # (9)
        if r.conventions.stored == "deviation":
            delta = over(delta, 2 * t.sample_var) + 2 * r.u * t.sample_var
        return (
            self._delta_running(t.before[0], t.mean, self.delta_mean, self.held[0], t.running_mean),
            self._delta_running(t.before[1], t.sample_var, delta, self.held[1], t.running_var),
        )

    def _delta_running(self, before: Array, s: Array, delta_s: Array, delta_r: Array, after: Array) -> Array:
        """δr' of one update."""
        r, m, u = self.r, abs(self.t.weight or 0.0), self.r.u + self.r.statistics
        handed_over = 0.0 if m in (0, 1) else u * (np.abs(before) + np.abs(s))
        return np.asarray(
            abs(1 - m) * delta_r
            + m * delta_s
            + 3 * u * (np.abs((1 - m) * before) + np.abs(m * s))
            + handed_over
            + UNIT_ROUNDOFF[r.layer_dtype] * np.abs(after)
            + SUBNORMAL[r.layer_dtype]
            + 3 * r.tiny
        )  # (10)


def _lowered(t: Trace, lower: Callable[[Array], Array]) -> Trace:
    """A trace in float64."""

    def each(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(each(item) for item in value)
        return lower(value) if isinstance(value, np.ndarray) and value is not t.mask else value

    return Trace(**{name: each(value) for name, value in vars(t).items()})


def _gamma(h: int, u: float) -> float:
    """γ_h of Higham's lemma 3.1."""
    return h * u / (1 - h * u)  # (1)


def total(formula: Callable[..., Array], *arrays: Array) -> Array:
    """Σ over the columns of an elementwise formula's values; its rounding is nothing to a bound."""
    sums = np.zeros(len(arrays[0]))
    for rows, _, block in blocks(*arrays):
        sums[rows] += formula(*block).sum(1)
    return sums


def over(a: Array, b: Array) -> Array:
    """a/b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def ties(value: Array, relative: Array) -> Array:
    """Spacing of numbers of 11 bits where a value of such a relative error may round either way, 0 elsewhere."""
    spacing = np.ldexp(1.0, np.frexp(value)[1] - 11)
    nearest_tie = np.abs(np.abs(np.abs(value) / spacing % 1) - 0.5) * spacing
    return np.where(nearest_tie <= relative * np.abs(value), spacing, 0.0)
