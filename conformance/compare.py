"""One tensor against what it should be: shape, dtype and device first, then special values, then numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.problem import dtype_of
from conformance.reference import Arithmetic

Array = NDArray[Any]

#: Precision p and exponent of the smallest subnormal, of each output dtype.
_FORMAT = {"float64": (53, -1074), "float32": (24, -149), "float16": (11, -24), "bfloat16": (8, -133)}


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
    """

    value: Array
    bound: Array
    dtype: str | None
    optional: bool = False


def compare(
    observed: Array | None, device: str, expected: Expected | None, wanted_device: str, arithmetic: Arithmetic
) -> TensorResult:
    """Compare an observed tensor with the expected one.

    NaN is expected where the exact value is NaN and nowhere else; infinities must have the right sign, and where the
    bound reaches beyond the dtype's range a number may be one. A bound that is not a finite number admits nothing.
    """
    if expected is None:
        return TensorResult(None, problem="is returned, though this layer has none")
    if observed is None:
        return TensorResult(None, problem="is missing")
    if observed.shape != expected.value.shape:
        return TensorResult(None, problem=f"has shape {list(observed.shape)}, not {list(expected.value.shape)}")
    if expected.dtype is None:
        return _compare_counters(observed, expected)
    if observed.dtype.name != expected.dtype:
        return TensorResult(None, problem=f"has dtype {observed.dtype.name}, not {expected.dtype}")
    if device != wanted_device:
        return TensorResult(None, problem=f"is on {device}, not on {wanted_device}")
    if not observed.size:
        return TensorResult(0.0, 0.0, 0.0)
    with np.errstate(all="ignore"):
        return _compare_numbers(observed, expected, arithmetic)


def _compare_counters(observed: Array, expected: Expected) -> TensorResult:
    if observed.dtype.kind not in "iu":
        return TensorResult(None, problem=f"has dtype {observed.dtype.name}, not an integer's")
    wrong = int(observed) != int(expected.value)
    return (
        TensorResult(None, problem=f"is {int(observed)}, not {int(expected.value)}")
        if wrong
        else TensorResult(0.0, 0.0, 0.0)
    )


def _compare_numbers(observed: Array, expected: Expected, arithmetic: Arithmetic) -> TensorResult:
    dtype = observed.dtype.name
    seen = observed.astype(np.float64)
    exact = arithmetic.lower(expected.value)
    bounded = np.isfinite(expected.bound) & (expected.bound >= 0)
    farthest = (exact + np.copysign(expected.bound, exact)).astype(dtype_of(dtype)).astype(np.float64)
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
    numbers = np.isfinite(seen) & np.isfinite(exact)
    unbounded = numbers & ~bounded
    if unbounded.any():
        where = _first(unbounded)
        return TensorResult(None, worst_index=where, problem=f"has no finite bound at {list(where)}")
    error = np.zeros(seen.shape)
    error[numbers] = np.abs(arithmetic.lower(arithmetic.lift(seen[numbers]) - expected.value[numbers]))
    ratio = np.where(error > 0, error / expected.bound, 0.0)
    ratio[~numbers] = 0.0
    worst = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    ulps = error[numbers] / ulp(exact[numbers], dtype)
    return TensorResult(
        float(ratio[worst]),
        float(error.max()),
        float(ulps.max()) if ulps.size else 0.0,
        tuple(int(i) for i in worst),
    )


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0]) if mask.ndim else ()


def ulp(value: Array, dtype: str) -> Array:
    """The unit in the last place of each value in a dtype: 2^(e−p+1), and the smallest subnormal below that.

    An integer's is 1.
    """
    if dtype not in _FORMAT:
        return np.ones_like(value)
    precision, smallest = _FORMAT[dtype]
    exponent = np.frexp(value)[1]  # value = f·2^e with ½ ≤ |f| < 1
    return np.ldexp(1.0, np.where(value == 0, smallest, np.maximum(exponent - precision, smallest)))
