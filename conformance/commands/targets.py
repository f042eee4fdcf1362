"""The command targets: what can run here, found out by starting it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from conformance import data, environments
from conformance.commands.absent import next_step
from conformance.commands.console import console as make_console
from conformance.configuration import configured
from conformance.crew import Limits, Start, Started
from conformance.errors import UsageError
from conformance.pool import Pool
from conformance.safe_text import one_line
from conformance.target import Target, parse

#: Frameworks that come up side by side, at most: each takes up to a gigabyte of memory.
_AT_ONCE = 4


@dataclass(frozen=True)
class Row:
    """A target as it is called here, and the target, or why it is none."""

    name: str
    target: Target | str


def variants(device: str) -> list[Target]:
    """Every bundled adapter on a device, with every combination of its backends and executions."""
    found = []
    for name in data.adapters():
        try:
            options = parse(name, device=device).profile.options
        except UsageError:
            continue  # this adapter knows no such device
        axes = [[f"{option}={value}" for value in values] for option, values in options.items() if option != "device"]
        for chosen in itertools.product(*axes):
            spelled = [pair for pair, axis in zip(chosen, axes, strict=True) if pair != axis[0]]
            found.append(parse(",".join((name, *spelled)), device=device))
    return found


def named_here(device: str, aliases: Mapping[str, str]) -> Iterator[Row]:
    """The targets of the configuration, those of a named version in their environments if these were made."""
    for name, text in aliases.items():
        try:
            target = replace(parse(name, device=device, named=aliases), name=f"{name} = {text}")
            python = environments.made(target.recipe) if target.recipe is not None else None
            if python is not None:
                target = replace(target, python=str(python), missing="")
            elif target.recipe is not None:
                target = replace(target, missing="its environment is not made yet; conformance run makes it")
            yield Row(target.name, target)
        except UsageError as error:
            yield Row(f"{name} = {text}", str(error))


def show(device: str) -> int:
    """Start every variant and every target of the configuration, and say what it is or why it cannot run, row by row.

    Returns:
        The exit code: 3 if none can run.

    Raises:
        UsageError: the configuration cannot be read.
    """
    console = make_console()
    rows = [Row(target.name, target) for target in variants(device)]
    rows += named_here(device, configured(Path.cwd()))
    width = max((len(row.name) for row in rows), default=0)
    told = f"starting {len(rows)} targets; a framework takes seconds to import"

    def tell(name: str, runs: str, what: str) -> None:
        console.print(f"{one_line(name, 1000):<{width}} │ {runs:<6} │ {one_line(what, 2000)}".rstrip(), markup=False)

    if not console.is_terminal:
        Console(stderr=True, highlight=False).print(f"{told} …", markup=False)
    tell("target", "runs", "what")
    console.print(f"{'─' * width}─┼────────┼─────", markup=False)
    running = 0
    with console.status(told):
        for row, start in _started(rows, min(Limits().cpus, _AT_ONCE)):
            if isinstance(row.target, Target) and isinstance(start, Started):
                running += 1
                own = row.target.options
                tell(
                    row.name,
                    "yes",
                    ", ".join(f"{name} {fact}" for name, fact in start.facts.items() if name not in own),
                )
            else:
                tell(row.name, *_why_not(row.target, start))
    return 0 if running else 3


def _started(rows: Sequence[Row], at_once: int) -> Iterator[tuple[Row, Start | None]]:
    """Every row in order, with what became of its start, so many at once; None where there was nothing to start."""
    for batch in (rows[first : first + at_once] for first in range(0, len(rows), at_once)):
        targets = {row.target.name: row.target for row in batch if isinstance(row.target, Target)}
        with Pool(list(targets.values())) as pool:
            starts = pool.start()
        for row in batch:
            yield row, starts[row.target.name] if isinstance(row.target, Target) else None


def _why_not(target: Target | str, start: Start | None) -> tuple[str, str]:
    """``no`` or ``broken``, and the reason, with what to do about it where that is known."""
    if isinstance(target, str) or start is None or isinstance(start, Started):
        return "no", str(target)
    reason = (start.message.strip().splitlines() or [""])[-1]
    step = next_step(target, start.message)
    return "broken" if start.broken else "no", f"{reason} ({step})" if step else reason
