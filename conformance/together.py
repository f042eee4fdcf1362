"""Observed numbers beside what they should be, laid end to end, so that one pass over them serves many tensors."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from conformance.arithmetic import BLOCK, Arithmetic, Array
from conformance.expected import Expected
from conformance.problem import dtype_name

#: Precision p and exponent of the smallest subnormal, of each output dtype.
_FORMAT = {"float64": (53, -1074), "float32": (24, -149), "float16": (11, -24), "bfloat16": (8, -133)}

#: The bits of a float64 that hold its exponent.
_EXPONENT = np.int64(0x7FF << 52)

#: So many numbers are compared in one pass, and stay in a processor's cache; a larger tensor is compared in pieces.
TOGETHER = BLOCK


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
        self.error = np.abs(arithmetic.lower(arithmetic.lift(self.seen.astype(np.float64)) - self.value))
        self.plain = bool(np.isfinite(self.error + self.bound).all() and self.bound.min() >= 0)

    @cached_property
    def ratio(self) -> Array:
        """Error over bound, 0 where there is no error."""
        ratio = self.error / self.bound
        if not self.bound.all():
            ratio[self.error == 0] = 0
        return ratio

    @cached_property
    def ulps(self) -> Array:
        """The errors in units in the last place of the exact values."""
        return self.error / ulp(self.arithmetic.lower(self.value), self.dtype)


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
        found = unravelled(self.start + index, self.within)
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


def starts(sizes: Sequence[int]) -> list[int]:
    """Where things of these sizes begin that lie end to end."""
    return [0, *itertools.accumulate(sizes)][:-1]


def unravelled(index: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The place in a tensor of this shape of an element of the flattened one."""
    places = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.append(place)
    return tuple(reversed(places))


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


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.reshape(-1) for array in arrays]) if len(arrays) > 1 else arrays[0].reshape(-1)
