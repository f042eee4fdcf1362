"""BatchNorm in plain NumPy: how an adapter is written, and the implementation the suite's own tests run on.

It follows Ioffe and Szegedy, "Batch Normalization" (2015), algorithms 1 and 2, with torch's conventions: two-pass
statistics, running variance unbiased, momentum weighing the new batch; half precision is computed in float32.
"""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import numpy as np

from conformance.harness import Adapter, Array, Layer, Native, NotExpressible, Step, Unavailable, framework

OF_PARAMETERS = ("dgamma", "dbeta", "ddgamma")


@dataclass
class BatchNorm:
    """The layer: parameters and statistics in its dtype, and the mode it is in."""

    features: int
    eps: float = 1e-5
    momentum: Optional[float] = 0.1
    scale: bool = True
    center: bool = True
    track_running_stats: bool = True
    rank: int = 2
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self.real = np.float64 if self.dtype == "float64" else np.float32  # what it computes in
        self.gamma = np.ones(self.features, self.dtype)
        self.beta = np.zeros(self.features, self.dtype)
        self.running_mean = np.zeros(self.features, self.dtype)
        self.running_var = np.ones(self.features, self.dtype)
        self.num_batches_tracked = 0
        self.training = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x: (N, C, *spatial) → y of the same shape, not yet rounded to x's dtype."""
        if x.ndim not in {1: (2, 3), 2: (4,), 3: (5,)}[self.rank]:
            raise ValueError(f"BatchNorm{self.rank}d does not take {x.ndim} dimensions")
        if x.shape[1] != self.features:
            raise ValueError(f"expected {self.features} channels, got {x.shape[1]}")
        if x.dtype != self.dtype and (x.dtype, self.dtype) != (np.float16, "float32"):
            raise TypeError(f"a layer of {self.dtype} does not take {x.dtype}")
        x = x.astype(self.real, copy=False)
        self.axes = (0, *range(2, x.ndim))
        self.column = (1, -1) + (1,) * (x.ndim - 2)
        self.n = x.size // max(self.features, 1)
        self.batch = self.training or not self.track_running_stats
        if self.batch:
            if self.training and self.n == 1:
                raise ValueError("expected more than 1 value per channel when training")
            mu = x.mean(self.axes, dtype=self.real)
            var = ((x - mu.reshape(self.column)) ** 2).mean(self.axes, dtype=self.real)
            if self.training and self.track_running_stats:
                self.update(mu, var)
        else:
            mu, var = self.statistics()
        self.inv = 1 / np.sqrt(var + self.real(self.eps))
        self.xhat = (x - mu.reshape(self.column)) * self.inv.reshape(self.column)
        return self.xhat * self.gamma.reshape(self.column) + self.beta.reshape(self.column)

    def statistics(self) -> Tuple[np.ndarray, np.ndarray]:
        """The running mean and variance, (C,), as they are computed with."""
        return self.running_mean.astype(self.real), self.running_var.astype(self.real)

    def update(self, mu: np.ndarray, var: np.ndarray) -> None:
        """Move the running statistics towards the batch's: r ← (1 − m)·r + m·s, s unbiased for the variance."""
        self.num_batches_tracked += 1
        if not self.n:
            return
        m = self.real(1 / self.num_batches_tracked if self.momentum is None else self.momentum)
        unbiased = var * self.real(self.n / (self.n - 1))
        mean, variance = self.statistics()
        self.running_mean = ((1 - m) * mean + m * mu).astype(self.dtype)
        self.running_var = ((1 - m) * variance + m * unbiased).astype(self.dtype)

    def backward(self, g: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cotangent g of y → dx (like x), dgamma and dbeta, (C,)."""
        g = g.astype(self.real)
        dbeta = g.sum(self.axes)
        dgamma = (g * self.xhat).sum(self.axes)
        outer = (self.gamma * self.inv).reshape(self.column)
        if not self.batch:
            return outer * g, dgamma, dbeta
        mean_g = (dbeta / self.real(self.n)).reshape(self.column)
        mean_gx = (dgamma / self.real(self.n)).reshape(self.column)
        return outer * (g - mean_g - self.xhat * mean_gx), dgamma, dbeta

    def second(self, g: np.ndarray, v: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cotangent v of dx → the derivatives of the sum of v·dx: ddx (like x), ddgamma (C,), ddy (like y)."""
        g, v = g.astype(self.real), v.astype(self.real)
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

    twice = True

    def start(self, options: Dict[str, str]) -> Dict[str, str]:
        if options["device"] != "cpu":
            raise Unavailable("NumPy runs on the CPU only")
        return {"version": np.__version__, "device": "cpu"}

    def build(self, layer: Layer) -> BatchNorm:
        if layer.dtype == "bfloat16":
            raise NotExpressible("NumPy has no bfloat16")
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
        for name, value in described.initial.items():
            setattr(made, name, value.numpy())
        return made

    def step(self, layer: BatchNorm, step: Step) -> Tuple[BatchNorm, Dict[str, Array]]:
        if step.x.dtype == "bfloat16":
            raise NotExpressible("NumPy has no bfloat16")
        if step.save_load:
            self.facts.append("NumPy has no checkpoints; the layer went on as it was")
        if step.mode != "default":
            layer.training = step.mode == "train"
        x = step.x.numpy()
        with framework():
            y = layer.forward(x)
        tensors = {"y": y}
        if step.reread:
            tensors["x"] = x
        if step.dy is not None:
            dx, dgamma, dbeta = layer.backward(step.dy.numpy())
            tensors["dx"] = dx
            if layer.scale and not step.frozen:
                tensors["dgamma"] = dgamma
            if layer.center and not step.frozen:
                tensors["dbeta"] = dbeta
        if step.dy is not None and step.v is not None:
            ddx, ddgamma, ddy = layer.second(step.dy.numpy(), step.v.numpy())
            tensors.update(ddx=ddx, ddy=ddy)
            if "dgamma" in tensors:
                tensors["ddgamma"] = ddgamma
        dtypes = {name: layer.dtype if name in OF_PARAMETERS else x.dtype for name in tensors}
        return layer, {name: Array.of(tensor.astype(dtypes[name])) for name, tensor in tensors.items()}

    def state(self, layer: BatchNorm) -> Dict[str, Array]:
        held = {}
        if layer.scale:
            held["gamma"] = layer.gamma
        if layer.center:
            held["beta"] = layer.beta
        if layer.track_running_stats:
            held["running_mean"] = layer.running_mean
            held["running_var"] = layer.running_var
            held["num_batches_tracked"] = np.asarray(layer.num_batches_tracked, np.int64)
        return {name: Array.of(value) for name, value in held.items()}

    def constructor(self, rank: int) -> Any:
        return BatchNorm
