"""The commands on case files alone: list, validate, schema."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from conformance import data
from conformance.case import Case
from conformance.cases import Cases
from conformance.errors import UsageError
from conformance.locate import find
from conformance.schema import schema
from conformance.selection import selector


def read_cases(
    paths: Sequence[Path],
    select: str = "",
    frameworks: frozenset[str] = frozenset(),
    fits: Callable[[Case], bool] = lambda case: True,
) -> Cases:
    """The cases of the files and folders named, or of the suite's own corpus, that the expression selects and that fit.

    Raises:
        CaseErrors: all errors of all files.

    """
    chosen = selector(select)
    known = frozenset(data.adapters()) | frameworks
    return Cases(paths or [own_corpus()], known, lambda case: chosen(case.id) and fits(case))


def named_cases(case_id: str, cases: Collection[Case]) -> list[Case]:
    """The cases of an id; files in different folders may give the same one.

    Raises:
        UsageError: there is none; the message names those that are near.

    """
    found = [case for case in cases if case.id == case_id]
    if not found:
        close = difflib.get_close_matches(case_id, [case.id for case in cases], 3, 0.4)
        raise UsageError(
            f"no case {case_id!r}", hint=f"near are {', '.join(close)}" if close else "see: conformance list"
        )
    return found


def own_corpus() -> Path:
    """The suite's own cases, named from here where they lie below."""
    folder = data.folder("cases")
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def list_cases(paths: Sequence[Path], select: str) -> None:
    """Print the ids, one a line."""
    for case in read_cases(paths, select):
        print(case.id)


def validate(paths: Sequence[Path]) -> None:
    """Print how many files and cases are in order."""
    cases = read_cases(paths)
    files = find(paths or [own_corpus()])
    print(f"{len(files)} files, {len(cases)} cases: no errors")


def print_schema() -> None:
    """Print the JSON Schema of a case file."""
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
