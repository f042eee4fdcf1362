"""Values and a case's tensors as NumPy source, formatted as ruff formats it at `WIDTH` columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from conformance.fields import Gradient, InitialValues, Input, Mask, Normal, Uniform
from conformance.problem import INITIAL, Array, Built, Call, Problem

WIDTH = 100

#: Vectors of more features are drawn as the case draws them; shorter ones are written out.
_WRITTEN = 8

#: The streams that cotangents of y and of dx, and tangents of x, are drawn from, as `conformance.problem` has them.
_OF_Y, _OF_DX, _OF_X = 1, 4, 5

#: How NumPy says it; bfloat16, which it lacks, is float32 of fewer digits.
_BFLOAT16 = [
    "def bfloat16(values):",
    '    """Round to bfloat16, kept in float32: NumPy has no type for it."""',
    "    bits = np.asarray(values, np.float64).view(np.uint64)",
    "    bits = (bits + 0xFFFFFFFFFFF + (bits >> 45 & 1)) & 0xFFFFE00000000000  # once, from all 53",
    "    return bits.view(np.float64).astype(np.float32)",
    "",
    "",
]


def broken(line: str) -> list[str]:
    """A line of Python; one that is too long is broken where its last bracket opens, as ruff breaks it."""
    code = line.lstrip()
    pad = " " * (len(line) - len(code))
    if len(line) <= WIDTH or code.startswith(("#", '"', "'", 'f"')) or not code.rstrip(":,").endswith((")", "]")):
        return [line]
    ends = code[len(code.rstrip(":,")) - 1 :]
    start = _opening(code[: len(code) - len(ends)])
    inner = code[start + 1 : len(code) - len(ends)]
    if not inner:
        return [line]
    lines = [f"{pad}    {inner}"]
    if len(lines[0]) > WIDTH:
        lines = [broken_part for part in _arguments(inner) for broken_part in broken(f"{pad}    {part},")]
    return [f"{pad}{code[: start + 1]}", *lines, f"{pad}{ends}"]


def _opening(code: str) -> int:
    """Where the bracket opens that closes after `code`."""
    depth = 1
    for index in range(len(code) - 1, -1, -1):
        depth += (code[index] in ")]}") - (code[index] in "([{")
        if not depth:
            return index
    return 0


def _arguments(code: str) -> list[str]:
    """The parts between commas that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(code):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append(code[start:index].strip())
            start = index + 1
    return [*parts, code[start:].strip()]


def literal(value: Any) -> str:
    """A value on one line; what is no number is NumPy's, and text has the quotes that ruff gives it."""
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(key)}: {literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, float) and not math.isfinite(value):
        return "np.nan" if math.isnan(value) else f"{'-' if value < 0 else ''}np.inf"
    if isinstance(value, str):
        text = repr(value)
        return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
    return repr(value)


def tensors(problem: Problem, steps: int, *, gradients: bool, twice: bool = False) -> list[str]:
    """Lines that make x, dy and v, or lists xs, dys and vs of several steps, tangents, masks, and the initial vectors.

    `gradients`: dy is wanted, the cotangent of y; `twice`: so is v, the cotangent of dx.
    """
    case = problem.case
    specs = [case.input_of(index) for index in range(steps)]
    lines = _inputs(specs)
    asked = list(zip(case.spec.steps, problem.calls, strict=True))[:steps]
    if gradients:
        given = [None if call.dy is None else step.gradient or case.spec.gradient for step, call in asked]
        lines += _drawn("dy", given, problem, _OF_Y)
    if twice:
        seconds = [None if step.second is None else Gradient(seed=step.second.seed) for step, _ in asked]
        lines += _drawn("v", seconds, problem, _OF_DX)
    if any(step.tangent is not None for step, _ in asked):
        lines += _drawn("tangent", [step.tangent for step, _ in asked], problem, _OF_X)
    masks = [case.spec.steps[index].mask for index in range(steps)]
    if any(mask is not None for mask in masks):
        shapes = [(x.dimensions[0], *x.dimensions[2:]) for x in specs]
        lines += _several("keep", [_mask(mask, shape) for mask, shape in zip(masks, shapes, strict=True)])
    layer = case.spec.layer
    if layer is not None:  # only canonical layers have initial vectors
        built = Built(layer, case.rank, problem.features, problem.layer_dtype, "", problem.initial)
        if case.spec.carried is None:
            lines += [_initial(built, name) for name in problem.initial]
        else:
            lines.append(f"# What {case.spec.carried.source}'s layer held, which this one starts from.")
            lines += [_written(built, name) for name in problem.initial]
    return _defined(lines)


def of_beside(problem: Problem, built: Built, call: Call) -> list[str]:
    """Lines that make x, dy and the initial vectors of the layer that is called first."""
    case = problem.case
    given = (case.spec.beside and case.spec.beside.input) or case.input_of(0)
    lines = _inputs([given])
    if call.dy is not None and case.spec.gradient is not None:
        lines += _several("dy", [_cotangent(case.spec.gradient, call.x, "{step}")])
    return _defined([*lines, *(_initial(built, name) for name in built.initial)])


def unsaid(lines: Sequence[str], before: Sequence[str]) -> list[str]:
    """`lines` without what `before` has defined for them."""
    size = len(_BFLOAT16)
    return list(lines[size:] if [*before[:size]] == [*lines[:size]] == _BFLOAT16 else lines)


def _defined(lines: Sequence[str]) -> list[str]:
    """Lines, one each, after what they need."""
    lines = [part for line in lines for part in line.split("\n")]
    return [*_BFLOAT16, *lines] if any("bfloat16(" in line for line in lines) else lines


def _inputs(specs: Sequence[Input]) -> list[str]:
    if not any(spec.replace for spec in specs):
        return _several("x", [_rounded(_generated(spec), spec.dtype) for spec in specs])
    lines = _several("x", [_generated(spec) for spec in specs])
    if len(specs) == 1:
        (spec,) = specs
        return [*lines, *_replaced("x", spec), f"x = {_rounded('x', spec.dtype)}"]
    if len({repr(spec.replace) for spec in specs}) == 1:
        lines += ["for x in xs:", *(f"    {line}" for line in _replaced("x", specs[0]))]
    else:
        lines += [line for index, spec in enumerate(specs) for line in _replaced(f"xs[{index}]", spec)]
    return [*lines, f"xs = [{_rounded('x', specs[0].dtype)} for x in xs]"]


def _replaced(name: str, spec: Input) -> list[str]:
    return [f"{name}[{', '.join(map(str, one.at))}] = {literal(one.value)}" for one in spec.replace]


def _drawn(name: str, given: Sequence[Gradient | None], problem: Problem, stream: int) -> list[str]:
    """What is drawn in the shape of x in the first steps, None where nothing is."""
    calls = problem.calls[: len(given)]
    exprs = [
        None if spec is None else _cotangent(spec, call.x, "{step}", stream)
        for spec, call in zip(given, calls, strict=True)
    ]
    return _several(name, exprs)


def _several(name: str, exprs: Sequence[str | None]) -> list[str]:
    """One variable, or a list of them named in the plural; {step} in an expression is the number of the step."""
    if len(exprs) == 1:
        return [f"{name} = {(exprs[0] or 'None').format(step=0)}"]
    first = exprs[0] or "None"
    if len(set(exprs)) == 1:
        if "{step}" not in first:
            return [f"{name}s = [{first}] * {len(exprs)}"]
        inner = first.format(step="step")
        whole = f"{name}s = [{inner} for step in range({len(exprs)})]"
        if len(whole) <= WIDTH:
            return [whole]
        return [f"{name}s = [", f"    {inner}", f"    for step in range({len(exprs)})", "]"]
    items = [(expr or "None").format(step=index) for index, expr in enumerate(exprs)]
    whole = f"{name}s = [{', '.join(items)}]"
    return [whole] if len(whole) <= WIDTH else [f"{name}s = [", *(f"    {item}," for item in items), "]"]


def _generated(spec: Input) -> str:
    """float64 source of an input before it is rounded."""
    shape = literal(tuple(spec.dimensions))
    if spec.values is not None:
        return f"np.array({literal(_floats(spec.values))}, np.float64)"
    if spec.constant is not None:
        return f"np.full({shape}, {literal(spec.constant)})"
    if spec.arange is not None:
        steps = f"{_times(spec.arange.step)}np.arange({spec.size})"
        return f"({_plus(spec.arange.start)}{steps}).reshape({shape})"
    return _draw(spec.normal or spec.uniform, shape, 0, "{step}")


def _floats(values: Any) -> Any:
    return [_floats(item) for item in values] if isinstance(values, list | tuple) else float(values)


def _draw(spec: Normal | Uniform | None, shape: str, stream: int, step: str) -> str:
    assert spec is not None  # the models admit exactly one generator
    random = f"np.random.RandomState([{spec.seed}, {stream}, {step}])"
    if isinstance(spec, Normal):
        return f"{_plus(spec.mean)}{_times(spec.std)}{random}.standard_normal({shape})"
    return f"{_plus(spec.low)}{_times(spec.high - spec.low)}{random}.random_sample({shape})"


def _plus(value: float) -> str:
    return f"{_short(value)} + " if value else ""


def _times(value: float) -> str:
    return "" if value == 1 else f"{_short(value)} * "


def _short(value: float) -> str:
    """3 for 3.0, where it is as good."""
    return str(int(value)) if abs(value) < 1e6 and value == int(value) else literal(value)


def _rounded(expr: str, dtype: str) -> str:
    if dtype == "bfloat16":
        return f"bfloat16({expr})"
    if expr.startswith("np.array(") and expr.endswith(", np.float64)"):
        return f"{expr.removesuffix('float64)')}{dtype})"
    if expr.startswith("np.full("):
        return f"{expr[:-1]}, np.{dtype})"
    needs = " " in expr.partition("(")[0] or " + " in expr or " * " in expr
    return f"({expr}).astype(np.{dtype})" if needs and not expr.startswith("(") else f"{expr}.astype(np.{dtype})"


def _cotangent(gradient: Gradient, x: Array, step: str, stream: int = _OF_Y) -> str:
    dtype = x.dtype.name if "float" in x.dtype.name else "float32"
    normal = Normal(mean=gradient.mean, std=gradient.std, seed=gradient.seed)
    drawn = _draw(normal, literal(tuple(x.shape)), stream, step)
    return _rounded(drawn, dtype)


def _mask(mask: Mask | None, shape: tuple[int, ...]) -> str:
    """The values that count in a step, all of them where others alone have a mask."""
    if mask is None:
        return f"np.ones({literal(shape)}, bool)"
    return f"np.random.RandomState([{mask.seed}, 3, {{step}}]).random_sample({literal(shape)}) < {mask.keep!r}"


def _initial(built: Built, name: str) -> str:
    values: InitialValues = getattr(built.layer.initial, name)
    dtype, features = built.dtype, built.features
    if values.constant is not None and features > 1:
        return f"{name} = {_rounded(f'np.full({features}, {literal(float(values.constant))})', dtype)}"
    if features <= _WRITTEN or values.values is not None:
        return _written(built, name)
    position = list(INITIAL).index(name)
    return f"{name} = {_rounded(_draw(values.normal or values.uniform, str(features), 2, str(position)), dtype)}"


def _written(built: Built, name: str) -> str:
    """An initial vector in numbers."""
    held = "float32" if built.dtype == "bfloat16" else built.dtype
    return f"{name} = np.array({literal(_decimal(built.initial[name]))}, np.{held})"


def _decimal(values: Array) -> list[float]:
    """The shortest decimals that round to these values in their own dtype."""
    if values.dtype.name in ("float16", "float32"):
        return [float(str(value)) for value in values]
    return [float(value) for value in values]


def dictionary(name: str, items: Mapping[str, str]) -> list[str]:
    """The assignment of a dictionary whose values are source."""
    whole = f"{name} = {{{', '.join(f'{literal(key)}: {text}' for key, text in items.items())}}}"
    if len(whole) <= WIDTH:
        return [whole]
    lines = [f"    {literal(key)}: {text}," for key, text in items.items()]
    return [f"{name} = {{", *(part for line in lines for part in broken(line)), "}"]
