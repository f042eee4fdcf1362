"""A run as a person reads it: one HTML file that works offline, and a summary fit for a pull request's comment.

Everything is prepared here; the templates, style and script in reports/ only lay it out. Texts from cases and
frameworks are cleaned first (`conformance.safe_text`) and escaped where they are written.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import shlex
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from conformance import data
from conformance.conversion import Row, Table
from conformance.differences import Differences, differences
from conformance.findings import Agreement, Finding, agreement, cells, count, findings, pair_findings, rank
from conformance.junit import junit
from conformance.proof import sides
from conformance.report_data import dtypes, embedded
from conformance.run_folder import Run
from conformance.safe_text import clean_all, markdown, markdown_cell, markdown_code

#: What each verdict means, in the words of the report's key.
MEANINGS = {
    "conforms": "within rounding of exact arithmetic",
    "conventional": "differs as the framework documents, and within rounding once that is applied",
    "inaccurate": "right, but beyond the strict bound on rounding",
    "refused": "the framework raised an exception",
    "divergent": "computes something else",
    "timeout": "took longer than admitted",
    "crashed": "the process died",
    "broken": "the adapter or the environment failed, not the framework",
}
#: A summary is read in a comment, not scrolled through; what is left out is counted.
SUMMARY_LIMIT = 8_000
SUMMARY_FINDINGS = 12
SUMMARY_TARGETS = 12

_BACKENDS = {"tensorflow": "TensorFlow", "torch": "PyTorch", "jax": "JAX", "openvino": "OpenVINO"}


def write_reports(run: Run, folder: Path) -> None:
    """Write report.html, junit.xml and summary.md into a folder that is there."""
    for name, text in (("report.html", html(run)), ("junit.xml", junit(run)), ("summary.md", summary(run))):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def html(run: Run) -> str:
    """The report as one HTML document that asks for nothing beyond itself.

    Its Content-Security-Policy admits no request and no script or style but its own, by their digests: a text that
    slipped through the escaping would still not run.
    """
    run = _cleaned(run)
    style, scripts = _asset("style.css"), [_asset(name) for name in ("charts.js", "case.js", "script.js")]
    admitted = " ".join(_digest(script) for script in scripts)
    overview = _overview(run)
    policy = f"default-src 'none'; img-src data:; script-src {admitted}; style-src {_digest(style)}; "
    return (
        _templates(autoescape=True)
        .get_template("report.html.j2")
        .render(
            overview,
            policy=policy + "base-uri 'none'; form-action 'none'",
            style=Markup(style),  # noqa: S704 - ours
            scripts=[Markup(script) for script in scripts],  # noqa: S704 - ours
            data=embedded(run, proofs(overview["differences"])),
        )
    )


def summary(run: Run) -> str:
    """The run in Markdown, the worst first, in at most `SUMMARY_LIMIT` characters."""
    overview = _overview(_cleaned(run))
    shown = SUMMARY_FINDINGS
    while True:
        template = _templates(autoescape=False).get_template("summary.md.j2")
        text = template.render(overview, shown=shown, shown_targets=SUMMARY_TARGETS)
        if len(text) <= SUMMARY_LIMIT or not shown:
            return text[:SUMMARY_LIMIT]
        shown -= 1


def difference_pages(run: Run) -> dict[str, str]:
    """File name → a page in Markdown, for every two frameworks of a run whose profiles come with the suite."""
    run = _cleaned(run)
    template = _templates(autoescape=False).get_template("differences.md.j2")
    return {
        f"{one.slug}.md": template.render(
            one=one, suite=run.info["suite"], started=run.info["started"], command=shlex.join(run.info["command"])
        )
        for one in differences(run, sides(run, target_labels(run.targets)))
    }


def headline(run: Run) -> str:
    """Whether the targets agree, and whether that is as expected, in one sentence or two."""
    if not run.targets or not run.verdicts:
        return "Nothing ran: there is no verdict."
    found, unexpected = agreement(run), len(run.unexpected)
    wrong = f"{_many(unexpected, 'verdict')} {'is' if unexpected == 1 else 'are'} unexpected"
    if not found.shared:
        right = sum(line["verdict"] in ("conforms", "conventional") for line in run.verdicts)
        answer = f"{right:,} of {_many(len(run.verdicts), 'verdict')} are right"
        return f"{wrong}; {answer}." if unexpected else f"{answer}, and all are as expected."
    share = {0: "none", found.shared: "all"}.get(found.together, f"{found.together:,}")
    answer = f"agree in {share} of the {_many(found.shared, 'case')} that they share"
    if found.shared == 1:
        answer = f"{'agree' if found.together else 'differ'} in the one case that they share"
    names = _listed(list(dict.fromkeys(target["title"] for target in run.targets)))
    if unexpected:
        return f"{wrong}. {names} {answer}."
    known = "" if found.together == found.shared else "; every difference is a known one"
    return f"{names} {answer}{known}."


def subject(run: Run) -> str:
    """What ran, in which versions, on which device, and how much of it."""
    labels = list(target_labels(run.targets).values())
    devices = {_device(target) for target in run.targets}
    on = f" on {devices.pop()}" if len(devices) == 1 else ""
    return f"{_listed(labels)}{on}: {_many(len(run.verdicts), 'verdict')} on {_many(len(run.cases), 'case')}."


def proofs(found: Sequence[Differences]) -> dict[str, list[str]]:
    """The address of every row of the API differences → the cases that prove it."""
    return {
        row_address(one, table, row): list(row.proof.cases)
        for one in found
        for table in one.tables
        for row in table.rows
        if row.proof.cases
    }


def row_address(one: Differences, table: Table, row: Row) -> str:
    """What the report's address calls a row."""
    return f"{one.slug}: {' | '.join(text for text in row.cells if text)} ({table.title})"


def target_labels(targets: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Name → framework and version; what two targets share is told apart by device, and by name after that."""
    labels = {target["name"]: _label(target) for target in targets}
    if len({_device(target) for target in targets}) > 1:
        labels = {target["name"]: f"{labels[target['name']]} on {_device(target)}" for target in targets}
    number = Counter(labels.values())
    return {name: f"{label} as {name}" if number[label] > 1 else label for name, label in labels.items()}


def _short(targets: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Name → the framework's name for people where one target alone is of that framework."""
    number = Counter(target["title"] for target in targets)
    return {target["name"]: target["title"] if number[target["title"]] == 1 else target["name"] for target in targets}


def _label(target: dict[str, Any]) -> str:
    facts = target["facts"]
    label = f"{target['title']} {_release(facts.get('version', ''))}".strip()
    if facts.get("backend"):
        backend = _BACKENDS.get(facts["backend"], facts["backend"])
        label += f" ({backend} {_release(facts.get('backend_version', ''))}".rstrip() + ")"
    return label


def _release(version: Any) -> str:
    """2.13.0 of 2.13.0+cpu; the environment shows the whole."""
    return str(version).partition("+")[0]


def _device(target: dict[str, Any]) -> str:
    return str(target["facts"].get("device", "cpu")).upper()


def _overview(run: Run) -> dict[str, Any]:
    """What both reports are made from."""
    found = findings(run)
    names = [target["name"] for target in run.targets]
    labels = target_labels(run.targets)
    return {
        "headline": headline(run),
        "subject": subject(run) if run.verdicts else "",
        "labels": labels,
        "short": _short(run.targets),
        "names": names,
        "totals": [(verdict, number, MEANINGS.get(verdict, "")) for verdict, number in count(run.verdicts)],
        "per_target": {name: _per_target(run, name) for name in names},
        "unexpected": [finding for finding in found if finding.unexpected],
        "expected": [finding for finding in found if not finding.unexpected],
        "number_unexpected": len(run.unexpected),
        "cells": cells(run),
        "cases_per_topic": Counter(case.get("topic") for case in run.cases.values()),
        "number_cases": len(run.cases),
        "verdicts": sorted({line["verdict"] for line in run.verdicts}, key=rank),
        "pairs": pair_findings(run),
        "agreement": agreement(run),
        "odd": _odd(run, agreement(run)),
        "reasons": _reasons(found),
        "causes": list(dict.fromkeys(one.cause for one in found)),
        "dtypes": sorted({dtype for case in run.cases.values() for dtype in dtypes(case["spec"])}),
        "tensors": [name for name in TENSORS if any(name in line for line in _named(run))],
        "differences": differences(run, sides(run, labels)),
        "absent": [target for target in run.info["targets"] if not target["ran"]],
        "environment": _environment(run),
        "facts": _facts(run),
    }


#: The tensors that a step returns, in the order in which it makes them.
TENSORS = ("y", "dx", "dgamma", "dbeta", "gamma", "beta", "running_mean", "running_var", "num_batches_tracked", "x")


def _named(run: Run) -> list[set[str]]:
    return [{name.partition("[")[0] for name in line["tensors"]} for line in run.verdicts]


def _odd(run: Run, found: Agreement) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """Target, in how many cases it alone differs, and why; the loneliest first."""
    alone = Counter(found.odd.values())
    why = {name: Counter[str]() for name in alone}
    for line in run.verdicts:
        if found.odd.get(line["case"]) == line["target"]:
            alone_right = line["verdict"] in ("conforms", "conventional") and not line["diagnosis"]
            why[line["target"]][
                "the others refuse or differ alike" if alone_right else line["diagnosis"] or line["verdict"]
            ] += 1
    return [(name, number, why[name].most_common(3)) for name, number in alone.most_common()]


def _reasons(found: Sequence[Finding]) -> list[Finding]:
    """The findings that explain most, for the top of the page: unexpected ones if there are any."""
    unexpected = [one for one in found if one.unexpected]
    return (unexpected or [one for one in found if one.verdict != "refused"])[:4]


def _per_target(run: Run, name: str) -> dict[str, int]:
    lines = [line for line in run.verdicts if line["target"] == name]
    return {**dict(count(lines)), "unexpected": sum(line["status"] == "unexpected" for line in lines)}


def _environment(run: Run) -> list[tuple[str, str]]:
    """Where and when the run was made, and how to make it again."""
    info, machine = run.info, run.info["platform"]
    processor = machine["processor"] or machine["machine"]
    return [
        ("Command", shlex.join(info["command"])),
        ("Suite", f"batchnorm-conformance {info['suite']}"),
        ("Date", f"{info['started']}{_lasting(info['started'], info['finished'])}"),
        ("System", machine["system"]),
        ("Processor", f"{processor}, {_many(machine['cores'] or 0, 'core')}"),
        ("Python", f"{machine['python']} (the suite's own)"),
    ]


def _lasting(started: str, finished: str) -> str:
    try:
        took = datetime.datetime.fromisoformat(finished) - datetime.datetime.fromisoformat(started)
    except ValueError:
        return ""
    return f", in {_many(round(took.total_seconds()), 'second')}"


def _facts(run: Run) -> list[tuple[str, list[str]]]:
    """What the targets stated, a row per fact: its name, and its value on every target."""
    names = dict.fromkeys(name for target in run.targets for name in target["facts"])
    rows = [(name, [str(target["facts"].get(name, "")) for target in run.targets]) for name in names]
    hosts = [target["host"] or "" for target in run.targets]
    return [*rows, ("host", hosts)] if any(hosts) else rows


def _cleaned(run: Run) -> Run:
    return dataclasses.replace(
        run,
        info=clean_all(run.info),
        cases=clean_all(run.cases),
        verdicts=clean_all(run.verdicts),
        pairs=clean_all(run.pairs),
    )


def _asset(name: str) -> str:
    return (data.folder("reports") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A text's digest as a Content-Security-Policy writes it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _templates(autoescape: bool) -> Environment:
    """The templates of reports/: with `autoescape` for HTML; without it they must filter every text themselves."""
    environment = Environment(
        loader=FileSystemLoader(data.folder("reports")),
        autoescape=autoescape,  # noqa: S701 - off for Markdown only
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "case_link": _case_link,
        "hash": lambda text: quote(str(text), safe="/,=:"),
        "many": _many,
        "full_stop": _full_stop,
        "row_address": row_address,
        "sentence": _sentence,
        "markdown": markdown,
        "code": markdown_code,
        "cell": markdown_cell,
        "case_address": lambda case: "report.html#case=" + quote(str(case), safe=""),
    }
    return environment


def _case_link(case: str) -> str:
    """The address of a case within the report."""
    return f"#case={quote(case, safe='/,=:')}"


def _many(number: int, what: str) -> str:
    """A number of things.

    >>> _many(1, "case"), _many(1500, "case")
    ('1 case', '1,500 cases')
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _sentence(text: str) -> str:
    """A clause as a sentence; a name such as running_var, γ or y[0] keeps its letter."""
    text = text.strip()
    word = text.partition(" ")[0].rstrip(",;:")
    is_word = word.isascii() and word.isalpha() and (len(word) > 1 or word == "a")
    return _full_stop(text[:1].upper() + text[1:] if is_word else text)


def _full_stop(text: str) -> str:
    return text if not text or text[-1] in ".!?…" else f"{text}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
