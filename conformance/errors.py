"""What a person may have got wrong, as one exception that renders as what happened and what to do next."""

from __future__ import annotations


class UsageError(Exception):
    """Raised for a command line, a configuration or a file that cannot be used; exit code 2."""

    code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NothingToRun(UsageError):
    """Raised where everything is in order and nothing would run; exit code 3."""

    code = 3

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(f"nothing to run: {why}", hint)
