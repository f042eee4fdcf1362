"""A run as a folder: written aside and renamed when whole, so that an interrupted run never looks complete.

What was judged before an interruption is kept beside the run's place, as ``….partial``, with a footer that says so.

run.json             format and suite version, when, on what, the targets with their facts
cases.jsonl          a line per case: where it stands, what it says, the digest of its bits
results.jsonl        a line per case and target, a line per case and pair; the last line counts them
arrays.safetensors   the tensors observed, up to `ARRAY_LIMIT` elements each
report.html, junit.xml, summary.md

A tensor in results.jsonl is `ratio, max_abs, max_ulp, worst_index` and, of a target, what `conformance.evidence`
gathers: `shape`; `worst`, the exact and the observed value and the bound there; `strip`, error over bound along the
tensor; `ulps`, a histogram; `running`, the first channels of running statistics in cases of several steps. A line of a
signature case has the constructor's real `signature`. Runs without these fields are read all the same.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import errno
import hashlib
import itertools
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any

from conformance.compare import TensorResult
from conformance.conventions import CANONICAL
from conformance.errors import UsageError
from conformance.evidence import Evidence, as_json
from conformance.harness import Array
from conformance.judge import Verdict
from conformance.observation import Observation
from conformance.pairs import Agreement
from conformance.pool import Start, Started
from conformance.problem import Problem
from conformance.target import Target, installed

#: Version of the run folder's format.
FORMAT = 1

#: What every run holds beside its reports; a folder without them is taken for someone's own.
FILES = ("run.json", "cases.jsonl", "results.jsonl", "arrays.safetensors")

#: Larger tensors are judged but not kept: a run folder is to be carried around.
ARRAY_LIMIT = 65_536

#: Nor are those that come when the header of arrays.safetensors is this long, in bytes: readers take 100 MB at most.
HEADER_LIMIT = 99_000_000

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
    """Writes a run. As a context manager, it leaves no folder behind but by `publish` or `keep`.

    Attributes:
        finished: whether the footer is written, and every verdict with it.

    """

    def __init__(self, out: Path, command: Sequence[str], *, replace: bool = True) -> None:
        """Open a run that will stand at `out`, or where that is taken and not to be replaced, at ``out-2``, ``out-3`` …

        Raises:
            UsageError: `out` is there and is no run folder, or its place cannot be written to.

        """
        try:
            if replace and not _replaceable(out):
                raise UsageError(f"{out} is there and is no run folder", hint="name another with -o")
            out = out if out.name else out.resolve()  # the working directory cannot be renamed as "."
            out.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
            self._folder.chmod(0o755)  # mkdtemp's 0700 would make the finished run private
            self._results = _Lines(self._folder / "results.jsonl")
            self._cases = _Lines(self._folder / "cases.jsonl")
            self._arrays = _ArrayFile(self._folder / "arrays.safetensors")
        except OSError as error:
            raise UsageError(f"cannot write a run to {out}: {error.strerror}", hint="name another with -o") from error
        self._out = out
        self._replace = replace
        self._command = list(command)
        self._started = datetime.datetime.now(datetime.UTC)
        self._clock = time.monotonic()
        self._counts: Counter[str] = Counter()
        self.finished = False

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for file in (self._results, self._cases, self._arrays):
            with contextlib.suppress(OSError):
                file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """Where the run is being written, aside."""
        return self._folder

    def case(self, problem: Problem) -> None:
        """Record what a case says; once, before its verdicts."""
        self.case_line(case_line(problem))

    def verdict(
        self,
        case: str,
        target: str,
        verdict: Verdict,
        observation: Observation,
        evidence: Mapping[str, Evidence] = MappingProxyType({}),
    ) -> None:
        """Record one case on one target, and its tensors."""
        self.verdict_line(verdict_line(case, target, verdict, observation, evidence))
        for name, array in observation.tensors.items():
            self.array(f"{case}::{target}::{name}", array)

    def pair(self, case: str, a: str, b: str, agreement: Agreement) -> None:
        """Record one case on a pair of targets."""
        self.pair_line(
            {
                "case": case,
                "pair": [a, b],
                "agreement": agreement.agreement,
                "tensors": _tensors(agreement.tensors),
                "because": agreement.because,
            }
        )

    def case_line(self, line: Mapping[str, Any]) -> None:
        """Record a line of cases.jsonl."""
        self._cases.write(line)
        self._counts["cases"] += 1

    def verdict_line(self, line: Mapping[str, Any]) -> None:
        """Record a verdict's line of results.jsonl."""
        self._results.write(line)
        self._counts.update(("verdicts", line["verdict"]))
        self._counts["unexpected"] += line["status"] == "unexpected"

    def pair_line(self, line: Mapping[str, Any]) -> None:
        """Record a pair's line of results.jsonl."""
        self._results.write(line)
        self._counts.update(("pairs", line["agreement"]))

    def array(self, name: str, array: Array) -> None:
        """Record a tensor, if it is of a dtype and a size that are kept."""
        if array.dtype in _SAFETENSORS and math.prod(array.shape) <= ARRAY_LIMIT:
            self._arrays.add(name, array)

    def finish(self, targets: Sequence[Target], starts: Mapping[str, Start]) -> Path:
        """Write run.json and, last of all, the footer; return the folder, which is still aside: reports go there."""
        return self.finish_as(self._info(targets, starts))

    def finish_as(self, info: Mapping[str, Any]) -> Path:
        """As `finish`, with this run.json, of which the format is added."""
        self._arrays.close()
        self._describe(info)
        self._cases.close()
        self._results.write({"complete": True, **self._counts})
        self._results.close()
        self.finished = True
        return self._folder

    def _info(self, targets: Sequence[Target], starts: Mapping[str, Start]) -> dict[str, Any]:
        elapsed = datetime.timedelta(seconds=time.monotonic() - self._clock)  # the wall clock may be set meanwhile
        return {
            "suite": installed("batchnorm-conformance") or "unknown",
            "started": self._started.isoformat(timespec="seconds"),
            "finished": (self._started + elapsed).isoformat(timespec="seconds"),
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

    def _describe(self, info: Mapping[str, Any]) -> None:
        text = json.dumps(_spelled({"format": FORMAT, **info}), indent=2, ensure_ascii=False, allow_nan=False)
        (self._folder / "run.json").write_text(text + "\n", encoding="utf-8")

    def publish(self) -> Path:
        """Put the finished run in its place, replacing an earlier one, and return where it stands."""
        if not self._replace:
            return self._settle(self._out)
        while True:
            try:
                self._folder.rename(self._out)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                if not _replaceable(self._out):  # something of someone's own stands there by now
                    return self._settle(self._out)
                aside = Path(tempfile.mkdtemp(prefix=f".{self._out.name}.", suffix=".replaced", dir=self._out.parent))
                with contextlib.suppress(FileNotFoundError):  # another run has moved it away at this moment
                    self._out.rename(aside / "run")
                shutil.rmtree(aside, ignore_errors=True)
            else:
                return self._out

    def keep(self, targets: Sequence[Target], starts: Mapping[str, Start]) -> Path | None:
        """Put what was judged of an interrupted run beside its place; return where, None if nothing was judged.

        Where the disk is full, what it takes is kept: verdicts are there already, tensors are the first to go.
        """
        if not self._counts["verdicts"]:
            return None
        if not self.finished:
            with contextlib.suppress(OSError):
                self._arrays.close()
            with contextlib.suppress(OSError):
                self._describe(self._info(targets, starts))
            with contextlib.suppress(OSError):
                self._results.write({"complete": False, **self._counts})
        return self._settle(self._out.with_name(f"{self._out.name}.partial"))

    def _settle(self, place: Path) -> Path:
        """Rename the folder to the first free name: `place`, ``place-2``, ``place-3`` …; no other run's is touched."""
        others = (place.with_name(f"{place.name}-{number}") for number in itertools.count(2))
        for free in itertools.chain([place], others):
            try:
                self._folder.rename(free)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            else:
                break
        return free


#: What a rename fails with where something stands already.
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


class _Lines:
    """A file of JSON lines, each on disk once it is written, and whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line.

        Raises:
            OSError: the disk does not take it; the lines before it stand.

        """
        data = (json.dumps(_spelled(line), ensure_ascii=False, allow_nan=False) + "\n").encode()
        start = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
        except BaseException:
            self._file.truncate(start)
            self._file.seek(start)
            raise

    def close(self) -> None:
        self._file.close()


class _ArrayFile:
    """A safetensors file written as the tensors come, so that memory does not grow with them.

    The format puts its JSON header first; data and header wait in spools beside it until all of the header is known.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by close()
        self._data: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by close()
        self._closed = False

    def add(self, name: str, array: Array) -> None:
        if self._header.tell() > HEADER_LIMIT:
            return
        start = self._data.tell()
        self._data.write(array.data)
        entry = {
            "dtype": _SAFETENSORS[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, self._data.tell()],
        }
        comma = b", " if self._header.tell() else b""
        self._header.write(comma + json.dumps(name).encode() + b": " + json.dumps(entry).encode())

    def close(self) -> None:
        """Put header and data together.

        Raises:
            OSError: the disk does not take them; the file is that of no tensors.

        """
        if self._closed:
            return
        self._closed = True
        with self._header, self._data:
            try:
                self._assemble()
                return
            except OSError as error:
                failure = error
        with contextlib.suppress(OSError):
            self._path.write_bytes((8).to_bytes(8, "little") + b"{}      ")
        raise failure

    def _assemble(self) -> None:
        length = self._header.tell() + 2
        padding = -length % 8  # data start at a multiple of 8
        with self._path.open("wb") as file:
            file.write((length + padding).to_bytes(8, "little") + b"{")
            for spool, end in ((self._header, b"}" + b" " * padding), (self._data, b"")):
                spool.seek(0)
                shutil.copyfileobj(spool, file)
                file.write(end)


def _replaceable(out: Path) -> bool:
    """Whether nothing stands there, or what a run may take the place of: an empty folder, or a run."""
    if not os.path.lexists(out):
        return True
    return out.is_dir() and (all((out / name).is_file() for name in FILES) or not any(out.iterdir()))


def digest(array: Array) -> str:
    """What tells a tensor's bits from another's: 48 bits of BLAKE2b over dtype, shape and bytes, in base 64."""
    told = hashlib.blake2b(f"{array.dtype}{list(array.shape)}".encode(), digest_size=6)
    told.update(array.data)
    return base64.urlsafe_b64encode(told.digest()).decode()


def case_line(problem: Problem) -> dict[str, Any]:
    """A line of cases.jsonl: where a case stands, what it says, the digest of its bits."""
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


def verdict_line(
    case: str,
    target: str,
    verdict: Verdict,
    observation: Observation,
    evidence: Mapping[str, Evidence] = MappingProxyType({}),
) -> dict[str, Any]:
    """A line of results.jsonl: one case on one target.

    `accepted` is what its reading changes of the canonical conventions.
    """
    signature = observation.signature
    accepted = {name: value for name, value in vars(verdict.accepted).items() if value != getattr(CANONICAL, name)}
    return {
        "case": case,
        "target": target,
        "verdict": verdict.verdict,
        "status": verdict.status,
        "expected": verdict.expected,
        "diagnosis": verdict.diagnosis,
        "because": verdict.because,
        "reason": verdict.reason,
        "seconds": round(verdict.seconds, 6),
        "tensors": _tensors(verdict.tensors, evidence),
        "accepted": accepted,
        "tried": [{"name": each.name, "off": _finite(each.off)} for each in verdict.tried],
        "error": None if verdict.error is None else {"type": verdict.error.type, "message": verdict.error.message},
        "received": observation.received,
        "facts": list(observation.facts),
        "digests": {name: digest(array) for name, array in observation.tensors.items()},
        **({} if signature is None else {"signature": [list(parameter) for parameter in signature]}),
    }


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


def _tensors(
    results: Mapping[str, TensorResult], evidence: Mapping[str, Evidence] = MappingProxyType({})
) -> dict[str, Any]:
    return {
        name: {
            "ratio": _finite(result.ratio),
            "max_abs": _finite(result.max_abs),
            "max_ulp": _finite(result.max_ulp),
            "worst_index": None if result.worst_index is None else list(result.worst_index),
            **({"problem": result.problem} if result.problem else {}),
            **as_json(evidence.get(name)),
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


def _processor() -> str:
    """The processor's name, which decides the vector width of reductions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
