"""Every fault of `faulty/adapter.py` against the corpus: which cases catch which, and whether the cause is named.

    python tests/mutants.py [--select TEXT] [--fault NAME] [--write FILE] [--expansions N] [--full]

A fault is caught where a verdict is not the expected one. It is named where the diagnoses of the cases that catch it,
a sample of them, say what `faulty/adapter.py` says of it. Exit code 1: a fault survives or is misnamed, a case catches
none, or the layer without a fault is found wanting. Frameworks are not needed; layers run in the processes that judge.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
from builders import module

from conformance import data, harness
from conformance.case import Case
from conformance.comparison import Comparison, Under
from conformance.judge import Verdict, expectation, judge
from conformance.load import load
from conformance.observation import Observation, unpack
from conformance.oracle import Oracle
from conformance.pool import request
from conformance.problem import Problem, materialise
from conformance.target import Target, parse

FAULTY = Path(__file__).parent / "faulty"

#: Cases of more elements are left to --full; there are some twenty.
ELEMENTS = 20_000
#: So many cases that catch a fault are asked for its name, of up to so many elements each.
ASKED, ASKED_ELEMENTS = 3, 2_000


@dataclass(frozen=True)
class Bench:
    """The layers: one without a fault and one with each."""

    faulty: ModuleType
    target: Target
    under: Under
    layers: Mapping[str, harness.Adapter]

    def observe(self, fault: str, problem: Problem) -> Observation:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a layer that is wrong on purpose divides by zero
            return unpack(harness.answer(self.layers[fault], request(0, problem, self.target)))


@functools.cache
def bench() -> Bench:
    """One per process."""
    faulty = module(FAULTY / "adapter.py")
    target = parse(str(FAULTY))
    layers = {
        fault: harness.load_adapter(faulty.mutated(fault), str(faulty.GOOD)) for fault in ("none", *faulty.FAULTS)
    }
    facts = [layer.start({"device": "cpu"}) for layer in layers.values()]
    return Bench(faulty, target, Under("faulty", target.profile, facts[0]), layers)


@functools.cache
def corpus() -> dict[str, Case]:
    """The layer cases, by id; the others speak to the real frameworks."""
    return {case.id: case for case in load([data.folder("cases")]) if case.kind == "layer"}


def names_of(verdict: Verdict) -> str:
    """The diagnosis, or the type of the exception."""
    return verdict.error.type if verdict.error is not None else verdict.diagnosis or verdict.verdict


def same(a: Observation, b: Observation) -> bool:
    """Whether a fault does not show in what came back."""
    return a.tensors == b.tensors and (a.refusal, a.failure, a.fate) == (b.refusal, b.failure, b.fate)


@dataclass
class Tally:
    """What one case saw.

    Attributes:
        refused: the layer without a fault refuses the case, as its profile says.
        wrong: the unexpected verdict on that layer.
        caught: the faults with an unexpected verdict.
    """

    case: str
    elements: int
    refused: bool = False
    wrong: str = ""
    caught: list[str] = field(default_factory=list)


def tally(case_id: str, faults: Sequence[str]) -> Tally:
    """Run one case on every layer."""
    problem = materialise(corpus()[case_id])
    oracle = Oracle(problem)
    good = bench().observe("none", problem)
    verdict = judge(Comparison(oracle, bench().under, good))
    found = Tally(case_id, elements(problem.case), verdict.verdict == "refused")
    if verdict.status == "unexpected":
        found.wrong = f"{verdict.verdict} ({verdict.because})"
    seek_cause = expectation(problem.case, bench().under).cause is not None
    for fault in faults:
        seen = bench().observe(fault, problem)
        if not same(seen, good):
            verdict = judge(Comparison(oracle, bench().under, seen), seek_cause=seek_cause)
            if verdict.status == "unexpected":
                found.caught.append(fault)
    return found


def diagnosed(case_id: str, fault: str) -> str:
    """What a fault is called in a case."""
    problem = materialise(corpus()[case_id])
    return names_of(judge(Comparison(Oracle(problem), bench().under, bench().observe(fault, problem))))


def asked(tallies: Iterable[Tally], fault: str) -> list[str]:
    """The cases that are asked for a fault's name: spread evenly over those that catch it."""
    catching = [each.case for each in tallies if fault in each.caught and each.elements <= ASKED_ELEMENTS]
    step = max(1, len(catching) // ASKED)
    return catching[::step][:ASKED]


def spread(ids: Iterable[str], most: int) -> list[str]:
    """A few expansions of every case, first and last among them, without the large ones."""
    chosen = []
    for _, expansions in itertools.groupby(ids, lambda id_: id_.partition("[")[0]):
        small = [id_ for id_ in expansions if elements(corpus()[id_]) <= ELEMENTS]
        chosen += [small[round(at)] for at in np.linspace(0, len(small) - 1, min(most, len(small)))]
    return chosen


def elements(of: Case) -> int:
    """How many values of x a case has, over all steps."""
    return sum(of.input_of(index).size for index in range(len(of.spec.steps)))


def cover(tallies: Iterable[Tally]) -> list[str]:
    """Few cases that catch every fault which any catches: greedily the one that catches most of the rest.

    That is not always the fewest; it is within a factor of ln(faults) + 1 of them (Chvátal 1979).
    """
    catching = {each.case: set(each.caught) for each in tallies}
    left, chosen = set().union(*catching.values()), []
    while left:
        best = max(catching, key=lambda case: len(catching[case] & left))
        chosen.append(best)
        left -= catching[best]
    return chosen


def rightly(named: Sequence[str], wanted: Sequence[str]) -> int:
    """How many cases named a fault as they should; one that no convention explains should be called unexplained."""
    return sum(name in (wanted or ("unexplained",)) for name in named)


def explicable(wanted: Sequence[str]) -> bool:
    """Whether a convention or algorithm of the catalogue, or an exception, says what a fault does."""
    return bool(wanted) and "unexplained" not in wanted


def lines(tallies: Sequence[Tally], names: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is printed, but for the last line."""
    faults = bench().faulty.FAULTS
    for fault, named in names.items():
        caught = sum(fault in each.caught for each in tallies)
        wanted = " or ".join(faults[fault].named) or "unexplained"
        said = ", ".join(f"{name} ×{count}" for name, count in Counter(named).most_common())
        yield f"{fault:36} {caught:5} cases   {said}" + (
            "" if set(named) <= set(faults[fault].named or ["unexplained"]) else f"   (wanted: {wanted})"
        )
    idle = [each for each in tallies if not each.caught]
    yield f"\n{len(idle)} of {len(tallies)} cases catch no fault:"
    for each in idle:
        yield f"  {each.case}" + ("   (the NumPy layer refuses it, as declared)" if each.refused else "")
    few = cover(tallies)
    yield f"\n{len(few)} cases, chosen greedily, still catch every fault that is caught:"
    yield from (f"  {case}" for case in few)
    wrong = [each for each in tallies if each.wrong]
    if wrong:
        yield f"\n{len(wrong)} cases are unexpected on the layer without a fault:"
        yield from (f"  {each.case}: {each.wrong}" for each in wrong)
    yield ""


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--select", default="", help="only cases whose id has this part")
    parser.add_argument("--fault", action="append", help="only this one; more than once for more")
    parser.add_argument("--write", type=Path, metavar="FILE", help="which cases catch which, as JSON")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--expansions", type=int, default=3, help="so many of each case, spread over all")
    parser.add_argument("--full", action="store_true", help="every expansion and the large cases too")
    options = parser.parse_args()
    faults = options.fault or list(bench().faulty.FAULTS)
    matching = [case for case in corpus() if options.select in case]
    small = matching if options.full else spread(matching, options.expansions)
    with ProcessPoolExecutor(options.jobs) as processes:
        tallies = list(processes.map(functools.partial(tally, faults=faults), small, chunksize=4))
        questions = [(case, fault) for fault in faults for case in asked(tallies, fault)]
        answers = list(processes.map(diagnosed, *zip(*questions, strict=True))) if questions else []
    names: dict[str, list[str]] = {fault: [] for fault in faults}
    for (_, fault), answer in zip(questions, answers, strict=True):
        names[fault].append(answer)
    for line in lines(tallies, names):
        print(line)
    if len(small) < len(matching):
        print(f"{len(matching) - len(small)} expansions and large cases were left out; --full runs them\n")
    if options.write is not None:
        found = {
            "caught": {fault: [each.case for each in tallies if fault in each.caught] for fault in faults},
            "named": names,
            "idle": [each.case for each in tallies if not each.caught],
            "cover": cover(tallies),
        }
        options.write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    caught = {fault for each in tallies for fault in each.caught}
    wanted = {fault: bench().faulty.FAULTS[fault].named for fault in faults}
    right = {fault for fault in caught if 2 * rightly(names[fault], wanted[fault]) > len(names[fault])}
    named = [fault for fault in right if explicable(wanted[fault])]
    if faults_left := sorted(set(faults) - caught):
        print("survived: " + ", ".join(faults_left))
    if misnamed := sorted(caught - right):
        print("misnamed: " + ", ".join(misnamed))
    print(f"{len(faults)} mutants, {len(caught)} caught, {len(named)} named")
    enough = len(named) >= 0.95 * sum(map(explicable, wanted.values()))
    guessed = any(not explicable(wanted[fault]) for fault in caught - right)
    idle = not options.fault and any(not each.caught for each in tallies)
    wrong = any(each.wrong for each in tallies)
    return int(len(caught) < len(faults) or not enough or guessed or idle or wrong)


if __name__ == "__main__":
    sys.exit(main())
