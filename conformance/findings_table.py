"""What a run found beyond agreement, as Markdown tables that a document holds between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from conformance.errors import UsageError
from conformance.findings import Finding, findings, in_words, parts, ranked
from conformance.run_folder import Run
from conformance.safe_text import markdown, markdown_cell, markdown_code

#: The lines of a document between which the tables stand.
BEGIN, END = "<!-- findings: begin -->", "<!-- findings: end -->"

HEAD = ("framework", "what happens", "verdict and cases")


def tables(run: Run) -> str:
    """Findings, then the conventions that profiles declare and cases prove, by target, in the order of the cases.

    Both are of the first target of each framework; what only its others show has a table of its own.
    """
    version = {target["name"]: target["facts"].get("version", "") for target in run.targets}
    first = set({target["framework"]: target["name"] for target in reversed(run.targets)}.values())
    order = {name: place for place, name in enumerate(version)}
    place = {name: number for number, name in enumerate(run.cases)}
    held: dict[tuple[str, str], list[str]] = {}
    for line in sorted(run.verdicts, key=lambda line: order[line["target"]]):
        if line["target"] in first and line["verdict"] == "conventional" and line["status"] != "unexpected":
            for name in parts(line["diagnosis"]):
                held.setdefault((line["target"], name), []).append(line["case"])
    own: list[_Row] = []
    others: list[_Row] = []
    for finding in ranked(findings(run)):
        targets = sorted(first & set(finding.targets) or finding.targets, key=order.__getitem__)
        cases = {at.case for at in finding.occurrences if at.target in targets}
        row = _Row(finding, targets, sorted(cases, key=place.__getitem__))
        (own if first & set(targets) else others).append(row)
    for rows in (own, others):
        rows.sort(key=lambda row: (order[row.targets[0]], place[row.cases[0]]))
    conventions = [
        (_where(target, version), markdown(in_words(name) or name, 600), _cases(cases))
        for (target, name), cases in held.items()
    ]
    written = [
        f"{len(own)} findings and {len(conventions)} declared conventions, from {len(run.cases)} cases.",
        _table(HEAD, (row.cells(version) for row in own)),
        _table(("framework", "what it does by convention", "cases that need it"), conventions),
    ]
    if others:
        names = ", ".join(markdown(name, 60) for name in version if name not in first)
        written += [
            f"{len(others)} more findings, of other targets of the same frameworks alone: {names}.",
            _table(HEAD, (row.cells(version) for row in others)),
        ]
    return "\n\n".join(written)


@dataclass(frozen=True)
class _Row:
    """A finding, the targets that it is told of, and its cases on these."""

    finding: Finding
    targets: Sequence[str]
    cases: Sequence[str]

    def cells(self, version: dict[str, str]) -> tuple[str, str, str]:
        """What the table shows of it."""
        where = "; ".join(_where(target, version) for target in self.targets)
        return where, markdown(self.finding.words, 600), f"{self.finding.verdict}: {_cases(self.cases)}"


def inserted(document: str, tables: str, name: str) -> str:
    """The document with the tables between its marks.

    Raises:
        UsageError: the document does not hold both marks, once and in order.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise UsageError(f"{name} has no place for findings", hint=f"put a line {BEGIN} and a line {END} into it")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _where(target: str, version: dict[str, str]) -> str:
    return f"{markdown(target, 60)} {markdown(version[target], 40)}"


def _cases(cases: Sequence[str]) -> str:
    """The first case, and how many more show the same."""
    first = markdown_cell(markdown_code(cases[0], 120))
    return first if len(cases) == 1 else f"{first} and {len(cases) - 1} more"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines: list[Sequence[str]] = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
