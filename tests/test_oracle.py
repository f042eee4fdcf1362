"""The oracle gives a case's tensors in the shapes and dtypes of the layer, and says where there is nothing to give."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
from builders import INITIAL, case, oracle, profile

from conformance import arithmetic, data
from conformance import oracle as oracle_module
from conformance.arithmetic import Array, Double, Multiprecision
from conformance.catalogue import CATALOGUE, PRECISION
from conformance.conventions import CANONICAL
from conformance.load import load
from conformance.oracle import Oracle
from conformance.problem import Problem, materialise
from conformance.profile import Profile
from conformance.rounding import Grade

NUMPY = profile()


def expected(of: Oracle, name: str) -> Array:
    return of.arithmetic.lower(of.expected(NUMPY, CANONICAL)[name].value)


@pytest.mark.parametrize(
    ("rank", "shape"), [(1, [5, 3]), (1, [5, 3, 2]), (2, [2, 3, 4, 5]), (3, [2, 3, 4, 5, 2]), (2, [2, 1, 1, 7])]
)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_tensors_have_the_layout_of_their_input(rank: int, shape: list[int], layout: str) -> None:
    """y and dx against NumPy over the axes but the channels'; whatever the layout, arrays are channels first."""
    of = oracle(
        layer={"rank": rank, "eps": 0.1, "initial": {} if shape[1] == 1 else INITIAL},
        input={"shape": shape, "normal": {"mean": 3, "std": 2}, "layout": layout},
    )
    (call,) = of.problem.calls
    assert call.dy is not None
    axes = (0, *range(2, len(shape)))
    column = (1, -1) + (1,) * (len(shape) - 2)
    x, g = call.x.astype(float), call.dy.astype(float)
    gamma, beta = (expected(of, name).reshape(column) for name in ("gamma[0]", "beta[0]"))
    inv = 1 / np.sqrt(x.var(axes, keepdims=True) + 0.1)
    xhat = (x - x.mean(axes, keepdims=True)) * inv
    np.testing.assert_allclose(expected(of, "y[0]"), gamma * xhat + beta, rtol=1e-9)
    inner = g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, keepdims=True)
    np.testing.assert_allclose(expected(of, "dx[0]"), gamma * inv * inner, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(expected(of, "dgamma[0]"), (g * xhat).sum(axes), rtol=1e-9)
    for name in ("y[0]", "dx[0]"):
        assert of.expected(NUMPY, CANONICAL)[name].bound.shape == tuple(shape)


def test_dtypes_are_those_of_the_input_and_of_the_layer() -> None:
    of = oracle(layer={"dtype": "float32"}, input={"shape": [4, 3, 2, 2], "normal": {}, "dtype": "bfloat16"})
    dtypes = {name: tensor.dtype for name, tensor in of.expected(NUMPY, CANONICAL).items()}
    assert {dtypes[name] for name in ("y[0]", "dx[0]")} == {"bfloat16"}
    assert {dtypes[name] for name in ("dgamma[0]", "dbeta[0]", "gamma[0]", "running_var[0]")} == {"float32"}
    assert dtypes["num_batches_tracked[0]"] is None


def test_integers_come_out_as_float32() -> None:
    of = oracle(input={"shape": [4, 3, 2, 2], "arange": {}, "dtype": "int64"})
    assert of.expected(NUMPY, CANONICAL)["y[0]"].dtype == "float32"


@pytest.mark.parametrize(("dtype", "kind"), [("float64", Multiprecision), ("float32", Double), ("bfloat16", Double)])
def test_float64_is_computed_in_multiprecision_and_the_rest_in_float64(dtype: str, kind: type) -> None:
    assert isinstance(oracle(input={"shape": [2, 3], "normal": {}, "dtype": dtype}).arithmetic, kind)


@pytest.mark.parametrize(
    ("spec", "absent"),
    [
        ({"layer": {"scale": False}}, {"gamma[0]", "dgamma[0]"}),
        ({"layer": {"center": False}}, {"beta[0]", "dbeta[0]"}),
        ({"layer": {"track_running_stats": False}}, {"running_mean[0]", "running_var[0]", "num_batches_tracked[0]"}),
        ({"gradient": None}, {"dx[0]", "dgamma[0]", "dbeta[0]"}),
        ({"steps": [{"mode": "train", "frozen": True}]}, {"dgamma[0]", "dbeta[0]"}),
    ],
)
def test_what_a_layer_does_not_have_is_not_expected(spec: dict[str, Any], absent: set[str]) -> None:
    usual = set(oracle(layer={}).expected(NUMPY, CANONICAL))
    assert usual - set(oracle(**{"layer": {}, **spec}).expected(NUMPY, CANONICAL)) == absent


def test_x_is_expected_back_unchanged_where_it_is_asked_for() -> None:
    of = oracle(steps=[{"mode": "train", "reread": True}, "eval"])
    found = of.expected(NUMPY, CANONICAL)
    assert found["x[0]"].value.tolist() == of.problem.calls[0].x.tolist()
    assert "x[1]" not in found


def test_no_run_of_a_repeated_case_may_differ() -> None:
    found = oracle(repeat=3).expected(NUMPY, CANONICAL)["repeats_differing[0]"]
    assert (int(found.value), found.dtype, found.optional) == (0, None, False)
    assert "repeats_differing[0]" not in oracle().expected(NUMPY, CANONICAL)


def test_only_a_counter_is_optional() -> None:
    optional = {name for name, tensor in oracle().expected(NUMPY, CANONICAL).items() if tensor.optional}
    assert optional == {"num_batches_tracked[0]"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({}, None),
        ({"layer": {"rank": 1}}, "step 0 gives BatchNorm1d an input of 4 dimensions"),
        ({"layer": {"features": 5}}, "step 0 gives 3 channels to a layer of 5"),
        (
            {"steps": ["train", {"mode": "eval", "input": {"shape": [4, 7, 1, 1], "normal": {}}}]},
            "step 1 gives 7 channels to a layer of 3",
        ),
        (
            {
                "native": {"numpy": {}},
                "steps": ["train", {"mode": "eval", "input": {"shape": [4, 7, 1, 1], "normal": {}}}],
            },
            "step 1 gives 7 channels to a layer of 3",
        ),
        ({"native": {"numpy": {}}, "rank": 3}, "step 0 gives BatchNorm3d an input of 4 dimensions"),
    ],
)
def test_where_batchnorm_has_no_value_it_says_why(spec: dict[str, Any], reason: str | None) -> None:
    assert oracle(**spec).undefined == reason


def test_no_channels_are_no_tensors() -> None:
    of = oracle(layer={"rank": 1}, input={"shape": [4, 0], "constant": 1})
    assert of.undefined is not None or of.expected(NUMPY, CANONICAL)["y[0]"].value.shape == (4, 0)


def test_what_a_canonical_case_should_return_does_not_depend_on_the_target() -> None:
    other = Profile.model_validate(NUMPY.model_dump() | {"framework": "other"})
    of = oracle()
    assert of.expected(NUMPY, CANONICAL) is of.expected(other, CANONICAL)
    native = Oracle(materialise(case(native={"numpy": {"eps": 0.1}, "other": {}})))
    assert native.reading(NUMPY, CANONICAL).parameters.eps == 0.1
    assert native.reading(other, CANONICAL).parameters.eps == 1e-5
    assert native.expected(NUMPY, CANONICAL) is not native.expected(other, CANONICAL)


#: Fields that some cases have no use for → another value than the usual.
IDLE = {
    "default_mode": "eval",
    "mode_lasts": False,
    "frozen": "eval",
    "thawed": "stays frozen",
    "mask_count": "padded",
    "loaded": "parameters",
    "unlearned": "applied",
    "second": "variance about a constant",
    "summation": "sequential",
}


@cache
def some_of_the_corpus() -> list[Problem]:
    """Every tenth case, and all that have to do with modes, of those in canonical terms."""
    cases = load([data.folder("cases")])
    some = [case for index, case in enumerate(cases) if index % 10 == 0 or case.topic == "modes"]
    return [materialise(case) for case in some if case.spec.layer is not None and case.input_of(0).size < 10_000]


@pytest.mark.parametrize("field", IDLE)
def test_conventions_without_effect_move_neither_a_number_nor_a_bound(field: str) -> None:
    idle = 0
    for problem in some_of_the_corpus():
        of = Oracle(problem)
        supposed = CANONICAL.but(**{field: IDLE[field]})
        if of.undefined or not isinstance(of.arithmetic, Double) or of.effective(supposed) != CANONICAL:
            continue
        idle += 1
        usual, other = (Oracle._tensors(of, of.reading(NUMPY, c), "strict", c) for c in (CANONICAL, supposed))
        assert usual.keys() == other.keys()
        for name, expected in usual.items():
            assert expected.value.tobytes() == other[name].value.tobytes(), (problem.case.id, name)
            assert expected.bound.tobytes() == other[name].bound.tobytes(), (problem.case.id, name)
    assert idle > 20


def answers_as_anew(problem: Problem) -> None:
    """Hold what an oracle says after it was asked for everything against what it says first."""
    of = Oracle(problem)
    grades: tuple[Grade, ...] = ("strict", "weak")
    supposed = [CANONICAL.but(**hypothesis.changes) for hypothesis in (*CATALOGUE, *PRECISION)]
    for conventions, grade in itertools.product((CANONICAL, *supposed), grades):
        kept, fresh = of.expected(NUMPY, conventions, grade), Oracle(problem).expected(NUMPY, conventions, grade)
        assert kept.keys() == fresh.keys()
        for name in kept:
            where = f"{problem.case.id}, {name}, {conventions.changes}, {grade}"
            lower = of.arithmetic.lower
            assert lower(kept[name].value).tobytes() == lower(fresh[name].value).tobytes(), where
            assert kept[name].bound.tobytes() == fresh[name].bound.tobytes(), where
            assert (kept[name].dtype, kept[name].grid) == (fresh[name].dtype, fresh[name].grid), where


@pytest.mark.parametrize("part", range(4))
def test_what_was_asked_before_changes_no_answer(part: int) -> None:
    problems = [problem for problem in some_of_the_corpus() if not Oracle(problem).undefined]
    for problem in problems[part::24]:
        answers_as_anew(problem)


def test_an_oracle_forgets_and_answers_as_before() -> None:
    of = oracle(steps=["train", "eval"])
    before = of.expected(NUMPY, CANONICAL)
    of.forget()
    after = of.expected(NUMPY, CANONICAL)
    assert before["y[1]"] is not after["y[1]"]
    assert before["y[1]"].bound.tobytes() == after["y[1]"].bound.tobytes()


@pytest.mark.parametrize(
    "changes",
    [{}, {"running_variance": "biased", "subnormals": "flushed"}, {"shared": "both"}, {"gamma": "reversed"}],
    ids=str,
)
@pytest.mark.parametrize("values", [1, 200])
def test_channels_read_apart_are_what_they_are_together(
    values: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    conventions = CANONICAL.but(**changes)
    for problem in some_of_the_corpus()[::5]:
        if Oracle(problem).undefined:
            continue
        together = Oracle(problem).expected(NUMPY, conventions)
        with monkeypatch.context() as patch:
            patch.setattr(oracle_module, "HELD", values)
            apart = Oracle(problem).expected(NUMPY, conventions)
        assert together.keys() == apart.keys()
        for name, expected in together.items():
            values_together, values_apart = expected.value.astype(float), apart[name].value.astype(float)
            assert np.array_equal(values_together, values_apart, equal_nan=True), (problem.case.id, name)
            assert np.allclose(expected.bound, apart[name].bound, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("changes", [{}, {"gamma": "ignored"}, {"eps": 0.5}, {"backward": (("gamma", "ignored"),)}])
def test_values_of_some_conventions_are_told_within_bounds_of_others(changes: dict[str, Any]) -> None:
    conventions = CANONICAL.but(**changes)
    for problem in some_of_the_corpus()[::5]:
        if Oracle(problem).undefined:
            continue
        held, base = (Oracle(problem).expected(NUMPY, each) for each in (conventions, CANONICAL))
        within = Oracle(problem).within(NUMPY, conventions, CANONICAL)
        assert {name for name in held if name.startswith(("y[", "dx[", "running_"))} <= within.keys()
        for name, expected in within.items():
            value, wanted = expected.value.astype(float), held[name].value.astype(float)
            assert np.array_equal(value, wanted, equal_nan=True), (problem.case.id, name)
            assert np.array_equal(expected.bound, base[name].bound, equal_nan=True), (problem.case.id, name)


def test_finer_numbers_make_a_case_large_sooner() -> None:
    """A cause is sought in one channel of a large case, or it would take minutes and gigabytes."""
    for dtype, large in (("float32", False), ("float64", True)):
        problem = materialise(case(input={"shape": [8, 64, 5, 5], "dtype": dtype, "normal": {}}))
        assert (Oracle(problem).of_channel(0) is not None) is large


def test_statistics_that_are_given_of_all_channels_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a search for lost statistics gives them; a large case in parts raised there, and ended the run."""
    of = oracle(gradient={}, steps=["train"])
    step = of.reading(NUMPY, CANONICAL).traces[0]
    given = CANONICAL.but(means=(tuple(step.mu),), variances=(tuple(2 * step.var),))
    together = of.expected(NUMPY, given)
    monkeypatch.setattr(oracle_module, "HELD", 1)
    apart = Oracle(of.problem).expected(NUMPY, given)
    assert all(np.array_equal(expected.value, apart[name].value) for name, expected in together.items())


def test_what_is_computed_block_by_block_is_what_it_is_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [{"mode": "train", "mask": {"keep": 0.5}}, {"mode": "train", "second": {"seed": 3}}, "eval"]
    masked = case(gradient={}, layer={"initial": INITIAL}, steps=steps)
    for problem in (*some_of_the_corpus()[::5], materialise(masked)):
        if Oracle(problem).undefined:
            continue
        for conventions in (CANONICAL, CANONICAL.but(subnormals="flushed", statistics="rounded for gradients")):
            at_once = Oracle(problem).expected(NUMPY, conventions)
            with monkeypatch.context() as patch:
                patch.setattr(arithmetic, "BLOCK", 11)
                by_blocks = Oracle(problem).expected(NUMPY, conventions)
            for name, expected in at_once.items():
                values, found = expected.value.astype(float), by_blocks[name].value.astype(float)
                assert np.array_equal(values, found, equal_nan=True), (problem.case.id, name)
                assert np.allclose(expected.bound, by_blocks[name].bound, rtol=1e-12, atol=0, equal_nan=True)


def test_an_axis_taken_for_the_channels_is_normalised_by_and_scaled() -> None:
    of = oracle(layer={"initial": {"gamma": [1.0, 2.0, 3.0]}}, input={"shape": [4, 3, 2, 3], "normal": {}})
    x = of.problem.calls[0].x.astype(np.float64)
    xhat = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    found = of.expected(profile(), CANONICAL.but(axis=3))
    np.testing.assert_allclose(found["y[0]"].value, xhat * [1.0, 2.0, 3.0], rtol=1e-12)
    np.testing.assert_allclose(found["running_mean[0]"].value, 0.1 * x.mean((0, 1, 2)), rtol=1e-12)
    assert found["y[0]"].bound.shape == found["dx[0]"].value.shape == x.shape


@pytest.mark.parametrize("axis", [0, 2, 4])
def test_an_axis_of_another_length_is_never_taken_for_the_channels(axis: int) -> None:
    of = oracle(input={"shape": [4, 3, 2, 3], "normal": {}})
    assert of.effective(CANONICAL.but(axis=axis)) == CANONICAL


def test_conventions_and_grades_are_kept_apart() -> None:
    of = oracle()
    strict, weak = of.expected(NUMPY, CANONICAL), of.expected(NUMPY, CANONICAL, "weak")
    assert strict is of.expected(NUMPY, CANONICAL, "strict") is not weak
    assert (weak["y[0]"].bound >= strict["y[0]"].bound).all()
    biased = of.expected(NUMPY, CANONICAL.but(running_variance="biased"))
    assert (biased["running_var[0]"].value != strict["running_var[0]"].value).all()
