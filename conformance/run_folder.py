"""Reading a stored run, with a name for every way in which one can be damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches NumPy and safetensors the name bfloat16
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from conformance.agreed_lines import CaseLine, PairLine, RunInfo, VerdictLine, agreed
from conformance.damage import (
    DamagedArrays,
    Garbled,
    Incomplete,
    Miscounted,
    MissingFile,
    NotARun,
    Truncated,
    UnknownFormat,
)
from conformance.record import FILES, FORMAT
from conformance.safe_text import clean_all, harmless
from conformance.stored_lines import LineFile, StoredCases, StoredLine, parse
from conformance.streams import DTYPES

#: A line of a run's files.
Line = Mapping[str, Any]


#: What reports count and group by is held of every line, the rest when it is asked for.
_HELD = ("target", "verdict", "status", "expected", "diagnosis", "because", "reason", "error", "pair", "agreement")


@dataclass(frozen=True)
class Run:
    """A stored run.

    Attributes:
        info: run.json.
        cases: the lines of cases.jsonl, by case id, in order.
        verdicts: the lines of results.jsonl that judge a case on a target, in the order of the cases.
        pairs: the lines that judge a case on a pair of targets, in that order too.
        footer: the last line.

    """

    path: Path
    info: dict[str, Any]
    cases: Mapping[str, Line]
    verdicts: Sequence[Line]
    pairs: Sequence[Line]
    footer: dict[str, Any]

    @property
    def targets(self) -> list[dict[str, Any]]:
        """The targets that ran, as run.json describes them."""
        return [target for target in self.info["targets"] if target["ran"]]

    @property
    def unexpected(self) -> list[Line]:
        """The verdicts that were not expected."""
        return [verdict for verdict in self.verdicts if verdict["status"] == "unexpected"]

    def each(self) -> Iterator[tuple[str, list[Line], list[Line]]]:
        """Every case in order: its id, its verdicts and its pairs."""
        verdicts, pairs = (_Following(lines) for lines in (self.verdicts, self.pairs))
        for name in self.cases:
            yield name, verdicts.of(name), pairs.of(name)

    def cleaned(self) -> Run:
        """The same with all texts such that no character acts (`conformance.safe_text`)."""
        cases = self.cases.cleaned() if isinstance(self.cases, StoredCases) else clean_all(self.cases)
        verdicts, pairs = ([_clean(line) for line in lines] for lines in (self.verdicts, self.pairs))
        return replace(self, info=clean_all(self.info), cases=cases, verdicts=verdicts, pairs=pairs)

    def array(self, case: str, target: str, tensor: str) -> NDArray[Any] | None:
        """A tensor as a target returned it; None if it was not kept.

        Raises:
            DamagedArrays: the file cannot be read, or holds what no run does.

        """
        name = f"{case}::{target}::{tensor}"
        if name not in self._names:
            return None
        dtype = self._arrays.get_slice(name).get_dtype()
        if dtype not in DTYPES.values():  # NumPy lacks some of safetensors', and no tensor is kept in the others
            raise DamagedArrays(f"{self.path / 'arrays.safetensors'} holds {name} as {dtype}")
        array: NDArray[Any] = self._arrays.get_tensor(name)
        return array

    @cached_property
    def _arrays(self) -> Any:
        try:
            return safe_open(self.path / "arrays.safetensors", framework="numpy")
        except (SafetensorError, OSError) as error:
            raise DamagedArrays(f"{self.path / 'arrays.safetensors'} cannot be read: {error}") from error

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._arrays.keys())


def _clean(line: Line) -> Line:
    return line if isinstance(line, StoredLine) and line.harmless else clean_all(whole(line))


def whole(line: Line) -> dict[str, Any]:
    """All that a line says, read once for those who want all of it."""
    return line.whole() if isinstance(line, StoredLine) else dict(line)


class _Following:
    """Lines in the order of the cases, handed out case by case."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = iter(lines)
        self._next = next(self._lines, None)

    def of(self, case: str) -> list[Line]:
        found = []
        while self._next is not None and self._next["case"] == case:
            found.append(self._next)
            self._next = next(self._lines, None)
        return found


def read(path: Path, *, partial: bool = False) -> Run:
    """Read a run folder; with `partial`, one that an interrupted run has left, too.

    Raises:
        RunDamage: one of its subclasses, whose name says what is wrong with the folder.

    """
    if not (path / "run.json").is_file():
        raise NotARun(f"{path} is no run folder: it has no run.json")
    info = read_info(path)
    for name in FILES:
        if not (path / name).is_file():
            raise MissingFile(f"{path} lacks {name}")
    file = LineFile(path / "cases.jsonl")
    cases, number = StoredCases(file), 0
    for number, (place, text) in enumerate(file.pieces(), 1):
        case = agreed(CaseLine, parse(file.path, text, number), file.path, number, text)
        cases.add(case["case"], place, harmless=harmless(text))
    ran = frozenset(target["name"] for target in info["targets"] if target["ran"])
    results = _Results(path / "results.jsonl", ran, cases)
    results.count(path, number)
    if not results.footer["complete"] and not partial:
        judged = f"{len(results.verdicts):,} verdicts on {number:,} cases"
        raise Incomplete(
            f"{path} is incomplete: the run was interrupted after {judged}",
            hint="run it again; what was judged can still be read there, in results.jsonl",
        )
    return Run(path, info, cases, results.verdicts, results.pairs, results.footer)


def read_info(path: Path) -> dict[str, Any]:
    """What run.json says.

    Raises:
        RunDamage: it is not there, or cannot be trusted.

    """
    file = path / "run.json"
    text = b"".join(piece for _, piece in LineFile(file).pieces(whole=True))
    info = parse(file, text, 1)
    if type(info.get("format")) is not int or info["format"] != FORMAT:
        raise UnknownFormat(f"{path} has format {info.get('format')!r:.40}; this suite reads {FORMAT}")
    return agreed(RunInfo, info, file, 1, text)


class _Results:
    """The lines of results.jsonl, each checked by itself; and none says again what another has said.

    Raises:
        RunDamage: one of its subclasses.

    """

    def __init__(self, path: Path, targets: frozenset[str], cases: StoredCases) -> None:
        self._file = LineFile(path)
        self._targets = targets
        self._cases = cases
        self._shared: dict[str, dict[str, Any]] = {}
        self.verdicts: list[StoredLine] = []
        self.pairs: list[StoredLine] = []
        pieces = self._file.pieces()
        number, (place, text) = 1, next(pieces, (0, b"{}"))
        for number, following in enumerate(pieces, 2):
            self._add(number - 1, place, text)
            place, text = following
        self.footer = parse(path, text, number)
        if not isinstance(self.footer.get("complete"), bool):
            raise Truncated(f"{path} has no footer: the run is not complete")
        for lines in (self.verdicts, self.pairs):
            lines.sort(key=lambda line: cases.order[line["case"]])
            self._once(lines)

    def _add(self, number: int, place: int, text: bytes) -> None:
        where = f"{self._file.path}:{number}"
        said = parse(self._file.path, text, number)
        is_pair = "pair" in said
        agreed(PairLine if is_pair else VerdictLine, said, self._file.path, number, text)
        for name in said["pair"] if is_pair else [said["target"]]:
            if name not in self._targets:
                raise Garbled(f"{where}: this run has no target {name} that ran")
        if said["case"] not in self._cases:
            raise Garbled(f"{where}: this run has no case {said['case']}")
        held = {key: said[key] for key in _HELD if key in said}
        case = self._cases.names[self._cases.order[said["case"]]]
        line = StoredLine(self._file, place, case, said.get("seconds"), self._shared.setdefault(repr(held), held))
        line.harmless = harmless(text)
        (self.pairs if is_pair else self.verdicts).append(line)

    def _once(self, lines: Sequence[StoredLine]) -> None:
        for case, of_case in groupby(lines, key=itemgetter("case")):
            judged: set[tuple[str, ...]] = set()
            for line in of_case:
                subject = tuple(line["pair"]) if lines is self.pairs else (line["target"],)
                if subject in judged:
                    what = " on ".join((case, *subject))
                    raise Garbled(f"{self._file.path}:{line.number}: {what} is judged twice")
                judged.add(subject)

    def count(self, path: Path, cases: int) -> None:
        """Hold the footer's numbers against the lines."""
        counted = Counter(line["verdict"] for line in self.verdicts) + Counter(line["agreement"] for line in self.pairs)
        counted["unexpected"] = sum(line["status"] == "unexpected" for line in self.verdicts)
        counted.update(cases=cases, verdicts=len(self.verdicts), pairs=len(self.pairs))
        for what in sorted({*counted, *self.footer} - {"complete"}):
            if self.footer.get(what, 0) != counted[what]:
                said = f"{self.footer.get(what, 0)!r:.40}"
                raise Miscounted(f"{path} holds {counted[what]} {what}, its footer counts {said}")
