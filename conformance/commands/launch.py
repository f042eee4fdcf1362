"""The command run up to where the targets are launched. What is imported until then delays every framework."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from conformance.commands.absent import installing
from conformance.commands.console import console as make_console
from conformance.commands.interruption import Interruption
from conformance.configuration import configured
from conformance.crew import Limits
from conformance.errors import UsageError
from conformance.pool import Pool
from conformance.target import MAIN, Target, installed, parse


def run(
    paths: Sequence[Path],
    named: Sequence[str],
    select: str,
    out: Path | None,
    jobs: int,
    device: str,
    timeout: float,
    baseline: Path | None = None,
    save_baseline: Path | None = None,
) -> int:
    """Run, judge and report, against a baseline if there is one; return the exit code.

    Raises:
        NothingToRun: no target is here, or no case speaks to one.

    """
    console = make_console()
    if baseline is not None:
        from conformance.run_folder import read

        read(baseline)  # what is wrong with it is better said before the run than after
    targets = choose_targets(named, device, console)
    with Interruption(Pool(targets, Limits(case_seconds=timeout), jobs)) as interruption, interruption.pool as pool:
        pool.launch()
        from conformance.commands import run as command  # frameworks take seconds, in which all else can be imported

        done = command.carried_out(console, interruption, paths, select, out)
    return command.concluded(console, done, named=bool(named), baseline=baseline, save_baseline=save_baseline)


def choose_targets(named: Sequence[str], device: str, console: Console) -> list[Target]:
    """The targets named, or of the main three those that are installed.

    Raises:
        UsageError: a name that is unknown, or given twice.

    """
    aliases = configured(Path.cwd())
    if named:
        targets = [parse(name, device=device, named=aliases) for name in named]
        if len({target.name for target in targets}) < len(targets):
            raise UsageError("a target is named twice")
        return provided(targets, console)
    targets = []
    for name in MAIN:
        target = parse(name, device=device)
        if installed(target.profile.package) is None:
            console.print(f"{target.profile.name} is not installed here: {installing(name)}", markup=False)
        else:
            targets.append(target)
    return targets


def provided(targets: Sequence[Target], console: Console) -> list[Target]:
    """The targets with their environments, which are made here if need be; what is under way shows meanwhile."""
    if not any(target.recipe is not None for target in targets):
        return list(targets)
    from conformance import environments

    with console.status("looking for environments") as status:

        def say(line: str) -> None:
            if console.is_terminal:
                status.update(escape(line))
            else:
                console.print(line, markup=False)

        return environments.provide(targets, say)
