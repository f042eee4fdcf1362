"""A layer carried from one framework to another, as in the port of a trained model: the numbers that it starts from."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.case import Case
from conformance.crew import NotStarted
from conformance.pool import Pool
from conformance.problem import Problem, from_wire, materialise
from conformance.target import Target


class NothingCarried(Exception):
    """The framework that a case's layer is trained in gave no state: it refused, failed or cannot run."""


def source_of(case: Case, targets: Sequence[Target]) -> Target | None:
    """The target that the case's layer comes from, the first of its framework; None where there is none."""
    wanted = case.spec.carried
    return next((target for target in targets if wanted and target.framework == wanted.source), None)


def carried(case: Case, pool: Pool) -> Problem:
    """The case's problem, with the state that its layer comes with: parameters and statistics as the source holds them.

    Raises:
        NothingCarried: the source gave no state.
    """
    source, target = case.source, source_of(case, pool.targets)
    if source is None or target is None:
        return materialise(case)
    (observed,) = pool.observe([(materialise(source), [target])])
    observation = observed.observation
    start = pool.starts.get(target.name)
    if isinstance(start, NotStarted) or observation is None:
        raise NothingCarried(f"{case.id}: {target.name}, which its layer comes from, cannot run")
    failure = observation.failure or observation.refusal
    if failure is not None:
        raise NothingCarried(f"{case.id}: {target.name}, which its layer comes from, failed: {failure.message}")
    last = f"[{len(source.spec.steps) - 1}]"
    state = {
        name.removesuffix(last): from_wire(wire) for name, wire in observation.tensors.items() if name.endswith(last)
    }
    return materialise(case, state)
