"""A case on a target as the templates of the adapters see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from conformance.repro.source import literal

#: What a layer keeps from call to call; everything else is made anew by each.
HELD = frozenset({"gamma", "beta", "running_mean", "running_var", "num_batches_tracked"})


@dataclass(frozen=True)
class Step:
    """One call as a template spells it; x, dy, keep, v and tangent are expressions of NumPy arrays or empty.

    With a v, the cotangent of dx, the call is differentiated twice: it has ddx, ddy and, of a learned gamma, ddgamma.
    `assigned`: attributes in canonical terms, eps and momentum, and what is assigned to them before the call. `call` is
    the name of what is compiled for calls of its kind, and `compiles` whether none came before, where calls compile.
    `by` is the order of modes that it is differentiated twice in, empty where both are reverse.
    With a tangent of x the call has jvp, the derivative of y along it, and no gradients.
    """

    mode: str
    x: str
    dy: str
    keep: str
    dtype: str
    dy_dtype: str
    shape: tuple[int, ...]
    frozen: bool
    was_frozen: bool
    save_load: bool
    strided: bool
    first: bool
    v: str = ""
    assigned: tuple[tuple[str, float], ...] = ()
    call: str = "call"
    compiles: bool = True
    tangent: str = ""
    by: str = ""


@dataclass(frozen=True)
class Spelling:
    """A case on a target as a template sees it.

    Attributes:
        layer: canonical parameters (`conformance.harness.Layer`'s names), None for a native case.
        native: constructor arguments as a user types them, None for a canonical case.
        initial: which of gamma, beta, running_mean and running_var are variables of the script.
        learned: gamma and beta, as far as the layer learns them.
        step_dtypes: of every step's input, then of that of a layer which is called first.
        large: there are enough elements for several threads.
        saves, dies, signature: whether a step goes through a checkpoint, the process may die, nothing is called.
        recomputes: whether no call keeps activations for its backward pass.
        tangents: whether a step has a tangent.
        orders: `by` of every step.
        held: the tensors that the layer keeps, and changes, from call to call.
    """

    rank: int
    features: int
    layer: Mapping[str, Any] | None
    native: Mapping[str, Any] | None
    initial: tuple[str, ...]
    layer_dtype: str
    layout: str
    learned: tuple[str, ...]
    step_dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    options: Mapping[str, str]
    framework_version: str
    large: bool
    saves: bool
    dies: bool
    signature: bool
    recomputes: bool
    tangents: bool
    orders: frozenset[str]
    held: frozenset[str] = HELD

    @property
    def device(self) -> str:
        return self.options.get("device", "cpu")

    @property
    def execution(self) -> str:
        return self.options.get("execution", "")

    @property
    def threads(self) -> str:
        return self.options.get("threads", "1")

    @property
    def dtypes(self) -> frozenset[str]:
        """Every dtype of the case."""
        return frozenset({self.layer_dtype, *self.step_dtypes})

    @property
    def affine(self) -> bool:
        """Whether gamma and beta are learned, where a framework has one word for both."""
        return "gamma" in self.learned

    def spelled(self, value: Any) -> str:
        """A Python value as source."""
        return literal(value)

    def call(self, arguments: Mapping[str, Any]) -> str:
        """``a=1, b=True``."""
        return ", ".join(f"{name}={literal(value)}" for name, value in arguments.items())

    def complement(self, momentum: float | None) -> float | None:
        """1 − momentum as a person writes it: 0.9, not 0.9000000000000000222."""
        return None if momentum is None else float(f"{1 - momentum:.15g}")

    def moved(self, shape: Sequence[int], axis: str, features: int | None = None) -> tuple[int, ...]:
        """A shape (N, C, *spatial) with its channels on an axis, "" for where they are; `features` in place of C."""
        channels = shape[1] if features is None else features
        rest = [shape[0], *shape[2:]]
        rest.insert(int(axis) % len(shape) if axis else 1, channels)
        return tuple(rest)

    def before(self, version: str) -> bool:
        """Whether the framework is known to be older."""
        try:
            return Version(self.framework_version) < Version(version)
        except InvalidVersion:
            return False
