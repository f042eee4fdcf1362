"""Two frameworks side by side: parameters, conversion rules, states and conventions, each with the cases that prove it.

What people write by hand as "Differences between A and B" follows here from the frameworks' profiles and a run's
verdicts. Pure functions; reports/ lays out what they return, as HTML and as Markdown.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.catalogue import name_change
from conformance.conventions import CANONICAL
from conformance.conversion import Row, Table, conversion, modes, together, weighs
from conformance.findings import off, parts, reason
from conformance.profile import DECLARED, State
from conformance.proof import Lines, Proof, Side, standing
from conformance.run_folder import Line, Run

#: What a canonical parameter is for, in words.
MEANINGS = {
    "features": "number of channels C",
    "eps": "added to the variance under the root",
    "momentum": "weight in the running statistics",
    "affine": "γ and β are learned",
    "scale": "γ is learned",
    "center": "β is learned",
    "bias": "β is learned beside γ",
    "track_running_stats": "running statistics are kept",
    "use_batch_statistics": "which statistics normalise, whatever the mode",
    "gamma": "what γ starts from",
    "beta": "what β starts from",
    "running_mean": "what the running mean starts from",
    "running_var": "what the running variance starts from",
    "axis": "axis of the channels",
    "data_format": "layout of the input",
    "trainable": "the layer learns; if not, it is frozen",
}
#: What a field of `Conventions` decides, in words.
DECISIONS = {
    "running_variance": "Running variance",
    "least_eps": "What a lower ε is raised to",
    "default_mode": "Mode of a new layer",
    "mode_lasts": "A mode holds for later calls that name none",
    "frozen": "A frozen layer in training mode",
    "unlearned": "γ and β that are not learned",
    "mask_count": "Number of values that a mask keeps",
    "statistics": "The batch's mean and deviation",
    "terms": "Sums within gradients",
    "precision": "Precision of the computation",
    "summation": "Order of summation",
    "variance": "Formula of the variance",
    "subnormals": "Numbers below the smallest normal one",
}
_WORDS = {
    "mode": "normalises by the batch",
    "eval": "infers",
    "train": "trains",
    "True": "yes",
    "False": "no",
    "unbiased": "unbiased, with n/(n−1)",
    "biased": "biased, without n/(n−1)",
    "exact": "counted exactly",
    "padded": "counted with 1e-7 more",
}


@dataclass(frozen=True)
class Differences:
    """Everything that sets two frameworks apart."""

    a: Side
    b: Side
    shared: int
    agree: int
    tables: tuple[Table, ...]

    @property
    def slug(self) -> str:
        """Its name in addresses and files."""
        return f"{self.a.framework}-{self.b.framework}"


def differences(run: Run, sides: Sequence[Side]) -> tuple[Differences, ...]:
    """A page for every pair of these frameworks."""
    if len(sides) < 2:
        return ()
    lines = Lines(run)
    return tuple(_pair(a, b, lines) for a, b in itertools.combinations(sides, 2))


def _pair(a: Side, b: Side, lines: Lines) -> Differences:
    pairs = list(lines.pairs(a, b).values())
    tables = (
        conversion(a, b, lines),
        _parameters(a, b, lines),
        _states(a, b, lines),
        _conventions(a, b, lines),
        _refusals(a, b, lines),
        _seen(a, b, pairs, lines),
    )
    agree = sum(line["agreement"] == "agree" for line in pairs)
    return Differences(a, b, len(pairs), agree, tuple(table for table in tables if table.rows))


# Parameters.


def _defaults(side: Side, lines: Lines) -> dict[str, str]:
    """Argument → default, as the constructor has it, or as the profile declares it where no case asked."""
    found = {name: default for name, default in lines.signature(side).items() if default is not None}
    for convention, _ in standing(side):
        for parameter, declared in (("eps", convention.eps), ("momentum", convention.momentum)):
            for argument, meant in side.profile.parameters.items():
                if declared is not None and meant == parameter:
                    found.setdefault(argument, f"{declared.default:g}")
    return found


def _parameters(a: Side, b: Side, lines: Lines) -> Table:
    rows = []
    defaults = {side.framework: _defaults(side, lines) for side in (a, b)}
    theirs = {meant: argument for argument, meant in b.profile.parameters.items() if meant}
    for argument, meant in a.profile.parameters.items():
        if meant:
            rows.append(_parameter(a, b, meant, argument, theirs.pop(meant, None), defaults, lines))
    for meant, argument in theirs.items():
        rows.append(_parameter(a, b, meant, None, argument, defaults, lines))
    inputs = [side.profile.interface.input if side.profile.interface else "" for side in (a, b)]
    if all(inputs):
        note = "the same name" if inputs[0] == inputs[1] else "the name only"
        rows.append(Row(("the input", *inputs, note), Proof()))
    return Table(
        "Parameters",
        "Arguments of the constructors with their defaults, by what they mean. The cases give the argument as a user "
        "types it.",
        ("what for", a.name, b.name, "difference"),
        tuple(rows),
        (1, 2),
    )


def _parameter(
    a: Side,
    b: Side,
    meant: str,
    mine: str | None,
    yours: str | None,
    defaults: Mapping[str, Mapping[str, str]],
    lines: Lines,
) -> Row:
    written = [
        "" if argument is None else _written(argument, defaults[side.framework].get(argument))
        for side, argument in ((a, mine), (b, yours))
    ]
    sides = [side for side, argument in ((a, mine), (b, yours)) if argument is not None]

    def given(_: str, case: Line) -> bool:
        said = [lines.native(side, case) for side in sides]
        return all(one is not None for one in said) and any(meant in one for one in said if one)

    proof = lines.where(sides, given)
    if mine is None or yours is None:
        has, lacks = (b, a) if mine is None else (a, b)
        return Row((MEANINGS.get(meant, meant), *written, _lacking(has, lacks, meant)), proof)
    words = _against(a, b, meant, defaults[a.framework].get(mine), defaults[b.framework].get(yours))
    return Row((MEANINGS.get(meant, meant), *written, words), proof)


def _lacking(has: Side, lacks: Side, meant: str) -> str:
    """What the other framework has in place of an argument that it lacks."""
    if meant == "affine" and together(has, lacks):
        return "scale and center together"
    if meant in ("scale", "center") and together(lacks, has):
        return "half of affine"
    if meant == "features":
        return f"{lacks.name} takes it from the input"
    states = has.profile.interface.states if has.profile.interface else ()
    decides = any(has.profile.parameters.get(name) == meant for state in states for name in state.arguments)
    return f"{lacks.name} has none" + (": see States" if decides else "")


def _written(argument: str, default: str | None) -> str:
    return argument if default is None else f"{argument}={default}"


def _against(a: Side, b: Side, meant: str, mine: str | None, yours: str | None) -> str:
    """How the two arguments for one thing differ, in words."""
    opposite = meant == "momentum" and weighs(a) != weighs(b)
    first, second = _float(mine), _float(yours)
    if first is None or second is None:
        return "none" if mine == yours else "the defaults differ"
    if opposite:
        same = abs(first - (1 - second)) < 1e-12
        return "opposite meaning; " + ("the defaults mean the same" if same else "the defaults differ all the same")
    return "none" if first == second else "the defaults differ"


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


# States and conventions.


def _states(a: Side, b: Side, lines: Lines) -> Table:
    rows = []
    for side in (a, b):
        for state in side.profile.interface.states if side.profile.interface else ():
            said = ", ".join(f"{name}={value}" for name, value in state.arguments.items())
            moves = "move" if state.updates else "stay"

            def in_it(name: str, case: Line, side: Side = side, state: State = state) -> bool:
                return _is_in(side, state, case) and bool(lines.of(side)[name]["tensors"])

            cells = (
                side.name,
                state.mode,
                said,
                "the batch's" if state.normalises_by == "batch" else "the running ones",
                moves,
            )
            rows.append(Row(cells, lines.where((side,), in_it)))
    return Table(
        "States",
        "Which statistics normalise, and whether the running ones move. The cases run in this state alone, "
        "their arguments as a user types them or left out.",
        ("framework", "mode", "arguments", "statistics that normalise", "running statistics"),
        tuple(rows),
        (2,),
    )


def _is_in(side: Side, state: State, case: Line) -> bool:
    """Whether all steps of a native case are in this mode, and its arguments those of the state."""
    given = (case["spec"].get("native") or {}).get(side.framework)
    if given is None or side.profile.interface is None or modes(case) != {state.mode}:
        return False
    usual = side.profile.interface.states[0].arguments
    return all(given.get(name, usual.get(name)) is value for name, value in state.arguments.items())


def _conventions(a: Side, b: Side, lines: Lines) -> Table:
    rows = []
    for field in DECLARED:
        said = {side.framework: _declared(side, field) for side in (a, b)}
        if said[a.framework] == said[b.framework]:
            continue
        cells = [_value(side, field, said[side.framework]) for side in (a, b)]
        needed = []
        for side in (a, b):
            names = {name_change(field, value)[0] for value, _ in said[side.framework]}
            needed += [
                (name, (line,))
                for name, line in lines.of(side).items()
                if line["diagnosis"] and names & set(parts(line["diagnosis"]))
            ]
        rows.append(Row((DECISIONS[field], *cells), lines.proof(needed)))
    return Table(
        "Conventions",
        "Choices on which the documentation of the two differs. In each of the cases a result is right only by that "
        "choice, and beyond rounding without it.",
        ("what", a.name, b.name),
        tuple(rows),
    )


def _declared(side: Side, field: str) -> list[tuple[Any, dict[str, Any]]]:
    """The values that a target declares of a field beyond the canonical one, with what each asks of a case."""
    return [
        (getattr(one, field), rest)
        for one, rest in standing(side)
        if getattr(one, field) is not None and getattr(one, field) != getattr(CANONICAL, field)
    ]


def _value(side: Side, field: str, declared: list[tuple[Any, dict[str, Any]]]) -> str:
    if not declared:
        return _word(getattr(CANONICAL, field))
    return "; ".join(_word(value) + (f", where {_condition(rest)}" if rest else "") for value, rest in declared)


def _word(value: Any) -> str:
    return _WORDS.get(str(value), str(value))


def _condition(rest: Mapping[str, Any]) -> str:
    return " and ".join(
        f"{key} is {' or '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in rest.items()
    )


# What the run showed.


def _refusals(a: Side, b: Side, lines: Lines) -> Table:
    """What one refuses and the other answers."""
    grouped: dict[tuple[str, str], list[tuple[str, Line, Line]]] = {}
    for one, other in ((a, b), (b, a)):
        for name in lines.cases:
            mine, theirs = lines.of(one).get(name), lines.of(other).get(name)
            if mine is None or theirs is None:
                continue
            if mine["verdict"] == "refused" and theirs["verdict"] != "refused":
                why = reason(mine) or mine["error"]["type"]
                grouped.setdefault((one.name, why), []).append((name, mine, theirs))
    rows = []
    for (name, why), found in sorted(grouped.items(), key=lambda item: (item[0][0], -len(item[1]))):
        answers = Counter(theirs["verdict"] for _, _, theirs in found)
        told = ", ".join(f"{verdict} in {number}" for verdict, number in answers.most_common())
        proof = lines.proof([(case, (mine, theirs)) for case, mine, theirs in found])
        rows.append(Row((name, why, told), proof))
    return Table(
        "What only one of them takes",
        "Exceptions in cases that the other framework answers.",
        ("raises", "because", "the other"),
        tuple(rows),
    )


def _seen(a: Side, b: Side, pairs: Sequence[Line], lines: Lines) -> Table:
    grouped: dict[str, list[Line]] = {}
    for line in pairs:
        if line["agreement"] != "agree" and "refused" not in line["because"]:
            grouped.setdefault(line["because"], []).append(line)
    rows = []
    for why, found in sorted(grouped.items(), key=lambda item: -len(item[1])):
        apart = Counter(
            name
            for line in found
            for name in dict.fromkeys(n.partition("[")[0] for n, t in line["tensors"].items() if off(t) > 1)
        )
        tensors = ", ".join(name for name, _ in apart.most_common(4))
        proof = lines.proof([(line["case"], [lines.of(side)[line["case"]] for side in (a, b)]) for line in found])
        rows.append(Row((why, tensors), proof))
    return Table(
        "Seen in this run",
        "Cases in which both return tensors that are further apart than rounding explains, by what explains them.",
        ("because of", "tensors"),
        tuple(rows[:40]),
        (0,),
    )
