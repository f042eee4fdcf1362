"""PyTorch: torch.nn.BatchNorm1d, 2d and 3d, on the CPU or a CUDA device.

Eager, through torch.compile or TorchScript, or inside an autocast region.
"""

import contextlib
import inspect
import io
import warnings
from functools import partial
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from conformance.harness import Adapter, Array, Layer, Native, NotExpressible, Step, Unavailable, framework

CLASSES = {1: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm2d, 3: torch.nn.BatchNorm3d}
#: What an execution needs of torch.
NEEDS = {"compiled": "compile", "scripted": "jit", "autocast": "autocast"}
#: Orders of second derivatives of which `forward_ad` takes one; it takes no other inside of itself.
FORWARD_ONCE = ("forward-over-reverse", "reverse-over-forward")
STATE = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}


def along(tensor: torch.Tensor) -> Optional[torch.Tensor]:
    """The derivative of a dual tensor along its tangent."""
    return forward_ad.unpack_dual(tensor).tangent


class Torch(Adapter):
    """Canonical parameters are torch's own, so `build` only spells them."""

    twice = True
    recomputes = True
    assigns = True
    tangents = True
    mixes = True

    def start(self, options: Dict[str, str]) -> Dict[str, str]:
        self.device = options["device"]
        self.execution = options["execution"]
        self.compiled: Tuple[Any, Any] = (None, None)  # a layer, and what came of it
        if self.device == "cuda" and not torch.cuda.is_available():
            raise Unavailable("torch sees no CUDA device")
        needed = NEEDS.get(self.execution)
        if needed is not None and not hasattr(torch, needed):
            raise Unavailable(f"torch {torch.__version__} has no torch.{needed}")
        torch.set_num_threads(int(options["threads"]))
        facts = {"version": torch.__version__, "device": self.device, "execution": self.execution}
        if self.device == "cuda":
            facts["accelerator"] = torch.cuda.get_device_name()
            facts["cudnn"] = str(torch.backends.cudnn.version())
        else:
            facts["mkldnn"] = str(torch.backends.mkldnn.is_available())
        return facts

    def build(self, layer: Layer) -> torch.nn.Module:
        known = self.parameters(layer.rank)
        biased = "bias" in known  # since torch 2.12
        if layer.center and not layer.scale:
            raise NotExpressible("torch has no beta without gamma")
        if layer.scale and not layer.center and not biased:
            raise NotExpressible("this torch has one argument, affine, for gamma and beta together")
        arguments = {
            "num_features": layer.features,
            "eps": layer.eps,
            "momentum": layer.momentum,
            "affine": layer.scale,
            "track_running_stats": layer.track_running_stats,
        }
        if layer.scale and not layer.center:
            arguments["bias"] = False
        dtype = None if layer.dtype == "float32" else getattr(torch, layer.dtype)
        if dtype is not None and "dtype" in known:
            arguments["dtype"], dtype = dtype, None  # before 1.9 there is .to() alone
        return self.make(layer.rank, arguments, layer, layer.layout, dtype)

    def build_native(self, native: Native) -> torch.nn.Module:
        return self.make(native.rank, native.arguments, native, "channels_first")

    def make(self, rank: int, arguments: Dict[str, Any], described: Any, layout: str, dtype: Any = None) -> Any:
        call = self.call_text(f"torch.nn.BatchNorm{rank}d", arguments)
        self.received = call if dtype is None else f"{call}.to({dtype})"
        self.again: Callable[[], Any] = lambda: self.scripted(CLASSES[rank](**arguments).to(self.device, dtype))
        with framework():
            module = self.again()
        self.recompute = described.recompute
        for name, value in described.initial.items():
            held = getattr(module, STATE[name])
            if held is None:
                raise NotExpressible(f"this layer holds no {STATE[name]} to set")
            with torch.no_grad():
                held.copy_(self.tensor(value))
        self.memory_format = torch.contiguous_format
        if layout == "channels_last":
            if rank == 1:
                raise NotExpressible("torch has no channels-last memory format below four dimensions")
            self.memory_format = torch.channels_last if rank == 2 else torch.channels_last_3d
        return module

    def step(self, layer: torch.nn.Module, step: Step) -> Tuple[torch.nn.Module, Dict[str, Array]]:
        if step.save_load:
            layer = self.reloaded(layer)
        with framework():
            for name, value in step.assigned.items():
                setattr(layer, name, value)
        if step.mode != "default":
            layer.train(step.mode == "train")
        for parameter in layer.parameters():
            parameter.requires_grad_(not step.frozen)
            parameter.grad = None
        x = self.input(step)
        if step.tangent is not None:
            tensors = self.differentiated_forward(layer, x, step.tangent)
        elif step.dy is not None and step.v is not None:
            tensors = self.twice_differentiated(layer, x, step.dy, step.v, step.by)
        else:
            tensors = self.differentiated(layer, x, step.dy)
        if step.reread:
            tensors["x"] = self.array(x)
        return layer, tensors

    def differentiated(self, layer: torch.nn.Module, x: torch.Tensor, dy: Optional[Array]) -> Dict[str, Array]:
        """y and, for its cotangent, the gradients."""
        with framework():
            y = self.call(layer, x)
        tensors = {"y": self.array(y)}
        if dy is None:
            return tensors
        with framework():
            y.backward(self.laid_out(dy))
        tensors["dx"] = self.array(x.grad)
        for name, parameter in (("dgamma", layer.weight), ("dbeta", layer.bias)):
            if parameter is not None and parameter.grad is not None:
                tensors[name] = self.array(parameter.grad)
        return tensors

    def differentiated_forward(self, layer: torch.nn.Module, x: torch.Tensor, tangent: Array) -> Dict[str, Array]:
        """y and its derivative along a tangent of x; None is torch's word for zero."""
        with framework(), forward_ad.dual_level():
            y, jvp = forward_ad.unpack_dual(self.call(layer, forward_ad.make_dual(x, self.laid_out(tangent))))
        return {"y": self.array(y), "jvp": self.array(torch.zeros_like(y) if jvp is None else jvp)}

    def twice_differentiated(
        self, layer: torch.nn.Module, x: torch.Tensor, given: Array, cotangent: Array, by: Optional[str]
    ) -> Dict[str, Array]:
        """y, its gradients and their derivatives.

        They are taken as a gradient penalty takes them, or as torch.func.hessian does, or jacrev or jacfwd of jacfwd.
        """
        if by == "forward-over-forward" and not hasattr(torch, "func"):
            raise NotExpressible(f"torch {torch.__version__} has no torch.func")
        dy, v = self.laid_out(given), self.laid_out(cotangent)
        parameters = {"dgamma": layer.weight, "dbeta": layer.bias}
        held = {name: p for name, p in parameters.items() if p is not None and p.requires_grad}
        scale = {"ddgamma": held["dgamma"]} if "dgamma" in held else {}
        grad = torch.autograd.grad
        with framework(), forward_ad.dual_level() if by in FORWARD_ONCE else contextlib.nullcontext():
            if by is None:
                y = self.call(layer, x)
                dx, *rest = grad(y, [x, *held.values()], dy.requires_grad_(), create_graph=True)
                sources = {"ddx": x, "ddy": dy, **scale}
                second = dict(zip(sources, grad(dx, list(sources.values()), v, allow_unused=True)))
            elif by == "forward-over-reverse":
                y = self.call(layer, forward_ad.make_dual(x, v))
                dx, *rest = grad(y, [x, *held.values()], dy, create_graph=True)
                second = {"ddx": along(dx), "ddy": along(y), **dict(zip(scale, map(along, rest)))}
            elif by == "reverse-over-forward":
                y, ddy = forward_ad.unpack_dual(self.call(layer, forward_ad.make_dual(x, v)))
                dx, *rest = grad(y, [x, *held.values()], dy, retain_graph=True)
                sources = {"ddx": x, **scale}
                second = dict(zip(sources, grad(ddy, list(sources.values()), dy, allow_unused=True)), ddy=ddy)
            else:
                jvp, called = torch.func.jvp, partial(self.call, layer)
                (y, ddy), (dx, ddx) = jvp(lambda x: jvp(called, (x,), (v,)), (x.detach(),), (dy,))
                rest, second = [], {"ddx": ddx, "ddy": ddy}
            # None is torch's word for zero; a tensor of zeros may hold none, and be copied alone.
            like = {"ddx": x, "ddy": y, **scale}
            copied = {name: torch.zeros_like(like[name]) if d is None else d.clone() for name, d in second.items()}
        found = {"y": y, "dx": dx, **dict(zip(held, rest)), **copied}
        return {name: self.array(tensor) for name, tensor in found.items()}

    def scripted(self, module: torch.nn.Module) -> torch.nn.Module:
        if self.execution != "scripted":
            return module
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.jit")
        return torch.jit.script(module)

    def call(self, layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        """A layer is compiled once, as in training, and recompiled by torch where mode, shape or dtype change."""
        called = self.recomputing(layer) if self.recompute else layer
        if self.execution == "autocast":
            with torch.autocast(self.device, dtype=torch.bfloat16 if self.device == "cpu" else torch.float16):
                return called(x)
        if self.execution != "compiled":
            return called(x)
        if self.compiled[0] is not layer:
            torch._dynamo.reset()  # past its limit of recompilations it would refuse, or run eagerly without a word
            self.compiled = (layer, torch.compile(called, fullgraph=True))
        return self.compiled[1](x)

    def recomputing(self, layer: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """The layer's call without activations that are kept: torch.utils.checkpoint, as torch recommends it."""
        latest = {"use_reentrant": False} if "use_reentrant" in inspect.signature(checkpoint).parameters else {}
        return lambda x: checkpoint(layer, x, **latest)

    def input(self, step: Step) -> torch.Tensor:
        x = self.laid_out(step.x)
        if step.strided:
            x = torch.stack((x, x), dim=-1)[..., 0]
        return x.detach().requires_grad_(step.dy is not None)

    def reloaded(self, layer: torch.nn.Module) -> torch.nn.Module:
        """The layer's state through torch.save and torch.load into a new layer in the same mode."""
        file = io.BytesIO()
        with framework():
            torch.save(layer.state_dict(), file)
            file.seek(0)
            fresh = self.again()
            fresh.load_state_dict(torch.load(file))
        return fresh.train(layer.training)

    def state(self, layer: torch.nn.Module) -> Dict[str, Array]:
        names = dict(STATE, num_batches_tracked="num_batches_tracked")
        held = {name: getattr(layer, attribute) for name, attribute in names.items()}
        return {name: self.array(value) for name, value in held.items() if value is not None}

    def constructor(self, rank: int) -> Any:
        return CLASSES[rank]

    def tensor(self, array: Array) -> torch.Tensor:
        values = array.numpy()
        if array.dtype == "bfloat16":
            return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16).to(self.device)
        return torch.from_numpy(values).to(self.device)

    def laid_out(self, array: Array) -> torch.Tensor:
        """A tensor in the memory format of x."""
        return self.tensor(array).to(memory_format=self.memory_format)

    def array(self, tensor: torch.Tensor) -> Array:
        device, values = tensor.device.type, tensor.detach().cpu().contiguous()
        if values.dtype == torch.bfloat16:
            return Array.of(values.view(torch.int16).numpy(), "bfloat16", device)
        return Array.of(values.numpy(), device=device)
