"""The command findings: what a stored run found, as Markdown."""

from __future__ import annotations

from pathlib import Path

from conformance.errors import UsageError
from conformance.findings_table import inserted, tables
from conformance.run_folder import read
from conformance.whole import replacing


def show(run: Path, into: Path | None) -> None:
    """Print the tables, or put them between the marks of a document.

    Raises:
        UsageError: the folder holds no whole run, or the document cannot be read, written or has no marks.

    """
    text = tables(read(run))
    if into is None:
        print(text)
        return
    try:
        document = inserted(into.read_text(encoding="utf-8"), text, str(into))
        with replacing(into) as file:
            file.write(document)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot put findings into {into}: {error}") from error
