"""Keras: keras.layers.BatchNormalization on TensorFlow, torch or JAX, or the Keras 2 inside TensorFlow 2.5 to 2.15.

Keras reads its backend from the environment as it is imported, so frameworks are imported in `start`, never above.
Each backend is one small class that knows tensors, devices, compilation and gradients; the rest is Keras alone.
"""

import contextlib
import os
import tempfile
import warnings
from decimal import Decimal
from functools import partial
from importlib import import_module, metadata
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Type

import numpy as np

from conformance.harness import Adapter, Array, Initial, Layer, Native, NotExpressible, Step, Unavailable, framework

STATE = {"gamma": "gamma", "beta": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",  # errors only
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # else each worker takes the whole GPU
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_ENABLE_X64": "true",  # else JAX makes float64 float32; other dtypes give the same bits either way
}
CPU_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


def learned(layer: Any) -> Dict[str, Any]:
    """The variables that training moves, in Keras's order, by the name of their gradient."""
    held = {"dgamma": variable(layer, "gamma"), "dbeta": variable(layer, "beta")}
    return {name: value for name, value in held.items() if value is not None and layer.trainable}


def of_scale(by_gradient: Dict[str, Any]) -> Dict[str, Any]:
    """What belongs to ddgamma, of what belongs to the gradients of parameters."""
    return {"d" + name: value for name, value in by_gradient.items() if name == "dgamma"}


def variable(layer: Any, name: str) -> Any:
    """One of the layer's variables by its canonical name, or None; Keras 3.4 has no attribute for one it lacks."""
    return getattr(layer, STATE[name], None)


def of_old(momentum: float) -> float:
    """What the old value weighs where the new one has this weight: 0.1 for 0.9, as a person writes it."""
    return float(1 - Decimal(repr(momentum)))


def renumbering(keras: Any) -> Callable[[], None]:
    """What makes Keras count the names of its layers from the beginning: public in Keras 2, inside of Keras 3."""
    if hasattr(keras.backend, "reset_uids"):
        return keras.backend.reset_uids
    with contextlib.suppress(ImportError, AttributeError):
        return import_module("keras.src.utils.naming").reset_uids
    return lambda: None


def moved(values: np.ndarray, source: int, target: int) -> np.ndarray:
    """The channels moved from axis `source` to `target`; unmoved if there is no such axis, as Keras refuses."""
    there = values.ndim > 1 and all(-values.ndim <= axis < values.ndim for axis in (source, target))
    return np.ascontiguousarray(np.moveaxis(values, source, target)) if there else values


def masked(mode: Dict[str, bool], mask: Any) -> Dict[str, Any]:
    """The arguments of a call beside x; versions that know no mask are called without."""
    return dict(mode) if mask is None else dict(mode, mask=mask)


class Given(NamedTuple):
    """What a step gives beside x, as tensors or None: cotangents of y and of dx, a tangent of x, and a mask."""

    dy: Any
    v: Any
    tangent: Any
    mask: Any


class Backend:
    """What Keras leaves to its backend."""

    executions: Tuple[str, ...] = ("eager", "compiled")
    version = ""
    accelerator = ""

    def __init__(self, device: str, execution: str, threads: int) -> None:
        self.device = device
        self.execution = execution
        self.called: Tuple[Any, Dict[Any, Any]] = (None, {})
        self.start(threads)

    def start(self, threads: int) -> None:
        """Import the framework, pin its threads, see that the device is there; set `version` and `accelerator`."""
        raise NotImplementedError

    def tensor(self, values: np.ndarray, dtype: str) -> Any:
        """A tensor on the device; bfloat16 comes as its bits in uint16."""
        raise NotImplementedError

    def fetch(self, tensor: Any) -> Tuple[np.ndarray, str, str]:
        """The values (any 16-bit type for the bits of bfloat16), the dtype's name and the type of the device."""
        raise NotImplementedError

    def assign(self, variable: Any, value: Any) -> None:
        """Put a tensor into a variable of Keras's."""
        variable.assign(value)

    def strided(self, x: Any) -> Any:
        """A view of x that is not contiguous; None where tensors have no strides."""
        return None

    def value(self, variable: Any) -> Any:
        """The backend's own tensor inside a variable of Keras's."""
        return variable.value

    def run(self, layer: Any, x: Any, given: Given, mode: Dict[str, bool], by: Optional[str]) -> Dict[str, Any]:
        """Call the layer once: y and, for a cotangent dy, what the framework gives of dx, dgamma, dbeta.

        For a cotangent v of dx also ddx, ddy and ddgamma, in the order of modes that is named; for a tangent jvp.
        """
        raise NotImplementedError

    def once(self, call: Any, layer: Any, how: Tuple[Any, ...]) -> Any:
        """The layer's call, compiled once for each way to call it and what learns; the last layer's are kept."""
        if self.execution == "eager":
            return call
        if self.called[0] is not layer:
            self.called = (layer, {})
            self.forget()
        way = (*how, layer.trainable)
        if way not in self.called[1]:
            self.called[1][way] = self.compile(call)
        return self.called[1][way]

    def compile(self, call: Any) -> Any:
        """The call, compiled."""
        raise NotImplementedError

    def forget(self) -> None:
        """Let go of what was compiled for other layers."""


class TensorFlow(Backend):
    """Compiled, one graph holds the call, its update and its gradients, as a training step does."""

    executions = ("eager", "compiled", "xla")

    def start(self, threads: int) -> None:
        self.tf: Any = import_module("tensorflow")
        self.version = self.tf.__version__
        self.tf.get_logger().setLevel("ERROR")
        self.tf.config.threading.set_intra_op_parallelism_threads(threads)
        self.tf.config.threading.set_inter_op_parallelism_threads(threads)
        if self.device == "cuda":
            found = self.tf.config.list_physical_devices("GPU")
            if not found:
                raise Unavailable(f"TensorFlow {self.version} sees no GPU")
            self.accelerator = self.tf.config.experimental.get_device_details(found[0]).get("device_name", "")

    def tensor(self, values: np.ndarray, dtype: str) -> Any:
        return self.tf.convert_to_tensor(values.view(self.tf.as_dtype(dtype).as_numpy_dtype))

    def fetch(self, tensor: Any) -> Tuple[np.ndarray, str, str]:
        return tensor.numpy(), tensor.dtype.name, "cuda" if "GPU" in tensor.device else "cpu"

    def value(self, variable: Any) -> Any:
        return variable if isinstance(variable, self.tf.Variable) else variable.value  # Keras 2, Keras 3

    def assign(self, variable: Any, value: Any) -> None:
        variable.assign(self.tf.cast(value, variable.dtype))  # Keras 2 holds float32 where half was asked for

    def compile(self, call: Any) -> Any:
        return self.tf.function(call, autograph=False, jit_compile=self.execution == "xla" or None)

    def run(self, layer: Any, x: Any, given: Given, mode: Dict[str, bool], by: Optional[str]) -> Dict[str, Any]:
        def call(x: Any, given: Given) -> Dict[str, Any]:
            dy, v, tangent, mask = given
            if tangent is not None:
                with self.tf.autodiff.ForwardAccumulator(x, tangent) as accumulator:
                    y = layer(x, **masked(mode, mask))
                return {"y": y, "jvp": accumulator.jvp(y, self.tf.UnconnectedGradients.ZERO)}
            if dy is None:
                return {"y": layer(x, **masked(mode, mask))}
            sources = {"dx": x, **{name: self.value(variable) for name, variable in learned(layer).items()}}

            def differentiated(tape: Any, along: Any = None) -> Dict[str, Any]:
                """y and its gradients and, inside of what follows a tangent of x, ddy."""
                with tape:
                    tape.watch(x)
                    with contextlib.nullcontext() if along is None else along:
                        y = layer(x, **masked(mode, mask))
                    found = {} if along is None else {"ddy": along.jvp(y, zero)}
                gradients = tape.gradient(y, sources, output_gradients=self.tf.cast(dy, y.dtype))
                return {"y": y, **found, **{name: value for name, value in gradients.items() if value is not None}}

            if v is None:
                return differentiated(self.tf.GradientTape())
            zero = self.tf.UnconnectedGradients.ZERO
            twice = {"ddx": x, **of_scale(sources)}
            if by is None:
                with self.tf.GradientTape() as outer:
                    outer.watch((x, dy))
                    found = differentiated(self.tf.GradientTape())
                return {**found, **outer.gradient(found["dx"], {"ddy": dy, **twice}, v, zero)}
            along = self.tf.autodiff.ForwardAccumulator(x, v)
            if by == "forward-over-reverse":
                with along:
                    found = differentiated(self.tf.GradientTape())
                derived = {"ddy": "y", **{name: name[1:] for name in twice}}
                return {**found, **{name: along.jvp(found[of], zero) for name, of in derived.items()}}
            if by == "reverse-over-forward":
                tape = self.tf.GradientTape(persistent=True)
                found = differentiated(tape, along)
                return {**found, **tape.gradient(found["ddy"], twice, dy, zero)}
            with self.tf.autodiff.ForwardAccumulator(x, dy) as outer:
                with along:
                    y = layer(x, **masked(mode, mask))
                ddy = along.jvp(y, zero)
            return {"y": y, "ddy": ddy, "dx": outer.jvp(y, zero), "ddx": outer.jvp(ddy, zero)}

        return self.once(call, layer, (*mode.items(), by))(x, given)


class Torch(Backend):
    """Compiled, the graph breaks where Keras hands torch its own kind of list, and is compiled around it."""

    def start(self, threads: int) -> None:
        self.torch: Any = import_module("torch")
        self.version = self.torch.__version__
        self.torch.set_num_threads(threads)
        if self.device == "cuda":
            if not self.torch.cuda.is_available():
                raise Unavailable(f"torch {self.version} sees no CUDA device")
            self.accelerator = self.torch.cuda.get_device_name()

    def tensor(self, values: np.ndarray, dtype: str) -> Any:
        if dtype == "bfloat16":
            return self.torch.from_numpy(values.view(np.int16)).view(self.torch.bfloat16).to(self.device)
        return self.torch.from_numpy(values).to(self.device)

    def fetch(self, tensor: Any) -> Tuple[np.ndarray, str, str]:
        values, dtype = tensor.detach().cpu().contiguous(), str(tensor.dtype).replace("torch.", "")
        return (values.view(self.torch.int16) if dtype == "bfloat16" else values).numpy(), dtype, tensor.device.type

    def strided(self, x: Any) -> Any:
        return self.torch.stack((x, x), dim=-1)[..., 0]

    def compile(self, call: Any) -> Any:
        warnings.filterwarnings("ignore", module="torch._dynamo")
        return self.torch.compile(call)

    def forget(self) -> None:
        self.torch._dynamo.reset()  # past eight layers, shapes or modes it would silently run eagerly

    def run(self, layer: Any, x: Any, given: Given, mode: Dict[str, bool], by: Optional[str]) -> Dict[str, Any]:
        def call(x: Any, mask: Any) -> Any:
            return layer(x, **masked(mode, mask))

        dy, v, tangent, mask = given
        called = self.once(call, layer, (*mode.items(), by))
        # None is torch's word for zero; a tensor of zeros may hold none, and be copied alone.
        forward, zero = self.torch.autograd.forward_ad, self.torch.zeros_like

        def gradients(of: Any, sources: Dict[str, Any], cotangent: Any, **how: bool) -> Dict[str, Any]:
            found = self.torch.autograd.grad(of, list(sources.values()), cotangent, allow_unused=True, **how)
            return dict(zip(sources, found))

        def along(dual: Any) -> Any:
            return forward.unpack_dual(dual).tangent

        if tangent is not None:
            with forward.dual_level():
                y, jvp = forward.unpack_dual(called(forward.make_dual(x, tangent), mask))
            return {"y": y, "jvp": zero(y) if jvp is None else jvp}
        if dy is None:
            return {"y": called(x, mask)}
        x.requires_grad_()
        sources = {"dx": x, **{name: variable.value for name, variable in learned(layer).items()}}
        twice = {"ddx": x, **of_scale(sources)}
        if by is None:
            y = called(x, mask)
            dy = dy.to(y.dtype).requires_grad_(v is not None)
            first = gradients(y, sources, dy, create_graph=v is not None)
            second = {} if v is None else gradients(first["dx"], {"ddy": dy, **twice}, v)
        elif by == "forward-over-forward":
            jvp, call_at = self.torch.func.jvp, partial(called, mask=mask)
            (y, ddy), (dx, ddx) = jvp(lambda x: jvp(call_at, (x,), (v,)), (x.detach(),), (dy,))
            first, second = {"dx": dx}, {"ddx": ddx, "ddy": ddy}
        else:
            with forward.dual_level():
                y = called(forward.make_dual(x, v), mask)
                if by == "forward-over-reverse":
                    first = gradients(y, sources, dy, create_graph=True)
                    second = {"ddy": along(y), **{name: along(first[name[1:]]) for name in twice}}
                else:
                    y, ddy = forward.unpack_dual(y)
                    first = gradients(y, sources, dy, retain_graph=True)
                    second = {"ddy": ddy, **gradients(ddy, twice, dy)}
        like = {"ddy": y, **twice}
        found = {"y": y, **{name: value for name, value in first.items() if value is not None}}
        return dict(found, **{name: zero(like[name]) if d is None else d.clone() for name, d in second.items()})


class Jax(Backend):
    """JAX differentiates functions, so the call runs in a stateless scope and its one update is put back on the layer.

    Keras's `stateless_call` would do less than a call does: it skips the input check and the cast.
    """

    def start(self, threads: int) -> None:
        self.jax: Any = import_module("jax")
        self.version = self.jax.__version__
        if self.device == "cuda":
            try:
                self.accelerator = self.jax.devices("cuda")[0].device_kind
            except RuntimeError as missing:
                raise Unavailable(f"JAX {self.version} sees no CUDA device: {missing}") from missing

    def tensor(self, values: np.ndarray, dtype: str) -> Any:
        return self.jax.numpy.asarray(values.view(self.jax.numpy.dtype(dtype)))

    def fetch(self, tensor: Any) -> Tuple[np.ndarray, str, str]:
        platform = next(iter(tensor.devices())).platform
        return np.asarray(tensor), tensor.dtype.name, "cpu" if platform == "cpu" else "cuda"

    def compile(self, call: Any) -> Any:
        return self.jax.jit(call)

    def run(self, layer: Any, x: Any, given: Given, mode: Dict[str, bool], by: Optional[str]) -> Dict[str, Any]:
        scope, moving = import_module("keras").StatelessScope, layer.non_trainable_variables
        learning = layer.trainable_variables

        def call(parameters: Any, statistics: Any, x: Any, given: Given) -> Tuple[Dict[str, Any], Any]:
            dy, v, tangent, mask = given

            def forward(parameters: Any, x: Any) -> Any:
                with scope([*zip(learning, parameters), *zip(moving, statistics)]) as after:
                    y = layer(x, **masked(mode, mask))
                return y, [after.get_current_value(variable) for variable in moving]

            def along(tangent: Any, parameters: Any, x: Any) -> Any:
                y, jvp, updated = self.jax.jvp(partial(forward, parameters), (x,), (tangent,), has_aux=True)
                return (y, jvp), updated

            if tangent is not None:
                (y, jvp), updated = along(tangent, parameters, x)
                return {"y": y, "jvp": jvp}, updated
            if dy is None:
                y, updated = forward(parameters, x)
                return {"y": y}, updated

            def named(dparameters: Any) -> Dict[str, Any]:
                return dict(zip(learned(layer), dparameters))

            def gradients(parameters: Any, x: Any, dy: Any) -> Any:
                y, pullback, updated = self.jax.vjp(forward, parameters, x, has_aux=True)
                dparameters, dx = pullback(dy.astype(y.dtype))
                return dx, ({"y": y, "dx": dx, **named(dparameters)}, updated)

            if v is None:
                return gradients(parameters, x, dy)[1]
            if by is None:
                _, pullback, (tensors, updated) = self.jax.vjp(gradients, parameters, x, dy, has_aux=True)
                dparameters, ddx, ddy = pullback(v)
                return {**tensors, "ddx": ddx, "ddy": ddy, **of_scale(named(dparameters))}, updated
            if by == "forward-over-reverse":
                differentiated = partial(gradients, parameters, dy=dy)
                tensors, moved, updated = self.jax.jvp(lambda x: differentiated(x)[1], (x,), (v,), has_aux=True)
                return {**tensors, "ddx": moved["dx"], "ddy": moved["y"], **of_scale(moved)}, updated
            along_v = partial(along, v)
            if by == "forward-over-forward":
                (y, ddy), (dx, ddx), updated = self.jax.jvp(partial(along_v, parameters), (x,), (dy,), has_aux=True)
                return {"y": y, "dx": dx, "ddx": ddx, "ddy": ddy}, updated
            (y, ddy), pullback, updated = self.jax.vjp(along_v, parameters, x, has_aux=True)
            (dparameters, dx), (ddparameters, ddx) = pullback((dy, 0 * dy)), pullback((0 * dy, dy))
            first = {"y": y, "dx": dx, **named(dparameters)}
            return {**first, "ddx": ddx, "ddy": ddy, **of_scale(named(ddparameters))}, updated

        call = self.once(call, layer, (*mode.items(), by))
        tensors, updated = call([v.value for v in learning], [v.value for v in moving], x, given)
        for variable, value in zip(moving, updated):
            variable.assign(value)
        return tensors


BACKENDS: Dict[str, Type[Backend]] = {"tensorflow": TensorFlow, "torch": Torch, "jax": Jax}


class Held(NamedTuple):
    """A layer, the axis of its channels, and what it takes to make it again.

    `features` is what the case says; None for a native layer, which counts its first input's channels.
    """

    layer: Any
    axis: int
    arguments: Dict[str, Any]
    features: Optional[int]
    initial: Initial


class Keras(Adapter):
    """Keras's momentum weighs the old value, its channels come last, and it learns rank and dtype at the first call.

    The class is the same for every rank; so are its defaults.
    """

    masks = True
    twice = True
    recomputes = True
    assigns = True
    tangents = True
    mixes = True

    def start(self, options: Dict[str, str]) -> Dict[str, str]:
        name, device = options.get("backend", "tensorflow"), options["device"]
        execution, threads = options.get("execution", "eager"), options["threads"]
        if name not in BACKENDS:
            raise Unavailable(f"no backend {name} here; there are {', '.join(BACKENDS)}")
        if execution not in BACKENDS[name].executions:
            raise Unavailable(f"Keras on {name} runs {' or '.join(BACKENDS[name].executions)}, not {execution}")
        os.environ.update(ENVIRONMENT, KERAS_BACKEND=name, KERAS_TORCH_DEVICE=device, NPROC=threads)
        if device == "cpu":
            os.environ.update(CPU_ENVIRONMENT)
        try:
            self.backend = BACKENDS[name](device, execution, int(threads))
            self.keras, version = self.imported(name)
            self.renumbered = renumbering(self.keras)
        except ImportError as missing:
            raise Unavailable(f"Keras on {name} cannot be imported: {missing}") from missing
        facts = {"version": version, "backend": name, "backend_version": self.backend.version}
        facts.update(device=device, execution=execution, floatx=self.keras.backend.floatx())
        return dict(facts, accelerator=self.backend.accelerator) if self.backend.accelerator else facts

    def imported(self, name: str) -> Tuple[Any, str]:
        """Keras and its version: Keras 3 where it is installed, else the Keras 2 inside TensorFlow."""
        try:
            version = metadata.version("keras")
        except metadata.PackageNotFoundError:
            version = ""
        if version and int(version.split(".")[0]) >= 3:
            return import_module("keras"), version
        if name != "tensorflow":
            raise Unavailable(f"backend {name} needs Keras 3, which is not installed")
        keras = import_module("tensorflow").keras
        return keras, version or keras.__version__

    def renumber(self) -> None:
        """A name that TensorFlow has not seen costs it a kernel for each variable, which it keeps for good."""
        self.renumbered()

    def build(self, layer: Layer) -> Held:
        self.recompute = layer.recompute
        if layer.momentum is None:
            raise NotExpressible("Keras has no cumulative average: momentum is a number")
        if not layer.track_running_stats:
            raise NotExpressible("Keras always tracks running statistics")
        arguments: Dict[str, Any] = {
            "axis": 1 if layer.layout == "channels_first" else -1,
            "momentum": of_old(layer.momentum),
            "epsilon": layer.eps,
        }
        arguments.update({name: False for name in ("scale", "center") if not getattr(layer, name)})
        if layer.dtype != "float32":
            arguments["dtype"] = layer.dtype
        return self.hold(arguments, layer.features, layer.initial)

    def build_native(self, native: Native) -> Held:
        self.recompute = native.recompute
        return self.hold(native.arguments, None, native.initial)

    def hold(self, arguments: Dict[str, Any], features: Optional[int], initial: Initial) -> Held:
        layer = self.make(arguments)
        axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
        if len(axes) != 1:
            raise NotExpressible(f"a case has its channels on one axis, this layer on {axes}")
        return Held(layer, axes[0], arguments, features, initial)

    def make(self, arguments: Dict[str, Any]) -> Any:
        self.received = self.call_text("keras.layers.BatchNormalization", arguments)
        with framework(), self.scope():
            return self.keras.layers.BatchNormalization(**arguments)

    def scope(self) -> Any:
        """Where a layer is made: what it is made in says whether its calls keep activations."""
        if not self.recompute:
            return contextlib.nullcontext()
        if not hasattr(self.keras, "RematScope"):
            raise NotExpressible("this Keras has no RematScope")
        return self.keras.RematScope(mode="full")

    def step(self, held: Held, step: Step) -> Tuple[Held, Dict[str, Array]]:
        x = self.tensor(step.x, held.axis)
        dy, v, tangent = (None if a is None else self.tensor(a, held.axis) for a in (step.dy, step.v, step.tangent))
        if not held.layer.built:
            held = self.built(held, step.x.dtype, tuple(x.shape))
        if step.save_load:
            held = self.reloaded(held, tuple(x.shape))
        if step.strided:
            x = self.strided(x)
        self.assign(held.layer, step.assigned)
        held.layer.trainable = held.arguments.get("trainable", True) and not step.frozen
        mode = {} if step.mode == "default" else {"training": step.mode == "train"}
        with framework():
            mask = None if step.mask is None else self.backend.tensor(step.mask.numpy(), "bool")
            tensors = self.backend.run(held.layer, x, Given(dy, v, tangent, mask), mode, step.by)
        if step.reread:
            tensors = dict(tensors, x=x)
        arrays = {name: self.array(value, held.axis) for name, value in tensors.items()}
        if step.dy is not None and arrays["y"].dtype != step.dy.dtype:
            self.note(f"dy was cast from {step.dy.dtype} to {arrays['y'].dtype}, the dtype of y")
        return held, arrays

    def assign(self, layer: Any, values: Dict[str, float]) -> None:
        with framework():
            if "eps" in values:
                layer.epsilon = values["eps"]
            if "momentum" in values:
                layer.momentum = of_old(values["momentum"])

    def built(self, held: Held, dtype: str, shape: Tuple[int, ...]) -> Held:
        """Build it as Keras does at the first call, when input and dtype are known, and put initial values in place.

        Half input to float32 parameters is Keras's mixed policy; a plain float32 layer would return float32.
        """
        if held.features is not None:
            shape = tuple(held.features if axis == held.axis % len(shape) else n for axis, n in enumerate(shape))
            if dtype in ("float16", "bfloat16") and "dtype" not in held.arguments:
                arguments = dict(held.arguments, dtype="mixed_" + dtype)
                held = held._replace(layer=self.make(arguments), arguments=arguments)
        with framework():
            held.layer.build(shape)
        for name, value in held.initial.items():
            place = variable(held.layer, name)
            if place is None:
                raise NotExpressible(f"this layer holds no {STATE[name]} to set")
            with framework():
                self.backend.assign(place, self.backend.tensor(value.numpy(), value.dtype))
        return held

    def reloaded(self, held: Held, shape: Tuple[int, ...]) -> Held:
        """The layer's state through a model's save_weights and load_weights into a new layer."""
        fresh = self.make(held.arguments)
        with tempfile.TemporaryDirectory() as folder, framework():
            path = os.path.join(folder, "layer.weights.h5")
            self.model(held.layer, shape).save_weights(path)
            self.model(fresh, shape).load_weights(path)
        return held._replace(layer=fresh)

    def model(self, layer: Any, shape: Tuple[int, ...]) -> Any:
        return self.keras.Sequential([self.keras.Input(shape[1:], batch_size=shape[0]), layer])

    def strided(self, x: Any) -> Any:
        with framework():
            view = self.backend.strided(x)
        if view is None:
            self.note(f"x is contiguous: {type(self.backend).__name__} tensors have no strides")
            return x
        return view

    def note(self, fact: str) -> None:
        if fact not in self.facts:
            self.facts.append(fact)

    def state(self, held: Held) -> Dict[str, Array]:
        variables = {name: variable(held.layer, name) for name in STATE}
        return {name: self.array(self.backend.value(v)) for name, v in variables.items() if v is not None}

    def constructor(self, rank: int) -> Any:
        return self.keras.layers.BatchNormalization

    def tensor(self, array: Array, axis: int) -> Any:
        values = moved(array.numpy(), 1, axis)
        with framework():
            return self.backend.tensor(values, array.dtype)

    def array(self, tensor: Any, axis: int = 1) -> Array:
        """The channels are back on axis 1 in what returns; arrays of one dimension stay as they are."""
        with framework():
            values, dtype, device = self.backend.fetch(tensor)
        values = moved(values, axis, 1)
        return Array.of(values.view(np.uint16) if dtype == "bfloat16" else values, dtype, device)
