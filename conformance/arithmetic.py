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
        """Σ rounded once where there are few terms; elsewhere what all terms have in common is summed exactly.

        That is their leading digits down to u·σ, with σ ≥ n·max|a| a power of two; the rest is below u·σ each.
        Source: Rump, Ogita and Oishi, "Accurate floating-point summation part I", SIAM J. Sci. Comput. 31 (2008),
        algorithm 3.2, once.
        """
        if not a.shape[-1]:
            return np.zeros(a.shape[:-1])
        rows = a.reshape(-1, a.shape[-1])
        if rows.size <= self._few:
            try:
                return np.array([math.fsum(row) for row in rows.tolist()]).reshape(a.shape[:-1])
            except (OverflowError, ValueError):  # infinities, and sums that are
                pass
        n = rows.shape[1]
        reach = np.maximum(rows.max(1), -rows.min(1)) * (n + 2)
        sigma = np.ldexp(1.0, np.frexp(reach)[1])
        leading, rest = np.zeros(len(rows)), np.zeros(len(rows))
        width = self._width or max(64, BLOCK // len(rows))
        for start in range(0, n, width):
            part = rows[:, start : start + width]
            extracted = (sigma[:, None] + part) - sigma[:, None]
            leading += extracted.sum(1)
            rest += (part - extracted).sum(1)
        plain = ~(reach < 2.0**1022)  # where there is an infinity, a NaN, or a sum may be infinite
        if plain.any():
            leading[plain], rest[plain] = rows[plain].sum(1), 0
        return np.asarray((leading + rest).reshape(a.shape[:-1]))

    def sqrt(self, a: Array) -> Array:
        return np.sqrt(a)

    def reciprocal(self, a: Array) -> Array:
        return np.asarray(1 / a)


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
