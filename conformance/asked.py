"""What a case asks, as the report writes it: dtypes, steps, parameters, and its whole specification."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from conformance.safe_text import shorten

_PLAIN = re.compile(r"[A-Za-z_][\w .-]*")


def dtypes(spec: Mapping[str, Any]) -> list[str]:
    """The dtypes of a case's inputs and parameters."""
    inputs = [step["input"] for step in spec.get("steps", ()) if isinstance(step, dict) and step.get("input")]
    if spec.get("input") or not inputs:
        inputs = [*inputs, spec.get("input")]
    if spec.get("signature"):
        return []
    found = {(given or {}).get("dtype", "float32") for given in inputs}
    return sorted(found | {dtype for dtype in [(spec.get("layer") or {}).get("dtype")] if dtype})


def steps(spec: Mapping[str, Any]) -> list[list[str]]:
    """Number, mode, input, dtype, cotangent and what else is asked; steps that ask the same are one row."""
    if spec.get("signature"):
        return []
    rows = [_step(step, spec) for step in spec.get("steps", [{"mode": "train"}])]
    found, first = [], 0
    for _, alike in itertools.groupby(rows):
        last = first + len(list(alike)) - 1
        found.append([f"{first}" if first == last else f"{first} to {last}", *rows[first]])
        first = last + 1
    return found


def _step(step: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    given = dict(step.get("input") or spec.get("input") or {})
    dtype = str(given.pop("dtype", "float32"))
    gradient = step.get("gradient") or spec.get("gradient")
    cotangent = "none" if gradient is None else _inner(gradient) or "standard normal"
    rest = {key: value for key, value in step.items() if key not in ("mode", "input", "gradient")}
    asked = ", ".join(key if value is True else f"{key}: {_flow(value)}" for key, value in rest.items())
    return [str(step["mode"]), shorten(_inner(given), 600), dtype, cotangent, asked]


def parameters(spec: Mapping[str, Any]) -> list[list[str]]:
    """What the case says of the layer: canonical parameters, or each framework's own arguments."""
    if spec.get("layer") is not None:
        meant = {"eps": 1e-5, "momentum": 0.1, "scale": True, "center": True, "track_running_stats": True}
        return [[name, shorten(_flow(value), 400)] for name, value in {**meant, **spec["layer"]}.items()]
    documented = spec.get("signature") or {}
    native = spec.get("native") or {}
    return [
        *([framework, shorten(signature(said.items()), 600)] for framework, said in documented.items()),
        *(
            [framework, shorten(signature((k, repr(v)) for k, v in said.items()), 600)]
            for framework, said in native.items()
        ),
    ]


def signature(parameters: Iterable[Sequence[str | None]]) -> str:
    """Parameters with their defaults, or arguments with their values, as Python writes them."""
    return ", ".join(str(name) if text is None else f"{name}={text}" for name, text in parameters)


def _inner(value: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in (value or {}).items())


def specification(spec: dict[str, Any]) -> str:
    """What a case says, a line for each of its fields, nearly as its author wrote it."""
    return "\n".join(f"{key}: {_flow(value)}" for key, value in spec.items() if key != "why")


_encoded = json.JSONEncoder(ensure_ascii=False).encode


def _flow(value: Any) -> str:
    """JSON data in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return repr(value) if type(value) in (int, float) else _encoded(value)
