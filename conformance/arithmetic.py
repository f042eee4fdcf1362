"""Numbers fine enough to judge with: float64 with exact sums, and mpmath's.

`Double` serves inputs of float32 and below, where float64 with accurate sums is 2⁻²⁹ finer than what is judged, and
`Multiprecision` float64 inputs. Both compute the same formulas, those of `conformance.reference`.
"""

from __future__ import annotations

from typing import Any, Protocol

import mpmath
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Decimal digits of `Multiprecision`.
DIGITS = 50


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
    """float64 with sums as accurate as if taken in twice the precision."""

    def lift(self, a: Array) -> Array:
        return np.asarray(a, np.float64)

    def lower(self, a: Array) -> Array:
        return a

    def sum(self, a: Array) -> Array:
        """Pairwise sums that carry each addition's rounding error along (TwoSum).

        Source: Ogita, Rump and Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26 (2005), algorithm 4.4,
        over a tree instead of a chain.
        """
        total, error = a, np.zeros_like(a)
        while total.shape[-1] > 1:
            if total.shape[-1] % 2:
                pad = np.zeros((*total.shape[:-1], 1))
                total, error = np.concatenate((total, pad), -1), np.concatenate((error, pad), -1)
            half = total.shape[-1] // 2
            left, right = total[..., :half], total[..., half:]
            total = left + right
            part = total - left
            error = error[..., :half] + error[..., half:] + ((left - (total - part)) + (right - part))
        if not total.shape[-1]:
            return np.zeros(total.shape[:-1])
        total, error = total[..., 0], error[..., 0]
        return np.where(np.isfinite(error), total + error, total)  # the error of an infinite sum is NaN

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
