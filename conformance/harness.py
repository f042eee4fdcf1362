"""The adapter's half of a worker: what an adapter is, and the loop that serves cases to it.

Runs on Python 3.8 and NumPy 1.19, because old framework versions live there, and imports nothing else. The main
process sends this file's source to the worker, so a worker's environment needs NumPy and its framework only.

An adapter is one file with one subclass of `Adapter`. It builds layers and runs steps; it never judges::

    class Torch(Adapter):
        def start(self, options): ...          # import the framework, say what it is
        def build(self, layer): ...            # a real layer from canonical parameters
        def build_native(self, native): ...    # a real layer from arguments as a user types them
        def step(self, layer, step): ...       # call it once, return what came out
        def state(self, layer): ...            # gamma, beta and the running statistics
"""

from __future__ import annotations

import contextlib
import inspect
import linecache
import sys
import time
import traceback
import types
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

#: NumPy dtypes that cross the channel. bfloat16, which NumPy lacks, crosses as its bits in uint16.
DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,
    "bool": np.bool_,
    "int64": np.int64,
    "int32": np.int32,
}


class Unavailable(Exception):
    """The target cannot run here: a device or backend that was asked for is not there. Raised by `Adapter.start`."""


class NotExpressible(Exception):
    """The framework's layer has no way to say this canonical parameter (torch has no gamma without beta).

    The message names no version: where it differs between two, their refusals do.
    """


class Refused(Exception):
    """The framework itself raised; carries the type's name and the message. Made by `framework`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message


@contextlib.contextmanager
def framework() -> Iterator[None]:
    """Mark a call into the framework: what it raises is an observation (`Refused`), not a fault of the adapter."""
    try:
        yield
    except (Refused, NotExpressible):
        raise
    except Exception as error:
        raise Refused(type(error).__name__, str(error)) from error


@dataclass(frozen=True)
class Array:
    """A tensor as raw little-endian C-ordered bytes, with its dtype's name, its shape and the device it was on."""

    dtype: str
    shape: Tuple[int, ...]
    data: bytes
    device: str = "cpu"

    @classmethod
    def of(cls, array: Any, dtype: Optional[str] = None, device: str = "cpu") -> Array:
        """Wrap a NumPy array. For bfloat16 give its bits as uint16 and ``dtype="bfloat16"``.

        Raises:
            TypeError: it holds Python objects, whose bytes are addresses.
        """
        values = np.asarray(array, order="C")  # ascontiguousarray would turn a scalar into a vector
        if values.dtype.hasobject:
            raise TypeError("an array of Python objects is no tensor: {!r:.80}".format(array))
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        return cls(dtype or values.dtype.name, tuple(int(n) for n in values.shape), values.tobytes(), device)

    def numpy(self) -> Any:
        """The values as a fresh writable array; the bits as uint16 where the dtype is bfloat16."""
        return np.frombuffer(self.data, DTYPES[self.dtype]).reshape(self.shape).copy()

    def pack(self) -> Dict[str, Any]:
        return {"dtype": self.dtype, "shape": list(self.shape), "data": self.data, "device": self.device}

    @classmethod
    def unpack(cls, packed: Dict[str, Any]) -> Array:
        return cls(packed["dtype"], tuple(packed["shape"]), packed["data"], packed.get("device", "cpu"))


@dataclass(frozen=True)
class Initial:
    """Values to put in place of the layer's own initial ones: (features,) arrays, None to leave them alone."""

    gamma: Optional[Array] = None
    beta: Optional[Array] = None
    running_mean: Optional[Array] = None
    running_var: Optional[Array] = None

    def items(self) -> List[Tuple[str, Array]]:
        return [(name, value) for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class Layer:
    """A layer in canonical terms; every word means what it means in torch.

    `momentum` weighs the new batch (None: cumulative average); `dtype` is that of parameters and statistics; `layout`
    says where the channels lie in memory, while every array that crosses the channel is (N, C, *spatial). With
    `recompute` no call keeps activations for its backward pass, which runs the layer again.
    """

    rank: int
    features: int
    eps: float
    momentum: Optional[float]
    scale: bool
    center: bool
    track_running_stats: bool
    dtype: str
    layout: str
    initial: Initial = field(default_factory=Initial)
    recompute: bool = False


@dataclass(frozen=True)
class Native:
    """A layer in the framework's own terms: constructor arguments exactly as a user types them."""

    rank: int
    arguments: Dict[str, Any]
    initial: Initial = field(default_factory=Initial)
    recompute: bool = False


@dataclass(frozen=True)
class Step:
    """One call of the layer.

    `mode` is train, eval or default (the layer is called as it stands). `x` and the cotangent `dy` are
    (N, C, *spatial). `frozen` marks the layer's parameters as not to be trained; `save_load` sends its state through
    the framework's own checkpoint into a new layer before the call; `strided` makes x a non-contiguous view; `mask`,
    (N, *spatial) bool, says which values count; `reread` asks for ``x`` as it is after the call. `v`, like x, is the
    cotangent of dx: it asks for the derivatives of the sum of v·dx by x, γ and dy. `assigned` are eps and momentum as
    far as they are assigned to the layer's attributes before the call, in canonical terms. `tangent`, like x, asks for
    the derivative of y along it, by the framework's forward mode; such a step has no `dy`. `by` is the order of modes
    that second derivatives are taken in, where one is forward: "forward-over-reverse", ddx, ddy and ddgamma as those of
    dx, y and dgamma along `v`; "reverse-over-forward", ddy as that of y along `v`, ddx and ddgamma as those of the sum
    of dy·ddy; or "forward-over-forward", ddy so, and dx and ddx as those of y and ddy along `dy`, with none by γ and β.
    """

    mode: str
    x: Array
    dy: Optional[Array] = None
    frozen: bool = False
    save_load: bool = False
    strided: bool = False
    mask: Optional[Array] = None
    reread: bool = False
    v: Optional[Array] = None
    assigned: Dict[str, float] = field(default_factory=dict)
    tangent: Optional[Array] = None
    by: Optional[str] = None


class Adapter:
    """What one framework needs to take part. Subclass it once in ``adapter.py``.

    Attributes:
        received: the constructor call as the framework saw it; `build` and `build_native` set it.
        facts: remarks for the record ("the view was copied: TensorFlow has no strides"); cleared for every case.
        masks: whether the framework's layer takes a mask; where not, a step with one is not expressible.
        twice: whether the adapter takes second derivatives; where not, a step with `v` is not expressible.
        recomputes: whether it heeds a layer's `recompute`; where not, such a layer is not expressible.
        assigns: whether it heeds a step's `assigned`; where not, such a step is not expressible.
        tangents: whether it takes derivatives in forward mode; where not, a step with `tangent` is not expressible.
        mixes: whether it takes second derivatives in both modes; where not, a step with `by` is not expressible.
    """

    masks = False
    twice = False
    recomputes = False
    assigns = False
    tangents = False
    mixes = False

    def __init__(self) -> None:
        self.received = ""
        self.facts: List[str] = []

    def start(self, options: Dict[str, str]) -> Dict[str, str]:
        """Import the framework and set it up; return facts: version, device, and what else decides results.

        `options` holds device, threads and what else the target's specification names. The working directory is a
        new folder that goes with the worker, for whatever the framework leaves where it stands.

        Raises:
            Unavailable: the device, backend or execution asked for is not there.
        """
        raise NotImplementedError

    def settle(self) -> None:
        """Make room for the other workers, where the framework would hold more of the machine than it needs.

        Called in a worker once `start` has returned; it must not change a bit of what comes out.
        """

    def renumber(self) -> None:
        """Let the framework count its layers from the beginning again, so that their names tell of no earlier case.

        Called in a worker before every case; it must forget nothing else.
        """

    def build(self, layer: Layer) -> Any:
        """A new layer with these parameters, initial values in place."""
        raise NotImplementedError

    def build_native(self, native: Native) -> Any:
        """A new layer from constructor arguments as a user types them."""
        raise NotImplementedError

    def step(self, layer: Any, step: Step) -> Tuple[Any, Dict[str, Array]]:
        """Call the layer once.

        Returns the layer (a new one after `save_load`) and what came out, (N, C, *spatial): ``y`` and, where a
        cotangent was given, ``dx``, and ``dgamma`` and ``dbeta`` where the layer learns them; for a `v`
        ``ddx`` and ``ddy``, and ``ddgamma`` where it learns γ; for a `tangent` ``jvp``, like y.
        """
        raise NotImplementedError

    def state(self, layer: Any) -> Dict[str, Array]:
        """The arrays the layer holds: gamma and beta where it learns them, running_mean, running_var and, where the
        framework counts batches, num_batches_tracked.
        """
        raise NotImplementedError

    def constructor(self, rank: int) -> Any:
        """The public constructor of the layer for this rank, for `inspect.signature`."""
        raise NotImplementedError

    def parameters(self, rank: int) -> Dict[str, inspect.Parameter]:
        """Those of the constructor, by their names.

        Python 3.11.2 takes an inherited `__new__` for the signature of a class that has an `__init__` of its own.
        """
        constructor = self.constructor(rank)
        of_class = isinstance(constructor, type)
        found = inspect.signature(constructor.__init__ if of_class else constructor).parameters
        return {name: parameter for name, parameter in found.items() if name != "self"}

    def call_text(self, name: str, arguments: Dict[str, Any]) -> str:
        """A constructor call as a user would type it: ``nn.BatchNorm2d(num_features=3, eps=1e-05)``."""
        return "{}({})".format(name, ", ".join("{}={!r}".format(key, value) for key, value in arguments.items()))


def _initial(packed: Dict[str, Any]) -> Initial:
    return Initial(**{name: Array.unpack(value) for name, value in packed.items()})


def _step(packed: Dict[str, Any]) -> Step:
    x = Array.unpack(packed["x"])
    others = {name: packed.get(name) for name in ("dy", "mask", "v", "tangent")}
    arrays: Dict[str, Any] = {name: None if given is None else Array.unpack(given) for name, given in others.items()}
    flags = {name: packed[name] for name in ("frozen", "save_load", "strided", "reread")}
    return Step(packed["mode"], x, assigned=packed.get("assigned", {}), by=packed.get("by"), **arrays, **flags)


def _run_beside(adapter: Adapter, packed: Dict[str, Any]) -> None:
    """Build another layer, call it once and forget it; that it was refused is a remark, and no result."""
    facts = list(adapter.facts)
    try:
        layer = adapter.build(Layer(initial=_initial(packed["initial"]), **packed["layer"]))
        adapter.step(layer, _step(packed["step"]))
    except (Refused, NotExpressible) as refusal:
        what = "was refused" if isinstance(refusal, Refused) else "cannot be said"
        remark = "the layer beside {}: {}".format(what, " ".join(map(str, refusal.args)).split("\n")[0])
        facts += [remark] if remark not in facts else []
    adapter.facts = facts


#: What a step may ask, the adapter's word for heeding it, and what is said where it does not.
_ASKED = (
    ("mask", "masks", "the layer takes no mask"),
    ("v", "twice", "the adapter takes no second derivatives"),
    ("assigned", "assigns", "the adapter assigns no attributes"),
    ("tangent", "tangents", "the adapter takes no derivatives in forward mode"),
    ("by", "mixes", "the adapter takes no second derivatives in forward mode"),
)


def _observe(adapter: Adapter, request: Dict[str, Any], steps: List[Dict[str, Any]]) -> None:
    """Run one case, appending what each step returned to `steps`, so that an error leaves the steps before it."""
    for asked, heeded, words in _ASKED:
        if not getattr(adapter, heeded) and any(step.get(asked) for step in request["steps"]):
            raise NotExpressible(words)
    recompute = request.get("recompute", False)
    if recompute and not adapter.recomputes:
        raise NotExpressible("the adapter does not recompute activations")
    if request.get("beside") is not None:
        _run_beside(adapter, request["beside"])
    initial = _initial(request["initial"])
    if request.get("native") is not None:
        layer = adapter.build_native(Native(request["rank"], request["native"], initial, recompute))
    else:
        layer = adapter.build(Layer(initial=initial, recompute=recompute, **request["layer"]))
    for packed in request["steps"]:
        layer, tensors = adapter.step(layer, _step(packed))
        tensors = dict(tensors, **adapter.state(layer))
        steps.append({name: array.pack() for name, array in tensors.items()})


def _repeat(adapter: Adapter, request: Dict[str, Any], first: List[Dict[str, Any]]) -> None:
    """Run the case again as often as it asks, and count the runs of which any bit differs from the first."""
    if request["repeat"] == 1:
        return
    differing = 0
    for _ in range(request["repeat"] - 1):
        again: List[Dict[str, Any]] = []
        _observe(adapter, request, again)
        differing += again != first
    first[0]["repeats_differing"] = Array.of(np.asarray(differing, np.int64)).pack()


def _signature(adapter: Adapter, rank: int) -> List[List[Optional[str]]]:
    """The parameters of the public constructor in order: [name, repr of the default or None]."""
    with framework():
        parameters = adapter.parameters(rank).values()
    return [[p.name, None if p.default is p.empty else repr(p.default)] for p in parameters]


def answer(adapter: Adapter, request: Dict[str, Any]) -> Dict[str, Any]:
    """Run one request and say what happened: the observation, or whose fault it was that there is none."""
    started = time.perf_counter()
    adapter.facts = []
    adapter.received = ""
    steps: List[Dict[str, Any]] = []
    signature: Optional[List[List[Optional[str]]]] = None
    error: Optional[Dict[str, str]] = None
    try:
        if "unsent" in request:  # and so there is nothing to run
            raise RuntimeError(request["unsent"])
        if request.get("signature"):
            signature = _signature(adapter, request["rank"])
        else:
            _observe(adapter, request, steps)
            _repeat(adapter, request, steps)
    except Refused as refusal:
        error = {"fault": "framework", "type": refusal.kind, "message": refusal.message}
    except NotExpressible as limit:
        error = {"fault": "framework", "type": "NotExpressible", "message": str(limit)}
    except Exception as slip:
        error = _slipped(slip)
    return {
        "id": request["id"],
        "steps": steps,
        "signature": signature,
        "error": error,
        "received": adapter.received,
        "facts": list(adapter.facts),
        "seconds": time.perf_counter() - started,
    }


def _slipped(slip: Exception) -> Dict[str, str]:
    """An error of the adapter's own: first what it says, then where it was raised."""
    return {"fault": "adapter", "type": type(slip).__name__, "message": f"{slip}\n{traceback.format_exc()}"}


def load_adapter(source: str, path: str) -> Adapter:
    """Execute an adapter's source and return its one `Adapter` subclass, made.

    Raises:
        TypeError: the file defines no subclass of `Adapter`, or more than one.
    """
    module = types.ModuleType("conformance_adapter")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses look their module up
    # MindSpore's GRAPH mode compiles functions from their source, which need not lie at this path on this host.
    linecache.cache[path] = (len(source), None, source.splitlines(True), path)
    exec(compile(source, path, "exec"), vars(module))
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Adapter) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError("{} must define exactly one subclass of Adapter, it defines {}".format(path, len(found)))
    return found[0]()


def serve(channel: Any, source: str, path: str, options: Dict[str, str]) -> None:
    """Start the adapter, say hello, then answer requests until the channel closes.

    The hello is ``{"facts": …}``, or ``{"unavailable": message}``, or ``{"broken": traceback}``.
    """
    try:
        adapter = load_adapter(source, path)
        facts = dict(adapter.start(options))
        adapter.settle()
    except Unavailable as missing:
        channel.send({"unavailable": str(missing)})
        return
    except (ImportError, ModuleNotFoundError) as missing:
        channel.send({"unavailable": "{}: {}".format(type(missing).__name__, missing)})
        return
    except Exception:
        channel.send({"broken": traceback.format_exc()})
        return
    facts.setdefault("python", ".".join(str(n) for n in sys.version_info[:3]))
    facts.setdefault("numpy", np.__version__)
    facts.setdefault("threads", options.get("threads", ""))
    channel.send({"facts": {str(name): str(fact) for name, fact in facts.items()}})
    for request in channel:
        adapter.renumber()
        reply = answer(adapter, request)
        try:
            channel.send(reply)
        except Exception as slip:  # the adapter put something in its arrays that cannot cross
            channel.send(dict(reply, steps=[], signature=None, error=_slipped(slip), received="", facts=[]))
