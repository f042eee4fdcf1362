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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np

from conformance import second, stages
from conformance.arithmetic import Arithmetic, Array, in_blocks
from conformance.conventions import Affine, Conventions, Differentiating, Moments, Normalising, Updating, fields_of
from conformance.latest import Latest
from conformance.layer import Parameters, State, Trace, Values

#: What the conventions say that bears on a step's moments, on its update, and on all that it returns of x and g.
_of_moments = attrgetter(*fields_of(Moments))
_of_update = attrgetter(*fields_of(Moments, Updating))
_of_output = attrgetter(*fields_of(Moments, Normalising, Affine, Differentiating), "coarse")


#: The tensors of a step are held in an arithmetic up to so many values; of more, so many values of channels are read
#: together.
HELD = 131_072


class Batches:
    """The steps' tensors in an arithmetic, and what was computed of them: once, whatever else is read into the case.

    Args:
        latest: what keeps the answers; moments are kept in any case.
    """

    def __init__(self, steps: Sequence[Values], arithmetic: Arithmetic, latest: Latest | None = None) -> None:
        self.steps = steps
        self.arithmetic = arithmetic
        self.latest = latest or Latest(0)
        self._lifted: dict[int, tuple[Array, Array | None, Any]] = {}
        self._kept_moments: dict[tuple[int, Any], tuple[Array, Array]] = {}

    @cached_property
    def single(self) -> Batches:
        """The same, rounded to float32."""
        return Batches([_single(step) for step in self.steps], self.arithmetic, self.latest)

    @cached_property
    def unmasked(self) -> Batches:
        """The same without masks."""
        return Batches([replace(step, mask=None) for step in self.steps], self.arithmetic, self.latest)

    def lifted(self, index: int) -> tuple[Array, Array | None, Any]:
        """x, g and the mask of a step; of large tensors it is quicker to lift them again than to hold them."""
        lifted = self._lifted.get(index)
        if lifted is None:
            step, lift = self.steps[index], self.arithmetic.lift
            g, kept = None if step.g is None else lift(step.g), 1 if step.mask is None else lift(step.mask)
            lifted = (lift(step.x), g, kept)
            if step.x.size <= HELD:
                self._lifted[index] = lifted
        return lifted

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


@dataclass(frozen=True)
class _Layer:
    """A layer's numbers as they are applied, and as they stand before the first step, in the arithmetic."""

    parameters: Parameters
    gamma: Array
    beta: Array
    state: State


def evaluate(
    parameters: Parameters, steps: Sequence[Values], conventions: Conventions, arithmetic: Arithmetic
) -> list[Trace]:
    """Run the steps under the conventions; one `Trace` a step."""
    return read(parameters, Batches(steps, arithmetic), conventions)


def read(parameters: Parameters, batches: Batches, c: Conventions) -> list[Trace]:
    """The steps under the conventions, one after another.

    The running statistics pass exactly from step to step: they are never rounded to a layer's dtype.
    """
    batches = batches.single if c.precision == "float32" else batches
    batches = batches.unmasked if c.mask == "ignored" else batches
    layer = batches.latest.answer(
        lambda: _layer(parameters, c, batches.arithmetic),
        ("layer", c.precision, c.unlearned, c.gamma, c.beta),
        parameters,
    )
    layers = [layer] * len(batches.steps)
    if any(step.assigned for step in batches.steps):
        layers = batches.latest.answer(lambda: _layers(layer, batches.steps, c), ("assigned", c.assigned), layer)
    state, earlier = layer.state, (0, 0)
    traces = []
    with np.errstate(all="ignore"):
        for index, mode in enumerate(stages.modes(parameters, batches.steps, c)):
            if batches.steps[index].reloaded and c.loaded == "parameters":
                lift, none = batches.arithmetic.lift, np.zeros_like(parameters.gamma)
                state = State(lift(none), lift(none + 1), state.count)
            trace = _step(layers[index], batches, index, mode, c, state)
            if c.parameter_gradients == "accumulated":
                trace, earlier = stages.piled_up(trace, earlier)
            if c.thawed == "stays frozen" and any(step.frozen for step in batches.steps[:index]):
                trace = stages.never_thawed(trace)
            state = State(trace.running_mean, trace.running_var, trace.num_batches_tracked)
            traces.append(trace)
    return traces


def _layer(given: Parameters, c: Conventions, arithmetic: Arithmetic) -> _Layer:
    lift = arithmetic.lift
    held = {"running_mean": given.running_mean, "running_var": given.running_var}  # as they were set
    parameters = replace(_single(given), **held) if c.precision == "float32" else given
    gamma, beta = (lift(vector) for vector in stages.affine(parameters, c))
    return _Layer(parameters, gamma, beta, State(lift(given.running_mean), lift(given.running_var), 0))


def _layers(layer: _Layer, steps: Sequence[Values], c: Conventions) -> list[_Layer]:
    """The layer as it is in each step."""
    return [replace(layer, parameters=p) for p in stages.parameters_at(layer.parameters, steps, c)]


def _single(given: Any) -> Any:
    """Parameters or values with every array rounded to float32; the state is not, as it may pass untouched."""
    with np.errstate(over="ignore"):
        arrays = {
            name: value.astype(np.float32).astype(np.float64)
            for name, value in vars(given).items()
            if isinstance(value, np.ndarray) and not name.startswith("running")
        }
    return replace(given, **arrays)


def _step(layer: _Layer, batches: Batches, index: int, mode: str, c: Conventions, state: State) -> Trace:
    """One step: the update, and what it returns, each computed anew only where something bears on it."""
    p, latest = layer.parameters, batches.latest
    eps = stages.epsilon(p, c)
    update = latest.answer(
        lambda: _updated(p, batches, index, mode, eps, c, state),
        ("update", index, mode, eps, state.count, c.precision, _of_update(c)),
        *(p, state.running_mean, state.running_var),
    )
    batch = (c.train_statistics if mode == "train" else c.eval_statistics) == "batch" or not p.track_running_stats
    held = update.after if c.update_first else state
    running = None if batch else held.statistics
    trace = latest.answer(
        lambda: _output(layer, batches, index, running, eps, c),
        ("output", index, eps, c.precision, _of_output(c), c.derivation != "closed" and c.subnormals),
        *(p, layer.gamma, layer.beta, *(running or ())),
    )
    return trace.but(
        weight=update.weight,
        mean=update.mean,
        sample_var=update.sample_var,
        correction=update.correction,
        before=update.before.statistics,
        running_mean=update.after.running_mean,
        running_var=update.after.running_var,
        num_batches_tracked=update.after.count,
    )


@dataclass(frozen=True)
class _Update:
    """The state before and after a step, and what was weighed in, as `Trace` has it."""

    before: State
    after: State
    weight: float | None = None
    mean: Array | None = None
    sample_var: Array | None = None
    correction: float = 1.0


def _updated(
    p: Parameters, batches: Batches, index: int, mode: str, eps: float, c: Conventions, state: State
) -> _Update:
    step, arithmetic = batches.steps[index], batches.arithmetic
    n, counted = stages.values_kept(step), stages.counted(step, c)
    if not p.track_running_stats or not (mode == "train" or c.update_in_eval):
        return _Update(state, state)
    if not n and c.empty == "skipped" and not stages.padded(step, c):
        return _Update(state, replace(state, count=state.count + 1))
    mean, sample_var = batches.moments(index, c)
    corrected = {"biased": 0, "unbiased": 1, "corrected twice": 2}[c.running_variance]
    for _ in range(corrected):
        sample_var = stages.unbiased(sample_var, counted)
    correction = float(stages.unbiased(np.float64(1), counted)) ** corrected
    sample_var = stages.stored(sample_var, eps, c, arithmetic)
    before = state
    if c.begins == "anew":
        before = State(np.zeros_like(state.running_mean), np.ones_like(state.running_var), state.count)
    after, weight = stages.updated(before, mean, sample_var, p, c, arithmetic, step)
    return _Update(before, after, weight, mean, sample_var, correction)


def _output(
    layer: _Layer,
    batches: Batches,
    index: int,
    running: tuple[Array, Array] | None,
    eps: float,
    c: Conventions,
) -> Trace:
    """What a step returns of x and g, as a trace that knows of no update.

    Args:
        running: the mean and variance that normalise; None: the batch's.
    """
    p, gamma, beta = layer.parameters, layer.gamma, layer.beta
    step, arithmetic = batches.steps[index], batches.arithmetic
    x, g, kept = batches.lifted(index)
    n, counted = stages.values_kept(step), stages.counted(step, c)
    batch = running is None
    if running is None:
        mu, used = batches.moments(index, c)
        used = stages.unbiased(used, counted) if c.batch_variance == "unbiased" else used
    else:
        mu, used = running
    mu = stages.held_as(stages.saved_as("mean", batch, c), mu, arithmetic)
    kept_var = stages.held_as(stages.saved_as("variance", batch, c), used, arithmetic)
    radicand, inv = stages.inverse(kept_var, eps, c, arithmetic)
    inv = stages.held_as(stages.saved_as("deviation", batch, c), inv, arithmetic)
    inv = stages.through_half(inv, arithmetic) if c.coarse == "deviation" else inv
    xhat = in_blocks(lambda x, mu, inv: (x - mu) * inv, x, mu[:, None], inv[:, None])
    factors = (gamma, xhat)
    if c.coarse == "factors":
        factors = (stages.eleven_bits(gamma, arithmetic), stages.eleven_bits(xhat, arithmetic))
    y = in_blocks(lambda xhat, gamma, beta: gamma * xhat + beta, factors[1], factors[0][:, None], beta[:, None])
    y = stages.through_half(y, arithmetic) if c.coarse == "output" else y
    y = stages.folded(y, x, (gamma, beta, mu, inv), arithmetic) if c.output == "folded" else y

    sums = dx = dgamma = dbeta = None
    divisors = (0, 0)
    if g is not None:
        weighing = stages.eleven_bits(g, arithmetic) if c.coarse == "factors" else g
        both = arithmetic.sum(g), arithmetic.sum_of(np.multiply, weighing, factors[1])
        sums = stages.in_range(both[0], arithmetic, c), stages.in_range(both[1], arithmetic, c)
        if batch and not n and c.empty == "averaged":
            sums = sums[0], sums[1] * inv  # which is no number
        if counted and (batch or c.eval_gradient == "through the batch"):
            divisors = stages.divisors(counted, c)
        outer = inv if c.dx_scale == "ignored" else gamma * inv
        of_dx = sums
        if c.products != "of x̂":
            of_dx = sums[0], stages.of_products(sums, (g, x), (mu, inv), arithmetic)
        dx = stages.dx((g, xhat, kept), of_dx, divisors, outer)
        if any(divisors) and c.derivation != "closed":
            dx = stages.chained(dx, (g, x, kept), sums[0], (gamma, mu, inv), counted, c, arithmetic)
        if c.tangent == "lost" and not step.backward:
            dx = arithmetic.lift(np.zeros(x.shape))
        handed_out = of_dx if c.products == "of x−μ" else sums
        if c.dgamma == "of two sums":
            handed_out = sums[0], stages.of_two_sums(sums, (g, x), (mu, inv), arithmetic)
        dbeta, dgamma = stages.returned(handed_out, inv, counted, c, arithmetic)
    learned = p.trainable and not step.frozen and step.backward
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
        weight=None,
        mean=None,
        sample_var=None,
        correction=1.0,
        before=layer.state.statistics,
        running_mean=layer.state.running_mean,
        running_var=layer.state.running_var,
        num_batches_tracked=0,
    )
    if step.v is None:
        return trace
    trace = second.differentiated(trace, arithmetic.lift(step.v), c, arithmetic, step.by)
    return second.lost(trace, arithmetic) if c.tangent == "lost" and step.by else trace
