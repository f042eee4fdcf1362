"""BatchNorm as a textbook would have it, value by value in 50 digits: it shares no code with the reference.

Ioffe and Szegedy, "Batch Normalization" (2015), algorithms 1 and 2. Where the reference has their closed form of dx,
here is the Jacobian of x̂, summed entry by entry: ∂x̂ⱼ/∂xᵢ = inv·(δᵢⱼ − 1/n − x̂ᵢ·x̂ⱼ/n).
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from conformance.problem import Call, Problem

MP = mpmath.MPContext()
MP.dps = 50


def results(problem: Problem) -> dict[str, Any]:
    """``y[0]``, ``dx[0]`` … of a layer case, arrays of mpmath's numbers in the shapes that a layer returns."""
    layer = problem.case.spec.layer
    assert layer is not None
    start = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0}
    held = {name: list(problem.initial.get(name, np.full(problem.features, value))) for name, value in start.items()}
    gamma, beta, mean, var = ([MP.mpf(float(value)) for value in held[name]] for name in start)
    gamma = gamma if layer.scale else [MP.mpf(1)] * problem.features
    beta = beta if layer.center else [MP.mpf(0)] * problem.features
    found: dict[str, Any] = {}
    seen, training = 0, True
    for index, call in enumerate(problem.calls):
        training = training if call.mode == "default" else call.mode == "train"
        seen += training and layer.track_running_stats
        names = ["y", "dx"] if call.dy is not None else ["y"]
        tensors = {name: np.full(call.x.shape, MP.mpf(0)) for name in names}
        vectors: dict[str, list[Any]] = {"dgamma": [], "dbeta": []}
        for channel in range(problem.features):
            batch = training or not layer.track_running_stats
            mu, sigma2, n = moments(call, channel)
            if batch:
                inv, centre = 1 / MP.sqrt(sigma2 + MP.mpf(layer.eps)), mu
            else:
                inv, centre = 1 / MP.sqrt(var[channel] + MP.mpf(layer.eps)), mean[channel]
            places = list(np.ndindex(call.x[:, 0].shape))
            xhat = {at: (value(call.x, channel, at) - centre) * inv for at in places}
            for at in places:
                tensors["y"][:, channel][at] = gamma[channel] * xhat[at] + beta[channel]
            if call.dy is not None:
                g = {at: value(call.dy, channel, at) for at in places}
                vectors["dbeta"].append(MP.fsum(g.values()))
                vectors["dgamma"].append(MP.fsum(g[at] * xhat[at] for at in places))
                for i in places:
                    through = MP.mpf(0)
                    if batch and kept(call, i):
                        through = MP.fsum(g[j] * (1 + xhat[i] * xhat[j]) for j in places) / n
                    tensors["dx"][:, channel][i] = gamma[channel] * inv * (g[i] - through)
            if training and layer.track_running_stats:
                m = MP.mpf(1) / seen if layer.momentum is None else MP.mpf(layer.momentum)
                mean[channel] += m * (mu - mean[channel])
                var[channel] += m * (sigma2 * n / (n - 1) - var[channel])
        if layer.track_running_stats:
            vectors |= {"running_mean": list(mean), "running_var": list(var)}
        learned = call.dy is not None and not call.frozen
        absent = {"dgamma": not (learned and layer.scale), "dbeta": not (learned and layer.center)}
        tensors |= {name: np.array(values) for name, values in vectors.items() if not absent.get(name)}
        found |= {f"{name}[{index}]": tensor for name, tensor in tensors.items()}
    return found


def moments(call: Call, channel: int) -> tuple[Any, Any, int]:
    """μ, σ² and n of the values that count."""
    x = [value(call.x, channel, at) for at in np.ndindex(call.x[:, 0].shape) if kept(call, at)]
    mu = MP.fsum(x) / len(x)
    return mu, MP.fsum((v - mu) ** 2 for v in x) / len(x), len(x)


def value(tensor: Any, channel: int, at: tuple[int, ...]) -> Any:
    return MP.mpf(float(tensor[at[0], channel, *at[1:]]))


def kept(call: Call, at: tuple[int, ...]) -> bool:
    return call.mask is None or bool(call.mask[at])
