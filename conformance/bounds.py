"""How far rounding may take a correct implementation from the reference, element by element.

docs/bounds.md derives every formula; the numbers in brackets are its equations, here and there. u is the unit roundoff
of the accumulator, u_o that of the output, n the values per channel, h the depth of a summation, x̂ = (x−μ)·inv:

    γ_h  = h·u/(1−h·u)                                                                                  (1)
    δμ   = (γ_h + u)·mean|x|                                                                            (2)
    δσ²  = (h+4)·u·σ² + 3u|μ|σ + δμ²                 strict: two-pass and updating algorithms           (3)
    δσ²  = (h+4)·u·(σ²+μ²) + 3u|μ|σ + δμ²            weak: one-pass, as long as it keeps d below ¼      (4)
    d    = (δσ² + u(|σ²|+|ε|−|σ²+ε|))/(σ²+ε)         relative error of σ²+ε                             (5)
    q    = d/2, weak: d/2·(1+d)                      relative error of inv                              (6)
    δx̂   = inv·δμ + |x̂|(q + 5u)                                                                         (7)
    δy   = |γ|·δx̂ + 2u|β| + 3u(|γ|·inv·(|x|+|μ|) + |β|) + u_o|y| + η                                    (8)
    δs   = δσ²·n/(n−1) + 2u·s                        of the variance that is stored                     (9)
    δr'  = |1−m|·δr + |m|·δs + 3u(|(1−m)r| + |m·s|) + u(|r|+|s|) + u_o|r'| + η                          (10)
    δβ'  = 2√l·u·(√Σg² + |β'|) + u_o|β'| + η                                                            (11)
    δγ'  = (2√l+3)·u·√Σ(g·w)² + inv·δμ·|β'| + (q+4u)|γ'| + u_o|γ'| + η      with w = inv·(|x|+|μ|)      (12)
    δx'  = |γ|·inv·((q+4u)|t| + a·δβ' + b(δx̂·|γ'| + |x̂|·δγ') + 3u(|g| + a|β'| + b|x̂·γ'|)) + u_o|dx| + η  (13)
           where dx = γ·inv·t, t = g − a·β' − b·x̂·γ', and a = b = 1/n in training, 0 in evaluation

Where the factor |γ|·inv is subnormal in the accumulator, whose smallest subnormal is η_a, it is rounded by η_a in place
of u: δy has η_a·(|x|+|μ|+1+inv) more (8'), δx' η_a·(|g|+a|β'|+b|x̂·γ'|+3(1+inv)(1+|x̂|)) (13').

Statistics that come from `running` carry the error they have accumulated in place of δμ and δσ². η is the smallest
subnormal of the output. Conventions that are matters of precision widen these: (14) statistics and terms that are
rounded, (15) subnormals that are flushed, (16) statistics that were recovered from the running ones, (17) what goes
through a format of 11 bits. Second derivatives are bounded by (18) to (20), which `conformance.second` has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance import second
from conformance.arithmetic import Arithmetic, Double, blocks, in_blocks
from conformance.conventions import (
    CANONICAL,
    Affine,
    Conventions,
    Differentiating,
    Moments,
    Normalising,
    Precision,
    fields_of,
)
from conformance.latest import Latest
from conformance.layer import Trace
from conformance.rounding import SUBNORMAL, UNIT_ROUNDOFF, Grade, Rounding, rounding

Array = NDArray[Any]

#: What the conventions say that bears on the bounds of what a step returns, and of the statistics that it leaves.
_of_output = attrgetter(*fields_of(Precision, Differentiating, Affine, Normalising, Moments))
_of_update = attrgetter(*fields_of(Precision, Moments))


@dataclass(frozen=True)
class StepBounds:
    """Absolute bounds of one step: (C, n) for y, dx, ddx and ddy, (C,) for the rest; None where there is none."""

    y: Array
    running_mean: Array
    running_var: Array
    dx: Array | None
    dgamma: Array | None
    dbeta: Array | None
    ddx: Array | None = None
    ddgamma: Array | None = None
    ddy: Array | None = None

    def but(self, **changes: Any) -> StepBounds:
        """These bounds with some changed."""
        return StepBounds(**{**vars(self), **changes})


def bounds(
    traces: Sequence[Trace],
    arithmetic: Arithmetic,
    grade: Grade,
    io_dtype: str | Sequence[str],
    layer_dtype: str,
    conventions: Conventions = CANONICAL,
    latest: Latest | None = None,
) -> list[StepBounds]:
    """Bounds of every step; errors of the running statistics accumulate from step to step.

    Args:
        io_dtype: dtype of y and dx, of every step or of each.
        layer_dtype: dtype of parameters, their gradients and the running statistics.
        conventions: those of the traces; matters of precision among them widen the bounds.
        latest: what keeps the bounds of steps.
    """
    lower = arithmetic.lower
    latest, c = latest or Latest(0), conventions
    dtypes = [io_dtype] * len(traces) if isinstance(io_dtype, str) else io_dtype
    roundings = {dtype: rounding(grade, dtype, layer_dtype, c) for dtype in dict.fromkeys(dtypes)}
    start = latest.answer(lambda: np.zeros_like(lower(traces[0].before[0])), "no error") if traces else np.zeros(0)
    held, earlier = (start, start), (start, start)
    found = []
    with np.errstate(all="ignore"):
        for trace, dtype in zip(traces, dtypes, strict=True):
            step = _Step(trace, roundings[dtype], held, arithmetic)
            # What bounds are made of beside the conventions; y stands for all that its step has computed with it.
            of_output: tuple[Any, ...] = (trace.y, *(() if trace.batch else held))
            of_update: tuple[Any, ...] = (*trace.before, trace.running_mean, trace.running_var, *held)
            if c.means is not None or c.variances is not None or c.stored != "variance":
                of_output = of_update = (step,)  # the one bears on the other
            in_dtypes = (grade, dtype, layer_dtype)
            output = latest.answer(step.returned, ("bounds of the output", *in_dtypes, _of_output(c)), *of_output)
            held = latest.answer(
                step.running, ("bounds of the update", *in_dtypes, trace.eps, trace.weight, _of_update(c)), *of_update
            )
            if c.parameter_gradients == "accumulated" and output.dgamma is not None and output.dbeta is not None:
                earlier = earlier[0] + output.dgamma, earlier[1] + output.dbeta
                output = output.but(dgamma=earlier[0], dbeta=earlier[1])
            found.append(output.but(running_mean=held[0], running_var=held[1]))
    return found


def _lowered(t: Trace, lower: Callable[[Array], Array]) -> Trace:
    """A trace in float64."""

    def each(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(each(item) for item in value)
        return lower(value) if isinstance(value, np.ndarray) and value is not t.mask else value

    return Trace(**{name: each(value) for name, value in vars(t).items()})


class _Step:
    """One step's errors, stage by stage; `t` is its trace in float64, `held` the errors of the statistics before."""

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
        if t.mask is None:
            size = _total(np.abs, t.x)
        else:
            size = _total(lambda x, mask: np.where(mask, np.abs(x), 0), t.x, np.broadcast_to(t.mask, t.x.shape))
        size = size / max(t.count, 1)
        if r.conventions.shared != "nothing":
            size = np.full_like(size, size.max(initial=0))
        mean = t.mu if t.mean is None else t.mean
        return np.asarray((_gamma(self.h, r.u) + r.u) * size + r.statistics * np.abs(mean) + r.tiny)  # (2)

    @cached_property
    def delta_mu(self) -> Array:
        """δμ of what normalises."""
        return self.delta_mean if self.t.batch else self.held[0]

    @cached_property
    def q(self) -> Array:
        """q, relative."""
        delta_var = self._delta_var(self.t.var, self.t.mu) if self.t.batch else self.held[1]
        return self._inverse(delta_var) + 2 * self.r.statistics

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

    def lost_below(self, factor: Array) -> Array | None:
        """What rounding takes off a channel's factor at most where that is subnormal, (C, 1); None where none is."""
        subnormal = (factor > 0) & (factor < self.r.normal)
        return np.where(subnormal, self.r.subnormal, 0.0)[:, None] if subnormal.any() else None

    def returned(self) -> StepBounds:
        """Bounds of what the step returns, beside those of the statistics that it found."""
        dx, dgamma, dbeta = self.gradients() if self.trace.g is not None else (None, None, None)
        ddx, ddgamma, ddy = self.second() if self.trace.v is not None else (None, None, None)
        return StepBounds(self.output(), *self.held, dx, dgamma, dbeta, ddx, ddgamma, ddy)

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
        two_pass = (self.h + 4) * u * var + 3 * u * np.abs(mu) * np.sqrt(var) + delta * delta + self.r.tiny  # (3)
        if not self.r.one_pass:
            return np.asarray(two_pass)
        one_pass = two_pass + (self.h + 4) * u * mu * mu  # (4)
        return np.maximum(two_pass, np.minimum(one_pass, (var + self.t.eps) / 4))

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
            q = q + _ties(exact, q + 3 * r.u) / t.inv  # (17)
        return np.asarray(q)

    def output(self) -> Array:
        """δy."""
        t, r = self.t, self.r
        gamma, beta = np.abs(t.gamma)[:, None], np.abs(t.beta)[:, None]
        relative, absolute = self.of_xhat
        spanned = 3 * r.u * t.inv
        columns = (relative, spanned, absolute + spanned * np.abs(t.mu))
        delta = in_blocks(
            lambda y, x, xhat, gamma, of_xhat, of_x, rest, of_beta: (
                gamma * (of_xhat * np.abs(xhat) + of_x * np.abs(x) + rest) + self.u_o * np.abs(y) + of_beta
            ),
            *(t.y, t.x, t.xhat, gamma, *(column[:, None] for column in columns), 5 * r.u * beta + self.eta),
        )  # (8)
        if r.conventions.coarse == "factors":
            delta = delta + gamma * _ties(self.xhat, _over(self.delta_xhat(self.of_xhat), self.xhat))  # (17)
        if r.conventions.coarse == "output":
            exact = t.gamma[:, None] * t.xhat + t.beta[:, None]
            return np.asarray(_ties(exact, _over(delta, np.abs(exact))) + self.eta)  # (17)
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
            delta = _over(delta, 2 * t.sample_var) + 2 * r.u * t.sample_var
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

    def gradients(self) -> tuple[Array, Array, Array]:
        """δx', δγ' and δβ'."""
        delta_dx, delta_gamma, delta_beta = self.backward()
        return (delta_dx, *self._returned(delta_gamma, delta_beta))

    def second(self) -> tuple[Array, Array | None, Array]:
        """δddx, δddγ and δddy, of which (18) is (13) with v in the place of g."""
        t, r, exact = self.t, self.r, Double()
        assert t.ddx is not None
        plain = replace(r, conventions=r.conventions.but(dx_scale="applied"))
        delta_ddy, delta_vx, delta_v = _Step(second.of_v(t, exact), plain, self.held, exact).backward()
        _, delta_gx, delta_g = self.backward()
        root = 2 * np.sqrt(r.lane(t.x.shape[1])) * r.u
        delta_xhat = self.delta_xhat(self.of_xhat)
        known = second.Errors(r.u, self.q, delta_xhat, root, (delta_v, delta_vx), (delta_g, delta_gx))
        delta_ddx, delta_ddgamma = second.bounds(t, known, exact)
        delta_ddx = delta_ddx + self.u_o * np.abs(t.ddx) + self.eta
        if t.ddgamma is None:
            return delta_ddx, None, delta_ddy
        u_p, eta_p = UNIT_ROUNDOFF[r.layer_dtype], SUBNORMAL[r.layer_dtype]
        return delta_ddx, delta_ddgamma + u_p * np.abs(t.ddgamma) + eta_p, delta_ddy

    def backward(self) -> tuple[Array, Array, Array]:
        """δx', and δγ' and δβ' without the rounding of what is returned."""
        t, r, u, inv, tiny = self.t, self.r, self.r.u, self.t.inv, self.r.tiny
        assert t.g is not None
        assert t.dx is not None
        assert t.sums is not None
        g, beta_, gamma_ = t.g, np.abs(t.sums[0]), np.abs(t.sums[1])
        delta_mu, of_xhat, q = self.delta_mu, self.of_xhat, self.q
        saved = r.saved - r.statistics
        if t.batch and saved:
            delta_mu, q = delta_mu + saved * np.abs(t.mu), q + 2 * saved
            of_xhat = of_xhat[0] + 2 * saved, of_xhat[1] + saved * inv * np.abs(t.mu)  # (14)
        n = t.x.shape[1]
        root = 2 * np.sqrt(r.lane(n)) * u
        delta_beta = root * (_norm(lambda g: g, g) + beta_) + r.terms * beta_ + tiny * n  # (11), unrounded
        spanned = (t.x, np.abs(t.mu)[:, None], inv[:, None])
        delta_gamma = (root + 3 * u) * _norm(lambda g, x, mu, inv: g * _spanned(x, mu, inv), g, *spanned)
        if tiny:
            small = np.abs(g) * (1 + inv[:, None]) + self.xhat + _spanned(*spanned) + 1
            delta_gamma = delta_gamma + tiny * small.sum(1)
        if t.count:
            delta_gamma = delta_gamma + inv * delta_mu * beta_ + (q + 4 * u + r.terms) * gamma_  # (12), unrounded
        if r.conventions.coarse == "factors":
            delta_xhat = self.delta_xhat(of_xhat)
            delta_gamma = delta_gamma + (np.abs(g) * _ties(self.xhat, _over(delta_xhat, self.xhat))).sum(1)  # (17)

        a, b = t.taken_off
        gamma = np.ones_like(t.gamma) if r.conventions.dx_scale == "ignored" else np.abs(t.gamma)
        outer = gamma * inv
        kept = np.ones((len(inv), 1)) if t.mask is None else np.broadcast_to(t.mask, t.x.shape)
        relative = q + 4 * u
        if a or b:
            relative, spread = relative + r.terms, 3 * u + r.terms
            through = outer * b * gamma_
            # What each of |dx|, |g| and |x̂| is multiplied by, and what is the same all over the channel.
            factors = (
                relative + self.u_o,
                outer * spread,
                outer * b * (delta_gamma + spread * gamma_) + through * of_xhat[0],
                outer * a * (delta_beta + spread * beta_) + through * of_xhat[1],
            )
            eta = self.eta
            delta_dx = in_blocks(
                lambda dx, g, xhat, kept, of_dx, of_g, of_xhat, rest: (
                    of_dx * np.abs(dx) + of_g * np.abs(g) + kept * (of_xhat * np.abs(xhat) + rest) + eta
                ),
                *(t.dx, g, t.xhat, kept),
                *(factor[:, None] for factor in factors),
            )  # (13)
        else:
            delta_dx = (outer * relative)[:, None] * np.abs(g) + self.u_o * np.abs(t.dx) + self.eta  # (13)
        lost = self.lost_below(outer)
        if lost is not None:
            met = a * beta_[:, None] + b * self.xhat * gamma_[:, None]
            delta_dx = delta_dx + lost * (np.abs(g) + kept * met + 3 * (1 + inv[:, None]) * (1 + self.xhat))  # (13')
        if tiny:
            met = self.xhat if t.batch else np.zeros_like(self.xhat)
            scale = (outer[:, None] * (2 + met)) + inv[:, None] + gamma[:, None]
            delta_dx = delta_dx + tiny * (scale + np.abs(g) * (1 + met) + 1)
        return delta_dx, delta_gamma, delta_beta

    def _returned(self, delta_gamma: Array, delta_beta: Array) -> tuple[Array, Array]:
        """Bounds of dγ and dβ as they are handed out, and their rounding."""
        t, c = self.t, self.r.conventions
        u_p, eta_p = UNIT_ROUNDOFF[self.r.layer_dtype], SUBNORMAL[self.r.layer_dtype]
        assert t.sums is not None
        beta_, gamma_ = np.abs(t.sums[0]), np.abs(t.sums[1])
        if c.dgamma == "unnormalised":
            delta_gamma, gamma_ = delta_gamma / t.inv, gamma_ / t.inv
        if c.parameter_gradients == "averaged" and t.count:
            delta_gamma, delta_beta, gamma_, beta_ = (v / t.count for v in (delta_gamma, delta_beta, gamma_, beta_))
        if c.parameter_gradients == "swapped":
            delta_gamma, delta_beta, gamma_, beta_ = delta_beta, delta_gamma, beta_, gamma_
        return delta_gamma + u_p * gamma_ + eta_p, delta_beta + u_p * beta_ + eta_p


def _gamma(h: int, u: float) -> float:
    """γ_h of Higham's lemma 3.1."""
    return h * u / (1 - h * u)  # (1)


def _spanned(x: Array, mu: Array, inv: Array) -> Array:
    """w of (12), from |μ|."""
    return inv * (np.abs(x) + mu)


def _total(formula: Callable[..., Array], *arrays: Array) -> Array:
    """Σ over the columns of an elementwise formula's values; its rounding is nothing to a bound."""
    sums = np.zeros(len(arrays[0]))
    for rows, _, block in blocks(*arrays):
        sums[rows] += formula(*block).sum(1)
    return sums


def _norm(formula: Callable[..., Array], *arrays: Array) -> Array:
    """√Σa² over the columns of an elementwise formula's values a."""
    return np.asarray(np.sqrt(_total(lambda *block: np.square(formula(*block)), *arrays)))


def _over(a: Array, b: Array) -> Array:
    """a/b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def _ties(value: Array, relative: Array) -> Array:
    """Spacing of numbers of 11 bits where a value of such a relative error may round either way, 0 elsewhere."""
    spacing = np.ldexp(1.0, np.frexp(value)[1] - 11)
    nearest_tie = np.abs(np.abs(np.abs(value) / spacing % 1) - 0.5) * spacing
    return np.where(nearest_tie <= relative * np.abs(value), spacing, 0.0)
