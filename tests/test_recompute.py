"""Recomputed activations: a case asks for them, and what a second call moves is found out, on real layers too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import case, on
from pydantic import ValidationError

from conformance.case import Case
from conformance.problem import materialise


def recomputing(**fields: Any) -> Case:
    usual: dict[str, Any] = {"layer": {"momentum": 0.5}, "input": {"shape": [6, 2], "normal": {"mean": 3}}}
    return case(**usual | {"recompute": True} | fields)


def test_a_worker_is_told_and_a_run_of_other_cases_compares_as_before() -> None:
    plain, other = materialise(recomputing(recompute=False)), materialise(recomputing())
    assert (plain.wire["recompute"], other.wire["recompute"]) == (False, True)
    assert plain.digest != other.digest


def test_a_case_without_a_backward_pass_has_nothing_to_recompute() -> None:
    with pytest.raises(ValidationError, match="nothing is recomputed without a backward pass"):
        recomputing(gradient=None)
    with pytest.raises(ValidationError, match="nothing is recomputed without a backward pass"):
        recomputing(layer=None, native={"torch": {"num_features": 2}})
    assert recomputing(gradient=None, steps=["train", {"mode": "eval", "gradient": {}}]).spec.recompute


def test_a_layer_is_carried_from_one_that_is_not_recomputed() -> None:
    """It is trained without gradients, of which there is nothing to recompute."""
    source = recomputing(carried={"from": "torch", "steps": ["train"]}).source
    assert source is not None
    assert not source.spec.recompute


@pytest.mark.frameworks
@pytest.mark.parametrize("target", ["torch", "mindspore", "keras", "keras,backend=torch"])
def test_frameworks_move_the_statistics_again_in_the_backward_pass_and_nothing_else(target: str) -> None:
    """With a momentum of ½ twice half of the way, ¾, where half is due; a step without gradients goes it once."""
    of = recomputing(gradient=None, steps=[{"mode": "train", "gradient": {}}, "train"])
    found, tensors = on(target, of)
    first, second = (tensors[f"running_mean[{step}]"].astype(np.float64) for step in range(2))
    means = [call.x.mean(0, dtype=np.float64) for call in materialise(of).calls]
    np.testing.assert_allclose(first, 0.75 * means[0], rtol=1e-6)
    np.testing.assert_allclose(second, 0.5 * first + 0.5 * means[1], rtol=1e-6)
    assert (found.verdict, found.diagnosis) == ("divergent", "statistics-updated-in-backward")
    assert found.tensors["dx[0]"].ok
