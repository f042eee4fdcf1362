"""A YAML file beside an adapter as a model, or all that is wrong with it, each fault at its line as in case files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from conformance.case_errors import CaseError
from conformance.document import DocumentError, Entry, Fault, Node, parse, plain
from conformance.errors import UsageError
from conformance.locate import read
from conformance.schema import Keys, keys_of, nearest

M = TypeVar("M", bound=BaseModel)


def read_model(file: Path, model: type[M]) -> M:
    """The file's one document as a model.

    Raises:
        UsageError: it cannot be read, or is no such document; a line for every fault.
    """
    try:
        node = parse(read(file))
        return model.model_validate(plain(node))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    except DocumentError as error:
        faults = list(error.faults)
    except ValidationError as error:
        faults = list(_faults(error, node, model))
    lines = (CaseError(str(file), f.mark.line, f.mark.column, f.path, f.message, f.hint) for f in faults)
    raise UsageError("\n".join(dict.fromkeys(map(str, lines))))


def _faults(error: ValidationError, root: Node, model: type[BaseModel]) -> Iterator[Fault]:
    for one in error.errors(include_url=False, include_input=False):
        path, entry = _place(root, one["loc"])
        dotted = ".".join(map(str, path))
        if one["type"] == "extra_forbidden":
            valid = keys_of(model.model_json_schema(), path[:-1]) or frozenset()
            yield Fault(entry.key, dotted, "unknown key", nearest(str(path[-1]), valid))
        elif one["type"] == "missing":
            yield Fault(entry.key, ".".join(map(str, (*path, one["loc"][-1]))), "is missing")
        else:
            yield Fault(entry.mark, dotted, _message(one) + _instead(one, entry))


def _place(root: Node, location: tuple[str | int, ...]) -> tuple[Keys, Entry]:
    """Follow a location down the nodes, passing over parts that the file does not show, such as a union's members."""
    path: list[str | int] = []
    entry = Entry(root.mark, root)
    for part in location:
        below = entry.node.value
        if part in entry.node.entries:
            entry = entry.node.entries[str(part)]
        elif isinstance(below, tuple) and isinstance(part, int) and part < len(below):
            entry = Entry(below[part].mark, below[part])
        else:
            continue
        path.append(part)
    return tuple(path), entry


def _message(error: Any) -> str:
    if error["type"] in ("model_type", "dict_type"):
        return "should be a mapping"
    if error["type"] in ("tuple_type", "list_type"):
        return "should be a list"
    text: str = error["msg"]
    text = text.removeprefix("Value error, ").removeprefix("Input ").replace("should be a valid", "should be a")
    return text.replace("String ", "text ").replace("a string", "text")


def _instead(error: Any, entry: Entry) -> str:
    """What stands there, where that is a single value and the message is about it."""
    value = entry.node.value
    if error["type"] == "value_error" or isinstance(value, dict | tuple):
        return ""
    return ", not null" if value is None else f", not {value!r:.60}"
