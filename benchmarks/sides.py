"""What bench.py measures in a process of its own: bare layer calls, and the two sides of one large case.

    sides.py bare TARGET [PATH…]     the layer calls of every case, nothing checked
    sides.py step TARGET FILE        CPU seconds of the layer's own forward and backward of the file's one case
    sides.py judge FILE TARGET…      CPU seconds of that case's reference and comparison, and of all its judging

The last two print their figures as JSON.
"""

from __future__ import annotations

import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

from conformance import data
from conformance.comparison import Comparison, Under
from conformance.crew import Started
from conformance.evidence import gather
from conformance.harness import Adapter, answer, load_adapter
from conformance.judge import judge
from conformance.load import load
from conformance.oracle import Oracle
from conformance.pairs import Side, judge_pair
from conformance.pool import Pool, request
from conformance.problem import materialise
from conformance.session import targets_of
from conformance.target import parse

#: The slowest of the frameworks takes seconds for a large step; its first call also allocates.
CALLS = 3


def started(name: str) -> Adapter:
    """A framework, ready in this process."""
    target = parse(name)
    adapter = load_adapter(target.adapter.source.read_text(encoding="utf-8"), str(target.adapter.source))
    adapter.start(target.options)
    return adapter


def bare(name: str, paths: list[Path]) -> None:
    """The layer calls of every case on one target; what they return is dropped. No layer is carried anywhere."""
    target, adapter = parse(name), started(name)
    for index, case in enumerate(load(paths or [data.folder("cases")])):
        if targets_of(case, [target]):
            answer(adapter, request(index, materialise(case), target))


def step(name: str, file: Path) -> dict[str, float]:
    """The median over some calls after a first one; bytes to tensors and back are not the layer's own."""
    adapter = started(name)
    (case,) = load([file])
    asked = request(0, materialise(case), parse(name))
    spent = 0.0

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **rest: Any) -> Any:
            nonlocal spent
            before = time.process_time()
            try:
                return method(*arguments, **rest)
            finally:
                spent += time.process_time() - before

        return call

    inside: Any = adapter
    stepping, inside.tensor, inside.array = adapter.step, timed(inside.tensor), timed(inside.array)
    seconds = []

    def stepped(*arguments: Any) -> Any:
        nonlocal spent
        spent, before = 0.0, time.process_time()
        result = stepping(*arguments)
        seconds.append(time.process_time() - before - spent)
        return result

    inside.step = stepped
    for _ in range(1 + CALLS):
        reply = answer(adapter, asked)
        if reply["error"] is not None:
            raise SystemExit(f"{name}: {reply['error']['message']}")
    return {"step": statistics.median(seconds[1:])}


def judging(file: Path, names: list[str]) -> dict[str, float]:
    """Of the main process: the reference with one comparison, and everything that a run judges of the case."""
    (case,) = load([file])
    problem = materialise(case)
    targets = [parse(name) for name in names]
    with Pool(targets) as pool:
        seen = {observed.target.name: observed.observation for observed in pool.observe([(problem, targets)])}
    before = time.process_time()
    oracle, sides, first = Oracle(problem), [], 0.0
    for target in targets:
        start, observation = pool.starts[target.name], seen[target.name]
        if not isinstance(start, Started) or observation is None:
            raise SystemExit(f"{target.name} cannot run: {start}")
        under = Under(target.name, target.profile, start.facts)
        comparison = Comparison(oracle, under, observation)
        verdict = judge(comparison)
        if verdict.status != "expected":
            raise SystemExit(f"{target.name}: {verdict.verdict}, {verdict.because}")
        first = first or time.process_time() - before
        sides.append(Side(under, observation, verdict, gather(comparison, verdict)))
    for a, b in itertools.combinations(sides, 2):
        judge_pair(oracle, a, b)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes, on Linux
    return {"first": first, "all": time.process_time() - before, "megabytes": peak}


def main() -> None:
    """Do what the command line says, where frameworks may leave files."""
    word, first, *rest = sys.argv[1:]
    paths = [Path(path).absolute() for path in rest]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        if word == "bare":
            bare(first, paths)
        elif word == "step":
            print(json.dumps(step(first, paths[0])))
        else:
            print(json.dumps(judging(Path(first), rest)))


if __name__ == "__main__":
    main()
