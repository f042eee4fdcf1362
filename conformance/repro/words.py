"""The words at a script's head: what happens, what should, why, and with what it was seen."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from conformance.case import Case
from conformance.diagnose import EVIDENCE
from conformance.profile import Profile
from conformance.repro.shown import SECOND, Row
from conformance.repro.source import WIDTH
from conformance.safe_text import clean, one_line
from conformance.suite_version import NAME, suite_version


@dataclass(frozen=True)
class Words:
    """What is said of one result.

    Attributes:
        line: of results.jsonl, which judges the case.
        meaningless: why BatchNorm has no value here, so that a refusal is right; None where it has one.
    """

    case: Case
    profile: Profile
    options: Mapping[str, str]
    facts: Mapping[str, str]
    line: Mapping[str, Any]
    meaningless: str | None

    @property
    def verdict(self) -> str:
        return str(self.line["verdict"])

    @property
    def raises(self) -> bool:
        """Whether an exception is what is shown, or its absence."""
        return self.verdict == "refused" or self.line["diagnosis"] == "accepted"

    def header(self, rows: Sequence[Row]) -> list[str]:
        """What happens, what should, why, and with what it was seen."""
        paragraphs = [*self._what(rows), clean(self.case.spec.why).replace("[found here]", "")]
        if rows and max(row.step for row in rows) > 0:
            paragraphs.append("y[0] is of the first call, y[1] of the second.")
        paragraphs += [
            self._seen_with(),
            f"Exits with {'0' if self._right() else '1 while it is so, with 0 otherwise'}.",
        ]
        lines = []
        for paragraph in paragraphs:
            words = " ".join(paragraph.split())
            lines += ["", *textwrap.wrap(words, WIDTH - 2, break_on_hyphens=False, break_long_words=False)]
        return [*(f"# {line}".rstrip() for line in lines[1:]), ""]

    def _right(self) -> bool:
        """Whether what happens is what should."""
        return self.verdict == "conforms" or (self.verdict == "refused" and self.meaningless is not None)

    def _what(self, rows: Sequence[Row]) -> list[str]:
        """The finding in a sentence, what is expected instead, and why."""
        made = clean(str(self.line["received"])).partition("(")[0]
        layer = made or f"{self.profile.name} BatchNorm{self.case.rank}d"
        error = self.line["error"]
        if self.case.kind == "signature":
            return [f"{layer}: the constructor's parameters, against those documented."]
        if self.raises and self.meaningless is not None:
            verb = (
                "refuses what has no meaning, as it should" if self.verdict == "refused" else "accepts without a word"
            )
            return [f"{layer} {verb}: {self.meaningless}.", *([] if self._right() else ["Expected: an exception."])]
        if error is not None:
            verb = "raises" if self.verdict == "refused" else "ends the process:"
            said = one_line(f"{error['type']}: {error['message']}", 300)
            return [f"{layer} {verb} {_sentence(said)}", "Expected: a result, as BatchNorm has a value here."]
        if self.verdict == "conforms":
            return [f"{layer} returns what it should, within rounding."]
        because = EVIDENCE.sub("", clean(str(self.line["because"])).strip())
        expected = _expected(rows)
        if self.verdict == "conventional":
            expected += f" {self.profile.name} documents its own."
        return [f"{layer}: {_sentence(because)}", expected]

    def _seen_with(self) -> str:
        facts = {key: clean(str(value)) for key, value in self.facts.items() if value}
        version = f"{self.profile.name} {facts.get('version', '')}".strip()
        if facts.get("backend"):
            version += f" on {facts['backend']} {facts.get('backend_version', '')}".rstrip()
        places = [
            facts.get("accelerator") or self.options.get("device", "cpu").upper(),
            self.options.get("execution", ""),
        ]
        where = ", ".join(place for place in places if place)
        others = [f"{label} {facts[key]}" for key, label in (("numpy", "NumPy"), ("python", "Python")) if key in facts]
        return f"Seen with {', '.join([f'{version} ({where})', *others])}. Case {self.case.id} of {_suite()}."


@cache
def _suite() -> str:
    return f"{NAME} {suite_version()}"


def _expected(rows: Sequence[Row]) -> str:
    """What should happen, in a sentence."""
    if rows[0].what == "dtype":
        return "Expected: y and dx in the dtype of x, all else in the layer's own."
    if rows[0].what == "shape":
        return "Expected: y and dx in the shape of x, all else (C,)."
    if rows[0].what == "documented":
        return "Expected: the numbers that are documented, to the digits printed."
    text = "Expected: BatchNorm as Ioffe and Szegedy (2015) define it, within rounding."
    if {row.kind for row in rows} & {"running_mean", "running_var"} or any(row.step for row in rows):
        text += " The running statistics move towards the batch's mean and unbiased variance, as torch's do."
    if any(row.kind in SECOND for row in rows):
        text += " ddx, ddy and ddgamma are the derivatives of (v * dx).sum() by x, dy and gamma, in whatever order."
    if any(row.kind == "jvp" for row in rows):
        text += " jvp is the derivative of y along the tangent."
    return text


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
