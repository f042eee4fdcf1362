"""What is wrong with case files: every error with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conformance.errors import UsageError


@dataclass(frozen=True)
class CaseError:
    """One thing wrong with one case file. Renders as ``file:line:column: path: message (hint)``.

    Attributes:
        line: from 1; 0 where the file as a whole is meant, as with one that does not exist.
        column: from 1; 0 where the line says enough.
        path: dotted keys as the file writes them, from the case's body down; empty where the place says it all.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """One line, whatever a hostile file has put into it."""
        place = ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])
        what = f"{_short(self.path, 200)}: " if self.path else ""
        hint = f" ({_short(self.hint, 400)})" if self.hint else ""
        return _printable(f"{place}: {what}{_short(self.message, 400)}{hint}")


class CaseErrors(UsageError):
    """Raised for case files that cannot run; carries every error of every file."""

    def __init__(self, errors: Sequence[CaseError], advice: str = "") -> None:
        """The errors a line each, and then what may be done about some of them."""
        super().__init__("\n".join([*map(str, errors), *([advice] if advice else [])]))
        self.errors = tuple(errors)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
