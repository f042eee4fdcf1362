"""A worker's reply is taken for what it says only where it says it well; all else is the adapter's fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.harness import Array
from conformance.observation import unpack

GOOD: dict[str, Any] = Array.of(np.zeros((2, 3), np.float32)).pack()


def reply(*tensors: dict[str, Any]) -> dict[str, Any]:
    steps = [{"y": tensor} for tensor in tensors]
    return {"steps": steps, "error": None, "signature": None, "received": "", "facts": [], "seconds": 0.5}


def test_tensors_are_named_by_their_step() -> None:
    found = unpack(reply(GOOD, GOOD))
    assert (found.fate, sorted(found.tensors), found.seconds) == ("answered", ["y[0]", "y[1]"], 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [2, 4]}, "24 bytes for float32[2, 4], which takes 32"),
        ({"shape": [-2, -3]}, "shape (-2, -3) is to be of whole numbers"),
        ({"shape": [2.0, 3]}, "shape (2.0, 3) is to be of whole numbers"),
        ({"shape": [True, 6]}, "shape (True, 6) is to be of whole numbers"),
        ({"shape": 6}, "not iterable"),
        ({"dtype": "object", "data": bytes(48)}, "object is no dtype of tensors"),
        ({"dtype": "S4"}, "S4 is no dtype of tensors"),
        ({"dtype": "datetime64[s]", "data": bytes(48)}, "datetime64[s] is no dtype of tensors"),
        ({"dtype": ">f4"}, ">f4 is no dtype of tensors"),
        ({"dtype": "float33"}, "float33"),
        ({"dtype": 4}, "both are to be names"),
        ({"device": None}, "both are to be names"),
        ({"data": "x" * 24}, "str for float32[2, 3]"),
        ({"data": [0] * 24}, "list for float32[2, 3]"),
    ],
)
def test_a_tensor_that_is_none_is_the_adapters_fault(changes: dict[str, Any], words: str) -> None:
    found = unpack(reply(GOOD, GOOD | changes))
    assert found.fate == "broken"
    assert found.failure is not None
    assert found.failure.message.startswith("the adapter's reply is not of the agreed form: ")
    assert words in found.failure.message


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool", "bfloat16"])
def test_every_dtype_of_numbers_is_taken(dtype: str) -> None:
    size = {"float64": 8, "float16": 2, "int64": 8, "uint8": 1, "bool": 1, "bfloat16": 2}[dtype]
    assert unpack(reply({"dtype": dtype, "shape": [3], "data": bytes(3 * size)})).fate == "answered"
