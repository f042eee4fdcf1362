"""Baselines: a run kept beside the code, what changed since, and how a new one is blessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from conformance.commands.compare import matched, told
from conformance.commands.console import console as make_console
from conformance.errors import UsageError
from conformance.run_folder import Run, read
from conformance.upgrades.copies import baseline as made
from conformance.upgrades.copies import unblessed

#: Unexpected verdicts that are named before the rest is counted.
_NAMED = 20


def update(folder: Path, run: Path, blessed: Sequence[str]) -> int:
    """Make a baseline of a stored run; 1 if it holds unexpected verdicts that the old one did not and nobody blessed.

    Raises:
        UsageError: a run cannot be read, a case is blessed that the run has not, or the folder cannot be written to.

    """
    return save(make_console(), folder, read(run), blessed)


def save(console: Console, folder: Path, run: Run, blessed: Sequence[str] = ()) -> int:
    """Write a run as a baseline, in place of an earlier one; return the exit code.

    Raises:
        UsageError: a case is blessed that the run has not, or the folder cannot be written to.

    """
    ids = {*run.cases, *(case.partition("[")[0] for case in run.cases)}
    for name in blessed:
        if name not in ids:
            raise UsageError(f"the run has no case {name!r} to bless")
    old = read(folder) if (folder / "run.json").is_file() else None
    refused = unblessed(old, run, blessed)
    if refused:
        console.print(f"{folder} is left as it is: {len(refused)} unexpected verdicts are new", markup=False)
        for line in refused[:_NAMED]:
            console.print(f"  {line['case']} on {line['target']}: {line['verdict']}", markup=False)
        if len(refused) > _NAMED:
            console.print(f"  … and {len(refused) - _NAMED} more")
        console.print("bless those that are right: conformance baseline update BASELINE RUN --bless CASE …")
        return 1
    with made(run, folder) as writer:
        writer.publish()
    size = sum(file.stat().st_size for file in folder.iterdir())
    console.print(f"Baseline: {folder}, {len(run.verdicts)} verdicts, {size / 1e6:.1f} MB", markup=False)
    return 0


def against(console: Console, folder: Path, run: Run, asked: frozenset[str]) -> int:
    """Compare a run with a baseline, print what changed and write the reports; return the exit code.

    Args:
        asked: the cases that were selected; the baseline's others are counted only.

    Raises:
        UsageError: the baseline cannot be read, or has no target in common with the run.

    """
    old = read(folder)
    pairs, lone = matched(old, run)
    named = {target["name"] for target in run.info["targets"]}
    for remark in lone:
        console.print(remark, markup=False)
    if not pairs:
        raise UsageError(f"{folder} has none of the targets {', '.join(sorted(named))}")
    harmful = told(console, old, run, pairs, run.path, asked=asked, called="Changes")
    if harmful or any(remark.startswith("new") for remark in lone):
        console.print(f"To make this the baseline: conformance baseline update {folder} {run.path}", markup=False)
        return 1
    return 0
