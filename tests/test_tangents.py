"""Forward mode: the derivative along a tangent against differences in 50 digits, what a case may say, and who errs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import answer, case, on, oracle, parameters, values, verdict
from mutants import bench
from pydantic import ValidationError

from conformance.arithmetic import Array, Double, Multiprecision
from conformance.case import Case
from conformance.comparison import Comparison
from conformance.conventions import CANONICAL
from conformance.judge import judge
from conformance.layer import Values
from conformance.problem import materialise
from conformance.reference import evaluate

MP = Multiprecision(50)
#: Central differences of this width are right to 10⁻²⁸ or so in 50 digits.
H = MP.lift(np.array([1e-14]))[0]

P = parameters(2, gamma=[1.5, -0.7], beta=[0.3, 2.0], running_mean=[0.4, -1.0], running_var=[0.6, 2.0], eps=0.01)

ALONG = {"mode": "train", "tangent": {}}
EVALUATED = ALONG | {"mode": "eval"}


def along(**fields: Any) -> Case:
    usual: dict[str, Any] = {"layer": {"momentum": 0.5}, "input": {"shape": [6, 2], "normal": {"mean": 3}}}
    return case(**usual | {"steps": [ALONG]} | fields)


def step(mode: str = "train") -> Values:
    x, tangent = np.random.RandomState(4).standard_normal((2, 2, 6))
    return replace(values(3 + 2 * x, tangent, mode), forward=True)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_it_is_the_difference_of_y_along_the_tangent(mode: str) -> None:
    """y from the definition, in which nothing is differentiated."""
    s = step(mode)
    assert s.g is not None
    x, tangent = MP.lift(s.x), MP.lift(s.g)

    def y(x: Array) -> Array:
        mu, var = MP.lift(P.running_mean), MP.lift(P.running_var)
        if mode == "train":
            mu = x.sum(1) / 6
            var = ((x - mu[:, None]) ** 2).sum(1) / 6
        return np.asarray(MP.lift(P.gamma)[:, None] * (x - mu[:, None]) / MP.sqrt(var + P.eps)[:, None])

    numeric = (y(x + H * tangent) - y(x - H * tangent)) / (2 * H)
    found = evaluate(P, [s], CANONICAL, MP)[0].dx
    assert np.abs(MP.lower(found - numeric)).max() < 1e-18


def test_a_step_along_a_tangent_has_its_derivative_in_place_of_gradients() -> None:
    of = oracle(layer={}, steps=[ALONG, "train"])
    tensors = answer(of).tensors
    assert {"y[0]", "jvp[0]", "dx[1]", "dgamma[1]"} <= tensors.keys()
    assert tensors.keys().isdisjoint({"dx[0]", "dgamma[0]", "dbeta[0]", "jvp[1]"})


@pytest.mark.parametrize("other", [{"forward": True}, {"v": np.ones((2, 6)), "by": "forward-over-forward"}])
def test_what_has_no_gradients_adds_none_to_those_of_later_steps(other: dict[str, Any]) -> None:
    plain = replace(step(), forward=False)
    piled = CANONICAL.but(parameter_gradients="accumulated")
    (alone,), (_, after) = (
        evaluate(P, steps, piled, Double()) for steps in ([plain], [replace(plain, **other), plain])
    )
    for name in ("dgamma", "dbeta"):
        assert np.array_equal(getattr(alone, name), getattr(after, name)), name


def test_a_worker_gets_the_tangent_and_no_cotangent() -> None:
    problem = materialise(along(steps=[ALONG, "train"]))
    first, second = problem.wire["steps"]
    assert (first["dy"], second["tangent"]) == (None, None)
    assert first["tangent"]["shape"] == [6, 2]
    assert first["tangent"]["data"] != first["x"]["data"]
    assert problem.digest != materialise(along(steps=[ALONG | {"tangent": {"seed": 3}}, "train"])).digest


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": [ALONG | {"gradient": {}}]}, "no gradient of its own"),
        ({"steps": [ALONG | {"second": {}}]}, "no second of its own"),
        ({"steps": [ALONG | {"mask": {}}]}, "no mask of its own"),
        ({"recompute": True}, "no backward pass that could recompute"),
        ({"input": {"shape": [6, 2], "constant": 3, "dtype": "int32"}}, "integers have none"),
    ],
)
def test_what_has_no_tangent_is_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        along(**fields)


def test_the_numpy_layer_is_within_its_bound_and_near_it() -> None:
    worst = 0.0
    for mean in (0, 100, 1e4):
        of = oracle(steps=[ALONG], input={"shape": [16, 3, 5, 5], "normal": {"mean": mean, "std": 2, "seed": 9}})
        found = judge(Comparison(of, bench().under, bench().observe("none", of.problem)))
        worst = max(worst, found.tensors["jvp[0]"].off)
    assert 0.02 <= worst <= 1


def test_the_mode_of_the_first_tangent_is_that_of_its_shape_and_of_its_layer() -> None:
    """A layer out of a checkpoint is another one, which evaluates as it is told."""
    kept = CANONICAL.but(tangent_mode="of the first of its shape", updates_along_tangent=1)
    first = step()
    assert first.g is not None
    other = replace(first, mode="eval", x=first.x[:, :4], g=first.g[:, :4])
    steps = [first, replace(first, mode="eval"), other, replace(first, mode="eval", reloaded=True)]
    traces = evaluate(P, steps, kept, Double())
    assert [trace.batch for trace in traces] == [True, True, False, False]
    assert [trace.num_batches_tracked for trace in traces] == [2, 4, 4, 4]


def test_a_tangent_that_is_lost_leaves_y_and_no_derivative() -> None:
    of = oracle(layer={}, steps=[ALONG])
    lost, exact = (of.expected(bench().under.profile, c) for c in (CANONICAL.but(tangent="lost"), CANONICAL))
    assert not lost["jvp[0]"].value.any()
    assert np.array_equal(lost["y[0]"].value, exact["y[0]"].value)
    assert verdict(of, answer(of, CANONICAL.but(tangent="lost"))).diagnosis == "tangent-lost"


@pytest.mark.frameworks
@pytest.mark.parametrize("target", ["torch", "keras", "keras,backend=torch"])
def test_a_call_along_a_tangent_moves_the_statistics_once(target: str) -> None:
    found, tensors = on(target, along(steps=[ALONG, EVALUATED]))
    assert found.verdict in ("conforms", "conventional")
    x = materialise(along()).calls[0].x.astype(np.float64)
    np.testing.assert_allclose(tensors["running_mean[0]"], 0.5 * x.mean(0), rtol=1e-6)


@pytest.mark.frameworks
def test_mindspore_counts_it_twice_and_stays_in_the_mode_of_the_first() -> None:
    """y of an evaluation is normalised by the batch, and the statistics go three quarters of the way each time."""
    of = along(steps=[ALONG, EVALUATED])
    found, tensors = on("mindspore", of)
    x = materialise(of).calls[1].x.astype(np.float64)
    np.testing.assert_allclose(tensors["y[1]"], (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), rtol=1e-3, atol=1e-5)
    first = materialise(of).calls[0].x.astype(np.float64)
    np.testing.assert_allclose(tensors["running_mean[0]"], 0.75 * first.mean(0), rtol=1e-6)
    assert found.diagnosis == "mode-of-first-tangent+statistics-updated-along-tangent"


@pytest.mark.frameworks
def test_what_torch_compiles_drops_the_tangent_where_nothing_is_learned() -> None:
    of = along(layer={"scale": False, "center": False})
    found, tensors = on("torch,execution=compiled", of)
    assert not tensors["jvp[0]"].any()
    assert found.diagnosis == "tangent-lost"
