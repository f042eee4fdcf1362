"""A variance lost to cancellation: what a target must have used in its place, recovered from its running_var.

E[x²] − E[x]² in working precision is off by about u·(σ² + μ²), which a mean far above the deviation makes more than σ²
itself, or less than −ε. What it then is no bound can say. But a layer that tracks says it itself: from
r' = (1−m)·r + m·s follows s, and every other tensor must follow from s. (Chan, Golub and LeVeque, "Algorithms for
computing the sample variance", 1983.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from conformance.bounds import accumulator
from conformance.reference import Arithmetic, Conventions, Trace

#: Statistics of more channels are not recovered.
CHANNELS = 4096


def recovered(
    traces: list[Trace],
    observed: Mapping[str, NDArray[np.float64]],
    conventions: Conventions,
    arithmetic: Arithmetic,
    dtypes: tuple[str, ...],
) -> Conventions | None:
    """`conventions` with the biased variance (C,) that each training step used; None where cancellation is no cause.

    It is not where running_var does not tell (nothing updates it, or momentum is 0), and where the variance is further
    from σ² than one pass can take it.

    Args:
        traces: the case under `conventions`.
        observed: running_var[0], running_var[1] …
        dtypes: of inputs and layer.
    """
    u = accumulator(*dtypes) if conventions.precision == "as given" else accumulator()
    found: list[tuple[float, ...] | None] = []
    for index, t in enumerate(traces):
        after = observed.get(f"running_var[{index}]")
        if after is None or t.mu.size > CHANNELS:
            return None
        if not t.batch or not t.weight or t.sample_var is None or t.count < 2:
            found.append(None)
            continue
        before = observed[f"running_var[{index - 1}]"] if index else arithmetic.lower(t.before[1])
        with np.errstate(all="ignore"):
            sample = (after - (1 - t.weight) * before) / t.weight
            used = sample * (t.count - 1) / t.count if conventions.running_variance == "unbiased" else sample
            mu, var = arithmetic.lower(t.mu), arithmetic.lower(t.var)
            reach = (t.count + 4) * u * (var + mu * mu)
        if not (np.abs(used - var) <= reach).all():
            return None
        found.append(tuple(float(value) for value in used))
    return conventions.but(variances=tuple(found)) if any(found) else None
