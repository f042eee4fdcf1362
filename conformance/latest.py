"""Answers that are kept, by what they were made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Latest:
    """The latest answers to what was asked, up to so many.

    Args:
        most: how many are kept; the oldest goes first.

    >>> latest = Latest(2)
    >>> made = [1.0]
    >>> latest.answer(lambda: sum(made), "sum", made)
    1.0
    >>> latest.answer(lambda: 0.0, "sum", made)
    1.0
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Hashable, tuple[Any, tuple[Any, ...]]] = {}

    def answer(self, find: Callable[[], Answer], question: Hashable, *made_of: Any) -> Answer:
        """The answer to a question about some objects, known by their identity: they live as long as it is kept."""
        key = (question, *map(id, made_of))
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = (find(), made_of)
            while len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
        answer: Answer = kept[0]
        return answer

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
