"""What the suite costs beside the frameworks and beside a test written by hand: ratios, measured side by side.

    bare     conformance run, against the same layer calls in a process per framework, nothing checked
    hand     conformance run, against benchmarks/handwritten.py in one process
    pytest   pytest -n 2 on the case files, against pytest -n 2 on benchmarks/handwritten.py
    start    conformance --help, conformance list, and the first verdict against the framework's bare import
    large    reference and comparison of 32×64×112×112 float32, against the slowest framework's forward and backward

The sides take turns, so that a slow moment of the machine falls on both. Medians and the ratio within each turn are
printed, in wall time and in CPU time of all processes. Nothing here asserts a time; README.md says more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from conformance import data
from conformance.target import MAIN, installed, parse

HERE = Path(__file__).resolve().parent
QUICK = ("momentum.yaml", "affine.yaml", "porting.yaml")

#: The threads that a worker has; a bare loop has no more.
PINNED = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")

CASE = """\
conformance: 1
about: One case.
cases:
  one:
    why: It is measured.
    layer: {{}}
    input: {{shape: {shape}, normal: {{}}}}
    gradient: {{}}
    steps: [train]
"""


@dataclass(frozen=True)
class Bench:
    """What is measured, on what, and the folder that everything is left in."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    rounds: int
    folder: Path

    def run(self, *words: str, accept: Sequence[int] = (0,), environment: Mapping[str, str] | None = None) -> str:
        """Run a command of this interpreter to its end and return what it printed.

        Raises:
            SystemExit: its exit code is none of those accepted.
        """
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode not in accept:
            raise SystemExit(
                f"{' '.join(words)} exited with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done.stdout

    def case(self, shape: Sequence[int]) -> Path:
        """A file of one case, a training step with gradients on an input of this shape."""
        file = self.folder / "one.yaml"
        file.write_text(CASE.format(shape=list(shape)), encoding="utf-8")
        return file

    def suite(self) -> None:
        """The main job."""
        targets = [word for name in self.names for word in ("-t", name)]
        paths = map(str, self.paths)
        self.run("-m", "conformance", "run", *paths, *targets, "-o", str(self.folder / "run"), accept=(0, 1))

    def bare(self) -> None:
        """One process per framework, at the same time."""
        commands = [
            [sys.executable, str(HERE / "sides.py"), "bare", name, *map(str, self.paths)] for name in self.names
        ]
        quiet, environment = subprocess.DEVNULL, os.environ | PINNED
        running = [subprocess.Popen(words, stdout=quiet, stderr=quiet, env=environment) for words in commands]
        ended = [process.wait() for process in running]
        if any(ended):
            raise SystemExit(f"the bare loops exited with {ended}")

    def pytest(self, *words: str) -> None:
        """Pytest without this project's settings; failures are no failure of the measurement."""
        (self.folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        without = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
        settings = ("-q", "-c", str(self.folder / "pytest.ini"), *without, "--tb=line", "-r", "N")
        chosen = os.pathsep.join(map(str, self.paths or [data.folder("cases")]))
        self.run("-m", "pytest", *settings, *words, accept=(0, 1), environment={"BENCH_CASES": chosen})

    def handwritten(self, *words: str) -> None:
        """The test that an engineer would write, without our plugin; XML says what became of it."""
        file = str(HERE / "handwritten.py")
        self.pytest("-p", "no:conformance", f"--junitxml={self.folder / 'hand.xml'}", *words, file)

    def collected(self) -> None:
        """Our plugin, on the case files."""
        targets = [f"--conformance-target={name}" for name in self.names]
        ours = "conformance.pytest_plugin"  # by hand where it runs from a checkout that is not installed
        plugin = () if any(point.value == ours for point in entry_points(group="pytest11")) else ("-p", ours)
        self.pytest(*plugin, "-n", "2", *targets, *map(str, self.paths or [data.folder("cases")]))


@dataclass(frozen=True)
class Spent:
    """Seconds of one turn: by the clock, and of the processors, of all processes that ended."""

    wall: float
    cpu: float


def spent(side: Callable[[], object]) -> Spent:
    """One turn."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    side()
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def row(name: str, ours: Sequence[float], theirs: Sequence[float], target: str, unit: str = "s") -> str:
    """A line of the table: medians, and the median, least and greatest of the turns' ratios."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    medians = f"{statistics.median(ours):8.2f} {unit} {statistics.median(theirs):8.2f} {unit}"
    return f"{name:<34}{medians} {statistics.median(ratios):7.2f} ({min(ratios):.2f} to {max(ratios):.2f})  {target}"


def turns(bench: Bench, name: str, sides: Sequence[Callable[[], object]], target: str) -> list[str]:
    """Two sides in turn: a line in wall time and one in CPU time."""
    taken: list[tuple[Spent, Spent]] = []
    for turn in range(bench.rounds):
        ours, theirs = spent(sides[0]), spent(sides[1])
        taken.append((ours, theirs))
        say(f"{name}, turn {turn + 1} of {bench.rounds}: {ours.wall:.1f} s against {theirs.wall:.1f} s")
    return [
        row(name, [a.wall for a, _ in taken], [b.wall for _, b in taken], target),
        row(f"{name}, CPU", [a.cpu for a, _ in taken], [b.cpu for _, b in taken], ""),
    ]


def against_bare(bench: Bench) -> list[str]:
    """The main job against bare loops."""
    return turns(bench, "run / bare loops", (bench.suite, bench.bare), "≤ 1.15")


def against_hand(bench: Bench) -> list[str]:
    """The main job against the file written by hand, and what the two say."""
    lines = turns(bench, "run / by hand", (bench.suite, bench.handwritten), "≤ 0.6")
    return [*lines, *agreement(bench.folder)]


def agreement(folder: Path) -> list[str]:
    """How the outcomes of the file written by hand stand to the suite's verdicts."""
    verdicts = {}
    for line in (folder / "run" / "results.jsonl").read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        if "verdict" in said:
            verdicts[f"{said['case']}::{said['target']}"] = said["verdict"]
    counts: Counter[tuple[str, str]] = Counter()
    for test in ET.parse(folder / "hand.xml").iter("testcase"):  # noqa: S314, pytest has just written it
        outcome = next((part.tag for part in test if part.tag in ("failure", "skipped", "error")), "passed")
        name = test.get("name", "").removeprefix("test_layer[").removesuffix("]")
        counts[outcome, verdicts.get(name, "none")] += 1
    lines = []
    for outcome in ("passed", "failure", "skipped", "error"):
        found = {verdict: n for (was, verdict), n in sorted(counts.items()) if was == outcome}
        if found:
            words = ", ".join(f"{n} {verdict}" for verdict, n in found.items())
            lines.append(f"  by hand {outcome}: {sum(found.values())}, of which the suite says {words}")
    return lines


def pytest_against_hand(bench: Bench) -> list[str]:
    """Both under pytest with two processes."""
    sides = (bench.collected, lambda: bench.handwritten("-n", "2"))
    return turns(bench, "pytest -n 2 / by hand -n 2", sides, "≤ 0.8")


def first_verdict(bench: Bench, name: str) -> float:
    """Seconds from launch to the line that says the first verdict fell."""
    file = str(bench.case((4, 3, 5, 5)))
    words = [sys.executable, "-m", "conformance", "run", file, "-t", name, "-o", str(bench.folder / "first")]
    started = time.perf_counter()
    process = subprocess.Popen(words, cwd=bench.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    fallen = next((time.perf_counter() for line in process.stdout if re.match(rf"{name}: 1 of 1\b", line)), None)
    process.communicate()
    if fallen is None:
        raise SystemExit(f"conformance run -t {name} gave no verdict")
    return fallen - started


def start(bench: Bench) -> list[str]:
    """Commands that run no framework, and the first verdict of each framework."""
    lines = []
    for words, target in ((["--help"], "< 0.3 s"), (["list"], "< 1 s")):
        times = [spent(lambda words=words: bench.run("-m", "conformance", *words)) for _ in range(5)]  # type: ignore[misc]
        wall, cpu = (statistics.median(getattr(t, kind) for t in times) for kind in ("wall", "cpu"))
        lines.append(f"{'conformance ' + words[0]:<34}{wall:8.2f} s  (CPU {cpu:.2f} s)  {target}")
        say(lines[-1])
    verdicts: dict[str, list[float]] = {name: [] for name in bench.names}
    imports: dict[str, list[float]] = {name: [] for name in bench.names}
    for turn in range(bench.rounds):
        for name in bench.names:
            verdicts[name].append(first_verdict(bench, name))
            imports[name].append(spent(lambda name=name: bench.run("-c", f"import {name}")).wall)  # type: ignore[misc]
            say(f"{name}, turn {turn + 1}: verdict {verdicts[name][-1]:.2f} s, import {imports[name][-1]:.2f} s")
    fastest = min(imports, key=lambda name: statistics.median(imports[name]))
    for name in bench.names:
        later = [a - b for a, b in zip(verdicts[name], imports[name], strict=True)]
        medians = f"{statistics.median(verdicts[name]):8.2f} s {statistics.median(imports[name]):8.2f} s"
        difference = f"{statistics.median(later):+7.2f} ({min(later):+.2f} to {max(later):+.2f})"
        lines.append(f"{name + ', verdict − import':<34}{medians} {difference}{'  ≤ +1 s' if name == fastest else ''}")
    return lines


def large(bench: Bench) -> list[str]:
    """CPU time of judging a large case against that of running it."""
    file = str(bench.case((32, 64, 112, 112)))
    first: list[float] = []
    whole: list[float] = []
    slowest: list[float] = []
    for turn in range(bench.rounds):
        judged = json.loads(bench.run(str(HERE / "sides.py"), "judge", file, *bench.names))
        steps = {}
        for name in bench.names:
            printed = bench.run(str(HERE / "sides.py"), "step", name, file, environment=PINNED)
            steps[name] = json.loads(printed.splitlines()[-1])["step"]
        first.append(judged["first"])
        whole.append(judged["all"])
        slowest.append(max(steps.values()))
        frameworks = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in steps.items())
        peak = f"peak of the main process {judged['megabytes']:.0f} MB"
        say(f"large, turn {turn + 1}: judged {first[-1]:.2f} s, all of it {whole[-1]:.2f} s; {frameworks}; {peak}")
    return [
        row("large, one target / slowest step", first, slowest, "≤ 2"),
        row(f"large, {len(bench.names)} targets / slowest step", whole, slowest, ""),
    ]


PARTS = {"bare": against_bare, "hand": against_hand, "pytest": pytest_against_hand, "start": start, "large": large}


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="case files or folders; the whole corpus if none")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each part (3)")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas: " + ",".join(PARTS))
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    names = tuple(name for name in MAIN if installed(parse(name).profile.package))
    if not names:
        raise SystemExit("no framework is installed here")
    paths = [data.folder("cases") / name for name in QUICK] if options.quick else options.paths
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(names, tuple(path.absolute() for path in paths), options.rounds, Path(folder))
        lines = [line for part in chosen for line in PARTS[part](bench)]
    versions = ", ".join(f"{name} {installed(parse(name).profile.package)}" for name in names)
    print(f"\n{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}; {versions}")
    print(f"{'':<34}{'ours':>10} {'theirs':>10} {'ratio':>7}, or difference; target")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
