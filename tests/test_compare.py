"""One tensor against another: what is no number is compared first, and nothing passes for want of a bound."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import wire
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import compare as comparing
from conformance import together as laying
from conformance.arithmetic import Array, Double, Multiprecision
from conformance.compare import TensorResult, compare, compare_all
from conformance.expected import Expected, InChannels
from conformance.problem import dtype_of, from_wire
from conformance.together import TOGETHER, ulp

DTYPES = ("float64", "float32", "float16", "bfloat16")


def against(seen: Any, exact: Any, bound: Any = 0.5, dtype: str = "float32", device: str = "cpu") -> TensorResult:
    value = np.asarray(exact, float)
    with np.errstate(over="ignore"):
        observed = np.asarray(seen, float).astype(dtype_of(dtype))
    limit = np.broadcast_to(np.asarray(bound, float), value.shape)
    return compare(observed, device, Expected(value, limit, dtype), "cpu", Double())


# Numbers


def test_an_error_within_the_bound_is_its_fraction() -> None:
    found = against([[1.0, 2.0], [3.0, 4.25]], [[1.0, 2.125], [3.0, 4.0]])
    assert found == TensorResult(0.5, 0.25, 0.25 / 2.0**-21, (1, 1))
    assert found.ok
    assert found.off == 0.5


@pytest.mark.parametrize(("error", "ok"), [(0.0, True), (0.5, True), (0.5000001, False), (-0.5, True), (-0.51, False)])
def test_the_bound_itself_is_within(error: float, ok: bool) -> None:
    assert against([1.0 + error], [1.0], dtype="float64").ok is ok


def test_the_worst_element_is_worst_by_its_own_bound() -> None:
    found = against([[1.0, 2.0, 3.5], [0.0, 9.0, 0.0]], [[1.0, 2.5, 3.0], [0.0, 10.0, 0.0]], [[1, 1, 0.25], [1, 4, 1]])
    assert found.worst_index == (0, 2)
    assert found.ratio == 2.0
    assert found.max_abs == 1.0
    assert not found.ok


def test_an_exact_value_needs_no_bound() -> None:
    assert against([1.0, 2.0], [1.0, 2.0], 0.0) == TensorResult(0.0, 0.0, 0.0, (0,))
    assert against([1.0, 2.0], [1.0, 2.5], 0.0).ratio == math.inf


@pytest.mark.parametrize("dtype", DTYPES)
def test_minus_zero_is_zero(dtype: str) -> None:
    for bound in (0.0, 1e-3):
        assert against([-0.0, 0.0], [0.0, -0.0], bound, dtype).ratio == 0.0


def test_an_error_finer_than_float64_is_seen_in_multiprecision() -> None:
    arithmetic = Multiprecision()
    exact = arithmetic.lift(np.array([1.0])) + arithmetic.lift(np.array([1e-20]))
    found = compare(np.array([1.0]), "cpu", Expected(exact, np.array([1e-20]), "float64"), "cpu", arithmetic)
    assert found.ratio == pytest.approx(1.0)
    assert found.max_abs == pytest.approx(1e-20)


def test_a_scalar_is_compared_too() -> None:
    assert against(1.25, 1.0).worst_index == ()
    assert against(math.nan, 1.0).problem == "is nan at [], not 1"


# What is no number


@pytest.mark.parametrize(
    ("seen", "exact", "problem"),
    [
        (math.nan, 2.0, "is nan at [1], not 2"),
        (2.0, math.nan, "is 2.0 at [1], not nan"),
        (math.inf, 2.0, "is inf at [1], not 2"),
        (2.0, math.inf, "is 2.0 at [1], not inf"),
        (-math.inf, math.inf, "is -inf at [1], not inf"),
        (math.inf, -math.inf, "is inf at [1], not -inf"),
        (math.nan, math.inf, "is nan at [1], not inf"),
        (math.inf, math.nan, "is inf at [1], not nan"),
    ],
)
def test_a_number_and_what_is_none_differ_both_ways(seen: float, exact: float, problem: str) -> None:
    found = against([1.0, seen], [1.0, exact])
    assert found == TensorResult(None, worst_index=(1,), problem=problem, infinite=not math.isfinite(exact))
    assert not found.ok
    assert found.off == math.inf


@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_equals_itself_whatever_its_bound(special: float) -> None:
    found = against([special, 1.25], [special, 1.0], [math.nan, 0.5])
    assert (found.ratio, found.worst_index) == (0.5, (1,))
    assert against([special], [special], math.nan).ok


def test_float16_overflows_to_infinity_of_the_right_sign() -> None:
    assert against([math.inf, -math.inf], [70000.0, -70000.0], 1.0, "float16").ok
    assert not against([-math.inf], [70000.0], 1.0, "float16").ok
    assert not against([math.inf], [60000.0], 1.0, "float16").ok
    assert against([math.inf], [70000.0], 1.0, "float32").problem == "is inf at [0], not 70000"


def test_float16_may_overflow_where_the_bound_reaches_that_far() -> None:
    """65504 is the largest number, and 65520 the least that rounds to infinity."""
    assert against([math.inf], [65510.0], 10.0, "float16").ok
    assert not against([math.inf], [65510.0], 9.0, "float16").ok
    assert not against([-math.inf], [65510.0], 10.0, "float16").ok
    for bound in (math.inf, math.nan, -10.0):
        assert not against([math.inf], [65510.0], bound, "float16").ok
    assert against([65504.0], [65530.0], 26.0, "float16").ok


@pytest.mark.parametrize("bound", [math.nan, math.inf, -math.inf, -1.0, -5e-324])
def test_a_bound_that_is_none_admits_nothing(bound: float) -> None:
    for seen in (1.0, 1.5):
        found = against([[0.0, seen]], [[0.0, 1.0]], [[0.5, bound]])
        assert found == TensorResult(None, worst_index=(0, 1), problem="has no finite bound at [0, 1]")
        assert not found.ok


@pytest.mark.parametrize("bound", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("seen", [math.nan, math.inf, -math.inf, 0.0, 1.0])
@given(exact=st.floats(allow_nan=False, allow_infinity=False, width=32))
@settings(deadline=None, max_examples=20)
def test_a_bound_that_is_none_passes_nothing_where_a_number_is_due(seen: float, bound: float, exact: float) -> None:
    assert not against([seen], [exact], bound).ok


@pytest.mark.parametrize(("seen", "exact"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, -math.inf), (math.inf, 1.0)])
def test_a_special_value_beyond_the_first_element_is_seen(seen: float, exact: float) -> None:
    right, wrong = np.zeros((3, 4)), np.zeros((3, 4))
    wrong[2, 3], right[2, 3] = seen, exact
    assert against(wrong, right, 1e30).worst_index == (2, 3)


def test_numbers_off_the_grid_are_none_of_it() -> None:
    expected = Expected(np.array([1.0, 2.0]), np.full(2, 0.5), "float32", grid="float16")
    on, off = np.array([1.0, 2.001953125], np.float32), np.array([1.0, 2.0001], np.float32)
    assert compare(on, "cpu", expected, "cpu", Double()).ok
    assert compare(off, "cpu", expected, "cpu", Double()).problem == "holds numbers that are no float16"


def test_a_ratio_that_is_no_number_is_not_ok() -> None:
    assert not TensorResult(math.nan).ok
    assert not TensorResult(None).ok
    assert TensorResult(None).off == math.inf


# What comes before numbers


def test_shape_comes_before_dtype_and_dtype_before_device_and_device_before_numbers() -> None:
    wrong = np.full((1, 2), 9, np.float16)
    expected = Expected(np.zeros(2), np.zeros(2), "float32")
    assert compare(wrong, "cuda", expected, "cpu", Double()).problem == "has shape [1, 2], not [2]"
    assert compare(wrong[0], "cuda", expected, "cpu", Double()).problem == "has dtype float16, not float32"
    wide = wrong[0].astype(np.float32)
    assert compare(wide, "cuda", expected, "cpu", Double()).problem == "is on cuda, not on cpu"
    assert compare(wide, "cpu", expected, "cpu", Double()).ratio == math.inf


def test_a_tensor_too_few_and_one_too_many() -> None:
    expected = Expected(np.zeros(2), np.zeros(2), "float32")
    assert compare(None, "cpu", expected, "cpu", Double()).problem == "is missing"
    assert compare(np.zeros(2), "cpu", None, "cpu", Double()).problem == "is returned, though this layer has none"


def test_no_elements_are_all_within_bound() -> None:
    assert against(np.zeros((2, 0)), np.zeros((2, 0))) == TensorResult(0.0, 0.0, 0.0)
    wrong = compare(np.zeros((2, 0)), "cpu", Expected(np.zeros((2, 0)), np.zeros((2, 0)), "float32"), "cpu", Double())
    assert wrong.problem == "has dtype float64, not float32"
    assert against(np.zeros((2, 0)), np.zeros((0, 2))).problem == "has shape [2, 0], not [0, 2]"


# Counters


def counted(seen: Array, exact: int) -> TensorResult:
    return compare(seen, "cpu", Expected(np.asarray(exact), np.zeros(()), None, True), "cpu", Double())


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_a_counter_may_be_of_any_integer_type_and_is_exact(dtype: Any) -> None:
    assert counted(np.asarray(3, dtype), 3).ok
    assert counted(np.asarray(4, dtype), 3) == TensorResult(None, problem="is 4, not 3")


def test_a_counter_of_another_shape_or_type_is_no_counter() -> None:
    assert counted(np.asarray([3]), 3).problem == "has shape [1], not []"
    assert counted(np.asarray(3.9), 3).problem == "has dtype float64, not an integer's"


# Many at once


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_together_each_tensor_is_what_it_is_alone(data: st.DataObject) -> None:
    number = st.sampled_from([0.0, 1.0, 1.25, -3.5, 70000.0, 1e-30, math.nan, math.inf])
    bound = st.sampled_from([0.5, 0.0, 1e-3, math.nan])
    tensors = {}
    for name in data.draw(st.lists(st.sampled_from("abcdefgh"), unique=True)):
        size = data.draw(st.integers(0, 4))
        several = st.lists(number, min_size=size, max_size=size)
        dtype = data.draw(st.sampled_from(["float32", "float16", "float64"]))
        exact, limit = np.array(data.draw(several)), np.array([data.draw(bound) for _ in range(size)])
        with np.errstate(over="ignore"):
            seen = data.draw(st.sampled_from([exact, np.array(data.draw(several))])).astype(dtype)
        tensors[name] = (seen, "cpu", Expected(exact, limit, data.draw(st.sampled_from([dtype, "float32"]))))
    found = compare_all(tensors, "cpu", Double())
    assert found == {name: compare(*tensor, "cpu", Double()) for name, tensor in tensors.items()}
    assert list(found) == list(tensors)


def test_tensors_too_many_for_one_pass_are_compared_all_the_same() -> None:
    exact = np.random.RandomState(0).standard_normal((3, TOGETHER // 2))
    tensors = {}
    for index in range(5):
        seen = exact.astype(np.float32)
        seen[1, index] += 1.0
        tensors[str(index)] = (seen, "cpu", Expected(exact, np.full(exact.shape, 0.5), "float32"))
    found = compare_all(tensors, "cpu", Double())
    assert [result.worst_index for result in found.values()] == [(1, index) for index in range(5)]
    assert all(result.ratio == pytest.approx(2.0, rel=1e-6) for result in found.values())


def parted(expected: Expected, *channels: int) -> InChannels:
    """The same in parts of so many channels."""
    edges = np.cumsum(channels)[:-1]
    values, bounds = (np.split(array, edges, 1) for array in (expected.value, expected.bound))
    parts = [replace(expected, value=value, bound=bound) for value, bound in zip(values, bounds, strict=True)]
    return InChannels(expected.shape, parts)


#: What is put in a tensor at which place, (5, 6, 7, 11).
SPOILT = [
    {},
    {(0, 0, 0, 0): 1.0},
    {(4, 5, 6, 10): 1.0},
    {(2, 3, 4, 5): -3.0, (1, 5, 0, 0): 2.0},
    {(3, 1, 2, 2): np.nan},
    {(0, 4, 6, 10): np.inf},
]


@pytest.mark.parametrize("spoilt", SPOILT, ids=str)
@pytest.mark.parametrize("channels", [(6,), (1, 2, 3), (4, 2), (1,) * 6], ids=str)
@pytest.mark.parametrize("together", [10_000, 100, 61])
def test_a_tensor_in_parts_is_compared_as_the_whole(
    spoilt: dict[tuple[int, ...], float], channels: tuple[int, ...], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.RandomState(3)
    whole = Expected(random.standard_normal((5, 6, 7, 11)), random.uniform(1, 2, (5, 6, 7, 11)), "float32")
    seen = (whole.value + random.uniform(-1, 1, whole.shape)).astype(np.float32)
    for place, more in spoilt.items():
        seen[place] += more
    by_itself = compare(seen, "cpu", whole, "cpu", Double())
    for module in (comparing, laying):
        monkeypatch.setattr(module, "TOGETHER", together)
    assert compare(seen, "cpu", parted(whole, *channels), "cpu", Double()) == by_itself
    assert compare(seen[1:], "cpu", parted(whole, *channels), "cpu", Double()).problem is not None


def test_a_tensor_in_parts_has_the_elements_of_the_whole() -> None:
    whole = Expected(np.arange(24.0).reshape(2, 3, 4), -np.arange(24.0).reshape(2, 3, 4), "float32")
    for place in np.ndindex(2, 3, 4):
        assert parted(whole, 1, 2).at(place) == whole.at(place)
    with pytest.raises(IndexError, match="there is no channel 3"):
        parted(whole, 1, 2).at((0, 3, 0))


# Units in the last place


@pytest.mark.parametrize("dtype", DTYPES[:3])
@given(exponent=st.floats(-1074, 1023))
@settings(deadline=None)
def test_ulp_is_the_spacing_of_numbers(dtype: str, exponent: float) -> None:
    with np.errstate(over="ignore", under="ignore"):
        value = np.dtype(dtype).type(2.0**exponent)
    if np.isfinite(value):
        assert ulp(np.asarray(value, float), dtype) == np.spacing(value)
        assert ulp(np.asarray(-value, float), dtype) == np.spacing(value)


def test_ulp_is_the_spacing_of_every_float16_and_bfloat16() -> None:
    for dtype in ("float16", "bfloat16"):
        beyond = int(np.asarray(np.inf, dtype_of(dtype)).view(np.uint16))
        numbers = np.arange(beyond, dtype=np.uint16).view(dtype_of(dtype)).astype(float)
        assert (ulp(numbers[:-1], dtype) == np.diff(numbers)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_ulp_below_the_smallest_number_is_that_number(dtype: str) -> None:
    smallest = ulp(np.array(0.0), dtype)
    assert float(np.array(smallest).astype(dtype_of(dtype))) == smallest > 0
    assert float(np.array(smallest / 2).astype(dtype_of(dtype))) == 0
    assert ulp(np.array(1.5 * smallest), dtype) == smallest


def test_ulp_of_an_integer_is_one() -> None:
    found = against([3, 5], [3, 7], 4.0, "int32")
    assert (found.ratio, found.max_ulp) == (0.5, 2.0)


def test_a_distance_in_ulps_decides_nothing() -> None:
    found = against([1e-6, 1.0], [0.0, 1.0], 1e-5)
    assert found.max_ulp is not None
    assert found.max_ulp > 1e38
    assert found.ok


# Across the channel


@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "int32"])
def test_a_tensor_crosses_bit_for_bit(dtype: str) -> None:
    sent = np.arange(-3, 3).reshape(2, 3).astype(dtype_of(dtype))
    received = from_wire(wire(sent))
    assert received.dtype == dtype_of(dtype)
    assert received.tobytes() == sent.tobytes()
    assert received.shape == (2, 3)
