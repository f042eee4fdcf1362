"""Two targets agree within their bounds together, or differ by what is known of each."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from builders import answer, oracle, refusal, under

from conformance.comparison import Comparison, Under
from conformance.conventions import CANONICAL
from conformance.judge import judge
from conformance.observation import Failure, Observation
from conformance.oracle import Oracle
from conformance.pairs import Agreement, OddOneOut, Side, judge_pair, odd_one_out

STEPS = ["train", "train", "eval"]
BIASED = CANONICAL.but(running_variance="biased")
A, B = under(name="a"), under(name="b")
DECLARES_BIASED = under({"running_variance": "biased"}, name="b")


def side(of: Oracle, observation: Observation, target: Under) -> Side:
    return Side(target, observation, judge(Comparison(of, target, observation)))


def pair(of: Oracle, first: Observation, second: Observation, a: Under = A, b: Under = B) -> Agreement:
    return judge_pair(of, side(of, first, a), side(of, second, b))


def off(of: Oracle, name: str, bounds: float) -> dict[str, Any]:
    """A tensor of step 0 so many strict bounds off."""
    expected = of.expected(A.profile, CANONICAL)[f"{name}[0]"]
    return {f"{name}_0": (expected.value + bounds * expected.bound).astype(np.float32)}


def test_equal_answers_agree() -> None:
    found = pair(of := oracle(steps=STEPS), answer(of), answer(of))
    assert (found.agreement, found.because) == ("agree", "")
    assert found.tensors["y[0]"].ratio == 0
    assert "num_batches_tracked[0]" not in found.tensors


@pytest.mark.parametrize(("bounds", "agreement"), [((0.9, -0.9), "agree"), ((0.9, 0), "agree"), ((1.5, -1), "differ")])
def test_targets_agree_where_their_bounds_meet(bounds: tuple[float, float], agreement: str) -> None:
    of = oracle(steps=["train"])
    found = pair(of, answer(of, **off(of, "y", bounds[0])), answer(of, **off(of, "y", bounds[1])))
    assert found.agreement == agreement
    assert found.tensors["y[0]"].ratio == pytest.approx((bounds[0] - bounds[1]) / 2, rel=0.1)


def test_a_difference_is_explained_by_what_is_declared() -> None:
    of = oracle(steps=STEPS)
    found = pair(of, answer(of), answer(of, BIASED), A, DECLARES_BIASED)
    assert (found.agreement, found.because) == ("differ", "b: running-variance-biased")
    assert {name for name, result in found.tensors.items() if not result.ok} == {
        "running_var[0]",
        "running_var[1]",
        "running_var[2]",
        "y[2]",
        "dx[2]",
        "dgamma[2]",
    }


def test_a_difference_is_explained_by_a_diagnosis_of_either_side() -> None:
    of = oracle(steps=STEPS)
    found = pair(of, answer(of, CANONICAL.but(gamma="ignored")), answer(of, BIASED), A, DECLARES_BIASED)
    assert found.because == "a: gamma-ignored; b: running-variance-biased"


def test_a_side_that_diverges_is_told_with_the_conventions_that_set_it_apart_as_well() -> None:
    """y is off by a fault; running_var differs by what is declared."""
    of = oracle(steps=STEPS)
    found = pair(of, answer(of), answer(of, BIASED.but(gamma="ignored")), A, DECLARES_BIASED)
    assert (found.agreement, found.because) == ("differ", "b: gamma-ignored, running-variance-biased")
    alone = oracle(steps=["eval"])
    found = pair(alone, answer(alone), answer(alone, BIASED.but(gamma="ignored")), A, DECLARES_BIASED)
    assert found.because == "b: gamma-ignored"


def test_two_that_share_a_convention_agree() -> None:
    of = oracle(steps=STEPS)
    sharing = under({"running_variance": "biased"}, name="a")
    assert pair(of, answer(of, BIASED), answer(of, BIASED), sharing, DECLARES_BIASED).agreement == "agree"


def test_each_side_has_the_bound_of_its_own_reading() -> None:
    of = oracle(steps=["train"])
    found = pair(of, answer(of, **off(of, "y", 0.9)), answer(of, BIASED, **off(of, "y", -0.9)), A, DECLARES_BIASED)
    assert found.tensors["y[0]"].ratio == pytest.approx(0.9, rel=0.1)


def test_two_wrong_in_the_same_way_agree() -> None:
    of = oracle(steps=STEPS)
    wrong = answer(of, CANONICAL.but(gamma="ignored"))
    assert pair(of, wrong, wrong).agreement == "agree"


def test_two_that_refuse_agree_whatever_they_say() -> None:
    found = pair(oracle(), refusal("ValueError"), refusal("TypeError"))
    assert found == Agreement("agree", {}, "both refuse")


def test_one_that_refuses_differs_and_its_exception_is_named() -> None:
    of = oracle()
    assert pair(of, answer(of), refusal("TypeError")) == Agreement("differ", {}, "b: refused (TypeError)")
    assert pair(of, refusal("TypeError"), answer(of)).because == "a: refused (TypeError)"


@pytest.mark.parametrize("fate", ["crashed", "timeout", "broken"])
def test_one_that_has_no_answer_differs(fate: Any) -> None:
    of = oracle()
    gone = Observation(fate, failure=Failure("WorkerDied", "SIGSEGV"))
    assert pair(of, answer(of), gone) == Agreement("differ", {}, f"b: {fate} (WorkerDied)")
    assert pair(of, refusal(), gone).agreement == "differ"
    assert pair(of, gone, gone).agreement == "differ"


def test_two_that_take_what_has_no_value_agree() -> None:
    of = oracle(layer={"features": 5})
    found = pair(of, Observation(), Observation())
    assert found.agreement == "agree"
    assert found.because.startswith("both accept what has no value: step 0 ")


def test_a_tensor_that_one_lacks_makes_them_differ() -> None:
    of = oracle(steps=["train"])
    found = pair(of, answer(of), answer(of, dx_0=None))
    assert (found.agreement, found.because) == ("differ", "b: missing")
    assert found.tensors["dx[0]"].problem == "is missing on b"
    assert pair(of, answer(of, dx_0=None), answer(of)).tensors["dx[0]"].problem == "is missing on a"


def test_a_counter_that_one_lacks_makes_no_difference() -> None:
    of = oracle(steps=["train"])
    assert pair(of, answer(of), answer(of, num_batches_tracked_0=None)).agreement == "agree"


def test_dtypes_are_compared_between_them_and_devices_are_not() -> None:
    of = oracle(steps=["train"])
    y = of.arithmetic.lower(of.expected(A.profile, CANONICAL)["y[0]"].value)
    assert pair(of, answer(of), answer(of, y_0=y)).tensors["y[0]"].problem == "has dtype float32, not float64"
    elsewhere = Observation(tensors={name: wire_on(tensor, "cuda") for name, tensor in answer(of).tensors.items()})
    assert pair(of, answer(of), elsewhere, A, under(name="b", device="cuda")).agreement == "agree"


def test_shapes_are_compared_between_them() -> None:
    of = oracle(steps=["train"])
    flat = np.zeros(300, np.float32)
    found = pair(of, answer(of), answer(of, y_0=flat))
    assert found.tensors["y[0]"].problem == "has shape [4, 3, 5, 5], not [300]"


@pytest.mark.parametrize("other", [0.0, 1.0])
def test_two_that_return_another_shape_are_held_to_equal_bits(other: float) -> None:
    """No bound is known of a tensor that neither should have returned."""
    of = oracle(steps=["train"])
    flat = np.zeros(7, np.float32)
    found = pair(of, answer(of, y_0=flat), answer(of, y_0=flat + np.float32(other)))
    assert found.tensors["y[0]"].ok is (other == 0)


def wire_on(tensor: Any, device: str) -> Any:
    return type(tensor)(tensor.dtype, tensor.shape, tensor.data, device)


def test_special_values_agree_with_themselves_alone() -> None:
    of = oracle(input={"shape": [4, 3, 2, 2], "normal": {}, "replace": [{"at": [1, 1, 0, 0], "with": "nan"}]})
    right = answer(of)
    y = np.nan_to_num(np.frombuffer(right.tensors["y[0]"].data, np.float32).reshape(4, 3, 2, 2))
    assert pair(of, right, right).agreement == "agree"
    found = pair(of, right, answer(of, y_0=y))
    assert found.agreement == "differ"
    assert found.tensors["y[0]"].problem == "is nan at [0, 1, 0, 0], not 0"


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_every_dtype_is_compared(dtype: str) -> None:
    of = oracle(input={"shape": [4, 3, 2, 2], "normal": {}, "dtype": dtype}, steps=["train"])
    assert pair(of, answer(of), answer(of)).agreement == "agree"


# Several targets


def odd(of: Oracle, **answers: tuple[Observation, Under]) -> OddOneOut | None:
    sides = {name: side(of, *given) for name, given in answers.items()}
    pairs = {(a, b): judge_pair(of, sides[a], sides[b]) for a, b in itertools.combinations(sides, 2)}
    return odd_one_out(sides, pairs)


def test_the_one_that_differs_from_the_rest_is_the_odd_one_out() -> None:
    of = oracle(steps=STEPS)
    biased = answer(of, BIASED), DECLARES_BIASED
    assert odd(of, a=(answer(of), A), b=biased, c=(answer(of), A)) == OddOneOut("b", "running-variance-biased")
    assert odd(of, a=(refusal("TypeError"), A), b=(answer(of), B), c=(answer(of), A)) == OddOneOut(
        "a", "refused (TypeError)"
    )


def test_one_that_conforms_is_odd_where_the_rest_do_not() -> None:
    of = oracle(steps=STEPS)
    found = odd(of, a=(answer(of, BIASED), DECLARES_BIASED), b=(answer(of), A), c=(answer(of, BIASED), DECLARES_BIASED))
    assert found == OddOneOut("b", "b: running-variance-biased")  # what sets the others apart, as they say it


def test_no_one_is_odd_where_all_agree_or_all_differ_or_there_are_two() -> None:
    of = oracle(steps=STEPS)
    biased, ignored = answer(of, BIASED), answer(of, CANONICAL.but(gamma="ignored"))
    assert odd(of, a=(answer(of), A), b=(answer(of), B), c=(answer(of), A)) is None
    assert odd(of, a=(answer(of), A), b=(biased, DECLARES_BIASED), c=(ignored, A)) is None
    assert odd(of, a=(answer(of), A), b=(biased, DECLARES_BIASED)) is None
