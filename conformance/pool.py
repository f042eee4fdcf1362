"""Many workers, many cases: a bounded window of cases streams through every target, and no fault stops the others.

A worker that dies or overruns costs the case it was on; it is started again, a limited number of times, and goes on.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from conformance.observation import Failure, Observation, broken, unpack
from conformance.problem import Problem
from conformance.target import Target
from conformance.worker import Worker, WorkerError


@dataclass(frozen=True)
class Limits:
    """What a run allows.

    Attributes:
        start_seconds: for a worker to import its framework.
        case_seconds: for one case.
        restarts: of one target's workers, in a whole run.
        window: cases under way at once.
        window_elements: elements of their tensors, together; one case larger than this goes alone.
        prefetch: cases sent to a worker, the one it is on and those ahead of it.

    """

    start_seconds: float = 180.0
    case_seconds: float = 120.0
    restarts: int = 20
    window: int = 64
    window_elements: int = 50_000_000
    prefetch: int = 2


@dataclass(frozen=True)
class Started:
    """A target's worker is up: the facts it stated."""

    facts: dict[str, str]


@dataclass(frozen=True)
class NotStarted:
    """A target cannot run: it is not here, or (`broken`) its adapter or environment is at fault."""

    message: str
    broken: bool


Start = Started | NotStarted


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


#: What an event settles: the case's index, the target, and what was observed.
Settled = list[tuple[int, Target, Observation | None]]


@dataclass
class _Open:
    """A case under way."""

    problem: Problem
    waiting: set[str]


@dataclass
class _Seat:
    """One worker's place: the process in it now, if any, and the cases it holds."""

    target: Target
    worker: Worker | None = None
    ready: bool = False
    since: float = 0.0
    held: deque[int] = field(default_factory=deque)


class Pool:
    """Workers for some targets. Use it as a context manager: leaving ends every process.

    Attributes:
        starts: what became of each target's start, by the target's name.
        restarts: how often each target's workers were started again.
        asked: number of problems drawn so far, which is the next one's index.

    """

    def __init__(self, targets: Sequence[Target], limits: Limits | None = None, jobs: int = 1) -> None:
        self.targets = tuple(targets)
        self.limits = limits or Limits()
        self.starts: dict[str, Start] = {}
        self.restarts = dict.fromkeys((target.name for target in targets), 0)
        self.asked = 0
        self._events: queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._seats = [_Seat(target) for target in targets for _ in range(jobs)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for seat in self._seats:
            if seat.worker is not None:
                seat.worker.kill()
                seat.worker = None

    def start(self) -> dict[str, Start]:
        """Start every worker and wait until each is up or cannot be."""
        self._launch_all()
        while any(seat.worker is not None and not seat.ready for seat in self._seats):
            self._advance({}, {})
        return self.starts

    def observe(self, asked: Iterable[tuple[Problem, Collection[Target]]]) -> Iterator[Observed]:
        """Run every problem on its targets, yielding each observation as it arrives.

        Workers that were never started are; problems are drawn from `asked` as the window has room.
        """
        self._launch_all()
        coming = enumerate(asked, self.asked)
        opened: dict[int, _Open] = {}
        todo: dict[str, deque[int]] = {target.name: deque() for target in self.targets}
        exhausted = False
        while not self._events.empty():  # what has happened since must not be laid at the door of the next case
            self._advance(opened, todo)
        while True:
            while not exhausted and self._room(opened):
                following = next(coming, None)
                if following is None:
                    exhausted = True
                    break
                index, (problem, targets) = following
                self.asked = index + 1
                for target in targets:
                    todo[target.name].append(index)
                if targets:
                    opened[index] = _Open(problem, {target.name for target in targets})
            if exhausted and not opened:
                return
            self._submit(opened, todo)
            for index, target, observation in self._advance(opened, todo):
                case = opened[index]
                case.waiting.discard(target.name)
                if not case.waiting:
                    del opened[index]
                yield Observed(index, case.problem, target, observation, not case.waiting)

    def _room(self, opened: dict[int, _Open]) -> bool:
        elements = sum(call.x.size for case in opened.values() for call in case.problem.calls)
        return len(opened) < self.limits.window and (elements < self.limits.window_elements)

    def _submit(self, opened: dict[int, _Open], todo: dict[str, deque[int]]) -> None:
        for seat in self._seats:
            line = todo[seat.target.name]
            while seat.ready and seat.worker is not None and line and len(seat.held) < self.limits.prefetch:
                index = line.popleft()
                if not seat.held:
                    seat.since = time.monotonic()
                seat.held.append(index)
                seat.worker.send(request(index, opened[index].problem, seat.target))

    def _launch_all(self) -> None:
        """Launch every worker that never was; one that is down for good has no restart left."""
        for seat in self._seats:
            if seat.worker is None and seat.target.name not in self.starts:
                self._launch(seat)

    def _launch(self, seat: _Seat) -> None:
        seat.ready, seat.since = False, time.monotonic()
        if seat.target.missing:
            self._not_started(seat, seat.target.missing, broken=False)
            return
        try:
            seat.worker = Worker(seat.target, self._events)
        except WorkerError as error:
            self._not_started(seat, str(error), broken=True)

    def _advance(self, opened: dict[int, _Open], todo: dict[str, deque[int]]) -> Settled:
        """Wait for one event or deadline; return the observations it settles."""
        settled = self._abandoned(todo)
        if settled:
            return settled
        try:
            worker, message = self._events.get(timeout=self._patience())
        except queue.Empty:
            return [item for seat in self._seats for item in self._overdue(seat, todo)]
        seat = next((seat for seat in self._seats if seat.worker is worker), None)
        if seat is None:
            return []  # the last words of a worker that was put down
        if message is None:
            return self._ended(seat, todo)
        if not seat.ready:
            return self._greeted(seat, message)
        return self._answered(seat, message, todo)

    def _patience(self) -> float:
        """Seconds until the next deadline; a limit of infinity is one, too, but no wait may be that long."""
        deadlines = [seat.since + self._allowed(seat) for seat in self._seats if self._busy(seat)]
        return min(max(0.0, min(deadlines) - time.monotonic()), 60.0) if deadlines else 1.0

    def _allowed(self, seat: _Seat) -> float:
        return self.limits.case_seconds if seat.ready else self.limits.start_seconds

    def _busy(self, seat: _Seat) -> bool:
        return seat.worker is not None and (not seat.ready or bool(seat.held))

    def _greeted(self, seat: _Seat, hello: dict[str, Any]) -> Settled:
        if "facts" in hello:
            seat.ready, seat.since = True, time.monotonic()
            self.starts[seat.target.name] = Started(dict(hello["facts"]))
            return []
        message = str(hello.get("unavailable") or hello.get("broken") or hello)
        self._not_started(seat, message, broken="unavailable" not in hello)
        return []

    def _answered(self, seat: _Seat, reply: Any, todo: dict[str, deque[int]]) -> Settled:
        if not seat.held:
            return []
        seat.since = time.monotonic()
        index = seat.held.popleft()
        answered = reply.get("id") if isinstance(reply, dict) else reply
        if answered != index:
            self._restart(seat, todo)
            return [(index, seat.target, broken(f"the worker answered {answered!r:.80} when asked for {index}"))]
        return [(index, seat.target, unpack(reply))]

    def _ended(self, seat: _Seat, todo: dict[str, deque[int]]) -> Settled:
        assert seat.worker is not None
        if not seat.ready:
            self._not_started(seat, f"the worker died as it started: {seat.worker.ending()}", broken=True)
            return []
        failure = Failure("WorkerDied", seat.worker.ending())
        settled: Settled = []
        if seat.held:
            settled = [(seat.held.popleft(), seat.target, Observation("crashed", failure=failure))]
        self._restart(seat, todo)
        return settled

    def _overdue(self, seat: _Seat, todo: dict[str, deque[int]]) -> Settled:
        if not self._busy(seat) or time.monotonic() < seat.since + self._allowed(seat) or seat.worker is None:
            return []
        if not seat.ready:
            words = f"the worker was not up after {self.limits.start_seconds:g} s\n{seat.worker.tail()}".rstrip()
            self._not_started(seat, words, broken=True)
            return []
        words = f"no answer within {self.limits.case_seconds:g} s\n{seat.worker.tail()}".rstrip()
        index = seat.held.popleft()
        self._restart(seat, todo)
        return [(index, seat.target, Observation("timeout", failure=Failure("Timeout", words)))]

    def _not_started(self, seat: _Seat, message: str, *, broken: bool) -> None:
        """A worker did not come up: the first time the target cannot run; later it costs a restart."""
        name = seat.target.name
        self._put_down(seat)
        if not isinstance(self.starts.get(name), Started):
            self.starts[name] = NotStarted(message, broken)
        else:
            self._relaunch(seat)

    def _restart(self, seat: _Seat, todo: dict[str, deque[int]]) -> None:
        """Put the seat's worker down, hand its other cases back, and start another while there are restarts left."""
        self._put_down(seat)
        while seat.held:
            todo[seat.target.name].appendleft(seat.held.pop())
        self._relaunch(seat)

    def _relaunch(self, seat: _Seat) -> None:
        name = seat.target.name
        if self.restarts[name] < self.limits.restarts:
            self.restarts[name] += 1
            self._launch(seat)

    def _put_down(self, seat: _Seat) -> None:
        if seat.worker is not None:
            seat.worker.kill()
        seat.worker, seat.ready = None, False

    def _abandoned(self, todo: dict[str, deque[int]]) -> Settled:
        """Cases of a target that has no worker left and gets none."""
        settled: Settled = []
        for target in self.targets:
            line = todo.get(target.name)
            if not line or any(seat.worker is not None for seat in self._seats if seat.target is target):
                continue
            never = isinstance(self.starts.get(target.name), NotStarted)
            lost = None if never else broken(f"given up after {self.limits.restarts} restarts", "NoWorker")
            settled += [(index, target, lost) for index in line]
            line.clear()
        return settled


def request(index: int, problem: Problem, target: Target) -> dict[str, Any]:
    """A problem as the message that a target's worker gets."""
    case = problem.case
    native = None if case.spec.native is None else case.spec.native[target.framework]
    return {"id": index, "native": native, **problem.wire}
