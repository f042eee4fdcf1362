"""The commands on case files alone: list, validate, schema."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from conformance import data
from conformance.case import Case
from conformance.case_errors import CaseErrors
from conformance.cases import Cases
from conformance.check import NO_TARGET
from conformance.configuration import configured
from conformance.errors import NothingToRun, UsageError
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

    Args:
        frameworks: what cases may speak to besides the suite's own adapters and those of the configuration.

    Raises:
        CaseErrors: all errors of all files.

    """
    chosen = selector(select)
    known = frozenset(data.adapters()) | frameworks | _configured()
    try:
        return Cases(paths or [own_corpus()], known, lambda case: chosen(case.id) and fits(case))
    except CaseErrors as error:
        if any(one.message.endswith(NO_TARGET) for one in error.errors):
            raise CaseErrors(error.errors, _OWN_ADAPTERS) from None
        raise


#: What else a name may be that is no framework's.
_OWN_ADAPTERS = "an adapter of your own makes its name known with -t ./FOLDER, or as a target in conformance.toml"


def _configured() -> frozenset[str]:
    """The frameworks of the targets that the configuration names; one that cannot be read makes no name known."""
    found: set[str] = set()
    for text in configured(Path.cwd()):
        with contextlib.suppress(UsageError):
            found |= _frameworks([text])
    return frozenset(found)


def named_cases(case_id: str, cases: Collection[Case]) -> list[Case]:
    """The cases of an id; files in different folders may give the same one.

    Raises:
        UsageError: there is none; the message names those that may have been meant.

    """
    found = [case for case in cases if case.id == case_id]
    if not found:
        raise no_case(case_id, [case.id for case in cases])
    return found


def no_case(case_id: str, ids: Sequence[str], where: str = "") -> UsageError:
    """That no case has this id, and what there is: its expansions, where the id lacks their matrix, or near ones.

    Args:
        where: what lacks it, in words that follow "no case …"; empty for the files that were named.

    """
    expansions = [one for one in ids if one.partition("[")[0] == case_id]
    if expansions:
        rest = len(expansions) - _EXPANSIONS
        told = ", ".join(expansions[:_EXPANSIONS]) + (f" and {rest} more; see: conformance list" if rest > 0 else "")
        number = "one case" if len(expansions) == 1 else f"{len(expansions)} cases"
        return UsageError(f"{case_id!r} stands for {number}{where}; name one, in quotes", hint=told)
    close = difflib.get_close_matches(case_id, ids, 3, 0.4)
    hint = f"near are {', '.join(close)}" if close else "see: conformance list"
    return UsageError(f"no case {case_id!r}{where}", hint=hint)


#: Cases of a matrix that a message names.
_EXPANSIONS = 12


def own_corpus() -> Path:
    """The suite's own cases, named from here where they lie below."""
    folder = data.folder("cases")
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def list_cases(paths: Sequence[Path], select: str, named: Sequence[str]) -> None:
    """Print the ids, one a line; the targets named are not started, but cases may speak to them.

    Raises:
        NothingToRun: the expression selects no case.
        UsageError: a path holds no case file, or a target is none.
        CaseErrors: all errors of all files.

    """
    _none_empty(paths)
    cases = read_cases(paths, select, _frameworks(named))
    if not cases:
        raise NothingToRun(f"no case was selected by -k {select!r}", hint="without it, all are listed")
    for case in cases:
        print(case.id)


def validate(paths: Sequence[Path], named: Sequence[str]) -> None:
    """Print how many files and cases are in order; the targets named are not started, but cases may speak to them.

    Raises:
        UsageError: a path holds no case file, or a target is none.
        CaseErrors: all errors of all files.

    """
    _none_empty(paths)
    files = find(paths or [own_corpus()])
    cases = read_cases(paths, "", _frameworks(named))
    where = ", ".join(map(str, paths)) or f"the suite's own cases in {own_corpus()}"
    print(f"{where}: {_count(len(files), 'file')}, {_count(len(cases), 'case')}: no errors")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _frameworks(named: Sequence[str]) -> frozenset[str]:
    """The frameworks of targets that are not to be started.

    Raises:
        UsageError: there is no such adapter.

    """
    if not named:
        return frozenset()
    from conformance.target import framework_of  # imports NumPy, which takes longer than reading a case file

    aliases = configured(Path.cwd())
    return frozenset(framework_of(text, aliases) for text in named)


def _none_empty(paths: Sequence[Path]) -> None:
    """See that each path holds a case file: a wrong one would pass for one without errors.

    Raises:
        UsageError: one holds none.
        CaseErrors: a path cannot be read.

    """
    empty = [str(path) for path in paths if not find([path])]
    if empty:
        looked = "looked for *.yaml and *.yml with a top-level key conformance; hidden ones are left alone"
        raise UsageError(f"no case file in {', '.join(empty)}", hint=looked)


def print_schema() -> None:
    """Print the JSON Schema of a case file."""
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
