"""The lines of a stored run: of each a little is held, the rest stays in the file, so that memory grows little.

A file is kept open as long as its lines are in use, and read again from there, whatever becomes of its name.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import weakref
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from conformance.damage import Garbled, MissingFile, Truncated
from conformance.safe_text import clean, clean_all

#: No line of a run is longer than this, in bytes, nor is its run.json: what has none to end it is not read on.
LINE_LIMIT = 16_000_000

#: A place is where a line begins in its file, times this, plus its length: one number.
_SPAN = 1 << 24


class LineFile:
    """A file of JSON lines, which newlines end and nothing else does."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            MissingFile: it cannot be opened.

        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise MissingFile(f"{path} cannot be read: {error.strerror}") from error
        weakref.finalize(self, os.close, self._descriptor)
        self._last: tuple[int, dict[str, Any]] = (-1, {})

    def pieces(self, *, whole: bool = False) -> Iterator[tuple[int, bytes]]:
        """Every line with its place; with `whole`, all are as long as one may be, and the last may lack its newline.

        Raises:
            Garbled: a line is too long.
            Truncated: the last line has no end.
            MissingFile: the file cannot be read.

        """
        length = start = 0
        try:
            with open(self._descriptor, "rb", closefd=False) as stream:
                stream.seek(0)
                for number in itertools.count(1):
                    line = stream.readline(LINE_LIMIT + 1)
                    length = length * whole + len(line)
                    if length > LINE_LIMIT:
                        raise Garbled(f"{self.path}:{number}: longer than {LINE_LIMIT:,} bytes")
                    if not line:
                        return
                    if not (whole or line.endswith(b"\n")):
                        raise Truncated(f"{self.path} ends in the middle of line {number}")
                    yield start * _SPAN + len(line), line
                    start += len(line)
        except OSError as error:
            raise MissingFile(f"{self.path} cannot be read: {error.strerror}") from error

    def at(self, place: int) -> dict[str, Any]:
        """The line at a place, whole; of the last one asked for, the same object.

        Raises:
            RunDamage: the file has changed since it was read first.

        """
        if self._last[0] != place:
            start, length = divmod(place, _SPAN)
            try:
                self._last = place, parse(self.path, os.pread(self._descriptor, length, start), 0)
            except OSError as error:
                raise MissingFile(f"{self.path} cannot be read: {error.strerror}") from error
            except Garbled as error:
                raise Garbled(f"{self.path} has changed since it was read") from error
        return self._last[1]


class StoredLine(Mapping[str, Any]):
    """A line of results.jsonl. Looked at as a whole, or for what is not held of it, it is read again.

    Attributes:
        harmless: whether none of its texts has to be cleaned (`conformance.safe_text`).

    """

    __slots__ = ("_case", "_file", "_held", "_place", "_seconds", "harmless")

    def __init__(self, file: LineFile, place: int, case: str, seconds: float | None, held: Mapping[str, Any]) -> None:
        """A line that stands at this place; lines that say the same of `held` share one mapping."""
        self._file = file
        self._place = place
        self._case = case
        self._seconds = seconds
        self._held = held
        self.harmless = False

    def whole(self) -> dict[str, Any]:
        """All that it says."""
        return self._file.at(self._place)

    @property
    def number(self) -> int:
        """Its number in its file, from 1, which is counted anew."""
        return next(number for number, (place, _) in enumerate(self._file.pieces(), 1) if place == self._place)

    def __getitem__(self, key: str) -> Any:
        if key in self._held:
            return self._held[key]
        if key == "case":
            return self._case
        if key == "seconds" and self._seconds is not None:
            return self._seconds
        return self.whole()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole())

    def __len__(self) -> int:
        return len(self.whole())


class StoredCases(Mapping[str, dict[str, Any]]):
    """The lines of cases.jsonl by case id, in their order, each read when it is looked at.

    Attributes:
        order: case id → its place in the order, from 0.
        names: the ids in order.

    """

    def __init__(self, file: LineFile, *, clean: bool = False) -> None:
        """No case yet, of this file; what is looked at is cleaned if that is asked for."""
        self._file = file
        self._places = array("Q")
        self._clean = clean
        self._harmless = True
        self.order: dict[str, int] = {}
        self.names: list[str] = []

    def add(self, case: str, place: int, *, harmless: bool) -> None:
        """A case whose line stands at this place; of one that is there already, it is the line that counts."""
        self._harmless = self._harmless and harmless
        if case in self.order:
            self._places[self.order[case]] = place
            return
        self.order[case] = len(self.names)
        self.names.append(case)
        self._places.append(place)

    def cleaned(self) -> StoredCases:
        """The same with all texts such that no character acts (`conformance.safe_text`)."""
        if self._harmless:
            return self
        found = StoredCases(self._file, clean=True)
        for name, place in zip(self.names, self._places, strict=True):
            found.add(clean(name), place, harmless=True)
        return found

    def __getitem__(self, case: str) -> dict[str, Any]:
        line = self._file.at(self._places[self.order[case]])
        return clean_all(line) if self._clean else line

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, case: object) -> bool:
        return case in self.order


def parse(file: Path, text: bytes, number: int) -> dict[str, Any]:
    """The JSON object that a line is.

    Raises:
        Garbled: it is none.

    """
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:  # which of its faults are faults to Python, and what it calls them, `exactly` knows
        return exactly(file, text, number)
    if not isinstance(value, dict):
        raise Garbled(f"{file}:{number}: a JSON object was expected")
    return value


def exactly(file: Path, text: bytes, number: int) -> dict[str, Any]:
    """As `parse`, slowly and in full: no number is beyond 64 bits, and every fault has its words.

    Raises:
        Garbled: the line is no JSON object.

    """
    try:
        value = json.loads(text.decode(), parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise Garbled(f"{file}:{number} is no UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise Garbled(f"{file}:{number}: {error}") from error
    if not isinstance(value, dict):
        raise Garbled(f"{file}:{number}: a JSON object was expected")
    return value


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value
