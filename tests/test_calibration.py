"""Calibration: the bounds admit every legitimate way of computing BatchNorm, refuse lossy ones, and are not vacuous.

`calibrate.py` measures; the whole of it is `tox run -e calibrate`. Here is its quick part, and what must be beyond.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import calibrate
import numpy as np
import pytest
from algorithms import Algorithm, one_pass, pairwise, sequential
from builders import parameters, tensors, values
from calibrate import ONE_PASS, SEQUENTIAL, TWO_PASS, UPDATING, Ratios, Row, complaints, used, widest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import data
from conformance.arithmetic import Double
from conformance.bounds import bounds
from conformance.case import Case
from conformance.conventions import CANONICAL
from conformance.layer import Values
from conformance.load import load
from conformance.oracle import Oracle
from conformance.problem import dtype_of, materialise
from conformance.reference import evaluate
from conformance.rounding import Grade

SIZES, MEANS = (2, 3, 17, 64, 1000), (0.0, 1.0, 100.0, 1e4)
RANDOM = calibrate.COTANGENTS[0]
#: The first step of `calibrate` that trains.
TRAINS = calibrate.MODES.index("train")


def worst(algorithm: Algorithm, grade: Grade, sizes: Any = SIZES, means: Any = MEANS, dtype: str = "float32") -> Ratios:
    grid = itertools.product(sizes, means, calibrate.COTANGENTS)
    return widest(used(algorithm, grade, n, mean, dtype, cotangent) for n, mean, cotangent in grid)


@pytest.mark.parametrize("algorithm", TWO_PASS + UPDATING, ids=str)
def test_what_the_strict_grade_admits_is_within_its_bound_and_near_it(algorithm: Algorithm) -> None:
    assert not list(complaints([Row(str(algorithm), "float32", worst(algorithm, "strict"))]))


@pytest.mark.parametrize("algorithm", [*SEQUENTIAL, UPDATING[0]], ids=str)
def test_what_the_weak_grade_admits_is_within_its_bound_and_near_it(algorithm: Algorithm) -> None:
    assert not list(complaints([Row(str(algorithm), "float32", worst(algorithm, "weak"))]))


@pytest.mark.parametrize("algorithm", ONE_PASS, ids=str)
def test_a_one_pass_variance_is_within_the_weak_bound_while_it_has_digits(algorithm: Algorithm) -> None:
    reached = [(n, mean) for n in SIZES for mean in MEANS if calibrate.has_digits(n, mean, "float32")]
    assert {mean for _, mean in reached} == {0.0, 1.0, 100.0}
    found = widest(used(algorithm, "weak", n, mean, "float32", RANDOM) for n, mean in reached)
    assert not list(complaints([Row(str(algorithm), "float32", found)]))


def test_a_one_pass_variance_is_beyond_the_strict_bound_where_it_cancels() -> None:
    found = worst(Algorithm(statistics=one_pass), "strict", (1000,), (100.0,))
    assert {name for name, ratio in found.items() if ratio > 1} == {"y", "dx", "dgamma", "running_var"}


def test_a_sequential_sum_of_many_values_is_beyond_the_strict_bound() -> None:
    assert worst(Algorithm(sequential), "strict", (65536,), (100.0,))["running_mean"] > 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_accumulated_in_float32_are_within_the_strict_bound(dtype: str) -> None:
    found = worst(TWO_PASS[0], "strict", (2, 64), (0.0, 1.0), dtype)
    assert max(found.values()) <= 1
    assert min(found["y"], found["dx"]) > 0.5  # the rounding of the output is most of it


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_accumulated_in_halves_are_beyond_the_weak_bound(dtype: str) -> None:
    p, steps = calibrate.problem(64, 1.0, RANDOM, dtype, "float32")
    _, traces, limits = calibrate.exact(64, 1.0, RANDOM, dtype, "float32")
    x, g = (np.asarray(tensor).astype(dtype_of(dtype)) for tensor in (steps[TRAINS].x, steps[TRAINS].g))
    found = Algorithm(pairwise).run(p, x, g, train=True)
    for name in ("y", "running_mean", "running_var", "dgamma", "dbeta"):
        off = np.abs(found[name].astype(float) - getattr(traces[TRAINS], name))
        assert (off > getattr(limits["weak"][TRAINS], name)).any(), name


def test_float64_is_held_to_its_own_roundoff() -> None:
    found = worst(TWO_PASS[0], "strict", (64,), (1.0,), "float64")
    assert not list(complaints([Row("", "float64", found)]))
    p, steps = calibrate.problem(64, 1.0, RANDOM, "float64", "float64")
    arithmetic, traces, limits = calibrate.exact(64, 1.0, RANDOM, "float64", "float64")
    x, g = (np.asarray(tensor).astype(np.float32) for tensor in (steps[TRAINS].x, steps[TRAINS].g))
    for name, value in TWO_PASS[0].run(p, x, g, train=True).items():
        off = np.abs(value - arithmetic.lower(getattr(traces[TRAINS], name)))
        assert (off / getattr(limits["strict"][TRAINS], name)).max() > 1e6, name


@given(st.integers(2, 40), st.floats(0, 1e4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_legitimate_algorithms_are_within_the_strict_bound_of_any_draw(n: int, ratio: float, seed: int) -> None:
    random = np.random.RandomState(seed)
    x = (ratio + random.standard_normal((3, n))).astype(np.float32)
    g = random.standard_normal((3, n)).astype(np.float32)
    p = parameters(3, eps=1e-5, momentum=0.1)
    traces = evaluate(p, [Values("train", x.astype(float), g.astype(float), False)], CANONICAL, Double())
    limits = vars(bounds(traces, Double(), "strict", "float32", "float32")[0])
    exact = tensors(traces[0], Double())
    for algorithm in TWO_PASS:
        for name, found in algorithm.run(p, x, g, train=True).items():
            assert (np.abs(found - exact[name]) <= limits[name]).all(), (str(algorithm), name)


def test_errors_of_many_steps_stay_within_what_accumulates() -> None:
    channels = calibrate.CHANNELS
    steps, r_mean, r_var = 30, np.zeros(channels), np.ones(channels)
    p = parameters(channels, eps=1e-5, momentum=0.1)
    batches = [calibrate.problem(64 + step, 10.0, RANDOM, "float32", "float32")[1][0].x for step in range(steps)]
    traces = evaluate(p, [values(x) for x in batches], CANONICAL, Double())
    limits = bounds(traces, Double(), "strict", "float32", "float32")
    found = 0.0
    for x, trace, limit in zip(batches, traces, limits, strict=True):
        p = parameters(channels, eps=1e-5, momentum=0.1, running_mean=r_mean, running_var=r_var)
        single = np.asarray(x, np.float32)
        state = TWO_PASS[0].run(p, single, single, train=True)
        r_mean, r_var = state["running_mean"], state["running_var"]
        off = (
            np.abs(r_mean - trace.running_mean) / limit.running_mean,
            np.abs(r_var - trace.running_var) / limit.running_var,
        )
        found = max(found, float(np.max(off)))
    assert 0.02 <= found <= 1


# What the tool complains of


def test_an_error_beyond_its_bound_is_complained_of_in_every_dtype() -> None:
    rows = [Row("a", "float32", {"y": 0.5}), Row("a", "float16", {"y": 1.01}), Row("b", "float32", {"y": np.nan})]
    assert list(complaints(rows)) == [
        "a, float16: y is 1.01 of its bound",
        "b, float32: y is nan of its bound",
        "b: y is nowhere more than 0.000 of its bound, which is too wide",
    ]


def test_a_bound_that_is_near_nowhere_is_complained_of_once() -> None:
    rows = [Row("a", "float32", {"y": 0.019, "dx": 0.5}), Row("a", "float16", {"y": 0.001, "dx": 0.001})]
    assert list(complaints(rows)) == ["a: y is nowhere more than 0.019 of its bound, which is too wide"]


# The reference


@pytest.fixture(scope="module")
def sample() -> list[Case]:
    """Every fifteenth case of the corpus that is small."""
    found = [case for case in load([data.folder("cases")]) if calibrate.elements(case) <= 200]
    return [case for case in found[::15] if calibrate.comparable(case)]


def test_the_reference_uses_less_than_a_hundredth_of_the_bound(sample: list[Case]) -> None:
    shares = {case.id: calibrate.of_reference(case) for case in sample}
    assert len(shares) > 25
    assert {case for case, share in shares.items() if not share <= 0.01} == set()


def test_the_reference_is_what_a_textbook_computes(sample: list[Case]) -> None:
    shares = {case.id: calibrate.of_textbook(case) for case in sample if calibrate.plain(case)}
    assert len(shares) > 8
    assert {case for case, share in shares.items() if not share <= 0.01} == set()


def test_a_wrong_reference_uses_more(sample: list[Case]) -> None:
    case = next(case for case in sample if calibrate.plain(case))
    oracle = Oracle(materialise(case))
    expected = oracle.expected(calibrate._profile_of(case), CANONICAL)
    off = {name: value.value * (1 + 2.0**-24) for name, value in expected.items() if name.startswith("y[")}
    assert calibrate.share(expected, off) > 0.01
    gone = {name: np.full(value.shape, np.nan) for name, value in off.items()}
    assert calibrate.share(expected, gone) == np.inf


# The page


def test_every_formula_has_its_equation_in_the_page_and_the_other_way_round() -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs" / "bounds.md").read_text(encoding="utf-8")
    names = ("bounds.py", "forward_bounds.py", "backward_bounds.py", "second.py")
    modules = [(root / "conformance" / name).read_text(encoding="utf-8") for name in names]
    equations = re.findall(r"^\*\*\((\d+)\)\*\*", page, re.MULTILINE)
    assert sorted(map(int, equations)) == list(range(1, len(equations) + 1))
    code, docstring = "\n".join(modules), "\n".join(module.split('"""')[1] for module in modules)
    computed = set(re.findall(r"#.*\((\d+)\)", code)) | set(re.findall(r'"""\((\d+)\)', code))
    assert set(equations) - computed == {"15"}  # terms of tiny stand all over the formulas
    assert computed <= set(equations)
    assert set(re.findall(r"\((\d+)\)", docstring)) == set(equations)
