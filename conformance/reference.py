"""What exact arithmetic returns: BatchNorm over a sequence of steps, under stated conventions.

Ioffe and Szegedy, "Batch Normalization" (2015), with x laid out as (C, n), n values per channel:

    train   μ = Σx/n, σ² = Σ(x−μ)²/n              eval   μ = running_mean, σ² = running_var
    inv = 1/√(σ²+ε)      x̂ = (x−μ)·inv      y = γ·x̂ + β
    dβ = Σg      dγ = Σg·x̂      dx = γ·inv·(g − dβ/n − x̂·dγ/n) in train, γ·inv·g in eval
    running ← (1−m)·running + m·s, with s the batch's mean, and its variance with n−1 in place of n

A mask takes values out of the sums of μ and σ², so that n counts what is left and the two terms of dx vanish outside.
`conformance.second` differentiates dx once more.

Stage by stage, each reading its own part of the conventions: modes, moments, the update, the inverse deviation, the
affine map, the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np

from conformance import second, stages
from conformance.arithmetic import Arithmetic, Array
from conformance.conventions import Conventions, Moments
from conformance.layer import Parameters, State, Trace, Values

#: What concerns the moments of the conventions.
_of_moments = attrgetter(*(field.name for field in fields(Moments)))


class Batches:
    """The steps' tensors in an arithmetic, and the moments of each: computed once, whatever is read into them."""

    def __init__(self, steps: Sequence[Values], arithmetic: Arithmetic) -> None:
        self.steps = steps
        self.arithmetic = arithmetic
        self._lifted: dict[int, tuple[Array, Array | None, Any]] = {}
        self._kept_moments: dict[tuple[int, Any], tuple[Array, Array]] = {}

    @cached_property
    def single(self) -> Batches:
        """The same, rounded to float32."""
        return Batches([_single(step) for step in self.steps], self.arithmetic)

    def lifted(self, index: int) -> tuple[Array, Array | None, Any]:
        """x, g and the mask of a step."""
        if index not in self._lifted:
            step, lift = self.steps[index], self.arithmetic.lift
            g, kept = None if step.g is None else lift(step.g), 1 if step.mask is None else lift(step.mask)
            self._lifted[index] = (lift(step.x), g, kept)
        return self._lifted[index]

    def moments(self, index: int, c: Moments) -> tuple[Array, Array]:
        """Mean and biased variance of a step's channels, under what concerns them of the conventions."""
        key = (index, _of_moments(c))
        if key not in self._kept_moments:
            step, (x, _, kept) = self.steps[index], self.lifted(index)
            padding = 1e-7 if stages.padded(step, c) else 0
            self._kept_moments[key] = stages.moments(
                x, kept, stages.values_kept(step) + padding, index, self.arithmetic, c
            )
        return self._kept_moments[key]


def evaluate(
    parameters: Parameters, steps: Sequence[Values], conventions: Conventions, arithmetic: Arithmetic
) -> list[Trace]:
    """Run the steps under the conventions; one `Trace` a step."""
    return list(read(parameters, Batches(steps, arithmetic), conventions))


def read(parameters: Parameters, batches: Batches, c: Conventions) -> Iterator[Trace]:
    """The steps under the conventions, one after another.

    The running statistics pass exactly from step to step: they are never rounded to a layer's dtype.
    """
    lift = batches.arithmetic.lift
    if c.precision == "float32":
        held = {"running_mean": parameters.running_mean, "running_var": parameters.running_var}  # as they were set
        parameters, batches = replace(_single(parameters), **held), batches.single
    state = fresh = State(lift(np.zeros_like(parameters.gamma)), lift(np.ones_like(parameters.gamma)), 0)
    state = State(lift(parameters.running_mean), lift(parameters.running_var), 0)
    gamma, beta = (lift(vector) for vector in stages.affine(parameters, c))
    earlier: tuple[Any, Any] = (0, 0)
    for index, mode in enumerate(stages.modes(parameters, batches.steps, c)):
        if batches.steps[index].reloaded and c.loaded == "parameters":
            state = replace(fresh, count=state.count)
        with np.errstate(all="ignore"):
            trace = _step(parameters, batches, index, mode, c, gamma, beta, state)
            if c.parameter_gradients == "accumulated":
                trace, earlier = stages.piled_up(trace, earlier)
        state = State(trace.running_mean, trace.running_var, trace.num_batches_tracked)
        yield trace


def _single(given: Any) -> Any:
    """Parameters or values with every array rounded to float32; the state is not, as it may pass untouched."""
    with np.errstate(over="ignore"):
        arrays = {
            name: value.astype(np.float32).astype(np.float64)
            for name, value in vars(given).items()
            if isinstance(value, np.ndarray) and not name.startswith("running")
        }
    return replace(given, **arrays)


def _step(
    p: Parameters, batches: Batches, index: int, mode: str, c: Conventions, gamma: Array, beta: Array, state: State
) -> Trace:
    step, arithmetic = batches.steps[index], batches.arithmetic
    x, g, kept = batches.lifted(index)
    n, counted = stages.values_kept(step), stages.counted(step, c)
    batch = (c.train_statistics if mode == "train" else c.eval_statistics) == "batch" or not p.track_running_stats
    updating = p.track_running_stats and (mode == "train" or c.update_in_eval)
    eps = stages.epsilon(p, c)

    after, before, weight, mean, sample_var, correction = state, state, None, None, None, 1.0
    if updating and not n and c.empty == "skipped" and not stages.padded(step, c):
        after = replace(state, count=state.count + 1)
    elif updating:
        mean, biased = batches.moments(index, c)
        corrected = {"biased": 0, "unbiased": 1, "corrected twice": 2}[c.running_variance]
        sample_var = biased
        for _ in range(corrected):
            sample_var = stages.unbiased(sample_var, counted)
        correction = float(stages.unbiased(np.float64(1), counted)) ** corrected
        sample_var = stages.stored(sample_var, eps, c, arithmetic)
        if c.begins == "anew":
            before = State(0 * state.running_mean, 0 * state.running_var + 1, state.count)
        after, weight = stages.updated(before, mean, sample_var, p, c, arithmetic)

    if batch:
        mu, used = batches.moments(index, c)
        used = stages.unbiased(used, counted) if c.batch_variance == "unbiased" else used
    else:
        held = after if c.update_first else state
        mu, used = held.running_mean, held.running_var
    radicand, inv = stages.inverse(used, eps, c, arithmetic)
    inv = stages.through_half(inv, arithmetic) if c.coarse == "deviation" else inv
    xhat = (x - mu[:, None]) * inv[:, None]
    factors = (gamma, xhat)
    if c.coarse == "factors":
        factors = (stages.eleven_bits(gamma, arithmetic), stages.eleven_bits(xhat, arithmetic))
    y = factors[0][:, None] * factors[1] + beta[:, None]
    y = stages.through_half(y, arithmetic) if c.coarse == "output" else y

    sums = dx = dgamma = dbeta = None
    divisors = (0, 0)
    if g is not None:
        weighed = g * xhat if c.coarse != "factors" else stages.eleven_bits(g, arithmetic) * factors[1]
        sums = stages.total(g, arithmetic, c), stages.total(weighed, arithmetic, c)
        if batch and not n and c.empty == "averaged":
            sums = sums[0], sums[1] * inv  # which is no number
        if counted and (batch or c.eval_gradient == "through the batch"):
            divisors = stages.divisors(counted, c)
        inner = g
        if divisors[0]:
            inner = inner - kept * (sums[0] / divisors[0])[:, None]
        if divisors[1]:
            inner = inner - xhat * (kept * (sums[1] / divisors[1])[:, None])
        outer = inv if c.dx_scale == "ignored" else gamma * inv
        dx = outer[:, None] * inner
        dbeta, dgamma = stages.returned(sums, inv, counted, c, arithmetic)
    learned = p.trainable and not step.frozen
    trace = Trace(
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
        radicand=radicand,
        inv=inv,
        xhat=xhat,
        y=y,
        dx=dx,
        sums=sums,
        taken_off=(1 / divisors[0] if divisors[0] else 0.0, 1 / divisors[1] if divisors[1] else 0.0),
        dgamma=dgamma if p.scale and learned else None,
        dbeta=dbeta if p.center and learned else None,
        weight=weight,
        mean=mean,
        sample_var=sample_var,
        correction=correction,
        before=(before.running_mean, before.running_var),
        running_mean=after.running_mean,
        running_var=after.running_var,
        num_batches_tracked=after.count,
    )
    if step.v is None:
        return trace
    return second.differentiated(trace, arithmetic.lift(step.v), c, arithmetic)
