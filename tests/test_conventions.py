"""Every convention changes what it says, by the numbers it says, and nothing else."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from builders import one, parameters, running, tensors, values

from conformance import stages
from conformance.arithmetic import Arithmetic, Double, Multiprecision
from conformance.conventions import CANONICAL, Conventions
from conformance.layer import Parameters, Values
from conformance.reference import evaluate

#: Mean 3, variance 14/4, unbiased 14/3; and mean 1, variance 1, unbiased 2.
FIRST, SECOND = [1, 2, 3, 6], [0, 2]

#: default, train, eval, default, train frozen, of two samples each:
#: every convention of modes, statistics and state shows in one of them.
SCENARIO = [
    values([[1, 2, 4, 9], [0, 1, 0, 3]], [[1, 0, 2, 0], [1, -1, 3, 2]], "default", samples=2),
    values([[2, 3, 3, 1], [5, 1, 2, 2]], [[0, 1, 1, 3], [2, 0, 0, 1]], samples=2),
    values([[1, 0, 3, 1], [4, 4, 2, 0]], [[1, 2, 1, 0], [0, 0, 1, 1]], "eval", samples=2),
    values([[6, 3, 0, 1], [1, 7, 2, 2]], [[2, 1, 1, 1], [3, 0, 1, 1]], "default", samples=2),
    values([[0, 8, 1, 1], [2, 1, 5, 5]], [[4, 0, 1, 2], [1, 0, 5, 1]], frozen=True, samples=2),
]
LAYER = parameters(momentum=0.25, gamma=[2, -1.5], beta=[0.5, 3], running_mean=[1, -1], running_var=[2, 0.75])


def changed(**changes: Any) -> dict[str, str]:
    """Tensor → the steps of `SCENARIO` in which a convention changes it."""
    usual = evaluate(LAYER, SCENARIO, CANONICAL, Double())
    other = evaluate(LAYER, SCENARIO, CANONICAL.but(**changes), Double())
    found: dict[str, str] = {}
    for step, (a, b) in enumerate(zip(usual, other, strict=True)):
        counts = {"count": np.array(a.num_batches_tracked)}, {"count": np.array(b.num_batches_tracked)}
        before, after = tensors(a, Double()) | counts[0], tensors(b, Double()) | counts[1]
        assert before.keys() == after.keys()
        for name in before:
            if not np.array_equal(before[name], after[name]):
                found[name] = found.get(name, "") + str(step)
    return found


def names(text: str) -> dict[str, str]:
    """``y:01 dx:01`` as a mapping."""
    return dict(part.split(":") for part in text.split())


IN_EVAL = "y:23 dx:23 dgamma:23"
IN_TRAIN = "y:014 dx:014 dgamma:01"
EVERYWHERE = "y:01234 dx:01234 dgamma:0123"
STATE = "running_mean:01234 running_var:01234"


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"running_variance": "biased"}, f"running_var:01234 {IN_EVAL}"),
    ({"batch_variance": "unbiased"}, IN_TRAIN),
    ({"default_mode": "eval"}, f"y:023 dx:023 dgamma:023 {STATE} count:01234"),
    ({"mode_lasts": False}, "y:3 dx:3 dgamma:3 running_mean:34 running_var:34 count:34"),
    ({"momentum_weighs": "old"}, f"{STATE} {IN_EVAL}"),
    ({"default_eps": 1e-3}, ""),  # what a profile reads a native constructor by
    ({"least_eps": 0.75}, EVERYWHERE),  # ε is ½ here
    ({"least_eps": 0.25}, ""),
    ({"default_momentum": 0.01}, ""),
    ({"least_eps": 1e-6}, ""),  # the ε here is above it
    ({"frozen": "eval"}, "y:4 dx:4 running_mean:4 running_var:4 count:4"),
    ({"unlearned": "applied"}, ""),  # γ and β are learned here
    ({"mask": "ignored"}, ""),  # there is none here
    ({"mask_count": "padded"}, ""),
    ({"precision": "float32"}, ""),  # these numbers are float32's
    *(
        ({name: value}, "")  # widens the bounds alone
        for name, value in {
            "statistics": "rounded",
            "terms": "rounded",
            "summation": "sequential",
            "variance": "one-pass",
            "subnormals": "flushed",
        }.items()
    ),
    ({"terms": "rounded, elements too"}, ""),
    ({"summation": "eight lanes"}, ""),
    ({"eps_added_to": "deviation"}, EVERYWHERE),
    ({"eps_added_to": "nothing"}, EVERYWHERE),
    ({"eps": 1e-3}, EVERYWHERE),
    ({"momentum": 0.1}, f"{STATE} {IN_EVAL}"),
    ({"train_statistics": "running"}, IN_TRAIN),
    ({"eval_statistics": "batch"}, IN_EVAL),
    ({"axis": 2}, ""),  # the oracle turns the tensors
    ({"backward": (("eps", 1e-3),)}, ""),  # the oracle takes the gradients by another reading
    ({"eps_of": "the layer beside"}, ""),  # there is none
    ({"assigned": "ignored"}, ""),  # nothing is
    ({"assigned": "captured"}, ""),
    ({"saved": "variance in float16"}, ""),  # those of the batches are numbers of float16
    ({"saved": "deviation in float16"}, IN_TRAIN),
    ({"saved": "deviation in bfloat16"}, IN_TRAIN),
    ({"squares": "in float16"}, ""),  # these are numbers of it, too
    ({"squares": "in bfloat16"}, ""),
    ({"squares": "in range of float16"}, ""),
    ({"updates": 0}, f"{STATE} count:01234 {IN_EVAL}"),
    ({"updates": 2}, f"{STATE} count:01234 {IN_EVAL}"),
    ({"updates": 3}, f"{STATE} count:01234 {IN_EVAL}"),
    ({"updates_in_backward": 1}, f"{STATE} count:01234 {IN_EVAL}"),
    *(
        ({name: value}, "")  # there is none here
        for name, value in {
            "updates_along_tangent": 1,
            "tangent_mode": "of the first of its shape",
            "tangent": "lost",
        }.items()
    ),
    ({"update_in_eval": True}, "running_mean:234 running_var:234 count:234 y:3 dx:3 dgamma:3"),
    ({"update_first": True}, ""),  # the batch's own statistics are used, unless train_statistics says otherwise
    ({"mean_updated": False}, "running_mean:01234 y:23 dgamma:23"),
    ({"variance_updated": False}, f"running_var:01234 {IN_EVAL}"),
    ({"averaging": "cumulative"}, f"{STATE} {IN_EVAL}"),
    ({"averaging": "exponential"}, ""),  # a momentum is given
    ({"running_variance": "corrected twice"}, f"running_var:01234 {IN_EVAL}"),
    ({"stored": "deviation"}, f"running_var:01234 {IN_EVAL}"),
    ({"stored": "variance and eps"}, f"running_var:01234 {IN_EVAL}"),
    ({"momentum_range": "clipped"}, ""),  # 0.25 is within
    ({"begins": "anew"}, f"{STATE} {IN_EVAL}"),
    ({"counting": "to one"}, "count:1234"),
    ({"loaded": "parameters"}, ""),  # nothing is saved here
    ({"shared": "mean"}, f"{EVERYWHERE} {STATE}"),
    ({"shared": "both"}, f"{EVERYWHERE} {STATE}"),
    ({"count": "samples"}, "running_var:01234 y:23 dgamma:23 dx:01234"),
    ({"count": "values up to 255"}, ""),  # there are four
    ({"eps_added_to": "variance twice"}, EVERYWHERE),
    ({"eps_added_to": "variance as a floor"}, EVERYWHERE),
    ({"divisor": "variance"}, EVERYWHERE),
    ({"gradient": "sums of g undivided"}, "dx:014"),
    ({"gradient": "sums of g·x̂ undivided"}, "dx:014"),
    ({"eval_gradient": "through the batch"}, "dx:23"),
    *(
        ({name: value}, "")  # all is finite, and of ordinary size
        for name, value in [
            ("derivation", "chain"),
            ("derivation", "chain through the mean"),
            ("derivation", "chain of squares"),
            ("products", "of x−μ"),
            ("products", "of x−μ for dx"),
            ("sums", "overflow, of squares too"),
        ]
    ),
    ({"dx_scale": "ignored"}, "dx:01234"),
    ({"dgamma": "unnormalised"}, "dgamma:0123"),
    ({"dgamma": "of two sums"}, ""),  # all is finite
    ({"parameter_gradients": "averaged"}, "dgamma:0123 dbeta:0123"),
    ({"parameter_gradients": "swapped"}, "dgamma:0123 dbeta:0123"),
    ({"parameter_gradients": "accumulated"}, "dgamma:123 dbeta:123"),
    ({"momentum_held": "float16"}, ""),  # 0.25 is a number of half precision, and ½ is one
    ({"eps_held": "float16"}, ""),
    ({"coarse": "deviation"}, EVERYWHERE),
    ({"coarse": "factors"}, "y:01234 dx:014 dgamma:0123"),
    ({"coarse": "output"}, "y:01234"),
    ({"output": "folded"}, ""),  # all is finite
    ({"gamma": "reversed"}, "y:01234 dx:01234"),
    ({"gamma": "of the first channel"}, "y:01234 dx:01234"),
    ({"gamma": "ignored"}, "y:01234 dx:01234"),
    ({"gamma": "swapped"}, "y:01234 dx:01234"),
    ({"beta": "ignored"}, "y:01234"),
    ({"gradient": "detached"}, "dx:014"),
    ({"gradient": "mean detached"}, "dx:014"),
    ({"gradient": "variance detached"}, "dx:014"),
    ({"thawed": "stays frozen"}, ""),  # the last step alone is frozen
    ({"second": "variance about a constant"}, ""),  # tests/test_second.py takes second derivatives
    ({"second_over_forward": "statistics constant"}, ""),
    ({"sums": "overflow"}, ""),  # these do not
    ({"empty": "averaged"}, ""),  # this is none
    ({"variances": ((2.0, 3.0), None, None, None, None)}, "running_var:01234 y:023 dx:023 dgamma:023"),
    ({"means": ((2.0, 3.0), None, None, None, None)}, f"{STATE} y:023 dx:023 dgamma:023"),
]


@pytest.mark.parametrize(
    ("changes", "moved"), CHANGES, ids=["-".join(map(str, *given.items())) for given, _ in CHANGES]
)
def test_a_convention_changes_what_it_says_and_nothing_else(changes: dict[str, Any], moved: str) -> None:
    assert changed(**changes) == names(moved)


def test_no_convention_is_left_out_above() -> None:
    assert {name for changes, _ in CHANGES for name in changes} == {field.name for field in fields(Conventions)}


def convention(step: Values, p: Parameters | None = None, **changes: Any) -> dict[str, list[Any]]:
    found = one(p or parameters(), step, CANONICAL.but(**changes))
    return {name: value.tolist() for name, value in found.items()}


def in_float32(step: Values, p: Parameters | None = None, **changes: Any) -> dict[str, list[Any]]:
    """The same where float32 is computed in, whose range is short."""
    (trace,) = evaluate(p or parameters(), [step], CANONICAL.but(**changes), Double())
    return {name: value.tolist() for name, value in tensors(trace, Double()).items()}


@pytest.mark.parametrize("eps", [0.0, -1.0, 1e-5, math.nan])
def test_an_eps_below_the_least_is_raised_to_it(eps: float) -> None:
    raised = one(parameters(eps=eps), values(FIRST), CANONICAL.but(least_eps=0.5))["y"]
    np.testing.assert_array_equal(raised, one(parameters(eps=0.5), values(FIRST))["y"])


def test_an_unbiased_batch_variance_normalises() -> None:
    y = one(parameters(eps=1.0), values(SECOND), CANONICAL.but(batch_variance="unbiased"))["y"]
    np.testing.assert_allclose(y, [[-(3**-0.5), 3**-0.5]], rtol=1e-15)  # ±1/√(2 + 1)


def test_a_biased_running_variance_is_stored() -> None:
    assert convention(values(FIRST), running_variance="biased")["running_var"] == [2.25]  # ½·1 + ½·14/4


@pytest.mark.parametrize(
    ("changes", "inv"),
    [
        ({"eps_added_to": "deviation"}, 1 / 1.5),  # √1 + ½
        ({"eps_added_to": "nothing"}, 1.0),
        ({"eps": 3.0}, 0.5),
        ({"eps_added_to": "variance twice"}, 0.5**0.5),  # 1 + ½ + ½
        ({"eps_added_to": "variance as a floor"}, 1.0),
        ({"eps_added_to": "variance as a floor", "eps": 4.0}, 0.5),
        ({"divisor": "variance"}, 1 / 1.5),
    ],
)
def test_eps_elsewhere(changes: dict[str, Any], inv: float) -> None:
    np.testing.assert_allclose(convention(values(SECOND), **changes)["y"], [[-inv, inv]], rtol=1e-15)


def test_momentum_may_weigh_the_old_statistics() -> None:
    p = parameters(momentum=0.25)
    assert convention(values(SECOND), p)["running_mean"] == [0.25]
    assert convention(values(SECOND), p, momentum_weighs="old")["running_mean"] == [0.75]
    assert convention(values(SECOND), p, momentum=0.5)["running_mean"] == [0.5]


@pytest.mark.parametrize(("updates", "mean", "count"), [(0, 0.0, 0), (1, 0.5, 1), (2, 0.75, 2), (3, 0.875, 3)])
def test_the_statistics_may_be_updated_more_or_less_than_once(updates: Any, mean: float, count: int) -> None:
    found = running(parameters(), values(SECOND), conventions=CANONICAL.but(updates=updates))
    assert (found[0][0], found[0][2]) == (mean, count)


def test_assigned_attributes_count_from_their_step_on_or_not_or_are_captured() -> None:
    """SECOND has a mean of 1 and a variance of 1; statistics start from 0 and 1."""
    plain = values(SECOND)
    steps = [plain, replace(plain, assigned=(("eps", 3.0), ("momentum", 1.0))), plain, values(SECOND, mode="eval")]
    p = parameters(momentum=0.5, eps=0.0)
    found = {
        name: [(t.eps, float(t.running_mean[0])) for t in evaluate(p, steps, CANONICAL.but(assigned=name), Double())]
        for name in ("heeded", "ignored", "captured")
    }
    assert found["heeded"] == [(0, 0.5), (3, 1), (3, 1), (3, 1)]
    assert found["ignored"] == [(0, 0.5), (0, 0.75), (0, 0.875), (0, 0.875)]
    assert found["captured"] == [(0, 0.5), (0, 0.75), (0, 0.875), (3, 0.875)]  # no evaluation came before


def test_the_backward_pass_may_update_the_statistics_again() -> None:
    again = CANONICAL.but(updates_in_backward=1)
    found = running(parameters(momentum=0.5), values(SECOND, [1, 2]), values(SECOND), conventions=again)
    assert [(mean, count) for mean, _, count in found] == [(0.75, 2), (0.875, 3)]


def test_no_momentum_may_mean_the_default_one() -> None:
    exponential = CANONICAL.but(averaging="exponential", default_momentum=0.25)
    assert running(parameters(momentum=None), values(SECOND), conventions=exponential)[0][0] == 0.25


def test_statistics_updated_first_are_the_ones_that_normalise() -> None:
    p = parameters(momentum=1.0, eps=2.0)
    late = convention(values(SECOND), p, train_statistics="running")
    first = convention(values(SECOND), p, train_statistics="running", update_first=True)
    np.testing.assert_allclose(late["y"], [[0.0, 2 / 3**0.5]], rtol=1e-15)  # by mean 0, variance 1
    assert first["y"] == [[-0.5, 0.5]]  # by mean 1, unbiased variance 2
    assert first["running_mean"] == late["running_mean"] == [1.0]


def test_gamma_and_beta_may_be_ignored_or_swapped() -> None:
    p, step = parameters(gamma=[3.0], beta=[5.0], eps=0.0), values(SECOND)
    assert convention(step, p)["y"] == [[2.0, 8.0]]
    assert convention(step, p, gamma="ignored")["y"] == [[4.0, 6.0]]
    assert convention(step, p, beta="ignored")["y"] == [[-3.0, 3.0]]
    assert convention(step, p, gamma="swapped")["y"] == [[-2.0, 8.0]]


def test_gamma_and_beta_may_be_applied_though_not_learned() -> None:
    p = parameters(gamma=[3.0], beta=[5.0], eps=0.0, scale=False, center=False)
    assert convention(values(SECOND), p)["y"] == [[-1.0, 1.0]]
    found = convention(values(SECOND, SECOND), p, unlearned="applied")
    assert found["y"] == [[2.0, 8.0]]
    assert found.keys().isdisjoint({"dgamma", "dbeta"})


def test_what_a_mask_leaves_out_may_be_no_number() -> None:
    p = parameters(momentum=1.0)
    found = convention(values([*SECOND, np.nan], mask=[1, 1, 0]), p)
    assert (found["running_mean"], found["running_var"]) == ([1.0], [2.0])


@pytest.mark.parametrize("squares", ["in float16", "in range of float16"])
def test_squares_beyond_float16_may_be_infinite_in_it(squares: Any) -> None:
    found = convention(values([-200, 200]), squares=squares)  # their sum is 80000
    assert (found["y"], found["running_var"]) == ([[0.0, 0.0]], [math.inf])


def test_squares_may_be_divided_by_a_count_of_bfloat16() -> None:
    """257 is 256 there, so that 256 squares of 1 have a mean of 1."""
    step = values([-1, 1] * 128 + [0])
    assert convention(step, parameters(eps=0.0), squares="in bfloat16")["y"] == [[-1.0, 1.0] * 128 + [0.0]]


def test_squares_of_x_may_overflow_where_those_of_deviations_do_not() -> None:
    step = values([1e20, 1e20 + 2e13])
    assert convention(step, sums="overflow")["running_var"][0] < math.inf
    assert math.isnan(convention(step, sums="overflow, of squares too")["running_var"][0])


def test_products_with_deviations_may_overflow_where_those_with_normalised_values_do_not() -> None:
    step = values([-1e20, 1e20], [2e19, 1e19])
    usual, both, dx_alone = (
        in_float32(step, sums="overflow", products=products) for products in ("of x̂", "of x−μ", "of x−μ for dx")
    )
    assert (usual["dgamma"], usual["dx"]) == ([0.0], [[0.0, 0.0]])  # by an inv of 0
    assert np.isnan(both["dgamma"]).all()
    assert np.isnan([both["dx"], dx_alone["dx"]]).all()
    assert dx_alone["dgamma"] == [0.0]


@pytest.mark.parametrize(
    ("precision", "cube"), [({}, 2.0**-149), ({"subnormals": "flushed"}, 0.0)], ids=["subnormal", "flushed"]
)
def test_the_cube_of_a_small_inverse_deviation_has_lost_its_digits(precision: dict[str, Any], cube: float) -> None:
    """inv³ is 10⁻⁴⁵, and its part of dx as large as the others."""
    step, p = values([-1e15, 1e15], [1, 0]), parameters(eps=0.0)
    np.testing.assert_allclose(in_float32(step, p)["dx"], [[0.0, 0.0]], atol=1e-30)
    left = 0.5e-15 * (1 - cube / 1e-45)
    np.testing.assert_allclose(in_float32(step, p, derivation="chain", **precision)["dx"], [[left, -left]], rtol=1e-12)


@pytest.mark.parametrize(
    ("derivation", "dx"),
    [
        ("chain", [-math.inf, math.inf, math.inf]),
        ("chain through the mean", [math.nan] * 3),
        ("chain of squares", [-math.inf, math.nan, math.nan]),
    ],
)
def test_the_cube_of_a_large_inverse_deviation_is_infinite(derivation: Any, dx: list[float]) -> None:
    """inv³ is 10⁴⁵, and σ²' infinite; 2(x−μ)·σ²' is another thing than 2x·σ²' − 2μ·σ²', and Σ(x−μ)·σ²' is no number."""
    step, p = values([-2e-15, 1e-15, 3e-15], [1, 2, 0]), parameters(eps=2e-30)
    assert np.isfinite(in_float32(step, p)["dx"]).all()
    found = in_float32(step, p, derivation=derivation)["dx"][0]
    np.testing.assert_array_equal(found, dx)


@pytest.mark.parametrize("n", [2, 8])
def test_an_nth_of_what_the_variance_gets_may_be_too_small(n: int) -> None:
    """−½·inv³·γ·Σg·x is 5·10⁻³⁸, and an eighth of that no normal number, where every part of dx is 10⁻³¹."""
    x, g = np.tile([-1e6, 1e6], n // 2), np.eye(n)[0]
    found = in_float32(values(x, g), parameters(gamma=[1e-25], eps=0.0), derivation="chain", subnormals="flushed")["dx"]
    of_variance = 1 / n if n == 2 else 0.0
    np.testing.assert_allclose(found, [1e-31 * (g - 1 / n + np.sign(x) * of_variance)], rtol=1e-9, atol=1e-45)


def test_a_product_beyond_the_range_is_infinite_in_the_chain_by_itself() -> None:
    """g·a is for the first two, and so is Σg·a, which is taken off all."""
    step, p = values([-1, 1, -1, 1], [2, 2, 0, 0]), parameters(eps=0.0, gamma=[3e38])
    found = in_float32(step, p, derivation="chain")["dx"][0]
    np.testing.assert_array_equal(found, [math.nan, math.nan, -math.inf, -math.inf])


def test_a_mask_may_multiply_what_is_no_number_by_0() -> None:
    p = parameters(momentum=1.0)
    for left_out in (np.nan, np.inf):
        found = convention(values([*SECOND, left_out], mask=[1, 1, 0]), p, mask="multiplied")
        assert np.isnan([found["running_mean"], found["running_var"]]).all()
    assert convention(values([*SECOND, 9.0], mask=[1, 1, 0]), p, mask="multiplied") == convention(
        values([*SECOND, 9.0], mask=[1, 1, 0]), p
    )


def test_what_was_frozen_may_learn_nothing_any_more() -> None:
    steps = [values(SECOND, SECOND), values(SECOND, SECOND, frozen=True), values(SECOND, SECOND)]
    first, frozen, thawed = evaluate(parameters(), steps, CANONICAL.but(thawed="stays frozen"), Double())
    assert first.dgamma is not None
    assert first.dgamma.all()
    assert frozen.dgamma is None
    assert [thawed.dgamma, thawed.dbeta] == [0, 0]


def test_a_mask_that_keeps_nothing_may_have_moments_of_zero() -> None:
    nothing, p = values(SECOND, mask=[0, 0]), parameters(momentum=1.0, running_mean=[3.0])
    assert np.isnan(convention(nothing, p)["y"]).all()
    found = convention(nothing, p, mask_count="padded", running_variance="biased")
    assert found["y"] == pytest.approx(np.array([[0.0, 2.0]]) * 2**0.5)
    assert (found["running_mean"], found["running_var"]) == ([0.0], [0.0])


def test_float64_may_be_computed_in_float32() -> None:
    coarse = convention(values([1.0, 3.0 + 1e-9]), precision="float32")
    assert coarse == convention(values([1.0, 3.0]))
    assert convention(values([1.0, 3.0 + 1e-9])) != coarse


def test_sums_may_overflow_at_the_largest_float32() -> None:
    p = parameters(momentum=1.0)
    usual, overflowing = (convention(values([2e38, 2e38]), p, sums=sums) for sums in ("exact", "overflow"))
    assert usual["running_mean"] == [2e38]
    assert overflowing["running_mean"] == [math.inf]
    assert convention(values([-2e38, -2e38]), p, sums="overflow")["running_mean"] == [-math.inf]
    assert convention(values([1e38, 2e38]), p, sums="overflow")["running_mean"] == [1.5e38]


def test_a_variance_may_be_given() -> None:
    found = convention(values(SECOND), parameters(eps=0.0, momentum=1.0), variances=((4.0,),))
    assert found["y"] == [[-0.5, 0.5]]
    assert found["running_var"] == [8.0]


def test_an_empty_batch_may_be_averaged_to_what_is_no_number() -> None:
    empty = Values("train", np.zeros((1, 0)), None, False)
    assert running(parameters(), empty) == [(0.0, 1.0, 1)]
    ((mean, var, count),) = running(parameters(), empty, conventions=CANONICAL.but(empty="averaged"))
    assert math.isnan(mean)
    assert math.isnan(var)
    assert count == 1


def test_moments_may_be_taken_over_all_channels() -> None:
    """Channels of mean 1 and 5, variance 1 and 4: mean 3, about which they are 5 and 8 apart in the square."""
    p, step = parameters(2, momentum=1.0), values([[0, 2], [3, 7]])
    usual = one(p, step, CANONICAL.but(running_variance="biased"))
    assert (usual["running_mean"].tolist(), usual["running_var"].tolist()) == ([1, 5], [1, 4])
    shared = one(p, step, CANONICAL.but(running_variance="biased", shared="mean"))
    assert (shared["running_mean"].tolist(), shared["running_var"].tolist()) == ([3, 3], [5, 8])
    both = one(p, step, CANONICAL.but(running_variance="biased", shared="both"))
    assert (both["running_mean"].tolist(), both["running_var"].tolist()) == ([3, 3], [6.5, 6.5])


def test_n_may_be_the_number_of_samples_or_saturate() -> None:
    p = parameters(momentum=1.0)
    found = convention(values([0, 2, 0, 2], samples=2), p, count="samples")
    assert found["running_var"] == [2.0]  # 1·2/(2 − 1)
    many = values([0.0, 2.0] * 200)
    assert convention(many, p, count="values up to 255")["running_var"] == [pytest.approx(255 / 254)]


@pytest.mark.parametrize(("stored", "kept"), [("variance", 4.5), ("deviation", 4.5**0.5), ("variance and eps", 5.0)])
def test_running_var_may_average_other_things(stored: str, kept: float) -> None:
    found = convention(values([0, 3]), parameters(momentum=1.0), stored=stored)
    assert found["running_var"] == [pytest.approx(kept, rel=1e-15)]


def test_the_correction_may_be_applied_twice() -> None:
    found = convention(values(SECOND), parameters(momentum=1.0), running_variance="corrected twice")
    assert found["running_var"] == [4.0]


def test_momentum_may_be_held_to_what_weighs() -> None:
    clipped = CANONICAL.but(momentum_range="clipped")
    assert running(parameters(momentum=1.5), values(SECOND), conventions=clipped)[0][0] == 1.0
    assert running(parameters(momentum=-1.0), values(SECOND), conventions=clipped)[0][0] == 0.0


def test_every_update_may_begin_anew() -> None:
    steps = values(SECOND), values([4, 6])
    assert [mean for mean, _, _ in running(parameters(), *steps)] == [0.5, 2.75]
    assert [mean for mean, _, _ in running(parameters(), *steps, conventions=CANONICAL.but(begins="anew"))] == [
        0.5,
        2.5,
    ]


def test_a_checkpoint_may_lose_the_statistics() -> None:
    p, step = parameters(running_mean=[8.0], running_var=[3.0]), values([0.0], mode="eval", reloaded=True)
    assert running(p, step) == [(8.0, 3.0, 0)]
    assert running(p, step, conventions=CANONICAL.but(loaded="parameters")) == [(0.0, 1.0, 0)]


def test_gamma_may_be_that_of_another_channel() -> None:
    p, step = parameters(2, gamma=[2.0, 3.0], eps=0.0), values([SECOND, SECOND])
    for gamma, y in (("applied", [2, 3]), ("reversed", [3, 2]), ("of the first channel", [2, 2])):
        assert one(p, step, CANONICAL.but(gamma=gamma))["y"][:, 1].tolist() == y


def test_gradients_may_be_handed_out_otherwise() -> None:
    """1/√(1 + 3) = ½, x̂ = ±½ and g = (1, 4): Σg = 5 and Σg·x̂ = 3/2."""
    p, step = parameters(eps=3.0), values(SECOND, [1, 4])
    usual = convention(step, p)
    assert (usual["dbeta"], usual["dgamma"]) == ([5.0], [1.5])
    for changes, dbeta, dgamma in (
        ({"parameter_gradients": "averaged"}, 2.5, 0.75),
        ({"parameter_gradients": "swapped"}, 1.5, 5.0),
        ({"dgamma": "unnormalised"}, 5.0, 3.0),
    ):
        found = convention(step, p, **changes)
        assert (found["dbeta"], found["dgamma"]) == ([dbeta], [dgamma])
        assert found["dx"] == usual["dx"]
    piled = evaluate(p, [step, step], CANONICAL.but(parameter_gradients="accumulated"), Double())
    assert [float(t.dbeta[0]) for t in piled if t.dbeta is not None] == [5.0, 10.0]


def test_coarse_numbers_have_eleven_bits() -> None:
    p, third = parameters(eps=0.0, gamma=[1.0]), [0.0, 0.0, 1.0]
    y = one(p, values(third), CANONICAL.but(coarse="output"))["y"]
    assert (y == y.astype(np.float16)).all()
    small = parameters(eps=0.0, gamma=[1e-20])
    tiny = one(small, values(SECOND), CANONICAL.but(coarse="output"))["y"]
    assert tiny.tolist() == one(small, values(SECOND))["y"].tolist()  # zero would be what any fault makes of it
    vast = one(parameters(eps=1e-50), values([3.0, 3.0]), CANONICAL.but(coarse="deviation"))["y"]
    assert np.isfinite(vast).all()  # NaN would be what any fault makes of it
    products = one(p, values(third), CANONICAL.but(coarse="factors"))["y"]
    assert products.tolist() == y.tolist()  # γ = 1, β = 0
    found = running(parameters(momentum=0.1), values(SECOND), conventions=CANONICAL.but(momentum_held="float16"))
    assert found[0][0] == float(np.float16(0.1))


def test_a_trace_says_what_its_update_weighed_in() -> None:
    trained, evaluated = evaluate(
        parameters(momentum=0.25), [values(FIRST), values(FIRST, mode="eval")], CANONICAL, Double()
    )
    assert trained.weight == 0.25
    assert trained.mean is not None
    assert trained.sample_var is not None
    assert (trained.mean[0], trained.sample_var[0]) == (3.0, pytest.approx(14 / 3))
    assert (trained.before[0][0], trained.before[1][0]) == (0.0, 1.0)
    assert (evaluated.weight, evaluated.mean, evaluated.sample_var) == (None, None, None)
    assert evaluated.before[0][0] == trained.running_mean[0]


@pytest.mark.parametrize("arithmetic", [Double(), Multiprecision()], ids=["double", "multiprecision"])
def test_a_folded_output_is_another_only_where_something_is_infinite(arithmetic: Arithmetic) -> None:
    """γ of 1, ∞, 1 and β of 1, 1, ∞ on x̂ of ±1: of ∞ − ∞ there is no number."""
    x, ones = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, -2.0]]), np.ones(3)
    gamma, beta, mu = np.array([1, np.inf, 1]), np.array([1, 1, np.inf]), np.array([1.0, 1.0, 0.0])
    y = np.array([[2.0, 0.0], [np.inf, -np.inf], [np.inf, np.inf]])
    y, x, *factors = (arithmetic.lift(a) for a in (y, x, gamma, beta, mu, ones))
    with np.errstate(invalid="ignore"):
        found = arithmetic.lower(stages.folded(y, x, tuple(factors), arithmetic))
    np.testing.assert_array_equal(found, [[2.0, 0.0], [np.nan, np.nan], [np.inf, np.inf]])


@pytest.mark.parametrize(
    ("arithmetic", "expected"), [(Double(), math.nan), (Multiprecision(), 1.0)], ids=["double", "multiprecision"]
)
def test_what_is_infinite_depends_on_the_dtype_that_is_computed_in(arithmetic: Arithmetic, expected: float) -> None:
    """A γ of 10¹⁰⁰ is a number of float64, and of float32 none: x·∞ − ∞."""
    y, x, *factors = (arithmetic.lift(np.array(a)) for a in ([[1.0]], [[2.0]], [1e100], [1.0], [2.0], [1.0]))
    with np.errstate(all="ignore"):
        found = arithmetic.lower(stages.folded(y, x, tuple(factors), arithmetic))
    np.testing.assert_array_equal(found, [[expected]])
