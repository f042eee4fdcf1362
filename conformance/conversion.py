"""Rules for writing a layer of one framework in another, each with the cases in which both then return the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from conformance.proof import Lines, Proof, Side, standing
from conformance.run_folder import Line


@dataclass(frozen=True)
class Row:
    """A row of a table, with its proof."""

    cells: tuple[str, ...]
    proof: Proof


@dataclass(frozen=True)
class Table:
    """Rows under a title; `note` says in a sentence what they are and how they are proved."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    code: tuple[int, ...] = ()


def conversion(a: Side, b: Side, lines: Lines) -> Table:
    """How a layer of one is written in the other."""

    def same_y(holds: Callable[[Line], bool]) -> Proof:
        return lines.where((a, b), lambda name, case: holds(case) and lines.agree(a, b, name, "y"))

    rows = [_rule_of_numbers(a, b, meant, tensor, lines) for meant, tensor in _DECIDES.items()]
    for one, other in ((a, b), (b, a)):
        if together(one, other):
            rule = f"scale_{other.framework} = center_{other.framework} = affine_{one.framework}"
            rows.append(Row((rule,), same_y(_is_bare)))
    layouts = [next((c.layout for c, _ in standing(side) if c.layout), "channels_first") for side in (a, b)]
    if layouts[0] != layouts[1]:
        first, last = (a, b) if layouts[1] == "channels_last" else (b, a)
        rule = f"x_{last.framework} = moveaxis(x_{first.framework}, 1, -1), or axis=1 given to {last.name}"
        rows.append(Row((rule,), same_y(lambda case: "native" in case["spec"])))
    mine, yours = a.profile.interface, b.profile.interface
    if mine and yours:
        for name, called in mine.names.items():
            if called != yours.names[name]:
                rule = f"layer_{b.framework}.{yours.names[name]} = layer_{a.framework}.{called}"
                rows.append(Row((rule,), same_y(partial(_sets, name))))
        for mode, told, tells in (("train", mine.train, yours.train), ("eval", mine.eval, yours.eval)):
            rows.append(Row((f"{told} ⇔ {tells}",), same_y(partial(_is_all, mode))))
    return Table(
        "Conversion",
        "What to write in one framework to get what the other does. In the cases both have what the rule says, and "
        "what it decides is the same: running_mean for momentum, y for all else.",
        ("rule",),
        tuple(rows),
        (0,),
    )


#: Canonical parameter → the tensor that shows whether it means the same in both.
_DECIDES = {"momentum": "running_mean", "eps": "y"}


def _rule_of_numbers(a: Side, b: Side, meant: str, tensor: str, lines: Lines) -> Row:
    opposite = meant == "momentum" and weighs(a) != weighs(b)
    names = [next((k for k, v in side.profile.parameters.items() if v == meant), meant) for side in (a, b)]

    def holds(name: str, case: Line) -> bool:
        mine, yours = (_float(lines.native(side, case), meant) for side in (a, b))
        return abs(mine - (1 - yours if opposite else yours)) < 1e-9 and lines.agree(a, b, name, tensor)

    rule = f"{names[0]}_{a.framework} = {'1 − ' if opposite else ''}{names[1]}_{b.framework}"
    return Row((rule,), lines.where((a, b), holds))


def _float(given: Mapping[str, Any] | None, meant: str) -> float:
    """The number that a parameter is given; NaN, which equals nothing, where it is given none."""
    value = (given or {}).get(meant)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _sets(name: str, case: Line) -> bool:
    """Whether a canonical case sets this parameter or statistic, which adapters do by its name in the framework."""
    return name in ((case["spec"].get("layer") or {}).get("initial") or {})


def _is_all(mode: str, case: Line) -> bool:
    return modes(case) == {mode}


def together(one: Side, other: Side) -> bool:
    """Whether one has a single argument for what the other has two for."""
    mine, yours = (set(side.profile.parameters.values()) for side in (one, other))
    return "affine" in mine and "affine" not in yours and {"scale", "center"} <= yours


def _is_bare(case: Line) -> bool:
    layer = case["spec"].get("layer") or {}
    return layer.get("scale") is False and layer.get("center") is False


def modes(case: Line) -> set[str]:
    """The modes of a case's steps; frozen ones count as none."""
    steps = case["spec"].get("steps", [{"mode": "train"}])
    return {"frozen" if step.get("frozen") else step["mode"] for step in steps}


def weighs(side: Side) -> str:
    """Which statistics the framework's own momentum weighs, old or new."""
    return next((one.momentum.weighs for one, _ in standing(side) if one.momentum is not None), "new")
