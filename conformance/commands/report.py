"""The command report: a stored run's reports, written anew."""

from __future__ import annotations

from pathlib import Path

from conformance.report import write_reports
from conformance.run_folder import read


def write(run: Path) -> None:
    """Write report.html, junit.xml and summary.md into the run's folder and print the first's path."""
    write_reports(read(run), run)
    print(run / "report.html")
