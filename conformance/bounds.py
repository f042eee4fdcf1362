"""How far rounding may take a correct implementation from the reference, element by element.

docs/bounds.md derives every formula; the numbers in brackets are its equations, here and there. u is the unit roundoff
of the accumulator, u_o that of the output, n the values per channel, h the depth of a summation, l of one of
gradients, x̂ = (x−μ)·inv:

    γ_h  = h·u/(1−h·u)                                                                                  (1)
    δμ   = (γ_h + u)·mean|x| + η_a                                                                      (2)
    δσ²  = (h+4)·u·σ² + 3u|μ|σ + δμ² + η_a           strict: two-pass and updating algorithms           (3)
    δσ²  = (h+4)·u·(σ²+μ²) + 3u|μ|σ + δμ² + η_a      weak: one-pass, as long as it keeps d below ¼      (4)
    d    = (δσ² + u(|σ²|+|ε|−|σ²+ε|))/(σ²+ε)         relative error of σ²+ε                             (5)
    q    = d/2, weak: d/2·(1+d)                      relative error of inv                              (6)
    δx̂   = inv·δμ + |x̂|(q + 5u)                                                                         (7)
    δy   = |γ|·δx̂ + 2u|β| + 3u(|γ|·inv·(|x|+|μ|) + |β|) + u_o|y| + η                                    (8)
    δs   = δσ²·n/(n−1) + 2u·s                        of the variance that is stored                     (9)
    δr'  = |1−m|·δr + |m|·δs + 3u(|(1−m)r| + |m·s|) + u(|r|+|s|) + u_o|r'| + η                          (10)
    δβ'  = 2√l·u·√Σg² + d(g) + u_o|β'| + η           with d(a) = 2√l·u·S + 2R, S the largest partial sum and R
                                                     what its last place takes off the terms            (11)
    δγ'  = (2√l+3)·u·√Σ(g·w)² + d(g·x̂) + inv·(δμ·|β'|+|μ|·d(g)) + (q+4u)|γ'| + u_o|γ'| + η
                                                                      with w = inv·(|x|+|μ|)            (12)
    δx'  = |γ|·inv·((q+6u)|t| + a·δβ' + b(δx̂·(|γ'|+δγ') + |x̂|·δγ') + 3u(|g| + a|β'| + b|x̂·γ'|)) + u_o|dx| + η
                                                                                                        (13)
           where dx = γ·inv·t, t = g − a·β' − b·x̂·γ', and a = b = 1/n in training, 0 in evaluation

Gradual underflow, η_a the smallest subnormal of the accumulator: where the factor |γ|·inv is subnormal it is rounded by
η_a in place of u, so that δy has η_a·(|x|+|μ|+1+inv) more (8'); where |γ|·inv/n is, with 1 for n in evaluation, δx' has
η_a·(n(|g|+a|β'|+b|x̂·γ'|)+3(1+inv)(1+|x̂|)) more (13'). Whatever else is subnormal on the way: η_a·(|γ|+1) in δy (8"),
η_a·(n(1+inv)+Σ|g|) in δγ' (12"), η_a·(1+|γ|+inv) in δx', in training |γ|·inv·η_a·(2+|γ'|+|x̂|) as well (13").

Statistics that come from `running` carry the error they have accumulated in place of δμ and δσ². η is the smallest
subnormal of the output. Conventions that are matters of precision widen these: (14) statistics and terms that are
rounded, (15) subnormals that are flushed, (16) statistics that were recovered from the running ones, (17) what goes
through a format of 11 bits, (21) gradients by the chain rule.

`conformance.forward_bounds` has (1) to (10), `conformance.backward_bounds` (11) to (13) and (21), and
`conformance.second` (18) to (20), those of second derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np

from conformance.arithmetic import Arithmetic, Array
from conformance.backward_bounds import Backward
from conformance.conventions import (
    CANONICAL,
    Affine,
    Conventions,
    Differentiating,
    Moments,
    Normalising,
    Precision,
    fields_of,
)
from conformance.latest import Latest
from conformance.layer import Trace
from conformance.rounding import Grade, rounding

#: What the conventions say that bears on the bounds of what a step returns, and of the statistics that it leaves.
_of_output = attrgetter(*fields_of(Precision, Differentiating, Affine, Normalising, Moments))
_of_update = attrgetter(*fields_of(Precision, Moments))


@dataclass(frozen=True)
class StepBounds:
    """Absolute bounds of one step: (C, n) for y, dx, ddx and ddy, (C,) for the rest; None where there is none."""

    y: Array
    running_mean: Array
    running_var: Array
    dx: Array | None
    dgamma: Array | None
    dbeta: Array | None
    ddx: Array | None = None
    ddgamma: Array | None = None
    ddy: Array | None = None

    def but(self, **changes: Any) -> StepBounds:
        """These bounds with some changed."""
        return StepBounds(**{**vars(self), **changes})


def bounds(
    traces: Sequence[Trace],
    arithmetic: Arithmetic,
    grade: Grade,
    io_dtype: str | Sequence[str],
    layer_dtype: str,
    conventions: Conventions = CANONICAL,
    latest: Latest | None = None,
) -> list[StepBounds]:
    """Bounds of every step; errors of the running statistics accumulate from step to step.

    Args:
        io_dtype: dtype of y and dx, of every step or of each.
        layer_dtype: dtype of parameters, their gradients and the running statistics.
        conventions: those of the traces; matters of precision among them widen the bounds.
        latest: what keeps the bounds of steps.
    """
    lower = arithmetic.lower
    latest, c = latest or Latest(0), conventions
    dtypes = [io_dtype] * len(traces) if isinstance(io_dtype, str) else io_dtype
    roundings = {dtype: rounding(grade, dtype, layer_dtype, c) for dtype in dict.fromkeys(dtypes)}
    start = latest.answer(lambda: np.zeros_like(lower(traces[0].before[0])), "no error") if traces else np.zeros(0)
    held, earlier = (start, start), (start, start)
    found = []
    with np.errstate(all="ignore"):
        for trace, dtype in zip(traces, dtypes, strict=True):
            step = Backward(trace, roundings[dtype], held, arithmetic)
            # What bounds are made of beside the conventions; y stands for all that its step has computed with it.
            of_output: tuple[Any, ...] = (trace.y, *(() if trace.batch else held))
            of_update: tuple[Any, ...] = (*trace.before, trace.running_mean, trace.running_var, *held)
            if c.means is not None or c.variances is not None or c.stored != "variance":
                of_output = of_update = (step,)  # the one bears on the other
            in_dtypes = (grade, dtype, layer_dtype)
            output = latest.answer(
                partial(_returned, step), ("bounds of the output", *in_dtypes, _of_output(c)), *of_output
            )
            held = latest.answer(
                step.running, ("bounds of the update", *in_dtypes, trace.eps, trace.weight, _of_update(c)), *of_update
            )
            if c.parameter_gradients == "accumulated" and output.dgamma is not None and output.dbeta is not None:
                earlier = earlier[0] + output.dgamma, earlier[1] + output.dbeta
                output = output.but(dgamma=earlier[0], dbeta=earlier[1])
            found.append(output.but(running_mean=held[0], running_var=held[1]))
    return found


def _returned(step: Backward) -> StepBounds:
    """Bounds of what the step returns, beside those of the statistics that it found."""
    dx, dgamma, dbeta = step.gradients() if step.trace.g is not None else (None, None, None)
    ddx, ddgamma, ddy = step.second() if step.trace.v is not None else (None, None, None)
    return StepBounds(step.output(), *step.held, dx, dgamma, dbeta, ddx, ddgamma, ddy)
