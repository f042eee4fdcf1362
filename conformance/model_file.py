"""A YAML file beside an adapter as a model, or all that is wrong with it, each fault at its line as in case files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from conformance.case_errors import CaseError
from conformance.check import instead, message_of, place_of
from conformance.document import DocumentError, Entry, Fault, Node, parse, plain
from conformance.errors import UsageError
from conformance.locate import read
from conformance.schema import keys_of, nearest

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


def _faults(error: ValidationError, document: Node, model: type[BaseModel]) -> Iterator[Fault]:
    root = Entry(document.mark, document)
    for one in error.errors(include_url=False, include_input=False):
        place = place_of(root, one["loc"])
        dotted = ".".join(map(str, place.path))
        if one["type"] == "extra_forbidden":
            valid = keys_of(model.model_json_schema(), place.path[:-1]) or frozenset()
            yield Fault(place.entry.key, dotted, "unknown key", nearest(str(place.path[-1]), valid))
        elif one["type"] == "missing":
            yield Fault(place.entry.key, ".".join(map(str, (*place.path, one["loc"][-1]))), "is missing")
        else:
            stands = "" if one["type"] == "value_error" else instead(place.entry)
            yield Fault(place.entry.mark, dotted, message_of(one) + stands)
