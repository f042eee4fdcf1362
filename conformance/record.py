"""A run as a folder: written aside and renamed when whole, so that an interrupted run never looks complete.

run.json             format and suite version, when, on what, the targets with their facts
cases.jsonl          a line per case: where it stands, what it says, the digest of its bits
results.jsonl        a line per case and target, a line per case and pair; the last line counts them
arrays.safetensors   the tensors observed, up to `ARRAY_LIMIT` elements each
report.html, junit.xml, summary.md
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from conformance.compare import TensorResult
from conformance.errors import UsageError
from conformance.harness import Array
from conformance.judge import Verdict
from conformance.observation import Observation
from conformance.pairs import Agreement
from conformance.pool import Start, Started
from conformance.problem import Problem
from conformance.reference import CANONICAL
from conformance.target import Target, installed

#: Version of the run folder's format.
FORMAT = 1

#: What every run holds beside its reports; a folder without them is taken for someone's own.
FILES = ("run.json", "cases.jsonl", "results.jsonl", "arrays.safetensors")

#: Larger tensors are judged but not kept: a run folder is to be carried around.
ARRAY_LIMIT = 65_536

# A tensor of another dtype is never right; its verdict says what it was.
_SAFETENSORS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
}


class RunWriter:
    """Writes a run. As a context manager, it leaves no folder behind unless `finish` was reached."""

    def __init__(self, out: Path, command: Sequence[str]) -> None:
        """Open a run that will stand at `out`.

        Raises:
            UsageError: `out` is there and is no run folder, or its place cannot be written to.

        """
        try:
            if not _replaceable(out):
                raise UsageError(f"{out} is there and is no run folder", hint="name another with -o")
            out = out if out.name else out.resolve()  # the working directory cannot be renamed as "."
            out.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        except OSError as error:
            raise UsageError(f"cannot write a run to {out}: {error.strerror}", hint="name another with -o") from error
        self._folder.chmod(0o755)  # mkdtemp's 0700 would make the finished run private
        self._out = out
        self._command = list(command)
        self._started = _now()
        self._counts: Counter[str] = Counter()
        self._results = (self._folder / "results.jsonl").open("w", encoding="utf-8", newline="\n")
        self._cases = (self._folder / "cases.jsonl").open("w", encoding="utf-8", newline="\n")
        self._arrays = _ArrayFile(self._folder / "arrays.safetensors")

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for file in (self._results, self._cases, self._arrays):
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def case(self, problem: Problem) -> None:
        """Record what a case says; once, before its verdicts."""
        self._counts["cases"] += 1
        _write_line(self._cases, case_line(problem))

    def verdict(self, case: str, target: str, verdict: Verdict, observation: Observation) -> None:
        """Record one case on one target, and its tensors."""
        self._counts["verdicts"] += 1
        self._counts[verdict.verdict] += 1
        self._counts["unexpected"] += verdict.status == "unexpected"
        _write_line(self._results, verdict_line(case, target, verdict, observation))
        for name, array in observation.tensors.items():
            if array.dtype in _SAFETENSORS and math.prod(array.shape) <= ARRAY_LIMIT:
                self._arrays.add(f"{case}::{target}::{name}", array)

    def pair(self, case: str, a: str, b: str, agreement: Agreement) -> None:
        """Record one case on a pair of targets."""
        self._counts["pairs"] += 1
        self._counts[agreement.agreement] += 1
        _write_line(
            self._results,
            {
                "case": case,
                "pair": [a, b],
                "agreement": agreement.agreement,
                "tensors": _tensors(agreement.tensors),
                "because": agreement.because,
            },
        )

    def finish(self, targets: Sequence[Target], starts: Mapping[str, Start]) -> Path:
        """Write the footer and run.json, and return the folder, which is still aside: reports go there."""
        _write_line(self._results, {"complete": True, **self._counts})
        self._results.close()
        self._cases.close()
        self._arrays.close()
        info = {
            "format": FORMAT,
            "suite": installed("batchnorm-conformance") or "unknown",
            "started": self._started,
            "finished": _now(),
            "command": self._command,
            "platform": {
                "system": platform.platform(),
                "machine": platform.machine(),
                "processor": _processor(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
            },
            "targets": [target_line(target, starts.get(target.name)) for target in targets],
        }
        text = json.dumps(_spelled(info), indent=2, ensure_ascii=False, allow_nan=False)
        (self._folder / "run.json").write_text(text + "\n", encoding="utf-8")
        return self._folder

    def publish(self) -> Path:
        """Put the finished run in its place, replacing an earlier one, and return where it stands."""
        if self._out.exists():
            aside = Path(tempfile.mkdtemp(prefix=f".{self._out.name}.", suffix=".replaced", dir=self._out.parent))
            self._out.rename(aside / "run")
            self._folder.rename(self._out)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            self._folder.rename(self._out)
        return self._out


def case_line(problem: Problem) -> dict[str, Any]:
    """A case as a line of cases.jsonl."""
    case = problem.case
    return {
        "case": case.id,
        "topic": case.topic,
        "file": case.file,
        "line": case.line,
        "about": case.about,
        "matrix": case.matrix,
        "spec": case.spec.model_dump(exclude_defaults=True, by_alias=True),
        "digest": problem.digest,
    }


def verdict_line(case: str, target: str, verdict: Verdict, observation: Observation) -> dict[str, Any]:
    """A verdict as a line of results.jsonl; `accepted` says what its reading changes of the canonical conventions."""
    accepted = {name: value for name, value in vars(verdict.accepted).items() if value != getattr(CANONICAL, name)}
    return {
        "case": case,
        "target": target,
        "verdict": verdict.verdict,
        "status": verdict.status,
        "expected": verdict.expected,
        "diagnosis": verdict.diagnosis,
        "because": verdict.because,
        "seconds": round(verdict.seconds, 6),
        "tensors": _tensors(verdict.tensors),
        "accepted": accepted,
        "error": None if verdict.error is None else {"type": verdict.error.type, "message": verdict.error.message},
        "received": observation.received,
        "facts": list(observation.facts),
    }


class _ArrayFile:
    """A safetensors file written as the tensors come, so that memory does not grow with them.

    The format puts its JSON header first; the data wait in a spool beside it until the header is known.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header: dict[str, Any] = {}
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by close()
        self._closed = False

    def add(self, name: str, array: Array) -> None:
        start = self._spool.tell()
        self._spool.write(array.data)
        self._header[name] = {
            "dtype": _SAFETENSORS[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, self._spool.tell()],
        }

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        header = json.dumps(self._header).encode()
        header += b" " * (-len(header) % 8)  # data start at a multiple of 8
        with self._path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            self._spool.seek(0)
            shutil.copyfileobj(self._spool, file)
        self._spool.close()


def _replaceable(out: Path) -> bool:
    """Whether nothing stands there, or what a run may take the place of: an empty folder, or a run."""
    if not os.path.lexists(out):
        return True
    return out.is_dir() and (all((out / name).is_file() for name in FILES) or not any(out.iterdir()))


def default_folder() -> Path:
    """Where a run goes that was given no folder."""
    return Path("conformance-runs") / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def target_line(target: Target, start: Start | None) -> dict[str, Any]:
    """A target as run.json describes it."""
    started = isinstance(start, Started)
    return {
        "name": target.name,
        "framework": target.framework,
        "title": target.profile.name,
        "options": target.options,
        "python": target.python,
        "host": target.host,
        "ran": started,
        "facts": start.facts if isinstance(start, Started) else {},
        "message": "" if start is None or isinstance(start, Started) else start.message,
    }


def _tensors(results: Mapping[str, TensorResult]) -> dict[str, Any]:
    return {
        name: {
            "ratio": _finite(result.ratio),
            "max_abs": _finite(result.max_abs),
            "max_ulp": _finite(result.max_ulp),
            "worst_index": None if result.worst_index is None else list(result.worst_index),
            **({"problem": result.problem} if result.problem else {}),
        }
        for name, result in results.items()
    }


def _finite(value: float | None) -> float | None:
    """JSON knows no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _spelled(value: Any) -> Any:
    """JSON data without what JSON or UTF-8 lack: numbers that are none as case files spell them, half characters."""
    if isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write_line(file: IO[str], line: dict[str, Any]) -> None:
    file.write(json.dumps(_spelled(line), ensure_ascii=False, allow_nan=False) + "\n")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _processor() -> str:
    """The processor's name, which decides the vector width of reductions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
