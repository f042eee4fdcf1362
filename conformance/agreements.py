"""Who agrees with whom: as they stand, and once the conventions that profiles declare are applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from conformance.pairs import alone
from conformance.run_folder import Line, Run

#: The verdicts of a target that returned nothing.
_SILENT = ("refused", "crashed", "timeout", "broken")
#: Those of a target that is right, at least as it declares.
_RIGHT = ("conforms", "conventional")

#: What the cases of a pair come to; the report's addresses say it in these words.
AGREE, CONVENTION, DIFFER, NO_ANSWER = "agree", "by convention", "differ", "no answer"


@dataclass(frozen=True)
class Difference:
    """What sets two targets apart in some cases.

    Attributes:
        how: `CONVENTION`, `DIFFER` or `NO_ANSWER`.
        because: the conventions, diagnoses or refusals of both.

    """

    how: str
    because: str
    cases: tuple[str, ...]


@dataclass(frozen=True)
class PairFinding:
    """How often two targets agree, and what sets them apart.

    Attributes:
        agree: cases in which they agree as they stand.
        convention: cases in which they differ and both are right, as their profiles declare and in nothing else.
        differ: the other cases in which both answered and they differ.
        silent: cases in which one of them gave no answer, as it refused, crashed or cannot express them.
        differences: what sets them apart: answers that differ come first, then what is declared, then cases that one of
            them refused, then those that it cannot express; the commonest first of each.

    """

    pair: tuple[str, str]
    agree: int
    convention: int
    differ: int
    silent: int
    differences: tuple[Difference, ...]

    @property
    def told(self) -> list[Difference]:
        """The differences that a summary has room for: some of every kind, in their order."""
        room = {DIFFER: 4, CONVENTION: 3, NO_ANSWER: 2}
        return [
            one for how, most in room.items() for one in [each for each in self.differences if each.how == how][:most]
        ]

    @property
    def apart(self) -> int:
        """Cases in which they do not agree as they stand."""
        return self.convention + self.differ + self.silent


@dataclass(frozen=True)
class Agreement:
    """Targets against each other, over the cases that two or more of them ran.

    Attributes:
        shared: number of these cases.
        answered: those of which two or more returned something.
        together: those of `answered` in which all who answered agree as they stand.
        declared: those in which they agree once the conventions are applied that their profiles declare.
        odd: case → the target that differs there while all others agree with each other; of three targets or more.

    """

    shared: int
    answered: int
    together: int
    declared: int
    odd: dict[str, str]


def agreement(run: Run) -> Agreement:
    """Where all targets agree, and which one is alone where they do not."""
    shared = answered = together = declared = 0
    odd = {}
    for case, verdicts, pairs in run.each():
        if not pairs:
            continue
        found = {kind(line, verdicts) for line in pairs} - {NO_ANSWER}
        shared += 1
        answered += bool(found)
        together += found == {AGREE}
        declared += bool(found) and DIFFER not in found
        name = alone({(line["pair"][0], line["pair"][1]): line["agreement"] != "agree" for line in pairs})
        if name is not None:
            odd[case] = name
    return Agreement(shared, answered, together, declared, odd)


def kind(pair: Line, verdicts: Iterable[Line]) -> str:
    """What a pair's line is, beside its case's verdicts: `AGREE`, `CONVENTION`, `DIFFER`, or `NO_ANSWER` of one."""
    two = [line["verdict"] for line in verdicts if line["target"] in pair["pair"]]
    if any(verdict in _SILENT for verdict in two):
        return NO_ANSWER
    if pair["agreement"] == "agree":
        return AGREE
    return CONVENTION if len(two) == 2 and all(verdict in _RIGHT for verdict in two) else DIFFER


def pair_findings(run: Run) -> tuple[PairFinding, ...]:
    """Every pair of targets, in the order of the run."""
    grouped: dict[tuple[str, str], _Counted] = {}
    for case, verdicts, pairs in run.each():
        for line in pairs:
            counted = grouped.setdefault((line["pair"][0], line["pair"][1]), _Counted())
            if line["agreement"] == "agree":
                counted.number[AGREE] += 1
                continue
            how = kind(line, verdicts)
            counted.number[how] += 1
            counted.explained.setdefault((how, line["because"]), []).append(case)
    return tuple(_pair_finding(pair, counted) for pair, counted in grouped.items())


@dataclass(frozen=True)
class _Counted:
    """Of a pair: how many cases are of each kind, and which cases differ in a way and for a reason."""

    number: Counter[str] = field(default_factory=Counter)
    explained: dict[tuple[str, str], list[str]] = field(default_factory=dict)


def _pair_finding(pair: tuple[str, str], counted: _Counted) -> PairFinding:
    number, explained = counted.number, counted.explained
    ordered = sorted(explained.items(), key=lambda item: (order(*item[0]), -len(item[1])))
    return PairFinding(
        pair,
        number[AGREE],
        number[CONVENTION],
        number[DIFFER],
        number[NO_ANSWER],
        tuple(Difference(*apart, tuple(cases)) for apart, cases in ordered),
    )


def order(how: str, because: str) -> int:
    """The place of a difference among others: wrong answers, declared ones, refusals, what cannot be expressed."""
    return [DIFFER, CONVENTION, NO_ANSWER].index(how) + (": refused (NotExpressible)" in because)
