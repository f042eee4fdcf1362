"""What a report shows of a tensor beyond its worst ratio: gathered in judging, as no run stores the reference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from conformance.arithmetic import Arithmetic, Array
from conformance.compare import TensorResult
from conformance.comparison import Comparison
from conformance.conventions import CANONICAL
from conformance.expected import Expected
from conformance.judge import Verdict
from conformance.together import TOGETHER, Together, end_to_end, pieces, starts, ulp

#: A strip has at most so many parts, and a level of error for each: a character.
PARTS = 64
LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
#: The level whose errors are just within their bound. Each level is √2 above the last; the first is no error at all,
#: the last is no number.
WITHIN = 32
#: Running statistics are followed over the steps in so many channels.
CHANNELS = 4
#: The last class of a histogram is open: more than 2²⁰ units in the last place.
ULP_CLASSES = 24

#: The bits of a float64 that hold its fraction.
_FRACTION = np.int64((1 << 52) - 1)

_LARGEST = np.finfo(np.float64).max

_RUNNING = re.compile(r"running_(mean|var)\[\d+\]")


@dataclass(frozen=True)
class Evidence:
    """How one tensor errs against the reading that its verdict accepted.

    Attributes:
        shape: of the observed tensor.
        worst: exact value, observed value and bound at the worst index; empty where there is no such index.
        strip: a character of `LEVELS` for each part of the flattened tensor, the largest error over bound there;
            empty for a tensor without error.
        ulps: how many elements err by nothing, by up to ½, 1, 2, 4 … units in the last place; cut after the last
            class that has any, empty for a tensor without error.
        running: of running statistics, the first channels: what the reading has, what was observed, and what the
            canonical reading has where that is another.
    """

    shape: tuple[int, ...]
    worst: tuple[float, ...] = ()
    strip: str = ""
    ulps: tuple[int, ...] = ()
    running: tuple[tuple[float, ...], ...] = ()


def gather(comparison: Comparison, verdict: Verdict) -> dict[str, Evidence]:
    """Tensor → evidence, of every tensor that was held against numbers of its own shape."""
    if not verdict.tensors:
        return {}
    oracle, profile = comparison.oracle, comparison.under.profile
    expected = oracle.expected(profile, verdict.accepted)
    several = len(oracle.problem.calls) > 1
    others = oracle.expected(profile, CANONICAL) if several and verdict.accepted != CANONICAL else {}
    running: dict[str, tuple[tuple[float, ...], ...]] = {}
    beside: dict[str, tuple[Array, Expected]] = {}
    for name in verdict.tensors:
        seen, wanted = comparison.observed.get(name), expected.get(name)
        if seen is None or wanted is None or wanted.dtype is None:
            continue
        if seen.shape == wanted.shape and seen.size:
            beside[name] = seen, wanted
            if several and _RUNNING.fullmatch(name):
                running[name] = _running(seen, wanted, others.get(name), oracle.arithmetic)
    off = {name: pair for name, pair in beside.items() if verdict.tensors[name].ratio != 0}
    with np.errstate(all="ignore"):
        drawn = _drawn(off, comparison, verdict.tensors)
    return {
        name: Evidence(
            seen.shape,
            _worst(seen, wanted, verdict.tensors[name], oracle.arithmetic) if name in off else (),
            *drawn.get(name, ("", ())),
            running.get(name, ()),
        )
        for name, (seen, wanted) in beside.items()
    }


def _worst(seen: Array, wanted: Expected, result: TensorResult, arithmetic: Arithmetic) -> tuple[float, ...]:
    at = result.worst_index
    if at is None:
        return ()
    digits = 17 if seen.dtype == np.float64 else 9
    value, bound = wanted.at(at)
    return _digits(arithmetic.lower(np.asarray(value)), digits), _digits(seen[at], digits), _digits(bound, 3)


def _drawn(
    off: Mapping[str, tuple[Array, Expected]], comparison: Comparison, results: Mapping[str, TensorResult]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Strip and histogram of every tensor, from the numbers of its comparison where those are kept."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    anew: dict[str, tuple[Array, Expected]] = {}
    kept: dict[int, dict[str, tuple[str, tuple[int, ...]]]] = {}  # also of tensors that the reading has otherwise
    for name, (seen, wanted) in off.items():
        together = comparison.compared(name, wanted)
        drawn = _drawn_in_parts(seen, wanted, comparison.oracle.arithmetic) if seen.size > TOGETHER else None
        if drawn is not None:
            found[name] = drawn
        elif together is not None and together.plain:
            if id(together) not in kept:
                kept[id(together)] = _of_all(together, *_numbers(together, results))
            found[name] = kept[id(together)][name]
        else:
            anew[name] = seen, wanted
    for together in end_to_end(anew, comparison.oracle.arithmetic):
        found |= _of_all(together, *_numbers(together, results))
    return found


def _of_all(together: Together, ratio: Array, ulps: Array) -> dict[str, tuple[str, tuple[int, ...]]]:
    each = zip(strips(ratio, together.sizes), histograms(ulps, together.sizes), strict=True)
    return dict(zip(together.tensors, each, strict=True))


def _numbers(together: Together, results: Mapping[str, TensorResult]) -> tuple[Array, Array]:
    """Ratios, infinite where something is no number, and errors in units in the last place."""
    if together.plain:
        return np.minimum(together.ratio, _LARGEST), together.ulps  # infinite where a bound is 0
    exact = together.arithmetic.lower(together.value)
    numbers = np.isfinite(together.seen) & np.isfinite(exact)
    same = numbers | (together.seen == exact) | (np.isnan(together.seen) & np.isnan(exact))
    wrong = np.repeat([results[name].problem is not None for name in together.tensors], together.sizes)
    error = np.where(numbers, together.error, np.where(same | ~wrong, 0.0, np.inf))  # inf may be within its bound
    ratio = np.where(error > 0, error / together.bound, 0.0)
    ratio = np.where(np.isfinite(together.error), np.minimum(ratio, _LARGEST), ratio)
    return ratio, np.where(error > 0, error / ulp(exact, together.dtype), 0.0)


def _drawn_in_parts(seen: Array, wanted: Expected, arithmetic: Arithmetic) -> tuple[str, tuple[int, ...]] | None:
    """Strip and histogram of a large tensor, no more than a piece of it at once; None where something is no number."""
    edges = _edges(seen.size)
    largest, counts = np.zeros(len(edges)), np.zeros(ULP_CLASSES, np.int64)
    for piece in pieces(seen, wanted, arithmetic):
        numbers = piece.numbers
        if not numbers.plain:
            return None
        begins, places = piece.stretches(edges)
        highest = np.minimum(np.maximum.reduceat(numbers.ratio, begins), _LARGEST)  # infinite where a bound is 0
        np.maximum.at(largest, np.searchsorted(edges, places, "right") - 1, highest)
        counts += np.bincount(_classes(numbers.ulps.view(np.int64)), minlength=ULP_CLASSES)
    return strips(largest, [len(largest)])[0], tuple(np.trim_zeros(counts, "b").tolist())


def strips(ratio: Array, sizes: Sequence[int]) -> list[str]:
    """Error over bound along each tensor, the largest of each part, rounded up to a level.

    Args:
        ratio: of tensors end to end, of so many elements each, which is more than none.

    >>> strips(np.array([0.0, 0.5, 1.0, 1.01, np.inf, 1.0]), [5, 1])
    ['Aegh_', 'g']
    """
    edges = [_edges(size) + start for size, start in zip(sizes, starts(sizes), strict=True)]
    largest = np.maximum.reduceat(ratio, np.concatenate(edges))
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.clip(np.ceil(2 * np.log2(largest)) + WITHIN, 1, len(LEVELS) - 2)
    levels = np.where(largest == 0, 0, np.where(np.isfinite(largest), levels, len(LEVELS) - 1))
    drawn = np.frombuffer(LEVELS.encode(), np.uint8)[levels.astype(int)].tobytes().decode()
    parts = [len(each) for each in edges]
    return [drawn[start : start + length] for start, length in zip(starts(parts), parts, strict=True)]


@cache
def _edges(size: int) -> Array:
    parts = min(PARTS, size)
    return np.arange(parts) * size // parts


def histograms(ulps: Array, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """How many errors are 0, then up to ½, 1, 2, 4 … units in the last place; cut after the last that has any.

    Args:
        ulps: of tensors end to end, of so many elements each.

    >>> histograms(np.array([0.0, 0.0, 0.3, 0.5, 0.7, 3.0, 0.0]), [6, 1])
    [(2, 2, 1, 0, 1), (1,)]
    """
    classes = _classes(np.ascontiguousarray(ulps).view(np.int64))
    each = (classes[start : start + size] for start, size in zip(starts(sizes), sizes, strict=True))
    return [tuple(np.bincount(numbers).tolist()) for numbers in each]


def _classes(bits: Array) -> Array:
    """The class of each error from the bits of a float64: the exponent, one more where it is no power of two."""
    ceiling = ((bits >> 52) & 0x7FF) - 1023 + ((bits & _FRACTION) != 0)
    return np.where(bits == 0, 0, np.clip(ceiling + 2, 1, ULP_CLASSES - 1))


def _running(seen: Array, wanted: Expected, canonical: Expected | None, arithmetic: Arithmetic) -> Any:
    exact = _first(arithmetic.lower(wanted.value[:CHANNELS]))
    found = [exact, _first(seen[:CHANNELS].astype(np.float64))]
    if canonical is not None and (other := _first(arithmetic.lower(canonical.value[:CHANNELS]))) != exact:
        found.append(other)
    return tuple(found)


def _first(values: Array) -> tuple[float, ...]:
    return tuple(_digits(value, 6) for value in values)


def _digits(value: Any, digits: int) -> float:
    return float(f"{float(value):.{digits}g}")


def as_json(found: Evidence | None) -> Mapping[str, Any]:
    """Evidence as a line of results.jsonl has it, without what is empty."""
    if found is None:
        return {}
    fields = {name: getattr(found, name) for name in ("worst", "strip", "ulps", "running")}
    return {"shape": list(found.shape), **{name: value for name, value in fields.items() if value}}
