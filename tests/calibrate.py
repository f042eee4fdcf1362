"""How much of their bounds legitimate BatchNorms use: at most all of it, and not next to none.

    python tests/calibrate.py [algorithms] [layers] [derivatives] [reference] [--full] [-t TARGET]…

algorithms  the NumPy implementations of `algorithms.py`, in every dtype, over a grid of n and μ/σ, in several steps
layers      the real layers of torch, MindSpore and Keras, as far as they are installed, over the like
derivatives second derivatives of the same layers, in every order of the two modes, and derivatives along tangents
reference   the reference itself against 100 digits, on the cases of the corpus; and against `textbook.py`, which has no
            code in common with it, on the small ones: at most a hundredth of the bound

Prints the largest error of each tensor as a fraction of its bound. Exit code 1: one is over 1, or an algorithm or layer
comes to 0.02 nowhere, in no dtype, so that the bound sees nothing; or the reference uses more than a hundredth.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

import numpy as np
import textbook
from algorithms import (
    Algorithm,
    blocked,
    centred,
    chan,
    folded,
    one_pass,
    pairwise,
    sequential,
    shuffled,
    two_pass,
    welford,
)
from builders import STEP_TENSORS, case, parameters

from conformance import data
from conformance.arithmetic import Arithmetic, Array, Double, Multiprecision
from conformance.bounds import StepBounds, bounds
from conformance.case import Case
from conformance.compare import TensorResult
from conformance.comparison import Comparison, Under
from conformance.conventions import CANONICAL
from conformance.crew import NotStarted, Started
from conformance.expected import Expected
from conformance.fields import By
from conformance.layer import Parameters, Trace, Values
from conformance.load import load
from conformance.oracle import Oracle
from conformance.pool import Pool
from conformance.problem import dtype_of, materialise
from conformance.profile import Profile
from conformance.reference import evaluate
from conformance.rounding import Grade, accumulator
from conformance.session import judged
from conformance.target import parse

#: A bound that no legitimate implementation comes within a fiftieth of is too wide to see anything.
LEAST = 0.02

Ratios = dict[str, float]


@dataclass(frozen=True)
class Row:
    """The largest error of each tensor as a fraction of its bound."""

    name: str
    dtype: str
    worst: Ratios


def table(title: str, rows: Iterable[Row], tensors: Sequence[str] = STEP_TENSORS) -> str:
    """The rows with a column for each tensor."""
    lines = [f"\n{title}\n", f"| | dtype | {' | '.join(tensors)} |", "|---|---|" + "---|" * len(tensors)]
    for row in rows:
        cells = (f"{row.worst[name]:.2f}" if name in row.worst else "" for name in tensors)
        lines.append(f"| {row.name} | {row.dtype} | {' | '.join(cells)} |")
    return "\n".join(lines)


def widest(rows: Iterable[Ratios]) -> Ratios:
    """The largest of each."""
    worst: Ratios = {}
    for row in rows:
        for name, ratio in row.items():
            worst[name] = max(worst.get(name, 0.0), ratio)
    return worst


def complaints(rows: Sequence[Row]) -> Iterator[str]:
    """What is beyond a bound anywhere, and what is near one nowhere."""
    for row in rows:
        for name, ratio in row.worst.items():
            if not ratio <= 1:
                yield f"{row.name}, {row.dtype}: {name} is {ratio:.2f} of its bound"
    for algorithm in dict.fromkeys(row.name for row in rows):
        for name, ratio in widest(row.worst for row in rows if row.name == algorithm).items():
            if not ratio >= LEAST:
                yield f"{algorithm}: {name} is nowhere more than {ratio:.3f} of its bound, which is too wide"


# Algorithms

CHANNELS = 8
#: Evaluation comes first, with statistics that carry no error yet, and last.
MODES = ("eval", "train", "train", "eval")
#: Values per channel: fewest, odd, one block, several with a remainder, many.
SIZES, MORE = (2, 3, 17, 64, 1000, 4096, 65536), (262144, 10**6)
#: Mean over deviation.
MEANS, MORE_MEANS = (0.0, 1.0, 100.0, 1e4, 1e6), (10.0, 1e3, 1e5)

SUMS = (pairwise, blocked, shuffled)
TWO_PASS = tuple(Algorithm(total, two_pass, apply) for total in SUMS for apply in (centred, folded))
UPDATING = tuple(Algorithm(statistics=s, apply=apply) for s in (welford, chan) for apply in (centred, folded))
SEQUENTIAL = (Algorithm(sequential), Algorithm(sequential, apply=folded))
ONE_PASS = tuple(Algorithm(total, one_pass) for total in (pairwise, sequential))
#: Grade → the algorithms that it admits.
ADMITTED: Mapping[Grade, Sequence[Algorithm]] = {
    "strict": TWO_PASS + UPDATING,
    "weak": SEQUENTIAL + UPDATING[:1] + ONE_PASS,
}

#: Welford's one chain is as deep as n, which the strict grade admits up to here; and it runs in Python.
CHAIN: Mapping[Grade, int] = {"strict": 1000, "weak": 4096}
#: 50 digits are slow.
FLOAT64_SIZE = 300
#: float16 ends at 65504, and its spacing there is 32.
HALF_MEAN = 100.0
#: Mean and deviation of a cotangent: sums that drift lose more than those of either sign, like terms most of all.
COTANGENTS = ((0.0, 1.0), (10.0, 1.0), (0.7, 0.0))


@cache
def problem(
    n: int, mean: float, cotangent: tuple[float, float], dtype: str, held: str
) -> tuple[Parameters, list[Values]]:
    """Deviation 2; γ, β and the running statistics are nobody's defaults. x and g in `dtype`, the layer in `held`."""
    random = np.random.RandomState([n, int(mean)])

    def rounded(exact: Array, to: str) -> Array:
        return exact.astype(dtype_of(to)).astype(float)

    p = parameters(
        eps=1e-5,
        momentum=0.1,
        gamma=rounded(random.standard_normal(CHANNELS), held),
        beta=rounded(random.standard_normal(CHANNELS), held),
        running_mean=rounded(random.standard_normal(CHANNELS), held),
        running_var=rounded(random.random_sample(CHANNELS) + 0.5, held),
    )
    steps = []
    for mode in MODES:
        x = rounded(2 * mean + 2 * random.standard_normal((CHANNELS, n)), dtype)
        g = cotangent[0] + cotangent[1] * random.standard_normal((CHANNELS, n))
        steps.append(Values(mode, x, rounded(g, dtype), False))
    return p, steps


@cache
def exact(
    n: int, mean: float, cotangent: tuple[float, float], dtype: str, held: str
) -> tuple[Arithmetic, list[Trace], dict[Grade, list[StepBounds]]]:
    """What the steps come to, and how far rounding may take them."""
    p, steps = problem(n, mean, cotangent, dtype, held)
    arithmetic: Arithmetic = Multiprecision() if dtype == "float64" else Double()
    traces = evaluate(p, steps, CANONICAL, arithmetic)
    grades: tuple[Grade, ...] = ("strict", "weak")
    return arithmetic, traces, {grade: bounds(traces, arithmetic, grade, dtype, held) for grade in grades}


def used(algorithm: Algorithm, grade: Grade, n: int, mean: float, dtype: str, cotangent: tuple[float, float]) -> Ratios:
    """The largest error of each tensor over the steps, as a fraction of its bound."""
    held = "float64" if dtype == "float64" else "float32"
    p, steps = problem(n, mean, cotangent, dtype, held)
    arithmetic, traces, limits = exact(n, mean, cotangent, dtype, held)
    worst: Ratios = {}
    for step, trace, limit in zip(steps, traces, limits[grade], strict=True):
        x, g = (np.asarray(tensor).astype(held) for tensor in (step.x, step.g))
        found = algorithm.run(p, x, g, train=step.mode == "train", io_dtype=dtype_of(dtype))
        for name, value in found.items():
            off = np.abs(arithmetic.lower(arithmetic.lift(value.astype(float)) - getattr(trace, name)))
            worst[name] = max(worst.get(name, 0.0), float((off / getattr(limit, name)).max()))
        state = {name: found[name].astype(float) for name in ("running_mean", "running_var") if name in found}
        p = replace(p, **state)  # type: ignore[arg-type]
    return worst


def has_digits(n: int, mean: float, dtype: str) -> bool:
    """Whether equation (4) of docs/bounds.md holds: E[x²] − μ² keeps d below ¼ in every channel of every step."""
    held = "float64" if dtype == "float64" else "float32"
    arithmetic, traces, _ = exact(n, mean, COTANGENTS[0], dtype, held)
    batches = [trace for trace in traces if trace.batch]
    var, mu = (np.array([arithmetic.lower(getattr(trace, name)) for trace in batches]) for name in ("var", "mu"))
    return bool(((n + 4) * accumulator(held) * (var + mu * mu) <= (var + traces[0].eps) / 4).all())


def algorithm_rows(full: bool) -> Iterator[tuple[Grade, Row]]:
    """A row per algorithm and dtype."""
    sizes, means = (SIZES + MORE, MEANS + MORE_MEANS) if full else (SIZES, MEANS)
    for dtype, (grade, admitted) in itertools.product(("float32", "float16", "bfloat16", "float64"), ADMITTED.items()):
        for algorithm in admitted:
            longest = CHAIN[grade] if algorithm.statistics is welford else max(sizes)
            longest = min(longest, FLOAT64_SIZE) if dtype == "float64" else longest
            grid = [
                (n, mean, cotangent)
                for n, mean, cotangent in itertools.product(sizes, means, COTANGENTS)
                if n <= longest and not ("16" in dtype and mean > HALF_MEAN)
                if algorithm.statistics is not one_pass or has_digits(n, mean, dtype)
            ]
            ratios = (used(algorithm, grade, n, mean, dtype, cotangent) for n, mean, cotangent in grid)
            yield grade, Row(str(algorithm), dtype, widest(ratios))


# Layers

#: For derivatives: few channels, as float64 takes 50 digits; and no mean over deviation beyond which little remains of
#: what second derivatives are the difference of.
FEW_CHANNELS = ((2, 2, 1, 1), (3, 2, 1, 1), (4, 2, 5, 5), (16, 2, 16, 16), (4, 1, 112, 112))
NEAR, MORE_NEAR, SIGNS = (0.0, 100.0, 1e4), (1.0, 10.0, 1e3), COTANGENTS[:2]
SHAPES = ((2, 8, 1, 1), (3, 8, 1, 1), (4, 8, 5, 5), (16, 8, 16, 16), (16, 8, 64, 64))
MORE_SHAPES: tuple[tuple[int, ...], ...] = ((1, 8, 1, 1000), (1000, 8, 1, 1), (16, 8, 128, 128), (16, 4, 250, 250))


VECTORS = {
    "gamma": {"normal": {"seed": 1}},
    "beta": {"normal": {"seed": 2}},
    "running_mean": {"normal": {"seed": 3}},
    "running_var": {"uniform": {"low": 0.5, "high": 1.5, "seed": 4}},
}


def layer_cases(full: bool) -> list[Case]:
    """Cases in the manner of the corpus, and of no file."""
    found = []
    means = MEANS + MORE_MEANS if full else MEANS
    for dtype, shape, mean, (drift, spread) in itertools.product(
        ("float32", "float16", "bfloat16", "float64"), SHAPES + MORE_SHAPES if full else SHAPES, means, COTANGENTS
    ):
        n = shape[0] * shape[2] * shape[3]
        if (dtype == "float64" and n > FLOAT64_SIZE) or ("16" in dtype and mean > HALF_MEAN):
            continue
        layer = {"initial": VECTORS, "dtype": "float64" if dtype == "float64" else "float32"}
        name = f"calibrate/{dtype}[n={n},mean={mean:g},drift={drift:g}]"
        gradient = {"mean": drift, "std": spread}
        found.append(case(name, layer=layer, input=drawn(dtype, shape, mean), gradient=gradient, steps=list(MODES)))
    return found


def drawn(dtype: str, shape: tuple[int, ...], mean: float) -> dict[str, Any]:
    """An input of deviation 2."""
    n = shape[0] * shape[2] * shape[3]
    return {"shape": list(shape), "normal": {"mean": 2 * mean, "std": 2, "seed": n}, "dtype": dtype}


DERIVATIVES = ("ddx", "ddy", "ddgamma", "jvp")


def derivative_cases(full: bool) -> list[Case]:
    """A step of training and one of evaluation, each in a case; of a topic for each way to differentiate.

    torch.func, which torch takes forward over forward, differentiates no layer that tracks.
    """
    ways: dict[str, dict[str, Any]] = {by: {"second": {"by": by}} for by in get_args(By)} | {"forward": {"tangent": {}}}
    tracking = {"initial": VECTORS}
    untracked = {
        "initial": VECTORS | {"running_mean": None, "running_var": None},
        "track_running_stats": False,
    }
    found = []
    for dtype, shape, mean, (drift, spread), (way, asked), mode in itertools.product(
        ("float32", "float64"),
        FEW_CHANNELS,
        NEAR + MORE_NEAR if full else NEAR,
        COTANGENTS if full else SIGNS,
        ways.items(),
        ("train", "eval"),
    ):
        n = shape[0] * shape[2] * shape[3]
        if dtype == "float64" and n > FLOAT64_SIZE:
            continue
        gradient = {"mean": drift, "std": spread}
        step = {"mode": mode, **({"tangent": gradient} if way == "forward" else asked)}
        for layer in (tracking, untracked) if way == "forward-over-forward" else (tracking,):
            name = f"{way}/{dtype}[n={n},mean={mean:g},drift={drift:g},mode={mode},tracks={layer is tracking}]"
            found.append(case(name, layer=layer, input=drawn(dtype, shape, mean), gradient=gradient, steps=[step]))
    return found


def layer_rows(names: Sequence[str], full: bool, say: Callable[[str], None]) -> Iterator[Row]:
    """A row per target and dtype, under the conventions that its profile declares."""
    worst: dict[tuple[str, str], list[Ratios]] = {}
    with Pool([parse(name) for name in names]) as pool:
        for settled in judged(layer_cases(full), pool):
            dtype = str(settled.problem.case.input_of(0).dtype)
            for name, side in settled.sides.items():
                verdict = side.verdict
                if verdict.verdict == "refused":
                    continue
                if verdict.diagnosis and verdict.diagnosis.startswith("variance-cancelled"):
                    say(f"{settled.problem.case.id} on {name}: no digit of the variance is left")
                    continue
                if verdict.verdict not in ("conforms", "conventional"):
                    say(f"{settled.problem.case.id} on {name}: {verdict.verdict}, {verdict.because}")
                worst.setdefault((name, dtype), []).append(of_tensors(verdict.tensors, STEP_TENSORS))
        say_what_cannot_run(pool, say)
    for (name, dtype), rows in sorted(worst.items()):
        yield Row(name, dtype, widest(rows))


def derivative_rows(names: Sequence[str], full: bool, say: Callable[[str], None]) -> Iterator[Row]:
    """A row per target, way to differentiate and dtype, under its profile and what the corpus knows of it.

    Nothing is searched for, so that it is known at once where that does not hold.
    """
    worst: dict[tuple[str, str], list[Ratios]] = {}
    targets = [parse(name) for name in names]
    with Pool(targets) as pool:
        for observed in pool.events((materialise(of), targets) for of in derivative_cases(full)):
            start = None if observed is None else pool.starts.get(observed.target.name)
            if observed is None or observed.observation is None or not isinstance(start, Started):
                continue
            if observed.observation.refusal is not None:
                continue
            of, target = observed.problem.case, observed.target
            under = Under(target.name, target.profile, start.facts)
            meant = CANONICAL.but(**target.profile.declared(of, dict(start.facts)), **supposed(under))
            results = Comparison(Oracle(observed.problem), under, observed.observation).check(meant)
            if not all(result.ok for result in results.values()):
                say(f"{of.id} on {target.name}: beyond its bound")
            ratios = of_tensors(results, DERIVATIVES)
            worst.setdefault((f"{target.name}, {of.topic}", str(of.input_of(0).dtype)), []).append(ratios)
        say_what_cannot_run(pool, say)
    for (name, dtype), rows in sorted(worst.items()):
        yield Row(name, dtype, widest(rows))


def say_what_cannot_run(pool: Pool, say: Callable[[str], None]) -> None:
    """The targets that did not start, and why."""
    for name, start in pool.starts.items():
        if isinstance(start, NotStarted):
            say(f"{name} cannot run: {start.message}")


def supposed(under: Under) -> dict[str, Any]:
    """What the corpus knows of a target's second derivatives and tangents."""
    if under.facts.get("backend") == "tensorflow":
        return {"second": "variance about a constant"}
    known: dict[str, dict[str, Any]] = {
        "torch": {"second_over_forward": "statistics constant"},
        "mindspore": {"updates_along_tangent": 1},
    }
    return known.get(under.profile.framework, {})


def of_tensors(results: Mapping[str, TensorResult], wanted: Sequence[str]) -> Ratios:
    """The largest of each kind of tensor that is wanted."""
    return widest({base: result.off} for name, result in results.items() if (base := name.partition("[")[0]) in wanted)


# The reference

#: What the reference is compared with: twice the digits of its own finest arithmetic, which is for float64.
DIGITS = 100
#: Cases of more elements are left to --full.
REFERENCE_ELEMENTS, TEXTBOOK_ELEMENTS = 1_000, 100
#: What the reference may use of a bound.
REFERENCE_SHARE = 0.01


def of_reference(of: Case) -> float:
    """The largest error of the reference in a case, as a fraction of the strict bound, against `DIGITS` digits.

    What is no number must be none in both.
    """
    problem, profile = materialise(of), _profile_of(of)
    oracle, fine = Oracle(problem), Oracle(problem, Multiprecision(DIGITS))
    expected = oracle.expected(profile, CANONICAL)
    return share(expected, {name: value.value for name, value in fine.expected(profile, CANONICAL).items()})


def of_textbook(of: Case) -> float:
    """The same, against an implementation that shares no code with the reference."""
    oracle = Oracle(materialise(of))
    expected = oracle.expected(_profile_of(of), CANONICAL)
    return share(expected, textbook.results(oracle.problem))


def share(expected: Mapping[str, Expected], right: Mapping[str, Any]) -> float:
    """The largest error as a fraction of the bound, infinite where one is a number and the other is none."""
    worst = 0.0
    for name, found in right.items():
        if expected[name].dtype is None:
            continue
        held, exact = in_mpmath(expected[name].value), in_mpmath(found)
        with np.errstate(all="ignore"):
            known, off = exact.astype(np.float64), np.abs((held - exact).astype(np.float64))
            ratio = np.where(off > 0, off / expected[name].bound, 0.0)
        special = ~np.isfinite(known)
        if not np.array_equal(held.astype(np.float64)[special], known[special], equal_nan=True):
            return np.inf
        worst = max(worst, float(np.where(special, 0.0, ratio).max(initial=0)))
    return worst


def in_mpmath(values: Any) -> Array:
    """Numbers of any kind, as numbers of mpmath's."""
    kept = [textbook.MP.mpf(value if isinstance(value, float) else str(value)) for value in np.ravel(values)]
    return np.array(kept, object).reshape(np.shape(values))


def plain(of: Case) -> bool:
    """Whether a case is one that `textbook` knows: a layer of a few numbers, all of them finite, n above 1."""
    if of.kind != "layer" or elements(of) > TEXTBOOK_ELEMENTS or of.spec.repeat > 1:
        return False
    problem = materialise(of)
    finite = all(np.isfinite(call.x.astype(float)).all() for call in problem.calls)
    several = all(call.x.size > 2 * call.x.shape[1] > 0 for call in problem.calls)
    initial = all(np.isfinite(value.astype(float)).all() for value in problem.initial.values())
    layer = of.spec.layer
    assert layer is not None
    masked = any(call.mask is not None and call.mask.sum() < 2 for call in problem.calls)
    positive = layer.eps > 0 and all((value >= 0).all() for value in [problem.initial.get("running_var", np.ones(1))])
    return finite and several and initial and positive and not masked


@cache
def _profiles() -> dict[str, Profile]:
    from conformance.profile import open_adapter

    folders = [path for path in data.folder("adapters").iterdir() if (path / "profile.yaml").is_file()]
    return {profile.framework: profile for profile in (open_adapter(folder).profile for folder in folders)}


def _profile_of(of: Case) -> Profile:
    """The profile that reads a case's arguments: its first framework's."""
    return _profiles()[min(of.frameworks or {"numpy"})]


def comparable(of: Case) -> bool:
    """Whether a case has values that a reference computes."""
    if of.kind == "signature":
        return False
    problem = materialise(of)
    return Oracle(problem).undefined is None and _profile_of(of).senseless(problem) is None


def elements(of: Case) -> int:
    """How many values of x a case has, over all steps."""
    return sum(of.input_of(index).size for index in range(len(of.spec.steps)))


def reference_rows(full: bool) -> Iterator[tuple[str, str, float]]:
    """Each case, what its reference was held against, and its share."""
    for of in load([data.folder("cases")]):
        if comparable(of) and (full or elements(of) <= REFERENCE_ELEMENTS):
            yield of.id, f"{DIGITS} digits", of_reference(of)
            if plain(of):
                yield of.id, "the textbook", of_textbook(of)


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("algorithms", "layers", "derivatives", "reference")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(parts)}; all by default")
    parser.add_argument("--full", action="store_true", help="the whole grid and the whole corpus; an hour")
    parser.add_argument("-t", "--target", action="append", help="torch, mindspore and keras by default")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(parts):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    chosen = options.parts or parts
    wrong: list[str] = []
    if "algorithms" in chosen:
        by_grade = list(algorithm_rows(options.full))
        for grade in ADMITTED:
            rows = [row for of_grade, row in by_grade if of_grade == grade]
            print(table(f"The {grade} bound, algorithms", rows), flush=True)
            wrong += complaints(rows)
    targets = options.target or ["torch", "mindspore", "keras"]
    measured = {"layers": (layer_rows, STEP_TENSORS), "derivatives": (derivative_rows, DERIVATIVES)}
    for part in [part for part in measured if part in chosen]:
        measuring, tensors = measured[part]
        said: list[str] = []
        rows = list(measuring(targets, options.full, said.append))
        title = f"The strict bound, {'derivatives of ' if part == 'derivatives' else ''}layers under their profiles"
        print(table(title, rows, tensors), "", *said, sep="\n", flush=True)
        wrong += complaints(rows)
    over = []
    if "reference" in chosen:
        shares = list(reference_rows(options.full))
        for against in (f"{DIGITS} digits", "the textbook"):
            known = {case: of for case, other, of in shares if other == against}
            worst = max(known, key=known.__getitem__)
            most = f"{known[worst]:.2g} of a bound ({worst})"
            print(f"\nThe reference against {against}, {len(known)} cases: at most {most}")
        over = [f"{case} against {against}: {of:.2g}" for case, against, of in shares if not of <= REFERENCE_SHARE]
    print(*(f"over {REFERENCE_SHARE} of a bound: {line}" for line in over), *wrong, sep="\n")
    return int(bool(wrong or over))


if __name__ == "__main__":
    sys.exit(main())
