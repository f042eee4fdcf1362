"""The command history: versions of a framework side by side in one table, each run in its own environment."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conformance import versions
from conformance.commands.compare import safe_name
from conformance.commands.console import console as make_console
from conformance.commands.corpus import read_cases
from conformance.commands.exit_codes import COULD_NOT_RUN
from conformance.commands.interruption import Interruption
from conformance.commands.launch import provided
from conformance.commands.nothing import nothing_to_run
from conformance.commands.run import execute
from conformance.configuration import configured
from conformance.crew import Limits, NotStarted
from conformance.errors import UsageError
from conformance.judge import VERDICTS
from conformance.pool import Pool
from conformance.record import default_folder
from conformance.run_folder import read
from conformance.session import targets_of
from conformance.target import Target, adapter_of, parse
from conformance.upgrades import page
from conformance.upgrades.changes import CHANGES, Half
from conformance.upgrades.history import Cell, History, Row, Version, history

#: Sections of the table, in order.
KINDS = (("convention", "Convention"), ("refused", "Refusal"), ("finding", "Finding"))


def show_history(
    named: Sequence[str],
    paths: Sequence[Path],
    select: str,
    out: Path | None,
    jobs: int,
    device: str,
    timeout: float,
    resume: bool,
) -> int:
    """Run every version, one after another, and write the table; return the exit code.

    Raises:
        UsageError: a name that is no framework, version or stored run, or a folder that cannot be written to.
        NothingToRun: no case is chosen that speaks to a version.

    """
    console = make_console()
    out = out or default_folder()
    columns: dict[str, list[Half | Version]] = {}
    for text in _expanded(named, device):
        stored = out / safe_name(text)
        if resume and (stored / "run.json").is_file():
            text = str(stored)
        title, column = _column(console, text, paths, select, out, jobs, device, timeout)
        columns.setdefault(title, []).append(column)
    histories = [history(title, of) for title, of in columns.items()]
    for one in histories:
        _show(console, one)
    try:
        out.mkdir(parents=True, exist_ok=True)
        values = _values(histories, columns, paths, select)
        (out / "history.html").write_text(page.rendered("history.html.j2", values), encoding="utf-8", newline="\n")
        template = page.templates(autoescape=False).get_template("history.md.j2")
        (out / "history.md").write_text(_spaced(template.render(values)), encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}") from error
    console.print(f"Report: {out / 'history.html'}", markup=False)
    missing = any(version.missing for one in histories for version in one.versions)
    return COULD_NOT_RUN if missing else 0


def _expanded(named: Sequence[str], device: str) -> list[str]:
    """The targets and runs named, a framework's own list of versions in place of its bare name; all can be read.

    Raises:
        UsageError: a framework that has no such list, or what is no target.

    """
    found = []
    aliases = configured(Path.cwd())
    for text in named:
        head, *options = text.split(",")
        if (Path(text) / "run.json").is_file() or "==" in head or any(o.startswith("version=") for o in options):
            if not (Path(text) / "run.json").is_file():
                parse(text, device=device, named=aliases)  # what is wrong with the last is said before the first runs
            found.append(text)
            continue
        listed = versions.read(adapter_of(head)[0]).history
        if not listed:
            raise UsageError(f"no versions of {head} are listed", hint=f"name them: {head}==VERSION …")
        wanted = [one if "==" in one else f"{head}=={one}" for one in listed]
        found += [",".join((one, *options)) for one in wanted]
    return found


def _column(
    console: Console,
    text: str,
    paths: Sequence[Path],
    select: str,
    out: Path,
    jobs: int,
    device: str,
    timeout: float,
) -> tuple[str, Half | Version]:
    """The framework's name, and the version as it ran or why it did not."""
    if (Path(text) / "run.json").is_file():
        run = read(Path(text))
        if len(run.targets) != 1:
            raise UsageError(f"{text} holds {len(run.targets)} targets that ran", hint="name a run of one target")
        return run.targets[0]["title"], Half(run, run.targets[0]["name"])
    target = parse(text, device=device, named=configured(Path.cwd()))
    known = frozenset({target.framework})
    cases = read_cases(paths, select, known, lambda case: bool(targets_of(case, [target])))
    if not cases:  # said before an environment is made for it
        raise nothing_to_run(read_cases(paths, select, known), [target], select)
    (target,) = provided([target], console)
    title = target.profile.name
    if target.missing:
        console.print(f"[bold]{escape(text)}[/]: {escape(target.missing)}")
        return title, Version(text, _release(target), missing=target.missing)
    with Interruption(Pool([target], Limits(case_seconds=timeout), jobs)) as interruption:
        ran, starts = execute(console, interruption, cases, out / safe_name(text))
    start = starts[target.name]
    if isinstance(start, NotStarted):
        console.print(f"[bold]{escape(text)} did not start[/]: {escape(start.message.strip())}")
        return title, Version(text, _release(target), missing=start.message.strip())
    assert ran is not None  # its one target came up
    return title, Half(ran, target.name)


def _release(target: Target) -> str:
    return target.recipe.title.partition("==")[2] if target.recipe else target.name


def _values(
    histories: Sequence[History], columns: dict[str, list[Half | Version]], paths: Sequence[Path], select: str
) -> dict[str, object]:
    halves = [column for of in columns.values() for column in of if isinstance(column, Half)]
    topics = sorted({case["topic"] for half in halves for case in half.run.cases.values()})
    cases = {case for half in halves for case in half.run.cases}
    chosen = f" chosen with -k {select!r}" if select else ""
    number = sum(len(one.versions) for one in histories)
    machine = halves[0].run.info["platform"] if halves else {}
    return {
        "headline": f"{number} versions of {', '.join(one.title for one in histories)} on {len(cases):,} cases",
        "about": f"Every version ran in an environment of its own, on {len(cases):,} cases{chosen} of "
        f"{len(topics)} topic{'' if len(topics) == 1 else 's'}: {', '.join(topics)}.",
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["conformance", *sys.argv[1:]]),
        "system": f"{str(machine.get('system', '')).partition('-')[0]} {machine.get('machine', '')}, "
        f"{machine.get('processor', '')}",
        "changes": [
            change for change in CHANGES if any(v.since and v.since[change] for one in histories for v in one.versions)
        ],
        "histories": histories,
        "kinds": KINDS,
        "verdicts": [
            *(v for v in VERDICTS if any(x.totals.get(v) for h in histories for x in h.versions)),
            "unexpected",  # none is worth saying too
        ],
    }


def _spaced(text: str) -> str:
    """Markdown with one empty line between blocks and none within a table, of which the template leaves some."""
    lines: list[str] = []
    for line in map(str.rstrip, text.splitlines()):
        if line or (lines and lines[-1]):
            lines.append(line)

    def within(at: int) -> bool:
        before, after, next_ = (lines[at + step : at + step + 1] or [""] for step in (-1, 1, 2))
        return before[0][:1] == after[0][:1] == "|" and not next_[0].startswith("| ---")

    kept = [line for at, line in enumerate(lines) if line or (at and not within(at))]
    return "\n".join(kept).strip() + "\n"


def _show(console: Console, one: History) -> None:
    console.print()
    console.print(f"{one.title}: where conventions and findings appear and disappear", style="bold", markup=False)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    for version in one.versions:
        table.add_column(escape(version.label))
    for verdict in ("conforms", "conventional", "unexpected"):
        table.add_row(verdict, *(str(version.totals.get(verdict, "·")) for version in one.versions))
    for kind, _ in KINDS:
        for row in one.rows:
            if row.kind == kind and row.moves:
                table.add_row(escape(row.title[:60]), *(_cell(row, cell) for cell in row.cells))
    console.print(table)
    still = sum(not row.moves for row in one.rows)
    console.print(f"{still} more are the same in every version.")


def _cell(row: Row, cell: Cell | None) -> str:
    if cell is None:
        return "did not run"
    if not cell.count:
        return "·" if cell.of else "not told"
    of = f" of {cell.of}" if row.kind == "convention" and cell.count != cell.of else ""
    return f"{cell.count}{of}" + (f" ({cell.where})" if cell.where else "") + (" !" if cell.unexpected else "")
