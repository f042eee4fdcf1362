"""Tensors against what they should be: shape, dtype and device first, then special values, then numbers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.arithmetic import BLOCK, Arithmetic, in_blocks
from conformance.problem import dtype_name, dtype_of

Array = NDArray[Any]

#: Precision p and exponent of the smallest subnormal, of each output dtype.
_FORMAT = {"float64": (53, -1074), "float32": (24, -149), "float16": (11, -24), "bfloat16": (8, -133)}

#: The bits of a float64 that hold its exponent.
_EXPONENT = np.int64(0x7FF << 52)


@dataclass(frozen=True)
class TensorResult:
    """How far a tensor is from where it should be.

    Attributes:
        ratio: largest error as a fraction of its bound; None where no number could be compared.
        max_abs: largest absolute error.
        max_ulp: largest error in units in the last place of the expected value; reported, decides nothing.
        worst_index: where the ratio is largest, or where the problem is.
        problem: what is wrong beyond numbers: shape, dtype, device, a special value; None if nothing.
    """

    ratio: float | None
    max_abs: float | None = None
    max_ulp: float | None = None
    worst_index: tuple[int, ...] | None = None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Within the bound. A ratio that is no number is not."""
        return self.problem is None and self.ratio is not None and self.ratio <= 1

    @property
    def off(self) -> float:
        """The ratio, infinite where there is a problem; for ranking."""
        return math.inf if self.problem is not None or self.ratio is None else self.ratio


@dataclass(frozen=True)
class Expected:
    """What a tensor should be.

    Attributes:
        value: the exact values, in the arithmetic they were computed in.
        bound: largest admitted absolute error, float64, in the shape of `value`.
        dtype: name of the dtype a target must return; None for exact counters, which may be of any integer type.
        optional: a target that does not return it is not at fault.
        grid: name of the coarser dtype whose numbers alone it may hold; None: any.
    """

    value: Array
    bound: Array
    dtype: str | None
    optional: bool = False
    grid: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor."""
        return self.value.shape

    @property
    def parts(self) -> Iterable[Expected]:
        """The same in parts, some channels (axis 1) after others; all at once where it is small."""
        return (self,)

    def at(self, place: tuple[int, ...]) -> tuple[Any, Any]:
        """Value and bound of one element."""
        return self.value[place], self.bound[place]


class InChannels(Expected):
    """A large tensor, (N, C, *spatial), in parts, which are not put together where nobody asks for all of it."""

    _shape: tuple[int, ...]
    _parts: Iterable[Expected]

    def __init__(self, shape: tuple[int, ...], parts: Iterable[Expected]) -> None:
        """What some channels after others should be.

        Args:
            shape: of all of it.
            parts: may be gone through again and again; alike in all but their channels.
        """
        first = next(iter(parts))
        fields = {"dtype": first.dtype, "optional": first.optional, "grid": first.grid}
        vars(self).update(fields, _shape=shape, _parts=parts)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def parts(self) -> Iterable[Expected]:
        return self._parts

    @cached_property
    def value(self) -> Array:
        return np.concatenate([part.value for part in self.parts], 1)

    @cached_property
    def bound(self) -> Array:
        return np.concatenate([part.bound for part in self.parts], 1)

    def at(self, place: tuple[int, ...]) -> tuple[Any, Any]:
        sample, channel, *rest = place
        for part in self.parts:
            if channel < part.shape[1]:
                return part.at((sample, channel, *rest))
            channel -= part.shape[1]
        raise IndexError(f"there is no channel {place[1]}")


#: So many numbers are compared in one pass; a larger tensor is compared piece by piece.
TOGETHER = 65_536


def compare(
    observed: Array | None, device: str, expected: Expected | None, wanted_device: str, arithmetic: Arithmetic
) -> TensorResult:
    """Compare an observed tensor with the expected one.

    NaN is expected where the exact value is NaN and nowhere else; infinities must have the right sign, and where the
    bound reaches beyond the dtype's range a number may be one. A bound that is not a finite number admits nothing.
    """
    return compare_all({"": (observed, device, expected)}, wanted_device, arithmetic)[""]


def compare_all(
    tensors: Mapping[str, tuple[Array | None, str, Expected | None]],
    wanted_device: str,
    arithmetic: Arithmetic,
    kept: list[Together] | None = None,
) -> dict[str, TensorResult]:
    """As `compare`, for many at once.

    Args:
        tensors: name → what was observed, on which device, and what it should be.
        wanted_device: where each should be.
        kept: gets what was compared together, for its numbers.
    """
    found: dict[str, TensorResult | None] = {}
    numeric: dict[str, tuple[Array, Expected]] = {}
    with np.errstate(all="ignore"):
        for name, (observed, device, expected) in tensors.items():
            found[name] = _beyond_numbers(observed, device, expected, wanted_device)
            if found[name] is None and observed is not None and expected is not None:
                if observed.size > TOGETHER:
                    found[name] = _piece_by_piece(observed, expected, arithmetic)
                else:
                    numeric[name] = observed, expected
        for together in end_to_end(numeric, arithmetic):
            found.update(together.results() if together.plain else together.each_by_itself())
            if kept is not None:
                kept.append(together)
    return {name: result for name, result in found.items() if result is not None}


def _beyond_numbers(
    observed: Array | None, device: str, expected: Expected | None, wanted_device: str
) -> TensorResult | None:
    """What can be said before numbers are compared; None where nothing can."""
    if expected is None:
        return TensorResult(None, problem="is returned, though this layer has none")
    if observed is None:
        return TensorResult(None, problem="is missing")
    if observed.shape != expected.shape:
        return TensorResult(None, problem=f"has shape {list(observed.shape)}, not {list(expected.shape)}")
    if expected.dtype is None:
        return _compare_counters(observed, expected)
    if (dtype := dtype_name(observed.dtype)) != expected.dtype:
        return TensorResult(None, problem=f"has dtype {dtype}, not {expected.dtype}")
    if device != wanted_device:
        return TensorResult(None, problem=f"is on {device}, not on {wanted_device}")
    if not observed.size:
        return TensorResult(0.0, 0.0, 0.0)
    if expected.grid is not None:
        beside = observed.astype(dtype_of(expected.grid)).astype(observed.dtype) != observed
        if (beside & ~np.isnan(observed)).any():
            return TensorResult(None, worst_index=_first(beside), problem=f"holds numbers that are no {expected.grid}")
    return None


def _compare_counters(observed: Array, expected: Expected) -> TensorResult:
    if observed.dtype.kind not in "iu":
        return TensorResult(None, problem=f"has dtype {observed.dtype.name}, not an integer's")
    wrong = int(observed) != int(expected.value)
    return (
        TensorResult(None, problem=f"is {int(observed)}, not {int(expected.value)}")
        if wrong
        else TensorResult(0.0, 0.0, 0.0)
    )


def _piece_by_piece(observed: Array, expected: Expected, arithmetic: Arithmetic) -> TensorResult:
    """A large tensor, of which no more than a piece is computed with at once."""
    worst, at, max_abs, max_ulp = -1.0, (0,) * observed.ndim, 0.0, 0.0
    for piece in pieces(observed, expected, arithmetic):
        numbers = piece.numbers
        if not numbers.plain:
            return _compare_numbers(observed, expected, arithmetic)
        largest = float(numbers.ratio.max())
        if largest > worst:
            worst, at = largest, piece.place(int(numbers.ratio.argmax()))
        max_abs, max_ulp = max(max_abs, float(numbers.error.max())), max(max_ulp, float(numbers.ulps.max()))
    return TensorResult(worst, max_abs, max_ulp, at)


@dataclass(frozen=True)
class Piece:
    """Some elements of a large tensor that lie end to end in some of its channels.

    Attributes:
        numbers: what was observed beside what it should be.
        start: where the piece begins in its channels, flattened.
        first: the first of these channels.
        within: the shape of these channels.
        shape: that of the tensor.
    """

    numbers: Together
    start: int
    first: int
    within: tuple[int, ...]
    shape: tuple[int, ...]

    def place(self, index: int) -> tuple[int, ...]:
        """Where in the tensor an element of the piece is."""
        found = _unravelled(self.start + index, self.within)
        return found if self.within == self.shape else (found[0], found[1] + self.first, *found[2:])

    def stretches(self, edges: Array) -> tuple[Array, Array]:
        """Where the piece begins to lie end to end in the tensor, and begins to anew: in the piece, and in the tensor.

        Args:
            edges: places in the flattened tensor where it begins anew, too.
        """
        ahead = (0, self.first, *self.shape[2:])
        length, stride, before = (math.prod(shape[1:]) for shape in (self.within, self.shape, ahead))
        end = self.start + self.numbers.seen.size
        inside = edges % stride - before
        edges = (edges // stride * length + inside)[(inside > 0) & (inside < length)]
        cuts = np.concatenate([[self.start], np.arange(self.start // length + 1, -(-end // length)) * length, edges])
        cuts = np.unique(cuts[(cuts >= self.start) & (cuts < end)])
        return cuts - self.start, cuts // length * stride + before + cuts % length


def pieces(observed: Array, expected: Expected, arithmetic: Arithmetic) -> Iterator[Piece]:
    """A large tensor beside what it should be, up to `TOGETHER` elements at a time."""
    first = 0
    for part in expected.parts:
        whole = part.shape == observed.shape
        seen = observed if whole else observed[:, first : first + part.shape[1]]
        flat = [array.reshape(-1) for array in (seen, part.value, part.bound)]
        for start in range(0, seen.size, TOGETHER):
            some, value, bound = (array[start : start + TOGETHER] for array in flat)
            numbers = Together({"": (some, Expected(value, bound, part.dtype))}, arithmetic)
            yield Piece(numbers, start, first, part.shape, observed.shape)
        first += 0 if whole else part.shape[1]


def end_to_end(tensors: Mapping[str, tuple[Array, Expected]], arithmetic: Arithmetic) -> Iterator[Together]:
    """Tensors that have what they should be compared with, those of a dtype together as far as they are small."""
    waiting: dict[str, dict[str, tuple[Array, Expected]]] = {}
    sizes: Counter[str] = Counter()
    for name, (observed, expected) in tensors.items():
        dtype = dtype_name(observed.dtype)
        if sizes[dtype] + observed.size > TOGETHER and sizes[dtype]:
            yield Together(waiting.pop(dtype), arithmetic)
            sizes[dtype] = 0
        waiting.setdefault(dtype, {})[name] = observed, expected
        sizes[dtype] += observed.size
    for held in waiting.values():
        yield Together(held, arithmetic)


class Together:
    """Tensors of one dtype end to end, so that one pass over their numbers serves them all.

    Attributes:
        sizes, starts: how many elements each has, and where it begins.
        seen, value, bound: the numbers observed, what they should be, and how far they may be from it.
        error: how far they are, float64.
        plain: whether there is a number and a bound everywhere.
    """

    def __init__(self, tensors: Mapping[str, tuple[Array, Expected]], arithmetic: Arithmetic) -> None:
        self.tensors = tensors
        self.arithmetic = arithmetic
        self.dtype = dtype_name(next(iter(tensors.values()))[0].dtype)
        self.sizes = [observed.size for observed, _ in tensors.values()]
        self.starts = starts(self.sizes)
        self.seen = _flat([observed for observed, _ in tensors.values()])
        self.value = _flat([expected.value for _, expected in tensors.values()])
        self.bound = _flat([expected.bound for _, expected in tensors.values()])
        self.error = _in_blocks(
            lambda value, seen: np.abs(arithmetic.lower(arithmetic.lift(seen.astype(np.float64)) - value)),
            *(self.value, self.seen),
        )
        self.plain = bool(np.isfinite(self.error + self.bound).all() and self.bound.min() >= 0)

    @cached_property
    def ratio(self) -> Array:
        """Error over bound, 0 where there is no error."""
        return np.divide(self.error, self.bound, out=np.zeros_like(self.error), where=self.error > 0)

    @cached_property
    def ulps(self) -> Array:
        """The errors in units in the last place of the exact values."""
        lower = self.arithmetic.lower
        return _in_blocks(lambda error, value: error / ulp(lower(value), self.dtype), self.error, self.value)

    def results(self) -> dict[str, TensorResult]:
        """The result of every tensor."""
        largest = (np.maximum.reduceat(each, self.starts).tolist() for each in (self.ratio, self.error, self.ulps))
        found = {}
        for (name, (observed, _)), start, size, ratio, error, ulps in zip(
            self.tensors.items(), self.starts, self.sizes, *largest, strict=True
        ):
            worst = int(self.ratio[start : start + size].argmax()) if ratio else 0
            found[name] = TensorResult(ratio, error, ulps, _unravelled(worst, observed.shape))
        return found

    def each_by_itself(self) -> dict[str, TensorResult]:
        """The same where something is no number or has no bound."""
        return {name: _compare_numbers(*pair, self.arithmetic) for name, pair in self.tensors.items()}


def starts(sizes: Sequence[int]) -> list[int]:
    """Where things of these sizes begin that lie end to end."""
    return [0, *itertools.accumulate(sizes)][:-1]


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.reshape(-1) for array in arrays]) if len(arrays) > 1 else arrays[0].reshape(-1)


def _in_blocks(formula: Callable[..., Array], *flat: Array) -> Array:
    if flat[0].size <= BLOCK:
        return np.asarray(formula(*flat))
    return np.asarray(in_blocks(formula, *(array[None] for array in flat))[0])


def _unravelled(index: int, shape: Sequence[int]) -> tuple[int, ...]:
    places = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.append(place)
    return tuple(reversed(places))


def _compare_numbers(observed: Array, expected: Expected, arithmetic: Arithmetic) -> TensorResult:
    """One tensor, of which some elements may be no numbers."""
    seen = observed.astype(np.float64)
    exact = arithmetic.lower(expected.value)
    bounded = np.isfinite(expected.bound) & (expected.bound >= 0)
    numbers = np.isfinite(seen) & np.isfinite(exact)
    special = _special(seen, exact, expected.bound, bounded, observed.dtype)
    if special is not None:
        return special
    error = np.zeros(seen.shape)
    error[numbers] = np.abs(arithmetic.lower(arithmetic.lift(seen[numbers]) - expected.value[numbers]))
    ratio = np.where(error > 0, error / expected.bound, 0.0)
    ulps = error / ulp(np.where(numbers, exact, 0), dtype_name(observed.dtype))
    worst = _unravelled(int(ratio.argmax()), ratio.shape)
    return TensorResult(float(ratio[worst]), float(error.max()), float(ulps.max()), worst)


def _special(seen: Array, exact: Array, bound: Array, bounded: Array, dtype: np.dtype[Any]) -> TensorResult | None:
    """What is wrong with NaN, infinities and bounds that are none; None if nothing is."""
    farthest = (exact + np.copysign(bound, exact)).astype(dtype).astype(np.float64)
    matching_infinity = np.isinf(seen) & (seen == np.where(bounded, farthest, exact))
    wrong_class = (
        (np.isnan(seen) != np.isnan(exact))
        | (np.isinf(seen) & ~matching_infinity)
        | (np.isinf(exact) & ~np.isinf(seen))
    )
    if wrong_class.any():
        where = _first(wrong_class)
        return TensorResult(
            None, worst_index=where, problem=f"is {seen[where]} at {list(where)}, not {exact[where]:.9g}"
        )
    unbounded = np.isfinite(seen) & np.isfinite(exact) & ~bounded
    if unbounded.any():
        where = _first(unbounded)
        return TensorResult(None, worst_index=where, problem=f"has no finite bound at {list(where)}")
    return None


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0]) if mask.ndim else ()


def ulp(value: Array, dtype: str) -> Array:
    """The unit in the last place of each value in a dtype: 2^(e−p+1), and the smallest subnormal below that.

    An integer's is 1.
    """
    if dtype not in _FORMAT:
        return np.ones_like(value)
    precision, smallest = _FORMAT[dtype]
    bits = np.asarray(value, np.float64).view(np.int64)
    power = (bits & _EXPONENT).view(np.float64)  # 2^e of the number, 0 for zero and subnormal numbers
    return np.maximum(power * 2.0 ** (1 - precision), 2.0**smallest)
