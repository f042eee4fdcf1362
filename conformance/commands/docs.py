"""The command docs: the API differences of every two frameworks of a run, as Markdown."""

from __future__ import annotations

from pathlib import Path

from conformance.errors import UsageError
from conformance.record import default_folder
from conformance.report import difference_pages
from conformance.run_folder import read
from conformance.whole import replacing


def write(run: Path | None, out: Path) -> None:
    """Write a page for every pair of frameworks and print where each is.

    Args:
        run: a stored run; None for the last that was given no folder of its own.

    Raises:
        UsageError: the folder holds no whole run, or fewer than two frameworks that come with the suite; or the pages
            cannot be written.

    """
    run = run or _last()
    pages = difference_pages(read(run))
    if not pages:
        raise UsageError(f"{run} holds fewer than two frameworks whose profiles are known", hint="run two or more")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            with replacing(out / name) as file:
                file.write(text)
            print(out / name)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}", hint="name another with -o") from error


def _last() -> Path:
    folder = default_folder().parent
    runs = sorted(path.parent for path in folder.glob("*/run.json"))
    if not runs:
        raise UsageError(f"there is no run in {folder}", hint="name one, or make one: conformance run")
    return runs[-1]
