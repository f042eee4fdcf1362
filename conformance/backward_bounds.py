"""Rounding errors of a step's gradients: (11) to (13) and (21) of docs/bounds.md, and those of second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property

import numpy as np

from conformance import second
from conformance.arithmetic import Array, Double, in_blocks
from conformance.forward_bounds import Forward, over, ties, total
from conformance.rounding import BLOCKED_DEPTH, SUBNORMAL, UNIT_ROUNDOFF

#: Chains that a sum is looked at in, and grids that its terms are rounded to, each half as wide as the last.
LANES, GRIDS = 32, 3

#: Of longer sums so many terms are rounded.
TERMS = 16_384


class Backward(Forward):
    """One step's errors on the way back."""

    def gradients(self) -> tuple[Array, Array, Array]:
        """δx', δγ' and δβ'."""
        delta_dx, delta_gamma, delta_beta = self.backward
        return (delta_dx, *self._returned(delta_gamma, delta_beta))

    def second(self) -> tuple[Array, Array | None, Array]:
        """δddx, δddγ and δddy, of which (18) is (13) with v in the place of g."""
        t, r, exact = self.t, self.r, Double()
        assert t.ddx is not None
        plain = replace(r, conventions=r.conventions.but(dx_scale="applied"))
        delta_ddy, delta_vx, delta_v = Backward(second.of_v(t, exact), plain, self.held, exact).backward
        _, delta_gx, delta_g = self.backward
        root = 2 * np.sqrt(r.lane(t.x.shape[1])) * r.u
        delta_xhat = self.delta_xhat(self.of_xhat)
        known = second.Errors(r.u, self.q, delta_xhat, root, (delta_v, delta_vx), (delta_g, delta_gx))
        delta_ddx, delta_ddgamma = second.bounds(t, known, exact)
        delta_ddx = delta_ddx + self.u_o * np.abs(t.ddx) + self.eta
        if t.ddgamma is None:
            return delta_ddx, None, delta_ddy
        u_p, eta_p = UNIT_ROUNDOFF[r.layer_dtype], SUBNORMAL[r.layer_dtype]
        return delta_ddx, delta_ddgamma + u_p * np.abs(t.ddgamma) + eta_p, delta_ddy

    @cached_property
    def backward(self) -> tuple[Array, Array, Array]:
        """δx', and δγ' and δβ' without the rounding of what is returned."""
        t, r, u, inv, tiny = self.t, self.r, self.r.u, self.t.inv, self.r.tiny
        assert t.g is not None
        assert t.dx is not None
        assert t.sums is not None
        g, beta_, gamma_ = t.g, np.abs(t.sums[0]), np.abs(t.sums[1])
        delta_mu, of_xhat, q = self.delta_mu, self.of_xhat, self.q
        saved = r.saved - r.statistics
        if t.batch and saved:
            delta_mu, q = delta_mu + saved * np.abs(t.mu), q + 2 * saved
            of_xhat = of_xhat[0] + 2 * saved, of_xhat[1] + saved * inv * np.abs(t.mu)  # (14)
        n = t.x.shape[1]
        root, (drift, drift_of_products) = 2 * np.sqrt(r.lane(n)) * u, self._drifts(g)
        delta_beta = root * _norm(lambda g: g, g) + drift + r.terms * beta_ + tiny * n  # (11), unrounded
        spanned = (t.x, np.abs(t.mu)[:, None], inv[:, None])
        delta_gamma = (root + 3 * u) * _norm(lambda g, x, mu, inv: g * _spanned(x, mu, inv), g, *spanned)
        if tiny:
            small = np.abs(g) * (1 + inv[:, None]) + self.xhat + _spanned(*spanned) + 1
            delta_gamma = delta_gamma + tiny * small.sum(1)
        if t.count:
            delta_gamma = delta_gamma + inv * (delta_mu * beta_ + np.abs(t.mu) * drift)
            delta_gamma = delta_gamma + drift_of_products + (q + 4 * u + r.terms) * gamma_  # (12), unrounded
            delta_gamma = delta_gamma + r.subnormal * (n * (1 + inv) + total(np.abs, g))  # (12")
        if r.elements:
            least_products = 2 * np.sqrt(n) * self.eta * inv
            delta_gamma = delta_gamma + 4 * r.elements * _norm(np.multiply, g, t.xhat) + least_products  # (14)
        if r.conventions.coarse == "factors":
            delta_xhat = self.delta_xhat(of_xhat)
            delta_gamma = delta_gamma + (np.abs(g) * ties(self.xhat, over(delta_xhat, self.xhat))).sum(1)  # (17)

        a, b = t.taken_off
        gamma = np.ones_like(t.gamma) if r.conventions.dx_scale == "ignored" else np.abs(t.gamma)
        outer = gamma * inv
        kept = np.ones((len(inv), 1)) if t.mask is None else np.broadcast_to(t.mask, t.x.shape)
        relative = q + 6 * u
        least = self.eta * (1 + 3 * outer if r.terms else 1) + r.subnormal * (1 + gamma + inv)  # (13"), (14)
        if a or b:
            relative, spread = relative + r.terms, 3 * u + r.terms
            through = outer * b * (gamma_ + delta_gamma)
            # What each of |dx|, |g| and |x̂| is multiplied by, and what is the same all over the channel.
            factors = (
                relative + self.u_o,
                outer * spread,
                outer * b * (delta_gamma + spread * gamma_) + through * of_xhat[0] + outer * r.subnormal,
                outer * (a * (delta_beta + spread * beta_) + r.subnormal * (2 + gamma_)) + through * of_xhat[1],
                least,
            )
            delta_dx = in_blocks(
                lambda dx, g, xhat, kept, of_dx, of_g, of_xhat, rest, least: (
                    of_dx * np.abs(dx) + of_g * np.abs(g) + kept * (of_xhat * np.abs(xhat) + rest) + least
                ),
                *(t.dx, g, t.xhat, kept),
                *(factor[:, None] for factor in factors),
            )  # (13)
        else:
            delta_dx = (outer * relative)[:, None] * np.abs(g) + self.u_o * np.abs(t.dx) + least[:, None]  # (13)
        values = t.count if a or b else 1
        lost = self.lost_below(outer / values)
        if lost is not None:
            met = np.abs(g) + kept * (a * beta_[:, None] + b * self.xhat * gamma_[:, None])
            delta_dx = delta_dx + lost * (values * met + 3 * (1 + inv[:, None]) * (1 + self.xhat))  # (13')
        if (a or b) and r.conventions.derivation != "closed":
            of_variance = (1 + b * (2 + inv**3 + gamma * over(gamma_, inv)))[:, None] * over(self.xhat, inv[:, None])
            of_mean = 1 + a * (1 + beta_)[:, None]
            delta_dx = delta_dx + r.subnormal * (np.abs(g) + kept * (of_mean + of_variance))  # (21)
        if tiny:
            met = self.xhat if t.batch else np.zeros_like(self.xhat)
            scale = (outer[:, None] * (2 + met)) + inv[:, None] + gamma[:, None]
            delta_dx = delta_dx + tiny * (scale + np.abs(g) * (1 + met) + 1)
        return delta_dx, delta_gamma, delta_beta

    def _drifts(self, g: Array) -> tuple[Array, Array]:
        """d(g) and d(g·x̂) of (11): what sums lose as their partial sums are large, or their terms round alike, (C,)."""
        t, u, n = self.t, self.r.u, g.shape[1]
        products = g * t.xhat
        if n <= BLOCKED_DEPTH:
            chain = max(2 * np.sqrt(n), n / 2) * u
            return chain * _along(g), chain * _along(products)
        of_g, of_products = (np.maximum(_along(terms), _in_lanes(terms)) for terms in (g, products))
        root, inv, mu = 2 * np.sqrt(self.r.lane(n)) * u, t.inv, np.abs(t.mu)
        # Kernels sum g·x̂, or g·(x−μ) or g·x, which they multiply by inv: each form rounds in its own way.
        where = _spread(n)
        g, x, products = g[:, where], t.x[:, where], products[:, where]
        plain = over(of_products, inv)
        sizes = np.concatenate((of_g, of_products, plain, np.maximum(plain, mu * of_g)))
        forms = np.concatenate((g, products, g * (x - t.mu[:, None]), g * x))
        lost, *of_forms = _rounded_off(forms, u * sizes, n).reshape(4, -1)
        lost_of_products = np.fmax(of_forms[0], inv * np.fmax(of_forms[1], of_forms[2]))
        return root * of_g + 2 * lost, root * of_products + 2 * lost_of_products

    def _returned(self, delta_gamma: Array, delta_beta: Array) -> tuple[Array, Array]:
        """Bounds of dγ and dβ as they are handed out, and their rounding."""
        t, c = self.t, self.r.conventions
        u_p, eta_p = UNIT_ROUNDOFF[self.r.layer_dtype], SUBNORMAL[self.r.layer_dtype]
        assert t.sums is not None
        beta_, gamma_ = np.abs(t.sums[0]), np.abs(t.sums[1])
        if c.dgamma == "unnormalised":
            delta_gamma, gamma_ = delta_gamma / t.inv, gamma_ / t.inv
        if c.parameter_gradients == "averaged" and t.count:
            delta_gamma, delta_beta, gamma_, beta_ = (v / t.count for v in (delta_gamma, delta_beta, gamma_, beta_))
        if c.parameter_gradients == "swapped":
            delta_gamma, delta_beta, gamma_, beta_ = delta_beta, delta_gamma, beta_, gamma_
        return delta_gamma + u_p * gamma_ + eta_p, delta_beta + u_p * beta_ + eta_p


def _along(terms: Array) -> Array:
    """The largest partial sum of (C, n) terms in their order, (C,)."""
    return np.asarray(np.abs(np.cumsum(terms, axis=1)).max(axis=1, initial=0))


def _in_lanes(terms: Array) -> Array:
    """The largest partial sums of `LANES` chains that take the terms in turn, together as a 2-norm, (C,)."""
    channels, n = terms.shape
    padded = np.zeros((channels, -(-n // LANES) * LANES))
    padded[:, :n] = terms
    largest = np.abs(np.cumsum(padded.reshape(channels, -1, LANES), axis=1)).max(axis=1)
    return np.asarray(np.sqrt(np.square(largest).sum(axis=1)))


def _rounded_off(terms: Array, half: Array, n: int) -> Array:
    """What rounding to a grid takes off n terms at most: off a stretch of them, or off those above 0 and below 0, (C,).

    Ties, which a sum's last place decides, all go up.

    Args:
        terms: those that are looked at.
        half: half the spacing of the widest grid, up to the next power of two; `GRIDS` are tried.
    """
    grids = np.ldexp(2.0, np.frexp(half)[1] - np.arange(1, GRIDS + 1)[:, None])[:, :, None]
    off = np.floor(terms / grids + 0.5) * grids - terms
    along = np.cumsum(off, axis=2)
    stretch = np.maximum(along.max(axis=2), 0) - np.minimum(along.min(axis=2), 0)
    by_sign = np.abs((off * np.sign(terms)).sum(axis=2))
    return np.asarray(np.maximum(stretch, by_sign).max(axis=0) * (n / terms.shape[1]))


@cache
def _spread(n: int) -> Array | slice:
    """All of n places, or `TERMS` of them in order, spread by the golden ratio, which fits no pattern of terms."""
    golden = (np.sqrt(5) - 1) / 2
    return slice(None) if n <= TERMS else np.sort(np.arange(TERMS) * golden % 1 * n).astype(int)


def _spanned(x: Array, mu: Array, inv: Array) -> Array:
    """w of (12), from |μ|."""
    return inv * (np.abs(x) + mu)


def _norm(formula: Callable[..., Array], *arrays: Array) -> Array:
    """√Σa² over the columns of an elementwise formula's values a."""
    return np.asarray(np.sqrt(total(lambda *block: np.square(formula(*block)), *arrays)))
