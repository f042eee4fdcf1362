"""The bfloat16 of the NumPy layer, which NumPy lacks, and how its numbers of any dtype cross."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from builders import module
from conftest import ROOT

from conformance.harness import Array

ADAPTER = module(ROOT / "adapters" / "numpy" / "adapter.py")

#: Every exponent with a fraction at, just below and just above the middle of two neighbours; infinities and NaN.
BITS = (
    (np.arange(2**9, dtype=np.uint32)[:, None] << 23) | np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0x17FFF, 0x18000])
).astype(np.uint32)


def test_bfloat16_is_rounded_to_the_nearest_and_of_two_to_the_even() -> None:
    values = BITS.view(np.float32)
    with np.errstate(invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(ADAPTER.rounded(values, "bfloat16"), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_numbers_cross_as_they_are(dtype: str) -> None:
    values = np.array([0.0, -0.0, 1.5, -3e-5, np.inf], np.float64 if dtype == "float64" else np.float32)
    there = ADAPTER.packed(values, dtype)
    assert isinstance(there, Array)
    assert there.dtype == dtype
    np.testing.assert_array_equal(ADAPTER.numbers(there), ADAPTER.rounded(values, dtype))
