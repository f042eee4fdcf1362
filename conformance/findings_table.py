"""What a run found beyond agreement, as Markdown tables that a document holds between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from conformance.errors import UsageError
from conformance.findings import Finding, findings, in_words, parts, ranked
from conformance.run_folder import Run
from conformance.safe_text import markdown, markdown_cell, markdown_code

#: The lines of a document between which the tables stand.
BEGIN, END = "<!-- findings: begin -->", "<!-- findings: end -->"


def tables(run: Run) -> str:
    """Findings, then the conventions that profiles declare and cases prove, by target, in the order of the cases."""
    version = {target["name"]: target["facts"].get("version", "") for target in run.targets}
    order = {name: place for place, name in enumerate(version)}
    place = {name: number for number, name in enumerate(run.cases)}
    held: dict[tuple[str, str], list[str]] = {}
    for line in sorted(run.verdicts, key=lambda line: order[line["target"]]):
        if line["verdict"] == "conventional" and line["status"] != "unexpected":
            for name in parts(line["diagnosis"]):
                held.setdefault((line["target"], name), []).append(line["case"])
    found = [(finding, sorted(_each(finding), key=lambda case: place[case])) for finding in ranked(findings(run))]
    found.sort(key=lambda each: (order[each[0].target], place[each[1][0]]))
    rows = [
        (_where(finding.target, version), markdown(finding.words, 600), f"{finding.verdict}: {_cases(cases)}")
        for finding, cases in found
    ]
    conventions = [
        (_where(target, version), markdown(in_words(name) or name, 600), _cases(cases))
        for (target, name), cases in held.items()
    ]
    return "\n\n".join(
        (
            f"{len(rows)} findings and {len(conventions)} declared conventions, from {len(run.cases)} cases.",
            _table(("framework", "what happens", "verdict and cases"), rows),
            _table(("framework", "what it does by convention", "cases that need it"), conventions),
        )
    )


def _each(finding: Finding) -> set[str]:
    return {at.case for at in finding.occurrences}


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
