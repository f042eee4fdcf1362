"""Numbers fine enough to judge with: float64 with exact sums, and MPFR's.

`Double` serves inputs of float32 and below, where float64 with accurate sums is 2⁻²⁹ finer than what is judged, and
`Multiprecision` float64 inputs. Both compute the same formulas, those of `conformance.reference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Decimal digits of `Multiprecision`.
DIGITS = 50


#: So many numbers of an array are computed with at once where there are more: that stays in a processor's cache.
BLOCK = 65_536


def blocks(*arrays: Array) -> Iterator[tuple[slice, slice, list[Array]]]:
    """(C, n) arrays and (C, 1) columns, the first of them (C, n), by blocks: its rows, its columns, what they hold."""
    rows, columns = arrays[0].shape
    if rows * columns <= BLOCK:
        yield slice(rows), slice(columns), list(arrays)
        return
    width = min(columns, max(512, BLOCK // rows))
    height = max(1, BLOCK // width)
    for row in range(0, rows, height):
        across = [a[row : row + height] for a in arrays]
        for column in range(0, columns, width):
            where = slice(column, column + width)
            yield slice(row, row + height), where, [a[:, where] if a.shape[1] > 1 else a for a in across]


def in_blocks(formula: Callable[..., Array], *arrays: Array) -> Array:
    """An elementwise formula of what `blocks` takes; the first array has the dtype of the result."""
    if arrays[0].size <= BLOCK:
        return formula(*arrays)
    out = np.empty(arrays[0].shape, arrays[0].dtype)
    for rows, columns, block in blocks(*arrays):
        out[rows, columns] = formula(*block)
    return out


class Arithmetic(Protocol):
    """Numbers fine enough to judge with; arrays of them support NumPy's + − × and broadcasting.

    Attributes:
        computed_in: the dtype that is computed in where this judges.
        weight: how many of float64's numbers take as long as one of these, and as much memory, to within some times.
    """

    computed_in: str
    weight: int

    def lift(self, a: Array) -> Array:
        """float64 → this arithmetic, exactly."""

    def lower(self, a: Array) -> Array:
        """This arithmetic → float64, rounded once."""

    def sum(self, a: Array) -> Array:
        """Σ over the last axis."""

    def sum_of(self, formula: Callable[..., Array], *arrays: Array) -> Array:
        """Σ over the columns of an elementwise formula of (C, n) arrays and (C, 1) columns, the first of them (C, n).

        Of large arrays its values are never all held.
        """

    def sqrt(self, a: Array) -> Array: ...

    def reciprocal(self, a: Array) -> Array:
        """1/a, infinite at zero."""


class Double:
    """float64 with sums as accurate as if taken in twice the precision.

    Args:
        few: up to so many numbers are summed one by one, which is faster there than a NumPy call for every level.
        width: columns that are summed side by side where there are more.
    """

    computed_in = "float32"
    weight = 1

    def __init__(self, few: int = 4_096, width: int | None = None) -> None:
        self._few = few
        self._width = width

    def lift(self, a: Array) -> Array:
        return np.asarray(a, np.float64)

    def lower(self, a: Array) -> Array:
        return a

    def sum(self, a: Array) -> Array:
        """Σ over the last axis, as `sum_of` takes it."""
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return self.sum_of(lambda rows: rows, rows).reshape(a.shape[:-1])

    def sum_of(self, formula: Callable[..., Array], *arrays: Array) -> Array:
        """Σ rounded once where there are few terms; elsewhere with each addition's rounding error carried along.

        Source: Ogita, Rump and Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26 (2005), algorithm 4.4,
        over blocks of columns and then over a tree instead of a chain.
        """
        rows, columns = arrays[0].shape
        if not columns:
            return np.zeros(rows)
        if rows * columns <= self._few:
            try:
                return np.array([math.fsum(row) for row in formula(*arrays).tolist()])
            except (OverflowError, ValueError):  # infinities, and sums that are
                pass
        width = self._width or max(64, BLOCK // rows)

        def part(start: int) -> Array:
            return formula(*(a[:, start : start + width] if a.shape[1] > 1 else a for a in arrays))

        total = part(0)
        error = np.zeros_like(total)
        for start in range(width, columns, width):
            following = part(start)
            if following.shape[1] < total.shape[1]:
                following = np.pad(following, ((0, 0), (0, total.shape[1] - following.shape[1])))
            total, lost = _two_sum(total, following)
            error += lost
        while total.shape[1] > 1:
            if total.shape[1] % 2:
                total, error = np.pad(total, ((0, 0), (0, 1))), np.pad(error, ((0, 0), (0, 1)))
            half = total.shape[1] // 2
            total, lost = _two_sum(total[:, :half], total[:, half:])
            error = error[:, :half] + error[:, half:] + lost
        exact = np.where(np.isfinite(error), total + error, total)  # the error of an infinite sum is NaN
        return np.asarray(exact[:, 0])

    def sqrt(self, a: Array) -> Array:
        return np.sqrt(a)

    def reciprocal(self, a: Array) -> Array:
        return np.asarray(1 / a)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b rounded, and what rounding has taken off."""
    total = a + b
    part: Array = total - a
    return total, (a - (total - part)) + (b - part)


class Multiprecision:
    """Object arrays of gmpy2's mpfr, binary numbers of so many digits; slow, so for float64 inputs alone.

    gmpy2 computes as finely as the context of a thread says, which `lift` sees to: what a thread lifts, it computes
    with, and with nothing that is finer.

    Raises:
        RuntimeError: something else has made the context coarser meanwhile.
    """

    computed_in = "float64"
    weight = 32

    def __init__(self, digits: int = DIGITS) -> None:
        import gmpy2  # which takes a while, and most inputs have no use for

        self._gmpy2 = gmpy2
        self._bits = math.ceil(digits * math.log2(10)) + 1

    def _each(self, function: Any, values: Iterable[Any], shape: tuple[int, ...]) -> Array:
        out = np.empty(shape, object)
        out.ravel()[:] = list(map(function, values))
        return out

    def lift(self, a: Array) -> Array:
        if self._gmpy2.get_context().precision != self._bits:
            self._gmpy2.set_context(self._gmpy2.context(precision=self._bits))
        with np.errstate(all="ignore"):  # NumPy warns of a NaN among Python objects
            # A product with 1 is exact, and takes a tenth of the time of a number's own constructor.
            return np.asarray(np.asarray(a, np.float64).astype(object) * self._gmpy2.mpfr(1), object)

    def lower(self, a: Array) -> Array:
        if not np.size(a):
            return np.zeros(np.shape(a))
        if getattr(next(np.asarray(a).flat), "precision", self._bits) < self._bits:
            raise RuntimeError(f"the reference was not computed in {self._bits} bits: something set gmpy2's context")
        with np.errstate(all="ignore"):
            return np.asarray(a, np.float64)

    def sum(self, a: Array) -> Array:
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return self._each(self._gmpy2.fsum, rows.tolist(), a.shape[:-1])

    def sum_of(self, formula: Callable[..., Array], *arrays: Array) -> Array:
        return self.sum(formula(*arrays))

    def sqrt(self, a: Array) -> Array:
        return self._each(self._gmpy2.sqrt, np.ravel(a), np.shape(a))

    def reciprocal(self, a: Array) -> Array:
        return np.asarray(1 / a)
