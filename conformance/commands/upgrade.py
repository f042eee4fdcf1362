"""The command upgrade: two versions of one framework side by side, and what changed between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from conformance.commands.compare import show
from conformance.commands.console import console as make_console
from conformance.commands.corpus import read_cases
from conformance.commands.exit_codes import COULD_NOT_RUN, UNEXPECTED
from conformance.commands.interruption import Interruption
from conformance.commands.launch import provided
from conformance.commands.nothing import nothing_to_run
from conformance.commands.run import execute
from conformance.configuration import configured
from conformance.crew import Limits, NotStarted
from conformance.errors import UsageError
from conformance.pool import Pool
from conformance.report import write_reports
from conformance.run_folder import Run
from conformance.safe_text import clean
from conformance.session import targets_of
from conformance.target import Target, parse
from conformance.upgrades import page
from conformance.upgrades.changes import Comparison, Half
from conformance.upgrades.changes import compare as compare_halves


def upgrade(
    old: str,
    new: str,
    paths: Sequence[Path],
    select: str,
    out: Path | None,
    jobs: int,
    device: str,
    timeout: float,
    strict: bool,
) -> int:
    """Build, run and compare; return the exit code.

    Raises:
        UsageError: the two are not versions of one framework, or not told apart.
        NothingToRun: no case is chosen that speaks to them.

    """
    console = make_console()
    aliases = configured(Path.cwd())
    targets = [parse(text, device=device, named=aliases) for text in (old, new)]
    if targets[0].name == targets[1].name:
        raise UsageError(f"{old} and {new} are the same")
    if targets[0].framework != targets[1].framework:
        raise UsageError(
            f"{old} is {targets[0].profile.name} and {new} is {targets[1].profile.name}",
            hint="an upgrade is between versions of one framework; to compare two: conformance run",
        )
    known = frozenset({targets[0].framework})
    cases = read_cases(paths, select, known, lambda case: bool(targets_of(case, targets)))
    if not cases:
        raise nothing_to_run(read_cases(paths, select, known), targets, select)
    targets = provided(targets, console)
    missing = [target for target in targets if target.missing]
    for target in missing:
        say_missing(console, target)
    if missing:
        return COULD_NOT_RUN

    compared: list[Comparison] = []

    def reports(run: Run, folder: Path) -> None:
        write_reports(run, folder)
        if len(run.targets) == len(targets):
            compared.append(compare_halves(Half(run, old), Half(run, new)))
            page.write(compared[0], folder, strict)

    with Interruption(Pool(targets, Limits(case_seconds=timeout), jobs)) as interruption:
        run, starts = execute(console, interruption, cases, out, reports)
    absent = {name: start for name, start in starts.items() if isinstance(start, NotStarted)}
    for name, start in absent.items():
        console.print(f"[bold]{escape(name)} did not start[/]: {escape(clean(start.message).strip())}")
    if absent or run is None:
        return COULD_NOT_RUN
    (comparison,) = compared
    show(console, comparison, strict)
    console.print(f"Report: {run.path / 'changes.html'}", markup=False)
    return UNEXPECTED if comparison.harmful(strict) else 0


def say_missing(console: Console, target: Target) -> None:
    """Say why an environment is not there."""
    console.print(f"[bold]{escape(target.name)}[/]: {escape(target.missing)}")
