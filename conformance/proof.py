"""What proves a statement about two frameworks: the cases of which it holds, and the profiles that claim it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance import data
from conformance.conditions import matches
from conformance.findings import off
from conformance.profile import Convention, Profile, open_adapter
from conformance.run_folder import Line, Run

#: Conditions that ask of a target, not of a case.
_OF_TARGET = ("version", "device", "execution", "backend")


@dataclass(frozen=True)
class Proof:
    """The cases of a run that show what a row says: ids, claims first; and how many went otherwise than expected."""

    cases: tuple[str, ...] = ()
    unexpected: int = 0


@dataclass(frozen=True)
class Side:
    """One framework: its profile, the target that stands for it, and what that target stated of itself."""

    profile: Profile
    target: str
    facts: Mapping[str, str]
    label: str

    @property
    def framework(self) -> str:
        """The framework's name in case files."""
        return self.profile.framework

    @property
    def name(self) -> str:
        """The framework's name for people."""
        return self.profile.name


def sides(run: Run, labels: Mapping[str, str]) -> tuple[Side, ...]:
    """The frameworks of a run whose profiles come with the suite, each by its first target that ran."""
    found: dict[str, Side] = {}
    adapters = data.adapters()
    for target in run.targets:
        framework = target["framework"]
        if framework not in adapters or framework in found:
            continue
        profile = open_adapter(adapters[framework]).profile
        if profile.name == target["title"]:  # not someone's own adapter of the same framework
            facts = {**target["options"], **target["facts"]}
            found[framework] = Side(profile, target["name"], facts, labels[target["name"]])
    return tuple(found.values())


def standing(side: Side) -> list[tuple[Convention, dict[str, Any]]]:
    """The conventions that hold on this target, with what else they ask of a case."""
    found = []
    for convention in side.profile.conventions:
        of_target = {key: value for key, value in convention.when.items() if key in _OF_TARGET and key in side.facts}
        if matches(of_target, dict(side.facts)):
            found.append((convention, {key: v for key, v in convention.when.items() if key not in of_target}))
    return found


class Lines:
    """A run's lines, found by case and target, and what they prove."""

    def __init__(self, run: Run) -> None:
        shared: dict[str, Line] = {}
        self.cases: dict[str, Line] = {}
        for name, case in run.cases.items():
            asked = _asked(case)
            self.cases[name] = shared.setdefault(repr(asked), asked)
        self._verdicts: dict[str, dict[str, Line]] = {}
        for line in run.verdicts:
            self._verdicts.setdefault(line["target"], {})[line["case"]] = line
        self._pairs: dict[frozenset[str], dict[str, Line]] = {}
        for line in run.pairs:
            self._pairs.setdefault(frozenset(line["pair"]), {})[line["case"]] = line
        self._agreed: dict[frozenset[str], dict[str, frozenset[str]]] = {}
        self._shared: dict[tuple[str, ...], list[str]] = {}

    def of(self, side: Side) -> Mapping[str, Line]:
        """Case → the verdict on it."""
        return self._verdicts.get(side.target, {})

    def pairs(self, a: Side, b: Side) -> Mapping[str, Line]:
        """Case → the line that holds the two against each other."""
        return self._pairs.get(frozenset((a.target, b.target)), {})

    def _ran(self, sides: Sequence[Side]) -> list[str]:
        """The cases that all these sides ran."""
        targets = tuple(side.target for side in sides)
        if targets not in self._shared:
            verdicts = [self.of(side) for side in sides]
            self._shared[targets] = [name for name in self.cases if all(name in of for of in verdicts)]
        return self._shared[targets]

    def native(self, side: Side, case: Line) -> dict[str, Any] | None:
        """Canonical parameter → what a native case gives it on this framework; None for other cases."""
        arguments = (case["spec"].get("native") or {}).get(side.framework)
        if arguments is None:
            return None
        known = side.profile.parameters
        return {known[name] or name: value for name, value in arguments.items() if name in known}

    def where(self, sides: Sequence[Side], holds: Callable[[str, Line], bool]) -> Proof:
        """The cases that all these sides ran and of which the condition holds."""
        verdicts = [self.of(side) for side in sides]
        return self.proof(
            (name, [of[name] for of in verdicts]) for name in self._ran(sides) if holds(name, self.cases[name])
        )

    def agree(self, a: Side, b: Side, case: str, tensor: str) -> bool:
        """Whether the two return the same of a tensor in every step, and return it at all."""
        pair = frozenset((a.target, b.target))
        if pair not in self._agreed:  # each line is read once, whatever is asked of it
            shared: dict[frozenset[str], frozenset[str]] = {}
            self._agreed[pair] = {
                name: shared.setdefault(same, same)
                for name, line in self._pairs.get(pair, {}).items()
                if (same := _agreeing(line["tensors"]))
            }
        return tensor in self._agreed[pair].get(case, ())

    def proof(self, found: Iterable[tuple[str, Sequence[Line]]]) -> Proof:
        """Cases with the verdicts that speak of them."""
        said: dict[str, bool] = {}
        for name, lines in found:
            said[name] = said.get(name, False) or any(line["status"] == "unexpected" for line in lines)
        named = sorted(said, key=lambda name: (not name.startswith("claims/"), len(name)))
        return Proof(tuple(named), sum(said.values()))

    def signature(self, side: Side) -> dict[str, str | None]:
        """The constructor's real parameters and defaults, as the run's signature cases saw them; empty if none did."""
        for name, line in self.of(side).items():
            if "signature" in self.cases[name]["spec"] and line.get("signature"):
                return {name: default for name, default in line["signature"] if name is not None}
        return {}


def _agreeing(tensors: Mapping[str, Any]) -> frozenset[str]:
    """The tensors that are within their bound in every step."""
    apart = {name.partition("[")[0] for name, result in tensors.items() if off(result) > 1}
    return frozenset(name.partition("[")[0] for name in tensors) - apart


def _asked(case: Line) -> Line:
    """A case's line as far as statements depend on it: most cases of a long run ask the same."""
    spec = case["spec"]
    layer = spec.get("layer") or {}
    return {
        "spec": {
            **{name: spec[name] for name in ("native", "signature") if name in spec},
            "layer": {
                **{name: layer[name] for name in ("scale", "center") if name in layer},
                "initial": dict.fromkeys(layer.get("initial") or {}),
            },
            "steps": [
                {name: step[name] for name in ("mode", "frozen") if name in step}
                for step in spec.get("steps", [{"mode": "train"}])
            ],
        }
    }
