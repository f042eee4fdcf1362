"""The command merge: shards of one run into one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from conformance.errors import UsageError
from conformance.record import default_folder
from conformance.report import write_reports
from conformance.run_folder import read
from conformance.upgrades.copies import merge as merged


def merge(runs: Sequence[Path], out: Path | None) -> None:
    """Put the runs together, write the reports, and print where they are.

    Raises:
        UsageError: a run cannot be read, the runs do not fit together, or `out` cannot be written to.

    """
    if len(runs) < 2:
        raise UsageError("there is one run: nothing to merge")
    with merged([read(run) for run in runs], out or default_folder(), ["conformance", *sys.argv[1:]]) as writer:
        write_reports(read(writer.folder), writer.folder)
        folder = writer.publish()
    print(folder / "report.html")
