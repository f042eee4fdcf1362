"""Reading a stored run, with a name for every way in which one can be damaged."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import ml_dtypes  # noqa: F401 - teaches NumPy and safetensors the name bfloat16
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from safetensors import SafetensorError, safe_open

from conformance.errors import UsageError
from conformance.judge import VerdictName
from conformance.record import FILES, FORMAT
from conformance.safe_text import one_line
from conformance.streams import DTYPES

#: No line of a run is longer than this, in bytes, nor is its run.json: what has none to end it is not read on.
LINE_LIMIT = 16_000_000


class RunDamage(UsageError):
    """A run folder cannot be trusted; the subclass says how.

    What a folder from elsewhere holds reaches the message, and no terminal acts on it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(one_line(message, 1000), hint)


class NotARun(RunDamage):
    """The path is no folder, or a folder without run.json."""


class UnknownFormat(RunDamage):
    """run.json says a format version that this suite does not read."""


class MissingFile(RunDamage):
    """A file that every run has is not there."""


class Garbled(RunDamage):
    """A line is no JSON object of the agreed form, or says again what another has said."""


class Truncated(RunDamage):
    """results.jsonl has no footer: the run was cut off, or the file was."""


class Incomplete(RunDamage):
    """The footer says that the run was interrupted; what was judged before can be trusted."""


class Miscounted(RunDamage):
    """The footer counts other numbers than the lines say: lines were lost or added."""


class DamagedArrays(RunDamage):
    """arrays.safetensors cannot be read."""


class _Said(BaseModel):
    """What run.json or a line must say at least; more is left alone, but for data that lie deeper than 255 levels."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, JsonValue]


class _Target(_Said):
    name: str
    framework: str
    title: str
    options: dict[str, str]
    python: str | None
    host: str | None
    ran: bool
    facts: dict[str, str]
    message: str


class _Platform(_Said):
    system: str
    machine: str
    processor: str
    cores: int | None
    python: str


class _Info(_Said):
    suite: str
    started: str
    finished: str
    command: list[str]
    platform: _Platform
    targets: list[_Target]


class _Input(_Said):
    shape: list[int] | None = None
    dtype: str = "float32"


class _Step(_Said):
    mode: str
    input: _Input | None = None
    gradient: dict[str, JsonValue] | None = None
    frozen: bool = False


class _Layer(_Said):
    dtype: str | None = None
    initial: dict[str, JsonValue] = {}


class _Spec(_Said):
    why: str
    layer: _Layer | None = None
    native: dict[str, dict[str, JsonValue]] | None = None
    signature: dict[str, dict[str, str | None]] | None = None
    input: _Input | None = None
    gradient: dict[str, JsonValue] | None = None
    steps: Annotated[list[_Step], Field(min_length=1)] = [_Step(mode="train")]


class _Case(_Said):
    case: str
    topic: str
    file: str
    line: int
    about: str
    matrix: dict[str, JsonValue]
    spec: _Spec
    digest: str


def _none_or_three(values: list[Any]) -> list[Any]:
    if len(values) not in (0, 3):
        raise ValueError("an exact value, an observed one and a bound were expected")
    return values


class _Tensor(_Said):
    ratio: float | None
    max_abs: float | None = None
    max_ulp: float | None = None
    worst_index: list[int] | None = None
    problem: str = ""
    shape: list[int] = []
    worst: Annotated[list[float | str], AfterValidator(_none_or_three)] = []
    strip: str = ""
    ulps: list[int] = []
    running: list[list[float | str]] = []


class _Error(_Said):
    type: str
    message: str


class _Tried(_Said):
    name: str
    off: float | None


class _Verdict(_Said):
    case: str
    target: str
    verdict: VerdictName
    status: Literal["expected", "unexpected"]
    expected: str
    diagnosis: str | None
    because: str
    reason: str = ""
    seconds: float
    tensors: dict[str, _Tensor]
    error: _Error | None
    received: str
    facts: list[str]
    digests: dict[str, str] = {}
    signature: list[Annotated[list[str | None], Field(min_length=2, max_length=2)]] = []
    accepted: dict[str, JsonValue] = {}
    tried: list[_Tried] = []

    @field_validator("error")
    @classmethod
    def _fails_with_words(cls, error: _Error | None, said: ValidationInfo) -> _Error | None:
        if error is None and said.data.get("verdict") in ("refused", "crashed", "timeout", "broken"):
            raise ValueError(f"none, though it is {said.data['verdict']}")
        return error


class _Pair(_Said):
    case: str
    pair: Annotated[list[str], Field(min_length=2, max_length=2)]
    agreement: Literal["agree", "differ"]
    tensors: dict[str, _Tensor]
    because: str


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


def read(path: Path, *, partial: bool = False) -> Run:
    """Read a run folder; with `partial`, one that an interrupted run has left, too.

    Raises:
        RunDamage: one of its subclasses, whose name says what is wrong with the folder.

    """
    if not (path / "run.json").is_file():
        raise NotARun(f"{path} is no run folder: it has no run.json")
    info = _json(path / "run.json", b"".join(_pieces(path / "run.json", whole=True)), 1)
    if type(info.get("format")) is not int or info["format"] != FORMAT:
        raise UnknownFormat(f"{path} has format {info.get('format')!r:.40}; this suite reads {FORMAT}")
    _check(_Info, info, path / "run.json", 1)
    for name in FILES:
        if not (path / name).is_file():
            raise MissingFile(f"{path} lacks {name}")
    said = _lines(path / "cases.jsonl")
    for number, line in enumerate(said, 1):
        _check(_Case, line, path / "cases.jsonl", number)
    cases = {line["case"]: line for line in said}
    *results, footer = _lines(path / "results.jsonl") or [{}]
    if not isinstance(footer.get("complete"), bool):
        raise Truncated(f"{path / 'results.jsonl'} has no footer: the run is not complete")
    names = {target["name"] for target in info["targets"] if target["ran"]}
    judged: set[tuple[str, ...]] = set()
    for number, line in enumerate(results, 1):
        _check(_Pair if "pair" in line else _Verdict, line, path / "results.jsonl", number)
        for name in [name for name in line.get("pair") or [line["target"]] if name not in names]:
            raise Garbled(f"{path / 'results.jsonl'}:{number}: this run has no target {name} that ran")
        if line["case"] not in cases:
            raise Garbled(f"{path / 'results.jsonl'}:{number}: this run has no case {line['case']}")
        subject = (line["case"], *(line.get("pair") or [line["target"]]))
        if subject in judged:
            raise Garbled(f"{path / 'results.jsonl'}:{number}: {' on '.join(subject)} is judged twice")
        judged.add(subject)
    verdicts = [line for line in results if "pair" not in line]
    pairs = [line for line in results if "pair" in line]
    _count(path, footer, cases=len(said), verdicts=verdicts, pairs=pairs)
    if not footer["complete"] and not partial:
        raise Incomplete(
            f"{path} is incomplete: the run was interrupted after {len(verdicts):,} verdicts on {len(said):,} cases",
            hint="a report is made of a whole run",
        )
    return Run(path, info, cases, verdicts, pairs, footer)


def _check(model: type[_Said], said: dict[str, Any], file: Path, number: int) -> None:
    try:
        model.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Garbled(
            f"{file}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        ) from error


def _count(path: Path, footer: dict[str, Any], cases: int, verdicts: list[Any], pairs: list[Any]) -> None:
    counted = Counter([line["verdict"] for line in verdicts] + [line["agreement"] for line in pairs])
    counted["unexpected"] = sum(line["status"] == "unexpected" for line in verdicts)
    counted.update(cases=cases, verdicts=len(verdicts), pairs=len(pairs))
    for what in sorted({*counted, *footer} - {"complete"}):
        if footer.get(what, 0) != counted[what]:
            raise Miscounted(f"{path} holds {counted[what]} {what}, its footer counts {footer.get(what, 0)!r:.40}")


def _lines(file: Path) -> list[dict[str, Any]]:
    return [_json(file, line, number) for number, line in enumerate(_pieces(file), 1)]


def _pieces(file: Path, *, whole: bool = False) -> Iterator[bytes]:
    """The file's lines, which newlines end and nothing else does; with `whole`, the last may lack one."""
    length = 0
    try:
        with file.open("rb") as stream:
            for number in itertools.count(1):
                line = stream.readline(LINE_LIMIT + 1)
                length = length * whole + len(line)
                if length > LINE_LIMIT:
                    raise Garbled(f"{file}:{number}: longer than {LINE_LIMIT:,} bytes")
                if not line:
                    return
                if not (whole or line.endswith(b"\n")):
                    raise Truncated(f"{file} ends in the middle of line {number}")
                yield line
    except OSError as error:
        raise MissingFile(f"{file} cannot be read: {error.strerror}") from error


def _json(file: Path, text: bytes, line: int) -> dict[str, Any]:
    try:
        value = json.loads(text.decode(), parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise Garbled(f"{file}:{line} is no UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise Garbled(f"{file}:{line}: {error}") from error
    if not isinstance(value, dict):
        raise Garbled(f"{file}:{line}: a JSON object was expected")
    return value


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value
