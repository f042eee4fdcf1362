"""The cause of a mismatch: named alternatives are supposed, one by one and then in pairs, until one explains it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from conformance.catalogue import HYPOTHESES, OF_INFINITE, PRECISION, Hypothesis
from conformance.compare import TensorResult
from conformance.conventions import Conventions

#: Pairs are tried on tensors up to this size, of numbers finer than float64 up to a part of it; dozens of evaluations
#: of a larger one would outlast the run.
PAIR_ELEMENTS = 100_000

#: So many pairs are tried.
PAIRS = 200

#: So many of the closest hypotheses are told of.
TOLD = 5


@dataclass(frozen=True)
class Tried:
    """A hypothesis that was tried, and how many bounds the worst tensor was off under it.

    The bounds are those before it where values were no nearer under it, so that its own were of no interest.
    """

    name: str
    off: float


@dataclass(frozen=True)
class Diagnosis:
    """The simplest explanation found, and its evidence: the worst ratio with it, and what is off without it.

    Attributes:
        tensors: every tensor under it.

    """

    name: str
    sentence: str
    ratio: float
    without: str
    tensors: Mapping[str, TensorResult] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.sentence}: all within {self.ratio:.2g} of the bound (otherwise {self.without})"


#: The evidence of a `Diagnosis` in words, after its sentence.
EVIDENCE = re.compile(r": all within (?P<under>\S+) of the bound \(otherwise (?P<before>[^()]*)\)")


#: Compares a target's tensors with the reference under the conventions given. Those named second are compared first,
#: and where one of them is wrong the others are left out.
Check = Callable[[Conventions, Collection[str]], Mapping[str, TensorResult]]

#: How far some tensors are from what the first conventions make of them, in the bounds of the second.
Nearer = Callable[[Conventions, Conventions, Collection[str]], float]


class Search:
    """The hypotheses supposed of one target's tensors, and what came of each.

    A hypothesis that moves no tensor explains nothing. One that changes values and takes less than half of the error
    away, measured by the bounds before, explains nothing either: where rounding alone is a little over its bound, some
    small change always brings it back, and one that makes the bound of a tensor huge admits whatever was returned.

    Args:
        base: the conventions the target was held to.
        nearer: how far values are from what it makes of them, in the bounds before, which takes a fraction of the time
            of its own bounds and is asked first; not asked if None.
        screen: the same search of the channel that is furthest off alone: what does not explain that explains
            nothing, and is not supposed of all of a large case.
    """

    def __init__(
        self, base: Conventions, check: Check, nearer: Nearer | None = None, screen: Search | None = None
    ) -> None:
        self.base = base
        self.check = check
        self.nearer = nearer
        self.screen = screen
        self._found: dict[str, float] = {}
        self._results: dict[Hypothesis, Mapping[str, TensorResult]] = {}
        self._no_nearer: dict[str, float] = {}

    @cached_property
    def start(self) -> Mapping[str, TensorResult]:
        """The tensors as they were found wanting."""
        return self.check(self.base, ())

    @cached_property
    def failing(self) -> set[str]:
        """The tensors out of bound."""
        return {name for name, result in self.start.items() if not result.ok}

    def one(self, catalogue: Sequence[Hypothesis] = HYPOTHESES) -> Diagnosis | None:
        """The first hypothesis under which every tensor is within its strict bound; None if none is.

        Those that cannot move every tensor that is out of bound are not tried.
        """
        wanted = {name.partition("[")[0] for name in self.failing}
        for hypothesis in catalogue:
            if not (wanted <= hypothesis.reach and self._may_explain(hypothesis)):
                continue
            if self._explains(self._single(hypothesis), [hypothesis]):
                return self.diagnosis(self._single(hypothesis), hypothesis)
        return None

    def two(self, catalogue: Sequence[Hypothesis], *, blank: bool = False) -> Diagnosis | None:
        """The first two hypotheses, rarely three, under which, taken together, every tensor is within its strict bound.

        What one of the two alone moves should be right under that one already, unless the other bears on it; pairs of
        which the fewest tensors contradict that are tried first, and no more than `PAIRS` of them. Before all come
        those of which one makes something infinite and `OF_INFINITE`, one or two of them, another one of that. Two that
        only widen bounds are no explanation: together they admit too much.

        Args:
            catalogue: what is supposed.
            blank: all that is out of bound is NaN throughout, to which too many others come that have nothing to do
                with each other.
        """
        moved = {}
        for hypothesis in catalogue:
            if hypothesis.reach.isdisjoint(name.partition("[")[0] for name in self.failing):
                continue
            names = {name for name, result in self._single(hypothesis).items() if result != self.start.get(name)}
            if names:
                moved[hypothesis] = names
        wrong = {h: {name for name, result in self._single(h).items() if not result.ok} for h in moved}
        candidates: list[tuple[int, tuple[Hypothesis, ...]]] = []
        idle = [h for h in OF_INFINITE if h in catalogue and h not in moved]
        beside = [(h,) for h in idle] + list(itertools.combinations(idle, 2))
        for hypothesis, names in moved.items():
            if self.failing <= names and any(self._single(hypothesis)[name].infinite for name in self.failing):
                candidates += [(0, (hypothesis, *others)) for others in beside]
        for a, b in itertools.combinations(moved, 2) if not blank else ():
            exclusive = a.changes.keys() & b.changes.keys() or (a in PRECISION and b in PRECISION)
            if not exclusive and self.failing <= moved[a] | moved[b]:
                contradicting = ((moved[a] - moved[b]) & wrong[a]) | ((moved[b] - moved[a]) & wrong[b])
                candidates.append((len(contradicting), (a, b)))
        for _, supposed in sorted(candidates, key=lambda candidate: candidate[0])[:PAIRS]:
            results = self.check(self._under(supposed), self.failing)
            if self._explains(results, supposed) and self._nears(supposed):
                found = self.diagnosis(results, *supposed)
                self._found[found.name] = found.ratio
                return found
        return None

    @property
    def tried(self) -> tuple[Tried, ...]:
        """The hypotheses that came closest, the closest first; those that moved nothing are left out.

        Of pairs only the one that explains all is among them.
        """
        singles = dict(self._no_nearer)
        singles |= {h.name: worst(results) for h, results in self._results.items() if results != self.start}
        if self.screen is not None:
            singles = {each.name: each.off for each in self.screen.tried} | singles
        closest = sorted((singles | self._found).items(), key=lambda item: item[1])
        return tuple(Tried(name, off) for name, off in closest[:TOLD])

    def _single(self, hypothesis: Hypothesis) -> Mapping[str, TensorResult]:
        if hypothesis not in self._results:
            new = self._is_new(hypothesis)
            self._results[hypothesis] = self.check(self._under([hypothesis]), ()) if new else self.start
        return self._results[hypothesis]

    def _is_new(self, hypothesis: Hypothesis) -> bool:
        return any(getattr(self.base, field) != value for field, value in hypothesis.changes.items())

    def _under(self, supposed: Sequence[Hypothesis]) -> Conventions:
        return self.base.but(**{field: value for each in supposed for field, value in each.changes.items()})

    def _may_explain(self, hypothesis: Hypothesis) -> bool:
        """Whether nothing that is soon known speaks against it."""
        if not self._is_new(hypothesis):
            return False
        if self.screen is None or not self._under([hypothesis]).by_channel:
            return self._nears([hypothesis])
        screen = self.screen
        return screen._may_explain(hypothesis) and screen._explains(screen._single(hypothesis), [hypothesis])

    def _explains(self, results: Mapping[str, TensorResult], supposed: Sequence[Hypothesis]) -> bool:
        """Whether every tensor is within its bound, and the worst less than half as far off; `_nears` asks the rest."""
        if results is self.start or not all(result.ok for result in results.values()):
            return False
        return _of_precision(supposed) or worst(results) <= worst(self.start) / 2

    def _nears(self, supposed: Sequence[Hypothesis]) -> bool:
        """Whether the values that were out of bound are less than half as far off, in the bounds before."""
        half = worst(self.start) / 2
        if self.nearer is None or _of_precision(supposed) or half == math.inf:
            return True
        off = self.nearer(self._under(supposed), self.base, self.failing)
        if len(supposed) == 1 and off > half and off != 2 * half:
            self._no_nearer[supposed[0].name] = off
        return off <= half

    def diagnosis(self, results: Mapping[str, TensorResult], *supposed: Hypothesis) -> Diagnosis:
        """What hypotheses explain that were supposed together."""
        name = "+".join(hypothesis.name for hypothesis in supposed)
        sentence = ", and ".join(hypothesis.sentence for hypothesis in supposed)
        return Diagnosis(name, sentence, worst(results), words(self.start), results)


def _of_precision(supposed: Sequence[Hypothesis]) -> bool:
    """Whether hypotheses change bounds, and no values."""
    return all(hypothesis in PRECISION for hypothesis in supposed)


def worst(results: Mapping[str, TensorResult]) -> float:
    """The largest error as a fraction of its bound, infinite where something else is wrong."""
    return max((result.off for result in results.values()), default=0.0)


def words(results: Mapping[str, TensorResult]) -> str:
    """The worst tensor and what is wrong with it."""
    name, result = max(results.items(), key=lambda item: item[1].off)
    if result.problem is not None:
        return f"{name} {result.problem}"
    at = "" if not result.worst_index else f" at {list(result.worst_index)}"
    return f"{name} is {'infinitely many' if result.off == math.inf else f'{result.off:.3g}'} bounds off{at}"
