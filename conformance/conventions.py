"""The choices on which BatchNorms differ, stage by stage; the defaults are the canonical ones, which are torch's.

`Conventions` holds all of them, flat. It is put together from one small class per stage of the computation, so that
each stage of `conformance.reference` reads the choices that concern it, and a result can be kept by them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, Literal


@dataclass(frozen=True)
class Channels:
    """Which axis of (N, C, *spatial) is taken for the channels'; another than 1 only where it is as long."""

    axis: Literal[0, 1, 2, 3, 4] = 1


@dataclass(frozen=True)
class Modes:
    """Which mode a step runs in. `mode_lasts`: a mode holds for later calls that name none.

    `tangent_mode`: whether what is differentiated along a tangent runs in the mode that it is told, or in that of the
    first such step of its shape. `assigned`: whether ε and momentum that are assigned to the layer's attributes count,
    or never, or no longer once a call of the same kind has been compiled with those of before.
    """

    default_mode: Literal["train", "eval"] = "train"
    mode_lasts: bool = True
    frozen: Literal["mode", "eval"] = "mode"
    tangent_mode: Literal["as told", "of the first of its shape"] = "as told"
    assigned: Literal["heeded", "ignored", "captured"] = "heeded"


@dataclass(frozen=True)
class Moments:
    """The batch's mean and variance.

    `mask`: whether it takes values out, or multiplies them by 0, which is NaN of what is no number. `mask_count`:
    whether sums over what it keeps are divided by its count, or by 10⁻⁷ more, so that a mask that keeps nothing has
    moments of 0. `shared`: a mean, or both moments, of all channels together. `count`: the n that corrections and
    gradients divide by, where it is not that of values. `sums` that overflow are infinite from float32's largest number
    on; where Σx² is one of them, σ² = Σx²/n − μ² may be no number. `squares`: what Σ(x−μ)², n and σ² are rounded to, or
    the range that Σ(x−μ)² alone is held in. `empty`: a batch of no values is skipped, or averaged to 0/0. `means` and
    `variances`: per step, the mean and the biased variance of each channel that were used, whatever they should be.
    """

    mask: Literal["applied", "ignored", "multiplied"] = "applied"
    mask_count: Literal["exact", "padded"] = "exact"
    shared: Literal["nothing", "mean", "both"] = "nothing"
    count: Literal["values", "samples", "values up to 255"] = "values"
    sums: Literal["exact", "overflow", "overflow, of squares too"] = "exact"
    squares: Literal["as computed", "in float16", "in bfloat16", "in range of float16"] = "as computed"
    empty: Literal["skipped", "averaged"] = "skipped"
    means: tuple[tuple[float, ...] | None, ...] | None = None
    variances: tuple[tuple[float, ...] | None, ...] | None = None


@dataclass(frozen=True)
class Normalising:
    """Which statistics normalise, and what of them is divided by.

    `eps_of`: whose ε is added, where another layer was called before. `eps_held`: the dtype that ε is rounded to.
    `least_eps`: a lower ε is raised to it. `saved`: what the batch's mean is rounded to, and σ² or 1/√(σ²+ε) with it.
    """

    batch_variance: Literal["biased", "unbiased"] = "biased"
    train_statistics: Literal["batch", "running"] = "batch"
    eval_statistics: Literal["running", "batch"] = "running"
    default_eps: float = 1e-5
    eps: float | None = None
    eps_of: Literal["the layer", "the layer beside"] = "the layer"
    eps_held: Literal["as given", "float32", "float16"] = "as given"
    least_eps: float = 0.0
    eps_added_to: Literal["variance", "variance twice", "variance as a floor", "deviation", "nothing"] = "variance"
    divisor: Literal["deviation", "variance"] = "deviation"
    saved: Literal["as computed", "variance in float16", "deviation in float16", "deviation in bfloat16"] = (
        "as computed"
    )


@dataclass(frozen=True)
class Updating:
    """How the running statistics move, and what is kept of them.

    `updates`: how often in a step; `updates_in_backward`: how often again on its way back, where it recomputes, and
    `updates_along_tangent`: in a step that is differentiated along a tangent, once or twice.
    `momentum_held`: the dtype that momentum is rounded to. `stored`: what running_var averages. `begins`: every update
    may start from a mean of 0 and a variance of 1. `loaded`: a checkpoint keeps the statistics, or not.
    """

    running_variance: Literal["unbiased", "biased", "corrected twice"] = "unbiased"
    stored: Literal["variance", "deviation", "variance and eps"] = "variance"
    momentum_weighs: Literal["new", "old"] = "new"
    default_momentum: float = 0.1
    momentum: float | None = None
    momentum_held: Literal["as given", "float32", "float16"] = "as given"
    momentum_range: Literal["any", "clipped"] = "any"
    averaging: Literal["as given", "exponential", "cumulative"] = "as given"
    updates: Literal[0, 1, 2, 3] = 1
    updates_in_backward: Literal[0, 1] = 0
    updates_along_tangent: Literal[0, 1] = 0
    update_in_eval: bool = False
    update_first: bool = False
    mean_updated: bool = True
    variance_updated: bool = True
    begins: Literal["where it stood", "anew"] = "where it stood"
    counting: Literal["batches", "to one"] = "batches"
    loaded: Literal["all", "parameters"] = "all"


@dataclass(frozen=True)
class Affine:
    """γ and β. `unlearned`: whether one that the layer does not learn is absent (1 and 0), or applied as it was set.

    `output`: y may be x·a + b, with a = γ·inv and b = β − μ·a, which is another thing where one of these is infinite.
    """

    unlearned: Literal["absent", "applied"] = "absent"
    gamma: Literal["applied", "ignored", "swapped", "reversed", "of the first channel"] = "applied"
    beta: Literal["applied", "ignored"] = "applied"
    output: Literal["of x̂", "folded"] = "of x̂"


@dataclass(frozen=True)
class Differentiating:
    """The gradients. `gradient`: what dx takes off g; `eval_gradient`: whether dx of evaluation does so too.

    `derivation`: dx of training has its closed form, or goes by the chain rule, link by link, maybe through the mean
    that σ² is taken about, or through σ² = Σx²/n − μ²: another thing where a link is infinite, or too small for its
    digits. `products`: dγ and dx, or dx alone, may be made of inv·Σg·(x−μ), another thing where that sum is infinite.
    `dgamma`: Σg·x̂, Σg·(x−μ), or inv·(Σg·x − μ·Σg), which is another thing where one of these is infinite. `thawed`:
    whether γ and β learn again that were frozen in a step before, or have gradients of 0. `second`: whether second
    derivatives see that the mean which σ² is taken about moves with x; `second_over_forward`: whether they see, where y
    was differentiated along v first, that the mean and the deviation in its derivative move. `backward`: choices of
    any stage that the gradients are taken by, where y is not: field and value. `tangent`: whether forward mode follows
    a tangent, or takes y and its gradients as if x had none.
    """

    gradient: Literal[
        "full", "detached", "mean detached", "variance detached", "sums of g undivided", "sums of g·x̂ undivided"
    ] = "full"
    eval_gradient: Literal["direct", "through the batch"] = "direct"
    tangent: Literal["followed", "lost"] = "followed"
    derivation: Literal["closed", "chain", "chain through the mean", "chain of squares"] = "closed"
    products: Literal["of x̂", "of x−μ", "of x−μ for dx"] = "of x̂"
    dx_scale: Literal["applied", "ignored"] = "applied"
    dgamma: Literal["normalised", "unnormalised", "of two sums"] = "normalised"
    parameter_gradients: Literal["summed", "averaged", "swapped", "accumulated"] = "summed"
    thawed: Literal["learns", "stays frozen"] = "learns"
    second: Literal["full", "variance about a constant"] = "full"
    second_over_forward: Literal["full", "statistics constant"] = "full"
    backward: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Precision:
    """How finely numbers are held.

    `precision`: float64 is taken to float32 on the way in, and computed there. `coarse`: what goes through a format of
    11 significant bits, float16's and TF32's: 1/√(σ²+ε), the factors of γ·x̂ and g·x̂, or y.

    The others widen the bounds and leave the values: `statistics` rounded to the layer's dtype, or to the narrower of
    the layer's and the input's and for the gradients only; `terms` of gradients, their sums, rounded to the input's
    dtype, or every operation on elements, too, in y as well; `summation` of one value after another, or so in each of
    eight lanes; `variance` in one pass, E[x²] − E[x]²; `subnormals` flushed to zero.
    """

    statistics: Literal["accumulated", "rounded", "rounded for gradients"] = "accumulated"
    terms: Literal["accumulated", "rounded", "rounded, elements too"] = "accumulated"
    precision: Literal["as given", "float32"] = "as given"
    coarse: Literal["nothing", "deviation", "factors", "output"] = "nothing"
    summation: Literal["blocked", "eight lanes", "sequential"] = "blocked"
    variance: Literal["two-pass", "one-pass"] = "two-pass"
    subnormals: Literal["kept", "flushed"] = "kept"


@dataclass(frozen=True)
class Conventions(Precision, Differentiating, Affine, Updating, Normalising, Moments, Modes, Channels):
    """A choice at every stage. `conformance.profile` says which ones a framework may declare.

    The others are mistakes and shortcuts that only a diagnosis supposes.
    """

    def but(self, **changes: Any) -> Conventions:
        """These conventions with some changed."""
        return _changed(self, tuple(changes.items()))

    @property
    def by_channel(self) -> bool:
        """Whether every channel can be read by itself: none bears on another, and nothing is given of all of them."""
        alone = self.shared == "nothing" and self.gamma not in ("reversed", "of the first channel")
        return alone and self.means is None and self.variances is None

    @property
    def changes(self) -> dict[str, Any]:
        """What they change of the canonical ones."""
        return {name: value for name in STAGES if (value := getattr(self, name)) != getattr(CANONICAL, name)}

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, name) for name in STAGES))

    def __hash__(self) -> int:  # of forty fields, and asked for at every turn
        return self._hash


@lru_cache(1024)
def _changed(conventions: Conventions, changes: tuple[tuple[str, Any], ...]) -> Conventions:
    return replace(conventions, **dict(changes))


CANONICAL = Conventions()


def fields_of(*stages: type) -> tuple[str, ...]:
    """The names of these stages' choices."""
    return tuple(field.name for stage in stages for field in fields(stage))


#: Field of `Conventions` → the stage that it belongs to.
STAGES = {
    name: stage
    for stage in (Channels, Modes, Moments, Normalising, Updating, Affine, Differentiating, Precision)
    for name in fields_of(stage)
}
