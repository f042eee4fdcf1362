"""Reading a stored run, with a name for every way in which one can be damaged."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches NumPy and safetensors the name bfloat16
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from conformance.errors import UsageError
from conformance.record import FORMAT


class RunDamage(UsageError):
    """A run folder cannot be trusted; the subclass says how."""


class NotARun(RunDamage):
    """The path is no folder, or a folder without run.json."""


class UnknownFormat(RunDamage):
    """run.json says a format version that this suite does not read."""


class MissingFile(RunDamage):
    """A file that every run has is not there."""


class Garbled(RunDamage):
    """A line is no JSON object of the agreed form."""


class Truncated(RunDamage):
    """results.jsonl has no footer: the run was cut off, or the file was."""


class Miscounted(RunDamage):
    """The footer counts other numbers than the lines say: lines were lost or added."""


class DamagedArrays(RunDamage):
    """arrays.safetensors cannot be read."""


@dataclass(frozen=True)
class Run:
    """A stored run.

    Attributes:
        info: run.json.
        cases: the lines of cases.jsonl, by case id, in order.
        verdicts: the lines of results.jsonl that judge a case on a target.
        pairs: the lines that judge a case on a pair of targets.
        footer: the last line.
    """

    path: Path
    info: dict[str, Any]
    cases: dict[str, dict[str, Any]]
    verdicts: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    footer: dict[str, Any]

    @property
    def targets(self) -> list[dict[str, Any]]:
        """The targets that ran, as run.json describes them."""
        return [target for target in self.info["targets"] if target["ran"]]

    @property
    def unexpected(self) -> list[dict[str, Any]]:
        """The verdicts that were not expected."""
        return [verdict for verdict in self.verdicts if verdict["status"] == "unexpected"]

    def array(self, case: str, target: str, tensor: str) -> NDArray[Any] | None:
        """A tensor as a target returned it; None if it was not kept.

        Raises:
            DamagedArrays: the file cannot be read.
        """
        name = f"{case}::{target}::{tensor}"
        return self._arrays.get_tensor(name) if name in self._names else None

    @cached_property
    def _arrays(self) -> Any:
        try:
            return safe_open(self.path / "arrays.safetensors", framework="numpy")
        except (SafetensorError, OSError) as error:
            raise DamagedArrays(f"{self.path / 'arrays.safetensors'} cannot be read: {error}") from error

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._arrays.keys())


def read(path: Path) -> Run:
    """Read a run folder.

    Raises:
        RunDamage: one of its subclasses, whose name says what is wrong with the folder.
    """
    if not (path / "run.json").is_file():
        raise NotARun(f"{path} is no run folder: it has no run.json")
    info = _json(path / "run.json", _text(path / "run.json"), 1)
    if info.get("format") != FORMAT:
        raise UnknownFormat(f"{path} has format {info.get('format')!r}; this suite reads {FORMAT}")
    if not isinstance(info.get("targets"), list):
        raise Garbled(f"{path / 'run.json'} names no targets")
    for name in ("cases.jsonl", "results.jsonl", "arrays.safetensors"):
        if not (path / name).is_file():
            raise MissingFile(f"{path} lacks {name}")
    cases = {line["case"]: line for line in _lines(path / "cases.jsonl", ("case", "spec"))}
    *results, footer = _lines(path / "results.jsonl", ()) or [{}]
    if footer.get("complete") is not True:
        raise Truncated(f"{path / 'results.jsonl'} has no footer: the run is not complete")
    verdicts = [line for line in results if "target" in line]
    pairs = [line for line in results if "pair" in line]
    counted: Counter[str] = Counter(cases=len(cases), verdicts=len(verdicts), pairs=len(pairs))
    counted["unexpected"] = sum(line.get("status") == "unexpected" for line in verdicts)
    for what, number in counted.items():
        if footer.get(what, 0) != number:
            raise Miscounted(f"{path} holds {number} {what}, its footer counts {footer.get(what, 0)}")
    return Run(path, info, cases, verdicts, pairs, footer)


def _lines(file: Path, required: tuple[str, ...]) -> list[dict[str, Any]]:
    found = []
    text = _text(file)
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found.append(_json(file, line, number))
        except Garbled:
            if number == text.count("\n") + 1:  # the last line has no end: it was cut off
                raise Truncated(f"{file} ends in the middle of line {number}") from None
            raise
        missing = [key for key in required if key not in found[-1]]
        if missing:
            raise Garbled(f"{file}:{number}: the line has no {', '.join(missing)}")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Garbled(f"{file} is no UTF-8: {error}") from error
    except OSError as error:
        raise MissingFile(f"{file} cannot be read: {error.strerror}") from error


def _json(file: Path, text: str, line: int) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Garbled(f"{file}:{line}: {error}") from error
    if not isinstance(value, dict):
        raise Garbled(f"{file}:{line}: a JSON object was expected")
    return value
