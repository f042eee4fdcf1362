"""A run as a folder: written aside and renamed when whole, so that an interrupted run never looks complete.

What was judged before an interruption is kept beside the run's place, as ``….partial``, with a footer that says so.

run.json             format and suite version, when, on what, the targets with their facts
cases.jsonl          a line per case: where it stands, what it says, the digest of its bits
results.jsonl        a line per case and target, a line per case and pair; the last line counts them
arrays.safetensors   the tensors observed, up to `ARRAY_LIMIT` elements each
report.html, junit.xml, summary.md
"""

from __future__ import annotations

import contextlib
import datetime
import errno
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
from typing import Any

from conformance import lines
from conformance.crew import Start
from conformance.errors import UsageError
from conformance.evidence import Evidence
from conformance.harness import Array
from conformance.judge import Verdict
from conformance.observation import Observation
from conformance.pairs import Agreement
from conformance.problem import Problem
from conformance.streams import DTYPES, ArrayFile, Lines, spelled
from conformance.suite_version import suite_version
from conformance.target import Target

#: Version of the run folder's format.
FORMAT = 1

#: What every run holds beside its reports; a folder without them is taken for someone's own.
FILES = ("run.json", "cases.jsonl", "results.jsonl", "arrays.safetensors")

#: Larger tensors are judged but not kept: a run folder is to be carried around.
ARRAY_LIMIT = 65_536


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
            self._results = Lines(self._folder / "results.jsonl")
            self._cases = Lines(self._folder / "cases.jsonl")
            self._arrays = ArrayFile(self._folder / "arrays.safetensors")
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
        self.case_line(lines.case_line(problem))

    def verdict(
        self,
        case: str,
        target: str,
        verdict: Verdict,
        observation: Observation,
        evidence: Mapping[str, Evidence] = MappingProxyType({}),
    ) -> None:
        """Record one case on one target, and its tensors."""
        self.verdict_line(lines.verdict_line(case, target, verdict, observation, evidence))
        for name, array in observation.tensors.items():
            self.array(f"{case}::{target}::{name}", array)

    def pair(self, case: str, a: str, b: str, agreement: Agreement) -> None:
        """Record one case on a pair of targets."""
        self.pair_line(lines.pair_line(case, a, b, agreement))

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
        if array.dtype in DTYPES and math.prod(array.shape) <= ARRAY_LIMIT:
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
            "suite": suite_version(),
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
            "targets": [lines.target_line(target, starts.get(target.name)) for target in targets],
        }

    def _describe(self, info: Mapping[str, Any]) -> None:
        text = json.dumps(spelled({"format": FORMAT, **info}), indent=2, ensure_ascii=False, allow_nan=False)
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


def _replaceable(out: Path) -> bool:
    """Whether nothing stands there, or what a run may take the place of: an empty folder, or a run."""
    if not os.path.lexists(out):
        return True
    return out.is_dir() and (all((out / name).is_file() for name in FILES) or not any(out.iterdir()))


def default_folder() -> Path:
    """Where a run goes that was given no folder."""
    return Path("conformance-runs") / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def _processor() -> str:
    """The processor's name, which decides the vector width of reductions."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), "")
