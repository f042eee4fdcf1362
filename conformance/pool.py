"""Many workers, many cases: a bounded window of cases streams through every target, and no fault stops the others.

The window is wide, and all that has happened is taken before one observation is handed on, so that no target waits for
another or for the judge: MindSpore's threads spin for 0.2 s wherever they have to wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from conformance.crew import Crew, Limits, Start
from conformance.observation import Observation
from conformance.problem import Problem
from conformance.target import Target
from conformance.worker import Worker


@dataclass(frozen=True)
class Observed:
    """One case was observed on one target, or could not be (None) because the target cannot run here.

    `last` when it was the last target that the case was waiting for.
    """

    index: int
    problem: Problem
    target: Target
    observation: Observation | None
    last: bool


@dataclass
class _Open:
    """A case under way."""

    problem: Problem
    waiting: set[str]

    @cached_property
    def elements(self) -> int:
        """Elements of its inputs."""
        return sum(call.x.size for call in self.problem.calls)


class Pool:
    """Workers for some targets. Use it as a context manager: leaving ends every process.

    Attributes:
        asked: number of problems drawn so far, which is the next one's index.
        working: whether it is entered, and will see that it is interrupted.

    """

    def __init__(self, targets: Sequence[Target], limits: Limits | None = None, jobs: int = 1) -> None:
        self._crew = Crew(targets, limits or Limits(), jobs, self._request)
        self._opened: dict[int, _Open] = {}
        self.asked = 0
        self.working = False

    def __enter__(self) -> Pool:
        self.working = True
        return self

    def __exit__(self, *_: object) -> None:
        self.working = False
        self._crew.dismiss()

    @property
    def targets(self) -> tuple[Target, ...]:
        """In the order given."""
        return self._crew.targets

    @property
    def starts(self) -> dict[str, Start]:
        """What became of each target's start, by the target's name."""
        return self._crew.starts

    @property
    def restarts(self) -> dict[str, int]:
        """How often each target's workers were started again."""
        return self._crew.restarts

    @property
    def workers(self) -> list[Worker]:
        """Those that were launched and not put down."""
        return self._crew.workers

    def interrupt(self) -> None:
        """Make `start` and `observe` raise `Interrupted` instead of waiting on; a signal handler may call this."""
        self._crew.interrupt()

    def wake(self) -> None:
        """Make `events` yield None where it waits; any thread may call this."""
        self._crew.wake()

    def launch(self) -> None:
        """Launch every worker that never was, and those of lent places; it waits for none to come up."""
        self._crew.launch()

    def start(self) -> dict[str, Start]:
        """Start every worker and wait until each is up or cannot be."""
        self.launch()
        while self._crew.coming_up:
            self._crew.advance()
        return self.starts

    def observe(self, asked: Iterable[tuple[Problem, Collection[Target]] | None]) -> Iterator[Observed]:
        """Run every problem on its targets, yielding each observation as it arrives.

        Workers that were never started are; problems are drawn from `asked` as the window has room. None stands for one
        that is not known before another, which is under way, is observed.

        Raises:
            Interrupted: `interrupt` was called.

        """
        return filter(None, self.events(asked))

    def events(
        self, asked: Iterable[tuple[Problem, Collection[Target]] | None], more: Callable[[], bool] = lambda: False
    ) -> Iterator[Observed | None]:
        """As `observe`, and None whenever it was woken; it goes on waiting while there is to be `more`.

        Raises:
            Interrupted: `interrupt` was called.

        """
        self.launch()
        coming = iter(asked)
        opened, limits = self._opened, self._crew.limits
        settled: deque[tuple[int, Target, Observation | None]] = deque()
        exhausted, elements = False, 0
        self._crew.turn(wait=False)  # what has happened since must not be laid at the door of the next case
        while True:
            drawing = not exhausted and len(opened) < limits.window and elements < limits.window_elements
            if drawing:
                try:
                    following = next(coming)
                except StopIteration:
                    exhausted, following = True, None
                drawing = following is not None
                if following is not None:
                    problem, targets = following
                    index, self.asked = self.asked, self.asked + 1
                    if targets:
                        opened[index] = _Open(problem, {target.name for target in targets})
                        elements += opened[index].elements
                        self._crew.line_up(index, targets)
            if exhausted:
                if not opened and not more():
                    return
                self._crew.lend()
            settled.extend(self._crew.turn(wait=not drawing and not settled))
            if settled:
                index, target, observation = settled.popleft()
                case = opened[index]
                case.waiting.discard(target.name)
                if not case.waiting:
                    elements -= opened.pop(index).elements
                yield Observed(index, case.problem, target, observation, not case.waiting)
            else:
                yield None

    def _request(self, index: int, target: Target) -> dict[str, Any]:
        return request(index, self._opened[index].problem, target)


def request(index: int, problem: Problem, target: Target) -> dict[str, Any]:
    """A problem as the message that a target's worker gets."""
    case = problem.case
    native = None if case.spec.native is None else case.spec.native[target.framework]
    return {"id": index, "native": native, **problem.wire}
