"""A case made concrete: the exact bits that go to every target and to the reference.

Random draws come from NumPy's RandomState, whose streams are frozen for ever (NEP 19), so a case means the same
tensors under every NumPy version.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from conformance.case import Case, rank_of
from conformance.fields import By, Gradient, InitialValues, Input, Mask, Normal, Uniform
from conformance.harness import Array as WireArray
from conformance.spec import Layer

Array = NDArray[Any]

#: Parameters and statistics that a case may set, with the values a layer starts from otherwise.
INITIAL = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0}

#: Tensors of no more numbers are kept where other cases may draw them too.
SHARED = 4_096

# Cotangents and initial vectors must not repeat the input's draws when their seeds are equal.
_INPUT, _COTANGENT, _INITIAL, _MASK, _SECOND, _TANGENT = 0, 1, 2, 3, 4, 5


@cache
def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a name, bfloat16 included."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


@cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of a dtype; NumPy puts it together anew on every asking."""
    return dtype.name


def from_wire(array: WireArray) -> Array:
    """A tensor as it crossed the channel, as a NumPy array of its own dtype."""
    return np.frombuffer(array.data, dtype_of(array.dtype)).reshape(array.shape)


def to_wire(array: Array) -> dict[str, Any]:
    """A NumPy array as it crosses the channel."""
    return WireArray(array.dtype.name, tuple(array.shape), array.tobytes()).pack()


@dataclass(frozen=True)
class Call:
    """One step: x, its tangent, cotangents dy of y and v of dx, all (N, C, *spatial), and a mask (N, *spatial), bool.

    `assigned` are attributes of the layer and their values, in canonical terms. `by` is the order of the modes that a
    step with a v is differentiated in, where one of them is forward.
    """

    mode: str
    x: Array
    dy: Array | None
    frozen: bool
    save_load: bool
    strided: bool
    mask: Array | None = None
    reread: bool = False
    v: Array | None = None
    assigned: tuple[tuple[str, float], ...] = ()
    tangent: Array | None = None
    by: By | None = None

    def each(self, change: Callable[[Array], Array]) -> Call:
        """The same with a change made to whatever has the shape of x."""
        dy, v, tangent = (None if a is None else change(a) for a in (self.dy, self.v, self.tangent))
        return replace(self, x=change(self.x), dy=dy, v=v, tangent=tangent)


@dataclass(frozen=True)
class Built:
    """What a canonical layer is built from: its fields, and initial values of (features,) in its own dtype."""

    layer: Layer
    rank: int
    features: int
    dtype: str
    layout: str
    initial: dict[str, Array]

    @property
    def wire(self) -> dict[str, Any]:
        """The layer as a worker gets it."""
        fields = self.layer.model_dump(exclude={"initial", "dtype", "features", "rank"})
        return fields | {"rank": self.rank, "features": self.features, "dtype": self.dtype, "layout": self.layout}


@dataclass(frozen=True)
class Problem:
    """A case with its tensors.

    Attributes:
        calls: the steps.
        initial: what the case sets of gamma, beta, running_mean and running_var: (features,) in the layer's dtype.
        layer_dtype: dtype of parameters and statistics.
        features: number of channels C that the layer is built for.
        beside: another layer and its one call, which come before the case's own.
    """

    case: Case
    calls: tuple[Call, ...]
    initial: dict[str, Array]
    layer_dtype: str
    features: int
    beside: tuple[Built, Call] | None = None

    def of_channels(self, channels: slice) -> Problem:
        """The same of some channels alone."""
        calls = tuple(call.each(lambda a: a[:, channels]) for call in self.calls)
        initial = {name: value[channels] for name, value in self.initial.items()}
        return replace(self, calls=calls, initial=initial, features=calls[0].x.shape[1])

    def turned(self, *axes: int) -> Problem:
        """The same with two axes of what every step is given in each other's place."""
        return replace(self, calls=tuple(call.each(lambda a: a.swapaxes(*axes)) for call in self.calls))

    @cached_property
    def wire(self) -> dict[str, Any]:
        """What a worker gets of it, whichever the target."""
        layer = self.case.spec.layer
        canonical = None
        if layer is not None:
            layout = self.case.input_of(0).layout
            canonical = Built(layer, self.case.rank, self.features, self.layer_dtype, layout, self.initial).wire
        beside = None
        if self.beside is not None:
            other, call = self.beside
            beside = {"layer": other.wire, "initial": _wired(other.initial), "step": _step(call)}
        return {
            "rank": self.case.rank,
            "repeat": self.case.spec.repeat,
            "recompute": self.case.spec.recompute,
            "signature": self.case.kind == "signature",
            "layer": canonical,
            "initial": _wired(self.initial),
            "steps": [_step(call) for call in self.calls],
            "beside": beside,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every bit that a target receives; two runs compare only where it is equal."""
        left_out = {"why", "expect", "documented"}
        # What a case does not use does not change what it was.
        left_out |= {name for name in ("beside", "recompute") if not getattr(self.case.spec, name)}
        said = self.case.spec.model_dump(exclude=left_out)
        for step in said["steps"]:
            for name in ("second", "assign", "tangent"):
                if step[name] is None:
                    del step[name]
            if step.get("second", {}).get("by") == "reverse-over-reverse":
                del step["second"]["by"]
        digest = hashlib.sha256(repr(said).encode())  # JSON would make null of NaN and of infinity
        for call in self.calls:
            for array in (call.x, call.dy, call.mask, call.v, call.tangent):
                digest.update(b"" if array is None else array.tobytes())
        for name, value in sorted(self.initial.items()):
            digest.update(name.encode() + value.tobytes())
        return digest.hexdigest()


def _wired(arrays: dict[str, Array]) -> dict[str, Any]:
    return {name: to_wire(value) for name, value in arrays.items()}


def _step(call: Call) -> dict[str, Any]:
    """A step as it crosses the channel."""
    others = {name: getattr(call, name) for name in ("dy", "mask", "v", "tangent")}
    return {
        "mode": call.mode,
        "x": to_wire(call.x),
        "frozen": call.frozen,
        "save_load": call.save_load,
        "strided": call.strided,
        "reread": call.reread,
        "assigned": dict(call.assigned),
        "by": call.by,
        **{name: None if array is None else to_wire(array) for name, array in others.items()},
    }


def materialise(case: Case, carried: Mapping[str, Array] | None = None) -> Problem:
    """Draw and round a case's tensors. A signature case has none.

    Args:
        carried: of a case with a `source`: γ, β, running_mean and running_var, (features,), that it ended with.
    """
    if case.kind == "signature":
        return Problem(case, (), {}, "float32", 0)
    layer = case.spec.layer
    calls = []
    for index, step in enumerate(case.spec.steps):
        spec = case.input_of(index)
        x = tensor(spec, index)
        gradient = step.gradient or case.spec.gradient
        dy = None if gradient is None or step.tangent is not None else cotangent(gradient, x, index)
        tangent = None if step.tangent is None else cotangent(step.tangent, x, index, _TANGENT)
        mask = None if step.mask is None else draw_mask(step.mask, (x.shape[0], *x.shape[2:]), index)
        v = None if step.second is None else cotangent(Gradient(seed=step.second.seed), x, index, _SECOND)
        assigned = () if step.assign is None else tuple(step.assign.values.items())
        by = None if step.second is None else step.second.mixed
        flags = step.frozen, step.save_load, spec.strided
        calls.append(Call(step.mode, x, dy, *flags, mask, step.reread, v, assigned, tangent, by))
    built = _built(layer or Layer(), case.rank, case.input_of(0))
    initial = built.initial | {name: value for name, value in (carried or {}).items() if name in INITIAL}
    return Problem(case, tuple(calls), initial, built.dtype, built.features, _beside(case))


def _built(layer: Layer, rank: int, first: Input) -> Built:
    """A layer with what it leaves out taken from its first input."""
    dtype = layer.dtype or (first.dtype if "float" in first.dtype else "float32")
    features = layer.features or first.dimensions[1]
    initial = {}
    for position, name in enumerate(INITIAL):
        values = getattr(layer.initial, name)
        if values is not None:
            initial[name] = rounded(vector(values, features, position), dtype)
    return Built(layer, rank, features, dtype, first.layout, initial)


def _beside(case: Case) -> tuple[Built, Call] | None:
    """The layer that runs before the case's own and its call, on the same bits where the inputs are the same."""
    beside = case.spec.beside
    if beside is None:
        return None
    given = beside.input or case.input_of(0)
    x = tensor(given, 0)
    dy = None if case.spec.gradient is None else cotangent(case.spec.gradient, x, 0)
    call = Call(beside.mode, x, dy, frozen=False, save_load=False, strided=given.strided)
    return _built(beside.layer, rank_of(beside.layer.rank, given), given), call


def tensor(spec: Input, step: int) -> Array:
    """The input of one step, (N, C, *spatial), rounded once to its dtype."""
    shape = spec.dimensions
    if spec.values is not None:
        exact = np.array(_numbers(spec.values), np.float64).reshape(shape)
    elif spec.constant is not None:
        exact = np.full(shape, spec.constant)
    elif spec.arange is not None:
        exact = (spec.arange.start + spec.arange.step * np.arange(spec.size)).reshape(shape)
    else:
        exact = _draw(spec.normal or spec.uniform, shape, _INPUT, step)
    if spec.replace:
        exact = exact.copy()
    for replacement in spec.replace:
        exact[replacement.at] = replacement.value
    return rounded(exact, spec.dtype)


def rounded(exact: Array, dtype: str) -> Array:
    """float64 → a dtype by name, rounded once to nearest; beyond its range to infinity."""
    with np.errstate(all="ignore"):
        return (_odd_float32(exact) if dtype == "bfloat16" else exact).astype(dtype_of(dtype))


def _odd_float32(exact: Array) -> Array:
    """float64 → float32 rounded to odd, so that a second rounding to bfloat16 is as good as the only one.

    Source: Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Trans. Comput. 57 (2008).
    """
    near = exact.astype(np.float32)
    inexact = (near.astype(np.float64) != exact) & np.isfinite(near)
    even = (near.view(np.uint32) & 1) == 0
    toward = np.where(exact > near, np.float32(np.inf), np.float32(-np.inf)).astype(np.float32)
    return np.where(inexact & even, np.nextafter(near, toward), near)


def cotangent(gradient: Gradient, x: Array, step: int, stream: int = _COTANGENT) -> Array:
    """Draws from a normal distribution in the shape of x and the dtype of y: a cotangent, or a tangent."""
    dtype = x.dtype if np.issubdtype(x.dtype, np.floating) or x.dtype.name == "bfloat16" else np.dtype(np.float32)
    drawn = _seeded(gradient.seed, stream, step).standard_normal(x.shape)
    with np.errstate(over="ignore"):
        return np.asarray((gradient.mean + gradient.std * drawn).astype(dtype))


def draw_mask(mask: Mask, shape: tuple[int, ...], step: int) -> Array:
    """Which values count, (N, *spatial) bool."""
    return np.asarray(_seeded(mask.seed, _MASK, step).random_sample(shape) < mask.keep)


def vector(values: InitialValues, features: int, position: int) -> Array:
    """An initial vector, (features,) float64; `position` keeps vectors of one seed apart.

    Raises:
        ValueError: its values are another number.
    """
    if values.values is not None:
        if len(values.values) != features:
            raise ValueError(f"an initial vector has {len(values.values)} numbers for {features} features")
        return np.array(values.values, np.float64)
    if values.constant is not None:
        return np.full(features, values.constant)
    return _draw(values.normal or values.uniform, (features,), _INITIAL, position)


def _draw(spec: Normal | Uniform | None, shape: tuple[int, ...], stream: int, step: int) -> Array:
    """Exact numbers, which are not to be written to: cases share what is small and drawn alike."""
    assert spec is not None  # the models admit exactly one generator
    normal = isinstance(spec, Normal)
    numbers = (spec.mean, spec.std) if isinstance(spec, Normal) else (spec.low, spec.high)
    draw = _drawn_once if math.prod(shape) <= SHARED else _drawn
    return draw(normal, *numbers, shape, (spec.seed, stream, step))


def _drawn(normal: bool, first: float, second: float, shape: tuple[int, ...], seed: tuple[int, int, int]) -> Array:
    random = _seeded(*seed)
    if normal:
        drawn = np.asarray(first + second * random.standard_normal(shape))
    else:
        drawn = np.asarray(first + (second - first) * random.random_sample(shape))
    drawn.flags.writeable = False
    return drawn


_drawn_once = lru_cache(512)(_drawn)


def _seeded(*seed: int) -> np.random.RandomState:
    """The generator of a seed. There is but one, as a new one begins by collecting entropy for a state of its own."""
    _RANDOM.seed(seed)
    return _RANDOM


_RANDOM = np.random.RandomState(0)


def _numbers(values: Any) -> Any:
    """Nested lists with the words nan and inf made numbers."""
    return [_numbers(item) for item in values] if isinstance(values, list | tuple) else float(values)
