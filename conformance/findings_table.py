"""What a run found beyond agreement, as Markdown tables that a document holds between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    framework = {target["name"]: target["framework"] for target in run.targets}
    first = {framework[name]: name for name in reversed(version)}.values()
    order = {name: place for place, name in enumerate(version)}
    place = {name: number for number, name in enumerate(run.cases)}
    held: dict[tuple[str, str], list[str]] = {}
    for line in sorted(run.verdicts, key=lambda line: order[line["target"]]):
        if line["target"] in first and line["verdict"] == "conventional" and line["status"] != "unexpected":
            for name in parts(line["diagnosis"]):
                held.setdefault((line["target"], name), []).append(line["case"])
    found = [(finding, sorted(_each(finding), key=lambda case: place[case])) for finding in ranked(findings(run))]
    found.sort(key=lambda each: (order[each[0].target], place[each[1][0]]))
    own = [each for each in found if each[0].target in first]
    told = {(framework[finding.target], finding.verdict, finding.words) for finding, _ in own}
    others: dict[tuple[str, str, str], list[tuple[Finding, list[str]]]] = {}
    for finding, cases in found:
        alike = framework[finding.target], finding.verdict, finding.words
        if alike not in told:
            others.setdefault(alike, []).append((finding, cases))
    conventions = [
        (_where(target, version), markdown(in_words(name) or name, 600), _cases(cases))
        for (target, name), cases in held.items()
    ]
    written = [
        f"{len(own)} findings and {len(conventions)} declared conventions, from {len(run.cases)} cases.",
        _table(HEAD, (_row([each], version) for each in own)),
        _table(("framework", "what it does by convention", "cases that need it"), conventions),
    ]
    if others:
        names = ", ".join(markdown(name, 60) for name in version if name not in first)
        written += [
            f"{len(others)} more findings, of other targets of the same frameworks alone: {names}.",
            _table(HEAD, (_row(alike, version) for alike in others.values())),
        ]
    return "\n\n".join(written)


def _row(alike: Sequence[tuple[Finding, list[str]]], version: dict[str, str]) -> tuple[str, str, str]:
    """A finding that one target or several of a framework show, the cases those of the first."""
    finding, cases = alike[0]
    where = "; ".join(_where(other.target, version) for other, _ in alike)
    return where, markdown(finding.words, 600), f"{finding.verdict}: {_cases(cases)}"


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
