"""What a script shows of a result: the tensors that leave the canonical bound first, and that bound in two numbers."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from conformance.conventions import CANONICAL, STAGES, Conventions
from conformance.documents import AS_DOCUMENTED, printed_numbers
from conformance.errors import UsageError
from conformance.expected import Expected
from conformance.findings import off
from conformance.oracle import Oracle
from conformance.profile import Profile
from conformance.rounding import UNIT_ROUNDOFF
from conformance.safe_text import one_line
from conformance.spec import Documented

#: The derivatives of (v * dx).sum() by x, dy and gamma.
SECOND = frozenset({"ddx", "ddy", "ddgamma"})

#: Kinds of tensors in the shape of x; all others are (C,).
IMAGES = frozenset({"y", "jvp", "dx", "x", "ddx", "ddy"})

#: Half a unit beyond the largest number: what rounds to infinity.
_OVERFLOW = {"float16": 65520.0, "float32": 2.0**128 * (1 - 2.0**-25), "bfloat16": 2.0**128 * (1 - 2.0**-9)}


class NoScript(UsageError):
    """There is no script for this result; the message says why."""


def unshown(line: Mapping[str, Any]) -> str | None:
    """What is wrong with a tensor of a verdict that its numbers do not show; None where they may."""
    if line["verdict"] in ("refused", "crashed", "timeout") or line["diagnosis"] == "accepted":
        return None  # no tensor is compared
    for name, tensor in line["tensors"].items():
        problem = str(tensor.get("problem") or "")
        if problem.startswith(("is missing", "is returned", "is on ")):
            return f"{name} {problem}"
    return None


@dataclass(frozen=True)
class Row:
    """One comparison: a tensor of a step, and rtol and atol, or its dtype or shape.

    Attributes:
        what: numbers, documented (numbers that a document prints), dtype or shape.
        atol: one for all, or one a channel.
        overflow: what is larger rounds to infinity; None where nothing does.
    """

    kind: str
    step: int
    what: str = "numbers"
    rtol: float = 0.0
    atol: tuple[float, ...] = (0.0,)
    overflow: float | None = None
    dtype: str = "float32"


def shown(oracle: Oracle, profile: Profile, line: Mapping[str, Any], declared: Mapping[str, Any]) -> list[Row]:
    """The comparisons that the script of a verdict makes.

    Args:
        line: the verdict's line of results.jsonl.
        declared: the conventions that the profile declares of the case. What they explain is no part of a divergence.

    Raises:
        NoScript: there is nothing to compare.
    """
    said = line["tensors"]
    canonical = oracle.expected(profile, CANONICAL)
    structural = [row for name, tensor in said.items() if (row := _structural(name, tensor, canonical)) is not None]
    if structural:
        first = min(row.step for row in structural)
        return [row for row in structural if row.step == first]
    names = [name for name in said if name in canonical and np.size(canonical[name].value)]
    if not names:
        raise NoScript("it has no tensor that could be compared")
    if line["verdict"] == "conforms" or "accepted" not in line:
        return [_row(name, canonical[name]) for name in names]
    accepted = _accepted(line["accepted"])
    held = canonical if accepted == CANONICAL else oracle.expected(profile, accepted)
    certain = []
    if line["verdict"] == "divergent":
        documented = oracle.expected(profile, CANONICAL.but(**_agreed(declared, accepted)))
        wrong = [name for name in names if _departs(said[name], documented[name], held.get(name))]
        certain = _first_departure(wrong, said, canonical, held)
    certain = certain or _first_departure(names, said, canonical, held)
    if certain:
        return certain
    printed = [name for name in said if name.endswith(AS_DOCUMENTED) and off(said[name]) > 1]
    if printed:
        document = oracle.problem.case.spec.documented.get(profile.framework)
        if document is None or not {name.removesuffix(AS_DOCUMENTED) for name in printed} <= document.tensors.keys():
            words = one_line(", ".join(printed))
            raise NoScript(f"{words} is said to differ, and the case holds no such numbers")
        return [_printed(name, document, canonical) for name in printed]
    uncertain = [name for name in names if _may_depart(said[name], canonical[name], held.get(name))]
    return [_row(name, canonical[name], exact=True) for name in uncertain or names]


@cache
def _conventions() -> TypeAdapter[Conventions]:
    """What reads conventions; made when the first are read, and once."""
    return TypeAdapter(Conventions)


def _accepted(changes: Mapping[str, Any]) -> Conventions:
    """The conventions that a verdict accepted, of what its line says they change."""
    unknown = changes.keys() - STAGES.keys()
    if unknown:
        words = one_line(", ".join(sorted(unknown)))
        raise NoScript(f"its verdict accepted conventions that are not known here: {words}")
    try:
        return _conventions().validate_python(dict(changes))
    except ValidationError as error:
        raise NoScript(f"its verdict accepted conventions that are none: {one_line(str(error))}") from error


def _agreed(declared: Mapping[str, Any], accepted: Conventions) -> dict[str, Any]:
    """The declared conventions that were accepted as they are declared."""
    return {name: value for name, value in declared.items() if getattr(accepted, name) == value}


def _first_departure(
    names: list[str],
    said: Mapping[str, Any],
    canonical: Mapping[str, Expected],
    held: Mapping[str, Expected],
) -> list[Row]:
    """The tensors of the first step that are known to be out; where a fault is among them, without conventions."""
    for _, of_step in itertools.groupby(sorted(names, key=_step), key=_step):
        departing = [name for name in of_step if _departs(said[name], canonical[name], held.get(name))]
        rows = {name: _row(name, canonical[name]) for name in departing}
        certain = [name for name in rows if _departs(said[name], canonical[name], held.get(name), rows[name])]
        faulty = [name for name in certain if off(said[name]) > 1]
        if certain:
            return [rows[name] for name in faulty or certain]
    return []


def _printed(name: str, document: Documented, canonical: Mapping[str, Expected]) -> Row:
    """A tensor against printed numbers: the bound and half a unit of the last digit printed."""
    name = name.removesuffix(AS_DOCUMENTED)
    _, half_units = printed_numbers(document.tensors[name])
    kind, step = _split(name)
    return Row(kind, step, "documented", 0.0, (_up(float(np.max(canonical[name].bound)) + max(half_units)),))


def _step(name: str) -> int:
    return _split(name)[1]


def _split(name: str) -> tuple[str, int]:
    """``y[1]`` → y, 1."""
    kind, _, index = name.rstrip("]").partition("[")
    return kind, int(index)


def _structural(name: str, tensor: Mapping[str, Any], canonical: Mapping[str, Expected]) -> Row | None:
    problem = tensor.get("problem") or ""
    for words, what in (("has dtype", "dtype"), ("has shape", "shape")):
        if problem.startswith(words) and name in canonical and canonical[name].dtype is not None:
            return Row(*_split(name), what=what)
    return None


def _row(name: str, expected: Expected, *, exact: bool = False) -> Row:
    """A comparison of numbers, with rtol and atol around the bound of every element; `exact`: the bound itself."""
    kind, step = _split(name)
    if expected.dtype is None:
        return Row(kind, step)
    with np.errstate(all="ignore"):
        size = np.abs(np.asarray(expected.value, np.float64))
        bound = np.where(np.isfinite(expected.bound) & (expected.bound >= 0), expected.bound, 0.0)
        limit = _OVERFLOW.get(expected.dtype)
        infinite = limit is not None and bool((np.isfinite(size) & (size >= limit)).any())
        numbers = np.isfinite(size) & (size < (limit or math.inf))
    size, bound = np.where(numbers, size, 0.0), np.where(numbers, bound, 0.0)
    if exact and bound.ndim == 1 and bound.size <= _CHANNELS:
        rtol, atol = 0.0, tuple(map(_up, bound.tolist()))
    else:
        with np.errstate(all="ignore"):
            rtol, atol = _around(size, bound, UNIT_ROUNDOFF.get(expected.dtype, 0.0), kind)
    return Row(kind, step, "numbers", rtol, atol, limit if infinite else None, expected.dtype)


#: An atol for each of so many channels can still be read.
_CHANNELS = 8

#: rtol as multiples of the unit roundoff.
_SLOPES = (0, 1, 4, 32)


def _around(size: Any, bound: Any, u: float, kind: str) -> tuple[float, tuple[float, ...]]:
    """rtol and atol with atol + rtol·|e| ≥ bound everywhere, and as close as can be; atol by channel if need be."""
    if not bound.any():
        return 0.0, (0.0,)
    best: tuple[float, float, Any] | None = None
    channels = size.shape[1] if kind in IMAGES else size.size
    axes = (0, *range(2, size.ndim)) if kind in IMAGES else ()
    for by_channel in (False, True):
        if by_channel and (channels > _CHANNELS or (best is not None and best[0] < 3)):
            break
        for slope in (multiple * u for multiple in _SLOPES):
            rest = np.maximum(bound - slope * size, 0)
            atol = rest.max(axes, keepdims=True) if by_channel else rest.max()
            loose = float(np.max((atol + slope * size) / np.where(bound > 0, bound, np.inf)))
            if best is None or loose < best[0] * 0.99:
                best = (loose, slope, atol)
    assert best is not None
    return _up(best[1]), tuple(_up(float(value)) for value in np.ravel(best[2]))


def _up(value: float) -> float:
    """Three digits, rounded up."""
    if not value or not math.isfinite(value):
        return value
    near = float(f"{value:.2e}")
    return near if near >= value else float(f"{value * 1.005:.2e}")


def _tolerance(row: Row, expected: Expected) -> Any:
    size = np.abs(np.asarray(expected.value, np.float64))
    atol = np.asarray(row.atol)
    if len(row.atol) > 1 and row.kind in IMAGES:
        atol = atol.reshape((1, -1, *[1] * (size.ndim - 2)))
    return atol + row.rtol * np.where(np.isfinite(size), size, 0)


def _departs(tensor: Mapping[str, Any], canonical: Expected, held: Expected | None, row: Row | None = None) -> bool:
    """Whether what is stored proves that the tensor is beyond the canonical bound, or beyond rtol and atol of a row.

    Its error against the accepted reading `held` is stored where it is largest, as a fraction of the bound.
    """
    if held is None:
        return False
    if tensor.get("problem"):
        return _special_departs(str(tensor["problem"]), tensor, canonical)
    if tensor["ratio"] is None:
        return False
    if canonical.dtype is None:
        return False
    with np.errstate(all="ignore"):
        tolerance = np.asarray(canonical.bound) if row is None else _tolerance(row, canonical)
        between = np.abs(np.asarray(held.value - canonical.value, np.float64))
        values = np.asarray(held.value, np.float64), np.asarray(canonical.value, np.float64)
        between = np.where((values[0] == values[1]) | (np.isnan(values[0]) & np.isnan(values[1])), 0.0, between)
        error = tensor["ratio"] * held.bound
        if bool((between - error > tolerance).any()) or bool(np.isnan(between).any()):
            return True
        if tensor.get("worst_index") is None:
            return False
        at = _worst_index(tensor, between)
        return bool(np.abs(between[at] - error[at]) > tolerance[at])


def _worst_index(tensor: Mapping[str, Any], of: Any) -> tuple[int, ...]:
    """Where a tensor is said to be worst.

    Raises:
        NoScript: it has no such element.
    """
    at = tuple(tensor.get("worst_index") or ())
    if len(at) != np.ndim(of) or not all(0 <= i < n for i, n in zip(at, np.shape(of), strict=True)):
        raise NoScript(f"it is said to be worst at {list(at)}, in a tensor of shape {list(np.shape(of))}")
    return at


_SEEN = re.compile(r"is (nan|-?inf|-?\d+(?:\.\d*)?(?:e[-+]?\d+)?) at \[[\d, ]*\], not ")


def _special_departs(problem: str, tensor: Mapping[str, Any], canonical: Expected) -> bool:
    """Of a NaN or an infinity out of place: whether it is so for the canonical reading too."""
    found = _SEEN.match(problem)
    if found is None:
        return canonical.dtype is None  # a counter
    value = np.asarray(canonical.value, np.float64)
    seen, exact = float(found[1]), float(value[_worst_index(tensor, value)])
    if math.isnan(seen) or math.isnan(exact):
        return math.isnan(seen) != math.isnan(exact)
    return (math.isinf(seen) or math.isinf(exact)) and seen != exact


def _may_depart(tensor: Mapping[str, Any], canonical: Expected, held: Expected | None) -> bool:
    """Whether the tensor may be beyond the canonical bound."""
    if held is None or tensor.get("problem") or tensor["ratio"] is None:
        return True
    with np.errstate(all="ignore"):
        between = np.abs(np.asarray(held.value - canonical.value, np.float64))
        return not bool((between + tensor["ratio"] * held.bound <= canonical.bound).all())
