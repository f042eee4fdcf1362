"""One target's process: its framework, its adapter and the harness.

It gets the harness and the adapter as source, so any interpreter with NumPy and the framework will do.
"""

from __future__ import annotations

import queue
import shlex
from pathlib import Path
from typing import Any

from conformance import harness
from conformance.process import Place, Process, ProcessError
from conformance.target import Target, interpreter

#: Runs in the worker on any Python from 3.8: load the harness, serve.
_PROGRAM = """
import types
package = types.ModuleType("conformance")
package.__path__ = []
module = types.ModuleType("conformance.harness")
module.__file__ = setup["harness_path"]
sys.modules["conformance"] = package
sys.modules["conformance.harness"] = package.harness = module
try:
    exec(compile(setup["harness"], setup["harness_path"], "exec"), module.__dict__)
except ImportError as missing:
    channel.send({"unavailable": "{}: {}".format(type(missing).__name__, missing)})
else:
    module.serve(channel, setup["adapter"], setup["path"], setup["options"])
"""


class Worker(Process):
    """A process that runs one target's cases in the order they are sent.

    Everything it says arrives in `events` as ``(worker, message)``; None is the message when it has ended.
    """

    def __init__(self, target: Target, events: Events) -> None:
        """Start the process; its hello is the first message.

        Raises:
            ProcessError: it cannot be.

        """
        self.target = target
        try:
            setup = {
                "harness": Path(harness.__file__).read_text(encoding="utf-8"),
                "harness_path": harness.__file__,
                "adapter": target.adapter.source.read_text(encoding="utf-8"),
                "path": str(target.adapter.source.absolute()),
                "options": target.options,
            }
        except OSError as error:
            raise ProcessError(f"{error.filename} cannot be read: {error.strerror}") from error
        super().__init__(
            f"the worker of {target.name}",
            _PROGRAM,
            setup,
            lambda message: events.put((self, message)),
            threads=target.options["threads"],
            place=_place(target),
        )

    def _unsent(self, message: Any, error: Exception) -> None:
        """That is told in the case's place, so that this one alone is not answered."""
        words = f"the case could not be sent: {type(error).__name__}: {error}"
        try:
            self._channel.send({"id": message["id"], "unsent": words})
        except Exception as another:
            super()._unsent(message, another)


#: Where workers say things: ``(worker, message)``; None is the message when it has ended, and the worker where the
#: word is not a worker's.
Events = queue.SimpleQueue[tuple[Worker | None, Any]]


def _place(target: Target) -> Place:
    words = target.host or interpreter(target)
    if target.host is not None:
        kind, _, name = target.host.partition(":")
        return Place(f"{kind}={name}//python={shlex.quote(target.python or 'python3')}", words, local=False)
    python = shlex.quote(words)
    # -I: the user's PYTHONPATH would put other versions in front of an environment's own.
    return Place(f"popen//python={python} -I" if target.recipe is not None else f"popen//python={python}", words)
