"""Where commands print: wide enough for a table where there is no terminal to ask."""

from __future__ import annotations

import sys

from rich.console import Console

#: Columns where the output is no terminal, such as a CI log.
WIDTH = 140


def console() -> Console:
    """A console for people; markup is on, so what comes from cases and frameworks has to be escaped."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
