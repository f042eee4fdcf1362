"""What a target returned for one case, or how it failed to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from conformance.harness import Array

Fate = Literal["answered", "crashed", "timeout", "broken"]


@dataclass(frozen=True)
class Failure:
    """An exception: its type's name and its message (for a process: how it ended and the tail of its stderr)."""

    type: str
    message: str


@dataclass(frozen=True)
class Observation:
    """One case on one target.

    Attributes:
        fate: whether the worker answered; crashed and timeout are the process's end, broken the adapter's fault.
        tensors: ``y[0]``, ``running_mean[0]`` … → the tensor as it crossed the channel.
        signature: the constructor's parameters in order, (name, repr of the default), of a signature case.
        refusal: the framework's own exception.
        received: the constructor call as the framework saw it.
        facts: the adapter's remarks.
        seconds: the time the adapter took.
    """

    fate: Fate = "answered"
    tensors: dict[str, Array] = field(default_factory=dict)
    signature: tuple[tuple[str, str | None], ...] | None = None
    refusal: Failure | None = None
    failure: Failure | None = None
    received: str = ""
    facts: tuple[str, ...] = ()
    seconds: float = 0.0


def unpack(reply: dict[str, Any]) -> Observation:
    """A worker's reply as an observation; a reply that is not of the agreed form is `broken`."""
    try:
        error = reply["error"]
        failure = None if error is None else Failure(str(error["type"]), str(error["message"]))
        fault = None if error is None else error["fault"]
        signature = reply["signature"]
        return Observation(
            fate="broken" if fault == "adapter" else "answered",
            tensors={
                f"{name}[{index}]": _checked(Array.unpack(packed))
                for index, step in enumerate(reply["steps"])
                for name, packed in step.items()
            },
            signature=None if signature is None else tuple((str(n), d) for n, d in signature),
            refusal=failure if fault == "framework" else None,
            failure=failure if fault == "adapter" else None,
            received=str(reply["received"]),
            facts=tuple(map(str, reply["facts"])),
            seconds=float(reply["seconds"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return broken(f"the adapter's reply is not of the agreed form: {type(error).__name__}: {error}")


def broken(message: str, kind: str = "BadReply") -> Observation:
    """The adapter or the environment is at fault."""
    return Observation("broken", failure=Failure(kind, message))


def _checked(array: Array) -> Array:
    """An array that is what it says: bytes that fill a shape of whole sizes, of a dtype that holds numbers.

    Raises:
        ValueError: it is not.
    """
    from conformance.problem import dtype_name, dtype_of

    if not isinstance(array.dtype, str) or not isinstance(array.device, str):
        raise ValueError(f"dtype {array.dtype!r} on {array.device!r}: both are to be names")
    dtype = dtype_of(array.dtype)
    if array.dtype != "bfloat16" and (dtype.kind not in "fiubc" or dtype_name(dtype) != array.dtype):
        raise ValueError(f"{array.dtype} is no dtype of tensors")
    if any(type(n) is not int or n < 0 for n in array.shape):
        raise ValueError(f"shape {array.shape!r} is to be of whole numbers")
    wanted = dtype.itemsize * math.prod(array.shape)
    if not isinstance(array.data, bytes) or len(array.data) != wanted:
        held = f"{len(array.data)} bytes" if isinstance(array.data, bytes) else type(array.data).__name__
        raise ValueError(f"{held} for {array.dtype}{list(array.shape)}, which takes {wanted} bytes")
    return array
