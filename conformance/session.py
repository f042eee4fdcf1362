"""The main job: cases through targets to verdicts, recorded in the order of the cases as they settle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from conformance.carried import NothingCarried, Source, source_of
from conformance.case import Case
from conformance.comparison import Comparison, Under
from conformance.crew import Interrupted, Started
from conformance.evidence import gather
from conformance.judge import Verdict, judge
from conformance.observation import Observation, broken
from conformance.oracle import Oracle
from conformance.pairs import Agreement, Side, judge_pair
from conformance.pool import Observed, Pool
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
    """The targets that a case speaks to; none where the one is missing that its layer is carried from."""
    if case.source is not None and source_of(case, targets) is None:
        return []
    return [target for target in targets if case.frameworks is None or target.framework in case.frameworks]


def judged(cases: Collection[Case], pool: Pool, watch: Watch | None = None) -> Iterator[Settled]:
    """Run and judge every case on every target of the pool that it speaks to, in the order of the cases.

    A case is judged on each target as soon as that target answers; tensors are held only while a case is under way.

    Raises:
        Interrupted: the pool was told to stop; what was judged of the cases under way is yielded before.

    """
    carrying = Carrying(cases, pool)
    opened: dict[int, tuple[Oracle, Settled]] = {}
    done: dict[int, Settled] = {}
    following = itertools.count(pool.asked + len(carrying.sources))
    expected = next(following)
    try:
        for observed in pool.observe(carrying.asked()):
            if carrying.took(observed):
                continue
            if observed.index not in opened:
                opened[observed.index] = (Oracle(observed.problem), Settled(observed.problem))
            oracle, settled = opened[observed.index]
            failed = carrying.failures.get(observed.problem.case.id)
            side = _side(oracle, pool, observed.target, failed or observed.observation)
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
    except Interrupted:
        for index, (oracle, settled) in opened.items():
            if settled.sides:
                _judge_pairs(oracle, settled, pool.targets)
                done[index] = settled
        for index in sorted(done):
            yield done[index]
        raise


class Carrying:
    """Cases as they are asked, before them the layers that some are carried from, so that nobody waits for these.

    Attributes:
        sources: of the cases whose layers are carried, by the case's id.
        failures: what stands for every observation of a case whose layer's source gave no state.

    """

    def __init__(self, cases: Collection[Case], pool: Pool) -> None:
        self._cases, self._pool = cases, pool
        found = (Source.of(case, pool.targets) for case in cases if case.spec.carried is not None)
        self.sources = {source.case.id: source for source in found if source is not None}
        self._problems: dict[str, Problem] = {}
        self.failures: dict[str, Observation] = {}

    def asked(self) -> Iterator[tuple[Problem, Collection[Target]] | None]:
        """What the pool is asked; None for as long as the next case's layer has not come."""
        yield from ((source.problem, [source.target]) for source in self.sources.values())
        for case in self._cases:
            targets = targets_of(case, self._pool.targets)
            if targets:
                while case.id in self.sources and case.id not in self._problems:
                    yield None
                yield self._problems.pop(case.id) if case.id in self.sources else materialise(case), targets

    def took(self, observed: Observed) -> bool:
        """Whether that was a source's; if so, its case can be asked."""
        source = self.sources.get(observed.problem.case.id)
        if source is None or observed.problem is not source.problem:
            return False
        try:
            problem = source.carry(self._pool, observed.observation)
        except NothingCarried as error:
            problem = materialise(source.case)
            self.failures[source.case.id] = broken(str(error), "NothingCarried")
        self._problems[source.case.id] = problem
        return True


def _side(oracle: Oracle, pool: Pool, target: Target, observation: Observation | None) -> Side | None:
    start = pool.starts.get(target.name)
    if observation is None or not isinstance(start, Started):
        return None
    under = Under(target.name, target.profile, start.facts)
    comparison = Comparison(oracle, under, observation)
    verdict = judge(comparison)
    side = Side(under, observation, verdict, gather(comparison, verdict))
    if verdict.tried:
        oracle.forget()
    return side


def _judge_pairs(oracle: Oracle, settled: Settled, targets: Sequence[Target]) -> None:
    """Every pair in the order of the targets; signatures are held against documents, not each other."""
    settled.sides = {target.name: settled.sides[target.name] for target in targets if target.name in settled.sides}
    if settled.problem.case.kind != "signature":
        for a, b in itertools.combinations(settled.sides, 2):
            settled.pairs[a, b] = judge_pair(oracle, settled.sides[a], settled.sides[b])
