"""The command line: what each command is called with. What it does is in `conformance.commands`, imported on use."""

from __future__ import annotations

import gc
import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from conformance.errors import UsageError
from conformance.plain_help import PlainCommand

app = typer.Typer(
    name="conformance",
    help="Does BatchNorm mean the same thing in PyTorch, MindSpore and Keras?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        from conformance.suite_version import NAME, suite_version

        print(f"{NAME} {suite_version()}")
        raise typer.Exit


@app.callback()
def conformance(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the suite's version.")
    ] = False,
) -> None:
    """Does BatchNorm mean the same thing in PyTorch, MindSpore and Keras?"""


Paths = Annotated[
    Optional[list[Path]],
    typer.Argument(metavar="PATH", help="Case files or folders; the suite's own corpus if none."),
]
Targets = Annotated[
    Optional[list[str]],
    typer.Option(
        "-t",
        "--target",
        metavar="TARGET",
        help="Such as torch, keras,backend=jax or ./my_adapter; every installed one if none.",
    ),
]
Known = Annotated[
    Optional[list[str]],
    typer.Option("-t", "--target", metavar="TARGET", help="Cases may speak to it, such as ./my_adapter; not started."),
]
Select = Annotated[str, typer.Option("-k", metavar="EXPR", help="Parts of case ids, with and, or, not, parentheses.")]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="cpu or cuda.")]
Seconds = Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="That one case may take.")]
Within = Annotated[Optional[list[Path]], typer.Option("-p", "--path", metavar="PATH", help="Where the case is.")]
Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, metavar="N", help="Processes per target or version.")]
Out = Annotated[Optional[Path], typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 unless everything is the same to the last bit.")]
CaseId = Annotated[str, typer.Argument(metavar="CASE", help="A case's id.")]
Stored = Annotated[Path, typer.Argument(metavar="RUN", help="A stored run.")]


@app.command(cls=PlainCommand)
def run(
    paths: Paths = None,
    target: Targets = None,
    select: Select = "",
    out: Annotated[
        Optional[Path],
        typer.Option("-o", "--out", metavar="DIR", help="Folder of the run; takes the place of one there."),
    ] = None,
    jobs: Jobs = 1,
    device: Device = "cpu",
    timeout: Seconds = 120.0,
    baseline: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Say what changed since this baseline.")
    ] = None,
    save_baseline: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Keep the run as a baseline in this folder.")
    ] = None,
) -> None:
    """Run cases on targets, judge every result, and write a report.

    Exits with 0 if everything is as expected (with --baseline: as it was), 1 on unexpected verdicts (on changes) or
    where a framework is here and broken, 2 on bad usage or bad case files, 3 if a target that was asked for cannot run,
    or nothing ran.
    """
    from conformance.commands.launch import run as command

    raise typer.Exit(command(paths or [], target or [], select, out, jobs, device, timeout, baseline, save_baseline))


@app.command("list", cls=PlainCommand)
def list_(paths: Paths = None, select: Select = "", target: Known = None) -> None:
    """Print the case ids, one a line."""
    from conformance.commands.corpus import list_cases

    list_cases(paths or [], select, target or [])


@app.command(cls=PlainCommand)
def validate(paths: Paths = None, target: Known = None) -> None:
    """Check case files; print every error of every file."""
    from conformance.commands.corpus import validate as command

    command(paths or [], target or [])


@app.command(cls=PlainCommand)
def schema() -> None:
    """Print the JSON Schema of case files, for editors."""
    from conformance.commands.corpus import print_schema

    print_schema()


@app.command(cls=PlainCommand)
def targets(device: Device = "cpu") -> None:
    """Say what can run here, and why the rest cannot."""
    from conformance.commands.targets import show

    raise typer.Exit(show(device))


@app.command(cls=PlainCommand)
def explain(
    case: CaseId,
    paths: Within = None,
    target: Targets = None,
    device: Device = "cpu",
) -> None:
    """Run one case and show it end to end.

    Per target what it received and returned, and per tensor the error, the bound and the diagnosis.
    """
    from conformance.commands.explain import explain as command

    raise typer.Exit(command(case, paths or [], target or [], device))


@app.command(cls=PlainCommand)
def repro(
    case: CaseId,
    target: Annotated[
        str, typer.Option("-t", "--target", metavar="TARGET", help="Such as torch or keras,backend=jax.")
    ],
    paths: Within = None,
    run: Annotated[
        Optional[Path], typer.Option("--run", metavar="RUN", help="A stored run to take the result from.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Print a script that shows a result without the suite.

    It is plain framework code, for an upstream bug report: it needs the framework and NumPy only, and exits with 1
    while the discrepancy is there, else with 0.
    """
    from conformance.commands.repro import repro as command

    raise typer.Exit(command(case, paths or [], target, device, run))


@app.command(cls=PlainCommand)
def report(run: Stored) -> None:
    """Write the reports of a stored run anew."""
    from conformance.commands.report import write

    write(run)


@app.command(cls=PlainCommand)
def findings(
    run: Stored,
    into: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Put them into this Markdown file, which has a place for them."),
    ] = None,
) -> None:
    """Print what a stored run found, as Markdown tables."""
    from conformance.commands.findings import show

    show(run, into)


@app.command(cls=PlainCommand)
def upgrade(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="Such as mindspore==2.9.0 or 'mindspore==2.0.0,python=3.9'.")
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The version to move to.")],
    paths: Paths = None,
    select: Select = "",
    out: Out = None,
    jobs: Jobs = 1,
    device: Device = "cpu",
    timeout: Seconds = 120.0,
    strict: Strict = False,
) -> None:
    """Run two versions side by side and say what changed.

    Each is installed in an environment of its own. Exits with 0 if nothing changed beyond the bound on rounding, 1 if
    something did, 2 on bad usage, 3 if an environment could not be built, a version did not start, or nothing ran.
    """
    from conformance.commands.upgrade import upgrade as command

    raise typer.Exit(command(old, new, paths or [], select, out, jobs, device, timeout, strict))


@app.command(cls=PlainCommand)
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A stored run or a baseline.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A stored run.")],
    out: Out = None,
    strict: Strict = False,
) -> None:
    """Say what changed between two stored runs, target by target."""
    from conformance.commands.compare import compare as command

    raise typer.Exit(command(old, new, out, strict))


@app.command(cls=PlainCommand)
def history(
    what: Annotated[
        list[str],
        typer.Argument(metavar="WHAT", help="A framework, such as torch; versions, such as torch==1.9.0; runs."),
    ],
    paths: Annotated[
        Optional[list[Path]], typer.Option("-p", "--path", metavar="PATH", help="Case files or folders.")
    ] = None,
    select: Select = "",
    out: Out = None,
    jobs: Jobs = 1,
    device: Device = "cpu",
    timeout: Seconds = 120.0,
    resume: Annotated[bool, typer.Option("--resume", help="Take the versions whose runs --out has already.")] = False,
) -> None:
    """Show what changed over the versions of a framework.

    The table says where each convention and each finding appears and disappears. A framework's bare name stands for the
    versions that its adapter lists. Exits with 3 if a version could not run, or nothing ran.
    """
    from conformance.commands.history import show_history

    raise typer.Exit(show_history(what, paths or [], select, out, jobs, device, timeout, resume))


@app.command(cls=PlainCommand)
def merge(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Runs that share no result, of one suite on one machine.")
    ],
    out: Out = None,
) -> None:
    """Put the shards of one run together."""
    from conformance.commands.merge import merge as command

    command(runs, out)


baseline_app = typer.Typer(help="Keep a run beside the code, to learn what changed since.", no_args_is_help=True)
app.add_typer(baseline_app, name="baseline")


@baseline_app.command(cls=PlainCommand)
def update(
    baseline: Annotated[Path, typer.Argument(metavar="DIR", help="The baseline's folder; made if it is not there.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The stored run to make it of.")],
    bless: Annotated[
        Optional[list[str]],
        typer.Option(metavar="CASE", help="A case whose unexpected verdict is to be the baseline; repeatable."),
    ] = None,
) -> None:
    """Make a stored run the baseline.

    An unexpected verdict that is new has to be blessed by its case's name; else it exits with 1 and changes nothing.
    """
    from conformance.commands.baseline import update as command

    raise typer.Exit(command(baseline, run, bless or []))


@baseline_app.callback()
def _baseline() -> None:
    """Keep a run beside the code, to learn what changed since."""


@app.command(cls=PlainCommand)
def docs(
    run: Annotated[
        Optional[Path],
        typer.Argument(metavar="RUN", help="A stored run, whose cases prove each row; the last one here if none."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of the pages.")] = Path("differences"),
) -> None:
    """Write what sets two frameworks apart, for porting.

    A page in Markdown for every pair of the frameworks in a run.
    """
    from conformance.commands.docs import write

    write(run, out)


def main() -> None:
    """Run the command line; a person's mistake is a message and exit code 2, never a traceback."""
    gc.set_threshold(20_000)  # what cases and lines are made of lives long: at 700, looking for cycles takes a fifth
    for word in ("SIGINT", "SIGTERM", "SIGHUP"):  # workers end, and nothing half-written stays
        number = getattr(signal, word, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        Path.cwd()
    except FileNotFoundError:
        print("conformance: the working directory is not there any more (change to another)", file=sys.stderr)
        sys.exit(2)
    try:
        app()
    except UsageError as error:
        from conformance.safe_text import clean

        print(f"conformance: {clean(str(error))}", file=sys.stderr)
        sys.exit(error.code)
    except BrokenPipeError:
        sys.exit(141)
