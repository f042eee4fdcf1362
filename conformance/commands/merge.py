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
from conformance.upgrades.copies import without_pairs


def merge(runs: Sequence[Path], out: Path | None) -> None:
    """Put the runs together, write the reports, and print where they are.

    Raises:
        UsageError: a run cannot be read, the runs do not fit together, or `out` cannot be written to.

    """
    if len(runs) < 2:
        raise UsageError("there is one run: nothing to merge")
    with merged([read(run) for run in runs], out or default_folder(), ["conformance", *sys.argv[1:]]) as writer:
        run = read(writer.folder)
        for pair in without_pairs(run):
            words = "ran in different shards, so that they are not held against each other"
            print(f"conformance: {' and '.join(pair)} {words}; shards by case (-k) have their pairs", file=sys.stderr)
        write_reports(run, writer.folder)
        folder = writer.publish()
    print(folder / "report.html")
