"""Cases as a run draws them: all are checked before the first runs, and few are in memory, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from conformance.case import Case
from conformance.load import CaseFile, checked

#: So many cases are held, about 5 kB each; of more, each is made from its document whenever it is drawn.
HELD = 3_000


class Cases(Collection[Case]):
    """The cases of files and folders that are chosen, in the order of `conformance.load`."""

    def __init__(
        self, paths: Sequence[Path], frameworks: frozenset[str] | None, chosen: Callable[[Case], bool]
    ) -> None:
        """Check the cases of these files and folders.

        Raises:
            CaseErrors: anything is wrong with any of them, chosen or not.

        """
        files: list[CaseFile] = []
        self._chosen = chosen
        self._number = 0
        held: list[Case] = []
        for case in checked(paths, frameworks, files):
            if chosen(case):
                self._number += 1
                if self._number <= HELD:
                    held.append(case)
                else:
                    held.clear()
        self._held = held if self._number <= HELD else None
        self._files = files if self._held is None else []

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Case]:
        if self._held is not None:
            return iter(self._held)
        return (case for file in self._files for case in file if self._chosen(case))

    def __contains__(self, case: object) -> bool:
        return any(case == one for one in self)
