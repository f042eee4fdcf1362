"""The JSON Schema of a case file: what editors complete and check with, and which keys may stand where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from typing import Any

from conformance.conditions import CONDITIONS
from conformance.spec import FORMAT, CaseSpec

#: What a case may be called. Names become parts of ids, file names and links.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"

Schema = dict[str, Any]
Keys = tuple[str | int, ...]


def schema() -> Schema:
    """JSON Schema (2020-12) of a whole case file.

    Cases inherit from `defaults` and steps from their case, so nothing is required of what may be inherited.
    """
    spec = CaseSpec.model_json_schema()
    definitions: Schema = spec.pop("$defs")
    for inheriting in (spec, definitions["Documented"], definitions["Carried"]):
        inheriting.pop("required")
    definitions["Expectation"]["properties"]["when"]["propertyNames"] = {"enum": sorted(CONDITIONS)}
    definitions["Documented"]["properties"]["tensors"]["additionalProperties"] = False
    for name in ("expect", "documented"):  # null: none, whatever defaults say
        by_framework = spec["properties"][name]
        by_framework["additionalProperties"] = _or_null(by_framework["additionalProperties"])
        spec["properties"][name] = _or_null(by_framework)
    spec["properties"]["matrix"] = _matrix(spec, definitions)
    spec["title"] = "Case"
    spec["description"] = "One case, or what cases share: a layer, native arguments or a signature, and its steps."
    definitions["Case"] = spec
    case = {"$ref": "#/$defs/Case"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "BatchNorm conformance cases",
        "type": "object",
        "additionalProperties": False,
        "required": ["conformance", "about", "cases"],
        "properties": {
            "conformance": {"const": FORMAT, "description": "Version of the file format."},
            "about": {"type": "string", "minLength": 1, "description": "What the file is about."},
            "defaults": _or_null({**case, "description": "What every case starts from."}),
            "cases": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": NAME},
                "additionalProperties": _or_null(case),
                "description": "Name → case.",
            },
        },
        "$defs": definitions,
    }


def _or_null(wanted: Schema) -> Schema:
    about: Schema = {key: value for key, value in wanted.items() if key in ("description", "default", "title")}
    return {"anyOf": [{key: value for key, value in wanted.items() if key not in about}, {"type": "null"}], **about}


def _matrix(spec: Schema, definitions: Schema) -> Schema:
    """An object of axes; those that editors can complete are spelled out, others are any dotted path."""
    paths: Schema = {name: spec["properties"][name] for name in ("layer", "input", "steps", "gradient", "rank")}
    for group, model in (("layer", "Layer"), ("input", "Input")):
        paths |= {f"{group}.{name}": of for name, of in definitions[model]["properties"].items()}
    axes = {path: _or_null({"type": "array", "minItems": 1, "items": of}) for path, of in paths.items()}
    return _or_null(
        {
            "type": "object",
            "properties": axes,
            "additionalProperties": _or_null({"type": "array", "minItems": 1}),
            "description": "Dotted path → values; the case expands to their cross product, the first key slowest.",
        }
    )


@cache
def _known() -> tuple[Schema, Schema]:
    whole = schema()
    definitions: Schema = whole["$defs"]
    return definitions["Case"], definitions


def keys(path: Keys) -> frozenset[str] | None:
    """The keys that may stand in the mapping at `path` of a case; None where any may.

    >>> sorted(keys(("input", "normal")))
    ['mean', 'seed', 'std']
    """
    return _named(_at(path))


def keys_of(whole: Schema, path: Keys) -> frozenset[str] | None:
    """The keys that may stand in the mapping at `path` of what another model's schema describes; None where any may."""
    return _named(_walk(path, whole, whole.get("$defs", {})))


def _named(found: list[Schema]) -> frozenset[str] | None:
    if any(_anything(one) or one.get("additionalProperties") for one in found):
        return None
    return frozenset(name for one in found for name in one.get("properties", {}))


def exists(path: Keys) -> bool:
    """Whether `path` names something that a case may hold."""
    return bool(_at(path))


def _at(path: Keys) -> list[Schema]:
    """What the schema admits at `path`: one schema per alternative, none where nothing may stand."""
    return _walk(path, *_known())


def _walk(path: Keys, whole: Schema, definitions: Schema) -> list[Schema]:
    found = [whole]
    for part in path:
        below = (_below(one, part) for one in found)
        found = [one for wanted in below if wanted is not None for one in _alternatives(wanted, definitions)]
    return found


def _below(wanted: Schema, part: str | int) -> Schema | None:
    if _anything(wanted):
        return {}
    if part in wanted.get("properties", {}):
        return dict(wanted["properties"][part])
    if "items" in wanted and str(part).isdecimal():
        return dict(wanted["items"])
    others = wanted.get("additionalProperties", False)
    if others is True:
        return {}
    return dict(others) if others and isinstance(part, str) else None


def _alternatives(wanted: Schema, definitions: Schema) -> list[Schema]:
    if "$ref" in wanted:
        return _alternatives(definitions[wanted["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in wanted:
        return [one for each in wanted["anyOf"] for one in _alternatives(each, definitions)]
    return [wanted]


def _anything(wanted: Schema) -> bool:
    """Whether the schema says nothing of the value."""
    return not wanted.keys() & {"type", "enum", "const"}


def nearest(word: str, valid: Iterable[str]) -> str:
    """A hint for a word that is none of `valid`: the nearest of them, or all.

    >>> nearest("momentun", ["eps", "momentum"])
    'did you mean momentum?'
    >>> nearest("decay", ["eps", "momentum"])
    'one of: eps, momentum'
    """
    choices = sorted(valid)
    meant = closest(word, choices)
    if meant is not None:
        return f"did you mean {meant}?"
    return f"one of: {', '.join(choices)}" if choices else ""


def closest(word: str, valid: Iterable[str]) -> str | None:
    """The one of `valid` that a misspelt word is closest to; None where none is close."""
    close = difflib.get_close_matches(word, sorted(valid), 1, 0.6) if len(word) <= 60 else []
    return close[0] if close else None


def nearest_path(path: str) -> str:
    """A hint for a dotted path that names nothing a case may hold."""
    parts = path.split(".")
    good = next((n for n in range(len(parts)) if not exists(tuple(parts[: n + 1]))), len(parts))
    valid = keys(tuple(parts[:good])) or frozenset()
    before, after = parts[:good], parts[good + 1 :]
    return nearest(path, (".".join([*before, one, *after]) for one in valid if exists((*before, one, *after))))
