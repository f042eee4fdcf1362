"""Attributes that are assigned to a layer: a case says them, and who ignores them is found out, on real layers too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import case, on
from pydantic import ValidationError

from conformance.case import Case
from conformance.problem import materialise

BOTH = {"mode": "train", "assign": {"eps": 12.0, "momentum": 0.5}}


def assigning(**fields: Any) -> Case:
    usual: dict[str, Any] = {"layer": {}, "input": {"shape": [6, 2], "normal": {"mean": 3}}, "steps": [BOTH]}
    return case(**usual | fields)


def test_a_worker_is_told_what_is_assigned_in_the_cases_own_terms() -> None:
    problem = materialise(assigning(steps=["train", BOTH, {"mode": "eval", "assign": {"eps": 2}}]))
    assert [step["assigned"] for step in problem.wire["steps"]] == [{}, {"eps": 12, "momentum": 0.5}, {"eps": 2}]
    assert problem.digest != materialise(assigning(steps=["train", "train", "eval"])).digest


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": [{"mode": "train", "assign": {}}]}, "nothing is assigned"),
        ({"steps": [BOTH, {"mode": "eval", "save_load": True}]}, "assign, or save and load"),
        ({"layer": None, "native": {"torch": {"num_features": 2}}}, "a layer in canonical terms"),
        ({"steps": [{"mode": "train", "assign": {"affine": False}}]}, "affine"),
    ],
)
def test_what_cannot_be_assigned_is_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        assigning(**fields)


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("target", "heeded"),
    [("torch", True), ("mindspore", False), ("mindspore,execution=graph", False), ("keras", True)],
)
def test_mindspore_alone_goes_on_with_what_it_was_made_with(target: str, heeded: bool) -> None:
    found, tensors = on(target, assigning())
    x = materialise(assigning()).calls[0].x.astype(np.float64)
    eps, momentum = (12.0, 0.5) if heeded else (1e-5, 0.1)
    np.testing.assert_allclose(tensors["y[0]"], (x - x.mean(0)) / np.sqrt(x.var(0) + eps), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(tensors["running_mean[0]"], momentum * x.mean(0), rtol=1e-6)
    assert found.diagnosis == {"torch": None, "keras": "running-variance-biased"}.get(target, "assignment-ignored")
