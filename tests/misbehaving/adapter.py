"""An adapter that does what the NumPy adapter does, but for one fault, chosen by the option `fault`.

Faults of a case strike where the layer has `UNLUCKY` channels; the cases around it show what the fault costs.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from conformance import harness
from conformance.harness import Adapter, Array, Layer, NotExpressible, Step, Unavailable, framework

UNLUCKY = 13
GOOD = Path(__file__).parents[2] / "adapters" / "numpy" / "adapter.py"
LAST_WORDS = "these are my last words"

Tensors = dict[str, Array]
Reply = dict[str, Any]


def limit_memory() -> None:
    """No more memory from now on than the process has and 64 MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, highest = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26, highest))


class AtStart:
    """Faults of `Adapter.start`."""

    def is_unavailable(self) -> None:
        """Has no device to run on."""
        raise Unavailable("there is no such device here")

    def raises_at_start(self) -> None:
        """Fails with an error of its own."""
        raise RuntimeError("the environment is broken")

    def exits_at_start(self) -> None:
        """Leaves the interpreter, as some frameworks do where a licence or a driver is missing."""
        sys.exit("no licence")

    def hangs_at_start(self) -> None:
        """Never comes up."""
        print(LAST_WORDS, file=sys.stderr, flush=True)
        threading.Event().wait()

    def dies_at_start(self) -> None:
        """Is ended by its own import, as by a library built for another processor."""
        os.kill(os.getpid(), signal.SIGILL)


class OnACase:
    """Faults of `Adapter.step`: what becomes of the tensors that the layer returned."""

    def dies(self, tensors: Tensors) -> Tensors:
        """Is killed, as the kernel does where memory runs out."""
        print(LAST_WORDS, file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        return tensors

    def reads_where_nothing_is(self, tensors: Tensors) -> Tensors:
        """Follows a null pointer in compiled code."""
        print(LAST_WORDS, file=sys.stderr, flush=True)
        ctypes.string_at(0)
        return tensors

    def runs_out_of_memory(self, tensors: Tensors) -> Tensors:
        """Asks for more than it may have, and is told so."""
        limit_memory()
        with framework():
            np.zeros(2**31)
        return tensors

    def has_no_memory_to_answer(self, tensors: Tensors) -> Tensors:
        """Returns more than its process has memory to send."""
        y = Array("float32", (2**26,), bytes(2**28))
        limit_memory()
        return dict(tensors, y=y)

    def starts_another_process(self, tensors: Tensors) -> Tensors:
        """Is killed, and leaves a process that it started."""
        with subprocess.Popen(["/bin/sleep", "600"]) as child:
            print(f"child {child.pid}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return tensors

    def floods(self, tensors: Tensors) -> Tensors:
        """Writes to stdout and stderr without end."""
        while True:
            os.write(1, b"x" * 1_000_000)
            os.write(2, b"x" * 1_000_000)
            time.sleep(0.01)

    def aborts(self, tensors: Tensors) -> Tensors:
        """Fails an assertion in compiled code."""
        os.write(2, LAST_WORDS.encode())
        os.abort()

    def exits(self, tensors: Tensors) -> Tensors:
        """Ends the process with a status."""
        print(LAST_WORDS, file=sys.stderr, flush=True)
        os._exit(3)

    def raises_system_exit(self, tensors: Tensors) -> Tensors:
        """Leaves the interpreter."""
        sys.exit(LAST_WORDS)

    def hangs(self, tensors: Tensors) -> Tensors:
        """Never returns."""
        print(LAST_WORDS, file=sys.stderr, flush=True)
        threading.Event().wait()
        return tensors

    def freezes(self, tensors: Tensors) -> Tensors:
        """Never returns nor reads what it is sent, as compiled code does that holds the interpreter's lock."""
        print(LAST_WORDS, file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        return tensors

    def shouts(self, tensors: Tensors) -> Tensors:
        """Writes megabytes of anything to stdout and stderr, through Python and past it."""
        for descriptor in (1, 2):
            os.write(descriptor, b"\x00\xff\x1b[31m\r\n" * 250_000)
        print("x" * 1_000_000, file=sys.stderr)
        print("x" * 1_000_000, flush=True)
        return tensors

    def raises(self, tensors: Tensors) -> Tensors:
        """Has a mistake of its own."""
        return {name: tensors[name + "_"] for name in tensors}

    def refuses(self, tensors: Tensors) -> Tensors:
        """Its framework raises."""
        with framework():
            raise ArithmeticError("thirteen channels are unlucky")

    def cannot_say(self, tensors: Tensors) -> Tensors:
        """Its framework has no word for this."""
        raise NotExpressible("there are no thirteen channels")

    def returns_a_wrong_shape(self, tensors: Tensors) -> Tensors:
        """y lacks a dimension."""
        return dict(tensors, y=Array.of(tensors["y"].numpy()[0]))

    def returns_a_wrong_dtype(self, tensors: Tensors) -> Tensors:
        """y is of a type that no layer returns, but NumPy has."""
        return dict(tensors, y=Array.of(tensors["y"].numpy().astype(np.uint8)))

    def returns_an_unknown_dtype(self, tensors: Tensors) -> Tensors:
        """y is of a type that NumPy does not have."""
        return dict(tensors, y=Array("float8", (1,), b"\0"))

    def returns_too_few_bytes(self, tensors: Tensors) -> Tensors:
        """y's bytes do not fill its shape."""
        return dict(tensors, y=Array("float32", tensors["y"].shape, tensors["y"].data[:-1]))

    def returns_objects(self, tensors: Tensors) -> Tensors:
        """y holds Python's objects, whose bytes are addresses."""
        return dict(tensors, y=Array.of(tensors["y"].numpy().astype(object)))

    def returns_what_cannot_be_sent(self, tensors: Tensors) -> Tensors:
        """y's bytes are an object."""
        data: Any = object()
        return dict(tensors, y=Array("float32", (1,), data))

    def returns_no_arrays(self, tensors: Tensors) -> Tensors:
        """y is no `Array`."""
        y: Any = tensors["y"].numpy()
        return dict(tensors, y=y)

    def returns_nothing(self, tensors: Tensors) -> Tensors:
        """Forgets what the layer returned."""
        return {}


class InTheReply:
    """Faults that no adapter has by itself: what becomes of the harness's reply."""

    def skips_a_step(self, reply: Reply) -> Any:
        """Answers for fewer steps than were asked."""
        return dict(reply, steps=reply["steps"][:-1])

    def invents_a_step(self, reply: Reply) -> Any:
        """Answers for more steps than were asked."""
        return dict(reply, steps=reply["steps"] * 2)

    def answers_another_case(self, reply: Reply) -> Any:
        """Answers under another case's number."""
        return dict(reply, id=reply["id"] + 1)

    def answers_an_earlier_case(self, reply: Reply) -> Any:
        """Answers under the number of a case that was settled before."""
        return dict(reply, id=reply["id"] - 1)

    def answers_nonsense(self, reply: Reply) -> Any:
        """Answers something else altogether."""
        return ["nonsense"]

    def answers_in_part(self, reply: Reply) -> Any:
        """Answers without what an answer must have."""
        return {"id": reply["id"], "steps": []}


class Misbehaving(Adapter):
    """The NumPy adapter inside, and the fault around it."""

    def start(self, options: dict[str, str]) -> dict[str, str]:
        self.fault = options.get("fault", "none")
        getattr(AtStart(), self.fault, lambda: None)()
        self.good = harness.load_adapter(GOOD.read_text(encoding="utf-8"), str(GOOD))
        facts = self.good.start(options)
        if hasattr(InTheReply, self.fault):
            harness.answer = self.spoiled(harness.answer)
        return {} if self.fault == "states_nothing" else {**facts, "pid": str(os.getpid()), "folder": os.getcwd()}

    def spoiled(self, answer: Callable[..., Reply]) -> Callable[..., Any]:
        def spoiled(adapter: Adapter, request: dict[str, Any]) -> Any:
            reply = answer(adapter, request)
            return getattr(InTheReply(), self.fault)(reply) if self.unlucky else reply

        return spoiled

    def build(self, layer: Layer) -> Any:
        self.unlucky = layer.features == UNLUCKY
        return self.good.build(layer)

    def step(self, layer: Any, step: Step) -> tuple[Any, dict[str, Array]]:
        layer, tensors = self.good.step(layer, step)
        spoil = getattr(OnACase(), self.fault, None) if self.unlucky else None
        return layer, tensors if spoil is None else spoil(tensors)

    def state(self, layer: Any) -> dict[str, Array]:
        return self.good.state(layer)
