"""A layer carried from one framework to another, as in the port of a trained model: the numbers that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conformance.case import Case
from conformance.crew import NotStarted
from conformance.observation import Observation
from conformance.pool import Pool
from conformance.problem import Problem, from_wire, materialise
from conformance.target import Target


class NothingCarried(Exception):
    """The framework that a case's layer is trained in gave no state: it refused, failed or cannot run."""


def source_of(case: Case, targets: Sequence[Target]) -> Target | None:
    """The target that the case's layer comes from, the first of its framework; None where there is none."""
    wanted = case.spec.carried
    return next((target for target in targets if wanted and target.framework == wanted.source), None)


@dataclass(frozen=True)
class Source:
    """A layer that a case's is carried from: what is asked of which target before the case can be."""

    case: Case
    problem: Problem
    target: Target

    @classmethod
    def of(cls, case: Case, targets: Sequence[Target]) -> Source | None:
        """The one of a case; None where its layer starts from what it says itself, or its source is not among these."""
        source, target = case.source, source_of(case, targets)
        return None if source is None or target is None else cls(case, materialise(source), target)

    def carry(self, pool: Pool, observation: Observation | None) -> Problem:
        """The case's problem, with the state its layer comes with: parameters and statistics as the source held them.

        Raises:
            NothingCarried: the source gave no state.
        """
        place = f"{self.case.id}: {self.target.name}, which its layer comes from,"
        if isinstance(pool.starts.get(self.target.name), NotStarted) or observation is None:
            raise NothingCarried(f"{place} cannot run")
        failure = observation.failure or observation.refusal
        if failure is not None:
            raise NothingCarried(f"{place} failed: {failure.message}")
        last = f"[{len(self.problem.case.spec.steps) - 1}]"
        state = {
            name.removesuffix(last): from_wire(wire)
            for name, wire in observation.tensors.items()
            if name.endswith(last)
        }
        return materialise(self.case, state)


def carried(case: Case, pool: Pool) -> Problem:
    """The case's problem; where its layer is carried over, the source is run first.

    Raises:
        NothingCarried: the source gave no state.
    """
    source = Source.of(case, pool.targets)
    if source is None:
        return materialise(case)
    (observed,) = pool.observe([(source.problem, [source.target])])
    return source.carry(pool, observed.observation)
