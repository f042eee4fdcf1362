"""Signals while a run goes on: the first stops it between two verdicts, the second at once, a third drops it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

from conformance.pool import Pool

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interruption:
    """Takes the signals that end a process, as a context manager; a pool that is at work is asked to stop.

    Attributes:
        pool: what it asks to stop.
        number: the signal that came first; None while none has.

    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.number: signal.Signals | None = None
        self._shielded = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def shield(self) -> None:
        """From now on what was judged is being saved, which takes a moment: only a further signal breaks it off."""
        self._shielded = True

    def _arrived(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number = signal.Signals(number)
            if self.pool.working:
                self.pool.interrupt()
            elif not self._shielded:
                sys.exit(128 + number)
        elif not self._shielded:
            sys.exit(128 + number)
        else:
            os._exit(128 + number)  # workers end with this process
