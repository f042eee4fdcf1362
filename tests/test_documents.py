"""What documents print holds to the digits printed, and signatures differ by what was added, removed, changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import answer, case, oracle, printed, problems, refusal, signature, under, verdict
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.compare import TensorResult
from conformance.conventions import CANONICAL
from conformance.documents import against_document, against_signature
from conformance.expected import Expected
from conformance.observation import Observation

# Printed numbers


def held(text: str, *seen: float, bound: float = 1e-9) -> TensorResult:
    tensor = np.array(seen, np.float32)
    return against_document(tensor, Expected(np.zeros(len(seen)), np.full(len(seen), bound), "float32"), text)


@pytest.mark.parametrize("text", ["0.9995", "[0.99950]", "  0.9995  ", ".9995", "9.995e-1", "+0.9995"])
def test_a_number_holds_as_it_is_printed(text: str) -> None:
    assert held(text, 0.9995).ok


@pytest.mark.parametrize(
    ("text", "seen", "holds"),
    [
        ("0.9995", 0.99954, True),
        ("0.9995", 0.99946, True),
        ("0.9995", 0.99956, False),
        ("0.9995", 0.99944, False),
        ("0.9995001", 0.9995001, True),
        ("0.9995001", 0.9995, False),
        ("3", 3.4, True),
        ("3.", 3.6, False),
        ("3.0", 3.06, False),
        ("1e-05", 1.4e-5, True),
        ("1e-05", 1.6e-5, False),
        ("1.0e-05", 1.04e-5, True),
        ("1.0e-05", 1.06e-5, False),
        ("-2.5E3", -2540, True),
        ("-2.5E3", -2560, False),
    ],
)
def test_half_a_unit_of_the_last_digit_printed_is_admitted(text: str, seen: float, holds: bool) -> None:
    assert held(text, seen).ok is holds


def test_the_bound_of_the_reference_is_admitted_beside_it() -> None:
    assert held("0.9995", 0.9996, bound=6e-5).ok
    assert not held("0.9995", 0.9996, bound=4e-5).ok


def test_one_wrong_digit_in_many_is_found() -> None:
    text = "[[ 0.9995  0.9980] [-0.9980 -0.9998]]"
    right = np.array([[0.9995, 0.9980], [-0.9980, -0.9998]], np.float32)
    exact = Expected(np.zeros((2, 2)), np.full((2, 2), 1e-9), "float32")
    assert against_document(right, exact, text).ok
    wrong = against_document(right, exact, text.replace("-0.9980", "-0.9970"))
    assert (wrong.ok, wrong.worst_index) == (False, (1, 0))


def test_tensors_are_read_in_order_whatever_their_brackets_and_commas() -> None:
    assert held("[1.5,\n -2.5,\t3.5]", 1.5, -2.5, 3.5).ok
    assert not held("[1.5, 3.5, -2.5]", 1.5, -2.5, 3.5).ok


def test_special_values_are_printed_as_words() -> None:
    assert held("[nan inf -inf 1.0]", np.nan, np.inf, -np.inf, 1).ok
    assert not held("[nan inf inf 1.0]", np.nan, np.inf, -np.inf, 1).ok


def test_one_number_stands_for_all() -> None:
    assert held("0.5", 0.5, 0.5, 0.5).ok
    assert held("0.5", 0.5, 0.7, 0.5).worst_index == (1,)


def test_a_document_that_prints_another_number_of_elements_does_not_hold() -> None:
    assert held("[1.0 2.0]", 1, 2, 3).problem == "has 3 elements, the document prints 2"
    assert held("[]", 1, 2).problem == "has 2 elements, the document prints 0"


def test_a_counter_is_printed_too() -> None:
    counter = Expected(np.asarray(3), np.zeros(()), None, optional=True)
    assert against_document(np.asarray(3), counter, "tensor(3)").ok
    assert not against_document(np.asarray(4), counter, "tensor(3)").ok


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=6), st.integers(0, 9))
@settings(deadline=None)
def test_what_is_printed_from_a_tensor_holds_of_it(seen: list[float], digits: int) -> None:
    assert held(printed(seen, digits), *seen).ok


DOCUMENT = "[MindSpore, Differences with torch.nn.BatchNorm2d]"


def documented(tensor: str, text: str) -> dict[str, Any]:
    return {"numpy": {"source": DOCUMENT, "tensors": {tensor: text}}}


def test_a_verdict_holds_the_digits_as_tensors_of_their_own() -> None:
    exact = oracle().expected(under().profile, CANONICAL)["running_mean[0]"].value
    right = oracle(documented=documented("running_mean[0]", printed(exact, 6)))
    assert verdict(right, answer(right)).verdict == "conforms"
    wrong = oracle(documented=documented("running_mean[0]", printed(np.add(exact, [0, 1e-4, 0]), 6)))
    found = verdict(wrong, answer(wrong))
    assert (found.verdict, found.diagnosis) == ("divergent", "document-contradicted")
    assert {name for name, result in found.tensors.items() if not result.ok} == {"running_mean[0] as documented"}


def test_digits_of_a_tensor_that_is_not_returned_do_not_hold() -> None:
    of = oracle(documented=documented("y[3]", "1.0"))
    assert problems(verdict(of, answer(of))) == {"y[3] as documented": "is missing"}


def test_digits_printed_for_one_framework_are_not_held_against_another() -> None:
    of = oracle(documented=documented("y[0]", "1.0"))
    assert verdict(of, answer(of), under(framework="torch")).verdict == "conforms"


# Signatures

REAL = (("num_features", None), ("eps", "1e-05"), ("momentum", "0.1"), ("affine", "True"))


def differences(documented: dict[str, str | None], real: tuple[tuple[str, str | None], ...] = REAL) -> dict[str, str]:
    return against_signature(real, documented)


def test_a_signature_as_documented_has_no_differences() -> None:
    assert differences(dict(REAL)) == {}
    assert differences(dict(REAL) | {"eps": "0.00001", "momentum": "1e-1"}) == {}


def test_every_kind_of_difference_is_named() -> None:
    assert differences({"num_features": None, "affine": "True", "momentum": "0.9", "data_format": "'NCHW'"}) == {
        "added": "eps=1e-05",
        "removed": "data_format",
        "changed": "momentum=0.1, documented 0.9",
        "reordered": "num_features, momentum, affine",
    }


@pytest.mark.parametrize(
    ("real", "text", "same"),
    [
        ("1e-05", "1e-5", True),
        ("1e-05", "0.00001", True),
        ("1e-05", "1e-3", False),
        ("True", "True", True),
        ("True", "1", False),
        ("1", "1.0", True),
        ("None", "None", True),
        ("None", None, False),
        (None, "None", False),
        ("'ones'", '"ones"', True),
        ("'ones'", "ones", False),
        ("<Init.ONES: 1>", "<Init.ONES: 1>", True),
        ("<Init.ONES: 1>", "'ones'", False),
        ("{[]: 1}", "{[]: 1}", True),
    ],
)
def test_defaults_are_compared_as_values(real: str | None, text: str | None, same: bool) -> None:
    assert (differences({"x": text}, (("x", real),)) == {}) is same


def test_an_added_parameter_moves_no_other() -> None:
    assert differences(dict(REAL), (REAL[0], ("device", "None"), *REAL[1:])) == {"added": "device=None"}
    assert differences(dict(REAL), (*REAL, ("kwargs", None))) == {"added": "kwargs"}


SIGNATURE = case(rank=2, signature={"numpy": dict(REAL)})


def test_a_signature_as_documented_conforms() -> None:
    assert verdict(oracle(SIGNATURE), signature(*REAL)).verdict == "conforms"


def test_a_signature_that_differs_is_divergent_by_every_difference() -> None:
    found = verdict(oracle(SIGNATURE), signature(REAL[0], REAL[2], REAL[1], ("affine", "False"), ("bias", "True")))
    assert (found.verdict, found.status) == ("divergent", "unexpected")
    assert found.diagnosis == "signature-added+changed+reordered"
    assert found.because == "added: bias=True; changed: affine=False, documented True; reordered: " + (
        "num_features, momentum, eps, affine"
    )


def test_a_signature_that_cannot_be_had_is_refused() -> None:
    assert verdict(oracle(SIGNATURE), refusal()).verdict == "refused"


def test_no_signature_at_all_lacks_every_parameter() -> None:
    assert verdict(oracle(SIGNATURE), Observation()).diagnosis == "signature-removed"
