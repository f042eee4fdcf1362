"""Every fault of the catalogue is named where it shows; so are pairs; and noise is named by nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pytest
from algorithms import one_pass, pairwise
from builders import INITIAL, SMALL, answer, oracle, profile, under, verdict

from conformance import judge as judging
from conformance.catalogue import CATALOGUE, HYPOTHESES, Hypothesis, name_change
from conformance.compare import TensorResult
from conformance.conventions import CANONICAL, Conventions
from conformance.diagnose import EVIDENCE, Diagnosis, Search, Tried, words, worst
from conformance.fields import By

#: A layer whose every number is nobody's default, in a sequence that shows whatever a BatchNorm can do wrong.
SHOWS_ALL: dict[str, Any] = {
    "layer": {"eps": 2e-2, "momentum": 0.3, "initial": INITIAL},
    "input": SMALL | {"shape": [3, 3, 2, 2]},
    "steps": ["default", "train", "eval", "default", {"mode": "train", "frozen": True}],
}
#: Hypotheses that say what is canonical already, or that show in another case.
ELSEWHERE = {
    "running-variance-unbiased",
    "batch-variance-biased",
    "momentum-weighs-new",
    "default-mode-train",
    "frozen-trains",
    "unlearned-absent",
    "unlearned-applied",
    "mask-ignored",
    "mask-multiplied",
    "frozen-for-good",
    "mask-count-padded",
    "exponential-average",
    "sums-overflow",
    "empty-batch-averaged",
    "eps-as-floor",
    "momentum-clipped",
    "statistics-not-loaded",
    "statistics-updated-in-backward",
    *("statistics-updated-along-tangent", "mode-of-first-tangent", "tangent-lost"),
    "assignment-ignored",
    "assignment-ignored-once-compiled",
    "count-saturates",
    *("second-mean-detached", "second-statistics-constant"),
    *("eps-in-half", "eps-in-float32", "momentum-in-float32", "output-folded", "dgamma-of-two-sums"),
    *("gradients-of-products", "dx-of-products", "squares-in-float16", "sums-of-squares-overflow"),
    *("dx-by-chain-rule", "dx-by-chain-rule-through-mean", "dx-by-chain-rule-of-squares"),
    *("eps-in-float32-for-output", "eps-of-layer-beside", "gradients-eps-of-layer-beside"),
    *(f"channels-on-axis-{axis}" for axis in (2, 3, 4)),
}

ORACLE = oracle(**SHOWS_ALL)
BY_NAME = {hypothesis.name: hypothesis for hypothesis in CATALOGUE}
FAULTS = [hypothesis for hypothesis in HYPOTHESES if hypothesis.name not in ELSEWHERE]

ALONG = {"mode": "train", "tangent": {}}
MIXED = [{"mode": "train", "second": {"by": by}} for by in get_args(By)]

#: Cases in which, taken together, hypotheses move every kind of tensor.
MOVES_ALL = (
    SHOWS_ALL,
    SHOWS_ALL | {"input": SMALL | {"shape": [4, 4, 4, 4, 4]}, "layer": SHOWS_ALL["layer"] | {"rank": 3}},
    {"layer": {"eps": 2e-2, "initial": INITIAL}, "input": SMALL, "steps": [{"mode": "train", "second": {}}, "eval"]},
    {"layer": {"eps": 2e-2, "initial": INITIAL}, "input": SMALL, "steps": [{"mode": "eval", "second": {}}]},
    {"layer": {"eps": 2e-2, "initial": INITIAL}, "input": SMALL, "steps": [*MIXED, "eval"]},
    {"layer": {"eps": 2e-2, "initial": INITIAL}, "input": SMALL, "steps": ["default", ALONG, ALONG | {"mode": "eval"}]},
)


def test_a_hypothesis_moves_no_tensor_beyond_its_reach_which_is_what_search_tries_it_for() -> None:
    """Seen to fail where choices for gradients alone did not reach second derivatives."""
    idle = {hypothesis.name for hypothesis in HYPOTHESES}
    for each in (oracle(**fields) for fields in MOVES_ALL):
        exact = each.expected(profile(), CANONICAL)
        for hypothesis in HYPOTHESES:
            other = each.expected(profile(), CANONICAL.but(**hypothesis.changes))
            moved = {name for name in exact if not np.array_equal(other[name].value, exact[name].value)}
            assert {name.partition("[")[0] for name in moved} <= hypothesis.reach, hypothesis.name
            idle -= {hypothesis.name} if moved else set()
    assert idle <= ELSEWHERE


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named(fault: Hypothesis) -> None:
    found = verdict(ORACLE, answer(ORACLE, CANONICAL.but(**fault.changes)))
    assert (found.verdict, found.diagnosis) == ("divergent", fault.name)
    assert found.because.startswith(f"{fault.sentence}: all within 0.")


@pytest.mark.parametrize("change", [{"running_variance": "unbiased"}, {"default_mode": "train"}, {"frozen": "mode"}])
def test_what_is_canonical_is_named_where_the_profile_declares_otherwise(change: dict[str, Any]) -> None:
    """A target of three declared conventions that left one of them."""
    declared: dict[str, Any] = {"running_variance": "biased", "default_mode": "eval", "frozen": "eval"}
    target = under(*({field: value} for field, value in declared.items()))
    found = verdict(ORACLE, answer(ORACLE, CANONICAL.but(**declared | change)), target)
    assert (found.verdict, found.diagnosis) == ("divergent", name_change(*next(iter(change.items())))[0])


def test_no_momentum_taken_for_an_exponential_average_is_named() -> None:
    of = oracle(**SHOWS_ALL | {"layer": {"momentum": None, "initial": INITIAL}})
    found = verdict(of, answer(of, CANONICAL.but(averaging="exponential")))
    assert found.diagnosis == "exponential-average"


def test_parameters_that_are_not_learned_and_still_applied_are_named() -> None:
    of = oracle(**SHOWS_ALL | {"layer": {"scale": False, "center": False, "initial": INITIAL}})
    assert verdict(of, answer(of, CANONICAL.but(unlearned="applied"))).diagnosis == "unlearned-applied"


ASSIGNS = {"mode": "train", "assign": {"eps": 0.5, "momentum": 0.5}}
HALF = SMALL | {"dtype": "float16"}
#: NaN where a mask of half the values and seed 2 leaves it out.
LEFT_OUT = SMALL | {"replace": [{"at": [0, 1, 0, 0], "with": "nan"}]}


@pytest.mark.parametrize(
    ("cause", "spec"),
    [
        ("eps-as-floor", {"layer": {"eps": 4.0}}),
        ("eps-in-half", {"layer": {"eps": 0.3}}),
        ("eps-in-float32", {"layer": {"eps": 0.3}, "input": SMALL | {"dtype": "float64"}}),
        ("eps-in-float32", {"layer": {"eps": 1e39}}),
        ("eps-in-float32-for-output", {"layer": {"eps": 1e39}}),
        ("eps-of-layer-beside", {"beside": {"layer": {"eps": 0.2}}}),
        ("gradients-eps-of-layer-beside", {"beside": {"layer": {"eps": 0.2}}}),
        ("mask-ignored", {"steps": [{"mode": "train", "mask": {"keep": 0.6}}, "eval"]}),
        ("mask-multiplied", {"input": LEFT_OUT, "steps": [{"mode": "train", "mask": {"keep": 0.5, "seed": 2}}]}),
        ("frozen-for-good", {"steps": [{"mode": "train", "frozen": True}, "train"]}),
        ("output-folded", {"layer": {"initial": {"gamma": [math.inf, 1.0, 1.0]}}}),
        ("dgamma-of-two-sums", {"input": HALF, "layer": {"dtype": "float32"}, "gradient": {"std": 3e4, "seed": 2}}),
        ("squares-in-float16", {"input": SMALL | {"normal": {"std": 100.0}, "dtype": "float16"}}),
        ("sums-of-squares-overflow", {"input": SMALL | {"normal": {"std": 1e30}}}),
        ("dx-by-chain-rule", {"input": SMALL | {"normal": {"std": 1e15}}}),
        ("dx-by-chain-rule-through-mean", {"input": SMALL | {"normal": {"std": 1e-15}}, "layer": {"eps": 1e-30}}),
        ("dx-by-chain-rule-of-squares", {"input": SMALL | {"normal": {"std": 1e-15}}, "layer": {"eps": 1e-30}}),
        ("momentum-clipped", {"layer": {"momentum": 1.5}}),
        ("momentum-in-float32", {"layer": {"momentum": 0.3}, "input": SMALL | {"dtype": "float64"}}),
        ("count-saturates", {"input": {"shape": [8, 3, 8, 8], "normal": {"mean": 3}}}),
        ("statistics-not-loaded", {"steps": ["train", {"mode": "eval", "save_load": True}]}),
        ("statistics-updated-in-backward", {"recompute": True}),
        ("statistics-updated-along-tangent", {"steps": [ALONG, "eval"]}),
        ("mode-of-first-tangent", {"steps": ["train", ALONG | {"mode": "eval"}, ALONG, "eval"]}),
        ("tangent-lost", {"steps": [ALONG]}),
        *(
            (cause, {"steps": [step, "eval"]})
            for cause in ("statistics-updated-along-tangent", "tangent-lost")
            for step in MIXED[1:]
        ),
        *(("second-mean-detached", {"steps": [step]}) for step in MIXED),
        *(("second-statistics-constant", {"steps": [step]}) for step in MIXED[2:]),
        ("assignment-ignored", {"steps": [ASSIGNS, "eval"]}),
        ("assignment-ignored-once-compiled", {"steps": ["train", ASSIGNS, "eval"]}),
        ("channels-on-axis-2", {"input": {"shape": [4, 3, 3, 2], "normal": {"mean": 3}}}),
        ("channels-on-axis-3", {"input": {"shape": [4, 3, 2, 3], "normal": {"mean": 3}}}),
        ("channels-on-axis-4", {"input": {"shape": [4, 3, 2, 2, 3], "normal": {"mean": 3}}}),
    ],
)
def test_a_fault_that_shows_in_some_layers_alone_is_named_there(cause: str, spec: dict[str, Any]) -> None:
    of = oracle(**spec)
    found = verdict(of, answer(of, CANONICAL.but(**BY_NAME[cause].changes)))
    assert (found.verdict, found.diagnosis) == ("divergent", cause)


@pytest.mark.parametrize(
    "beside", [("output-folded",), ("dgamma-of-two-sums",), ("output-folded", "dgamma-of-two-sums")]
)
def test_an_eps_that_became_zero_is_named_beside_the_infinities_that_it_brought_together(beside: Any) -> None:
    """y = x·∞ − ∞ is NaN, where x/√0 is infinite, and Σg·x̂ is, where ∞·Σg·x is not; no cause alone makes it so."""
    double = SMALL | {"dtype": "float64"}
    of = oracle(steps=["eval"], input=double, layer={"eps": 1e-50, "initial": {"running_var": 0.0}})
    causes = ("eps-in-float32", *beside)
    changes = {field: value for cause in causes for field, value in BY_NAME[cause].changes.items()}
    found = verdict(of, answer(of, CANONICAL.but(**changes)))
    assert (found.verdict, found.diagnosis) == ("divergent", "+".join(causes))


@pytest.mark.parametrize("cause", ["gradients-of-products", "dx-of-products"])
def test_products_that_overflow_beside_sums_are_named(cause: str) -> None:
    of = oracle(input=SMALL | {"normal": {"std": 3e37}}, gradient={"std": 100.0, "seed": 2}, steps=["train"])
    found = verdict(of, answer(of, CANONICAL.but(sums="overflow", **BY_NAME[cause].changes)))
    assert (found.verdict, found.diagnosis) == ("divergent", f"sums-overflow+{cause}")


@pytest.mark.parametrize(
    ("cause", "tensor", "spec", "verdict_"),
    [
        ("statistics-rounded", "running_mean", {"input": HALF}, "divergent"),
        ("terms-rounded", "dbeta", {"input": HALF, "layer": {"dtype": "float32"}}, "divergent"),
        ("elements-rounded", "y", {"input": HALF, "layer": {"dtype": "float32"}}, "divergent"),
        ("statistics-rounded-for-gradients", "dgamma", {"input": HALF, "layer": {"dtype": "float32"}}, "divergent"),
        ("sums-in-eight-lanes", "dx", {"input": {"shape": [16, 3, 16, 16], "normal": {"mean": 3}}}, "inaccurate"),
        ("sums-sequential", "dx", {"input": {"shape": [16, 3, 16, 16], "normal": {"mean": 3}}}, "inaccurate"),
        ("variance-one-pass", "running_var", {"input": SMALL | {"normal": {"mean": 300}}}, "inaccurate"),
        ("subnormals-flushed", "running_mean", {"input": SMALL | {"normal": {"std": 1e-38}}, "layer": {}}, "divergent"),
    ],
)
def test_what_widens_a_bound_is_named_between_the_two_bounds(
    cause: str, tensor: str, spec: dict[str, Any], verdict_: str
) -> None:
    of = oracle(steps=["train"], **spec)
    strict = of.expected(under().profile, CANONICAL)[f"{tensor}[0]"]
    wider = of.expected(under().profile, CANONICAL.but(**BY_NAME[cause].changes))[f"{tensor}[0]"]
    off = of.arithmetic.lower(strict.value) + (strict.bound + wider.bound) / 2
    found = verdict(of, answer(of, **{f"{tensor}_0": off.astype(strict.dtype)}))
    assert (found.verdict, found.diagnosis) == (verdict_, cause)


@pytest.mark.parametrize(
    ("cause", "spec"),
    [
        ("computed-in-float32", {"input": SMALL | {"dtype": "float64"}}),
        ("sums-overflow", {"input": {"shape": [4, 3, 2, 2], "constant": 1e38}}),
        ("empty-batch-averaged", {"input": {"shape": [0, 3, 2, 2], "normal": {}}}),
    ],
)
def test_what_shows_in_some_inputs_alone_is_named_there(cause: str, spec: dict[str, Any]) -> None:
    of = oracle(steps=["train"], **spec)
    found = verdict(of, answer(of, CANONICAL.but(**BY_NAME[cause].changes)))
    assert (found.verdict, found.diagnosis) == ("divergent", cause)


def test_a_variance_lost_to_cancellation_is_named_by_what_is_left_of_it() -> None:
    """E[x²] − μ² in float32 where the mean is ten thousand times the deviation: no digit of it is right."""
    of = oracle(input={"shape": [8, 3, 8, 8], "normal": {"mean": 1e4}}, steps=["train"])
    x = np.moveaxis(of.problem.calls[0].x, 1, 0).reshape(3, -1)
    _, var = one_pass(x, pairwise)
    found = verdict(of, answer(of, CANONICAL.but(variances=(tuple(map(float, var)),))))
    assert (found.verdict, found.diagnosis) == ("divergent", "variance-cancelled")


def float16_mean(x: Any) -> Any:
    return x.astype(np.float16).mean(1, dtype=np.float16).astype(np.float64)


def a_little_off(x: Any) -> Any:
    return x.mean(1) * (1 + 1 / 40)


@pytest.mark.parametrize(
    ("statistic", "cause"), [(float16_mean, "statistics-in-half"), (a_little_off, "unexplained")], ids=["half", "off"]
)
def test_a_mean_in_half_is_a_number_of_half_precision(statistic: Any, cause: str) -> None:
    """Any error of its size would do otherwise."""
    of = oracle(input={"shape": [4, 3, 5, 5], "normal": {"mean": 3, "std": 2}}, steps=["train"])
    x = np.moveaxis(of.problem.calls[0].x, 1, 0).reshape(3, -1).astype(np.float64)
    found = verdict(of, answer(of, CANONICAL.but(means=(tuple(statistic(x)),))))
    assert (found.verdict, found.diagnosis) == ("divergent", cause)


@pytest.mark.parametrize(("mean", "eps"), [(0, 1.2e-5), (0, 1.5e-5), (3, 2e-5), (30, 1e-3)])
def test_no_statistic_is_lost_where_the_running_ones_are_right(mean: float, eps: float) -> None:
    """dx alone is off, by less than what following a recovered variance admits."""
    layer = {"initial": {"running_var": 100.0 if mean == 30 else 1.0}}
    of = oracle(input={"shape": [8, 5], "normal": {"mean": mean}}, layer=layer, steps=["train"])
    dx = of.expected(under().profile, CANONICAL.but(eps=eps))["dx[0]"].value
    found = verdict(of, answer(of, dx_0=dx.astype(np.float32)))
    assert (found.verdict, found.diagnosis) == ("divergent", "unexplained")


PAIRS = [
    ("running-variance-biased", "momentum-weighs-old"),
    ("eps-outside-root", "gradient-detached"),
    ("batch-variance-unbiased", "running-variance-biased"),
    ("momentum-0.1", "frozen-infers"),
    ("mean-not-updated", "gamma-ignored"),
]


@pytest.mark.parametrize("names", PAIRS, ids="+".join)
def test_two_faults_are_named_together(names: tuple[str, str]) -> None:
    changes: dict[str, Any] = {}
    for name in names:
        changes |= BY_NAME[name].changes
    found = verdict(ORACLE, answer(ORACLE, CANONICAL.but(**changes)))
    assert found.verdict == "divergent"
    assert found.diagnosis is not None
    assert set(found.diagnosis.split("+")) == set(names)
    assert ", and " in found.because


def test_three_faults_are_unexplained() -> None:
    found = verdict(ORACLE, answer(ORACLE, CANONICAL.but(gamma="ignored", running_variance="biased", updates=2)))
    assert found.diagnosis == "unexplained"


@pytest.mark.parametrize("seed", range(2))
def test_noise_is_unexplained(seed: int) -> None:
    random = np.random.RandomState(seed)
    y = random.standard_normal((3, 3, 2, 2)).astype(np.float32)
    found = verdict(ORACLE, answer(ORACLE, y_1=y))
    assert (found.verdict, found.diagnosis) == ("divergent", "unexplained")


def test_pairs_are_not_tried_on_large_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    two = answer(ORACLE, CANONICAL.but(gamma="ignored", running_variance="biased"))
    assert verdict(ORACLE, two).diagnosis == "running-variance-biased+gamma-ignored"
    monkeypatch.setattr(judging, "PAIR_ELEMENTS", 35)
    assert verdict(ORACLE, two).diagnosis == "unexplained"
    monkeypatch.setattr(judging, "PAIR_ELEMENTS", 36)
    assert verdict(ORACLE, two).diagnosis is not None


# The search

GOOD, BAD = TensorResult(0.5), TensorResult(7.0, worst_index=(1,))


def checking(**wanted: Any) -> Any:
    """A check that is content where conventions have these values: gamma moves y, updates running_mean."""
    tensors = {"gamma": "y[0]", "updates": "running_mean[0]"}

    def check(conventions: Conventions, _: Any) -> Mapping[str, TensorResult]:
        return {
            tensors[field]: GOOD if getattr(conventions, field) == value else BAD for field, value in wanted.items()
        }

    return check


def test_the_search_says_what_holds_and_by_how_much() -> None:
    found = Search(CANONICAL, checking(gamma="ignored")).one()
    assert found == Diagnosis("gamma-ignored", "γ is not applied", 0.5, "y[0] is 7 bounds off at [1]")
    assert str(found) == "γ is not applied: all within 0.5 of the bound (otherwise y[0] is 7 bounds off at [1])"


@pytest.mark.parametrize(
    "result",
    [
        TensorResult(7.0, 1.0, 1.0, (1, 2)),
        TensorResult(float("inf"), 1.0, 1.0, ()),
        TensorResult(None, worst_index=(0,), problem="is nan at [0], not 1.5"),
        TensorResult(None, problem="has shape [3], not [4, 3]"),
    ],
)
def test_the_evidence_of_a_diagnosis_can_be_told_from_its_sentence(result: TensorResult) -> None:
    sentence = "numbers (all of them) are as coarse as float16's"
    found = Diagnosis("coarse", sentence, 1e-9, words({"y[0]": result}))
    assert EVIDENCE.sub("", f"{found}; because of a reason (10 of 10 runs)") == (
        f"{sentence}; because of a reason (10 of 10 runs)"
    )


@pytest.mark.parametrize(("off", "named"), [(3.0, True), (4.0, False)])
def test_what_is_no_nearer_by_the_bounds_before_explains_nothing(off: float, named: bool) -> None:
    """A reading that makes a bound huge admits whatever was returned. Without it y is 7 bounds off."""

    def nearer(conventions: Conventions, base: Conventions, names: Any) -> float:
        assert (base, set(names)) == (CANONICAL, {"y[0]"})
        return off if conventions.gamma == "ignored" else 7.0

    search = Search(CANONICAL, checking(gamma="ignored"), nearer)
    assert (search.one() is not None) is named
    assert search.tried == (Tried("gamma-ignored", 0.5 if named else 4.0),)


def test_bounds_are_taken_of_what_brings_values_nearer_alone() -> None:
    """Bounds take longer than values do."""
    supposed = []

    def check(conventions: Conventions, _: Any) -> Mapping[str, TensorResult]:
        supposed.append(conventions)
        return {"y[0]": GOOD if conventions.gamma == "ignored" else BAD}

    found = Search(CANONICAL, check, lambda supposed, *_: 1.0 if supposed.gamma == "ignored" else 7.0).one()
    assert found is not None
    assert supposed == [CANONICAL, CANONICAL.but(gamma="ignored")]


def test_two_are_supposed_at_once() -> None:
    search = Search(CANONICAL, checking(gamma="ignored", updates=2))
    assert search.one() is None
    found = search.two(CATALOGUE)
    assert found is not None
    assert found.name == "statistics-updated-twice+gamma-ignored"
    assert found.sentence == "the running statistics are updated twice per step, and γ is not applied"


def test_two_that_bring_nothing_nearer_explain_nothing() -> None:
    assert Search(CANONICAL, checking(gamma="ignored", updates=2), lambda *_: 7.0).two(CATALOGUE) is None


def test_nothing_is_named_where_nothing_helps() -> None:
    search = Search(CANONICAL, lambda *_: {"y[0]": BAD})
    assert search.one() is None
    assert search.two(CATALOGUE) is None
    assert search.tried == ()


def test_what_cannot_move_a_wrong_tensor_is_not_tried() -> None:
    seen = []

    def check(conventions: Conventions, _: Any) -> Mapping[str, TensorResult]:
        seen.append(conventions)
        return {"y[0]": GOOD, "dbeta[0]": BAD}

    Search(CANONICAL, check).one()
    assert CANONICAL.but(parameter_gradients="averaged") in seen
    assert CANONICAL.but(gamma="ignored") not in seen


def test_the_search_tells_what_came_closest() -> None:
    def check(conventions: Conventions, _: Any) -> Mapping[str, TensorResult]:
        off = {"ignored": 3.0, "swapped": 2.0}.get(conventions.gamma, 9.0)
        return {"y[0]": TensorResult(off)}

    search = Search(CANONICAL, check)
    assert search.one() is None
    assert search.tried == (Tried("gamma-beta-swapped", 2.0), Tried("gamma-ignored", 3.0))


def test_two_that_only_widen_bounds_explain_nothing() -> None:
    def check(conventions: Conventions, _: Any) -> Mapping[str, TensorResult]:
        both = conventions.summation == "sequential" and conventions.variance == "one-pass"
        return {"y[0]": GOOD if both else TensorResult(2.0 if conventions == CANONICAL else 1.5)}

    assert Search(CANONICAL, check).two(CATALOGUE) is None


def test_what_is_blank_is_explained_by_no_two_that_happen_to_come_to_nan_together() -> None:
    blank = TensorResult(None, problem="is nan at [0], not 1")
    infinite = TensorResult(None, problem="is nan at [0], not inf", infinite=True)

    def unrelated(conventions: Conventions, _: Any) -> Mapping[str, TensorResult]:
        supposed = (conventions.gamma == "ignored") + (conventions.running_variance == "biased")
        return {"y[0]": (blank, TensorResult(7.0), GOOD)[supposed]}

    def of_infinite(conventions: Conventions, _: Any) -> Mapping[str, TensorResult]:
        if conventions.eps_held != "float32":
            return {"y[0]": blank}
        return {"y[0]": GOOD if conventions.output == "folded" else infinite}

    for check, wanted in ((unrelated, None), (of_infinite, "eps-in-float32+output-folded")):
        found = Search(CANONICAL, check).two(CATALOGUE, blank=True)
        assert (found and found.name) == wanted
        assert Search(CANONICAL, check).two(CATALOGUE) is not None


def test_a_blank_output_is_unexplained_where_two_unrelated_causes_would_blank_it() -> None:
    """In evaluation a constant batch has no variance, and no ε is added: neither alone makes y 0/0."""
    of = oracle(input={"shape": [4, 3, 2, 2], "constant": 2.0}, steps=["eval"], gradient=None)
    blank = answer(of, CANONICAL.but(eval_statistics="batch", eps_added_to="nothing"))
    found = verdict(of, blank)
    assert (found.verdict, found.diagnosis) == ("divergent", "unexplained")


def test_the_likelier_of_two_that_explain_is_named() -> None:
    def check(conventions: Conventions, _: Any) -> Mapping[str, TensorResult]:
        return {"y[0]": GOOD if conventions.eps_added_to == "deviation" or conventions.eps == 1e-3 else BAD}

    found = Search(CANONICAL, check).one()
    assert found is not None
    assert found.name == "eps-1e-3"


def test_worst_is_infinite_where_something_else_is_wrong() -> None:
    assert worst({"y": GOOD, "dx": BAD}) == 7.0
    assert worst({"y": GOOD, "dx": TensorResult(None, problem="is missing")}) == float("inf")
    assert worst({}) == 0.0


# The catalogue


def test_names_and_changes_are_unique_and_each_changes_something_that_exists() -> None:
    assert len({h.name for h in CATALOGUE}) == len(CATALOGUE)
    changing = [h for h in CATALOGUE if h.changes]
    assert len({tuple(h.changes.items()) for h in changing}) == len(changing)
    for hypothesis in CATALOGUE:
        CANONICAL.but(**hypothesis.changes)


def test_what_a_profile_may_declare_has_a_name_and_a_sentence() -> None:
    alternatives: list[dict[str, Any]] = [
        {"running_variance": "biased"},
        {"default_mode": "eval"},
        {"mode_lasts": False},
        {"frozen": "eval"},
        {"statistics": "rounded"},
    ]
    for change in alternatives:
        case = ORACLE.problem.case
        declared = profile(change).declared(case, {})
        assert declared == change
        name, sentence = name_change(*next(iter(declared.items())))
        assert BY_NAME[name].sentence == sentence
    assert name_change("default_eps", 1e-3) == ("default-eps-0.001", "default eps is 0.001")
    assert name_change("default_momentum", 0.01) == ("default-momentum-0.01", "default momentum is 0.01")


def test_no_two_faults_look_alike_in_the_case_that_shows_all() -> None:
    """Else the catalogue could not tell them apart, whatever the case."""
    seen = {}
    for fault in FAULTS:
        tensors = answer(ORACLE, CANONICAL.but(**fault.changes)).tensors
        seen[fault.name] = b"".join(tensors[name].data for name in sorted(tensors))
    for (a, x), (b, y) in itertools.combinations(seen.items(), 2):
        assert x != y, (a, b)


# What is not in the catalogue


@pytest.mark.parametrize("tensor", ["y_1", "dx_0", "dgamma_1", "dbeta_0", "running_mean_1", "running_var_0"])
@pytest.mark.parametrize("size", [3, 1e4])
def test_noise_of_any_size_is_named_nothing(tensor: str, size: float) -> None:
    """One tensor is off by chance, by so many bounds: whatever the verdict, no cause is guessed."""
    random = np.random.RandomState(int(size))
    name, _, step = tensor.rpartition("_")
    expected = ORACLE.expected(under().profile, CANONICAL)[f"{name}[{step}]"]
    noise = size * expected.bound * random.standard_normal(expected.value.shape)
    off: dict[str, Any] = {tensor: (expected.value + noise).astype(np.float32)}
    found = verdict(ORACLE, answer(ORACLE, **off))
    assert (found.verdict, found.diagnosis) == ("divergent", "unexplained")
    assert found.tried


def test_every_tensor_a_little_off_is_named_nothing() -> None:
    random = np.random.RandomState(3)
    expected = ORACLE.expected(under().profile, CANONICAL)
    off: dict[str, Any] = {
        name.replace("[", "_").rstrip("]"): (
            tensor.value * (1 + 1e-3 * random.standard_normal(tensor.value.shape))
        ).astype(np.float32)
        for name, tensor in expected.items()
        if tensor.dtype == "float32" and not name.startswith(("gamma", "beta"))
    }
    assert verdict(ORACLE, answer(ORACLE, CANONICAL, None, **off)).diagnosis == "unexplained"
