"""The reference of one case: expected tensors and their bounds under any conventions."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.arithmetic import Arithmetic, Double, Multiprecision
from conformance.bounds import StepBounds, bounds
from conformance.conventions import CANONICAL, Conventions
from conformance.expected import Expected, InChannels
from conformance.latest import Latest
from conformance.layer import DERIVATIVES, Parameters, Trace, Values
from conformance.problem import Call, Problem, dtype_name
from conformance.profile import Profile
from conformance.reference import HELD, Batches, read
from conformance.rounding import BLOCKED_DEPTH, SUBNORMAL, Grade

Array = NDArray[Any]

#: Numbers of the answers that an oracle keeps: every reading of a small case, two of one of a million elements.
KEPT = 1 << 22

#: Answers of a step that are kept of a large case, as long as its inputs are no more numbers than that: two readings.
LATEST = 32

_DIMENSIONS = {1: (2, 3), 2: (4,), 3: (5,)}


@dataclass(frozen=True)
class Reading:
    """A case read under one set of conventions: the layer's numbers and what every step computes."""

    parameters: Parameters
    traces: list[Trace]


class Oracle:
    """Says what a case's tensors should be under given conventions.

    Attributes:
        keeps: how many answers about a tensor are worth keeping; none of large ones.

    It keeps its latest answers, up to `KEPT` numbers of float64 or a part of that of finer ones: a diagnosis supposes
    dozens of conventions, and targets share them.
    """

    def __init__(
        self, problem: Problem, arithmetic: Arithmetic | None = None, part_of: tuple[Problem, slice] | None = None
    ) -> None:
        """Open a case.

        Args:
            arithmetic: what to compute in; what the case's dtypes take if None.
            part_of: the problem of all channels, of which the layer is, and those that are asked about.
        """
        self.problem = problem
        self._part_of = part_of or (problem, slice(None))
        self.dtypes = tuple({problem.layer_dtype, *(dtype_name(call.x.dtype) for call in problem.calls)})
        self.arithmetic = arithmetic or (Multiprecision() if "float64" in self.dtypes else Double())
        numbers, whole = (sum(call.x.size for call in each.calls) for each in (problem, self._part_of[0]))
        self._held, self._kept = HELD // self.arithmetic.weight, KEPT // self.arithmetic.weight
        self.keeps = self._kept // max(numbers, 1) if numbers <= self._held else 0
        self._latest = Latest(max(self.keeps, LATEST * len(problem.calls)) if whole <= self._kept else self.keeps)
        self._parameters: dict[Hashable, Parameters] = {}
        self._expected: OrderedDict[tuple[str, Conventions, Grade], dict[str, Expected]] = OrderedDict()
        self._turned: dict[int, Oracle] = {}

    @cached_property
    def undefined(self) -> str | None:
        """Why BatchNorm has no value here, so that a refusal is the only right answer; None where it has one."""
        case, features = self.problem.case, self.problem.features
        for index, call in enumerate(self.problem.calls):
            if call.x.ndim not in _DIMENSIONS[case.rank]:
                return f"step {index} gives BatchNorm{case.rank}d an input of {call.x.ndim} dimensions"
            if call.x.shape[1] != features:
                return f"step {index} gives {call.x.shape[1]} channels to a layer of {features}"
        return None

    def expected(self, profile: Profile, conventions: Conventions, grade: Grade = "strict") -> dict[str, Expected]:
        """Tensor such as ``y[0]`` → what it should be under the conventions.

        `profile` matters to native cases alone: it says what their constructor's words mean.
        """
        conventions = self.effective(conventions)
        key = (*self._key(profile, conventions), grade)
        if key in self._expected:
            self._expected.move_to_end(key)
            return self._expected[key]
        found = self._expected[key] = self._answer(profile, conventions, grade)
        numbers = max(1, sum(math.prod(tensor.shape) for tensor in found.values()))
        while len(self._expected) > max(2, self._kept // numbers):
            self._expected.popitem(last=False)
        return found

    def within(self, profile: Profile, conventions: Conventions, base: Conventions) -> dict[str, Expected]:
        """Tensor → what it should be under the conventions, within its bound under others.

        It takes a fraction of the time of their own bounds, but of a large case.
        """
        conventions, before = self.effective(conventions), self.expected(profile, base)
        if conventions.backward or conventions.axis != 1 or self._parts:
            held = self.expected(profile, conventions)
            return {name: _bounded_as(held[name], before[name]) for name in before if name in held}
        reading = self.reading(profile, conventions)
        found = {}
        for index, trace in enumerate(reading.traces):
            for name, field in self._fields(index, reading.parameters).items():
                value, other = getattr(trace, field), before.get(f"{name}[{index}]")
                if value is not None and other is not None:
                    valued = partial(_valued, other, value)
                    found[f"{name}[{index}]"] = self._latest.answer(valued, "within", other, value)
        return found

    def forget(self) -> None:
        """Let go of what was kept, as after a search, which has supposed dozens of conventions."""
        self._latest.clear()
        self._expected.clear()
        self._turned.clear()

    def effective(self, conventions: Conventions) -> Conventions:
        """The conventions without those that this case has no use for, whatever they are: they move no number of it."""
        idle = {name: usual for name, usual in self._idle.items() if getattr(conventions, name) != usual}
        if conventions.axis != 1 and not self._could_hold_channels(conventions.axis):
            idle["axis"] = 1
        return conventions.but(**idle) if idle else conventions

    @cached_property
    def _idle(self) -> dict[str, Any]:
        """Fields that this case has no use for, and what they are usually."""
        calls, layer = self.problem.calls, self.problem.case.spec.layer
        idle = {
            ("default_mode", "mode_lasts"): all(call.mode != "default" for call in calls),
            ("thawed",): not any(call.frozen for call in calls),
            ("frozen",): self.problem.case.kind != "native" and not any(call.frozen for call in calls),
            ("mask", "mask_count"): all(call.mask is None for call in calls),
            ("unlearned",): layer is not None and layer.scale and layer.center,
            ("assigned",): not any(call.assigned for call in calls),
            ("updates_in_backward",): not self.problem.case.spec.recompute,
            ("tangent_mode",): all(call.tangent is None for call in calls),
            ("updates_along_tangent", "tangent"): all(call.tangent is None and call.by is None for call in calls),
            ("loaded",): not any(call.save_load for call in calls),
            ("second",): all(call.v is None for call in calls),
            ("second_over_forward",): not any((call.by or "").endswith("over-forward") for call in calls),
            ("eps_of",): self.problem.beside is None,
            ("backward",): all(call.dy is None and call.tangent is None for call in calls),
            ("summation",): all(call.x.size <= BLOCKED_DEPTH * call.x.shape[1] for call in calls),
        }
        return {name: getattr(CANONICAL, name) for names, is_idle in idle.items() if is_idle for name in names}

    def _could_hold_channels(self, axis: int) -> bool:
        """Whether an axis of every input is as long as that of the channels. Of large inputs nobody supposes it."""
        return all(
            call.x.ndim > axis
            and call.x.shape[1] == call.x.shape[axis] == self.problem.features
            and call.x.size <= self._held
            and call.mask is None
            for call in self.problem.calls
        )

    def reading(self, profile: Profile, conventions: Conventions) -> Reading:
        """The reference's numbers, step by step."""
        parameters = self._read(profile, conventions)
        return Reading(parameters, list(read(parameters, self._batches, conventions)))

    def _key(self, profile: Profile, conventions: Conventions) -> tuple[str, Conventions]:
        # What a canonical case should return does not depend on who runs it.
        return (profile.framework if self.problem.case.kind == "native" else "", conventions)

    def _read(self, profile: Profile, c: Conventions) -> Parameters:
        """The layer's numbers; those of a canonical layer are the same to all."""
        native = self.problem.case.kind == "native"
        key = (profile.framework, c.default_eps, c.default_momentum) if native else None
        if key not in self._parameters:
            whole, channels = self._part_of
            self._parameters[key] = profile.read(whole, c).of_channels(channels)
        return self._parameters[key]

    @cached_property
    def _batches(self) -> Batches:
        steps = [
            Values(
                call.mode,
                _rows(call.x),
                None if given is None else _rows(given),
                call.frozen,
                None if call.mask is None else call.mask.reshape(-1).astype(np.float64),
                call.x.shape[0],
                call.save_load,
                None if call.v is None else _rows(call.v),
                call.assigned,
                call.tangent is not None,
                call.by,
            )
            for call in self.problem.calls
            for given in (call.tangent if call.dy is None else call.dy,)
        ]
        return Batches(steps, self.arithmetic, self._latest)

    def _answer(self, profile: Profile, conventions: Conventions, grade: Grade) -> dict[str, Expected]:
        """What is expected; of many values some channels after others, unless one bears on another."""
        if conventions.backward:
            return self._with_other_gradients(profile, conventions, grade)
        if conventions.axis != 1:
            return self._of_axis(profile, conventions, grade)
        if not (conventions.by_channel and self._parts):
            return self._tensors(self.reading(profile, conventions), grade, conventions)
        answers = [part._tensors(part.reading(profile, conventions), grade, conventions) for part in self._parts]
        return {name: _joined([answer[name] for answer in answers]) for name in answers[0]}

    def _with_other_gradients(self, profile: Profile, conventions: Conventions, grade: Grade) -> dict[str, Expected]:
        """What is expected where the gradients are taken by other conventions than y."""
        alike = conventions.but(backward=())
        forward = self.expected(profile, alike, grade)
        backward = self.expected(profile, alike.but(**dict(conventions.backward)), grade)
        return {name: (backward if name.startswith(DERIVATIVES) else forward)[name] for name in forward}

    def _of_axis(self, profile: Profile, conventions: Conventions, grade: Grade) -> dict[str, Expected]:
        """What is expected where another axis is taken for the channels: that of the tensors turned, turned back."""
        axis = conventions.axis
        if axis not in self._turned:
            self._turned[axis] = Oracle(self.problem.turned(1, axis), self.arithmetic)

        def back(e: Expected) -> Expected:
            whole = e.value.ndim > 1
            return replace(e, value=e.value.swapaxes(1, axis), bound=e.bound.swapaxes(1, axis)) if whole else e

        found = self._turned[axis].expected(profile, conventions.but(axis=1), grade)
        return {name: back(expected) for name, expected in found.items()}

    def of_channel(self, channel: int) -> Oracle | None:
        """An oracle of one channel, which a large case is searched by; None where the case is small."""
        if not self._parts:
            return None
        return self._of_channels(slice(channel, channel + 1))

    def _of_channels(self, channels: slice) -> Oracle:
        return Oracle(self.problem.of_channels(channels), self.arithmetic, (self.problem, channels))

    @cached_property
    def _parts(self) -> list[Oracle]:
        """Oracles of some channels each; none where the case is small."""
        problem = self.problem
        if not problem.calls or problem.features < 2:
            return []
        width = max(1, self._held * problem.features // max(1, *(call.x.size for call in problem.calls)))
        if width >= problem.features:
            return []
        ranges = (slice(start, start + width) for start in range(0, problem.features, width))
        return [self._of_channels(channels) for channels in ranges]

    def _tensors(self, reading: Reading, grade: Grade, conventions: Conventions) -> dict[str, Expected]:
        held = self.problem.layer_dtype
        dtypes = [_io_dtype(call) for call in self.problem.calls]
        limits = bounds(reading.traces, self.arithmetic, grade, dtypes, held, conventions, self._latest)
        found = {}
        for index, (trace, limit) in enumerate(zip(reading.traces, limits, strict=True)):
            step = self._step(index, trace, limit, reading.parameters, conventions)
            found.update({f"{name}[{index}]": expected for name, expected in step.items()})
        if self.problem.case.spec.repeat > 1:
            found["repeats_differing[0]"] = Expected(np.zeros((), np.int64), np.zeros(()), None)
        return found

    def _step(
        self, index: int, trace: Trace, limit: StepBounds, p: Parameters, conventions: Conventions
    ) -> dict[str, Expected]:
        """What a step should return; the same answer to the same reading, so that it is compared only once."""
        call, held = self.problem.calls[index], self.problem.layer_dtype
        shape, io = call.x.shape, _io_dtype(call)
        grid = "float16" if conventions.coarse == "output" and io == "float32" else None
        step: dict[str, Expected] = {}

        def add(name: str, value: Array | None, bound: Array | None) -> None:
            if value is None or bound is None:
                return
            if name in ("y", "jvp", "dx", "ddx", "ddy"):
                form = (index, name, grid if name == "y" else None)
                step[name] = self._latest.answer(
                    lambda: Expected(_unrows(value, shape), _unrows(bound, shape), io, grid=form[2]), form, value, bound
                )
            else:
                step[name] = self._latest.answer(lambda: Expected(value, bound, held), (index, name), value, bound)

        for name, field in self._fields(index, p).items():
            add(name, getattr(trace, field), getattr(limit, field))
        if call.reread:
            step["x"] = self._latest.answer(lambda: self._untouched(call), "x", call)
        layer = self._latest.answer(lambda: self._layer(p), "layer", p)
        if p.scale:
            step["gamma"] = layer["gamma"]
        if p.center:
            step["beta"] = layer["beta"]
        if p.track_running_stats:
            counted = trace.num_batches_tracked
            step["num_batches_tracked"] = self._latest.answer(
                lambda: Expected(np.asarray(counted), np.zeros(()), None, optional=True), ("counted", counted)
            )
        return step

    def _fields(self, index: int, p: Parameters) -> dict[str, str]:
        """Tensor that a step may return → the field of a `Trace`, and of its bounds, that it is."""
        derivatives = {name: name for name in ("dx", "dgamma", "dbeta", "ddx", "ddy", "ddgamma")}
        along = self.problem.calls[index].tangent is not None
        running = {name: name for name in ("running_mean", "running_var")} if p.track_running_stats else {}
        return {"y": "y"} | ({"jvp": "dx"} if along else derivatives) | running

    def _untouched(self, call: Call) -> Expected:
        """x as it was given."""
        exact = np.full(call.x.shape, SUBNORMAL.get(dtype_name(call.x.dtype), 0.0))
        return Expected(self.arithmetic.lift(call.x.astype(np.float64)), exact, dtype_name(call.x.dtype))

    def _layer(self, p: Parameters) -> dict[str, Expected]:
        """γ and β as they were set."""
        held = self.problem.layer_dtype
        exact = np.full(p.gamma.shape, SUBNORMAL[held])
        return {name: Expected(self.arithmetic.lift(getattr(p, name)), exact, held) for name in ("gamma", "beta")}


def _io_dtype(call: Call) -> str:
    """dtype of y and dx: that of x, float32 where x holds integers."""
    name: str = dtype_name(call.x.dtype)
    return name if "float" in name else "float32"


def _valued(expected: Expected, rows: Array) -> Expected:
    """The same tensor with other values, (C, n) or (C,), within the same bound."""
    return replace(expected, value=_unrows(rows, expected.shape) if rows.ndim > 1 else rows)


def _bounded_as(expected: Expected, other: Expected) -> Expected:
    """A tensor as it should be, within the bound of another, which may be in parts of the same channels."""
    if isinstance(expected, InChannels) and isinstance(other, InChannels):
        parts = zip(expected.parts, other.parts, strict=True)
        return InChannels(expected.shape, [replace(part, bound=of.bound) for part, of in parts])
    return replace(expected, bound=other.bound)


def _joined(parts: Sequence[Expected]) -> Expected:
    """A tensor of all channels from those of some each."""
    first = parts[0]
    if len(first.shape) > 1:
        channels = sum(part.shape[1] for part in parts)
        return InChannels((first.shape[0], channels, *first.shape[2:]), parts)
    if not first.shape:
        return first
    value, bound = (np.concatenate(arrays) for arrays in zip(*((p.value, p.bound) for p in parts), strict=True))
    return replace(first, value=value, bound=bound)


def _rows(x: Array) -> Array:
    """(N, C, *spatial) → (C, n)."""
    return x.swapaxes(0, 1).reshape(x.shape[1], x.shape[0] * math.prod(x.shape[2:]))


def _unrows(rows: Array, shape: tuple[int, ...]) -> Array:
    """(C, n) → (N, C, *spatial)."""
    moved = (shape[1], shape[0], *shape[2:])
    return np.ascontiguousarray(rows.reshape(moved).swapaxes(0, 1))
