"""BatchNorm in plain NumPy: how an adapter is written, and the implementation the suite's own tests run on.

It follows Ioffe and Szegedy, "Batch Normalization" (2015), algorithms 1 and 2, with torch's conventions: two-pass
statistics, running variance unbiased, momentum weighing the new batch; half precision is computed in float32.
"""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import numpy as np

from conformance.harness import Adapter, Array, Layer, Native, NotExpressible, Step, Unavailable, framework

OF_PARAMETERS = ("dgamma", "dbeta", "ddgamma")
HALVES = ("float16", "bfloat16")


def numbers(array: Array) -> np.ndarray:
    """Its values in float32, which holds those of shorter dtypes, or in float64 where that is theirs."""
    values = array.numpy()
    if array.dtype == "bfloat16":  # which NumPy lacks; its bits are the first half of float32's
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64 if array.dtype == "float64" else np.float32)


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values as numbers of a dtype, in the dtype that they come in."""
    if dtype != "bfloat16":
        return values.astype(dtype).astype(values.dtype)
    bits = values.view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # the even one of two
    return np.where(np.isnan(values), values, nearest.astype(np.uint32).view(np.float32))


def packed(values: np.ndarray, dtype: str) -> Array:
    """Values rounded to a dtype, as they cross to the suite."""
    if dtype != "bfloat16":
        return Array.of(values.astype(dtype))
    return Array.of((rounded(values, dtype).view(np.uint32) >> 16).astype(np.uint16), dtype)


@dataclass
class BatchNorm:
    """The layer: parameters and statistics, which are numbers of its dtype, and the mode it is in."""

    features: int
    eps: float = 1e-5
    momentum: Optional[float] = 0.1
    scale: bool = True
    center: bool = True
    track_running_stats: bool = True
    rank: int = 2
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self.real: Any = np.float64 if self.dtype == "float64" else np.float32  # what it computes in
        self.gamma = np.ones(self.features, self.real)
        self.beta = np.zeros(self.features, self.real)
        self.running_mean = np.zeros(self.features, self.real)
        self.running_var = np.ones(self.features, self.real)
        self.num_batches_tracked = 0
        self.training = True
        self.recompute = False

    def forward(self, x: np.ndarray, dtype: str, mask: Optional[np.ndarray] = None, again: bool = False) -> np.ndarray:
        """x: (N, C, *spatial), numbers of a dtype, and which of (N, *spatial) count → y of the same shape.

        Called `again` on the way back, for what the gradients need, it moves no statistics.
        """
        if x.ndim not in {1: (2, 3), 2: (4,), 3: (5,)}[self.rank]:
            raise ValueError(f"BatchNorm{self.rank}d does not take {x.ndim} dimensions")
        if x.shape[1] != self.features:
            raise ValueError(f"expected {self.features} channels, got {x.shape[1]}")
        if dtype != self.dtype and (self.dtype != "float32" or dtype not in HALVES):
            raise TypeError(f"a layer of {self.dtype} does not take {dtype}")
        self.axes = (0, *range(2, x.ndim))
        self.column = (1, -1) + (1,) * (x.ndim - 2)
        self.kept = True if mask is None else mask[:, None]
        self.n = x.size // max(self.features, 1) if mask is None else int(mask.sum())
        self.batch = self.training or not self.track_running_stats
        if self.batch:
            if self.training and self.n == 1:
                raise ValueError("expected more than 1 value per channel when training")
            mu = self.mean(x)
            var = self.mean((x - mu.reshape(self.column)) ** 2)
            if self.training and self.track_running_stats and not again:
                self.update(mu, var)
        else:
            mu, var = self.running_mean, self.running_var
        self.inv = 1 / np.sqrt(var + self.real(self.eps))
        self.xhat = (x - mu.reshape(self.column)) * self.inv.reshape(self.column)
        return self.xhat * self.gamma.reshape(self.column) + self.beta.reshape(self.column)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The mean of each channel over what counts, (C,)."""
        if self.kept is True:
            return values.mean(self.axes, dtype=self.real)
        return np.where(self.kept, values, 0).sum(self.axes, dtype=self.real) / self.real(self.n)

    def update(self, mu: np.ndarray, var: np.ndarray) -> None:
        """Move the running statistics towards the batch's: r ← (1 − m)·r + m·s, s unbiased for the variance."""
        self.num_batches_tracked += 1
        if not self.n:
            return
        m = self.real(1 / self.num_batches_tracked if self.momentum is None else self.momentum)
        unbiased = var * self.real(self.n / (self.n - 1))
        self.running_mean = rounded((1 - m) * self.running_mean + m * mu, self.dtype)
        self.running_var = rounded((1 - m) * self.running_var + m * unbiased, self.dtype)

    def backward(self, g: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cotangent g of y → dx (like x), dgamma and dbeta, (C,)."""
        dbeta = g.sum(self.axes)
        dgamma = (g * self.xhat).sum(self.axes)
        outer = (self.gamma * self.inv).reshape(self.column)
        if not self.batch:
            return outer * g, dgamma, dbeta
        mean_g = (dbeta / self.real(self.n)).reshape(self.column)
        mean_gx = (dgamma / self.real(self.n)).reshape(self.column)
        return outer * np.where(self.kept, g - mean_g - self.xhat * mean_gx, g), dgamma, dbeta

    def along(self, tangent: np.ndarray) -> np.ndarray:
        """A tangent of x → the derivative of y along it, like x."""
        inv, gamma = self.inv.reshape(self.column), self.gamma.reshape(self.column)
        if not self.batch:
            return gamma * inv * tangent
        centred = tangent - tangent.mean(self.axes, keepdims=True)
        slope = (self.xhat * centred).mean(self.axes, keepdims=True)  # of the deviation, over the deviation
        return gamma * inv * (centred - self.xhat * slope)

    def second(self, g: np.ndarray, v: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cotangent v of dx → the derivatives of the sum of v·dx: ddx (like x), ddgamma (C,), ddy (like y)."""
        gamma, inv = self.gamma.reshape(self.column), self.inv.reshape(self.column)
        if not self.batch:  # the statistics are constants
            return 0 * g, self.inv * (v * g).sum(self.axes), gamma * inv * v
        g_mean, v_mean = (a.mean(self.axes, keepdims=True) for a in (g, v))
        gx_mean, vx_mean = ((a * self.xhat).mean(self.axes, keepdims=True) for a in (g, v))
        g_left, v_left = g - g_mean - self.xhat * gx_mean, v - v_mean - self.xhat * vx_mean
        vg_mean = (v * g_left).mean(self.axes, keepdims=True)
        ddx = -gamma * inv * inv * (self.xhat * vg_mean + gx_mean * v_left + vx_mean * g_left)
        return ddx, self.inv * (v * g_left).sum(self.axes), gamma * inv * v_left


class NumPy(Adapter):
    """Canonical and native parameters are the same thing here."""

    masks = True
    twice = True
    recomputes = True
    assigns = True
    tangents = True
    mixes = True

    def start(self, options: Dict[str, str]) -> Dict[str, str]:
        if options["device"] != "cpu":
            raise Unavailable("NumPy runs on the CPU only")
        return {"version": np.__version__, "device": "cpu"}

    def build(self, layer: Layer) -> BatchNorm:
        names = ("rank", "features", "eps", "momentum", "scale", "center", "track_running_stats")
        arguments = {name: getattr(layer, name) for name in names}
        if layer.dtype != "float32":
            arguments["dtype"] = layer.dtype
        return self.make(arguments, layer)

    def build_native(self, native: Native) -> BatchNorm:
        return self.make({"rank": native.rank, **native.arguments}, native)

    def make(self, arguments: Dict[str, Any], described: Any) -> BatchNorm:
        self.received = self.call_text("BatchNorm", arguments)
        with framework():
            made = BatchNorm(**arguments)
        made.recompute = described.recompute
        for name, value in described.initial.items():
            setattr(made, name, numbers(value))
        return made

    def step(self, layer: BatchNorm, step: Step) -> Tuple[BatchNorm, Dict[str, Array]]:
        if step.save_load:
            self.facts.append("NumPy has no checkpoints; the layer went on as it was")
        for name, value in step.assigned.items():
            setattr(layer, name, value)
        if step.mode != "default":
            layer.training = step.mode == "train"
        x, dtype = numbers(step.x), step.x.dtype
        mask = None if step.mask is None else step.mask.numpy()
        with framework():
            y = layer.forward(x, dtype, mask)
        tensors = {"y": y}
        if step.reread:
            tensors["x"] = x
        if step.tangent is not None:
            tensors["jvp"] = layer.along(numbers(step.tangent))
        if step.dy is not None:
            if layer.recompute:
                layer.forward(x, dtype, mask, again=True)
            dx, dgamma, dbeta = layer.backward(numbers(step.dy))
            tensors["dx"] = dx
            learns = not step.frozen and step.by != "forward-over-forward"
            if layer.scale and learns:
                tensors["dgamma"] = dgamma
            if layer.center and learns:
                tensors["dbeta"] = dbeta
        if step.dy is not None and step.v is not None:
            if step.mask is not None:
                raise NotExpressible("there are no second derivatives under a mask")
            ddx, ddgamma, ddy = layer.second(numbers(step.dy), numbers(step.v))
            tensors.update(ddx=ddx, ddy=ddy)
            if "dgamma" in tensors:
                tensors["ddgamma"] = ddgamma
        dtypes = {name: layer.dtype if name in OF_PARAMETERS else dtype for name in tensors}
        return layer, {name: packed(tensor, dtypes[name]) for name, tensor in tensors.items()}

    def state(self, layer: BatchNorm) -> Dict[str, Array]:
        held = {}
        if layer.scale:
            held["gamma"] = layer.gamma
        if layer.center:
            held["beta"] = layer.beta
        if layer.track_running_stats:
            held["running_mean"] = layer.running_mean
            held["running_var"] = layer.running_var
        found = {name: packed(value, layer.dtype) for name, value in held.items()}
        if layer.track_running_stats:
            found["num_batches_tracked"] = Array.of(np.asarray(layer.num_batches_tracked, np.int64))
        return found

    def constructor(self, rank: int) -> Any:
        return BatchNorm
