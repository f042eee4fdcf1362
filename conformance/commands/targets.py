"""The command targets: what can run here, found out by starting it."""

from __future__ import annotations

import itertools

from rich.markup import escape
from rich.table import Table

from conformance import data
from conformance.commands.console import console as make_console
from conformance.crew import Started
from conformance.errors import UsageError
from conformance.pool import Pool
from conformance.target import Target, parse


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


def show(device: str) -> int:
    """Start every variant, one after another, and say what it is or why it cannot run; 3 if none can."""
    console = make_console()
    table = Table(show_edge=False, pad_edge=False)
    for column in ("target", "runs", "what"):
        table.add_column(column)
    running = 0
    with console.status("starting targets"):
        for target in variants(device):
            with Pool([target]) as pool:
                start = pool.start()[target.name]
            if isinstance(start, Started):
                running += 1
                facts = ", ".join(f"{name} {fact}" for name, fact in start.facts.items() if name not in target.options)
                table.add_row(escape(target.name), "yes", escape(facts))
            else:
                reason = (start.message.strip().splitlines() or [""])[-1]
                table.add_row(escape(target.name), "broken" if start.broken else "no", escape(reason))
    console.print(table)
    return 0 if running else 3
