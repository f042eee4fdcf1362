"""What the suite costs beside the frameworks: ratios measured side by side in one run.

    conformance run     every case on every installed framework: judged, recorded, reported
    bare loop           the same layer calls by the same adapters, a process per framework, nothing checked

The sides take turns, so that a slow moment of the machine falls on both; medians and the ratio of each pair of turns
are printed. Nothing here asserts a time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from conformance import data
from conformance.harness import answer, load_adapter
from conformance.load import load
from conformance.pool import request
from conformance.problem import materialise
from conformance.session import targets_of
from conformance.target import MAIN, installed, parse


def bare(name: str, select: str) -> None:
    """The layer calls of every case on one target, in this process; what they return is dropped."""
    target = parse(name)
    adapter = load_adapter(target.adapter.source.read_text(encoding="utf-8"), str(target.adapter.source))
    adapter.start(target.options)
    for index, case in enumerate(load([data.folder("cases")])):
        if select in case.id and targets_of(case, [target]):
            answer(adapter, request(index, materialise(case), target))


def bare_loop(names: Sequence[str], select: str) -> None:
    """One process per framework, at the same time."""
    command = [sys.executable, __file__, "--select", select, "--bare"]
    running = [
        subprocess.Popen([*command, name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for name in names
    ]
    failed = [name for name, process in zip(names, running, strict=True) if process.wait() != 0]
    if failed:
        raise SystemExit(f"the bare loop failed on {', '.join(failed)}")


def suite(names: Sequence[str], select: str) -> None:
    """The main job on the same targets and cases."""
    with tempfile.TemporaryDirectory() as folder:
        targets = [word for name in names for word in ("-t", name)]
        command = [sys.executable, "-m", "conformance", "run", *targets, "-k", select, "-o", str(Path(folder) / "run")]
        finished = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if finished.returncode not in (0, 1):
            raise SystemExit(f"conformance run exited with {finished.returncode}")


def command_line(*words: str) -> None:
    """A command that runs no framework."""
    subprocess.run([sys.executable, "-m", "conformance", *words], stdout=subprocess.DEVNULL, check=True)


def seconds(side: Callable[[], None]) -> float:
    """Wall time of one turn."""
    started = time.perf_counter()
    side()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--select", default="", help="only cases whose id has this part")
    parser.add_argument("--bare", metavar="TARGET", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(options.bare, options.select)
        return
    names = [name for name in MAIN if installed(parse(name).profile.package)]
    if not names:
        raise SystemExit("no framework is installed here")
    ours, theirs = [], []
    for turn in range(options.rounds):
        ours.append(seconds(lambda: suite(names, options.select)))
        theirs.append(seconds(lambda: bare_loop(names, options.select)))
        print(f"turn {turn + 1}: conformance run {ours[-1]:.1f} s, bare loop {theirs[-1]:.1f} s", flush=True)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(f"targets: {', '.join(names)}")
    print(f"conformance run  median {statistics.median(ours):7.2f} s")
    print(f"bare loop        median {statistics.median(theirs):7.2f} s")
    print(f"ratio            median {statistics.median(ratios):7.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")
    for words in (("--help",), ("list",)):
        times = [seconds(lambda words=words: command_line(*words)) for _ in range(5)]  # type: ignore[misc]
        print(f"conformance {' '.join(words):<12} median {statistics.median(times):5.2f} s")


if __name__ == "__main__":
    main()
