"""From a case's nodes to a `CaseSpec`, or to what is wrong with it in words a YAML author knows.

pydantic validates; its errors are then traced back to the nodes, so that each names the value in the file, whether
it came from the case, its defaults or its matrix.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import ValidationError

from conformance.catalogue import NAMES, misnamed
from conformance.conditions import CONDITIONS
from conformance.document import Entry, Fault, plain
from conformance.expand import KINDS
from conformance.fields import DType, Input, InputDType, Layout, Mode
from conformance.schema import Keys, closest, keys, nearest
from conformance.spec import CaseSpec, Layer

#: What is said of a name that is no framework's.
NO_TARGET = "names no target"


def check(case: Entry, frameworks: frozenset[str] | None = None) -> tuple[CaseSpec | None, list[Fault]]:
    """Validate one expanded case.

    Args:
        case: the case's name and body, after defaults and matrix.
        frameworks: the names a case may speak to; None for any.

    Returns:
        The specification, None where anything is wrong, and all that is wrong.
    """
    faults = [*_expectations(case), *_documents(case), *_frameworks(case, frameworks)]
    try:
        spec = CaseSpec.model_validate(plain(case.node))
    except ValidationError as error:
        return None, [*_translated(error, case), *faults]
    faults += _initial_lengths(spec, case)
    return (None if faults else spec), faults


def unknown_keys(case: Entry) -> Iterator[Fault]:
    """The keys that no case may have: what defaults hold is looked at even where every case replaces it."""
    pending: list[tuple[Keys, Entry]] = [((), case)]
    while pending:
        path, entry = pending.pop()
        valid = keys(path)
        for key, below in entry.node.entries.items():
            if valid and key not in valid:
                yield Fault(below.key, _dotted((*path, key)), "unknown key", nearest(key, valid))
            elif (*path, key) != ("matrix",):
                pending.append(((*path, key), below))


@dataclass(frozen=True)
class Place:
    """Where a pydantic location lies in the file: the keys as written, and the entry found there."""

    path: Keys
    entry: Entry


def place_of(root: Entry, location: tuple[str | int, ...]) -> Place:
    """Follow a location down the nodes.

    Parts that the file does not show are passed over: members of a union, the fields that a short form stands for,
    and keys that are missing.
    """
    path: list[str | int] = []
    entry = root
    for part in location:
        if part in entry.node.entries:
            entry = entry.node.entries[str(part)]
        elif isinstance(entry.node.value, tuple) and isinstance(part, int) and part < len(entry.node.value):
            item = entry.node.value[part]
            entry = Entry(item.mark, item)
        else:
            continue
        path.append(part)
    return Place(tuple(path), entry)


def _dotted(path: Keys) -> str:
    return ".".join(map(str, path))


def _translated(error: ValidationError, case: Entry) -> list[Fault]:
    """Faults for pydantic's errors, one a place; of a value that fits no member of a union it says so for each."""
    groups: dict[tuple[Keys, str], list[tuple[Place, Any]]] = {}
    for one in error.errors(include_url=False, include_input=False):
        place = place_of(case, one["loc"])
        about = one["loc"][-1] if one["type"] == "missing" or one["loc"][-1:] == ("[key]",) else ""
        groups.setdefault((place.path, str(about)), []).append((place, one))
    # Where a list fits a union but one of its items does not, the item says so.
    outer = {path[:n] for path, _ in groups for n in range(len(path))}
    faults = []
    for (path, _), found in groups.items():
        if found[0][1]["type"] == "too_short" and path in outer:
            continue  # short of the items that are wrong, which say so themselves
        if len(found) == 1:
            faults.append(_translate(case, *found[0]))
        elif path not in outer:
            entry = found[0][0].entry
            message = _either([one for _, one in found]) + instead(entry)
            faults.append(Fault(entry.mark, _dotted(path), message))
    return faults


def _either(errors: list[Any]) -> str:
    *others, last = dict.fromkeys(message_of(error).removeprefix("should be ") for error in errors)
    return f"should be {', '.join(others)} or {last}" if others else f"should be {last}"


def _translate(case: Entry, place: Place, error: Any) -> Fault:
    path = _dotted(place.path)
    if error["type"] == "missing":  # reported where the mapping is named: by the case's name, or the key above
        return Fault(place.entry.key, _dotted((*place.path, error["loc"][-1])), "is missing")
    if error["type"] == "extra_forbidden":
        valid = keys(place.path[:-1]) or frozenset()
        return Fault(place.entry.key, path, "unknown key", nearest(str(place.path[-1]), valid))
    if error["type"] == "string_pattern_mismatch" and error["loc"][-1] == "[key]":
        return Fault(place.entry.key, path, "is no tensor of a step", "write y[0], dx[1], running_mean[0] …")
    if error["loc"][-1:] == ("[key]",):
        return Fault(place.entry.key, path, message_of(error))
    message = message_of(error)
    hint = _HINTS.get(error["type"], "")
    if error["type"] != "value_error":
        value = place.entry.node.value
        message += instead(place.entry)
        if error["type"] == "literal_error" and isinstance(value, str):
            meant = closest(value, re.findall(r"'([^']*)'", error["ctx"]["expected"]))
            hint = f"did you mean {meant}?" if meant else ""  # the message lists them all
    return Fault(place.entry.mark if place.path else case.key, path, message, hint)


_MAPPINGS = {
    "InitialValues": "a number, a list of numbers, or a mapping",
    "Step": "a mode (train, eval, default) or a mapping",
}
_HINTS = {"bool_type": "write true or false", "string_type": "put it in quotes"}


def message_of(error: Any) -> str:
    """What pydantic says of a value, in the words of YAML."""
    kind = error["type"]
    if kind == "model_type":
        return f"should be {_MAPPINGS.get(error['ctx']['class_name'], 'a mapping')}"
    if kind == "dict_type":
        return "should be a mapping"
    if kind in ("tuple_type", "list_type"):
        return "should be a list"
    text: str = error["msg"]
    text = text.removeprefix("Value error, ").removeprefix("Input ").replace("should be a valid", "should be a")
    text = text.replace("a integer", "an integer").replace("a string", "text").replace("a boolean", "a truth value")
    return text.replace("Tuple ", "list ").replace("String ", "text ").replace(" after validation", "")


def instead(entry: Entry) -> str:
    """What stands there, where that is a single value."""
    value = entry.node.value
    return "" if isinstance(value, dict | tuple) else f", not {_written(value)}"


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if len(str(value)) <= 40 else f"{str(value)[:40]!r}…"


def _expectations(case: Entry) -> Iterator[Fault]:
    """What `expect` asks of versions, conditions and diagnoses that never hold, or would fail when they are asked."""
    for framework, entry in _inside(case, "expect"):
        several = isinstance(entry.node.value, tuple)
        items = [Entry(node.mark, node) for node in entry.node.children] if several else [entry]
        for index, item in enumerate(items):
            path = ("expect", framework, *((index,) if several else ()))
            named = item.node.entries.get("diverges")
            if named is not None and isinstance(named.node.value, str):
                wrong = misnamed(named.node.value)
                if wrong is not None:
                    message = f"{_written(wrong)} is no diagnosis"
                    yield Fault(named.mark, _dotted((*path, "diverges")), message, _near(wrong))
            if "version" in item.node.entries:
                yield from _condition((*path, "version"), "version", item.node.entries["version"])
            when = item.node.entries.get("when")
            for key, wanted in (when.node.entries if when else {}).items():
                if key in CONDITIONS:
                    yield from _condition((*path, "when", key), key, wanted)
                else:
                    yield Fault(
                        wanted.key, _dotted((*path, "when", key)), "unknown condition", nearest(key, CONDITIONS)
                    )


def _near(diagnosis: str) -> str:
    meant = closest(diagnosis, NAMES)
    return f"did you mean {meant}?" if meant else "conformance/catalogue.py has them all; or write unexplained"


def _inside(case: Entry, name: str) -> Iterator[tuple[str, Entry]]:
    if name in case.node.entries:
        yield from case.node.entries[name].node.entries.items()


#: Facts that have few values: a condition on another never holds.
_FACTS: dict[str, tuple[Any, ...]] = {
    "mode": get_args(Mode),
    "dtype": get_args(InputDType),
    "layer_dtype": get_args(DType),
    "layout": get_args(Layout),
    "kind": KINDS,
}


def _condition(path: Keys, key: str, wanted: Entry) -> Iterator[Fault]:
    """Whether a condition can hold at all."""
    values = wanted.node.value if isinstance(wanted.node.value, tuple) else (wanted.node,)
    for node in values:
        value = node.value
        mark = node.mark
        if isinstance(value, dict | tuple) or value is None:
            continue  # the models say what is wrong with it
        if key == "version":
            if not _is_specifier(value):
                yield Fault(mark, _dotted(path), f"{_written(value)} is no range of versions", "write '>=2.7,<3'")
        elif key in _FACTS:
            if value not in _FACTS[key]:
                hint = nearest(str(value), _FACTS[key])
                yield Fault(mark, _dotted(path), f"{_written(value)} is no {key.replace('_', ' ')}", hint)
        elif isinstance(value, str) and value[:1] in ("<", ">") and not _is_number(value.lstrip("<>=")):
            yield Fault(mark, _dotted(path), f"{_written(value)} compares with no number", "write '>=2'")


def _is_specifier(value: Any) -> bool:
    try:
        SpecifierSet(value)
    except (InvalidSpecifier, TypeError, AttributeError):
        return False
    return isinstance(value, str) and bool(value.strip())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _documents(case: Entry) -> Iterator[Fault]:
    """Tensors of steps that the case does not have."""
    steps = case.node.entries.get("steps")
    count = len(steps.node.children) if steps and steps.node.children else 1
    for framework, document in _inside(case, "documented"):
        for name, entry in _inside(document, "tensors"):
            index = re.search(r"\[(\d+)\]$", name)
            if index and int(index[1][:9]) >= count:
                path = _dotted(("documented", framework, "tensors", name))
                yield Fault(entry.key, path, f"the case has {_count(count, 'step')}, counted from 0")


def _frameworks(case: Entry, known: frozenset[str] | None) -> Iterator[Fault]:
    if known is None:
        return
    for place in ("native", "signature", "expect", "documented"):
        for name, entry in _inside(case, place):
            if name not in known:
                what = f"an expectation that {NO_TARGET}" if place == "expect" else NO_TARGET
                yield Fault(entry.key, f"{place}.{name}", what, nearest(name, known))
    for name, entry in _inside(case, "carried"):
        source = entry.node.value
        if name == "from" and isinstance(source, str) and source not in known:
            yield Fault(entry.mark, "carried.from", NO_TARGET, nearest(source, known))


def without_target(case: Entry, spoken_to: Collection[str]) -> Iterator[Fault]:
    """What a case says of frameworks that none of its expansions speaks to: nothing would ever hold it against them."""
    for place in ("expect", "documented"):
        for name, entry in _inside(case, place):
            if name not in spoken_to:
                hint = f"it speaks to {', '.join(sorted(spoken_to))}"
                yield Fault(entry.key, f"{place}.{name}", f"{NO_TARGET} of this case", hint)


def _initial_lengths(spec: CaseSpec, case: Entry) -> Iterator[Fault]:
    """Initial vectors given as lists have one number per feature."""
    first = spec.steps[0].input or spec.input
    layers: list[tuple[Keys, Layer | None, Input | None]] = [(("layer",), spec.layer, first)]
    if spec.beside is not None:
        layers.append((("beside", "layer"), spec.beside.layer, spec.beside.input or first))
    for path, layer, called_on in layers:
        if layer is None or called_on is None:
            continue
        features = layer.features or called_on.dimensions[1]
        for name in ("gamma", "beta", "running_mean", "running_var"):
            vector = getattr(layer.initial, name)
            if vector is not None and vector.values is not None and len(vector.values) != features:
                message = f"has {_count(len(vector.values), 'number')} for {_count(features, 'feature')}"
                place = place_of(case, (*path, "initial", name))
                yield Fault(place.entry.mark, _dotted(place.path), message)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
