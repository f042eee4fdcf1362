"""Rounding errors of a step's gradients: (11) to (13) and (21) of docs/bounds.md, and those of second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from conformance import second
from conformance.arithmetic import Array, Double, in_blocks
from conformance.forward_bounds import Forward, over, ties, total
from conformance.rounding import BLOCKED_DEPTH, SUBNORMAL, UNIT_ROUNDOFF

#: Terms of a sum that are looked at to see whether they are alike.
SAMPLE = 64


class Backward(Forward):
    """One step's errors on the way back."""

    def gradients(self) -> tuple[Array, Array, Array]:
        """δx', δγ' and δβ'."""
        delta_dx, delta_gamma, delta_beta = self.backward()
        return (delta_dx, *self._returned(delta_gamma, delta_beta))

    def second(self) -> tuple[Array, Array | None, Array]:
        """δddx, δddγ and δddy, of which (18) is (13) with v in the place of g."""
        t, r, exact = self.t, self.r, Double()
        assert t.ddx is not None
        plain = replace(r, conventions=r.conventions.but(dx_scale="applied"))
        delta_ddy, delta_vx, delta_v = Backward(second.of_v(t, exact), plain, self.held, exact).backward()
        _, delta_gx, delta_g = self.backward()
        root = 2 * np.sqrt(r.lane(t.x.shape[1])) * r.u
        delta_xhat = self.delta_xhat(self.of_xhat)
        known = second.Errors(r.u, self.q, delta_xhat, root, (delta_v, delta_vx), (delta_g, delta_gx))
        delta_ddx, delta_ddgamma = second.bounds(t, known, exact)
        delta_ddx = delta_ddx + self.u_o * np.abs(t.ddx) + self.eta
        if t.ddgamma is None:
            return delta_ddx, None, delta_ddy
        u_p, eta_p = UNIT_ROUNDOFF[r.layer_dtype], SUBNORMAL[r.layer_dtype]
        return delta_ddx, delta_ddgamma + u_p * np.abs(t.ddgamma) + eta_p, delta_ddy

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
        root, drift = 2 * np.sqrt(r.lane(n)) * u, self._drift(g)
        delta_beta = root * _norm(lambda g: g, g) + drift + r.terms * beta_ + tiny * n  # (11), unrounded
        spanned = (t.x, np.abs(t.mu)[:, None], inv[:, None])
        delta_gamma = (root + 3 * u) * _norm(lambda g, x, mu, inv: g * _spanned(x, mu, inv), g, *spanned)
        if tiny:
            small = np.abs(g) * (1 + inv[:, None]) + self.xhat + _spanned(*spanned) + 1
            delta_gamma = delta_gamma + tiny * small.sum(1)
        if t.count:
            delta_gamma = delta_gamma + inv * (delta_mu * beta_ + np.abs(t.mu) * drift)
            delta_gamma = delta_gamma + self._drift(g * t.xhat)
            delta_gamma = delta_gamma + (q + 4 * u + r.terms) * gamma_  # (12), unrounded
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
            of_variance = b * (2 + inv**3 + gamma * over(gamma_, inv))[:, None] * over(self.xhat, inv[:, None])
            delta_dx = delta_dx + r.subnormal * (np.abs(g) + kept * (a * (1 + beta_)[:, None] + of_variance))  # (21)
        if tiny:
            met = self.xhat if t.batch else np.zeros_like(self.xhat)
            scale = (outer[:, None] * (2 + met)) + inv[:, None] + gamma[:, None]
            delta_dx = delta_dx + tiny * (scale + np.abs(g) * (1 + met) + 1)
        return delta_dx, delta_gamma, delta_beta

    def _drift(self, terms: Array) -> Array:
        """d of (11): what a sum of (C, n) terms loses to what its partial sums come to, (C,)."""
        r, n = self.r, terms.shape[1]
        lane = r.lane(n)
        random, worst = 2 * np.sqrt(lane) * r.u, max(2 * np.sqrt(lane), lane / 2) * r.u
        partial = np.abs(np.cumsum(terms, axis=1)).max(axis=1, initial=0)
        if n <= BLOCKED_DEPTH or self.u_o > r.u:
            return np.asarray(worst * partial)
        alike = _alike(terms[:, :: n // SAMPLE], r.u / 8 * partial)
        size = np.abs(terms).sum(1) if alike.any() else partial
        return np.where(alike, worst * size, random * partial)

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


def _alike(terms: Array, near: Array) -> Array:
    """Whether half of some terms lie so near to the next larger one, equal ones among them."""
    gaps = np.diff(np.sort(terms, axis=1), axis=1)
    return np.asarray(2 * np.count_nonzero(gaps <= near[:, None], axis=1) >= gaps.shape[1])


def _spanned(x: Array, mu: Array, inv: Array) -> Array:
    """w of (12), from |μ|."""
    return inv * (np.abs(x) + mu)


def _norm(formula: Callable[..., Array], *arrays: Array) -> Array:
    """√Σa² over the columns of an elementwise formula's values a."""
    return np.asarray(np.sqrt(total(lambda *block: np.square(formula(*block)), *arrays)))
