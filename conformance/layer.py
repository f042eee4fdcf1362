"""What the reference takes and gives: a layer's numbers, a step's tensors, and everything that a step computes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from conformance.arithmetic import Array

#: What the names of derivatives begin with: dx, dgamma, ddx and so on, and jvp.
DERIVATIVES = ("d", "jvp")


@dataclass(frozen=True)
class Parameters:
    """A layer's numbers in canonical terms; gamma, beta and the statistics are (C,) float64, exact.

    `mode` overrides the mode of every step (MindSpore's use_batch_statistics); None leaves it to the step. A layer that
    is not `trainable` (Keras's argument) is frozen in every step. `eps_beside` is the ε of a layer called before.
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
    eps_beside: float | None = None

    def of_channels(self, channels: slice) -> Parameters:
        """The same of some channels alone."""
        vectors = ("gamma", "beta", "running_mean", "running_var")
        return replace(self, **{name: getattr(self, name)[channels] for name in vectors})


@dataclass(frozen=True)
class Values:
    """One step's tensors, of any dtype that float64 holds exactly: x and the cotangent g, (C, n).

    `mask`, (n,) of ones and zeros, says which values the batch's statistics are taken over; None: all of them.
    `samples` is the size of the batch, N; `reloaded`: the layer has been through a checkpoint before the step.
    `v`, (C, n), is the cotangent of dx. `assigned`: attributes of the layer that are assigned before the step.
    `by` is the order of modes in which it is differentiated twice, where one of them is forward.
    `forward`: g is a tangent of x in place of a cotangent, and y is differentiated along it: as ∂y/∂x is symmetric but
    for γ, which is the same all over a channel, the derivative is what dx would be.
    """

    mode: str
    x: Array
    g: Array | None
    frozen: bool
    mask: Array | None = None
    samples: int = 0
    reloaded: bool = False
    v: Array | None = None
    assigned: tuple[tuple[str, float], ...] = ()
    forward: bool = False
    by: str | None = None

    @property
    def backward(self) -> bool:
        """Whether anything is differentiated backward, so that γ and β may have gradients."""
        return not self.forward and self.by != "forward-over-forward"


@dataclass(frozen=True)
class Trace:
    """Everything one step computed, in the reference's arithmetic: (C, n) for x, xhat, y, g, dx; (C,) for the rest.

    Attributes:
        batch: the batch's own statistics normalised, not the running ones.
        mask: as in `Values`.
        count: how many values a channel's statistics were taken over.
        radicand: what the root was taken of, σ²+ε.
        sums: β' = Σg and γ' = Σg·x̂; None without a cotangent.
        taken_off: a and b of dx = γ·inv·(g − a·β' − b·x̂·γ'): 1/n both where the batch normalised, 0 where not.
        dgamma, dbeta: what the layer returns of the sums; None where it does not learn.
        weight: the m of this step's update; None when nothing was updated.
        mean, sample_var: what the update weighed in; None when nothing was updated.
        correction: the factor that made sample_var of σ².
        before: running_mean and running_var before the step.
        v: the cotangent of dx, (C, n); None without second derivatives.
        ddx, ddgamma, ddy: the derivatives of Σv·dx by x, γ and g: (C, n), (C,) and (C, n).
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
    radicand: Array
    inv: Array
    xhat: Array
    y: Array
    dx: Array | None
    sums: tuple[Array, Array] | None
    taken_off: tuple[float, float]
    dgamma: Array | None
    dbeta: Array | None
    weight: float | None
    mean: Array | None
    sample_var: Array | None
    correction: float
    before: tuple[Array, Array]
    running_mean: Array
    running_var: Array
    num_batches_tracked: int
    v: Array | None = None
    ddx: Array | None = None
    ddgamma: Array | None = None
    ddy: Array | None = None

    def but(self, **changes: Any) -> Trace:
        """This trace with some fields changed; `dataclasses.replace` takes five times as long."""
        return Trace(**{**vars(self), **changes})


@dataclass(frozen=True)
class State:
    """What a layer carries from step to step: statistics (C,) and the number of batches seen."""

    running_mean: Array
    running_var: Array
    count: int

    @property
    def statistics(self) -> tuple[Array, Array]:
        """The running mean and variance."""
        return self.running_mean, self.running_var
