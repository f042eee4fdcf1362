"""Who judges: this process and, in long runs, helpers beside it, so that judging keeps up with the frameworks.

A case is judged at one desk. It is that of this process where every helper has enough to do, so that few verdicts are
ever waited for, and where the case is large, as its tensors would have to be sent.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from conformance.comparison import Under
from conformance.desk import Desk, Judged, JudgeSide, Open, PairsJudged, Task
from conformance.process import Process, ProcessError

#: Verdicts that fall here before helpers are started, each of which takes half a second to come up.
ALONE = 100

#: Answers that a helper owes at most before it is given another case.
ENOUGH = 200

#: Elements of a case's inputs at most that a helper is sent.
LARGE = 200_000


class Judges:
    """The desk of this process and those of helpers. As a context manager, it ends the helpers."""

    def __init__(self, helpers: int = 0, wake: Callable[[], None] = lambda: None) -> None:
        """No helper is started yet.

        Args:
            helpers: how many processes may judge beside this one.
            wake: called in another thread when a helper has judged something, which is there to be `taken`.
        """
        self.helpers: list[Helper] = []
        self._desk = Desk()
        self._judged: list[Judged] = []
        self._alone = 0
        self._most = helpers
        self._at: dict[int, Helper] = {}
        self._wake = wake
        self._heard: queue.SimpleQueue[tuple[Helper, bytes | None]] = queue.SimpleQueue()

    def __enter__(self) -> Judges:
        return self

    def __exit__(self, *_: object) -> None:
        for helper in self.helpers:
            helper.process.kill()

    @property
    def helped(self) -> bool:
        """Whether a helper has a case that is not closed."""
        return bool(self._at)

    def give(self, task: Task) -> None:
        """Have a task done: of a case, `Open` is the first and `JudgePairs` the last."""
        if isinstance(task, Open):
            helper = self._free(task)
            if helper is not None:
                self._at[task.index] = helper
        if task.index in self._at:
            self._at[task.index].give(task)
        else:
            self._do(task)

    def taken(self) -> list[Judged]:
        """What was judged since this was asked last, in no order but that of each case."""
        while not self._heard.empty():
            self._hear(*self._heard.get())
        judged, self._judged = self._judged, []
        return judged

    def _free(self, task: Open) -> Helper | None:
        """The helper that the case is best judged by."""
        free = [helper for helper in self.helpers if helper.up and helper.owes < ENOUGH]
        large = sum(call.x.size for call in task.problem.calls) > LARGE
        return None if large else min(free, key=lambda helper: helper.owes, default=None)

    def _do(self, task: Task) -> None:
        judged = self._desk.do(task)
        if judged is not None:
            self._judged.append(judged)
            self._alone += 1
            if self._alone == ALONE:
                self._start_helpers()

    def _start_helpers(self) -> None:
        def heard(helper: Helper, message: bytes | None) -> None:
            self._heard.put((helper, message))
            self._wake()

        for _ in range(self._most):
            with contextlib.suppress(ProcessError):  # it is judged here then
                self.helpers.append(Helper(heard))

    def _hear(self, helper: Helper, message: bytes | None) -> None:
        if message is None:
            self._take_over(helper)
        elif not message:
            helper.up = True
        else:
            judged = helper.answered(message)
            self._judged.append(judged)
            if isinstance(judged, PairsJudged):
                del self._at[judged.index]

    def _take_over(self, helper: Helper) -> None:
        """A helper has died: its cases are judged here from the beginning, and what it had said of them stands."""
        helper.up = False
        for index, begun in helper.cases.items():
            del self._at[index]
            judged = [found for task in begun.tasks if (found := self._desk.do(task)) is not None]
            self._judged += judged[begun.answers :]
        helper.cases.clear()


@dataclass
class _Begun:
    """A helper's case: what was asked about it, and how much of that is answered."""

    tasks: list[Task]
    answers: int = 0


#: Runs in a helper.
_PROGRAM = """
sys.path[:] = setup["path"]
from conformance.judges import serve
serve(channel)
"""


class Helper:
    """A process that judges.

    Attributes:
        up: whether it can take cases.
        owes: how many answers.
        cases: those it has begun and not closed, by their index.
    """

    def __init__(self, heard: Callable[[Helper, bytes | None], None]) -> None:
        """Start it; `heard` gets an empty word when it is up, its answers, and None when it has died.

        Raises:
            ProcessError: it cannot be.

        """
        self.up = False
        self.owes = 0
        self.cases: dict[int, _Begun] = {}
        self._wire = Wire()
        path = [os.path.abspath(place) for place in sys.path]
        self.process = Process("a judge", _PROGRAM, {"path": path}, lambda message: heard(self, message))

    def give(self, task: Task) -> None:
        """Ask it to do a task."""
        self.cases.setdefault(task.index, _Begun([])).tasks.append(task)
        self.owes += not isinstance(task, Open)
        self.process.send(self._wire.pack(task))

    def answered(self, message: bytes) -> Judged:
        """What it says."""
        judged: Judged = pickle.loads(message)  # noqa: S301 - its own making
        self.cases[judged.index].answers += 1
        self.owes -= 1
        if isinstance(judged, PairsJudged):
            del self.cases[judged.index]
        return judged


class Wire:
    """One end of the way to a helper, along which tasks go as bytes; what is known of a target crosses once."""

    def __init__(self) -> None:
        self._known: list[Under] = []

    def pack(self, task: Task) -> bytes:
        """A task as bytes."""
        file = io.BytesIO()
        pickler = _Pickler(file, protocol=5)
        pickler.known = self._known
        # A problem has worked out what its workers are asked, which a judge has no use for.
        pickler.dump(Open(task.index, replace(task.problem)) if isinstance(task, Open) else task)
        self._note(task)
        return file.getvalue()

    def unpack(self, message: bytes) -> Task:
        """A task that the other end has packed, in the same order."""
        unpickler = _Unpickler(io.BytesIO(message))
        unpickler.known = self._known
        task: Task = unpickler.load()
        self._note(task)
        return task

    def _note(self, task: Task) -> None:
        if isinstance(task, JudgeSide) and all(task.under is not known for known in self._known):
            self._known.append(task.under)


class _Pickler(pickle.Pickler):
    known: list[Under]

    def persistent_id(self, value: Any) -> int | None:
        if isinstance(value, Under):
            return next((number for number, known in enumerate(self.known) if known is value), None)
        return None


class _Unpickler(pickle.Unpickler):
    known: list[Under]

    def persistent_load(self, number: int) -> Under:
        return self.known[number]


def serve(channel: Any) -> None:
    """Say that this helper is up, then judge what comes until the channel closes."""
    desk, wire = Desk(), Wire()
    channel.send(b"")
    for message in channel:
        judged = desk.do(wire.unpack(message))
        if judged is not None:
            channel.send(pickle.dumps(judged, protocol=5))
