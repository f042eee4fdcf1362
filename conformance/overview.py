"""What a run's reports are made from: the result in a sentence, what to count, what to name, and where it was made."""

from __future__ import annotations

import datetime
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from conformance.differences import differences
from conformance.findings import Agreement, Finding, agreement, cells, count, findings, pair_findings, rank
from conformance.proof import sides
from conformance.run_folder import Run

#: What each verdict means, in the words of the report's key.
MEANINGS = {
    "conforms": "within rounding of exact arithmetic",
    "conventional": "differs as the framework documents, and within rounding once that is applied",
    "inaccurate": "right, but beyond the strict bound on rounding",
    "refused": "the framework raised an exception, or has no such option (NotExpressible)",
    "divergent": "computes something else",
    "timeout": "took longer than admitted",
    "crashed": "the process died",
    "broken": "the adapter or the environment failed, not the framework",
}
_BACKENDS = {"tensorflow": "TensorFlow", "torch": "PyTorch", "jax": "JAX", "openvino": "OpenVINO"}


def headline(run: Run, found: Agreement) -> str:
    """Whether the targets agree, and whether that is as expected, in one sentence or two."""
    if not run.targets or not run.verdicts:
        return "Nothing ran: there is no verdict."
    unexpected = len(run.unexpected)
    wrong = f"{many(unexpected, 'verdict')} {'is' if unexpected == 1 else 'are'} unexpected"
    if not found.shared:
        right = sum(line["verdict"] in ("conforms", "conventional") for line in run.verdicts)
        answer = f"{right:,} of {many(len(run.verdicts), 'verdict')} are right"
        return f"{wrong}; {answer}." if unexpected else f"{answer}, and all are as expected."
    share = {0: "none", found.shared: "all"}.get(found.together, f"{found.together:,}")
    answer = f"agree in {share} of the {many(found.shared, 'case')} that they share"
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
    return f"{_listed(labels)}{on}: {many(len(run.verdicts), 'verdict')} on {many(len(run.cases), 'case')}."


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


def overview(run: Run) -> dict[str, Any]:
    """What both reports are made from."""
    found, agreed = findings(run), agreement(run)
    names = [target["name"] for target in run.targets]
    labels = target_labels(run.targets)
    return {
        "headline": headline(run, agreed),
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
        "agreement": agreed,
        "odd": _odd(run, agreed),
        "reasons": _reasons(found),
        "causes": list(dict.fromkeys(one.cause for one in found)),
        "differences": differences(run, sides(run, labels)),
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
