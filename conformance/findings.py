"""What a run found, each finding told once: one convention may explain hundreds of cases.

A finding is of one framework, one cause and one reason, so that none answers for what is said of another, and names the
targets that show it; declared conventions alone, which the catalogue has in words, are told of all frameworks together.
Pure functions of a stored run; `conformance.report` writes down what they return.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.catalogue import CATALOGUE
from conformance.diagnose import EVIDENCE
from conformance.judge import VERDICTS
from conformance.run_folder import Line, Run
from conformance.safe_text import shorten
from conformance.severity import SEVERITIES, Severity, severity

_SENTENCES = {hypothesis.name: hypothesis.sentence for hypothesis in CATALOGUE} | {
    "unexplained": "no convention and no fault of the catalogue explains these",
    "inaccurate": "right, but beyond the strict bound; within the weak one",
}
_NUMBER = r"(?:0x[0-9a-f]+|[-+]?\d[\d.]*(?:e[-+]?\d+)?)"
#: The outcomes of a case on a target from best to worst: the verdicts, and apart from what a framework refuses itself
#: what its adapter cannot ask of it.
OUTCOMES = ("conforms", "conventional", "inexpressible", *VERDICTS[2:])
#: A number or a list of numbers; the 32 of float32 is part of a name.
_NUMBERS = re.compile(rf"((?<![A-Za-z0-9.]){_NUMBER}(?:, ?{_NUMBER})*)")


@dataclass(frozen=True)
class Occurrence:
    """A finding on one case.

    Attributes:
        note: what is particular to this case; empty where the finding's sentence says all.
        off: the worst tensor's error as a fraction of its bound, infinite where something else is wrong.
        ratio: the largest error as a fraction of its bound among the tensors that hold numbers.
        special: what other tensors hold where numbers should be, such as NaN.

    """

    case: str
    target: str
    note: str
    off: float
    ratio: float = 0.0
    special: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Finding:
    """One cause and one reason, the targets on which it shows, and the cases.

    Attributes:
        framework: whose it is; empty for declared conventions.
        title: the framework's name for people, which tells someone's own adapter of it apart; empty for these, too.
        cause: what the report's address calls it: the name of the convention or fault, or what was said, as a slug.
        name: name of the convention, fault or problem; empty for an exception, whose words say what it is.
        outcome: one of `OUTCOMES`.
        sentence: the finding in words, without a full stop; empty where only the message says it.
        message: what the framework said, with … for numbers in which the cases differ; empty if nothing.
        expected: the verdicts that were expected.
        reason: what tells it from other findings of the same cause, numbers aside; empty where the cause says all.
        severity: None for what is no fault: declared conventions, and refusals that were expected.
        occurrences: the worst first.

    """

    framework: str
    title: str
    cause: str
    name: str
    verdict: str
    outcome: str
    status: str
    sentence: str
    message: str
    expected: str
    reason: str
    severity: Severity | None
    occurrences: tuple[Occurrence, ...]

    @property
    def unexpected(self) -> bool:
        """Whether these verdicts were not expected."""
        return self.status == "unexpected"

    @property
    def targets(self) -> dict[str, int]:
        """Target → number of cases, the most first."""
        return dict(Counter(at.target for at in self.occurrences).most_common())

    @property
    def cases(self) -> int:
        """Number of cases."""
        return len({at.case for at in self.occurrences})

    @property
    def words(self) -> str:
        """The finding in words, or what the framework said."""
        return self.sentence or self.message

    @property
    def address(self) -> str:
        """What the report's address calls it, among other findings of the same cause."""
        what = shorten(self.reason or self.cause, 120)
        return f"{self.title}: {what} ({self.name or self.outcome}, {self.status})"

    @property
    def error(self) -> str:
        """Its largest error against the bound, and what stood where numbers should be; empty where nothing was off."""
        ratio = max((at.ratio for at in self.occurrences if at.ratio < math.inf), default=0.0)
        special = sorted(frozenset().union(*(at.special for at in self.occurrences)))
        return ", ".join([*([f"{_digits(ratio)} bounds"] if ratio > 1 else []), *special])


@dataclass(frozen=True)
class Cell:
    """The outcomes of one target in one topic.

    Attributes:
        counts: outcome and number, the worst first.

    """

    counts: tuple[tuple[str, int], ...]
    unexpected: int

    @property
    def worst(self) -> str:
        """The worst outcome among them."""
        return self.counts[0][0]


def outcome(line: Line) -> str:
    """A line's verdict, and inexpressible where not the framework refused, but its adapter has no way to ask."""
    inexpressible = line["verdict"] == "refused" and (line["error"] or {}).get("type") == "NotExpressible"
    return "inexpressible" if inexpressible else str(line["verdict"])


def rank(outcome: str) -> int:
    """Place of an outcome from best to worst; one that this version does not know is worse than all."""
    return OUTCOMES.index(outcome) if outcome in OUTCOMES else len(OUTCOMES)


def count(lines: Iterable[Line]) -> tuple[tuple[str, int], ...]:
    """Outcomes and their numbers, the worst first."""
    counted = Counter(map(outcome, lines))
    return tuple(sorted(counted.items(), key=lambda item: -rank(item[0])))


def cells(run: Run) -> dict[str, dict[str, Cell]]:
    """Topic → target → its verdicts there, topics in the order of the cases."""
    topics = {name: topic(case) for name, case in run.cases.items()}
    grouped: dict[str, dict[str, list[Line]]] = {name: {} for name in topics.values()}
    for line in run.verdicts:
        grouped[topics[line["case"]]].setdefault(line["target"], []).append(line)
    return {name: {target: _cell(lines) for target, lines in row.items()} for name, row in grouped.items()}


def _cell(lines: Sequence[Line]) -> Cell:
    return Cell(count(lines), sum(line["status"] == "unexpected" for line in lines))


def topic(case: Line) -> str:
    """The file part of the id."""
    return str(case.get("topic") or case["case"].rpartition("/")[0])


def findings(run: Run) -> tuple[Finding, ...]:
    """Every finding: unexpected ones first and the worst first of these, then by number of cases.

    A verdict that takes several declared conventions stands under each of them.
    """
    whose = {target["name"]: (target["framework"], target["title"]) for target in run.targets}
    grouped: dict[tuple[str, ...], list[Line]] = {}
    for line in run.verdicts:
        declared = line["verdict"] == "conventional" and line["status"] != "unexpected"
        of = ("", "") if declared else whose[line["target"]]
        for cause in causes(line):
            key = (*of, line["status"], line["verdict"], cause, line["expected"], _apart(line))
            grouped.setdefault(key, []).append(line)
    return tuple(sorted((_finding(key, lines) for key, lines in grouped.items()), key=_importance))


def ranked(found: Iterable[Finding]) -> list[Finding]:
    """The findings that are faults: the gravest first, of equal gravity the unexpected, then those in most cases."""
    faults = [(finding.severity, finding) for finding in found if finding.severity is not None]
    order = sorted(faults, key=lambda each: (SEVERITIES.index(each[0]), not each[1].unexpected, -each[1].cases))
    return [finding for _, finding in order]


def _apart(line: Line) -> str:
    """What tells a verdict from others of the same cause: why it was expected, else what was found, numbers aside."""
    if line["status"] != "unexpected" and line.get("reason"):
        return str(line["reason"])
    known = line["verdict"] == "conventional" or (
        line["diagnosis"] != "unexplained" and in_words(line["diagnosis"] or "")
    )
    return "" if known or not line["diagnosis"] else _masked(EVIDENCE.sub("", line["because"]))


def _importance(finding: Finding) -> tuple[Any, ...]:
    severity = -rank(finding.outcome) if finding.unexpected else 0
    return (not finding.unexpected, severity, -len(finding.occurrences), finding.cause)


def causes(line: Line) -> tuple[str, ...]:
    """Under which causes a verdict stands; none where it conforms as expected."""
    if line["status"] != "unexpected" and line["verdict"] == "conforms":
        return ()
    if line["diagnosis"]:
        return parts(line["diagnosis"]) if line["verdict"] == "conventional" else (line["diagnosis"],)
    if line["error"]:
        return (_slug(line["error"]["type"], reason(line) or message(line)),)
    return (line["verdict"],)


def _slug(kind: str, text: str) -> str:
    """A name for what an exception said, numbers aside, that stays the same from run to run.

    >>> _slug("ValueError", "ValueError: expected 4D input (got 2D input)")
    'ValueError: expected …D input (got …D input)'
    """
    masked = " ".join(_masked(text).split())
    return shorten(masked if masked.startswith(kind) else f"{kind}: {masked}", 90)


def parts(diagnosis: str) -> tuple[str, ...]:
    """The names that a diagnosis joins; the + of an exponent joins nothing."""
    return tuple(re.split(r"\+(?=[a-z])", diagnosis))


def message(line: Line) -> str:
    """The type of an exception and the first line of its message, as a verdict's `because` has them."""
    text = line["error"]["message"].strip()
    return f"{line['error']['type']}: {text.splitlines()[0] if text else ''}"


def _masked(text: str) -> str:
    """A text without its numbers, in which messages of one cause differ."""
    return _NUMBERS.sub("…", text)


def _in_common(texts: Iterable[str]) -> str:
    """The commonest of some texts, with … for the numbers in which others like it differ."""
    counted = Counter(texts)
    commonest = counted.most_common(1)[0][0]
    alike = [_NUMBERS.split(text) for text in counted if _masked(text) == _masked(commonest)]
    return "".join(pieces[0] if len(set(pieces)) == 1 else "…" for pieces in zip(*alike, strict=True))


def _finding(key: tuple[str, ...], lines: Sequence[Line]) -> Finding:
    framework, title, status, verdict, cause, expected, apart = key
    raised = bool(lines[0]["error"]) and not lines[0]["diagnosis"]
    said = _in_common(message(line) for line in lines) if raised else ""
    sentence = _in_common(reason(line) for line in lines) if raised else _sentence(cause, lines)
    found = (_occurrence(line, _note(line, cause, sentence, said)) for line in lines)
    ordered = sorted(found, key=lambda occurrence: -occurrence.off)
    return Finding(
        framework,
        title,
        cause,
        "" if raised else cause,
        verdict,
        outcome(lines[0]),
        status,
        sentence,
        said,
        expected,
        apart,
        severity(lines[0]),
        tuple(ordered),
    )


def _occurrence(line: Line, note: str) -> Occurrence:
    tensors = line["tensors"]
    return Occurrence(line["case"], line["target"], note, worst(tensors), *_off(tensors))


def reason(line: Line) -> str:
    """A verdict's `because` without the exception's message, which is shown by itself."""
    because = str(line["because"])
    return because.removeprefix(message(line)).removeprefix("; ") if line["error"] else because


def in_words(cause: str) -> str:
    """A convention or fault, or several that are joined, as the catalogue has them in words; empty if it has not."""
    known = [_SENTENCES.get(part) or _setting(part) for part in parts(cause)]
    return ", and ".join(known) if all(known) else ""


def _sentence(cause: str, lines: Sequence[Line]) -> str:
    """The reason that was declared, the cause in the catalogue's words, or what all the verdicts say, numbers aside."""
    declared = "" if lines[0]["status"] == "unexpected" else lines[0].get("reason", "")
    if declared and not cause.startswith("signature-"):  # of which the difference says more than its reason
        alone = not declared.startswith("as in ")
        return declared if alone else EVIDENCE.sub("", _in_common(line["because"] for line in lines))
    if in_words(cause) and not (cause == "unexplained" and lines[0]["because"]):
        return in_words(cause)
    if any(line["because"] for line in lines):
        return _in_common(line["because"] for line in lines)
    return f"{lines[0]['expected']} was expected, and the verdict is {lines[0]['verdict']}"


def _setting(name: str) -> str:
    """default-eps-0.001 in words; empty for any other kind of name."""
    found = re.fullmatch(r"([a-z-]+)-([\d.]+(?:e[-+]\d+)?)", name)
    return f"{found[1].replace('-', ' ')} is {found[2]}" if found else ""


def _note(line: Line, cause: str, sentence: str, said: str) -> str:
    """What a verdict says beyond its finding."""
    if line["error"]:
        return "" if _masked(message(line)) == _masked(said) else message(line)
    if line["verdict"] == "conventional" and line["diagnosis"]:
        others = [name for name in parts(line["diagnosis"]) if name != cause]
        return f"with {', '.join(others)}" if others else ""
    note = str(line["because"])
    return "" if note == sentence else note.removeprefix(f"{sentence}: ").removeprefix("right, but ")


def _off(tensors: Mapping[str, Any]) -> tuple[float, frozenset[str]]:
    """The largest error of a tensor that holds numbers, as a fraction of its bound; and what others hold instead."""
    numbers = [off(tensor) for tensor in tensors.values() if not tensor.get("problem")]
    problems = " ".join(
        tensor.get("problem") or ("is inf" if off(tensor) == math.inf else "") for tensor in tensors.values()
    )
    return max(numbers, default=0.0), frozenset(word for sign, word in _SPECIAL.items() if sign in problems)


#: How a problem says that something else stands where a number should → what the report calls it.
_SPECIAL = {
    "is nan": "NaN",
    "is inf": "∞",
    "is -inf": "∞",
    "has dtype": "dtype",
    "has shape": "shape",
    "is missing": "missing",
}


def _digits(value: float) -> str:
    """Three digits of a number that may be large.

    >>> _digits(42431.0), _digits(2.345), _digits(1.5e12)
    ('42,400', '2.35', '1.5×10¹²')
    """
    if value < 1e6:
        return f"{float(f'{value:.3g}'):,g}"
    mantissa, exponent = f"{value:.3g}".split("e+")
    return f"{mantissa}×10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def worst(tensors: Mapping[str, Any]) -> float:
    """The largest error as a fraction of its bound, infinite where a tensor has another problem."""
    return max((off(tensor) for tensor in tensors.values()), default=0.0)


def off(tensor: Mapping[str, Any]) -> float:
    """A tensor's error as a fraction of its bound, infinite where that is not what is wrong with it."""
    return math.inf if tensor.get("problem") or tensor["ratio"] is None else float(tensor["ratio"])
