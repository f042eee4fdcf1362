"""A profile says which conventions hold where, and what a constructor's words mean; what it cannot read it says."""

from __future__ import annotations

from typing import Any

import pytest
from builders import case, parameters, profile
from pydantic import ValidationError

from conformance import data
from conformance.conditions import matches
from conformance.conventions import CANONICAL
from conformance.data import folder
from conformance.errors import UsageError
from conformance.layer import Parameters
from conformance.problem import materialise
from conformance.profile import Profile, open_adapter

CPU = {"version": "2.7.1", "device": "cpu", "execution": "eager"}
BIASED = {"running_variance": "biased"}


def declared(*conventions: dict[str, Any], native: bool = False, **facts: Any) -> dict[str, Any]:
    of = case(native={"numpy": {}}) if native else case()
    return profile(*conventions).declared(of, CPU | facts)


# What is declared


def test_what_differs_from_the_canonical_is_declared() -> None:
    assert declared(BIASED, {"default_mode": "train"}, {"frozen": "eval"}) == {
        "running_variance": "biased",
        "frozen": "eval",
    }


def test_a_convention_holds_where_its_condition_does() -> None:
    assert declared(BIASED | {"when": {"version": ">=2.7", "device": "cpu"}}) == BIASED
    assert declared(BIASED | {"when": {"version": ">=2.8"}}) == {}
    assert declared(BIASED | {"when": {"device": "cuda"}}) == {}
    assert declared(BIASED | {"when": {"rank": 2}}) == BIASED
    assert declared(BIASED | {"when": {"rank": [1, 3]}}) == {}


def test_a_later_convention_overrides_an_earlier_one() -> None:
    back = {"running_variance": "unbiased", "when": {"version": ">=2"}}
    assert declared(BIASED, back) == {}
    assert declared(BIASED, back, version="1.9") == BIASED


def test_a_view_and_its_mode_are_of_the_same_step() -> None:
    of = profile(BIASED, {"refuses": "ValueError", "because": "no", "when": {"strided": True, "mode": "train"}})
    view = {"shape": [4, 3, 2, 2], "normal": {}, "strided": True}
    trained, evaluated = (
        case(steps=[{"mode": mode, "input": view}, {"mode": other}])
        for mode, other in (("train", "eval"), ("eval", "train"))
    )
    assert len(list(of.refusals(trained, CPU))) == 1
    assert not list(of.refusals(evaluated, CPU))


def test_how_eps_and_momentum_are_spelled_matters_to_native_cases_alone() -> None:
    spelled = {"eps": {"default": 1e-3}}, {"momentum": {"default": 0.99, "weighs": "old"}}
    assert declared(*spelled) == {}
    assert declared(*spelled, native=True) == {
        "default_eps": 1e-3,
        "default_momentum": 0.99,
        "momentum_weighs": "old",
    }


def test_a_refusal_is_found_by_its_condition() -> None:
    refuses = {"refuses": "ValueError", "because": "no", "when": {"values_per_channel": 1, "mode": "train"}}
    of = profile(BIASED, refuses)
    assert next(of.refusals(case(), CPU), None) is None
    one = case(input={"shape": [1, 3], "normal": {}}, layer={"rank": 1})
    (found,) = of.refusals(one, CPU)
    assert (found.refuses, found.because) == ("ValueError", "no")
    evaluated = case(input={"shape": [1, 3], "normal": {}}, layer={"rank": 1}, steps=["eval"])
    assert next(of.refusals(evaluated, CPU), None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"running_variance": "sometimes"},
        {"colour": "red"},
        {"momentum": {"weighs": "old"}},
        {"eps": 1e-3},
        {"mode_lasts": "often"},
    ],
)
def test_a_convention_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        profile(wrong)


@pytest.mark.parametrize("when", [{"devise": "cpu"}, {"version": "banana"}, {"eps": ">x"}])
def test_a_condition_that_can_never_hold_is_refused(when: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        profile(BIASED | {"when": when})


@pytest.mark.parametrize("entry", [{}, {"running_variance": "biased", "default_mode": "eval"}])
def test_an_entry_declares_one_convention(entry: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        profile(entry)


# What words mean

WORDS = {
    "num_features": "features",
    "epsilon": "eps",
    "momentum": "momentum",
    "affine": "affine",
    "scale": "scale",
    "bias": "bias",
    "track_running_stats": "track_running_stats",
    "moving_mean_init": "running_mean",
    "gamma_init": "gamma",
    "use_batch_statistics": "use_batch_statistics",
    "trainable": "trainable",
    "name": None,
}


def worded() -> Profile:
    return Profile.model_validate(profile().model_dump() | {"parameters": WORDS})


def read(native: dict[str, Any] | None = None, /, conventions: Any = CANONICAL, **layer: Any) -> Parameters:
    of = case(layer=layer) if native is None else case(native={"numpy": native})
    return worded().read(materialise(of), conventions)


def same(found: Parameters, expected: Parameters) -> bool:
    vectors = ("gamma", "beta", "running_mean", "running_var")
    plain = {name: value for name, value in vars(found).items() if name not in vectors}
    return plain == {name: value for name, value in vars(expected).items() if name not in vectors} and all(
        getattr(found, name).tolist() == getattr(expected, name).tolist() for name in vectors
    )


def test_a_canonical_layer_is_read_as_it_is() -> None:
    found = read(eps=0.5, momentum=None, scale=False, initial={"gamma": [1, 2, 3], "running_var": 4})
    assert same(found, parameters(3, momentum=None, scale=False, gamma=[1, 2, 3], running_var=[4, 4, 4]))


def test_a_constructor_without_arguments_has_the_defaults_of_the_conventions() -> None:
    assert same(read({}), parameters(3, eps=1e-5, momentum=0.1))
    told = CANONICAL.but(default_eps=1e-3, default_momentum=0.99)
    assert same(read({}, told), parameters(3, eps=1e-3, momentum=0.99))


def test_arguments_are_read_in_canonical_terms() -> None:
    native = {"num_features": 3, "epsilon": 0.25, "momentum": 0.9, "track_running_stats": False, "name": "bn"}
    assert same(read(native), parameters(3, eps=0.25, momentum=0.9, track_running_stats=False))
    vectors = {"moving_mean_init": [1.0, 2.0, 3.0], "gamma_init": "zeros"}
    expected = parameters(3, eps=1e-5, momentum=0.1, running_mean=[1, 2, 3], gamma=[0, 0, 0])
    assert same(read(vectors), expected)


def test_affine_means_both_and_scale_and_bias_one_each() -> None:
    def learned(**native: bool) -> tuple[bool, bool]:
        found = read(dict(native))
        return found.scale, found.center

    assert learned(affine=False) == (False, False)
    assert learned(affine=True, bias=False) == (True, False)
    assert learned(affine=False, bias=True) == (False, False)
    assert learned(scale=False) == (False, True)


@pytest.mark.parametrize(("given", "mode"), [(True, "train"), (False, "eval"), (None, None)])
def test_use_batch_statistics_overrides_the_mode(given: bool | None, mode: str | None) -> None:
    assert read({"use_batch_statistics": given}).mode == mode


def test_an_argument_that_the_profile_does_not_know_says_nothing() -> None:
    said = worded().senseless(materialise(case(native={"numpy": {"colour": "red"}})))
    assert said == "colour is no argument that the profile of Numpy knows"


@pytest.mark.parametrize(
    ("native", "said"),
    [
        ({"epsilon": "1e-5"}, "eps is '1e-5'"),
        ({"epsilon": True}, "eps is True"),
        ({"affine": "False"}, "affine is 'False'"),
        ({"num_features": 3.0}, "features is 3.0"),
        ({"num_features": 4}, "features is 4"),
        ({"moving_mean_init": [1.0, 2.0]}, "running_mean is [1.0, 2.0]"),
        ({"gamma_init": "normal"}, "gamma is 'normal'"),
        ({"epsilon": 1, "momentum": None, "affine": False, "num_features": 3, "gamma_init": "ones"}, None),
        ({"moving_mean_init": [1, 2.0, 3]}, None),
        ({"name": 7}, None),
    ],
)
def test_an_argument_of_no_sense_is_told(native: dict[str, Any], said: str | None) -> None:
    assert worded().senseless(materialise(case(native={"numpy": native}))) == said


def test_a_canonical_layer_makes_sense() -> None:
    assert worded().senseless(materialise(case())) is None


def test_no_momentum_is_a_cumulative_average_in_native_arguments_too() -> None:
    when = {"momentum": "cumulative", "track_running_stats": True}
    refusing = profile({"refuses": "TypeError", "because": "a test", "when": when})

    def refused(**native: Any) -> bool:
        return next(refusing.refusals(case(native={"numpy": native}), CPU), None) is not None

    assert refused(momentum=None)
    assert not refused(momentum=None, track_running_stats=False)
    assert not refused(momentum=0.1)
    assert not refused()


# Conditions

FEATURES = {"rank": 2, "mode": ("eval", "train"), "eps": 1e-5, "scale": True, "momentum": "cumulative"}


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({}, True),
        ({"rank": 2}, True),
        ({"rank": 3}, False),
        ({"rank": [2, 3]}, True),
        ({"mode": "train"}, True),
        ({"mode": "default"}, False),
        ({"mode": ["default", "eval"]}, True),
        ({"eps": "<=1e-5"}, True),
        ({"eps": "<1e-5"}, False),
        ({"eps": ">1e-6"}, True),
        ({"eps": ">=1e-4"}, False),
        ({"eps": 1e-5}, True),
        ({"eps": "1e-5"}, False),
        ({"scale": True}, True),
        ({"scale": False}, False),
        ({"scale": ">0"}, False),
        ({"momentum": "cumulative"}, True),
        ({"momentum": ">0"}, False),
        ({"execution": "eager"}, False),
        ({"rank": 2, "mode": "default"}, False),
    ],
)
def test_a_condition_holds_of_features(when: dict[str, Any], holds: bool) -> None:
    assert matches(when, FEATURES) is holds


@pytest.mark.parametrize(
    ("steps", "holds"),
    [(["default"], True), (["train", "default"], False), (["eval", "default", "default"], False)],
)
def test_a_default_after_a_named_mode_is_of_that_mode(steps: list[str], holds: bool) -> None:
    of = case(steps=steps)
    assert of.meets({"mode": "default"}, {}) is holds
    assert of.meets({"mode": "train"}, {}) is (steps[0] == "train")
    assert of.features["mode"] == (steps[0],)


@pytest.mark.parametrize(
    ("wanted", "version", "holds"),
    [
        (">=2.7", "2.7.1", True),
        (">=2.7", "2.13.0+cpu", True),
        ("<2.13", "2.13.0+cpu", False),
        ("==2.13.0", "2.13.0+cpu", True),
        (">=2.0,<3", "2.9", True),
        ("<2.15", "2.15.0.dev20260101+cu130", False),
        (">=2.15", "2.15.0rc1", True),
    ],
)
def test_a_version_counts_as_its_release(wanted: str, version: str, holds: bool) -> None:
    assert matches({"version": wanted}, {"version": version}) is holds


def test_a_version_that_is_none_meets_no_range() -> None:
    assert not matches({"version": ">=2.7"}, {"version": "git-3f2a9c"})


# On disk


def test_every_adapter_that_comes_along_has_a_profile_of_its_name() -> None:
    for name, path in data.adapters().items():
        found = open_adapter(path).profile
        assert found.framework == name
        assert found.options["device"][0] == "cpu"


def test_a_path_that_is_no_adapter_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match=r"is no adapter: it has no adapter\.py \(see CONTRIBUTING\.md, Adapters\)"):
        open_adapter(folder("cases"))
