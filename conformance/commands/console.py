"""Where commands print: wide enough for a table where there is no terminal to ask."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from conformance.safe_text import clean

#: Columns where the output is no terminal, such as a CI log.
WIDTH = 140


class _Calm(Console):
    """A console on which no text moves the cursor, changes a colour or turns the reading direction."""

    def render_str(self, text: str, **rest: Any) -> Text:
        return super().render_str(clean(text), **rest)


def console() -> Console:
    """A console for people; markup is on, so what comes from cases and frameworks has to be escaped."""
    return _Calm(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
