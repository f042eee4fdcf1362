"""A Python process beside this one: started through execnet, spoken to in messages, ended whatever state it is in.

It leads a session of its own: Ctrl-C at the terminal reaches the main process alone, and what it starts ends with it.
Should the main process be killed, it is too, where the system can see to that (Linux). It works in a folder of its own,
which goes with it: frameworks leave files where they stand, and a process that is killed cannot clean up. What it
writes to stdout and stderr goes to a file there, whose tail explains a death.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import execnet

#: Runs first, on any Python from 3.8: leave the user's folder, quiet the streams, pin the threads.
_BOOTSTRAP = """
import contextlib, os, sys, tempfile
setup = channel.receive()
if setup["folder"]:
    with contextlib.suppress(OSError, AttributeError):
        os.setsid()
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
scratch = None if setup["folder"] else tempfile.TemporaryDirectory(prefix="conformance-")
os.chdir(setup["folder"] or scratch.name)
log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.dup2(log, 1)
os.dup2(log, 2)
os.environ.update(setup["environment"])
channel.send({"pid": os.getpid()})
import faulthandler
faulthandler.enable()
"""

#: What the libraries under the frameworks read once, as they are loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

#: How much of a dead process's output is kept, in characters.
TAIL = 2000

#: How long its output may grow before it is cut, in bytes.
OUTPUT_LIMIT = 16_000_000

# faulthandler ends with a list of every compiled module, which would push out what it says of the crash.
_MODULES = re.compile(r"^Extension modules: .*\n?", re.MULTILINE)

_END = object()


class ProcessError(Exception):
    """No process could be started, or it is no Python that execnet can speak to."""


@dataclass(frozen=True)
class Place:
    """Where a process is to run.

    Attributes:
        specification: as execnet has it: where, and with which interpreter.
        words: what is to start as a Python there.
        local: whether that is this machine.
    """

    specification: str = "popen"
    words: str = sys.executable
    local: bool = True


class Process:
    """A process that runs a program on what it is sent, in that order.

    Attributes:
        pid: its number, as it says it; None until it does.
    """

    def __init__(
        self,
        name: str,
        program: str,
        setup: dict[str, Any],
        heard: Callable[[Any], None],
        *,
        threads: str = "1",
        place: Place = Place(),
    ) -> None:
        """Start it.

        Args:
            name: what it is for.
            program: source that finds `channel` and `setup`.
            heard: told of everything it says, in a thread of its own; of None when it has ended.
            threads: that the libraries it loads may take.
            place: where; with this interpreter and on this machine if nothing is said.

        Raises:
            ProcessError: it cannot be.

        """
        self.pid: int | None = None
        self._local = place.local
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="conformance-"))
        except OSError as error:
            raise ProcessError(f"{name} needs a temporary folder: {error.strerror or error}") from error
        self._group = execnet.Group()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def receive(message: Any) -> None:
            if message is _END:
                heard(None)
            elif self.pid is None and isinstance(message, dict) and "pid" in message:
                self.pid = message["pid"]
            else:
                heard(message)

        try:
            self._gateway = self._group.makegateway(place.specification)
            self._channel = self._gateway.remote_exec(_BOOTSTRAP + program)
            folder = str(self._folder) if place.local else ""
            self._channel.send({"folder": folder, "environment": dict.fromkeys(_THREADS, threads), **setup})
            self._channel.setcallback(receive, endmarker=_END)
            threading.Thread(target=self._post, name=f"to {name}", daemon=True).start()
        except Exception as error:  # execnet's own, an AssertionError among them
            self._collect()
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise ProcessError(f"{place.words} does not start as a Python: {reason}") from error

    def send(self, message: Any) -> None:
        """Queue a message. A process that has ended takes it silently; that it has is heard."""
        self._outbox.put(message)

    def _post(self) -> None:
        """Send what is queued. A process that has stopped reading blocks this thread and not the run."""
        while (message := self._outbox.get()) is not None:
            try:
                self._channel.send(message)
            except OSError:  # it has ended, which is heard
                pass
            except Exception as error:
                self._unsent(message, error)

    def _unsent(self, message: Any, error: Exception) -> None:
        """A message could not be sent, for want of memory, say: the process, which would wait for it, is ended."""
        self._strike()

    def kill(self) -> None:
        """End the process and all that it started at once, and forget its output."""
        self._strike()
        self.close()

    def _strike(self) -> None:
        if self._local and self.pid is not None:
            for end in (os.kill, os.killpg):  # it leads its group, unless the system would not have it
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    end(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let the process end, and make it end if it does not within two seconds."""
        self._outbox.put(None)
        with contextlib.suppress(OSError):
            self._channel.close()
        self._collect()

    def _collect(self) -> None:
        """Wait for the process to end, and remove its folder."""
        with contextlib.suppress(RuntimeError):  # execnet takes a thread to wait, and there may be no memory for one
            self._group.terminate(timeout=2.0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def ending(self) -> str:
        """How the process ended, as far as the system tells, and the tail of what it wrote."""
        try:
            self._channel.waitclose(timeout=0.1)
        except execnet.RemoteError as error:  # the harness itself raised
            return str(error)
        except (EOFError, OSError, self._channel.TimeoutError):
            pass
        words = _status(self.pid) if self._local and self.pid is not None else ""
        return "\n".join(part for part in (words or "the process ended", self.tail()) if part)

    def trim(self) -> None:
        """Cut the output off where it has grown large; the process goes on writing at the beginning."""
        with contextlib.suppress(OSError):
            if (self._folder / "log").stat().st_size > OUTPUT_LIMIT:
                os.truncate(self._folder / "log", 0)

    def tail(self) -> str:
        """The last of what the process wrote to stdout and stderr."""
        try:
            with (self._folder / "log").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 16 * TAIL))
                return _MODULES.sub("", file.read().decode(errors="replace"))[-TAIL:].strip()
        except OSError:
            return ""


def _status(pid: int) -> str:
    """The signal or exit status of a child that has ended; it stays for execnet to collect (WNOWAIT)."""
    if not hasattr(os, "waitid"):
        return ""
    for _ in range(50):
        try:
            status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return ""
        if status is not None:
            if status.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
                return f"the process was ended by {signal.Signals(status.si_status).name}"
            return f"the process exited with status {status.si_status}"
        time.sleep(0.01)
    return ""
