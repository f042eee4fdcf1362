"""What a run found, told once per cause: one convention may explain hundreds of cases.

Pure functions of a stored run; `conformance.report` writes down what they return.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from conformance.catalogue import CATALOGUE
from conformance.judge import VERDICTS
from conformance.pairs import alone
from conformance.run_folder import Line, Run
from conformance.safe_text import shorten

_SENTENCES = {hypothesis.name: hypothesis.sentence for hypothesis in CATALOGUE} | {
    "unexplained": "no convention and no fault of the catalogue explains these",
    "inaccurate": "right, but beyond the strict bound; within the weak one",
}
_NUMBER = r"(?:0x[0-9a-f]+|[-+]?\d[\d.]*(?:e[-+]?\d+)?)"
#: A number or a list of numbers; the 32 of float32 is part of a name.
_NUMBERS = re.compile(rf"((?<![A-Za-z0-9.]){_NUMBER}(?:, ?{_NUMBER})*)")


@dataclass(frozen=True)
class Occurrence:
    """A finding on one case.

    Attributes:
        note: what is particular to this case; empty where the finding's sentence says all.
        off: the worst tensor's error as a fraction of its bound, infinite where something else is wrong.

    """

    case: str
    target: str
    note: str
    off: float


@dataclass(frozen=True)
class Finding:
    """One cause, the targets on which it shows, and the cases.

    Attributes:
        cause: what the report's address calls it: the name of the convention or fault, or what was said, as a slug.
        name: name of the convention, fault or problem; empty for an exception, whose words say what it is.
        sentence: the cause in words, without a full stop; empty where only the message says it.
        message: what the framework said, with … for numbers in which the cases differ; empty if nothing.
        expected: the verdicts that were expected.
        occurrences: the worst first.

    """

    cause: str
    name: str
    verdict: str
    status: str
    sentence: str
    message: str
    expected: str
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


@dataclass(frozen=True)
class Cell:
    """The verdicts of one target in one topic.

    Attributes:
        counts: verdict and number, the worst verdict first.

    """

    counts: tuple[tuple[str, int], ...]
    unexpected: int

    @property
    def worst(self) -> str:
        """The worst verdict among them."""
        return self.counts[0][0]


@dataclass(frozen=True)
class PairFinding:
    """How often two targets agree, and what sets them apart.

    Attributes:
        differences: what explains them, and the cases so explained; the commonest first.

    """

    pair: tuple[str, str]
    agree: int
    differ: int
    differences: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Agreement:
    """Targets against each other, over the cases that two or more of them ran.

    Attributes:
        shared: number of these cases.
        together: those in which all agree.
        odd: case → the target that differs there while all others agree with each other; of three targets or more.

    """

    shared: int
    together: int
    odd: dict[str, str]


def rank(verdict: str) -> int:
    """Place of a verdict from best to worst; one that this version does not know is worse than all."""
    return VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS)


def count(lines: Iterable[Line]) -> tuple[tuple[str, int], ...]:
    """Verdicts and their numbers, the worst first."""
    counted = Counter(line["verdict"] for line in lines)
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
    """Every cause: unexpected ones first and the worst first of these, then by number of cases.

    A verdict that takes several declared conventions stands under each of them.
    """
    grouped: dict[tuple[str, ...], list[Line]] = {}
    for line in run.verdicts:
        for cause in causes(line):
            grouped.setdefault((line["status"], line["verdict"], cause, line["expected"]), []).append(line)
    return tuple(sorted((_finding(key, lines) for key, lines in grouped.items()), key=_importance))


def _importance(finding: Finding) -> tuple[Any, ...]:
    severity = -rank(finding.verdict) if finding.unexpected else 0
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
    'ValueError: expected 4D input (got 2D input)'
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
    status, verdict, cause, expected = key
    raised = bool(lines[0]["error"]) and not lines[0]["diagnosis"]
    said = _in_common(message(line) for line in lines) if raised else ""
    sentence = _in_common(reason(line) for line in lines) if raised else _sentence(cause, lines)
    found = (
        Occurrence(line["case"], line["target"], _note(line, cause, sentence, said), worst(line["tensors"]))
        for line in lines
    )
    ordered = sorted(found, key=lambda occurrence: -occurrence.off)
    return Finding(cause, "" if raised else cause, verdict, status, sentence, said, expected, tuple(ordered))


def reason(line: Line) -> str:
    """A verdict's `because` without the exception's message, which is shown by itself."""
    because = str(line["because"])
    return because.removeprefix(message(line)).removeprefix("; ") if line["error"] else because


def in_words(cause: str) -> str:
    """A convention or fault, or several that are joined, as the catalogue has them in words; empty if it has not."""
    known = [_SENTENCES.get(part) or _setting(part) for part in parts(cause)]
    return ", and ".join(known) if all(known) else ""


def _sentence(cause: str, lines: Sequence[Line]) -> str:
    """The cause in words: the catalogue's, or what all the verdicts say, numbers aside."""
    if in_words(cause):
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


def worst(tensors: Mapping[str, Any]) -> float:
    """The largest error as a fraction of its bound, infinite where a tensor has another problem."""
    return max((off(tensor) for tensor in tensors.values()), default=0.0)


def off(tensor: Mapping[str, Any]) -> float:
    """A tensor's error as a fraction of its bound, infinite where that is not what is wrong with it."""
    return math.inf if tensor.get("problem") or tensor["ratio"] is None else float(tensor["ratio"])


def agreement(run: Run) -> Agreement:
    """Where all targets agree, and which one is alone where they do not."""
    shared = together = 0
    odd = {}
    for case, lines in groupby(run.pairs, key=itemgetter("case")):
        differ = {(line["pair"][0], line["pair"][1]): line["agreement"] != "agree" for line in lines}
        shared += 1
        together += not any(differ.values())
        name = alone(differ)
        if name is not None:
            odd[case] = name
    return Agreement(shared, together, odd)


def pair_findings(run: Run) -> tuple[PairFinding, ...]:
    """Every pair of targets, in the order of the run."""
    grouped: dict[tuple[str, str], list[Line]] = {}
    for line in run.pairs:
        grouped.setdefault((line["pair"][0], line["pair"][1]), []).append(line)
    return tuple(_pair_finding(pair, lines) for pair, lines in grouped.items())


def _pair_finding(pair: tuple[str, str], lines: Sequence[Line]) -> PairFinding:
    explained: dict[str, list[str]] = {}
    for line in lines:
        if line["agreement"] != "agree":
            explained.setdefault(line["because"], []).append(line["case"])
    ordered = sorted(explained.items(), key=lambda item: -len(item[1]))
    differ = sum(len(cases) for cases in explained.values())
    return PairFinding(pair, len(lines) - differ, differ, tuple((why, tuple(cases)) for why, cases in ordered))
