"""The main job: cases through targets to verdicts, recorded in the order of the cases as they settle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from conformance.carried import NothingCarried, Source, source_of
from conformance.case import Case
from conformance.comparison import Under
from conformance.crew import Interrupted, Started
from conformance.desk import JudgePairs, JudgeSide, Open, SideJudged
from conformance.judge import Verdict
from conformance.judges import Judges
from conformance.observation import Observation, broken
from conformance.pairs import Agreement, Side
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


def judged(
    cases: Collection[Case], pool: Pool, watch: Watch | None = None, judges: Judges | None = None
) -> Iterator[Settled]:
    """Run and judge every case on every target of the pool that it speaks to, in the order of the cases.

    A case is judged on each target as soon as that target answers; tensors are held only while a case is under way.

    Args:
        watch: told of every verdict.
        judges: who judge, this process alone if none are given; they wake the pool.

    Raises:
        Interrupted: the pool was told to stop; what was judged of the cases under way is yielded before.

    """
    carrying = Carrying(cases, pool)
    session = _Session(pool, judges or Judges(), watch)
    following = itertools.count(pool.asked + len(carrying.sources))
    expected = next(following)
    try:
        for observed in pool.events(carrying.asked(), lambda: session.judges.helped):
            if observed is not None and not carrying.took(observed):
                session.give(observed, carrying.failures.get(observed.problem.case.id))
            session.take()
            while expected in session.done:
                yield session.done.pop(expected)
                expected = next(following)
    except Interrupted:
        session.take()
        yield from session.left()
        raise


class _Session:
    """Cases between observation and judgement.

    Attributes:
        done: cases of which everything is judged, by their index.
    """

    def __init__(self, pool: Pool, judges: Judges, watch: Watch | None) -> None:
        self.done: dict[int, Settled] = {}
        self.judges = judges
        self._pool, self._watch = pool, watch
        self._opened: dict[int, Settled] = {}
        self._waiting: dict[tuple[int, str], tuple[Under, Observation]] = {}
        self._unders: dict[str, Under] = {}
        self._targets = {target.name: target for target in pool.targets}

    def give(self, observed: Observed, failed: Observation | None) -> None:
        """Have judged what was observed, or what stands for it."""
        index, problem = observed.index, observed.problem
        if index not in self._opened:
            self._opened[index] = Settled(problem)
            self.judges.give(Open(index, problem))
        observation, under = failed or observed.observation, self._under(observed.target)
        if observation is not None and under is not None:
            self._waiting[index, under.name] = under, observation
            self.judges.give(JudgeSide(index, under, observation))
        if observed.last:
            self.judges.give(JudgePairs(index, tuple(self._targets)))

    def _under(self, target: Target) -> Under | None:
        """The target as it started; the same one as long as that has not changed."""
        start = self._pool.starts.get(target.name)
        if not isinstance(start, Started):
            return None
        known = self._unders.get(target.name)
        if known is None or known.facts is not start.facts:
            known = self._unders[target.name] = Under(target.name, target.profile, start.facts)
        return known

    def take(self) -> None:
        """Take what was judged."""
        for judged in self.judges.taken():
            settled = self._opened[judged.index]
            if isinstance(judged, SideJudged):
                under, observation = self._waiting.pop((judged.index, judged.target))
                settled.sides[judged.target] = Side(under, observation, judged.verdict, judged.evidence)
                if self._watch is not None:
                    self._watch(settled.problem.case, self._targets[judged.target], judged.verdict)
            else:
                settled.pairs = dict(judged.pairs)
                self.done[judged.index] = self._ordered(self._opened.pop(judged.index))

    def _ordered(self, settled: Settled) -> Settled:
        settled.sides = {name: settled.sides[name] for name in self._targets if name in settled.sides}
        return settled

    def left(self) -> Iterator[Settled]:
        """What was judged and not handed on, in the order of the cases; pairs of whole cases alone."""
        partly = {index: self._ordered(settled) for index, settled in self._opened.items() if settled.sides}
        left = self.done | partly
        yield from (left[index] for index in sorted(left))


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
