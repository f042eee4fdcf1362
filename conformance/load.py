"""YAML files to cases: read, expanded and checked; or, if anything is wrong, everything that is wrong.

Nothing is returned while any file has an error, so a bad case never runs as something else, and never hides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.case import Case
from conformance.case_errors import CaseError, CaseErrors
from conformance.check import check, unknown_keys, without_target
from conformance.document import DocumentError, Entry, Fault, Mark, Node, parse
from conformance.expand import MAX_CASES, MAX_VALUES, Axis, axes_of, count, expand, with_defaults
from conformance.locate import read, search, topic, unreadable
from conformance.schema import NAME, closest, nearest
from conformance.spec import FORMAT

#: Faults looked at in one file, repeats included, before the rest waits until these are mended.
MAX_FAULTS = 10_000

_KEYS = ("conformance", "about", "defaults", "cases")


def load(paths: Sequence[Path], frameworks: frozenset[str] | None = None) -> list[Case]:
    """The cases of files and folders, in the order of the files and then as written.

    Args:
        paths: case files, and folders to search.
        frameworks: names that cases may speak to; None for any.

    Raises:
        CaseErrors: anything is wrong with any of them.
    """
    return list(checked(paths, frameworks, []))


def checked(paths: Sequence[Path], frameworks: frozenset[str] | None, files: list[CaseFile]) -> Iterator[Case]:
    """As `load`, case by case: nothing may be done with any before the last has come. The files are put into `files`.

    Raises:
        CaseErrors: at the end, if anything is wrong with any of them.
    """
    found, errors = search(paths)
    shared = Counter(topic(file.path, file.root) for file in found)
    repeated = _Repeated()
    for file in found:
        try:
            opened = _opened(file.path, file.root, frameworks)
            files.append(opened)
            for case in opened:
                if shared[opened.topic] > 1:  # else no other file can give its id
                    repeated.add(case)
                yield case
        except CaseErrors as error:
            errors += error.errors
    errors += repeated.errors
    if errors:
        raise CaseErrors(errors)


def load_file(path: Path, root: Path | None = None, frameworks: frozenset[str] | None = None) -> list[Case]:
    """The cases of one file.

    Args:
        path: the file, which is taken to be ours.
        root: what ids are relative to where no folder above the file is named ``cases``; None: the file's folder.
        frameworks: as in `load`.

    Raises:
        CaseErrors: anything is wrong with it.
    """
    return list(_opened(path, root, frameworks))


def _opened(path: Path, root: Path | None, frameworks: frozenset[str] | None) -> CaseFile:
    name = str(path)
    try:
        return CaseFile(name, topic(path, root), frameworks, parse(read(path)))
    except (OSError, ValueError) as error:
        raise CaseErrors([unreadable(path, error)]) from None
    except DocumentError as error:
        raise CaseErrors([_placed(name, fault) for fault in error.faults]) from None


def _placed(file: str, fault: Fault) -> CaseError:
    return CaseError(file, fault.mark.line, fault.mark.column, fault.path, fault.message, fault.hint)


class _Repeated:
    """Ids that two files give: the second is at fault, once for each line that repeats some."""

    def __init__(self) -> None:
        self._taken: dict[str, Case] = {}
        self._told: set[tuple[str, int]] = set()
        self.errors: list[CaseError] = []

    def add(self, case: Case) -> None:
        first = self._taken.setdefault(case.id, case)
        if first is not case and (case.file, case.line) not in self._told:
            self._told.add((case.file, case.line))
            message = f"the id {case.id} is taken already, by {first.file}:{first.line}"
            hint = "rename one of the files, or put both below a folder named cases"
            self.errors.append(CaseError(case.file, case.line, 0, "", message, hint))


# What is in a file


@dataclass(frozen=True)
class CaseFile(Iterable[Case]):
    """A case file as it was read: its cases are made each time they are asked for, whatever becomes of the file.

    Attributes:
        topic: the file part of ids.
        frameworks: as in `load`.
    """

    name: str
    topic: str
    frameworks: frozenset[str] | None
    document: Node

    def __iter__(self) -> Iterator[Case]:
        """The cases.

        Raises:
            CaseErrors: at the end, if anything is wrong with any of them.
        """
        expansion = _Expansion(self)
        yield from expansion.cases()
        if expansion.faults:
            faults = sorted(dict.fromkeys(expansion.faults), key=lambda fault: (fault.mark.line, fault.mark.column))
            raise CaseErrors([_placed(self.name, fault) for fault in faults])


@dataclass(frozen=True)
class _Plan:
    """A case that is to be expanded: as the file writes it, and upon its defaults."""

    name: str
    own: Entry
    merged: Node
    axes: list[Axis]


class _Expansion:
    """A file on its way to cases; what is wrong with it gathers in `faults`."""

    def __init__(self, file: CaseFile) -> None:
        self._file = file
        self._affordable = True
        self._examined = 0
        self.faults: list[Fault] = []

    def cases(self) -> Iterator[Case]:
        """The cases of the whole document; those with faults are left out."""
        document = self._file.document
        if not self._ours(document):
            return
        about = self._about(document)
        defaults = self._defaults(document)
        planned = list(self._planned(defaults, document))
        if self._affordable:
            for plan in planned:
                yield from self._expanded(plan, about)

    def _fault(self, mark: Mark, path: str, message: str, hint: str = "") -> None:
        self.faults.append(Fault(mark, path, message, hint))

    def _ours(self, document: Node) -> bool:
        version = document.entries.get("conformance")
        if version is None:
            near = closest("conformance", document.entries)
            mark = document.entries[near].key if near else document.mark
            message = "this is no case file: it has no top-level key conformance"
            self._fault(mark, "", message, f"begin with conformance: {FORMAT}")
        elif type(version.node.value) is not int or version.node.value != FORMAT:
            message = f"this version of the suite reads format {FORMAT}"
            self._fault(version.mark, "conformance", message, f"write conformance: {FORMAT}")
        else:
            return True
        return False

    def _about(self, document: Node) -> str:
        for key, entry in document.entries.items():
            if key not in _KEYS:
                self._fault(entry.key, key, "unknown key", nearest(key, _KEYS))
        found = document.entries.get("about")
        if found is None:
            self._fault(document.mark, "about", "is missing", "say in a sentence what the file is about")
        elif not isinstance(found.node.value, str) or not found.node.value.strip():
            self._fault(found.mark, "about", "should be text", "say in a sentence what the file is about")
        else:
            return found.node.value
        return ""

    def _defaults(self, document: Node) -> Node:
        found = document.entries.get("defaults")
        if found is not None and isinstance(found.node.value, dict):
            self.faults += unknown_keys(found)
            return found.node
        if found is not None and found.node.value is not None:
            self._fault(found.mark, "defaults", "should be a mapping")
        return Node({}, document.mark)

    def _named(self, document: Node) -> Iterator[tuple[str, Entry]]:
        found = document.entries.get("cases")
        if found is None:
            self._fault(document.mark, "cases", "is missing")
        elif not isinstance(found.node.value, dict) or not found.node.value:
            self._fault(found.mark, "cases", "should be a mapping of names to cases, one at least")
        else:
            for name, entry in found.node.value.items():
                if re.fullmatch(NAME, name) is None:
                    hint = "letters, digits, _ . + and -, a letter or digit first"
                    self._fault(entry.key, "", f"{name!r} cannot be the name of a case", hint)
                if entry.node.value is None:
                    yield name, Entry(entry.key, Node({}, entry.key))
                elif isinstance(entry.node.value, dict):
                    yield name, entry
                else:
                    self._fault(entry.mark, name, "should be a mapping")

    def _planned(self, defaults: Node, document: Node) -> Iterator[_Plan]:
        """The cases upon their defaults, and their axes, as long as the file's limits allow what they expand to."""
        number = values = 0
        for name, entry in self._named(document):
            merged = with_defaults(defaults, entry.node)
            axes, faults = axes_of(merged)
            self.faults += faults
            matrix = merged.entries.get("matrix")
            number += count(axes)
            values += count(axes) * (merged.size - (matrix.node.size if matrix else 0))
            yield _Plan(name, entry, merged, axes)
            if number > MAX_CASES or values > MAX_VALUES:
                limit = f"{MAX_CASES:,} cases" if number > MAX_CASES else f"{MAX_VALUES:,} values in all cases"
                self._fault(entry.key, name, f"with this case the file is over the limit of {limit}", "split it")
                self._affordable = False
                return

    def _expanded(self, plan: _Plan, about: str) -> Iterator[Case]:
        told: set[tuple[Mark, str]] = set()
        spoken_to: set[str] | None = set()  # None: to all, or to nobody knows whom
        for expansion in expand(plan.merged, plan.axes, self.faults.append):
            if self._examined > MAX_FAULTS:
                return
            spec, faults = check(Entry(plan.own.key, expansion.body), self._file.frameworks)
            self._examined += len(faults)
            self.faults += (fault for fault in faults if (fault.mark, fault.path) not in told)
            told |= {(fault.mark, fault.path) for fault in faults}
            if spec is None:
                spoken_to = None
                continue
            id_ = f"{self._file.topic}/{plan.name}{expansion.suffix}"
            case = Case(id_, self._file.name, plan.own.key.line, about, spec, expansion.matrix)
            spoken_to = None if spoken_to is None or case.frameworks is None else spoken_to | case.frameworks
            yield case
        if spoken_to:
            self.faults += without_target(plan.own, spoken_to)
