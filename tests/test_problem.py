"""A case means the same bits everywhere: draws of frozen streams, rounded once, and every bit is in the digest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from builders import case
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.arithmetic import Array
from conformance.harness import Array as WireArray
from conformance.problem import Problem, dtype_of, from_wire, materialise, to_wire

SHAPE = [4, 3, 5, 5]


def made(**spec: Any) -> Problem:
    return materialise(case(**spec))


def x_of(step: int = 0, /, **given: Any) -> Array:
    return made(input=given, steps=["train"] * (step + 1)).calls[step].x


def stream(seed: int, kind: int, number: int) -> np.random.RandomState:
    """The frozen stream of an input (0), a cotangent (1), an initial vector (2) or a mask (3)."""
    return np.random.RandomState([seed, kind, number])


# Draws


@pytest.mark.parametrize("step", [0, 1, 5])
def test_normal_draws_are_those_of_a_frozen_stream(step: int) -> None:
    drawn = 3 + 2 * stream(7, 0, step).standard_normal(SHAPE)
    found = x_of(step, shape=SHAPE, normal={"mean": 3, "std": 2, "seed": 7})
    assert found.dtype == np.float32
    assert found.tolist() == drawn.astype(np.float32).tolist()


def test_uniform_draws_are_those_of_a_frozen_stream() -> None:
    drawn = -1 + 4 * stream(7, 0, 0).random_sample(SHAPE)
    found = x_of(shape=SHAPE, uniform={"low": -1, "high": 3, "seed": 7}, dtype="float64")
    assert found.tolist() == drawn.tolist()


def test_a_stream_stays_what_it_was() -> None:
    """The first draws of seed 0, by whatever NumPy; a case from a year ago means the same tensor."""
    assert x_of(shape=[1, 4], normal={}, dtype="float64").ravel() == pytest.approx(
        [-0.58976310, 0.93396736, 0.05669382, 0.65101529], abs=1e-8
    )


def test_a_cotangent_has_a_stream_of_its_own() -> None:
    problem = made(gradient={"seed": 7}, input={"shape": SHAPE, "normal": {"seed": 7}}, steps=["train", "eval"])
    for step, call in enumerate(problem.calls):
        assert call.dy is not None
        assert call.dy.tolist() == stream(7, 1, step).standard_normal(SHAPE).astype(np.float32).tolist()
        assert (call.dy != call.x).all()


def test_initial_vectors_of_one_seed_differ() -> None:
    drawn = {"normal": {"seed": 7}}
    problem = made(layer={"initial": dict.fromkeys(("gamma", "beta", "running_mean"), drawn)})
    for position, name in enumerate(("gamma", "beta", "running_mean")):
        expected = stream(7, 2, position).standard_normal((3,)).astype(np.float32)
        assert problem.initial[name].tolist() == expected.tolist()
    assert "running_var" not in problem.initial


def test_a_mask_keeps_the_share_it_says() -> None:
    (call,) = made(steps=[{"mode": "train", "mask": {"keep": 0.3, "seed": 7}}]).calls
    assert call.mask is not None
    assert call.mask.tolist() == (stream(7, 3, 0).random_sample((4, 5, 5)) < 0.3).tolist()


def test_steps_without_inputs_of_their_own_draw_anew() -> None:
    first, second = made(steps=["train", "train"]).calls
    assert (first.x != second.x).any()
    own = {"mode": "eval", "input": {"shape": [2, 3, 1, 1], "constant": 1.5}, "gradient": {"seed": 9}}
    first, second = made(steps=["train", own]).calls
    assert second.x.shape == (2, 3, 1, 1)
    assert second.dy is not None
    assert second.dy.shape == (2, 3, 1, 1)


# Values


def test_explicit_values_are_taken_as_they_are() -> None:
    assert x_of(values=[[1, -2.5], ["nan", "-inf"]]).tolist()[0] == [1, -2.5]
    assert math.isnan(x_of(values=[[1, -2.5], ["nan", "-inf"]])[1, 0])
    assert x_of(shape=[2, 3], arange={"start": 1, "step": 0.5}).tolist() == [[1, 1.5, 2], [2.5, 3, 3.5]]
    assert x_of(shape=[2, 2], constant=7.5).tolist() == [[7.5, 7.5], [7.5, 7.5]]


def test_replaced_elements_are_the_last_word() -> None:
    found = x_of(shape=[2, 2], constant=1, replace=[{"at": [0, 1], "with": "inf"}, {"at": [1, 0], "with": 3}])
    assert found.tolist() == [[1, math.inf], [3, 1]]


def test_values_are_rounded_once() -> None:
    """1 + 2⁻¹¹ + 2⁻³⁰ is above the middle of two float16s; through float32 it would land on it and go down."""
    assert x_of(values=[[1 + 2**-11 + 2**-30]], dtype="float16")[0, 0] == 1 + 2**-10
    assert x_of(values=[[70000.0, 1e-9]], dtype="float16").tolist() == [[math.inf, 0]]


def test_values_are_rounded_to_bfloat16_once() -> None:
    assert x_of(values=[[1 + 2**-8 + 2**-30]], dtype="bfloat16")[0, 0] == 1 + 2**-7


def test_integers_have_float32_cotangents_and_layers() -> None:
    problem = made(input={"shape": SHAPE, "arange": {}, "dtype": "int32"})
    assert problem.calls[0].x.dtype == np.int32
    assert problem.calls[0].dy is not None
    assert problem.calls[0].dy.dtype == np.float32
    assert problem.layer_dtype == "float32"


def test_the_layer_has_the_dtype_and_the_channels_of_the_input_unless_it_says_otherwise() -> None:
    half: dict[str, Any] = {"shape": SHAPE, "normal": {}, "dtype": "bfloat16"}
    problem = made(input=half, layer={"initial": {"gamma": 1 / 3}})
    assert (problem.layer_dtype, problem.features) == ("bfloat16", 3)
    assert problem.initial["gamma"].dtype == dtype_of("bfloat16")
    assert problem.initial["gamma"].astype(float).tolist() == [float(dtype_of("bfloat16").type(1 / 3))] * 3
    problem = made(input=half, layer={"dtype": "float32", "features": 5})
    assert (problem.layer_dtype, problem.features) == ("float32", 5)


def test_no_gradient_means_no_cotangent() -> None:
    assert made(gradient=None).calls[0].dy is None
    assert made(native={"numpy": {}}).calls[0].dy is None
    assert made(native={"numpy": {}}, gradient={}).calls[0].dy is not None


def test_a_signature_has_no_tensors() -> None:
    problem = made(rank=2, signature={"numpy": {}})
    assert (problem.calls, problem.initial) == ((), {})
    assert problem.wire["signature"] is True


# The layer beside


CASE: dict[str, Any] = {"layer": {}, "input": {"shape": SHAPE, "normal": {}}}


def test_the_layer_beside_meets_the_same_bits() -> None:
    problem = made(**CASE | {"beside": {"layer": {"eps": 0.25}, "mode": "eval"}})
    assert problem.beside is not None
    layer, call = problem.beside
    assert (layer.layer.eps, layer.features, call.mode) == (0.25, 3, "eval")
    assert call.x.tobytes() == problem.calls[0].x.tobytes()
    assert call.dy is not None
    assert problem.calls[0].dy is not None
    assert call.dy.tobytes() == problem.calls[0].dy.tobytes()


def test_the_layer_beside_is_built_for_its_own_input() -> None:
    other = {"shape": [9, 5], "normal": {}, "dtype": "float64", "layout": "channels_last"}
    beside = made(**CASE | {"beside": {"input": other}}).wire["beside"]
    found = {name: beside["layer"][name] for name in ("rank", "features", "dtype", "layout")}
    assert found == {"rank": 1, "features": 5, "dtype": "float64", "layout": "channels_last"}
    assert beside["step"]["x"]["shape"] == [9, 5]
    assert made(**CASE).wire["beside"] is None


# The digest

PLAIN: dict[str, Any] = {
    "layer": {"initial": {"gamma": [1.0, 2.0, 3.0]}},
    "input": {"shape": SHAPE, "normal": {"seed": 1}},
    "steps": ["train", "eval"],
}


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"shape": SHAPE, "normal": {"seed": 2}}},
        {"input": {"shape": SHAPE, "normal": {"seed": 1}, "dtype": "float64"}},
        {"input": {"shape": SHAPE, "normal": {"seed": 1}, "layout": "channels_last"}},
        {"input": {"shape": SHAPE, "normal": {"seed": 1}, "strided": True}},
        {"input": {"shape": SHAPE, "normal": {"seed": 1}, "replace": [{"at": [0, 0, 0, 0], "with": 0}]}},
        {"layer": {"initial": {"gamma": [1.0, 2.0, 3.0000002]}}},
        {"layer": {"initial": {"beta": [1.0, 2.0, 3.0]}}},
        {"layer": {"eps": 1e-4, "initial": {"gamma": [1.0, 2.0, 3.0]}}},
        {"layer": {"momentum": None, "initial": {"gamma": [1.0, 2.0, 3.0]}}},
        {"steps": ["train", "train"]},
        {"steps": ["train", {"mode": "eval", "frozen": True}]},
        {"steps": ["train", {"mode": "eval", "mask": {"keep": 0.5}}]},
        {"gradient": {"seed": 3}},
        {"gradient": None},
        {"beside": {}},
    ],
    ids=str,
)
def test_the_digest_changes_with_whatever_a_target_receives(change: dict[str, Any]) -> None:
    assert made(**PLAIN | change).digest != made(**PLAIN).digest


def test_the_digest_does_not_change_with_what_is_expected_or_told() -> None:
    told: dict[str, Any] = {
        "why": "another reason",
        "expect": {"torch": {"refuses": "ValueError", "because": "x"}},
        "documented": {"torch": {"source": "a page", "tensors": {"y[0]": "1.0"}}},
    }
    assert made(**PLAIN | told).digest == made(**PLAIN).digest
    assert made(id_="other/name", **PLAIN).digest == made(**PLAIN).digest


@given(st.integers(0, 299), st.integers(0, 31))
@settings(deadline=None)
def test_the_digest_changes_with_every_bit_of_the_input(element: int, bit: int) -> None:
    problem = made(**PLAIN)
    before = problem.digest
    flipped = problem.calls[0].x.copy().view(np.uint32)
    flipped.flat[element] ^= np.uint32(1 << bit)
    problem.calls[0].x[...] = flipped.view(np.float32)
    assert Problem(problem.case, problem.calls, problem.initial, "float32", 3).digest != before


def test_the_digest_changes_with_every_bit_of_the_other_tensors() -> None:
    problem = made(**PLAIN)
    digests = {problem.digest}
    for change in ("gamma", "dy"):
        again = made(**PLAIN)
        tensor = again.initial["gamma"] if change == "gamma" else again.calls[1].dy
        assert tensor is not None
        tensor.view(np.uint32).flat[-1] ^= np.uint32(1)
        digests.add(again.digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    "layers", [({"momentum": None}, {"momentum": math.nan}), ({"eps": math.inf}, {"eps": math.nan})]
)
def test_the_digest_tells_special_values_apart(layers: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = layers
    assert made(layer=first).digest != made(layer=second).digest


# Across the channel


def test_what_a_worker_gets_is_what_the_reference_has() -> None:
    problem = made(
        layer={"features": 3, "momentum": 0.3, "initial": {"gamma": [1.0, 2.0, 3.0]}},
        input={"shape": SHAPE, "normal": {}, "layout": "channels_last", "strided": True},
        steps=["train", {"mode": "eval", "frozen": True, "save_load": True}],
    )
    sent = problem.wire
    assert (sent["rank"], sent["signature"]) == (2, False)
    assert sent["layer"] == {
        "rank": 2,
        "features": 3,
        "eps": 1e-5,
        "momentum": 0.3,
        "scale": True,
        "center": True,
        "track_running_stats": True,
        "dtype": "float32",
        "layout": "channels_last",
    }
    assert from_wire(WireArray.unpack(sent["initial"]["gamma"])).tolist() == [1, 2, 3]
    for call, step in zip(problem.calls, sent["steps"], strict=True):
        assert from_wire(WireArray.unpack(step["x"])).tobytes() == call.x.tobytes()
        assert (step["mode"], step["frozen"], step["save_load"]) == (call.mode, call.frozen, call.save_load)
        assert step["strided"] is True
    assert [step["frozen"] for step in sent["steps"]] == [False, True]


def test_a_native_case_sends_no_canonical_layer() -> None:
    assert made(native={"numpy": {"features": 3}}).wire["layer"] is None


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (1, 0, 2)])
def test_arrays_cross_bit_for_bit(dtype: str, shape: tuple[int, ...]) -> None:
    sent = np.arange(math.prod(shape)).reshape(shape).astype(dtype_of(dtype))
    received = from_wire(WireArray.unpack(to_wire(sent)))
    assert (received.dtype, received.shape) == (sent.dtype, shape)
    assert received.tobytes() == sent.tobytes()
