"""Two targets against each other: do they agree, and what sets them apart; among several, who is the odd one out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from conformance.arithmetic import Double
from conformance.compare import Expected, TensorResult, compare
from conformance.evidence import Evidence
from conformance.judge import Under, Verdict
from conformance.observation import Observation
from conformance.oracle import Oracle
from conformance.problem import from_wire


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
    results = {}
    for name in dict.fromkeys((*a.observation.tensors, *b.observation.tensors)):
        expected = left.get(name) or right.get(name)
        counter = expected is not None and expected.dtype is None  # one target's count is no claim on another's
        if not counter:
            results[name] = _compare(name, a, b, left.get(name), right.get(name))
    if all(result.ok for result in results.values()):
        return Agreement("agree", results)
    return Agreement("differ", results, differences or "each is within its bound of the reference")


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
    return OddOneOut(name, because or "each is within its bound of the reference")


def _compare(name: str, a: Side, b: Side, left: Expected | None, right: Expected | None) -> TensorResult:
    first, second = a.observation.tensors.get(name), b.observation.tensors.get(name)
    if first is None or second is None:
        return TensorResult(None, problem=f"is missing on {(a if first is None else b).under.name}")
    other = from_wire(second)
    if first.shape != second.shape:
        return TensorResult(None, problem=f"has shape {list(first.shape)}, not {list(second.shape)}")
    bound = np.zeros(other.shape) + sum(side.bound for side in (left, right) if side is not None)
    wanted = Expected(other.astype(np.float64), bound, other.dtype.name)
    return compare(from_wire(first), "", wanted, "", Double())
