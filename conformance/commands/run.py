"""The command run: the main job, with progress, a summary, and the path of the report.

However it ends, what was judged is kept: see `conformance.record` and `conformance.commands.interruption`.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from conformance.case import Case
from conformance.commands import baseline as baselines
from conformance.commands.absent import next_step
from conformance.commands.corpus import read_cases
from conformance.commands.exit_codes import AS_EXPECTED, COULD_NOT_RUN, UNEXPECTED
from conformance.commands.interruption import Interruption
from conformance.commands.nothing import fitting, nothing_to_run
from conformance.crew import Interrupted, NotStarted, Start, Started, cpus
from conformance.errors import UsageError
from conformance.findings import message
from conformance.judge import VERDICTS, Verdict
from conformance.judges import Judges
from conformance.pool import Pool
from conformance.record import RunWriter, default_folder
from conformance.report import write_reports
from conformance.run_folder import Line, Run, read, read_info
from conformance.safe_text import clean, one_line
from conformance.session import judged, targets_of
from conformance.target import Target

#: Processes that judge beside this one, at most: more would wait for the frameworks. Those come first, so that there
#: are none on two CPUs.
HELPERS = 4


@dataclass(frozen=True)
class Done:
    """What a run has come to: the run as stored, None where no target came up, and what became of each start."""

    cases: Collection[Case]
    targets: Sequence[Target]
    stored: Run | None
    starts: Mapping[str, Start]


def carried_out(
    console: Console, interruption: Interruption, paths: Sequence[Path], select: str, out: Path | None
) -> Done:
    """Read the cases while the targets of the interruption's pool come up, and execute them.

    Raises:
        NothingToRun: no target is here, or no case speaks to one.

    """
    targets = interruption.pool.targets
    cases = read_cases(paths, select, frozenset(target.framework for target in targets))
    if not fitting(cases, targets):
        raise nothing_to_run(cases, targets, select)
    return Done(cases, targets, *execute(console, interruption, cases, out))


def concluded(
    console: Console, done: Done, *, named: bool, baseline: Path | None = None, save_baseline: Path | None = None
) -> int:
    """Say what a run has come to; return the exit code.

    Args:
        named: a person named the targets, so that each has to run.
    """
    stored, starts = done.stored, ((target, done.starts.get(target.name)) for target in done.targets)
    absent = [(target, start) for target, start in starts if isinstance(start, NotStarted)]
    if stored is not None:
        _summarise(console, stored)
    for target, start in absent:
        words = "is broken" if start.broken else "refused to start"
        step = next_step(target, start.message)
        said = clean(start.message).strip() + (f" ({step})" if step else "")
        console.print(f"[bold]{escape(target.name)} {words}[/]: {escape(said)}")
    if stored is None:
        console.print("Nothing ran, so that no run is stored and there is no report.")
        return COULD_NOT_RUN
    console.print(f"Report: {stored.path / 'report.html'}", markup=False)
    if named and absent:
        return COULD_NOT_RUN
    if any(start.broken for _, start in absent):
        return UNEXPECTED
    if save_baseline is not None:
        return baselines.save(console, save_baseline, stored)
    if baseline is not None:
        return baselines.against(console, baseline, stored, frozenset(case.id for case in done.cases))
    return UNEXPECTED if stored.unexpected else AS_EXPECTED


#: Writes more into a run's folder before that is published.
Reports = Callable[[Run, Path], None]


def execute(
    console: Console,
    interruption: Interruption,
    cases: Collection[Case],
    out: Path | None,
    reports: Reports = write_reports,
) -> tuple[Run | None, dict[str, Start]]:
    """Run the cases on the targets of the interruption's pool and store the run.

    The pool's workers end when all is judged.

    Returns:
        The run, as it stands, or None where no target came up and none is stored; and what became of each start.

    Raises:
        SystemExit: a signal ended the run; what was judged is kept beside its place.
        UsageError: the run cannot be written, or needs more memory than there is.

    """
    command = ["conformance", *sys.argv[1:]]
    if out is not None:
        _say_what_goes(console, out)
    pool = interruption.pool
    with RunWriter(out or default_folder(), command, replace=out is not None) as writer:
        try:
            _judge_all(writer, pool, cases, console)
            if not any(isinstance(start, Started) for start in pool.starts.values()):
                return None, dict(pool.starts)
            finished = writer.finish(pool.targets, pool.starts)
            stored = read(finished)
            reports(stored, finished)
            return replace(stored, path=writer.publish()), dict(pool.starts)
        except BaseException as error:
            interruption.shield()
            kept = writer.keep(pool.targets, pool.starts)
            if kept is not None and isinstance(error, Interrupted):
                _summarise(console, read(kept, partial=True))
            _explain(error, interruption, _left(kept, whole=writer.finished))
            raise


def _say_what_goes(console: Console, out: Path) -> None:
    """Name the run that stands at `out`, if one does, before anything runs: a whole one is going to replace it."""
    with contextlib.suppress(UsageError):
        info = read_info(out)
        targets = ", ".join(target["name"] for target in info["targets"] if target["ran"]) or "no target"
        started = info["started"][:16].replace("T", " ")
        words = one_line(
            f"{out} holds the run of {started} on {targets}, which this one replaces once it is whole", 400
        )
        console.print(words, markup=False)


def _judge_all(writer: RunWriter, pool: Pool, cases: Collection[Case], console: Console) -> None:
    """Run and judge every case, each recorded as it settles."""
    judges = Judges(min(max(0, cpus() - 2), HELPERS), pool.wake)
    with pool, judges, Watcher(console, cases, pool.targets) as watcher:
        for settled in judged(cases, pool, watcher.verdict, judges):
            case = settled.problem.case
            writer.case(settled.problem)
            for name, side in settled.sides.items():
                writer.verdict(case.id, name, side.verdict, side.observation, side.evidence)
            for (a, b), agreement in settled.pairs.items():
                writer.pair(case.id, a, b, agreement)


def _left(kept: Path | None, *, whole: bool) -> str:
    """What an unfinished run leaves, in words."""
    if kept is None:
        return "nothing was judged"
    if whole:
        return f"every verdict is in {kept}: write its reports with conformance report"
    return f"what was judged is in {kept}, which is no whole run"


def _explain(error: BaseException, interruption: Interruption, left: str) -> None:
    """Say why a run ended and what it leaves.

    Raises:
        SystemExit: a signal ended the run.
        UsageError: the run cannot be written, or needs more memory than there is.

    """
    if interruption.number is not None:
        print(f"conformance: interrupted by {interruption.number.name}; {left}", file=sys.stderr)
        sys.exit(128 + interruption.number)
    if isinstance(error, OSError):
        raise UsageError(f"cannot write the run: {error.strerror or error}", hint=left) from error
    if isinstance(error, MemoryError):
        raise UsageError(f"there is not enough memory: {error}".rstrip(": "), hint=left) from error
    print(f"conformance: {type(error).__name__}; {left}", file=sys.stderr)


class Watcher:
    """Progress while a run goes on: a bar per target on a terminal, a line per tenth elsewhere."""

    def __init__(self, console: Console, cases: Collection[Case], targets: Sequence[Target]) -> None:
        self._console = console
        spoken_to = Counter(target.name for case in cases for target in targets_of(case, targets))
        self._totals = {target.name: spoken_to[target.name] for target in targets}
        self._done: Counter[str] = Counter()
        self._unexpected: Counter[str] = Counter()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[case]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks = {
            name: self._progress.add_task(escape(name), total=total, case="starting")
            for name, total in self._totals.items()
        }

    def __enter__(self) -> Watcher:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._progress.stop()

    def verdict(self, case: Case, target: Target, verdict: Verdict) -> None:
        """One verdict has fallen."""
        self._done[target.name] += 1
        self._unexpected[target.name] += verdict.status == "unexpected"
        done, total = self._done[target.name], self._totals[target.name]
        if self._console.is_terminal:
            self._progress.update(self._tasks[target.name], advance=1, case="" if done == total else case.id)
        elif done == total or done * 10 // total != (done - 1) * 10 // total:
            unexpected = self._unexpected[target.name]
            note = f", {unexpected} unexpected" if unexpected else ""
            self._console.print(f"{target.name}: {done} of {total}{note} · {case.id}", markup=False)


def _summarise(console: Console, run: Run) -> None:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("target")
    table.add_column("version")
    counts = {target["name"]: Counter[str]() for target in run.targets}
    for verdict in run.verdicts:
        counts[verdict["target"]].update((verdict["verdict"], verdict["status"]))
    shown = [name for name in VERDICTS if any(count[name] for count in counts.values())]
    for name in (*shown, "unexpected"):
        table.add_column(name, justify="right")
    for target in run.targets:
        count = counts[target["name"]]
        cells = [str(count[name] or "·") for name in (*shown, "unexpected")]
        table.add_row(escape(target["name"]), escape(target["facts"].get("version", "")), *cells)
    console.print()
    console.print(table)
    console.print()
    for verdict in run.unexpected:
        console.print(
            f"[bold]unexpected[/] {escape(verdict['target'])} {verdict['verdict']} {escape(verdict['case'])}: "
            f"{escape(_brief(verdict))} (expected {escape(verdict['expected'])})"
        )


def _brief(verdict: Line) -> str:
    """Why, in a line; of what type an exception is, a crash and a timeout say by their names."""
    error = verdict["error"]
    words = verdict["because"] or (error["message"] if isinstance(error, dict) else "")
    if verdict["verdict"] == "broken":
        words = message(verdict)
    first = clean(str(words)).strip().splitlines() or [""]
    return first[0][:300]
