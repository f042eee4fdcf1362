"""The command repro: one case on one target as a stand-alone script, for an upstream bug report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from conformance import run_folder
from conformance.carried import source_of
from conformance.commands.absent import next_step
from conformance.commands.corpus import named_cases, no_case, read_cases
from conformance.commands.exit_codes import COULD_NOT_RUN
from conformance.commands.launch import choose_targets
from conformance.crew import NotStarted
from conformance.errors import UsageError
from conformance.lines import case_line, target_line, verdict_line
from conformance.pool import Pool
from conformance.repro import script
from conformance.session import judged, targets_of


def repro(case_id: str, paths: Sequence[Path], named: str, device: str, run: Path | None) -> int:
    """Print the script on stdout and nothing else there; return the exit code.

    Without a stored run the case is run on the target first, since what differs decides what the script shows.

    Raises:
        UsageError: no case has that id, it says nothing of this target, or there is no script for its result.
    """
    if run is not None:
        print(script(*_stored(run_folder.read(run), case_id, named)), end="")
        return 0
    console = Console(stderr=True)
    (target,) = choose_targets([named], device, console)
    case, *_ = named_cases(case_id, read_cases(paths, "", frozenset({target.framework})))
    carried = case.spec.carried
    others = choose_targets([carried.source], device, console) if carried and source_of(case, [target]) is None else []
    if carried is None and not targets_of(case, [target]):
        raise UsageError(f"case {case_id!r} speaks to {', '.join(sorted(case.frameworks or ()))} only")
    with Pool([target, *others]) as pool:
        settled = next(judged([case], pool))
        start = pool.starts[target.name]
    if isinstance(start, NotStarted):
        step = next_step(target, start.message)
        words = f"{target.name} cannot run: {start.message}{f' ({step})' if step else ''}"
        print(f"conformance: {words}", file=sys.stderr)
        return COULD_NOT_RUN
    side = settled.sides[target.name]
    line = verdict_line(case.id, target.name, side.verdict, side.observation)
    state = settled.problem.initial if carried else None
    print(script(case_line(settled.problem), line, target_line(target, start), carried=state), end="")
    if side.verdict.verdict == "conforms":
        print(f"conformance: {case.id} conforms on {target.name}; the script exits with 0", file=sys.stderr)
    return 0


def _stored(run: run_folder.Run, case_id: str, named: str) -> tuple[run_folder.Line, run_folder.Line, run_folder.Line]:
    """The lines of a stored run that say what a case gave on a target."""
    targets = {target["name"]: target for target in run.targets}
    if named not in targets:
        raise UsageError(f"{run.path} has no target {named!r}", hint=f"it has {', '.join(targets)}")
    found = [line for line in run.verdicts if (line["case"], line["target"]) == (case_id, named)]
    if not found:
        raise no_case(case_id, [line["case"] for line in run.verdicts if line["target"] == named], f" in {run.path}")
    return run.cases[case_id], found[0], targets[named]
