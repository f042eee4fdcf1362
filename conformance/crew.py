"""The workers of some targets: each in a place, given cases, watched, and replaced where it falls.

A worker that dies or overruns costs the case it was on; it is started again, a limited number of times, and goes on.
One that dies as it first comes up may have been struck down by something else, and has two more attempts. Where a
target has run out of cases and a CPU is free, its place goes to the target that would be the last.
"""

from __future__ import annotations

import math
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from conformance.observation import Failure, Observation, broken, unpack
from conformance.process import ProcessError
from conformance.target import Target
from conformance.worker import Events, Worker


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Limits:
    """What a run allows.

    Attributes:
        start_seconds: for a worker to import its framework.
        case_seconds: for one case.
        restarts: of one target's workers, in a whole run.
        attempts: to start a target whose workers die as they come up, before it is said not to run.
        window: cases under way at once.
        window_elements: elements of their inputs, together; one case larger than this goes alone.
        prefetch: cases sent to a worker at least, the one it is on and those ahead of it.
        prefetch_most: and at most, where four times as many wait: a large case takes seconds to judge.
        cpus: a target's place goes to another only while fewer workers than this are busy.
        worth: and only if the other has more to do than so many times what it took to start.

    """

    start_seconds: float = 180.0
    case_seconds: float = 120.0
    restarts: int = 20
    attempts: int = 3
    window: int = 1_024
    window_elements: int = 20_000_000
    prefetch: int = 16
    prefetch_most: int = 128
    cpus: int = field(default_factory=cpus)
    worth: float = 3.0


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

#: What an event settles: the case's index, the target, and what was observed.
Settled = list[tuple[int, Target, Observation | None]]


@dataclass
class _Seat:
    """One worker's place: the process in it now, if any, the cases it holds, and the one it answered last.

    It is `home`'s; `target` is another that it was given to.
    """

    home: Target
    target: Target
    worker: Worker | None = None
    ready: bool = False
    answered: int | None = None
    since: float = 0.0
    held: deque[int] = field(default_factory=deque)

    @property
    def lent(self) -> bool:
        return self.target is not self.home


@dataclass
class _Pace:
    """How fast a target is: seconds to start, and of the cases it has answered."""

    start: float = 0.0
    busy: float = 0.0
    cases: int = 0

    def seconds(self, cases: int) -> float:
        """What so many more cases should take one worker."""
        return cases * self.busy / self.cases if self.cases else 0.0


class Interrupted(Exception):
    """The pool was asked to stop; see `Pool.interrupt`."""


class Crew:
    """Workers of some targets, the cases that wait for them, and the time that they may take.

    Attributes:
        targets: whose workers these are.
        limits: what they are allowed.
        starts: what became of each target's start, by the target's name.
        restarts: how often each target's workers were started again.

    """

    def __init__(
        self, targets: Sequence[Target], limits: Limits, jobs: int, request: Callable[[int, Target], dict[str, Any]]
    ) -> None:
        """Nobody is launched yet.

        Args:
            jobs: places of each target.
            request: a case's index and a target → the message that the target's worker gets.
        """
        self.targets = tuple(targets)
        self.limits = limits
        self.starts: dict[str, Start] = {}
        self.restarts = dict.fromkeys((target.name for target in targets), 0)
        self._request = request
        self._lines: dict[str, deque[int]] = {target.name: deque() for target in targets}
        self._events: Events = queue.SimpleQueue()
        self._seats = [_Seat(target, target) for target in targets for _ in range(jobs)]
        self._paces = {target.name: _Pace() for target in targets}
        self._why = ""  # the latest restart
        self._interrupted = False
        self._looked = time.monotonic()

    @property
    def workers(self) -> list[Worker]:
        """Those whose processes were started and not put down."""
        return [seat.worker for seat in self._seats if seat.worker is not None]

    @property
    def coming_up(self) -> bool:
        """Whether a worker was launched that has not said yet whether it can run."""
        return any(seat.worker is not None and not seat.ready for seat in self._seats)

    def interrupt(self) -> None:
        """Make what waits raise `Interrupted` instead; a signal handler may call this."""
        self._interrupted = True
        self.wake()

    def wake(self) -> None:
        """Make what waits go on; any thread may call this."""
        self._events.put((None, None))

    def dismiss(self) -> None:
        """End every process."""
        for seat in self._seats:
            self._put_down(seat)

    def launch(self) -> None:
        """Launch every worker that never was, and those of lent places; one down for good has no restart left.

        It waits for none to come up.
        """
        for seat in self._seats:
            if seat.lent:
                self._put_down(seat)
                seat.target = seat.home
                self._launch(seat)
            elif seat.worker is None and seat.target.name not in self.starts:
                self._launch(seat)

    def line_up(self, index: int, targets: Collection[Target]) -> None:
        """Have a case wait for a worker of each of these targets."""
        for target in targets:
            self._lines[target.name].append(index)

    def turn(self, *, wait: bool) -> Settled:
        """Take all that has happened, and see that no worker runs out of cases: judging is slower than most layers."""
        settled: Settled = []
        while True:
            self._submit()
            settled += self.advance(wait=wait and not settled)
            if self._events.empty():
                self._submit()
                return settled

    def _submit(self) -> None:
        for seat in self._seats:
            line = self._lines[seat.target.name]
            while seat.ready and seat.worker is not None and line and len(seat.held) < self._ahead(len(line)):
                index = line.popleft()
                if not seat.held:
                    seat.since = time.monotonic()
                seat.held.append(index)
                seat.worker.send(self._request(index, seat.target))

    def _ahead(self, waiting: int) -> int:
        """How many cases a worker may hold; few where few are left, as another may be lent to take them over."""
        return max(self.limits.prefetch, min(self.limits.prefetch_most, waiting // 4))

    def lend(self) -> None:
        """Give the place of a target that has no case left to the one that would be last, where that saves time."""
        for seat in self._seats:
            if not seat.ready or seat.held or self._lines[seat.target.name]:
                continue
            if sum(map(self._busy, self._seats)) >= self.limits.cpus:
                return
            left = {target.name: self._left(target) for target in self.targets if target.host is None}
            last = max(self.targets, key=lambda target: left.get(target.name, 0.0))
            if left.get(last.name, 0.0) <= self.limits.worth * self._paces[last.name].start:
                return
            self._put_down(seat)
            seat.target = last
            self._launch(seat)

    def _left(self, target: Target) -> float:
        """Seconds until a target's workers are done; those that come up count as if they were up."""
        workers = sum(seat.target is target and seat.worker is not None for seat in self._seats)
        return self._paces[target.name].seconds(len(self._lines[target.name])) / max(workers, 1)

    def _launch(self, seat: _Seat) -> None:
        seat.ready, seat.answered, seat.since = False, None, time.monotonic()
        if seat.target.missing:
            self._not_started(seat, seat.target.missing, broken=False)
            return
        try:
            seat.worker = Worker(seat.target, self._events)
        except ProcessError as error:
            self._not_started(seat, str(error), broken=True)

    def advance(self, *, wait: bool = True) -> Settled:
        """Take one event, or wait for one or for a deadline; return the observations it settles."""
        if self._interrupted:
            raise Interrupted
        settled = self._abandoned()
        if settled:
            return settled
        self._look()
        try:
            worker, message = self._events.get(timeout=self._patience() if wait else 0)
        except queue.Empty:
            return [item for seat in self._seats for item in self._overdue(seat)]
        seat = next((seat for seat in self._seats if seat.worker is worker), None)
        if seat is None or worker is None:
            return []  # the last words of a worker that was put down, or it was woken
        if message is None:
            return self._ended(seat)
        if not seat.ready:
            return self._greeted(seat, message)
        return self._answered(seat, message)

    def _look(self) -> None:
        """Once a second, see that no worker's output fills the disk."""
        if time.monotonic() - self._looked >= 1.0:
            self._looked = time.monotonic()
            for seat in self._seats:
                if seat.worker is not None:
                    seat.worker.trim()

    def _patience(self) -> float:
        """Seconds until the next deadline, or until it is time to look what the workers have written."""
        deadlines = [seat.since + self._allowed(seat) for seat in self._seats if self._busy(seat)]
        return min(max(0.0, min(deadlines, default=math.inf) - time.monotonic()), 1.0)

    def _allowed(self, seat: _Seat) -> float:
        return self.limits.case_seconds if seat.ready else self.limits.start_seconds

    def _busy(self, seat: _Seat) -> bool:
        return seat.worker is not None and (not seat.ready or bool(seat.held))

    def _greeted(self, seat: _Seat, hello: Any) -> Settled:
        said = hello if isinstance(hello, dict) else {}
        if isinstance(said.get("facts"), dict):
            pace, now = self._paces[seat.target.name], time.monotonic()
            pace.start, seat.ready, seat.since = now - seat.since, True, now
            self.starts[seat.target.name] = Started({str(name): str(fact) for name, fact in said["facts"].items()})
            return []
        message = str(said.get("unavailable") or said.get("broken") or f"the worker's first word was {hello!r:.80}")
        self._not_started(seat, message, broken="unavailable" not in said)
        return []

    def _answered(self, seat: _Seat, reply: Any) -> Settled:
        answered = reply.get("id") if isinstance(reply, dict) else reply
        if not seat.held or answered == seat.answered:  # which is no fault of the case that follows
            self._restart(seat, f"the worker answered {answered!r:.80} unasked")
            return []
        pace, now = self._paces[seat.target.name], time.monotonic()
        pace.busy, pace.cases, seat.since = pace.busy + now - seat.since, pace.cases + 1, now
        seat.answered = index = seat.held.popleft()
        if answered != index:
            words = f"the worker answered {answered!r:.80} when asked for {index}"
            self._restart(seat, words)
            return [(index, seat.target, broken(words))]
        return [(index, seat.target, unpack(reply))]

    def _ended(self, seat: _Seat) -> Settled:
        assert seat.worker is not None
        if not seat.ready:
            words = f"the worker died as it started: {seat.worker.ending()}"
            if seat.target.name not in self.starts and self.restarts[seat.target.name] < self.limits.attempts - 1:
                self._restart(seat, words)
            else:
                self._not_started(seat, words, broken=True)
            return []
        failure = Failure("WorkerDied", seat.worker.ending())
        settled: Settled = []
        if seat.held:
            settled = [(seat.held.popleft(), seat.target, Observation("crashed", failure=failure))]
        self._restart(seat, failure.message)
        return settled

    def _overdue(self, seat: _Seat) -> Settled:
        if not self._busy(seat) or time.monotonic() < seat.since + self._allowed(seat) or seat.worker is None:
            return []
        if not seat.ready:
            words = f"the worker was not up after {self.limits.start_seconds:g} s\n{seat.worker.tail()}".rstrip()
            self._not_started(seat, words, broken=True)
            return []
        words = f"no answer within {self.limits.case_seconds:g} s\n{seat.worker.tail()}".rstrip()
        index = seat.held.popleft()
        self._restart(seat, words)
        return [(index, seat.target, Observation("timeout", failure=Failure("Timeout", words)))]

    def _not_started(self, seat: _Seat, message: str, *, broken: bool) -> None:
        """A worker did not come up: the first time the target cannot run; later it costs a restart.

        One in a lent place is not tried again: the others go on without it.
        """
        name = seat.target.name
        self._put_down(seat)
        if not isinstance(self.starts.get(name), Started):
            self.starts[name] = NotStarted(message, broken)
        elif not seat.lent:
            self._relaunch(seat, message)

    def _restart(self, seat: _Seat, why: str) -> None:
        """Put the seat's worker down, hand its other cases back, and start another while there are restarts left."""
        self._put_down(seat)
        while seat.held:
            self._lines[seat.target.name].appendleft(seat.held.pop())
        self._relaunch(seat, why)

    def _relaunch(self, seat: _Seat, why: str) -> None:
        name = seat.target.name
        self._why = why
        if self.restarts[name] < self.limits.restarts:
            self.restarts[name] += 1
            self._launch(seat)

    def _put_down(self, seat: _Seat) -> None:
        if seat.worker is not None:
            seat.worker.kill()
        seat.worker, seat.ready = None, False

    def _abandoned(self) -> Settled:
        """Cases of a target that has no worker left and gets none."""
        settled: Settled = []
        for target in self.targets:
            line = self._lines[target.name]
            if not line or any(seat.worker is not None for seat in self._seats if seat.target is target):
                continue
            never = isinstance(self.starts.get(target.name), NotStarted)
            words = f"given up after {self.limits.restarts} restarts; the latest: {self._why}"
            lost = None if never else broken(words, "NoWorker")
            settled += [(index, target, lost) for index in line]
            line.clear()
        return settled
