"""The command compare: what changed between two stored runs, target by target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conformance.commands.console import console as make_console
from conformance.errors import UsageError
from conformance.run_folder import Run, read
from conformance.safe_text import one_line
from conformance.upgrades import page
from conformance.upgrades.changes import CHANGES, HARMLESS, MEANINGS, Comparison, Half, grouped
from conformance.upgrades.changes import compare as compare_halves

#: Groups of cases, and cases of a group, that the terminal shows.
_GROUPS, _EXAMPLES = 30, 3


def compare(old: Path, new: Path, out: Path | None, strict: bool) -> int:
    """Compare every target that both runs have, write the reports where a folder is named; return the exit code.

    Raises:
        UsageError: a run cannot be read, or the two have no target in common.

    """
    console = make_console()
    before, after = read(old), read(new)
    pairs, lone = matched(before, after)
    for remark in lone:
        console.print(remark, markup=False)
    if not pairs:
        raise UsageError(f"{old} and {new} have no target in common")
    harmful = told(console, before, after, pairs, out, strict=strict)
    return 1 if harmful or lone else 0


def told(
    console: Console,
    before: Run,
    after: Run,
    pairs: Sequence[tuple[str, str]],
    out: Path | None,
    *,
    strict: bool = False,
    asked: frozenset[str] | None = None,
    called: str = "Report",
) -> bool:
    """Print what changed on these targets, write reports where a folder is named, and return whether it does harm.

    Args:
        pairs: names of a target before and after.
        asked: the cases that were selected, where not all were.
        called: what the reports' path is introduced by.

    Raises:
        UsageError: the folder cannot be written to.

    """
    harmful = False
    for a, b in pairs:
        comparison = compare_halves(Half(before, a), Half(after, b), asked)
        show(console, comparison, strict)
        harmful = harmful or bool(comparison.harmful(strict))
        if out is not None:
            console.print(f"{called}: {_written(comparison, out, b if len(pairs) > 1 else '', strict)}", markup=False)
    return harmful


def _written(comparison: Comparison, out: Path, target: str, strict: bool = False) -> Path:
    """Write a comparison's reports, below `out` by target where there are several, and return the HTML's path.

    Raises:
        UsageError: the folder cannot be written to.

    """
    folder = out / safe_name(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page.write(comparison, folder, strict)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error
    return folder / "changes.html"


def safe_name(target: str) -> str:
    """A target's name as a folder's: letters and digits, = . and -."""
    return "".join(letter if letter.isalnum() or letter in "=.-" else "-" for letter in target).strip(".")


def matched(before: Run, after: Run) -> tuple[list[tuple[str, str]], list[str]]:
    """The targets of two runs that belong together, and a remark on each that is alone.

    By name; else by framework, where each run has only one target of it left.
    """
    old = {target["name"]: target["framework"] for target in before.targets}
    new = {target["name"]: target["framework"] for target in after.targets}
    pairs = [(name, name) for name in new if name in old]
    rest = [{name: framework for name, framework in side.items() if (name, name) not in pairs} for side in (old, new)]
    for framework in dict.fromkeys(rest[1].values()):
        names = [[name for name, of in side.items() if of == framework] for side in rest]
        if [len(found) for found in names] == [1, 1]:
            pairs.append((names[0][0], names[1][0]))
    taken = [{a for a, _ in pairs}, {b for _, b in pairs}]
    remarks = [f"gone: target {name} is in the old run only" for name in old if name not in taken[0]]
    remarks += [f"new: target {name} is in the new run only" for name in new if name not in taken[1]]
    return pairs, remarks


def show(console: Console, comparison: Comparison, strict: bool = False) -> None:
    """Print what changed: the sentence, the classes, and the worst groups with some cases each."""
    console.print()
    console.print(page.headline(comparison, strict), style="bold", markup=False)
    if comparison.remarks:
        console.print("More than the version differs: " + "; ".join(comparison.remarks), markup=False)
    if comparison.left_out:
        console.print(f"{comparison.left_out} cases of the old side were not asked for and are not compared.")
    table = Table(show_edge=False, pad_edge=False)
    for column in ("class", "cases", "tensors", "meaning"):
        table.add_column(column, justify="right" if column in ("cases", "tensors") else "left")
    for change in reversed(CHANGES):
        if comparison.counts[change] or comparison.tensor_counts[change]:
            counts = (str(number[change] or "·") for number in (comparison.counts, comparison.tensor_counts))
            table.add_row(change, *counts, MEANINGS[change])
    console.print(table)
    admitted = {"identical"} if strict else HARMLESS
    groups = [group for group in grouped(comparison) if group[0] not in admitted]
    for change, what, cases in groups[:_GROUPS]:
        named = ", ".join(case.case for case in cases[:_EXAMPLES]) + (", …" if len(cases) > _EXAMPLES else "")
        words = one_line(what or (cases[0].what if len(cases) == 1 else MEANINGS[change]), 240)
        console.print(f"[bold]{change}[/] {len(cases)} × {escape(words)}: {escape(named)}")
    if len(groups) > _GROUPS:
        console.print(f"… and {len(groups) - _GROUPS} more groups; changes.html has them all")
