"""The command report: a stored run's reports, written anew."""

from __future__ import annotations

from pathlib import Path

from conformance.errors import UsageError
from conformance.report import write_reports
from conformance.run_folder import read


def write(run: Path) -> None:
    """Write report.html, junit.xml and summary.md into the run's folder and print the first's path.

    Raises:
        UsageError: the folder holds no whole run, or cannot be written to.

    """
    for path in sorted(run.iterdir()) if run.is_dir() else ():
        if path.is_symlink():
            raise UsageError(f"{path} is a link: what is written there would land elsewhere", hint="a run has none")
        if not (path.is_file() or path.is_dir()):
            raise UsageError(f"{path} is no plain file: a pipe would be waited for", hint="a run has none")
    try:
        write_reports(read(run), run)
    except OSError as error:
        raise UsageError(f"cannot write the reports of {run}: {error.strerror}") from error
    print(run / "report.html")
