"""MindSpore: mindspore.nn.BatchNorm1d, 2d and 3d, in PyNative or GRAPH mode or under mindspore.jit, on CPU or GPU.

Written for 2.10 and kept working back to 2.0.0: what came or went in between is asked for by name.
"""

import contextlib
import inspect
import os
import socket
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from conformance.harness import Adapter, Array, Layer, Native, NotExpressible, Step, Unavailable, framework

STATE = {"gamma": "gamma", "beta": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
DEVICES = {"cpu": "CPU", "cuda": "GPU"}


def against(layer: Any) -> Callable[[Any, Any], Any]:
    """The layer as MindSpore's training loops write it, a loss with y beside it; sum(y·dy) has just dy for its slope.

    Not a lambda: GRAPH mode compiles the function from its source.
    """

    def forward(x: Any, dy: Any) -> Any:
        y = layer(x)
        return (y * dy).sum(), y

    return forward


def penalty(gradients: Callable[[Any, Any], Any], of_parameters: bool) -> Callable[[Any, Any, Any], Any]:
    """A penalty of the gradients, Σv·dx, with y and what was differentiated beside it."""

    def forward(x: Any, dy: Any, v: Any) -> Any:
        (_, y), found = gradients(x, dy)
        if of_parameters:
            return (found[0] * v).sum(), y, found[0], found[1]
        return (found * v).sum(), y, found, ()

    return forward


class MindSpore(Adapter):
    """Canonical parameters are renamed and momentum is turned round: the layer's own weighs the old value."""

    recomputes = True
    assigns = True
    tangents = True

    def start(self, options: Dict[str, str]) -> Dict[str, str]:
        self.device = options["device"]
        execution = options.get("execution", "pynative")
        if self.device not in DEVICES:
            raise Unavailable(f"MindSpore runs on {' or '.join(DEVICES)} here, not on {self.device}")
        if execution not in ("pynative", "graph", "jit"):
            raise Unavailable(f"MindSpore executes in pynative or graph mode or under jit, not {execution}")
        self.jit = execution == "jit"
        self.twice = execution != "pynative"  # in which they are taken through memory that nobody has written
        cpus = self.cpus(options.get("cpus", "any"))
        os.environ.update(GLOG_v="3", OMP_NUM_THREADS=options["threads"])  # log errors only; both are read at import
        import mindspore

        self.ms = mindspore
        self.set_up(mindspore.GRAPH_MODE if execution == "graph" else mindspore.PYNATIVE_MODE, int(options["threads"]))
        return {"version": mindspore.__version__, "device": self.device, "execution": execution, "cpus": cpus}

    def cpus(self, wanted: str) -> str:
        """Keep to one CPU where that is wanted; whether the process has one or several, which MindSpore looks at."""
        if not hasattr(os, "sched_setaffinity"):
            if wanted == "one":
                raise Unavailable("this system keeps no process to one CPU")
            return "one" if os.cpu_count() == 1 else "several"
        if wanted == "one":
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        return "one" if len(os.sched_getaffinity(0)) == 1 else "several"

    def set_up(self, mode: int, threads: int) -> None:
        """Device, mode and threads; calls that wait for their result, as asynchronous ones cost milliseconds each."""
        ms, target = self.ms, DEVICES[self.device]
        ms.set_context(mode=mode, runtime_num_threads=threads)
        try:
            ms.set_context(device_target=target)
            (ms.Tensor([1.0], ms.float32) + 1).asnumpy()  # a GPU build without a GPU fails only here
        except Exception as error:
            summary = str(error.__cause__ or error).strip().split("\n")[0]
            raise Unavailable(f"MindSpore {ms.__version__} has no working {target} here: {summary}") from error
        if hasattr(ms, "runtime") and hasattr(ms.runtime, "launch_blocking"):
            ms.runtime.launch_blocking()
        elif mode == ms.PYNATIVE_MODE:
            ms.set_context(pynative_synchronize=True)

    def settle(self) -> None:
        """Keep to one CPU from now on: threads of MindSpore's spin for 0.2 s after every operation, and hold others.

        Where the process may use several CPUs, kernels flush subnormals. They look when the first of them that oneDNN
        computes is called, a convolution or a BatchNorm, and not again.
        """
        if self.device == "cpu" and hasattr(os, "sched_setaffinity"):
            self.ms.nn.Conv2d(1, 1, 1)(self.ms.ops.ones((1, 1, 1, 1), self.ms.float32)).asnumpy()
            cpu = self.place()
            with contextlib.suppress(FileNotFoundError):  # a system that does not list its threads
                for thread in os.listdir("/proc/self/task"):
                    with contextlib.suppress(OSError):  # the thread has ended, or may not be bound
                        os.sched_setaffinity(int(thread), {cpu})

    def place(self) -> int:
        """A CPU that no other worker of MindSpore's keeps to, as long as there is one.

        Each holds a name of Linux's abstract sockets, which ends with the process.
        """
        cpus = sorted(os.sched_getaffinity(0))
        for cpu in cpus:
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind("\0conformance-mindspore-%d" % cpu)
            except OSError:  # taken, or unknown to this system
                claim.close()
            else:
                self.claim = claim
                return cpu
        return cpus[os.getpid() % len(cpus)]

    def build(self, layer: Layer) -> Any:
        if layer.scale != layer.center:
            raise NotExpressible("MindSpore has one argument, affine, for gamma and beta together")
        if not layer.track_running_stats:
            raise NotExpressible("MindSpore always tracks: use_batch_statistics=True moves the statistics, in eval too")
        arguments: Dict[str, Any] = {
            "num_features": layer.features,
            "eps": layer.eps,
            "momentum": None if layer.momentum is None else 1 - layer.momentum,
            "affine": layer.scale,
        }
        if layer.layout == "channels_last":
            arguments["data_format"] = "NHWC"
        if layer.dtype != "float32":
            arguments["dtype"] = self.dtype(layer.dtype)
        known = self.parameters(layer.rank)
        for missing in [name for name in arguments if name not in known]:
            raise NotExpressible(f"BatchNorm{layer.rank}d of this MindSpore has no {missing}")
        return self.make(layer.rank, arguments, layer)

    def build_native(self, native: Native) -> Any:
        return self.make(native.rank, native.arguments, native)

    def make(self, rank: int, arguments: Dict[str, Any], described: Any) -> Any:
        self.received = self.call_text(f"mindspore.nn.BatchNorm{rank}d", arguments)
        with framework():
            # The initialisers (gamma_init, …) take a Tensor but no list, and a list is what a case file can say.
            given = {k: self.ms.Tensor(v, self.ms.float32) if isinstance(v, list) else v for k, v in arguments.items()}
        self.received = self.call_text(f"mindspore.nn.BatchNorm{rank}d", given)
        self.again: Callable[[], Any] = lambda: self.made(self.constructor(rank)(**given), described.recompute)
        self.channels_last = given.get("data_format") == "NHWC"
        with framework():
            layer = self.again()
        # Asked now, since a frozen step clears requires_grad; with affine=False gamma and beta exist but never learn.
        self.learned = [name for name in ("gamma", "beta") if self.parameter(layer, name).requires_grad]
        for name, value in described.initial.items():
            values = self.tensor(value)
            with framework():
                self.parameter(layer, name).set_data(values)
        return layer

    def made(self, layer: Any, recompute: bool) -> Any:
        """The layer, told to keep no activations where that is wanted."""
        if recompute:
            layer.recompute()
        return layer

    def step(self, layer: Any, step: Step) -> Tuple[Any, Dict[str, Array]]:
        if step.save_load:
            layer = self.reloaded(layer)
        with framework():
            for name, value in step.assigned.items():
                setattr(getattr(layer, "bn2d", layer), name, 1 - value if name == "momentum" else value)
        if step.mode != "default":
            layer.set_train(step.mode == "train")
        for name in self.learned:
            self.parameter(layer, name).requires_grad = not step.frozen
        x = self.input(step)
        images: Dict[str, Any] = {}
        vectors: Dict[str, Any] = {}
        if step.tangent is not None:
            tangent = self.tensor(step.tangent, self.channels_last)
            with framework():
                images["y"], images["jvp"] = self.ms.jvp(self.callable(layer), x, tangent)
        elif step.dy is None:
            with framework():
                images["y"] = self.callable(layer)(x)
        else:
            dy = self.tensor(step.dy, self.channels_last)
            learning = [] if step.frozen else self.learned
            if step.v is None:
                images["y"], images["dx"], gradients = self.differentiated(layer, x, dy, learning)
            else:
                v = self.tensor(step.v, self.channels_last)
                (images["y"], images["dx"], gradients), second = self.twice_differentiated(layer, x, dy, v, learning)
                images["ddx"], images["ddy"], *ddgamma = second
                vectors.update(zip(["ddgamma"], ddgamma))
            vectors.update(("d" + name, gradient) for name, gradient in zip(learning, gradients))
        if step.reread:
            images["x"] = x
        tensors = {name: self.array(vector) for name, vector in vectors.items()}
        return layer, dict(tensors, **{name: self.array(t, self.channels_last) for name, t in images.items()})

    def differentiated(self, layer: Any, x: Any, dy: Any, learning: List[str]) -> Tuple[Any, Any, Any]:
        """y, dx and the gradients of the parameters named, from one forward call: the statistics move once.

        (`mindspore.vjp` is no choice: in GRAPH mode it runs the layer twice.)
        """
        weights = [self.parameter(layer, name) for name in learning] or None
        value_and_grad = self.ms.value_and_grad
        with framework():
            if "sens_param" in inspect.signature(value_and_grad).parameters:  # 2.10: takes the cotangent
                y, gradients = value_and_grad(self.callable(layer), 0, weights, sens_param=True)(x, dy)
            else:
                forward = against(self.callable(layer))
                (_, y), gradients = value_and_grad(forward, 0, weights, has_aux=True)(x, dy)
        dx, others = gradients if weights else (gradients, ())
        return y, dx, others

    def twice_differentiated(self, layer: Any, x: Any, dy: Any, v: Any, learning: List[str]) -> Tuple[Any, List[Any]]:
        """What `differentiated` returns, and the derivatives of Σv·dx by x, dy and, where it is learned, γ."""
        weights = [self.parameter(layer, name) for name in learning] or None
        scale = [self.parameter(layer, name) for name in learning if name == "gamma"] or None
        value_and_grad = self.ms.value_and_grad
        with framework():
            first = value_and_grad(against(self.callable(layer)), 0, weights, has_aux=True)
            second = value_and_grad(penalty(first, bool(weights)), (0, 1), scale, has_aux=True)
            (_, y, dx, parameters), seconds = second(x, dy, v)
        (ddx, ddy), others = seconds if scale else (seconds, ())
        return (y, dx, parameters), [ddx, ddy, *others]

    def callable(self, layer: Any) -> Any:
        """The layer; under jit, its call as a graph within PyNative mode."""
        return self.ms.jit(layer) if self.jit else layer

    def input(self, step: Step) -> Any:
        x = self.tensor(step.x, self.channels_last, doubled=step.strided)
        if step.strided:
            with framework():
                x = x[..., 0]
            if not hasattr(x, "is_contiguous") or x.is_contiguous():
                self.facts.append(f"x is contiguous: an index makes a copy in MindSpore {self.ms.__version__}")
        return x

    def reloaded(self, layer: Any) -> Any:
        """The layer's state through a checkpoint file, in the working directory, into a new layer in the same mode."""
        with framework():
            self.ms.save_checkpoint(layer, "layer.ckpt")
            fresh = self.again()
            self.ms.load_param_into_net(fresh, self.ms.load_checkpoint("layer.ckpt"))
        return fresh.set_train(layer.training)

    def state(self, layer: Any) -> Dict[str, Array]:
        names = [*self.learned, "running_mean", "running_var"]
        return {name: self.array(self.parameter(layer, name)) for name in names}

    def constructor(self, rank: int) -> Any:
        return getattr(self.ms.nn, f"BatchNorm{rank}d")

    def parameter(self, layer: Any, name: str) -> Any:
        return getattr(getattr(layer, "bn2d", layer), STATE[name])  # BatchNorm3d keeps its own in a BatchNorm2d

    def dtype(self, name: str) -> Any:
        if not hasattr(self.ms, name):
            raise NotExpressible(f"this MindSpore has no {name}")
        return getattr(self.ms, name)

    def tensor(self, array: Array, channels_last: bool = False, doubled: bool = False) -> Any:
        values, dtype = array.numpy(), self.dtype(array.dtype)
        if array.dtype == "bfloat16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        if channels_last:
            values = np.moveaxis(values, 1, -1).copy()
        if doubled:  # here, as not every dtype has a kernel to stack tensors
            values = np.stack((values, values), -1)
        with framework():
            return self.ms.Tensor(values, dtype)

    def array(self, tensor: Any, channels_last: bool = False) -> Array:
        with framework():
            values = tensor.asnumpy()
        if channels_last:
            values = np.moveaxis(values, -1, 1)
        if values.dtype.name == "bfloat16":
            return Array.of(np.ascontiguousarray(values).view(np.uint16), "bfloat16", self.device)
        return Array.of(values, device=self.device)
