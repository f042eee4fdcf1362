"""The command line: what each command is called with. What it does is in `conformance.commands`, imported on use."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from conformance.errors import UsageError

app = typer.Typer(
    name="conformance",
    help="Does BatchNorm mean the same thing in PyTorch, MindSpore and Keras?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Paths = Annotated[Optional[list[Path]], typer.Argument(help="Case files or folders; the suite's own corpus if none.")]
Targets = Annotated[
    Optional[list[str]],
    typer.Option(
        "-t", "--target", help="Such as torch, keras,backend=jax or ./my_adapter; every installed one if none."
    ),
]
Select = Annotated[str, typer.Option("-k", metavar="EXPR", help="Parts of case ids, with and, or, not, parentheses.")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]


@app.command()
def run(
    paths: Paths = None,
    target: Targets = None,
    select: Select = "",
    out: Annotated[Optional[Path], typer.Option("-o", "--out", help="Folder of the run.")] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Processes per target.")] = 1,
    device: Device = "cpu",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one case may take.")] = 120.0,
) -> None:
    """Run cases on targets, judge every result, and write a report.

    Exits with 0 if everything is as expected, 1 on unexpected verdicts, 2 on bad usage or bad case files, 3 if a
    target that was asked for cannot run, or nothing ran.
    """
    from conformance.commands.run import run as command

    raise typer.Exit(command(paths or [], target or [], select, out, jobs, device, timeout))


@app.command("list")
def list_(paths: Paths = None, select: Select = "") -> None:
    """Print the case ids, one a line."""
    from conformance.commands.corpus import list_cases

    list_cases(paths or [], select)


@app.command()
def validate(paths: Paths = None) -> None:
    """Check case files; print every error of every file."""
    from conformance.commands.corpus import validate as command

    command(paths or [])


@app.command()
def schema() -> None:
    """Print the JSON Schema of case files, for editors."""
    from conformance.commands.corpus import print_schema

    print_schema()


@app.command()
def targets(device: Device = "cpu") -> None:
    """Say what can run here, in which version, and why the rest cannot."""
    from conformance.commands.targets import show

    raise typer.Exit(show(device))


@app.command()
def explain(
    case: Annotated[str, typer.Argument(help="A case's id.")],
    paths: Annotated[Optional[list[Path]], typer.Option("-p", "--path", help="Where the case is.")] = None,
    target: Targets = None,
    device: Device = "cpu",
) -> None:
    """Run one case and show it end to end: parameters, values, errors, bounds, diagnosis."""
    from conformance.commands.explain import explain as command

    raise typer.Exit(command(case, paths or [], target or [], device))


@app.command()
def repro(
    case: Annotated[str, typer.Argument(help="A case's id.")],
    target: Annotated[str, typer.Option("-t", "--target", help="Such as torch or keras,backend=jax.")],
    paths: Annotated[Optional[list[Path]], typer.Option("-p", "--path", help="Where the case is.")] = None,
    run: Annotated[Optional[Path], typer.Option("--run", help="A stored run to take the result from.")] = None,
    device: Device = "cpu",
) -> None:
    """Print a stand-alone script in plain framework code that shows the result, for an upstream bug report.

    The script needs the framework and NumPy only, and exits with 1 while the discrepancy is there, else with 0.
    """
    from conformance.commands.repro import repro as command

    raise typer.Exit(command(case, paths or [], target, device, run))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A stored run.")]) -> None:
    """Write the reports of a stored run anew."""
    from conformance.commands.report import write

    write(run)


def main() -> None:
    """Run the command line; a person's mistake is a message and exit code 2, never a traceback."""
    for word in ("SIGTERM", "SIGHUP"):  # as Ctrl-C does: workers end, and nothing half-written stays
        if hasattr(signal, word):
            signal.signal(getattr(signal, word), lambda number, _: sys.exit(128 + number))
    try:
        app()
    except UsageError as error:
        print(f"conformance: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)
