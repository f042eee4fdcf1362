"""A run as a person reads it: one HTML file that works offline, and a summary fit for a pull request's comment.

Everything is prepared here; the templates, style and script in reports/ only lay it out. Texts from cases and
frameworks are cleaned first (`conformance.safe_text`) and escaped where they are written.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup

from conformance.conversion import Row, Table
from conformance.differences import Differences, differences
from conformance.findings import Finding, in_words
from conformance.junit import junit
from conformance.overview import many, overview, target_labels
from conformance.pages import Filters, asset, policy, templates
from conformance.proof import sides
from conformance.report_data import embedded
from conformance.run_folder import Run
from conformance.whole import replacing

#: A summary is read in a comment, not scrolled through; what is left out is counted.
SUMMARY_LIMIT = 8_000
SUMMARY_FINDINGS = 12
SUMMARY_TARGETS = 12


def write_reports(run: Run, folder: Path) -> None:
    """Write report.html, junit.xml and summary.md into a folder that is there, each whole or not at all."""
    cleaned = run.cleaned()
    told = overview(cleaned)
    for name, text in {"report.html": _html(cleaned, told), "summary.md": _summary(told)}.items():
        with replacing(folder / name) as file:
            file.write(text)
    with replacing(folder / "junit.xml") as file:
        file.writelines(junit(cleaned))


def html(run: Run) -> str:
    """The report as one HTML document that asks for nothing beyond itself.

    Its Content-Security-Policy admits no request and no script or style but its own, by their digests: a text that
    slipped through the escaping would still not run.
    """
    cleaned = run.cleaned()
    return _html(cleaned, overview(cleaned))


def _html(run: Run, told: dict[str, Any]) -> str:
    style, scripts = asset("style.css"), [asset(name) for name in ("charts.js", "case.js", "script.js")]
    return (
        _templates(autoescape=True)
        .get_template("report.html.j2")
        .render(
            told,
            policy=policy(style, scripts),
            style=Markup(style),  # noqa: S704 - ours
            scripts=[Markup(script) for script in scripts],  # noqa: S704 - ours
            data=embedded(run, told["found"], proofs(told["differences"]) | found_in(told["faults"])),
        )
    )


def summary(run: Run) -> str:
    """The run in Markdown, the worst first, in at most `SUMMARY_LIMIT` characters."""
    return _summary(overview(run.cleaned()))


def _summary(told: dict[str, Any]) -> str:
    shown = SUMMARY_FINDINGS
    while True:
        template = _templates(autoescape=False).get_template("summary.md.j2")
        text = template.render(told, shown=shown, shown_targets=SUMMARY_TARGETS)
        if len(text) <= SUMMARY_LIMIT or not shown:
            return text[:SUMMARY_LIMIT]
        shown -= 1


def difference_pages(run: Run) -> dict[str, str]:
    """File name → a page in Markdown, for every two frameworks of a run whose profiles come with the suite."""
    run = run.cleaned()
    template = _templates(autoescape=False).get_template("differences.md.j2")
    return {
        f"{one.slug}.md": template.render(
            one=one, suite=run.info["suite"], started=run.info["started"], command=shlex.join(run.info["command"])
        )
        for one in differences(run, sides(run, target_labels(run.targets)))
    }


def proofs(found: Sequence[Differences]) -> dict[str, list[str]]:
    """The address of every row of the API differences → the cases that prove it."""
    return {
        row_address(one, table, row): list(row.proof.cases)
        for one in found
        for table in one.tables
        for row in table.rows
        if row.proof.cases
    }


def found_in(faults: Sequence[Finding]) -> dict[str, list[str]]:
    """The address of every finding → its cases."""
    return {one.address: list(dict.fromkeys(at.case for at in one.occurrences)) for one in faults}


def row_address(one: Differences, table: Table, row: Row) -> str:
    """What the report's address calls a row."""
    return f"{one.slug}: {' | '.join(text for text in row.cells if text)} ({table.title})"


@cache
def _templates(autoescape: bool) -> Environment:
    filters: Filters = {
        "case_link": _case_link,
        "hash": lambda text: quote(str(text), safe="/,=:"),
        "many": many,
        "full_stop": _full_stop,
        "row_address": row_address,
        "clauses": clauses,
        "in_words": in_words,
        "sentence_start": lambda text: text[:1].upper() + text[1:],
        "sentence": _sentence,
        "case_address": lambda case: "report.html#case=" + quote(str(case), safe=""),
    }
    return templates(filters, autoescape=autoescape)


def _case_link(case: str) -> str:
    """The address of a case within the report."""
    return f"#case={quote(case, safe='/,=:')}"


def _sentence(text: str) -> str:
    """A clause as a sentence; a name such as running_var, γ or y[0] keeps its letter."""
    text = text.strip()
    word = text.partition(" ")[0].rstrip(",;:")
    is_word = word.isascii() and word.isalpha() and (len(word) > 1 or word == "a")
    return _full_stop(text[:1].upper() + text[1:] if is_word else text)


def clauses(text: str) -> tuple[str, str]:
    """The first clause of a sentence, and the rest; a mark within brackets ends nothing.

    >>> clauses("squares are summed in float32: f(a, b={1: 2}) is inf")
    ('squares are summed in float32', 'f(a, b={1: 2}) is inf')
    """
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and letter in ";:" and text[place + 1 : place + 2] == " ":
            return text[:place], text[place + 2 :]
    return text, ""


def _full_stop(text: str) -> str:
    return text if not text or text[-1] in ".!?…" else f"{text}."
