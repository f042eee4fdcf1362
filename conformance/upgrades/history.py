"""Versions of one framework side by side: where each convention, and each thing found, appears and disappears.

Pure functions of stored runs, one per version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from conformance.findings import Finding, findings, parts
from conformance.run_folder import Line
from conformance.upgrades.changes import Change, Half, compare

Kind = Literal["convention", "refused", "finding"]

#: Where nothing simple sets apart the cases in which a convention shows; mostly, that others take its place.
IN_PART = "in part"

#: Verdicts that say how a layer means something; of any other, a convention cannot be told.
_ANSWERED = ("conforms", "conventional")


@dataclass(frozen=True)
class Cell:
    """One row of one version.

    Attributes:
        count: cases in which it shows.
        of: cases in which it shows in any version and which this one answered.
        where: what sets the cases apart in which it shows, such as ``2-D, 3-D``; empty where nothing simple does.
        unexpected: how many of them are unexpected.

    """

    count: int
    of: int
    where: str = ""
    unexpected: int = 0


@dataclass(frozen=True)
class Row:
    """One convention or finding over the versions; a cell is None where its version did not run."""

    kind: Kind
    title: str
    cells: tuple[Cell | None, ...]
    example: str = ""

    @property
    def moves(self) -> bool:
        """Whether it appears or disappears between two versions that ran, altogether or for some kind of input."""
        told = [cell for cell in self.cells if cell is not None and (cell.of or cell.count)]
        states = {(bool(cell.count), "" if IN_PART in cell.where else cell.where) for cell in told}
        return len(states) > 1


@dataclass(frozen=True)
class Version:
    """A column: a version that ran, or why it did not.

    Attributes:
        totals: verdict → how many cases; and how many are unexpected.
        since: class of change → how many cases, against the version before; None for the first.

    """

    name: str
    label: str
    facts: dict[str, str] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    missing: str = ""
    since: Counter[Change] | None = None


@dataclass(frozen=True)
class History:
    """The versions of one framework, in the order in which they were named."""

    title: str
    versions: tuple[Version, ...]
    rows: tuple[Row, ...]

    def of(self, kind: Kind, moving: bool) -> list[Row]:
        """The rows of a kind that move between versions, or those that do not."""
        return [row for row in self.rows if row.kind == kind and row.moves is moving]


def history(title: str, columns: Sequence[Half | Version]) -> History:
    """The table of these versions; one that did not run comes as a `Version` that says why."""
    halves = [column if isinstance(column, Half) else None for column in columns]
    versions = [
        _version(column, before) if isinstance(column, Half) else column
        for column, before in zip(columns, [None, *halves], strict=False)
    ]
    rows = [*_conventions(halves), *_findings(halves)]
    return History(title, tuple(versions), tuple(rows))


def _version(half: Half, before: Half | None) -> Version:
    facts = half.described["facts"]
    totals: dict[str, int] = {}
    for line in half.lines.values():
        totals[line["verdict"]] = totals.get(line["verdict"], 0) + 1
        totals["unexpected"] = totals.get("unexpected", 0) + (line["status"] == "unexpected")
    label = str(facts.get("version", "")).partition("+")[0]
    if facts.get("backend_version"):
        label += f" on {facts['backend']} {facts['backend_version']}"
    return Version(half.target, label, facts, totals, since=None if before is None else compare(before, half).counts)


def _conventions(halves: Sequence[Half | None]) -> Iterable[Row]:
    """A row per declared convention that showed somewhere, the one that shows in most cases first."""
    shown: list[dict[str, set[str]]] = []
    for half in halves:
        of: dict[str, set[str]] = {}
        for line in half.lines.values() if half else ():
            for name in parts(line["diagnosis"]) if line["verdict"] == "conventional" and line["diagnosis"] else ():
                of.setdefault(name, set()).add(line["case"])
        shown.append(of)
    everywhere = {name: set().union(*(of.get(name, set()) for of in shown)) for of in shown for name in of}
    for name, cases in sorted(everywhere.items(), key=lambda item: -len(item[1])):
        cells = tuple(
            None if half is None else _cell(half, of.get(name, set()), cases)
            for half, of in zip(halves, shown, strict=True)
        )
        yield Row("convention", name, cells, min(cases))


def _cell(half: Half, shows: set[str], cases: set[str]) -> Cell:
    answered = {case for case in cases if case in half.lines and half.lines[case]["verdict"] in _ANSWERED}
    return Cell(len(shows), len(answered), _where(half, shows, answered))


def _where(half: Half, shows: set[str], answered: set[str]) -> str:
    """For which inputs it shows: by their number of dimensions, and within one by dtype, as in ``2-D, 4-D float64``."""
    if not shows or shows == answered:
        return ""
    groups: dict[str, dict[str, set[bool]]] = {}
    for case in answered:
        for dimensions, dtype in _inputs(half.run.cases[case]["spec"]):
            groups.setdefault(dimensions, {}).setdefault(dtype, set()).add(case in shows)
    states = [states for dtypes in groups.values() for states in dtypes.values()]
    if all(len(state) > 1 for state in states):
        return IN_PART
    found = []
    for dimensions, dtypes in sorted(groups.items()):
        if all(state == {True} for state in dtypes.values()):
            found.append(dimensions)
        else:
            for dtype, state in sorted(dtypes.items()):
                if True in state:
                    found.append(f"{dimensions} {dtype}" + (f" {IN_PART}" if False in state else ""))
    return ", ".join(found)


def _inputs(spec: dict[str, Any]) -> set[tuple[str, str]]:
    """Number of dimensions and dtype of every input of a case, as cases.jsonl stores it."""
    inputs = [step["input"] for step in spec.get("steps", ()) if step.get("input")] or [spec.get("input") or {}]
    return {(f"{_dimensions(one)}-D", str(one.get("dtype", "float32"))) for one in inputs}


def _dimensions(given: dict[str, Any]) -> int:
    if given.get("shape"):
        return len(given["shape"])
    values, depth = given.get("values"), 0
    while isinstance(values, list):
        values, depth = (values[0] if values else None), depth + 1
    return depth


def _findings(halves: Sequence[Half | None]) -> Iterable[Row]:
    """A row per refusal and per result that is none of agreement, those in most cases first."""
    kept: dict[tuple[Kind, str], dict[int, list[Line]]] = {}
    for position, half in enumerate(halves):
        if half is None:
            continue
        for finding in findings(half.run):
            if finding.verdict in _ANSWERED and not finding.unexpected:
                continue
            for occurrence in finding.occurrences:
                if occurrence.target == half.target:
                    line = half.lines[occurrence.case]
                    kept.setdefault(_key(finding, line), {}).setdefault(position, []).append(line)
    for (kind, title), by_version in sorted(kept.items(), key=lambda item: -max(map(len, item[1].values()))):
        cases = {line["case"] for lines in by_version.values() for line in lines}
        cells = tuple(
            None if half is None else _finding_cell(half, by_version.get(position, []), cases)
            for position, half in enumerate(halves)
        )
        yield Row(kind, title, cells, min(cases))


def _key(finding: Finding, line: Line) -> tuple[Kind, str]:
    """What makes two findings one in different versions: a refusal's declared reason, else its type and case."""
    base = line["case"].partition("[")[0]
    cause = finding.name or (line["error"] or {}).get("type", finding.verdict)
    if finding.verdict == "refused":
        words = finding.sentence if finding.sentence and not finding.unexpected else f"{cause} in {base}"
        return "refused", words if cause in words else f"{cause}: {words}"
    if finding.verdict in _ANSWERED:
        return "finding", f"{finding.verdict} where it was expected to be {finding.expected}: {base}"
    if cause in ("unexplained", finding.verdict) or finding.verdict in ("crashed", "timeout", "broken"):
        return "finding", f"{finding.verdict}: {base}"
    if cause.startswith("signature-"):
        return "finding", f"constructor: {finding.sentence}"
    return "finding", f"{finding.verdict}: {cause}"


def _finding_cell(half: Half, lines: Sequence[Line], cases: set[str]) -> Cell:
    unexpected = sum(line["status"] == "unexpected" for line in lines)
    return Cell(len(lines), len(cases & half.lines.keys()), "", unexpected)
