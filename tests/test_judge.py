"""Every verdict and status: what was returned against the reference, and the verdict against what was expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from builders import SMALL, answer, case, oracle, printed, problems, refusal, under, verdict, wire

from conformance import data
from conformance import judge as judge_module
from conformance import oracle as oracle_module
from conformance.arithmetic import Array
from conformance.comparison import Under
from conformance.conventions import CANONICAL
from conformance.judge import AGREEMENT, VERDICTS, Verdict, Wanted, expectation
from conformance.load import load
from conformance.observation import Failure, Observation, broken
from conformance.oracle import Oracle
from conformance.session import targets_of
from conformance.target import MAIN, parse

BIASED = CANONICAL.but(running_variance="biased")
DECLARES_BIASED = {"running_variance": "biased"}
STEPS = ["train", "train", "eval"]


def exact(of: Oracle, name: str) -> Array:
    """A tensor of a canonical target, rounded to float32."""
    return of.arithmetic.lower(of.expected(under().profile, CANONICAL)[name].value).astype(np.float32)


# Verdicts


def test_what_is_right_conforms() -> None:
    found = verdict(of := oracle(steps=STEPS), answer(of))
    assert (found.verdict, found.status) == ("conforms", "expected")
    assert (found.diagnosis, found.because, found.error) == (None, "", None)
    assert found.expected == "conforms or conventional"
    assert found.accepted == CANONICAL
    assert all(result.ok for result in found.tensors.values())
    assert {name for name in found.tensors if name.endswith("[0]")} == {
        "y[0]",
        "dx[0]",
        "dgamma[0]",
        "dbeta[0]",
        "gamma[0]",
        "beta[0]",
        "running_mean[0]",
        "running_var[0]",
        "num_batches_tracked[0]",
    }


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_what_is_right_conforms_in_every_dtype(dtype: str) -> None:
    of = oracle(input=SMALL | {"dtype": dtype}, steps=["train", "eval"])
    assert verdict(of, answer(of)).verdict == "conforms"


def test_what_is_right_by_the_profile_is_conventional() -> None:
    target = under(DECLARES_BIASED)
    found = verdict(of := oracle(steps=STEPS), answer(of, BIASED), target)
    assert (found.verdict, found.status) == ("conventional", "expected")
    assert found.diagnosis == "running-variance-biased"
    assert found.because == "running_var is stored biased, without the n/(n−1) factor"
    assert found.accepted == BIASED
    assert all(result.ok for result in found.tensors.values())


def test_only_the_conventions_that_a_case_shows_are_named() -> None:
    target = under(DECLARES_BIASED, {"default_mode": "eval"}, {"frozen": "eval"})
    both = BIASED.but(default_mode="eval")
    told = verdict(of := oracle(steps=["train", "eval"]), answer(of, both), target)
    assert (told.diagnosis, told.accepted) == ("running-variance-biased", BIASED)
    untold = verdict(of := oracle(steps=["default", "train"]), answer(of, both), target)
    assert (untold.diagnosis, untold.accepted) == ("running-variance-biased+default-mode-eval", both)


def test_what_is_right_but_coarse_is_inaccurate() -> None:
    """The strict bound admits sums of depth 64, and of 520 in eight lanes; at 4096 values the weak one is far wider."""
    of = oracle(input={"shape": [16, 3, 16, 16], "normal": {"mean": 3, "seed": 1}}, steps=["train"])
    strict = of.expected(under().profile, CANONICAL)["running_mean[0]"]
    off = (strict.value + 20 * strict.bound).astype(np.float32)
    found = verdict(of, answer(of, running_mean_0=off))
    assert (found.verdict, found.status, found.diagnosis) == ("inaccurate", "unexpected", "sums-sequential")
    assert found.because.startswith("right, but 20 times the strict bound off, 0.")
    assert found.tensors["running_mean[0]"].ratio == pytest.approx(20, rel=0.2)
    assert found.accepted == CANONICAL


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"gamma": "ignored"}, "gamma-ignored"),
        ({"gamma": "reversed"}, "gamma-reversed"),  # which no channel shows by itself
        ({"eval_statistics": "batch"}, "batch-statistics-in-eval"),
        ({}, "unexplained"),
    ],
)
def test_a_large_case_is_searched_by_the_channel_that_is_furthest_off(
    changes: dict[str, Any], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any case is large where few values are held; what comes of it is the same, of few readings of the whole."""
    monkeypatch.setattr(judge_module, "PAIR_ELEMENTS", 0)  # singles alone, which large cases are searched for
    spec: dict[str, Any] = {
        "input": SMALL,
        "layer": {"initial": {"gamma": [2, 3, 5]}},
        "steps": ["train", "train", "eval"],
    }

    def judged() -> tuple[Verdict, int]:
        of = oracle(**spec)
        returned = answer(of, CANONICAL.but(**changes))
        if not changes:
            returned = answer(of, y_0=exact(of, "y[0]") + np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1))
        whole, read = [], Oracle.expected

        def counted(self: Oracle, *arguments: Any) -> Any:
            whole.append(1 if self is of else 0)
            return read(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Oracle, "expected", counted)
            return verdict(of, returned), sum(whole)

    small, often = judged()
    monkeypatch.setattr(oracle_module, "HELD", 30)
    large, seldom = judged()
    assert (large.verdict, large.diagnosis) == (small.verdict, small.diagnosis) == ("divergent", cause)
    assert large.because == small.because
    assert seldom < often / 3 or cause == "gamma-ignored"  # which is found at once


@pytest.mark.parametrize(
    ("spread", "needed"), [(0, {"unlearned": "applied"}), (1, {"unlearned": "applied", "running_variance": "biased"})]
)
def test_what_a_large_case_needs_is_asked_of_one_channel_and_then_of_all(
    spread: int, needed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first channel is furthest off, by β, and constant, so that it tells nothing of the variance of others."""
    target = under(DECLARES_BIASED, {"unlearned": "applied"})
    spec: dict[str, Any] = {
        "input": {"values": [[1, 1 + sign * spread] for sign in (1, -1, 1, -1)]},
        "layer": {"rank": 1, "features": 2, "center": False, "initial": {"beta": [9, 0]}},
    }
    returned = answer(of := oracle(**spec), CANONICAL.but(unlearned="applied", running_variance="biased"))
    small = verdict(of, returned, target)
    monkeypatch.setattr(oracle_module, "HELD", 4)
    large = verdict(oracle(**spec), returned, target)
    assert small.accepted == large.accepted == CANONICAL.but(**needed)
    assert (large.verdict, large.diagnosis) == ("conventional", small.diagnosis)


def test_a_large_case_with_a_document_is_searched_by_a_channel_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document prints every channel, of which the one that is searched is none of the others."""
    monkeypatch.setattr(oracle_module, "HELD", 30)
    spec: dict[str, Any] = {"input": SMALL, "layer": {"initial": {"gamma": [2, 3, 5]}}, "steps": ["train"]}
    returned = answer(of := oracle(**spec), wrong := CANONICAL.but(gamma="ignored"))
    text = printed(of.arithmetic.lower(of.expected(under().profile, wrong)["y[0]"].value))
    found = verdict(oracle(**spec, documented={"numpy": {"source": "a page", "tensors": {"y[0]": text}}}), returned)
    assert (found.verdict, found.diagnosis) == ("divergent", "gamma-ignored")
    assert found.explained["y[0] as documented"].ok


def test_what_is_coarse_by_the_profile_is_inaccurate_too() -> None:
    of = oracle(input={"shape": [4, 3, 16, 16], "normal": {"seed": 1}}, steps=["train"])
    target = under(DECLARES_BIASED)
    strict = of.expected(target.profile, BIASED)["running_var[0]"]
    found = verdict(of, answer(of, BIASED, running_var_0=(strict.value + 2 * strict.bound).astype(np.float32)), target)
    assert (found.verdict, found.accepted) == ("inaccurate", BIASED)


def test_what_an_alternative_explains_is_divergent_by_it() -> None:
    found = verdict(of := oracle(steps=STEPS), answer(of, BIASED))
    assert (found.verdict, found.status, found.diagnosis) == ("divergent", "unexpected", "running-variance-biased")
    assert found.because.startswith("running_var is stored biased, without the n/(n−1) factor: all within ")
    assert not found.tensors["running_var[0]"].ok


def test_what_nothing_explains_is_unexplained_and_names_the_worst_tensor() -> None:
    of = oracle(steps=STEPS)
    spoilt = exact(of, "y[1]")
    spoilt[2, 1, 3, 4] += 1
    found = verdict(of, answer(of, y_1=spoilt))
    assert (found.verdict, found.diagnosis) == ("divergent", "unexplained")
    assert found.because.startswith("y[1] is ")
    assert found.because.endswith(" bounds off at [2, 1, 3, 4]")


def test_a_refusal_keeps_its_type_and_message() -> None:
    found = verdict(oracle(), refusal("TypeError", "momentum is no number\nat line 3"))
    assert (found.verdict, found.status) == ("refused", "unexpected")
    assert found.error == Failure("TypeError", "momentum is no number\nat line 3")
    assert found.because == "TypeError: momentum is no number"
    assert verdict(oracle(), refusal("TypeError", "")).because == "TypeError: "


@pytest.mark.parametrize("fate", ["crashed", "timeout", "broken"])
def test_the_end_of_a_process_is_its_verdict(fate: Any) -> None:
    failure = Failure("WorkerDied", "ended by SIGSEGV")
    found = verdict(oracle(), Observation(fate, failure=failure))
    assert (found.verdict, found.status, found.error) == (fate, "unexpected", failure)
    assert verdict(oracle(), broken("bad")).error == Failure("BadReply", "bad")


def test_every_verdict_has_a_place_in_the_order() -> None:
    assert len(set(VERDICTS)) == 8
    assert (VERDICTS[0], VERDICTS[-1]) == ("conforms", "broken")


# What no convention explains


@pytest.mark.parametrize(
    ("name", "change", "diagnosis", "words"),
    [
        ("y", lambda y: y[:1], "shape", "y[0] has shape [1, 3, 5, 5], not [4, 3, 5, 5]"),
        ("y", lambda y: y.astype(float), "dtype", "y[0] has dtype float64, not float32"),
        ("dx", lambda dx: None, "missing", "dx[0] is missing"),
        ("num_batches_tracked", lambda count: count.astype(float), "dtype", None),
    ],
)
def test_another_form_is_divergent_by_it(name: str, change: Any, diagnosis: str, words: str | None) -> None:
    of = oracle(steps=["train"])
    dtype = "int64" if name.startswith("num") else "float32"
    value = of.arithmetic.lower(of.expected(under().profile, CANONICAL)[f"{name}[0]"].value).astype(dtype)
    found = verdict(of, answer(of, **{f"{name}_0": change(value)}))
    assert (found.verdict, found.diagnosis) == ("divergent", diagnosis)
    assert words is None or found.because == words


def test_a_tensor_that_the_layer_should_not_have_is_divergent() -> None:
    of = oracle(layer={"scale": False}, steps=["train"])
    found = verdict(of, answer(of, gamma_0=np.ones(3, np.float32)))
    assert (found.verdict, found.diagnosis) == ("divergent", "returned")
    assert found.because == "gamma[0] is returned, though this layer has none"


def test_a_counter_need_not_be_returned_but_must_be_right() -> None:
    of = oracle(steps=["train"])
    assert verdict(of, answer(of, num_batches_tracked_0=None)).verdict == "conforms"
    found = verdict(of, answer(of, num_batches_tracked_0=np.array(7)))
    assert problems(found) == {"num_batches_tracked[0]": "is 7, not 1"}


def test_another_device_is_divergent_by_it() -> None:
    of = oracle(steps=["train"])
    tensors = {name: wire(exact(of, name)) for name in ("y[0]", "dx[0]")}
    found = verdict(of, Observation(tensors=answer(of).tensors | tensors), under(device="cuda"))
    assert (found.verdict, found.diagnosis) == ("divergent", "device")


def test_what_has_no_value_must_be_refused() -> None:
    of = oracle(layer={"rank": 2}, input={"shape": [4, 3, 5], "normal": {}})
    found = verdict(of, Observation())
    assert (found.verdict, found.diagnosis) == ("divergent", "accepted")
    assert found.because == "accepted what has no value: step 0 gives BatchNorm2d an input of 3 dimensions"
    of = oracle(layer={"features": 5})
    assert verdict(of, Observation()).because.endswith("step 0 gives 3 channels to a layer of 5")
    assert verdict(of, refusal()).verdict == "refused"


def test_a_refusal_of_what_has_no_value_is_expected_of_any_target() -> None:
    of = oracle(layer={"features": 5})
    assert verdict(of, refusal(), under(framework="mine")).status == "expected"


def test_a_nan_and_a_number_are_never_within_a_bound() -> None:
    of = oracle(input={"shape": [4, 3, 2, 2], "normal": {}, "replace": [{"at": [1, 1, 0, 0], "with": "nan"}]})
    assert verdict(of, answer(of)).verdict == "conforms"
    swallowed = np.nan_to_num(exact(of, "y[0]"))
    assert verdict(of, answer(of, y_0=swallowed)).diagnosis == "unexplained"
    spread = np.full_like(swallowed, math.nan)
    assert verdict(of, answer(of, y_0=spread)).diagnosis == "unexplained"


# What is expected


def expecting(**expect: Any) -> Oracle:
    return oracle(steps=STEPS, expect={"numpy": {"because": "it is known"} | expect})


@pytest.mark.parametrize(
    ("expect", "observe", "status"),
    [
        ({"refuses": "ValueError"}, lambda of: refusal("ValueError"), "expected"),
        ({"refuses": "ValueError"}, lambda of: refusal("TypeError"), "unexpected"),
        ({"refuses": "ValueError"}, answer, "unexpected"),
        ({"refuses": "ValueError", "says": "not like"}, lambda of: refusal("ValueError"), "expected"),
        ({"refuses": "ValueError", "says": "does not want"}, lambda of: refusal("ValueError"), "unexpected"),
        ({"refuses": "ValueError", "says": "like"}, lambda of: refusal("TypeError"), "unexpected"),
        ({"diverges": "running-variance-biased"}, lambda of: answer(of, BIASED), "expected"),
        ({"diverges": "running-variance-unbiased"}, lambda of: answer(of, BIASED), "unexpected"),
        ({"diverges": "running-variance-biased"}, answer, "unexpected"),
        ({"diverges": "running-variance-biased"}, lambda of: refusal(), "unexpected"),
        ({"diverges": "unexplained"}, lambda of: answer(of, y_0=np.ones((4, 3, 5, 5), np.float32)), "expected"),
        ({"crashes": True}, lambda of: Observation("crashed"), "expected"),
        ({"crashes": True}, lambda of: Observation("timeout"), "unexpected"),
        ({"crashes": True}, answer, "unexpected"),
        ({"inaccurate": True}, answer, "unexpected"),
    ],
)
def test_an_expectation_holds_or_is_unexpected(expect: dict[str, Any], observe: Any, status: str) -> None:
    of = expecting(**expect)
    found = verdict(of, observe(of))
    assert found.status == status
    assert found.because.endswith("it is known") is (status == "expected")


def test_an_expectation_says_what_was_expected() -> None:
    assert verdict(expecting(refuses="ValueError"), refusal()).expected == "refused (ValueError)"
    assert verdict(expecting(crashes=True), refusal()).expected == "crashed"


@pytest.mark.parametrize("declared", [False, True])
def test_a_refusal_for_another_reason_is_unexpected_and_says_so(declared: bool) -> None:
    said = {"refuses": "ValueError", "says": "channels", "because": "it is known"}
    of, by = (oracle(), under({**said, "when": {"rank": 2}})) if declared else (expecting(**said), under())
    found = verdict(of, refusal("ValueError", "the momentum is odd"), by)
    assert (found.status, found.expected) == ("unexpected", "refused (ValueError)")
    assert found.because == "the message does not say 'channels'; ValueError: the momentum is odd"
    assert verdict(of, refusal("ValueError", "three channels"), by).status == "expected"
    assert "does not say" not in verdict(of, Observation("crashed"), by).because


def test_of_two_declared_refusals_either_may_come_first() -> None:
    layout = {"refuses": "TypeError", "says": "layout", "because": "the layout", "when": {"rank": 2}}
    values = {"refuses": "ValueError", "says": "values", "because": "the values", "when": {"rank": 2}}
    by = under(layout, values)
    for raised, reason in (
        (refusal("TypeError", "no layout"), "the layout"),
        (refusal("ValueError", "no values"), "the values"),
    ):
        found = verdict(oracle(), raised, by)
        assert (found.status, found.reason) == ("expected", reason)
    found = verdict(oracle(), refusal("ValueError", "no layout"), by)
    assert (found.status, found.expected) == ("unexpected", "refused (TypeError)")


@pytest.mark.parametrize("name", [*MAIN, "numpy"])
def test_every_refusal_that_the_corpus_expects_says_what_of(name: str) -> None:
    target = parse(name)
    facts = NEWEST | {option: values[0] for option, values in target.profile.options.items()}
    by = Under(name, target.profile, facts)
    asked = [of for of in load([data.folder("cases")]) if targets_of(of, [target])]
    refused = {of.id: wanted for of in asked if (wanted := expectation(of, by)).verdicts == ("refused",)}
    assert refused
    assert [of for of, wanted in refused.items() if not wanted.says] == []


def test_a_compiler_that_wraps_an_exception_hands_its_message_on() -> None:
    of = expecting(refuses="ValueError", says="channels")
    assert verdict(of, refusal("Wrapped", "ValueError: three channels")).status == "expected"
    assert verdict(of, refusal("Wrapped", "ValueError: the momentum is odd")).status == "unexpected"


def test_an_expected_inaccuracy_is_expected() -> None:
    of = oracle(
        input={"shape": [16, 3, 16, 16], "normal": {"mean": 3, "seed": 1}},
        expect={"numpy": {"inaccurate": True, "because": "sums are sequential"}},
    )
    strict = of.expected(under().profile, CANONICAL)["running_mean[0]"]
    found = verdict(of, answer(of, running_mean_0=(strict.value + 3 * strict.bound).astype(np.float32)))
    assert (found.verdict, found.status) == ("inaccurate", "expected")
    assert found.because.endswith("; sums are sequential")


@pytest.mark.parametrize(
    ("condition", "facts", "applies"),
    [
        ({"version": ">=1.26"}, {}, True),
        ({"version": ">=2"}, {}, False),
        ({"version": "<2"}, {"version": "2.0.0+cpu"}, False),
        ({"when": {"device": "cuda"}}, {}, False),
        ({"when": {"device": "cuda"}}, {"device": "cuda"}, True),
        ({"when": {"device": ["cpu", "cuda"]}}, {}, True),
        ({"when": {"mode": "eval"}}, {}, True),
        ({"when": {"dtype": "float16"}}, {}, False),
        ({"when": {"eps": "<1e-3"}}, {}, True),
        ({"when": {"momentum": 0.1, "rank": 2}}, {}, True),
        ({"when": {"momentum": "cumulative"}}, {}, False),
        ({"when": {"execution": "compiled"}}, {}, False),
        ({"when": {"values_per_channel": 100}}, {}, True),
    ],
)
def test_an_expectation_holds_where_its_condition_does(
    condition: dict[str, Any], facts: dict[str, str], applies: bool
) -> None:
    of = case(steps=STEPS, expect={"numpy": {"refuses": "ValueError", "because": "x", **condition}})
    wanted = ("refused",) if applies else ("conforms", "conventional")
    assert expectation(of, under(**facts)).verdicts == wanted


def test_the_first_expectation_that_applies_counts() -> None:
    several = [
        {"refuses": "TypeError", "because": "old", "version": "<1"},
        {"refuses": "ValueError", "because": "new"},
        {"crashes": True, "because": "never reached"},
    ]
    assert expectation(case(expect={"numpy": several}), under()) == Wanted(("refused",), "new", "ValueError")


def test_an_expectation_of_another_framework_does_not_apply() -> None:
    of = case(expect={"torch": {"refuses": "ValueError", "because": "x"}})
    assert expectation(of, under()) == AGREEMENT == Wanted(("conforms", "conventional"))


def test_a_condition_may_ask_for_what_a_matrix_fixed() -> None:
    expect = {"numpy": {"refuses": "ValueError", "because": "x", "when": {"std": 2.0}}}
    for std, wanted in ((2.0, "refused"), (3.0, "conforms")):
        of = case(expect=expect, matrix={"input.normal.std": std})
        assert expectation(of, under()).verdicts[0] == wanted


@pytest.mark.parametrize(
    ("fixed", "spec", "when"),
    [
        ({"gradient": None}, {"gradient": None}, {"gradient": False}),
        ({"gradient": {"seed": 1}}, {"gradient": {"seed": 1}}, {"gradient": True}),
        ({"layer.momentum": None}, {"layer": {"momentum": None}}, {"momentum": "cumulative"}),
        ({"layer.dtype": "float64"}, {"layer": {"dtype": "float64"}}, {"dtype": "float32"}),
    ],
)
def test_what_a_matrix_fixed_is_called_as_a_condition_calls_it(
    fixed: dict[str, Any], spec: dict[str, Any], when: dict[str, Any]
) -> None:
    of = case(expect={"numpy": {"refuses": "ValueError", "because": "x", "when": when}}, matrix=fixed, **spec)
    assert expectation(of, under()).verdicts == ("refused",)


#: What a target states of itself that conditions ask for, beside what its options say.
NEWEST = {"version": "99", "cpus": "several"}

REFUSES = {"refuses": "TypeError", "because": "it says so", "when": {"rank": 2}}


def test_a_refusal_that_the_profile_declares_is_expected() -> None:
    of = oracle()
    assert verdict(of, refusal("TypeError"), under(REFUSES)).status == "expected"
    assert verdict(of, refusal("TypeError"), under(REFUSES)).because.endswith("; it says so")
    assert verdict(of, refusal("ValueError"), under(REFUSES)).status == "unexpected"
    assert verdict(of, refusal("TypeError"), under({**REFUSES, "when": {"rank": 3}})).status == "unexpected"


def test_a_refusal_that_the_profile_declares_and_that_does_not_come_is_unexpected() -> None:
    of = oracle()
    found = verdict(of, answer(of), under(REFUSES))
    assert (found.verdict, found.status, found.expected) == ("conforms", "unexpected", "refused (TypeError)")


def test_a_case_comes_before_the_profile() -> None:
    of = expecting(refuses="ValueError")
    assert verdict(of, refusal("ValueError"), under(REFUSES)).status == "expected"
    assert verdict(of, refusal("TypeError"), under(REFUSES)).status == "unexpected"


def test_a_claim_of_the_profile_that_does_not_hold_is_unexpected() -> None:
    of = oracle(steps=STEPS)
    found = verdict(of, answer(of), under(DECLARES_BIASED, {"frozen": "eval"}))
    assert (found.verdict, found.status) == ("conforms", "unexpected")
    assert found.because == ("the profile declares running-variance-biased, frozen-infers, which does not hold here")


def test_a_claim_that_holds_with_what_is_declared_of_rounding_is_no_contradiction() -> None:
    """Training by a batch that is constant but for rounding admits anything; inference is right but for its sums."""
    constant = {"shape": [32, 3, 4, 4], "normal": {"mean": -10, "std": 1e-10}}
    of = oracle(input=constant, layer={"momentum": 0.0, "eps": 1e-12}, steps=["default"])
    infers, by = CANONICAL.but(default_mode="eval"), under({"default_mode": "eval"}, {"summation": "sequential"})
    wanted = of.expected(by.profile, infers)["dgamma[0]"]
    rounded = answer(
        of, infers, by, num_batches_tracked_0=None, dgamma_0=(wanted.value + 1.5 * wanted.bound).astype(np.float32)
    )
    assert (verdict(of, rounded, by).verdict, verdict(of, rounded, by).status) == ("conforms", "expected")
    assert verdict(of, rounded, under({"default_mode": "eval"})).status == "unexpected"


def test_a_claim_of_the_profile_that_shows_in_no_tensor_is_no_contradiction() -> None:
    of = oracle(steps=["eval"])
    assert verdict(of, answer(of), under(DECLARES_BIASED)).status == "expected"


def test_a_claim_is_tested_where_it_is_made() -> None:
    of = oracle(steps=STEPS)
    elsewhere = DECLARES_BIASED | {"when": {"version": "<1"}}
    assert verdict(of, answer(of), under(elsewhere)).status == "expected"
    assert verdict(of, answer(of, BIASED), under(elsewhere)).diagnosis == "running-variance-biased"


def test_a_fault_is_named_beside_what_the_profile_declares() -> None:
    """Held to its profile, a target differs by one thing and not by two."""
    of = oracle(steps=STEPS)
    found = verdict(of, answer(of, BIASED.but(gamma="ignored")), under(DECLARES_BIASED))
    assert (found.verdict, found.diagnosis) == ("divergent", "gamma-ignored")
    assert found.accepted == BIASED


# Native cases


def test_native_arguments_are_read_by_the_profile() -> None:
    of = oracle(native={"numpy": {"features": 3, "momentum": 0.9}}, steps=STEPS)
    target = under({"momentum": {"default": 0.9, "weighs": "old"}})
    old = CANONICAL.but(momentum_weighs="old", default_momentum=0.9)
    found = verdict(of, answer(of, old, target), target)
    assert (found.verdict, found.status) == ("conventional", "expected")
    assert found.diagnosis == "momentum-weighs-old"


def test_a_native_default_is_read_by_the_profile() -> None:
    of = oracle(native={"numpy": {"features": 3}}, steps=STEPS)
    target = under({"eps": {"default": 1e-3}})
    found = verdict(of, answer(of, CANONICAL.but(default_eps=1e-3), target), target)
    assert (found.verdict, found.diagnosis) == ("conventional", "default-eps-0.001")
    assert found.because == "default eps is 0.001"
