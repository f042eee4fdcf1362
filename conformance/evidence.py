"""What a report shows of a tensor beyond its worst ratio: gathered in judging, as no run stores the reference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.arithmetic import Arithmetic
from conformance.compare import Array, Expected, TensorResult, ulp
from conformance.conventions import CANONICAL
from conformance.judge import Under, Verdict
from conformance.observation import Observation
from conformance.oracle import Oracle
from conformance.problem import from_wire

#: A strip has at most so many parts, and a level of error for each: a character.
PARTS = 64
LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
#: The level whose errors are just within their bound. Each level is √2 above the last; the first is no error at all,
#: the last is no number.
WITHIN = 32
#: Running statistics are followed over the steps in so many channels.
CHANNELS = 4
#: The last class of a histogram is open: more than 2²⁰ units in the last place.
ULP_CLASSES = 23

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


def gather(oracle: Oracle, under: Under, observation: Observation, verdict: Verdict) -> dict[str, Evidence]:
    """Tensor → evidence, of every tensor that was held against numbers of its own shape."""
    if not verdict.tensors:
        return {}
    expected = oracle.expected(under.profile, verdict.accepted)
    several = len(oracle.problem.calls) > 1
    found = {}
    for name, result in verdict.tensors.items():
        wire, wanted = observation.tensors.get(name), expected.get(name)
        if wire is None or wanted is None or wanted.dtype is None:
            continue
        seen = from_wire(wire)
        if seen.shape != wanted.value.shape or not seen.size:
            continue
        running: tuple[tuple[float, ...], ...] = ()
        if several and _RUNNING.fullmatch(name):
            canonical = oracle.expected(under.profile, CANONICAL).get(name) if verdict.accepted != CANONICAL else None
            running = _running(seen, wanted, canonical, oracle.arithmetic)
        if result.ratio == 0:
            found[name] = Evidence(seen.shape, running=running)
        else:
            found[name] = _evidence(seen, wanted, result, running, oracle.arithmetic)
    return found


def _evidence(seen: Array, wanted: Expected, result: TensorResult, running: Any, arithmetic: Arithmetic) -> Evidence:
    with np.errstate(all="ignore"):
        values = seen.astype(np.float64)
        exact = arithmetic.lower(wanted.value)
        numbers = np.isfinite(values) & np.isfinite(exact)
        same = numbers | (values == exact) | (np.isnan(values) & np.isnan(exact))
        error = np.where(same, 0.0, np.inf if result.problem else 0.0)  # an infinity may be within its bound
        error[numbers] = np.abs(arithmetic.lower(arithmetic.lift(values[numbers]) - wanted.value[numbers]))
        ratio = np.where(error > 0, error / wanted.bound, 0.0)
        ratio = np.where(np.isfinite(error), np.minimum(ratio, np.finfo(np.float64).max), ratio)  # a bound of 0
        ulps = np.where(error > 0, error / ulp(exact, seen.dtype.name), 0.0)
    worst: tuple[float, ...] = ()
    at = result.worst_index
    if at is not None:
        digits = 17 if seen.dtype == np.float64 else 9
        worst = (_digits(exact[at], digits), _digits(values[at], digits), _digits(wanted.bound[at], 3))
    return Evidence(seen.shape, worst, strip(ratio), histogram(ulps), running)


def strip(ratio: Array) -> str:
    """Error over bound along a flattened tensor, the largest of each part, rounded up to a level.

    >>> strip(np.array([0.0, 0.5, 1.0, 1.01, np.inf]))
    'Aegh_'
    """
    flat = ratio.reshape(-1)
    edges = np.arange(min(PARTS, flat.size)) * flat.size // min(PARTS, flat.size)
    largest = np.maximum.reduceat(flat, edges)
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.clip(np.ceil(2 * np.log2(largest)) + WITHIN, 1, len(LEVELS) - 2)
    levels = np.where(largest == 0, 0, np.where(np.isfinite(largest), levels, len(LEVELS) - 1))
    return "".join(LEVELS[int(level)] for level in levels)


def histogram(ulps: Array) -> tuple[int, ...]:
    """How many errors are 0, then up to ½, 1, 2, 4 … units in the last place; cut after the last that has any.

    >>> histogram(np.array([0.0, 0.0, 0.3, 0.5, 0.7, 3.0]))
    (2, 2, 1, 0, 1)
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        classes = np.where(ulps == 0, 0, np.clip(np.ceil(np.log2(ulps)) + 2, 1, ULP_CLASSES - 1))
    counted = np.bincount(np.nan_to_num(classes, nan=ULP_CLASSES - 1).astype(int).reshape(-1))
    return tuple(int(number) for number in counted)


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
