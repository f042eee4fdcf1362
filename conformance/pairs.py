"""Two targets against each other: do they agree, and what sets them apart; among several, who is the odd one out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from conformance.arithmetic import Array, Double
from conformance.catalogue import name_change
from conformance.compare import TensorResult, compare_all
from conformance.comparison import Under
from conformance.conventions import CANONICAL, STAGES, Precision
from conformance.evidence import Evidence
from conformance.expected import Expected, InChannels
from conformance.judge import Verdict
from conformance.observation import Observation
from conformance.oracle import Oracle
from conformance.problem import dtype_name, from_wire

#: Why two targets differ that are both right: the sum of their bounds is less than what lies between them.
WITHIN_BOUNDS = "each is within its bound of the reference"


@dataclass(frozen=True)
class Agreement:
    """The judgement of one case on a pair of targets."""

    agreement: Literal["agree", "differ"]
    tensors: Mapping[str, TensorResult] = field(default_factory=dict)
    because: str = ""


@dataclass(frozen=True)
class Side:
    """One half of a pair."""

    under: Under
    observation: Observation
    verdict: Verdict
    evidence: Mapping[str, Evidence] = field(default_factory=dict)

    @property
    def difference(self) -> str:
        """What sets this side apart from the canonical reading; empty where nothing does."""
        if self.verdict.verdict == "conforms":
            return ""
        cause = self.verdict.diagnosis or self.verdict.verdict
        return f"{self.under.name}: {cause}" + (f" ({self.verdict.error.type})" if self.verdict.error else "")

    @property
    def answered(self) -> bool:
        """Whether there are tensors of every step to compare."""
        return self.observation.fate == "answered" and self.observation.refusal is None


def judge_pair(oracle: Oracle, a: Side, b: Side) -> Agreement:
    """Whether two targets agree: |a−b| ≤ δa+δb in every tensor, each δ the strict bound of that target's reading.

    Two that refuse agree; one that refuses, crashes or returns fewer tensors differs from one that does not.
    """
    if not a.answered and not b.answered and a.observation.fate == b.observation.fate == "answered":
        return Agreement("agree", {}, "both refuse")
    differences = "; ".join(side.difference for side in (a, b) if side.difference)
    if not (a.answered and b.answered):
        return Agreement("differ", {}, differences)
    meaningless = [oracle.undefined or side.under.profile.senseless(oracle.problem) for side in (a, b)]
    if all(meaningless):
        reasons = "; ".join(dict.fromkeys(map(str, meaningless)))
        return Agreement("agree", {}, f"both accept what has no value: {reasons}")
    if any(meaningless):
        return Agreement("differ", {}, differences)
    left = oracle.expected(a.under.profile, a.verdict.accepted)
    right = oracle.expected(b.under.profile, b.verdict.accepted)
    names = dict.fromkeys((*a.observation.tensors, *b.observation.tensors))
    expected = {name: [found for side in (left, right) if (found := side.get(name)) is not None] for name in names}
    # One target's count is no claim on another's.
    compared = [name for name in names if not any(each.dtype is None for each in expected[name])]
    results = _compare(a, b, {name: expected[name] for name in compared})
    if all(result.ok for result in results.values()):
        return Agreement("agree", results)
    apart = {name for name, result in results.items() if not result.ok}
    differences = "; ".join(filter(None, (_with_conventions(oracle, side, apart) for side in (a, b))))
    return Agreement("differ", results, differences or WITHIN_BOUNDS)


def _with_conventions(oracle: Oracle, side: Side, apart: Collection[str]) -> str:
    """A side's difference; where it diverges, also the declared conventions that move a tensor of those apart."""
    verdict, profile = side.verdict, side.under.profile
    if verdict.verdict not in ("divergent", "inaccurate"):
        return side.difference
    accepted = oracle.effective(verdict.accepted)
    held = oracle.expected(profile, accepted)
    names = []
    for choice, value in accepted.changes.items():
        without = oracle.expected(profile, accepted.but(**{choice: getattr(CANONICAL, choice)}))
        if STAGES[choice] is not Precision and any(held.get(name) is not without.get(name) for name in apart):
            names.append(name_change(choice, value)[0])
    return ", ".join([side.difference, *names])


@dataclass(frozen=True)
class OddOneOut:
    """The target that differs from all the others of a case, which agree among themselves.

    Attributes:
        because: the convention, fault or refusal that sets it apart; what sets the others apart where it conforms.
    """

    target: str
    because: str


def alone(differ: Mapping[tuple[str, str], bool]) -> str | None:
    """Which of three or more targets differs from the rest, which agree; None where there is no such one.

    Args:
        differ: every pair of them → whether the two differ.
    """
    names = dict.fromkeys(name for pair in differ for name in pair)
    if len(names) < 3:
        return None
    return next((name for name in names if all(apart is (name in pair) for pair, apart in differ.items())), None)


def odd_one_out(sides: Mapping[str, Side], pairs: Mapping[tuple[str, str], Agreement]) -> OddOneOut | None:
    """The target that is `alone`, and why; None where they agree, or differ in more ways than one."""
    name = alone({pair: agreement.agreement == "differ" for pair, agreement in pairs.items()})
    if name is None:
        return None
    others = dict.fromkeys(other.difference for other_name, other in sides.items() if other_name != name)
    because = sides[name].difference.partition(": ")[2] or "; ".join(filter(None, others))
    return OddOneOut(name, because or WITHIN_BOUNDS)


def _compare(a: Side, b: Side, expected: Mapping[str, Sequence[Expected]]) -> dict[str, TensorResult]:
    """Every tensor of one side held against the other's; `expected` is what the sides' readings say of each."""
    results = {}
    beside: dict[str, tuple[Array, str, Expected]] = {}
    for name, readings in expected.items():
        first, second = a.observation.tensors.get(name), b.observation.tensors.get(name)
        if first is None or second is None:
            results[name] = TensorResult(None, problem=f"is missing on {(a if first is None else b).under.name}")
        elif first.shape != second.shape:
            results[name] = TensorResult(None, problem=f"has shape {list(first.shape)}, not {list(second.shape)}")
        else:
            other = from_wire(second)
            beside[name] = from_wire(first), "", _as_expected(other, [r for r in readings if r.shape == other.shape])
    results |= compare_all(beside, "", Double())
    return {name: results[name] for name in expected}


def _as_expected(other: Array, readings: Sequence[Expected]) -> Expected:
    """One side's tensor as what the other's should be, within the bounds of both; in parts where they are."""
    if readings and all(isinstance(reading, InChannels) for reading in readings):
        return InChannels(other.shape, _Parts(other, readings))
    bounds = [reading.bound for reading in readings]
    bound = sum(bounds[1:], bounds[0]) if bounds else np.zeros(other.shape)
    return Expected(other.astype(np.float64), bound, dtype_name(other.dtype))


@dataclass(frozen=True)
class _Parts:
    """The same, made when it is looked at."""

    other: Array
    readings: Sequence[Expected]

    def __iter__(self) -> Iterator[Expected]:
        first = 0
        for parts in zip(*(reading.parts for reading in self.readings), strict=True):
            after = first + parts[0].shape[1]
            yield _as_expected(self.other[:, first:after], parts)
            first = after
