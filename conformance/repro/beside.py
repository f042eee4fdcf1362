"""The layer that a case calls first and throws away, as the templates of the adapters see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conformance.problem import Built, Call
from conformance.repro.spelling import Spelling, Step

#: What the harness remarks of it; neither is a result.
REFUSED, UNSAID = "the layer beside was refused: ", "the layer beside cannot be said: "


def spelled(built: Built, call: Call, case: Spelling) -> Spelling:
    """The other layer on the target of the case's own, `case`."""
    layer: dict[str, Any] = built.layer.model_dump(exclude={"initial"}) | {"dtype": built.dtype}
    return replace(
        case,
        rank=built.rank,
        features=built.features,
        layer=layer,
        native=None,
        initial=tuple(built.initial),
        layer_dtype=built.dtype,
        layout=built.layout,
        learned=tuple(name for name, part in (("gamma", "scale"), ("beta", "center")) if layer[part]),
        step_dtypes=(call.x.dtype.name,),
        shapes=(call.x.shape,),
        large=False,
        recomputes=False,
        tangents=False,
        orders=frozenset(),
    )


def step(call: Call) -> Step:
    """Its one call, of the script's variables x and dy."""
    return Step(
        mode=call.mode,
        x="x",
        dy="" if call.dy is None else "dy",
        keep="",
        dtype=call.x.dtype.name,
        dy_dtype="" if call.dy is None else call.dy.dtype.name,
        shape=call.x.shape,
        frozen=False,
        was_frozen=False,
        save_load=False,
        strided=call.strided,
        first=True,
    )


def remarked(line: Mapping[str, Any], remark: str) -> str | None:
    """What a verdict's line says of the other layer after a remark; None where it has no such remark."""
    said = (str(fact) for fact in line.get("facts", ()))
    return next((fact.removeprefix(remark) for fact in said if fact.startswith(remark)), None)
