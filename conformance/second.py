"""Second derivatives: Σv·dx differentiated by x, γ and the cotangent g, and how far rounding may take them.

With S = Σv·g, V = Σv, G = Σg, V' = Σv·x̂, G' = Σg·x̂, and a = 1/n in training, 0 in evaluation:

    dx  = γ·inv·(g − a·G − a·x̂·G')                                       (13) of docs/bounds.md
    ddy = γ·inv·(v − a·V − a·x̂·V')                                       (18), since dx is symmetric in g and v
    ddγ = inv·(S − a·V·G − a·V'·G')                                      (19), which is Σv·dx/γ
    ddx = −a·γ·inv²·(x̂·(S − a·V·G − 3a·V'·G') + G'·(v − a·V) + V'·(g − a·G))   (20)

Other orders of differentiation have the same numbers. Second derivatives are symmetric: those of dx, dγ and y along v,
forward over reverse, are ddx, ddγ and ddy. Σv·dx is Σg·ddy, whose derivatives by x and γ are those of reverse over
forward. And ∂y/∂x is symmetric, so that dx is the derivative of y along g; and so is the next, so that y differentiated
along v and then along g, forward over forward, is ddx.

(20) follows from ∂inv/∂xᵢ = −a·inv²·x̂ᵢ and ∂V'/∂xᵢ = inv·(vᵢ − a·V − a·x̂ᵢ·V'). PyTorch has the same derivatives as
`batchnorm_double_backward`, torch/csrc/autograd/FunctionsManual.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.arithmetic import Arithmetic, Array
from conformance.conventions import Differentiating
from conformance.layer import Trace


@dataclass(frozen=True)
class Errors:
    """What a step's bounds know already: u, q of inv, δx̂ (C, n), √l's part 2√l·u, and δV, δV', δG and δG', (C,)."""

    u: float
    q: Array
    delta_xhat: Array
    root: float
    of_v: tuple[Array, Array]
    of_g: tuple[Array, Array]


@dataclass(frozen=True)
class _Sums:
    """S, V, G, V' and G', (C,), and the a that they are taken off with."""

    a: Any
    vg: Array
    v: Array
    g: Array
    v_xhat: Array
    g_xhat: Array


def differentiated(t: Trace, v: Array, c: Differentiating, arithmetic: Arithmetic, by: str | None = None) -> Trace:
    """The step with ddx, ddgamma and ddy for v, (C, n), the cotangent of dx. It needs a cotangent g.

    Args:
        by: the order of modes, where one is forward. It matters where a convention takes something for a constant.
    """
    s = _sums(t, v, arithmetic)
    a, inv, gamma = s.a, t.inv[:, None], t.gamma[:, None]
    learns = t.dgamma is not None
    if not a:  # x has no part in any of them, and may be no number
        still = arithmetic.lift(np.zeros(v.shape))
        return replace(t, v=v, ddx=still, ddgamma=t.inv * s.vg if learns else None, ddy=gamma * inv * v)
    centred = v - a * s.v[:, None]
    whole = s.vg - a * s.v * s.g
    return replace(
        t,
        v=v,
        ddx=-a * gamma * inv * inv * _spread(t, v, s, c, by),
        ddgamma=t.inv * (whole - a * s.v_xhat * s.g_xhat) if learns else None,
        ddy=gamma * inv * (centred - a * t.xhat * s.v_xhat[:, None]),
    )


def _spread(t: Trace, v: Array, s: _Sums, c: Differentiating, by: str | None) -> Array:
    """What −a·γ·inv² multiplies in ddx of training, (C, n).

    With the variance's mean for a constant d²σ²/dxᵢdxⱼ is 2a·δᵢⱼ in place of 2a·(δᵢⱼ − a). With mean and deviation for
    constants in ddy = γ·inv·(v − a·V) − a·γ·inv³·(x − μ)·Σ(v − a·V)·(x − μ), x alone moves there.
    """
    a, xhat, g = s.a, t.xhat, t.g
    assert g is not None
    v_xhat, g_xhat = s.v_xhat[:, None], s.g_xhat[:, None]
    v_centred, g_centred = v - a * s.v[:, None], g - a * s.g[:, None]
    whole = s.vg - a * s.v * s.g
    if c.second_over_forward == "statistics constant" and by == "reverse-over-forward":
        return np.asarray(g_xhat * v_centred + v_xhat * g)
    if c.second_over_forward == "statistics constant" and by == "forward-over-forward":
        return np.asarray(xhat * whole[:, None] + v_xhat * g)
    if c.second == "variance about a constant" and by == "forward-over-forward":
        whole = s.vg
    elif c.second == "variance about a constant":
        v_centred = v
    through = xhat * (whole - 3 * a * s.v_xhat * s.g_xhat)[:, None]
    return np.asarray(through + g_xhat * v_centred + v_xhat * g_centred)


def lost(t: Trace, arithmetic: Arithmetic) -> Trace:
    """The step as if nothing moved along v."""
    still, none = (arithmetic.lift(np.zeros(of.shape)) for of in (t.x, t.gamma))
    return replace(t, ddx=still, ddy=still, ddgamma=None if t.ddgamma is None else none)


def of_v(t: Trace, arithmetic: Arithmetic) -> Trace:
    """The step with v in the place of g and ddy in that of dx, whose bounds are those of dx."""
    assert t.v is not None
    s = _sums(t, t.v, arithmetic)
    return replace(t, g=t.v, sums=(s.v, s.v_xhat), dx=t.ddy, taken_off=(s.a, s.a))  # (18)


def bounds(t: Trace, e: Errors, arithmetic: Arithmetic) -> tuple[Array, Array]:
    """δddx and δddγ, (C, n) and (C,), without the rounding of the output; `t` in float64."""
    assert t.v is not None
    assert t.g is not None
    s = _sums(t, t.v, arithmetic)
    a, u, inv, xhat = s.a, e.u, t.inv, np.abs(t.xhat)
    v, g = np.abs(t.v), np.abs(t.g)
    if not a:
        summed = (e.root + 6 * u) * np.sqrt((v * g * v * g).sum(1)) + e.root * np.abs(s.vg)
        return np.zeros_like(t.x), inv * (summed + (e.q + 4 * u) * np.abs(s.vg))
    w = inv[:, None] * (np.abs(t.x) + np.abs(t.mu)[:, None])
    vg, v_, g_, v_x, g_x = (np.abs(each) for each in (s.vg, s.v, s.g, s.v_xhat, s.g_xhat))
    (delta_v, delta_vx), (delta_g, delta_gx) = e.of_v, e.of_g

    terms = v * (g + a * (g_[:, None] + w * g_x[:, None]))
    products = a * (v_ * delta_g + g_ * delta_v), a * (v_x * delta_gx + g_x * delta_vx)
    summed = (e.root + 6 * u) * np.sqrt((terms * terms).sum(1)) + e.root * (vg + a * (v_ * g_ + v_x * g_x))
    whole = s.vg - a * s.v * s.g - a * s.v_xhat * s.g_xhat
    delta_ddgamma = inv * (summed + products[0] + products[1] + (e.q + 4 * u) * np.abs(whole))  # (19)

    size = vg + a * v_ * g_ + 3 * a * v_x * g_x
    delta_size = summed + products[0] + 3 * products[1] + 4 * u * size
    inner = np.abs(s.vg - a * s.v * s.g - 3 * a * s.v_xhat * s.g_xhat)
    v_centred, g_centred = v + a * v_[:, None], g + a * g_[:, None]
    each = e.delta_xhat * inner[:, None] + xhat * delta_size[:, None]
    each = each + delta_gx[:, None] * v_centred + delta_vx[:, None] * g_centred
    each = each + a * (g_x * delta_v + v_x * delta_g)[:, None]
    parts = xhat * size[:, None] + g_x[:, None] * v_centred + v_x[:, None] * g_centred
    each = each + (2 * e.q + 6 * u)[:, None] * parts
    return a * (np.abs(t.gamma) * inv * inv)[:, None] * each, delta_ddgamma  # (20)


def _sums(t: Trace, v: Array, arithmetic: Arithmetic) -> _Sums:
    assert t.g is not None
    total = arithmetic.sum
    a = 1 / arithmetic.lift(np.asarray(float(t.count)))[()] if t.batch and t.count else 0
    return _Sums(a, total(v * t.g), total(v), total(t.g), total(v * t.xhat), total(t.g * t.xhat))
