"""Legitimate BatchNorms in float32: every way of summing, of taking a variance and of applying it that kernels use.

Arrays are (C, n), as in the reference. Each function rounds where a kernel would, to the dtype of its input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.arithmetic import Array
from conformance.layer import Parameters

Sum = Callable[[Array], Array]
Statistics = Callable[[Array, Sum], tuple[Array, Array]]
Apply = Callable[[Array, Array, Array, Array, Array], Array]

# Sums over the last axis


def pairwise(a: Array) -> Array:
    """Halves added to halves."""
    while a.shape[-1] > 1:
        if a.shape[-1] % 2:
            a = np.concatenate((a, np.zeros_like(a[..., :1])), -1)
        half = a.shape[-1] // 2
        a = a[..., :half] + a[..., half:]
    return a[..., 0]


def blocked(a: Array) -> Array:
    """Runs of 32 one after another, then the runs pairwise, as vectorised reductions do."""
    rest = -a.shape[-1] % 32
    a = np.concatenate((a, np.zeros_like(a[..., :1]).repeat(rest, -1)), -1)
    runs = a.reshape(*a.shape[:-1], -1, 32)
    return pairwise(sequential(runs))


def shuffled(a: Array) -> Array:
    """In no particular order, as threads that add up their parts do."""
    return blocked(a[..., np.random.RandomState(0).permutation(a.shape[-1])])


def sequential(a: Array) -> Array:
    """One after another: depth n."""
    return np.asarray(np.cumsum(a, -1, dtype=a.dtype)[..., -1])


# Mean and biased variance


def two_pass(x: Array, total: Sum) -> tuple[Array, Array]:
    n = x.dtype.type(x.shape[1])
    mu = total(x) / n
    centred = x - mu[:, None]
    return mu, total(centred * centred) / n


def one_pass(x: Array, total: Sum) -> tuple[Array, Array]:
    """E[x²] − μ², which cancels where the mean is far above the deviation."""
    n = x.dtype.type(x.shape[1])
    mu = total(x) / n
    return mu, np.maximum(total(x * x) / n - mu * mu, 0)


def welford(x: Array, _: Sum) -> tuple[Array, Array]:
    """Welford, "Note on a method for calculating corrected sums of squares and products" (1962)."""
    mu, squares = np.zeros_like(x[:, 0]), np.zeros_like(x[:, 0])
    for count, value in enumerate(x.T, 1):
        off = value - mu
        mu = mu + off / x.dtype.type(count)
        squares = squares + off * (value - mu)
    return mu, squares / x.dtype.type(x.shape[1])


def chan(x: Array, total: Sum) -> tuple[Array, Array]:
    """Two-pass in runs of 16, merged pairwise: Chan, Golub and LeVeque (1983)."""
    parts = [(run.shape[1], *two_pass(run, total)) for run in np.split(x, range(16, x.shape[1], 16), axis=1)]
    merged = [(x.dtype.type(count), mu, var * x.dtype.type(count)) for count, mu, var in parts]
    while len(merged) > 1:
        left, right = merged[::2], merged[1::2]
        odd = left[len(right) :]
        merged = [_merge(a, b) for a, b in zip(left, right, strict=False)] + odd
    count, mu, squares = merged[0]
    return mu, squares / count


def _merge(a: tuple[Any, Array, Array], b: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
    (m, mu_a, squares_a), (n, mu_b, squares_b) = a, b
    off = mu_b - mu_a
    return m + n, mu_a + off * (n / (m + n)), squares_a + squares_b + off * off * (m * n / (m + n))


# Application, with columns of mu, inv, gamma and beta


def centred(x: Array, mu: Array, inv: Array, gamma: Array, beta: Array) -> Array:
    return (x - mu) * inv * gamma + beta


def folded(x: Array, mu: Array, inv: Array, gamma: Array, beta: Array) -> Array:
    """y = x·a + b, one multiplication and one addition an element."""
    a = gamma * inv
    return x * a + (beta - mu * a)


@dataclass(frozen=True)
class Algorithm:
    """A BatchNorm put together from its parts."""

    total: Sum = pairwise
    statistics: Statistics = two_pass
    apply: Apply = centred

    def __str__(self) -> str:
        return "-".join(part.__name__ for part in (self.statistics, self.total, self.apply))

    def run(self, p: Parameters, x: Array, g: Array, *, train: bool, io_dtype: Any = None) -> dict[str, Array]:
        """One step in the dtype of x; `io_dtype` is that of y and dx where it is another."""
        number = x.dtype.type
        n = number(x.shape[1])
        gamma, beta, r_mean, r_var = (v.astype(x.dtype) for v in (p.gamma, p.beta, p.running_mean, p.running_var))
        mu, var = self.statistics(x, self.total) if train else (r_mean, r_var)
        inv = 1 / np.sqrt(var + number(p.eps))
        columns = tuple(v[:, None] for v in (mu, inv, gamma, beta))
        xhat = (x - columns[0]) * columns[1]
        dbeta, dgamma = self.total(g), self.total(g * xhat)
        inner = g - dbeta[:, None] / n - xhat * (dgamma[:, None] / n) if train else g
        found = {
            "y": self.apply(x, *columns).astype(io_dtype or x.dtype),
            "dx": (columns[2] * columns[1] * inner).astype(io_dtype or x.dtype),
            "dgamma": dgamma,
            "dbeta": dbeta,
        }
        if train:
            m = number(p.momentum)
            found["running_mean"] = (1 - m) * r_mean + m * mu
            found["running_var"] = (1 - m) * r_var + m * (var * (n / (n - 1)))
        return found
