"""What changed, as a person reads it: one HTML file that works offline, Markdown for a job's summary, JUnit for a CI.

Everything is prepared here; the templates in reports/ lay it out. Texts from cases and frameworks are cleaned first
(`conformance.safe_text`) and escaped where they are written.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment
from markupsafe import Markup

from conformance import pages
from conformance.safe_text import clean, one_line
from conformance.upgrades.changes import (
    CHANGES,
    HARMLESS,
    MEANINGS,
    CaseChange,
    Change,
    Comparison,
    TensorChange,
    grouped,
)

#: A summary is read in a comment; what is left out is counted.
_GROUPS, _EXAMPLES = 20, 3
_STYLES = ("style.css", "changes.css")


def write(comparison: Comparison, folder: Path, strict: bool = False) -> None:
    """Write changes.html, changes.md and changes.xml into a folder that is there."""
    texts = {
        "html": html(comparison, strict),
        "md": markdown_page(comparison, strict),
        "xml": junit(comparison, strict),
    }
    for suffix, text in texts.items():
        (folder / f"changes.{suffix}").write_text(text, encoding="utf-8", newline="\n")


def headline(comparison: Comparison, strict: bool = False) -> str:
    """The result in one sentence; what only one side has did not change, and is counted by itself."""
    between = f"{comparison.old.label} → {comparison.new.label}"
    if comparison.old.label == comparison.new.label:
        between = comparison.new.label
    aside = Counter(case.apart for case in comparison.cases if case.apart is not None)
    besides = [f"{count:,} {'is' if count == 1 else 'are'} {apart}" for apart, count in sorted(aside.items())]
    both = len(comparison.cases) - aside.total()
    if besides and not both:
        return f"{between}: no case can be compared; {', '.join(besides)}."
    said = [_said(comparison, f"{both:,} case{'' if both == 1 else 's'}{' of both sides' * bool(aside)}", strict)]
    return f"{between}: {'; '.join([*said, *besides])}."


def _said(comparison: Comparison, number: str, strict: bool) -> str:
    """What became of the cases that were compared, so many in words."""
    changed = sum(case.apart is None for case in comparison.harmful(strict))
    if changed:
        return f"{changed:,} of {number} changed{'' if strict else ' beyond the bound on rounding'}"
    counts = comparison.counts
    harmless = {"moved within it": counts["within bound"], "refused in other words": counts["reworded"]}
    if any(harmless.values()):
        told = ", ".join(f"{count:,} {words}" for words, count in harmless.items() if count)
        return f"nothing changed beyond the bound on rounding in {number}; {told}"
    return f"{number}, every one the same to the last bit"


def ulp(distance: float | None) -> str:
    """A distance in ULP as it is shown."""
    if distance is None:
        return "not kept"
    return "a number and none" if math.isinf(distance) else f"{distance:.3g}"


def by_tensor(comparison: Comparison) -> list[dict[str, Any]]:
    """y, dx, running_var …: how many moved within the bound, how far, and how many farther from exact arithmetic."""
    rows: dict[str, list[TensorChange]] = {}
    for case in comparison.cases:
        for tensor in case.tensors:
            rows.setdefault(tensor.tensor.partition("[")[0], []).append(tensor)
    return [
        {
            "tensor": name,
            "counts": Counter(tensor.change for tensor in tensors),
            "ulp": max((t.ulp for t in tensors if t.change == "within bound" and t.ulp is not None), default=0.0),
            "grew": sum(t.grew for t in tensors if t.change == "within bound"),
            "ratios": [
                max((r for t in tensors if (r := getattr(t, side)) is not None), default=0.0)
                for side in ("old_ratio", "new_ratio")
            ],
        }
        for name, tensors in rows.items()
    ]


def by_topic(comparison: Comparison) -> dict[str, Counter[Change]]:
    """Topic → how many cases of each class."""
    rows: dict[str, Counter[Change]] = {}
    for case in comparison.cases:
        rows.setdefault(topic_of(case.case), Counter())[case.change] += 1
    return rows


def topic_of(case: str) -> str:
    """The file part of a case's id; the slash of a value in brackets parts nothing."""
    return case.partition("[")[0].rpartition("/")[0]


def _overview(comparison: Comparison, strict: bool) -> dict[str, Any]:
    present = [change for change in reversed(CHANGES) if comparison.counts[change]]
    return {
        "headline": headline(comparison, strict),
        "comparison": comparison,
        "counts": comparison.counts,
        "tensor_counts": comparison.tensor_counts,
        "present": present,
        "meanings": MEANINGS,
        "harmful": {change for change in CHANGES if change not in ({"identical"} if strict else HARMLESS)},
        "groups": grouped(comparison),
        "topics": by_topic(comparison),
        "tensors": by_tensor(comparison),
        "sides": (comparison.old, comparison.new),
    }


def html(comparison: Comparison, strict: bool = False) -> str:
    """The comparison as one HTML document."""
    return rendered("upgrade.html.j2", _overview(comparison, strict))


def rendered(template: str, values: dict[str, Any]) -> str:
    """A page in the reports' style that asks for nothing beyond itself and runs no script."""
    style = "".join(map(pages.asset, _STYLES))
    page = templates(autoescape=True).get_template(template)
    return page.render(values, policy=pages.policy(style), style=Markup(style))  # noqa: S704 - ours


def markdown_page(comparison: Comparison, strict: bool = False) -> str:
    """The comparison in Markdown, the worst first; groups beyond the first are counted."""
    template = templates(autoescape=False).get_template("upgrade.md.j2")
    return template.render(_overview(comparison, strict), shown=_GROUPS, examples=_EXAMPLES)


def junit(comparison: Comparison, strict: bool = False) -> str:
    """The comparison as JUnit XML: a test per case; what changed beyond what is admitted fails."""
    harmful = {case.case for case in comparison.harmful(strict)}
    name = one_line(f"{comparison.old.label} → {comparison.new.label}")
    suite = ElementTree.Element("testsuite", name=name, tests=str(len(comparison.cases)), failures=str(len(harmful)))
    suite.attrib |= {"errors": "0", "skipped": "0", "time": "0.000"}
    for case in comparison.cases:
        topic = case.case.partition("[")[0].rpartition("/")[0]
        test = ElementTree.SubElement(
            suite,
            "testcase",
            classname=clean(topic).replace("/", "."),
            name=clean(case.case[len(topic) + 1 :]),
            time="0.000",
        )
        if case.case in harmful:
            failure = ElementTree.SubElement(
                test, "failure", type=case.change, message=one_line(f"{case.change}: {case.what}", 300)
            )
            failure.text = _evidence(case)
        elif case.change != "identical":
            ElementTree.SubElement(test, "system-out").text = _evidence(case)
    root = ElementTree.Element("testsuites", name="batchnorm-conformance")
    root.attrib |= {key: suite.get(key, "0") for key in ("tests", "failures", "errors", "skipped", "time")}
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _evidence(case: CaseChange) -> str:
    lines = [f"{case.case}: {MEANINGS[case.change]}", case.what]
    lines += [
        f"{tensor.tensor}: {tensor.change}, {ulp(tensor.ulp)} ULP, error over bound {_ratio(tensor.old_ratio)} → "
        f"{_ratio(tensor.new_ratio)}"
        for tensor in case.tensors
        if tensor.change != "identical"
    ]
    return clean("\n".join(line for line in lines if line))


def _ratio(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


@cache
def templates(autoescape: bool) -> Environment:
    """The templates of comparisons and histories."""
    return pages.templates({"ulp": ulp, "ratio": _ratio}, autoescape=autoescape)
