"""Numbers fine enough to judge with: float64 with exact sums, and mpmath's.

`Double` serves inputs of float32 and below, where float64 with accurate sums is 2⁻²⁹ finer than what is judged, and
`Multiprecision` float64 inputs. Both compute the same formulas, those of `conformance.reference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import mpmath
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Decimal digits of `Multiprecision`.
DIGITS = 50


#: So many numbers of an array are computed with at once where there are more: that stays in a processor's cache.
BLOCK = 16_384


def in_blocks(formula: Callable[..., Array], *arrays: Array) -> Array:
    """An elementwise formula of (C, n) arrays and (C, 1) columns, the first of them (C, n), a block at a time.

    The first has the dtype of the result.
    """
    rows, columns = arrays[0].shape
    if rows * columns <= BLOCK:
        return formula(*arrays)
    out = np.empty((rows, columns), arrays[0].dtype)
    width = min(columns, max(512, BLOCK // rows))
    height = max(1, BLOCK // width)
    for row in range(0, rows, height):
        across = [a[row : row + height] for a in arrays]
        for column in range(0, columns, width):
            block = (a[:, column : column + width] if a.shape[1] > 1 else a for a in across)
            out[row : row + height, column : column + width] = formula(*block)
    return out


class Arithmetic(Protocol):
    """Numbers fine enough to judge with; arrays of them support NumPy's + − × and broadcasting."""

    def lift(self, a: Array) -> Array:
        """float64 → this arithmetic, exactly."""

    def lower(self, a: Array) -> Array:
        """This arithmetic → float64, rounded once."""

    def sum(self, a: Array) -> Array:
        """Σ over the last axis."""

    def sqrt(self, a: Array) -> Array: ...

    def reciprocal(self, a: Array) -> Array:
        """1/a, infinite at zero."""


class Double:
    """float64 with sums as accurate as if taken in twice the precision.

    Args:
        few: up to so many numbers are summed one by one, which is faster there than a NumPy call for every level.
        width: columns that are summed side by side where there are more.
    """

    def __init__(self, few: int = 4_096, width: int | None = None) -> None:
        self._few = few
        self._width = width

    def lift(self, a: Array) -> Array:
        return np.asarray(a, np.float64)

    def lower(self, a: Array) -> Array:
        return a

    def sum(self, a: Array) -> Array:
        """Σ rounded once where there are few terms; elsewhere with each addition's rounding error carried along.

        Source: Ogita, Rump and Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26 (2005), algorithm 4.4,
        over blocks of columns and then over a tree instead of a chain.
        """
        if not a.shape[-1]:
            return np.zeros(a.shape[:-1])
        rows = a.reshape(-1, a.shape[-1])
        if rows.size <= self._few:
            try:
                return np.array([math.fsum(row) for row in rows.tolist()]).reshape(a.shape[:-1])
            except (OverflowError, ValueError):  # infinities, and sums that are
                pass
        width = self._width or max(64, BLOCK // len(rows))
        total, error = rows[:, :width], np.zeros_like(rows[:, :width])
        for start in range(width, rows.shape[1], width):
            part = rows[:, start : start + width]
            if part.shape[1] < total.shape[1]:
                part = np.pad(part, ((0, 0), (0, total.shape[1] - part.shape[1])))
            total, lost = _two_sum(total, part)
            error += lost
        while total.shape[1] > 1:
            if total.shape[1] % 2:
                total, error = np.pad(total, ((0, 0), (0, 1))), np.pad(error, ((0, 0), (0, 1)))
            half = total.shape[1] // 2
            total, lost = _two_sum(total[:, :half], total[:, half:])
            error = error[:, :half] + error[:, half:] + lost
        exact = np.where(np.isfinite(error), total + error, total)  # the error of an infinite sum is NaN
        return np.asarray(exact.reshape(a.shape[:-1]))

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
    """Object arrays of mpmath's mpf with so many digits; slow, so for float64 inputs alone."""

    def __init__(self, digits: int = DIGITS) -> None:
        self.context = mpmath.MPContext()
        self.context.dps = digits

    def _each(self, function: Any, a: Array) -> Array:
        out = np.empty(np.shape(a), object)
        out.ravel()[:] = [function(value) for value in np.ravel(a)]
        return out

    def lift(self, a: Array) -> Array:
        return self._each(lambda value: self.context.mpf(float(value)), a)

    def lower(self, a: Array) -> Array:
        with np.errstate(invalid="ignore"):  # NumPy warns of a NaN among Python objects
            return np.asarray(a, np.float64) if np.size(a) else np.zeros(np.shape(a))

    def sum(self, a: Array) -> Array:
        out = np.empty(a.shape[:-1], object)
        for index in np.ndindex(*out.shape):
            out[index] = self.context.fsum(a[index])
        return out

    def sqrt(self, a: Array) -> Array:
        return self._each(lambda value: self.context.sqrt(value) if not value < 0 else self.context.nan, a)

    def reciprocal(self, a: Array) -> Array:
        return self._each(lambda value: 1 / value if value else self.context.inf, a)
