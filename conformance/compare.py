"""Tensors against what they should be: shape, dtype and device first, then special values, then numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.arithmetic import Arithmetic, Array
from conformance.expected import Expected
from conformance.problem import dtype_name, dtype_of
from conformance.together import TOGETHER, Together, end_to_end, pieces, ulp, unravelled


@dataclass(frozen=True)
class TensorResult:
    """How far a tensor is from where it should be.

    Attributes:
        ratio: largest error as a fraction of its bound; None where no number could be compared.
        max_abs: largest absolute error.
        max_ulp: largest error in units in the last place of the expected value; reported, decides nothing.
        worst_index: where the ratio is largest, or where the problem is.
        problem: what is wrong beyond numbers: shape, dtype, device, a special value; None if nothing.
        infinite: whether an infinity or NaN should stand where the problem is.
    """

    ratio: float | None
    max_abs: float | None = None
    max_ulp: float | None = None
    worst_index: tuple[int, ...] | None = None
    problem: str | None = None
    infinite: bool = False

    @property
    def ok(self) -> bool:
        """Within the bound. A ratio that is no number is not."""
        return self.problem is None and self.ratio is not None and self.ratio <= 1

    @property
    def off(self) -> float:
        """The ratio, infinite where there is a problem; for ranking."""
        return math.inf if self.problem is not None or self.ratio is None else self.ratio


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
            found.update(_all_at_once(together) if together.plain else _one_by_one(together))
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


def _all_at_once(together: Together) -> dict[str, TensorResult]:
    """The result of every tensor."""
    numbers = together.ratio, together.error, together.ulps
    largest = (np.maximum.reduceat(each, together.starts).tolist() for each in numbers)
    found = {}
    for (name, (observed, _)), start, size, ratio, error, ulps in zip(
        together.tensors.items(), together.starts, together.sizes, *largest, strict=True
    ):
        worst = int(together.ratio[start : start + size].argmax()) if ratio else 0
        found[name] = TensorResult(ratio, error, ulps, unravelled(worst, observed.shape))
    return found


def _one_by_one(together: Together) -> dict[str, TensorResult]:
    """The same where something is no number or has no bound."""
    return {name: _compare_numbers(*pair, together.arithmetic) for name, pair in together.tensors.items()}


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
    worst = unravelled(int(ratio.argmax()), ratio.shape)
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
        problem = f"is {seen[where]} at {list(where)}, not {exact[where]:.9g}"
        return TensorResult(None, worst_index=where, problem=problem, infinite=not np.isfinite(exact[where]))
    unbounded = np.isfinite(seen) & np.isfinite(exact) & ~bounded
    if unbounded.any():
        where = _first(unbounded)
        return TensorResult(None, worst_index=where, problem=f"has no finite bound at {list(where)}")
    return None


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0]) if mask.ndim else ()
