"""What changed between two versions, per case and tensor: nothing, bits within the bound, or what a layer means.

Pure functions of the lines of stored runs. Bits are compared by digest, distances where both runs kept the arrays.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from conformance.documents import AS_DOCUMENTED
from conformance.findings import message
from conformance.run_folder import Line, Run
from conformance.together import ulp

Change = Literal[
    "identical",
    "within bound",
    "reworded",
    "beyond bound",
    "convention",
    "signature",
    "refusal",
    "verdict",
    "new",
    "gone",
    "not comparable",
]

#: Every class, from best to worst, with what it says of a case or tensor.
MEANINGS: dict[Change, str] = {
    "identical": "the same to the last bit",
    "within bound": "other bits, and both within the bound on rounding",
    "reworded": "refused as before, in other words",
    "new": "only the new side has it",
    "gone": "only the old side has it",
    "not comparable": "the two sides were not asked the same, or one was not recorded",
    "beyond bound": "other bits, the same verdict, and at least one side beyond the bound",
    "convention": "another documented convention",
    "signature": "another constructor",
    "refusal": "refused by one side only, or with another exception",
    "verdict": "another verdict, diagnosis or expectation",
}
CHANGES: tuple[Change, ...] = tuple(MEANINGS)
#: What leaves the exit code at 0; with --strict, identical alone does.
HARMLESS: frozenset[Change] = frozenset({"identical", "within bound", "reworded"})


@dataclass(frozen=True)
class TensorChange:
    """One tensor of one case on both sides.

    Attributes:
        ulp: the largest distance in units in the last place; None where an array was not kept. Infinite where one
            side has a number and the other NaN or infinity.
        old_ratio: the old side's error as a fraction of its bound; None where it had another problem.

    """

    tensor: str
    change: Change
    ulp: float | None = None
    old_ratio: float | None = None
    new_ratio: float | None = None

    @property
    def grew(self) -> bool:
        """Whether the new side is farther from exact arithmetic."""
        return (self.new_ratio or 0.0) > (self.old_ratio or 0.0)


@dataclass(frozen=True)
class CaseChange:
    """One case on both sides; `what` says in words what became of it, empty where nothing did."""

    case: str
    change: Change
    what: str = ""
    tensors: tuple[TensorChange, ...] = ()

    @property
    def apart(self) -> Literal["new", "gone", "not comparable"] | None:
        """Why the sides cannot be held against each other; None where they can, though a tensor be new or gone."""
        if self.change == "not comparable" or (self.change in ("new", "gone") and not self.tensors):
            return self.change
        return None


@dataclass(frozen=True)
class Half:
    """One side: a target of a stored run."""

    run: Run
    target: str

    @property
    def described(self) -> dict[str, Any]:
        """What run.json says of the target."""
        return next(target for target in self.run.info["targets"] if target["name"] == self.target)

    @property
    def label(self) -> str:
        """PyTorch 2.13.0+cpu."""
        told = self.described
        facts = told["facts"]
        backend = facts.get("backend_version")
        return f"{told['title']} {facts.get('version', '')}" + (f" on {facts['backend']} {backend}" if backend else "")

    @cached_property
    def lines(self) -> dict[str, Line]:
        """The verdicts by case."""
        return {line["case"]: line for line in self.run.verdicts if line["target"] == self.target}


@dataclass(frozen=True)
class Comparison:
    """Two sides case by case, in the order of the new side's cases, then those that are gone.

    Attributes:
        remarks: what differs between the sides besides the version: device, threads, platform, the suite itself.
        left_out: cases of the old side that were not asked for.

    """

    old: Half
    new: Half
    cases: tuple[CaseChange, ...]
    remarks: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def counts(self) -> Counter[Change]:
        """How many cases of each class."""
        return Counter(case.change for case in self.cases)

    @property
    def tensor_counts(self) -> Counter[Change]:
        """How many tensors of each class."""
        return Counter(tensor.change for case in self.cases for tensor in case.tensors)

    def harmful(self, strict: bool = False) -> list[CaseChange]:
        """The cases that changed beyond what is admitted."""
        admitted = {"identical"} if strict else HARMLESS
        return [case for case in self.cases if case.change not in admitted]


def compare(old: Half, new: Half, asked: frozenset[str] | None = None) -> Comparison:
    """Class every case and tensor; `asked` are the cases that were selected, where not all were."""
    before, after = old.lines, new.lines
    left_out = 0 if asked is None else len(before.keys() - asked)
    names = [case for case in dict.fromkeys((*after, *before)) if asked is None or case in asked]
    cases = [_case(name, old, new, before.get(name), after.get(name)) for name in names]
    return Comparison(old, new, tuple(cases), tuple(_remarks(old, new)), left_out)


def _case(name: str, old: Half, new: Half, before: Line | None, after: Line | None) -> CaseChange:
    if before is None or after is None:
        return alone(name, "gone" if after is None else "new", (old if after is None else new).label)
    same = old.run.cases[name]["digest"] == new.run.cases[name]["digest"]
    return classed(before, after, same, lambda tensor: _distance(name, tensor, old, new))


def alone(case: str, change: Change, label: str) -> CaseChange:
    """A case that only one side has."""
    return CaseChange(case, change, f"only {label} has it")


def classed(before: Line, after: Line, same: bool, apart: Callable[[str], float | None]) -> CaseChange:
    """What became of a case that both sides have.

    Args:
        same: whether both sides were asked the same, to the last bit.
        apart: tensor → its distance on the two sides in ULP, None where it is not known.

    """
    name = after["case"]
    if not same:
        return CaseChange(name, "not comparable", "the case itself changed")
    change, what = _verdicts(before, after)
    names = dict.fromkeys((*_held(after), *_held(before)))
    tensors = tuple(_tensor(tensor, change, before, after, apart) for tensor in names)
    worst: Change = max((tensor.change for tensor in tensors), key=CHANGES.index, default="identical")
    if change == "identical" and worst != "identical":
        return CaseChange(name, worst, _words_for_bits(worst, tensors), tensors)
    return CaseChange(name, change, what, tensors)


def _verdicts(before: Line, after: Line) -> tuple[Change, str]:
    """What two lines say of a case, leaving the bits aside."""
    if before.get("signature") != after.get("signature"):
        return "signature", "; ".join(signature_changes(before.get("signature"), after.get("signature")))
    refused = before["verdict"] == "refused", after["verdict"] == "refused"
    if any(refused):
        return _refusals(before, after)
    states = [(line["verdict"], line["diagnosis"]) for line in (before, after)]
    if states[0] != states[1]:
        kind: Change = "convention" if all(v in ("conforms", "conventional") for v, _ in states) else "verdict"
        return kind, " → ".join(_state(*state) for state in states)
    if before["status"] != after["status"]:
        return "verdict", f"{before['verdict']}, {before['status']} → {after['status']} ({after['expected']})"
    return "identical", ""


def _refusals(before: Line, after: Line) -> tuple[Change, str]:
    said = [line["error"]["type"] if line["verdict"] == "refused" else line["verdict"] for line in (before, after)]
    if said[0] != said[1]:
        return "refusal", " → ".join(said)
    if before["status"] != after["status"]:
        return "verdict", f"{said[0]}, {before['status']} → {after['status']} ({after['expected']})"
    if message(before) != message(after):
        return "reworded", f"{message(before)} → {message(after)}"
    return "identical", ""


def _state(verdict: str, diagnosis: str | None) -> str:
    return "canonical" if verdict == "conforms" else f"{verdict} ({diagnosis})" if diagnosis else verdict


def signature_changes(
    before: Sequence[Sequence[str | None]] | None, after: Sequence[Sequence[str | None]] | None
) -> list[str]:
    """What became of a constructor's parameters, [name, default or null] each, in words.

    >>> signature_changes([["eps", "1e-05"], ["axis", None]], [["eps", "0.001"], ["dtype", "None"]])
    ['axis is gone', 'dtype=None is new', 'eps is 0.001, was 1e-05']
    """
    if before is None or after is None:
        return ["only one side has a signature"]
    old, new = ({str(name): default for name, default in side} for side in (before, after))
    spelled = {name: name if default is None else f"{name}={default}" for name, default in {**old, **new}.items()}
    found = [f"{spelled[name]} is gone" for name in old if name not in new]
    found += [f"{spelled[name]} is new" for name in new if name not in old]
    found += [f"{name} is {new[name]}, was {old[name]}" for name in new if name in old and old[name] != new[name]]
    if not found:
        found = [f"the order is {', '.join(new)}"]
    return found


def _held(line: Line) -> dict[str, str | None]:
    """The tensors that a target returned, with their digests; None in runs of before there were any."""
    if "digests" in line:
        return dict(line["digests"])
    return {name: None for name in line["tensors"] if not name.endswith(AS_DOCUMENTED)}


def _tensor(name: str, case: Change, before: Line, after: Line, measure: Callable[[str], float | None]) -> TensorChange:
    """A tensor's class; where the case's meaning changed, so did that of every tensor with other bits."""
    sides = _held(before), _held(after)
    if not all(name in side for side in sides):
        return TensorChange(name, "gone" if name in sides[0] else "new")
    told = [line["tensors"].get(name) for line in (before, after)]
    ratios = [None if line is None else line["ratio"] for line in told]
    digests = {side[name] for side in sides}
    if len(digests) == 1 and None not in digests:
        return TensorChange(name, "identical", 0.0, *ratios)
    apart = measure(name)
    if None in digests and not apart:
        return TensorChange(name, "not comparable" if apart is None else "identical", apart, *ratios)
    right = all(line is None or (not line.get("problem") and (line["ratio"] or 0) <= 1) for line in told)
    if case in HARMLESS:
        return TensorChange(name, "within bound" if right else "beyond bound", apart, *ratios)
    rounding = right and apart is not None and apart <= FEW_ULP
    return TensorChange(name, "within bound" if rounding else case, apart, *ratios)


#: How far apart two roundings of one value may lie and pass for such, in a case of which the meaning changed: what a
#: convention moves, it moves by far more.
FEW_ULP = 16.0


def _distance(case: str, tensor: str, old: Half, new: Half) -> float | None:
    """The largest distance of two tensors in ULP; None where one was not kept."""
    a, b = old.run.array(case, old.target, tensor), new.run.array(case, new.target, tensor)
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return None
    return distance(a, b)


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """max |a − b| in units in the last place of the larger; infinite where only one is NaN, or an infinity.

    Args:
        a: (…) of any dtype that a tensor has.
        b: of the same shape and dtype.

    """
    if a.tobytes() == b.tobytes():
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        apart = np.abs(x - y) / ulp(np.where(np.isfinite(x), np.maximum(np.abs(x), np.abs(y)), 1.0), a.dtype.name)
    apart = np.where(same, 0.0, np.where(np.isfinite(apart), apart, math.inf))
    return float(apart.max(initial=0.0))


def _words_for_bits(change: Change, tensors: Iterable[TensorChange]) -> str:
    moved = [tensor for tensor in tensors if tensor.change == change]
    names = ", ".join(tensor.tensor for tensor in moved[:4]) + (f" and {len(moved) - 4} more" if len(moved) > 4 else "")
    if change in ("new", "gone"):
        return f"{names} {'is' if len(moved) == 1 else 'are'} {change}"
    known = [tensor.ulp for tensor in moved if tensor.ulp is not None]
    by = f" by up to {max(known):.3g} ULP" if known else ""
    grown = sum(tensor.grew for tensor in moved)
    return f"{names} moved{by}; farther from exact arithmetic in {grown} of {len(moved)}"


def _remarks(old: Half, new: Half) -> list[str]:
    """What else differs: then a change need not be the framework's."""
    found: list[str] = []
    for name in ("suite", "platform"):
        before, after = old.run.info[name], new.run.info[name]
        if name == "platform":
            fields: Mapping[str, str] = {"system": "system", "machine": "machine", "processor": "processor"}
            found += [
                f"{label} {before[field]!r} → {after[field]!r}"
                for field, label in fields.items()
                if before[field] != after[field]
            ]
        elif before != after:
            found.append(f"suite {before} → {after}")
    return found + fact_remarks(old.described["facts"], new.described["facts"])


def fact_remarks(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What two targets state otherwise, their versions apart."""
    return [
        f"{fact} {before.get(fact, 'unknown')} → {after.get(fact, 'unknown')}"
        for fact in dict.fromkeys((*before, *after))
        if fact != "version" and before.get(fact) != after.get(fact)
    ]


def grouped(comparison: Comparison) -> list[tuple[Change, str, list[CaseChange]]]:
    """The cases that changed, by what became of them, the worst class first and in it the commonest first."""
    groups: dict[tuple[Change, str], list[CaseChange]] = {}
    for case in comparison.cases:
        if case.change != "identical":
            what = "" if case.change in ("within bound", "beyond bound", "new", "gone") else case.what
            groups.setdefault((case.change, what), []).append(case)
    ordered = sorted(groups.items(), key=lambda item: (-CHANGES.index(item[0][0]), -len(item[1])))
    return [(change, what, cases) for (change, what), cases in ordered]
