"""Runs made from stored runs: shards put together, and baselines small enough to commit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from conformance.errors import UsageError
from conformance.harness import Array
from conformance.record import RunWriter
from conformance.run_folder import Line, Run, whole

#: Significant digits of an error over its bound that a baseline keeps.
_DIGITS = 2


class DoNotFit(UsageError):
    """Runs that are no shards of one: they contradict each other."""


def merge(runs: Sequence[Run], out: Path, command: Sequence[str]) -> RunWriter:
    """Put shards together; the writer returned still has to be published.

    Raises:
        DoNotFit: the runs are of different suites or machines, a target states different facts, a case differs, or
            one was run twice on one target.
        UsageError: `out` cannot be written to.

    """
    info = _merged_info(runs)
    cases: dict[str, Line] = {}
    seen: dict[tuple[str, ...], Path] = {}
    for run in runs:
        for name, case in run.cases.items():
            if cases.setdefault(name, case)["digest"] != case["digest"]:
                raise DoNotFit(f"case {name} is not the same in {run.path} as in a run before it")
        for line in (*run.verdicts, *run.pairs):
            key = (line["case"], *(line.get("pair") or [line["target"]]))
            if key in seen:
                raise DoNotFit(f"{' on '.join((key[0], '~'.join(key[1:])))} is in {seen[key]} and in {run.path}")
            seen[key] = run.path
    writer = RunWriter(out, command)
    for case in cases.values():
        writer.case_line(case)
    for run in runs:
        for line in run.verdicts:
            writer.verdict_line(whole(line))
            for tensor in line.get("digests", line["tensors"]):
                array = run.array(line["case"], line["target"], tensor)
                if array is not None:
                    writer.array(f"{line['case']}::{line['target']}::{tensor}", _wire(array))
        for line in run.pairs:
            writer.pair_line(whole(line))
    writer.finish_as({**info, "command": list(command)})
    return writer


def without_pairs(run: Run) -> list[tuple[str, str]]:
    """The pairs of targets that were never held against each other, though both ran some case: each in another shard.

    A run holds the tensors of every verdict that a report shows, not of all, so that pairs cannot be judged later.
    """
    ran: dict[str, dict[str, None]] = {}
    for line in run.verdicts:
        if run.cases[line["case"]]["spec"].get("signature") is None:
            ran.setdefault(line["case"], {})[line["target"]] = None
    together = {pair for targets in ran.values() for pair in itertools.combinations(targets, 2)}
    judged = {frozenset(line["pair"]) for line in run.pairs}
    return sorted(pair for pair in together if frozenset(pair) not in judged)


def _merged_info(runs: Sequence[Run]) -> dict[str, Any]:
    first = runs[0]
    targets: dict[str, dict[str, Any]] = {}
    for run in runs:
        for field in ("suite", "platform"):
            if run.info[field] != first.info[field]:
                raise DoNotFit(f"{first.path} and {run.path} differ in {field}", hint="compare them instead")
        for target in run.info["targets"]:
            known = targets.get(target["name"])
            if known is not None and known["ran"] and target["ran"] and known["facts"] != target["facts"]:
                raise DoNotFit(f"target {target['name']} states other facts in {run.path} than in a run before it")
            if known is None or (target["ran"] and not known["ran"]):
                targets[target["name"]] = target
    started, finished = (sorted(run.info[when] for run in runs) for when in ("started", "finished"))
    return {**first.info, "started": started[0], "finished": finished[-1], "targets": list(targets.values())}


def _wire(array: NDArray[Any]) -> Array:
    return Array(array.dtype.name, array.shape, array.tobytes())


def baseline(run: Run, out: Path, keep: Iterable[Line] | None = None) -> RunWriter:
    """A run without what a comparison does not need; the writer returned still has to be published.

    Digests and ratios of every tensor stay; arrays, pairs, times and the cases' texts go. What is written of the same
    results is the same text, so that a commit shows what changed.

    Args:
        keep: the verdicts to keep, all if None.

    Raises:
        UsageError: `out` cannot be written to.

    """
    writer = RunWriter(out, run.info["command"])
    kept = list(run.verdicts if keep is None else keep)
    needed = {line["case"] for line in kept}
    for name, case in run.cases.items():
        if name in needed:
            writer.case_line({**case, "line": 0, "about": "", "matrix": {}, "spec": {"why": ""}})
    for line in kept:
        writer.verdict_line(_slim(line))
    writer.finish_as(run.info)
    return writer


def _slim(line: Line) -> dict[str, Any]:
    tensors = {name: _slim_tensor(tensor) for name, tensor in line["tensors"].items() if tensor["ratio"] != 0.0}
    return {**line, "seconds": 0.0, "received": "", "facts": [], "tensors": tensors}


def _slim_tensor(tensor: Mapping[str, Any]) -> dict[str, Any]:
    ratio = tensor["ratio"]
    problem = {"problem": tensor["problem"]} if tensor.get("problem") else {}
    return {"ratio": None if ratio is None else float(f"{ratio:.{_DIGITS}g}"), **problem}


def unblessed(old: Run | None, new: Run, blessed: Sequence[str]) -> list[Line]:
    """The unexpected verdicts of a run that a baseline did not have, and that nobody named.

    Args:
        blessed: case ids, or their parts before the bracket, whose unexpected verdicts are to become the baseline.

    """
    known = {} if old is None else {(line["case"], line["target"]): line for line in old.verdicts}

    def new_here(line: Line) -> bool:
        before = known.get((line["case"], line["target"]))
        return before is None or any(before[key] != line[key] for key in ("verdict", "status", "diagnosis"))

    return [
        line
        for line in new.unexpected
        if new_here(line) and line["case"] not in blessed and line["case"].partition("[")[0] not in blessed
    ]
