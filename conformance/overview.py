"""What a run's reports are made from: the result in a sentence, what to count, what to name, and where it was made."""

from __future__ import annotations

import datetime
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from conformance.agreements import Agreement, agreement, pair_findings
from conformance.differences import differences
from conformance.findings import Finding, cells, count, findings, outcome, rank, ranked
from conformance.pairs import WITHIN_BOUNDS
from conformance.proof import sides
from conformance.run_folder import Run
from conformance.severity import SEVERITIES, Severity

#: What each outcome means, in the words of the report's key.
MEANINGS = {
    "conforms": "within rounding of exact arithmetic",
    "conventional": "differs as its profile declares, and within rounding once that is applied",
    "inexpressible": "the adapter has no way to ask this of the framework (NotExpressible)",
    "inaccurate": "right, but beyond the strict bound on rounding",
    "refused": "the framework raised an exception",
    "divergent": "computes something else",
    "timeout": "took longer than admitted",
    "crashed": "the process died",
    "broken": "the adapter or the environment failed, not the framework",
}
_APPLIED = "Once declared conventions are applied, "
#: The outcomes of a target that gave no answer.
_SILENT = ("inexpressible", "refused", "timeout", "crashed", "broken")
_BACKENDS = {"tensorflow": "TensorFlow", "torch": "PyTorch", "jax": "JAX", "openvino": "OpenVINO"}


def headline(run: Run, agreed: Agreement, found: Sequence[Finding]) -> str:
    """Whether the targets agree by what they declare, whether that was expected, and what was found besides."""
    if not run.targets or not run.verdicts:
        return "Nothing ran: there is no verdict."
    number = len(run.unexpected)
    unexpected = f"{many(number, 'verdict')} {'is' if number == 1 else 'are'} unexpected. " if number else ""
    return f"{unexpected}{_agreement(run, agreed)}. {_tally(found)}."


def _agreement(run: Run, agreed: Agreement) -> str:
    """In how many cases the targets agree, or are right by themselves, once declared conventions are applied."""
    titles = list(dict.fromkeys(target["title"] for target in run.targets))
    alone = len(run.targets) == 1
    names = _listed(titles if alone or len(titles) > 1 else [target["name"] for target in run.targets])
    if agreed.answered:
        applied = _APPLIED if agreed.declared > agreed.together else ""
        if agreed.answered == 1:
            return (
                f"{applied}{names} {'agree' if agreed.declared else 'differ'} in the one case that two or more answer"
            )
        return f"{applied}{names} agree in {_of(agreed.declared, agreed.answered)} that two or more answer"
    answered = Counter(line["verdict"] for line in run.verdicts if outcome(line) not in _SILENT)
    are, they_answer = ("is", "it answers") if alone else ("are", "they answer")
    if not answered:
        return f"{names} {'answers' if alone else 'answer'} none of {many(len(run.cases), 'case')}"
    right = answered["conforms"] + answered["conventional"]
    applied = _APPLIED if answered["conventional"] else ""
    if answered.total() == 1:
        return f"{applied}{names} {are} {'right' if right else 'not right'} in the one case that {they_answer}"
    return f"{applied}{names} {are} right in {_of(right, answered.total())} that {they_answer}"


def _of(some: int, total: int) -> str:
    share = {0: "none", total: "all"}.get(some, f"{some:,}")
    return f"{share} of the {many(total, 'case')}"


def _tally(found: Sequence[Finding]) -> str:
    """How many findings there are, and of which severity."""
    tally = severities(found)
    if not tally:
        return "All is as expected"
    unexpected = sum(one.unexpected for one in found if one.severity)
    total = sum(number for _, number in tally)
    whole = many(total, "finding" if unexpected else "known finding")
    if 0 < unexpected < total:
        whole += f", {unexpected:,} of them unexpected"
    return f"{whole}: {_listed([grave.count(number) for grave, number in tally])}"


def severities(found: Sequence[Finding]) -> list[tuple[Severity, int]]:
    """Severity and number of findings, the gravest first."""
    counted = Counter(one.severity for one in found if one.severity)
    return [(grave, counted[grave]) for grave in SEVERITIES if counted[grave]]


def sharing(run: Run, agreed: Agreement) -> str:
    """How the numbers of cases come about that the targets share; empty for one target."""
    if not agreed.shared:
        return ""
    alone = len(run.cases) - agreed.shared
    parts = [f"Of {many(len(run.cases), 'case')}, {alone:,} ran on one target only"] if alone else []
    unanswered = agreed.shared - agreed.answered
    if unanswered:
        parts.append(f"fewer than two answered {unanswered:,}, as the others refused or have no such option")
    if agreed.answered:
        parts.append(f"in {agreed.together:,} of the other {agreed.answered:,} they agree even as they stand")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def subject(run: Run) -> str:
    """What ran, in which versions, on which device, and how much of it."""
    named: dict[str, list[str]] = {}
    for name, label in _labels(run.targets).items():
        named.setdefault(label, []).append(name)
    ran = [label if len(names) == 1 else f"{label} as {'; '.join(names)}" for label, names in named.items()]
    devices = {_device(target) for target in run.targets}
    on = f" on {devices.pop()}" if len(devices) == 1 else ""
    return f"{_listed(ran)}{on}: {many(len(run.verdicts), 'verdict')} on {many(len(run.cases), 'case')}."


def target_labels(targets: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Name → framework and version; what two targets share is told apart by device, and by name after that."""
    labels = _labels(targets)
    number = Counter(labels.values())
    return {name: f"{label} as {name}" if number[label] > 1 else label for name, label in labels.items()}


def _labels(targets: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Name → framework, version and, where there is more than one, device."""
    several = len({_device(target) for target in targets}) > 1
    return {target["name"]: _label(target) + (f" on {_device(target)}" if several else "") for target in targets}


def _versions(targets: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Name → the framework with its version alone; the whole label where other targets have the same."""
    short = {target["name"]: _named([target]) for target in targets}
    number, labels = Counter(short.values()), target_labels(targets)
    return {name: labels[name] if number[text] > 1 else text for name, text in short.items()}


def _whose(run: Run, faults: Sequence[Finding]) -> dict[str, str]:
    """The address of every finding → its framework, and where not all of its targets show it, those that do."""
    labels = _versions(run.targets)

    def told(one: Finding) -> str:
        among = [
            target for target in run.targets if (target["framework"], target["title"]) == (one.framework, one.title)
        ]
        names = [target["name"] for target in among if target["name"] in one.targets]
        if len(names) == 1:
            return labels[names[0]]
        return _named(among) + ("" if len(names) == len(among) else f" as {'; '.join(names)}")

    return {one.address: told(one) for one in faults}


def _named(targets: Sequence[dict[str, Any]]) -> str:
    """The framework of some targets, with its version where they have one."""
    releases = {_release(target["facts"].get("version", "")) for target in targets}
    return " ".join([targets[0]["title"], *(releases if len(releases) == 1 else ())]).strip()


def _label(target: dict[str, Any]) -> str:
    facts = target["facts"]
    label = _named([target])
    if facts.get("backend"):
        backend = _BACKENDS.get(facts["backend"], facts["backend"])
        label += f" ({backend} {_release(facts.get('backend_version', ''))}".rstrip() + ")"
    return label


def _release(version: Any) -> str:
    """2.13.0 of 2.13.0+cpu; the environment shows the whole."""
    return str(version).partition("+")[0]


def _device(target: dict[str, Any]) -> str:
    return str(target["facts"].get("device", "cpu")).upper()


def overview(run: Run) -> dict[str, Any]:
    """What both reports are made from."""
    found, agreed = findings(run), agreement(run)
    names = [target["name"] for target in run.targets]
    faults = ranked(found)
    return {
        "headline": headline(run, agreed, found),
        "sharing": sharing(run, agreed),
        "found": found,
        "faults": faults,
        "whose": _whose(run, faults),
        "severities": severities(found),
        "subject": subject(run) if run.verdicts else "",
        "labels": _labels(run.targets),
        "names": names,
        "totals": [(verdict, number, MEANINGS.get(verdict, "")) for verdict, number in count(run.verdicts)],
        "per_target": {name: _per_target(run, name) for name in names},
        "unexpected": [finding for finding in found if finding.unexpected],
        "expected": sorted(
            (one for one in found if not one.unexpected and not one.severity), key=lambda one: rank(one.outcome)
        ),
        "number_unexpected": len(run.unexpected),
        "cells": cells(run),
        "cases_per_topic": Counter(case.get("topic") for case in run.cases.values()),
        "number_cases": len(run.cases),
        "verdicts": sorted({outcome(line) for line in run.verdicts}, key=rank),
        "pairs": pair_findings(run),
        "agreement": agreed,
        "within_bounds": WITHIN_BOUNDS,
        "odd": _odd(run, agreed),
        "reasons": _reasons(found),
        "causes": list(dict.fromkeys(one.cause for one in found)),
        "differences": differences(run, sides(run, target_labels(run.targets))),
        "absent": [target for target in run.info["targets"] if not target["ran"]],
        "environment": _environment(run),
        "facts": _facts(run),
    }


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
    """The declared conventions that set the targets apart in most cases."""
    return [one for one in found if one.verdict == "conventional" and not one.unexpected][:4]


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
        ("Processor", f"{processor}, {many(machine['cores'] or 0, 'core')}"),
        ("Python", f"{machine['python']} (the suite's own)"),
    ]


def _lasting(started: str, finished: str) -> str:
    try:
        took = datetime.datetime.fromisoformat(finished) - datetime.datetime.fromisoformat(started)
    except ValueError:
        return ""
    return f", in {many(round(took.total_seconds()), 'second')}"


def _facts(run: Run) -> list[tuple[str, list[str]]]:
    """What the targets stated, a row per fact: its name, and its value on every target."""
    names = dict.fromkeys(name for target in run.targets for name in target["facts"])
    rows = [(name, [str(target["facts"].get(name, "")) for target in run.targets]) for name in names]
    hosts = [target["host"] or "" for target in run.targets]
    return [*rows, ("host", hosts)] if any(hosts) else rows


def many(number: int, what: str) -> str:
    """A number of things.

    >>> many(1, "case"), many(1500, "case")
    ('1 case', '1,500 cases')
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
