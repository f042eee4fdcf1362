"""What is asked of whoever judges, what comes of it, and a desk at which it is done."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conformance.comparison import Comparison, Under
from conformance.evidence import Evidence, gather
from conformance.judge import Verdict, judge
from conformance.observation import Observation, broken
from conformance.oracle import Oracle
from conformance.pairs import Agreement, Side, judge_pair
from conformance.problem import Problem


@dataclass(frozen=True)
class Open:
    """A case is going to be judged; its index tells it from others."""

    index: int
    problem: Problem


@dataclass(frozen=True)
class JudgeSide:
    """To be judged: what a target returned for a case."""

    index: int
    under: Under
    observation: Observation


@dataclass(frozen=True)
class JudgePairs:
    """To be judged: every pair of the targets that a case was judged on, in this order; no other is to come."""

    index: int
    targets: tuple[str, ...]


@dataclass(frozen=True)
class SideJudged:
    """A verdict, and what a report shows of it."""

    index: int
    target: str
    verdict: Verdict
    evidence: Mapping[str, Evidence]


@dataclass(frozen=True)
class PairsJudged:
    """What was judged of a case's pairs, which closes it."""

    index: int
    pairs: Mapping[tuple[str, str], Agreement]


Task = Open | JudgeSide | JudgePairs
Judged = SideJudged | PairsJudged


class Desk:
    """The cases that one process judges; the targets of a case share its reference."""

    def __init__(self) -> None:
        self._cases: dict[int, tuple[Oracle, dict[str, Side]]] = {}

    def do(self, task: Task) -> Judged | None:
        """Take note of a case, or judge."""
        match task:
            case Open(index, problem):
                self._cases[index] = Oracle(problem), {}
                return None
            case JudgeSide(index, under, observation):
                return self._side(index, under, observation)
            case JudgePairs(index, targets):
                oracle, sides = self._cases.pop(index)
                return PairsJudged(index, _pairs(oracle, [sides[name] for name in targets if name in sides]))

    def _side(self, index: int, under: Under, observation: Observation) -> SideJudged:
        oracle, sides = self._cases[index]
        side = sides[under.name] = judge_side(oracle, under, observation)
        return SideJudged(index, under.name, side.verdict, side.evidence)


def judge_side(oracle: Oracle, under: Under, observation: Observation, *, evidence: bool = True) -> Side:
    """What a target returned for a case, judged, with what a report shows of it where that is wanted.

    Where judging fails, for want of memory or by a fault of this suite, the verdict is `broken`, and the run goes on.
    """
    try:
        return _judged(oracle, under, observation, evidence)
    except Exception as error:
        oracle.forget()
        return _judged(oracle, under, broken(_failed(error), "JudgingFailed"), evidence=False)


def _failed(error: Exception) -> str:
    """What went wrong in judging, in a line, and where."""
    what = f"{type(error).__name__}: {error}"
    return f"judging failed, for which no framework is to blame: {what}\n{traceback.format_exc()}"


def _judged(oracle: Oracle, under: Under, observation: Observation, evidence: bool) -> Side:
    comparison = Comparison(oracle, under, observation)
    verdict = judge(comparison)
    side = Side(under, observation, verdict, gather(comparison, verdict) if evidence else {})
    if verdict.tried:
        oracle.forget()
    return side


def _pairs(oracle: Oracle, sides: Sequence[Side]) -> dict[tuple[str, str], Agreement]:
    """Every pair in the order of the sides; signatures are held against documents, not each other."""
    if oracle.problem.case.kind == "signature":
        return {}
    return {(a.under.name, b.under.name): _pair(oracle, a, b) for a, b in itertools.combinations(sides, 2)}


def _pair(oracle: Oracle, a: Side, b: Side) -> Agreement:
    try:
        return judge_pair(oracle, a, b)
    except Exception as error:
        return Agreement("differ", {}, _failed(error))
