"""The corpus catches every BatchNorm that is wrong on purpose, in a case made for it, and names what is wrong.

`faulty/adapter.py` says what each fault is. A case here is one of the real corpus, run in a worker of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from builders import module

from conformance import data
from conformance import judge as judging
from conformance.case import Case
from conformance.judge import Verdict
from conformance.load import load_file
from conformance.pool import Pool
from conformance.profile import open_adapter
from conformance.session import judged
from conformance.target import parse

FAULTY = Path(__file__).parent / "faulty"


@dataclass(frozen=True)
class Caught:
    """Where a fault is caught, and what it is called there: the diagnosis, or the type of the exception.

    Attributes:
        case: an id, without its brackets for the first expansion.
    """

    case: str
    name: str
    verdict: str = "divergent"


UPDATES = "momentum/values[momentum=0.5]"
ONE_STEP = "gradients/rank1[shape=7x3,steps=train]"
ONE_EVALUATION = "gradients/rank1[shape=7x3,steps=eval]"

CAUGHT = {
    "running_variance_biased": Caught("shapes/two-values", "running-variance-biased"),
    "running_variance_corrected_twice": Caught(ONE_STEP, "unexplained"),
    "batch_variance_unbiased": Caught("shapes/two-values", "batch-variance-unbiased"),
    "momentum_reversed": Caught("momentum/values[momentum=0.9]", "momentum-weighs-old"),
    "momentum_ignored": Caught(UPDATES, "momentum-0.1"),
    "momentum_none_is_the_default": Caught("momentum/cumulative-average", "exponential-average"),
    "momentum_clipped": Caught("momentum/outside[momentum=1.5]", "unexplained"),
    "always_cumulative": Caught("momentum/values[momentum=0.9]", "cumulative-average"),
    "eps_outside_root": Caught("eps/values[eps=0.1]", "eps-outside-root"),
    "eps_added_twice": Caught("eps/values[eps=0.1]", "unexplained"),
    "eps_of_another_framework": Caught("eps/values[eps=0.1]", "eps-1e-3"),
    "eps_ignored": Caught("eps/values[eps=0.1]", "eps-ignored"),
    "eps_as_floor": Caught("eps/values[eps=0.1]", "unexplained"),
    "eps_stored": Caught("eps/values[eps=0.1]", "unexplained"),
    "root_forgotten": Caught(ONE_STEP, "unexplained"),
    "infers_by_default": Caught("modes/default[steps=default+default]", "default-mode-eval"),
    "forgets_the_mode": Caught("modes/default[steps=eval+default]", "mode-per-call"),
    "never_updates": Caught(UPDATES, "statistics-not-updated"),
    "updates_in_evaluation": Caught("modes/sequences[steps=train+eval+train+eval]", "statistics-updated-in-eval"),
    "updates_twice": Caught(UPDATES, "statistics-updated-twice"),
    "updates_before_normalising": Caught(UPDATES, "updated-before-normalising"),
    "trains_by_running_statistics": Caught(UPDATES, "running-statistics-in-train"),
    "evaluates_by_the_batch": Caught(UPDATES, "batch-statistics-in-eval"),
    "starts_anew_each_step": Caught(ONE_STEP, "unexplained"),
    "mean_not_updated": Caught(UPDATES, "mean-not-updated"),
    "variance_not_updated": Caught(UPDATES, "variance-not-updated"),
    "counts_to_one": Caught("modes/sequences[steps=train+eval+train+eval]", "unexplained"),
    "stores_the_deviation": Caught(ONE_STEP, "unexplained"),
    "loses_its_state_on_loading": Caught("modes/save-and-load", "unexplained"),
    "trains_its_parameters": Caught(ONE_STEP, "unexplained"),
    "one_mean_for_all_channels": Caught(ONE_STEP, "unexplained"),
    "counts_samples": Caught("gradients/rank1[shape=4x3x6,steps=train]", "unexplained"),
    "rank_2_alone": Caught(ONE_STEP, "AxisError", "refused"),
    "gamma_ignored": Caught("affine/values", "gamma-ignored"),
    "beta_ignored": Caught("affine/values", "beta-ignored"),
    "gamma_and_beta_swapped": Caught("affine/values", "gamma-beta-swapped"),
    "gamma_backwards": Caught(ONE_EVALUATION, "unexplained"),
    "gamma_of_the_first_channel": Caught(ONE_EVALUATION, "unexplained"),
    "one_pass_variance": Caught("numerics/mean-over-deviation[mean=100]", "variance-one-pass", "inaccurate"),
    "mean_in_half_precision": Caught(ONE_STEP, "unexplained"),
    "variance_in_half_precision": Caught(ONE_STEP, "unexplained"),
    "output_through_half_precision": Caught(ONE_EVALUATION, "unexplained"),
    "coarse_root": Caught(ONE_EVALUATION, "unexplained"),
    "variance_floor": Caught("numerics/constant[constant=0.0]", "unexplained"),
    "count_saturates": Caught("numerics/mean-over-deviation[mean=0]", "unexplained"),
    "momentum_in_half_precision": Caught(ONE_STEP, "unexplained"),
    "statistics_detached": Caught(ONE_STEP, "gradient-detached"),
    "mean_detached": Caught(ONE_STEP, "gradient-mean-detached"),
    "variance_detached": Caught(ONE_STEP, "gradient-variance-detached"),
    "one_over_n_missing": Caught(ONE_STEP, "unexplained"),
    "dx_without_gamma": Caught(ONE_EVALUATION, "unexplained"),
    "dgamma_unnormalised": Caught(ONE_EVALUATION, "unexplained"),
    "gradients_averaged": Caught(ONE_EVALUATION, "unexplained"),
    "gradients_swapped": Caught(ONE_EVALUATION, "unexplained"),
    "gradients_pile_up": Caught("gradients/after-steps", "unexplained"),
    "evaluation_through_the_batch": Caught(ONE_EVALUATION, "unexplained"),
    "learns_while_frozen": Caught("modes/frozen", "returned"),
    "nan_swallowed": Caught("numerics/not-a-number-eval", "unexplained"),
    "output_clipped": Caught("affine/values", "unexplained"),
    "output_in_float64": Caught(ONE_EVALUATION, "dtype"),
    "output_flat": Caught("gradients/rank1[shape=4x3x6,steps=eval]", "shape"),
    "counter_in_float64": Caught(ONE_EVALUATION, "dtype"),
    "writes_to_its_input": Caught("modes/input-unchanged", "unexplained"),
    "keeps_the_first_eps": Caught("execution/beside-another-tiny-eps", "unexplained"),
    "differs_from_run_to_run": Caught("modes/repeated", "unexplained"),
    "refuses_two_values": Caught("shapes/two-values", "ValueError", "refused"),
    "takes_one_value": Caught("shapes/one-value", "running-variance-biased"),
    "takes_wrong_channels": Caught("shapes/wrong-channels[shape=4x3x5x5,steps=train]", "accepted"),
    "takes_wrong_dimensions": Caught("shapes/wrong-dimensions", "accepted"),
    "raises_another_type": Caught("shapes/wrong-channels[shape=4x3x5x5,steps=train]", "RuntimeError", "refused"),
}


@pytest.fixture(scope="module")
def corpus() -> dict[str, Case]:
    """The cases that speak to any framework, by their ids with and without brackets."""
    files = sorted(data.folder("cases").glob("*.yaml"))
    cases = [case for file in files for case in load_file(file) if case.kind == "layer"]
    return {case.id.partition("[")[0]: case for case in reversed(cases)} | {case.id: case for case in cases}


def verdicts(fault: str, cases: Iterable[Case]) -> dict[str, Verdict]:
    """The verdicts on a layer with a fault, by the ids of the cases."""
    target = parse(f"{FAULTY},fault={fault}")
    with Pool([target]) as pool:
        found = list(judged(list(cases), pool))
        return {settled.problem.case.id: settled.sides[target.name].verdict for settled in found}


@pytest.fixture(autouse=True)
def _pairs_of_faults_in_small_tensors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for two faults at once takes a second; in `ONE_STEP` and its like it is done all the same."""
    monkeypatch.setattr(judging, "PAIR_ELEMENTS", 100)


@pytest.mark.parametrize("fault", CAUGHT)
def test_a_fault_is_caught_and_named(fault: str, corpus: dict[str, Case]) -> None:
    caught = CAUGHT[fault]
    (found,) = verdicts(fault, [corpus[caught.case]]).values()
    name = found.error.type if found.error else found.diagnosis
    assert (found.verdict, name, found.status) == (caught.verdict, caught.name, "unexpected")


def test_without_a_fault_every_verdict_is_expected(corpus: dict[str, Case]) -> None:
    cases = {corpus[caught.case].id: corpus[caught.case] for caught in CAUGHT.values()}
    found = verdicts("none", cases.values())
    assert {case: verdict.status for case, verdict in found.items()} == dict.fromkeys(cases, "expected")


@pytest.fixture(scope="module")
def faulty() -> ModuleType:
    return module(FAULTY / "adapter.py")


def test_every_fault_is_caught_above(faulty: ModuleType) -> None:
    assert CAUGHT.keys() == faulty.FAULTS.keys()
    assert open_adapter(FAULTY).profile.options["fault"] == ["none", *faulty.FAULTS]


def test_every_fault_says_what_it_is(faulty: ModuleType) -> None:
    words = [fault.what for fault in faulty.FAULTS.values()]
    assert len(set(words)) == len(words)
    assert all(what[0].isupper() and what.endswith(".") for what in words)


def test_a_fault_of_a_line_that_is_gone_says_so(faulty: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(faulty.FAULTS, "lost", faulty.Fault("Is lost.", (("no such line", ""),)))
    with pytest.raises(ValueError, match=r"'no such line' stands 0 times in adapter\.py"):
        faulty.mutated("lost")


def test_the_faulty_layer_declares_what_the_good_one_does() -> None:
    good, bad = (open_adapter(path).profile for path in (data.folder("adapters") / "numpy", FAULTY))
    assert bad.conventions == good.conventions
    assert bad.parameters == good.parameters
    assert bad.framework == good.framework
