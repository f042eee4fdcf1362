"""What run.json and every line of a stored run must say at least, so that whoever reads one can rely on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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

from conformance.damage import Garbled
from conformance.judge import VerdictName
from conformance.stored_lines import exactly


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


class RunInfo(_Said):
    """run.json."""

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
    initial: dict[str, JsonValue] = Field(default_factory=dict)


class _Spec(_Said):
    why: str
    layer: _Layer | None = None
    native: dict[str, dict[str, JsonValue]] | None = None
    signature: dict[str, dict[str, str | None]] | None = None
    input: _Input | None = None
    gradient: dict[str, JsonValue] | None = None
    steps: Annotated[list[_Step], Field(min_length=1)] = [_Step(mode="train")]


class CaseLine(_Said):
    """A line of cases.jsonl."""

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
    shape: list[int] = Field(default_factory=list)
    worst: Annotated[list[float | str], AfterValidator(_none_or_three)] = Field(default_factory=list)
    strip: str = ""
    ulps: list[int] = Field(default_factory=list)
    running: list[list[float | str]] = Field(default_factory=list)


class _Error(_Said):
    type: str
    message: str


class _Tried(_Said):
    name: str
    off: float | None


class VerdictLine(_Said):
    """A line of results.jsonl that judges a case on a target."""

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
    accepted: dict[str, JsonValue] = Field(default_factory=dict)
    tried: list[_Tried] = Field(default_factory=list)
    explained: dict[str, float | None] = Field(default_factory=dict)
    error: _Error | None
    received: str
    facts: list[str]
    digests: dict[str, str] = Field(default_factory=dict)
    signature: list[Annotated[list[str | None], Field(min_length=2, max_length=2)]] = Field(default_factory=list)

    @field_validator("error")
    @classmethod
    def _fails_with_words(cls, error: _Error | None, said: ValidationInfo) -> _Error | None:
        if error is None and said.data.get("verdict") in ("refused", "crashed", "timeout", "broken"):
            raise ValueError(f"none, though it is {said.data['verdict']}")
        return error


class PairLine(_Said):
    """A line of results.jsonl that judges a case on a pair of targets."""

    case: str
    pair: Annotated[list[str], Field(min_length=2, max_length=2)]
    agreement: Literal["agree", "differ"]
    tensors: dict[str, _Tensor]
    because: str


def agreed(model: type[_Said], said: dict[str, Any], file: Path, number: int, text: bytes) -> dict[str, Any]:
    """What a line says, which has the form that was agreed on.

    Raises:
        Garbled: it has not.

    """
    try:
        model.model_validate(said)
    except ValidationError as error:
        exactly(file, text, number)  # a number beyond 64 bits is no finite one here, and has words of its own there
        first = error.errors(include_url=False, include_input=False)[0]
        raise Garbled(
            f"{file}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        ) from error
    return said
