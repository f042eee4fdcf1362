"""The main job: cases through targets to verdicts, recorded in the order of the cases as they settle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from conformance.case import Case
from conformance.evidence import gather
from conformance.judge import Under, Verdict, judge
from conformance.oracle import Oracle
from conformance.pairs import Agreement, Side, judge_pair
from conformance.pool import Observed, Pool, Started
from conformance.problem import Problem, materialise
from conformance.target import Target


@dataclass
class Settled:
    """Everything that was judged of one case."""

    problem: Problem
    sides: dict[str, Side] = field(default_factory=dict)
    pairs: dict[tuple[str, str], Agreement] = field(default_factory=dict)


#: Told of every verdict as it falls: the case, the target, the verdict.
Watch = Callable[[Case, Target, Verdict], None]


def targets_of(case: Case, targets: Sequence[Target]) -> list[Target]:
    """The targets that a case speaks to."""
    return [target for target in targets if case.frameworks is None or target.framework in case.frameworks]


def judged(cases: Sequence[Case], pool: Pool, watch: Watch | None = None) -> Iterator[Settled]:
    """Run and judge every case on every target of the pool that it speaks to, in the order of the cases.

    A case is judged on each target as soon as that target answers; tensors are held only while a case is under way.
    """
    spoken_to = ((case, targets_of(case, pool.targets)) for case in cases)
    asked = ((materialise(case), targets) for case, targets in spoken_to if targets)
    opened: dict[int, tuple[Oracle, Settled]] = {}
    done: dict[int, Settled] = {}
    following = itertools.count(pool.asked)
    expected = next(following)
    for observed in pool.observe(asked):
        if observed.index not in opened:
            opened[observed.index] = (Oracle(observed.problem), Settled(observed.problem))
        oracle, settled = opened[observed.index]
        side = _side(oracle, pool, observed)
        if side is not None:
            settled.sides[observed.target.name] = side
            if watch is not None:
                watch(observed.problem.case, observed.target, side.verdict)
        if observed.last:
            del opened[observed.index]
            _judge_pairs(oracle, settled, pool.targets)
            done[observed.index] = settled
        while expected in done:
            yield done.pop(expected)
            expected = next(following)


def _side(oracle: Oracle, pool: Pool, observed: Observed) -> Side | None:
    start = pool.starts.get(observed.target.name)
    if observed.observation is None or not isinstance(start, Started):
        return None
    under = Under(observed.target.name, observed.target.profile, start.facts)
    verdict = judge(oracle, under, observed.observation)
    return Side(under, observed.observation, verdict, gather(oracle, under, observed.observation, verdict))


def _judge_pairs(oracle: Oracle, settled: Settled, targets: Sequence[Target]) -> None:
    """Every pair in the order of the targets; signatures are held against documents, not each other."""
    settled.sides = {target.name: settled.sides[target.name] for target in targets if target.name in settled.sides}
    if settled.problem.case.kind != "signature":
        for a, b in itertools.combinations(settled.sides, 2):
            settled.pairs[a, b] = judge_pair(oracle, settled.sides[a], settled.sides[b])
