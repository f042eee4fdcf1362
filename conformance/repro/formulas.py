"""The reference as NumPy source: what every step of a case should return, in as few lines as the case needs.

The formulas are those of `conformance.reference` under torch's conventions, in float64, or in np.longdouble where
float64 is what is judged. Vectors stay (1, C, 1, …) throughout, so that they meet x, (N, C, *spatial), as they are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from conformance.layer import Parameters, Trace
from conformance.problem import INITIAL, Problem
from conformance.repro import source


@dataclass(frozen=True)
class Wanted:
    """What a reference has to give: kinds of tensors, and of how many steps.

    `indexed`: it goes by ``y[0]``, not ``y``, as several steps are compared.
    """

    kinds: Collection[str]
    steps: int
    indexed: bool


_GRADIENTS = ("dx", "dgamma", "dbeta")

#: A second derivative, and what it is the derivative of along v.
_ALONG_V = {"ddx": "dx", "ddy": "y", "ddgamma": "dgamma"}

_COMPLEX_STEP = [
    "# The derivatives of (v * dx).sum() by x, dy and gamma are those of dx, y and dgamma along v, as",
    "# dx is the gradient of (dy * y).sum(), and Hessians are symmetric. A complex step takes them",
    "# without a difference that could cancel.",
]


def reference(problem: Problem, parameters: Parameters, traces: Sequence[Trace], wanted: Wanted) -> list[str]:
    """Lines that put what every step should return into `expected`, after those of `tensors`."""
    calls, traces = problem.calls[: wanted.steps], traces[: wanted.steps]
    several = wanted.steps > 1
    number = "longdouble" if "float64" in (problem.layer_dtype, *(call.x.dtype.name for call in calls)) else "float64"
    # A mask that keeps nothing leaves a mean of NaN, which NumPy gives by itself.
    batch = [trace.batch and (trace.count > 0 or trace.mask is not None) for trace in traces]
    empty = any(trace.batch and not used for trace, used in zip(traces, batch, strict=True))
    weights = [trace.weight for trace in traces]
    stated = not all(batch) or bool({"running_mean", "running_var"} & set(wanted.kinds))
    moving = stated and any(weight is not None for weight in weights)
    mixed = len({call.x.ndim for call in calls}) > 1
    first = _first_order(wanted.kinds)
    ndim = calls[0].x.ndim
    column = (1, problem.features, *[1] * (ndim - 2))
    lines = []
    scope = ["gamma", "beta"] if first & {"y", "jvp", "dx"} else []
    scope += ["running_mean", "running_var"] if stated else []
    used = {name: _start(problem, parameters, name, column, number) for name in scope}
    lines += [f"{name} = {text}" for name, text in used.items() if text is not None]
    loop = {"xs": "x"}
    with_dy = bool(set(_GRADIENTS) & first)
    if with_dy:
        loop["dys"] = "dy"
    if _twice(wanted.kinds):
        loop["vs"] = "v"
    if "jvp" in first:
        loop["tangents"] = "tangent"
    if any(call.mask is not None for call in calls):
        loop["keeps"] = "keep"
    flags = {}
    if len(set(batch)) > 1:
        flags["training"] = source.literal(batch)
    updating = [weight is not None for weight in weights]
    if moving and updating != batch and len(set(updating)) > 1:
        flags["updating"] = source.literal(updating)
    if moving and len({weight for weight in weights if weight is not None}) > 1:
        flags["m"] = source.literal(weights)
    parameters = replace(parameters, eps=traces[0].eps)  # which may have been assigned
    if first & {"y", "jvp", "dx", "dgamma"} and len({trace.eps for trace in traces}) > 1:
        flags["eps"] = source.literal([trace.eps for trace in traces])
    body = _body(problem, parameters, wanted, batch, flags, used, moving, updating, weights, number)
    if empty:
        body.insert(0, "# A batch of no values has no mean; nothing is updated.")
    if mixed:
        body.insert(0, "column = (1, -1, *[1] * (x.ndim - 2))")
        body[1:1] = [f"{name} = {name}.reshape(column)" for name in used if used[name] is not None]
    if not several:
        return [*lines, *body]
    lists = {**loop, **{text: name for name, text in flags.items()}}
    if len(lists) == 1:
        head = "for i, x in enumerate(xs):"
    else:
        head = f"for i, ({', '.join(lists.values())}) in enumerate(zip({', '.join(lists)})):"
    return [*lines, "expected = {}", head, *(f"    {line}" for line in body)]


def _twice(kinds: Collection[str]) -> bool:
    return bool(_ALONG_V.keys() & set(kinds))


def _first_order(kinds: Collection[str]) -> set[str]:
    """The kinds that have to be computed: of a second derivative, what it is the derivative of."""
    return {_ALONG_V.get(kind, kind) for kind in kinds}


def _start(problem: Problem, p: Parameters, name: str, column: tuple[int, ...], number: str) -> str | None:
    """Source of γ, β or a statistic as it is at first; None for a γ of 1 and a β of 0, which are left out."""
    values = getattr(p, name)
    learned = {"gamma": p.scale, "beta": p.center}.get(name, True)
    shape = source.literal(column)
    if name in ("gamma", "beta") and (not learned or bool((values == INITIAL[name]).all())):
        return None
    if name in problem.initial:
        return f"{name}.astype(np.{number}).reshape{shape}"
    if bool((values == INITIAL[name]).all()):
        return f"np.{'ones' if INITIAL[name] else 'zeros'}({shape})"
    return f"np.array({source.literal([float(v) for v in values])}).reshape{shape}"


def _body(
    problem: Problem,
    p: Parameters,
    wanted: Wanted,
    batch: Sequence[bool],
    flags: dict[str, str],
    used: dict[str, str | None],
    moving: bool,
    updating: Sequence[bool],
    weights: Sequence[float | None],
    number: str,
) -> list[str]:
    """One step of the reference."""
    kinds, calls, twice = _first_order(wanted.kinds), problem.calls[: wanted.steps], _twice(wanted.kinds)
    masked = any(call.mask is not None for call in calls)
    mixed = len({call.x.ndim for call in calls}) > 1
    axes = "tuple({0, *range(2, x.ndim)})" if mixed else source.literal((0, *range(2, calls[0].x.ndim)))
    axes = "0" if axes == "(0,)" else axes
    over = f"{axes}, keepdims=True"
    gradients = bool(set(_GRADIENTS) & kinds)
    lines = [f"x = x.astype(np.{number})"]
    sometimes = gradients and any(call.dy is None for call in calls)
    always = all(call.v is not None for call in calls)
    affine = twice and always and not any(batch)  # where x has no part in them, and may be no number
    if affine:
        lines.append(f"v = v.astype(np.{number})")
    elif twice:
        lines += _COMPLEX_STEP
        along = f"x = x + 1e-30j * v.astype(np.{number})"
        lines += [along] if always else ["if v is not None:", f"    {along}"]
    if masked:
        lines.append("keep = keep[:, None]")
    where = ", where=keep" if masked else ""
    normalised = bool(kinds & {"y", "jvp", "dx", "dgamma"})
    both = f"mean, var = x.mean({over}{where}), x.var({over}{where})"
    moments = [both]
    if twice:  # NumPy's variance of complex numbers is of their absolute values
        moments = [f"mean = x.mean({over})", f"var = ((x - mean) ** 2).mean({over})"]
    elif len(both) > source.WIDTH - 8:
        moments = [f"mean = x.mean({over}{where})", f"var = x.var({over}{where})"]
    if "training" in flags:
        lines += ["if training:", *(f"    {line}" for line in moments)]
        if normalised:
            lines += ["else:", "    mean, var = running_mean, running_var"]
    elif batch[0]:
        lines += moments
    elif normalised:
        lines.append("mean, var = running_mean, running_var")
    if normalised:
        eps = " + eps" if "eps" in flags else f" + {source.literal(float(p.eps))}" if p.eps else ""
        lines += [f"inv = 1 / np.sqrt(var{eps})", "xhat = (x - mean) * inv"]
    names = {kind: f'expected[f"{kind}[{{i}}]"]' if wanted.indexed else f'expected["{kind}"]' for kind in wanted.kinds}
    found: dict[str, str] = {}
    if "y" in kinds:
        gamma = "gamma * " if used.get("gamma") else ""
        found["y"] = f"{gamma}xhat{' + beta' if used.get('beta') else ''}"
    if "jvp" in kinds:
        forward = _along(batch, flags, used, over, number)
        found["jvp"] = "jvp"
        if any(call.tangent is None for call in calls):
            forward = [*forward, f"{names['jvp']} = {found.pop('jvp')}"]
            forward = ["if tangent is not None:", *(f"    {line}" for line in forward)]
        lines += forward
    backward: list[str] = []
    if gradients:
        backward = [f"dy = dy.astype(np.{number})", *_gradients(kinds, batch, flags, used, over, masked, found)]
        found |= {name: f"{name}.ravel()" for name in ("dgamma", "dbeta") if name in kinds}
    if affine:
        found = _of_evaluation(found, wanted.kinds, "gamma * inv" if used.get("gamma") else "inv", over)
    elif twice:
        found = _parts(found, wanted.kinds)
    if sometimes:
        backward += [f"{names[kind]} = {found.pop(kind)}" for kind in (*_GRADIENTS, *_ALONG_V) if kind in found]
        backward = ["if dy is not None:", *(f"    {line}" for line in backward)]
    lines += backward
    if moving:
        lines += _update(flags, updating, weights, over, where, "mean.real" if twice else "mean")
    for name in ("running_mean", "running_var"):
        if name in kinds:
            found[name] = f"{name}.ravel()"
    for name in ("gamma", "beta"):
        if name in kinds:
            found[name] = _held(problem, p, name)
    if "x" in kinds:
        found["x"] = "x.real" if twice and not affine else "x"
    order = ("y", "jvp", *_GRADIENTS, *_ALONG_V, "gamma", "beta", "x", "running_mean", "running_var")
    found = {kind: found[kind] for kind in order if kind in found}
    if wanted.steps == 1:
        return [*lines, *source.dictionary("expected", found)]
    return [*lines, *(f"{names[kind]} = {text}" for kind, text in found.items())]


def _parts(found: Mapping[str, str], wanted: Collection[str]) -> dict[str, str]:
    """Of what is complex, the real parts that are wanted and the derivatives along v."""

    def part(text: str, name: str) -> str:
        simple = text.isidentifier() or text.endswith(".ravel()")
        return f"{text}.{name}" if simple else f"({text}).{name}"

    real = {kind: part(text, "real") for kind, text in found.items() if kind in wanted}
    return real | {kind: f"{part(found[of], 'imag')} / 1e-30" for kind, of in _ALONG_V.items() if kind in wanted}


def _of_evaluation(found: Mapping[str, str], wanted: Collection[str], outer: str, over: str) -> dict[str, str]:
    """Of what evaluation has, what is wanted, and the second derivatives."""
    second = {"ddx": "np.zeros_like(x)", "ddy": f"{outer} * v", "ddgamma": f"(inv * v * dy).sum({over}).ravel()"}
    return {kind: text for kind, text in {**found, **second}.items() if kind in wanted}


def _held(problem: Problem, p: Parameters, name: str) -> str:
    """What γ or β must still be after the step."""
    values = getattr(p, name)
    if name in problem.initial:
        return f"{name}.ravel()"
    return f"np.array({source.literal([float(v) for v in values])})"


def _along(
    batch: Sequence[bool], flags: dict[str, str], used: dict[str, str | None], over: str, number: str
) -> list[str]:
    """The derivative of y along a tangent of x."""
    outer = "gamma * inv" if used.get("gamma") else "inv"
    evaluated = f"jvp = {outer} * tangent"
    trained = [
        f"slope = (tangent * xhat).mean({over})",
        f"jvp = {outer} * (tangent - tangent.mean({over}) - xhat * slope)",
    ]
    lines = [f"tangent = tangent.astype(np.{number})"]
    if "training" not in flags:
        return [*lines, *(trained if batch[0] else [evaluated])]
    return [*lines, "if training:", *(f"    {line}" for line in trained), "else:", f"    {evaluated}"]


def _gradients(
    kinds: set[str],
    batch: Sequence[bool],
    flags: dict[str, str],
    used: dict[str, str | None],
    over: str,
    masked: bool,
    found: dict[str, str],
) -> list[str]:
    lines = []
    through = any(batch) and "dx" in kinds
    if "dbeta" in kinds or through:
        lines.append(f"dbeta = dy.sum({over})")
    if "dgamma" in kinds or through:
        lines.append(f"dgamma = (dy * xhat).sum({over})")
    if "dx" not in kinds:
        return lines
    outer = "gamma * inv" if used.get("gamma") else "inv"
    if through:
        n = "keep.sum()" if masked else "(x.size // x.shape[1])"
        kept = "keep * " if masked else ""
        inner = f"dy - {kept}(dbeta + xhat * dgamma) / {n}"
        if "training" in flags:
            lines += [f"dx = {outer} * ({inner} if training else dy)"]
        else:
            lines += [f"dx = {outer} * ({inner})"]
        found["dx"] = "dx"
    else:
        found["dx"] = f"{outer} * dy"
    return lines


def _update(
    flags: dict[str, str],
    updating: Sequence[bool],
    weights: Sequence[float | None],
    over: str,
    where: str,
    mean: str,
) -> list[str]:
    """r ← (1 − m)·r + m·s with the unbiased variance."""
    m = next(weight for weight in weights if weight is not None)
    kept, new = ("(1 - m)", "m") if "m" in flags else (_rest(m), source.literal(m))
    lines = [
        f"running_mean = {kept} * running_mean + {new} * {mean}",
        f"running_var = {kept} * running_var + {new} * x.var({over}{where}, ddof=1)",
    ]
    if all(updating):
        return lines
    condition = "updating" if "updating" in flags else "training"
    return [f"if {condition}:", *(f"    {line}" for line in lines)]


def _rest(m: float) -> str:
    return repr(1 - m) if math.isfinite(m) and len(repr(1 - m)) <= 6 else f"(1 - {source.literal(m)})"
