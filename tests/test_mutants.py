"""The corpus catches every BatchNorm that is wrong on purpose, in a case made for it, and names what is wrong.

`faulty/adapter.py` says what each fault is and what it should be called. The whole corpus runs in `mutants.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import mutants
import numpy as np
import pytest
from builders import module, oracle
from mutants import FAULTY, Tally, bench, corpus, names_of, same

from conformance import data, harness
from conformance.case import Case
from conformance.comparison import Comparison
from conformance.judge import Verdict, judge
from conformance.observation import unpack
from conformance.oracle import Oracle
from conformance.pool import Pool, request
from conformance.problem import materialise
from conformance.profile import open_adapter
from conformance.session import judged
from conformance.target import parse

UPDATES = "momentum/values[momentum=0.5]"
ONE_STEP = "gradients/rank1[shape=7x3,steps=train]"
ONE_EVALUATION = "gradients/rank1[shape=7x3,steps=eval]"

#: Fault → the case that it is shown in; an id without its brackets is the first expansion.
CAUGHT = {
    "running_variance_biased": "shapes/two-values",
    "running_variance_corrected_twice": ONE_STEP,
    "batch_variance_unbiased": "shapes/two-values",
    "momentum_reversed": "momentum/values[momentum=0.9]",
    "momentum_ignored": UPDATES,
    "momentum_none_is_the_default": "momentum/cumulative-average",
    "momentum_clipped": "momentum/outside[momentum=1.5]",
    "always_cumulative": "momentum/values[momentum=0.9]",
    "eps_outside_root": "eps/values[eps=0.1]",
    "eps_added_twice": "eps/values[eps=0.1]",
    "eps_of_another_framework": "eps/values[eps=0.1]",
    "eps_ignored": "eps/values[eps=0.1]",
    "eps_as_floor": "eps/values[eps=0.1]",
    "eps_stored": "eps/values[eps=0.1]",
    "root_forgotten": ONE_STEP,
    "infers_by_default": "modes/default[steps=default+default]",
    "assignment_ignored": "assigned/both",
    "assignment_ignored_once_called": "assigned/schedule",
    "keeps_the_mode_of_its_first_tangent": "tangents/told-to-evaluate",
    "forgets_the_mode": "modes/default[steps=eval+default]",
    "never_updates": UPDATES,
    "updates_in_evaluation": "modes/sequences[steps=train+eval+train+eval]",
    "updates_twice": UPDATES,
    "updates_thrice": UPDATES,
    "updates_as_it_recomputes": "recompute/shapes[shape=7x3]",
    "recomputes_in_evaluation": "recompute/shapes[shape=7x3]",
    "updates_along_a_tangent": "tangents/shapes[shape=7x3]",
    "updates_again_in_forward_mode": "forward_over_reverse/shapes[shape=7x3]",
    "updates_before_normalising": UPDATES,
    "trains_by_running_statistics": UPDATES,
    "evaluates_by_the_batch": UPDATES,
    "starts_anew_each_step": ONE_STEP,
    "mean_not_updated": UPDATES,
    "variance_not_updated": UPDATES,
    "counts_to_one": "modes/sequences[steps=train+eval+train+eval]",
    "stores_the_deviation": ONE_STEP,
    "loses_its_state_on_loading": "modes/save-and-load",
    "trains_its_parameters": ONE_STEP,
    "one_mean_for_all_channels": ONE_STEP,
    "counts_samples": "gradients/rank1[shape=4x3x6,steps=train]",
    "channels_on_the_last_axis": "affine/square[shape=3x3x3x3,layout=channels_first]",
    "rank_2_alone": ONE_STEP,
    "gamma_ignored": "affine/values",
    "beta_ignored": "affine/values",
    "gamma_and_beta_swapped": "affine/values",
    "gamma_backwards": ONE_EVALUATION,
    "gamma_of_the_first_channel": ONE_EVALUATION,
    "one_pass_variance": "numerics/mean-over-deviation[mean=100]",
    "mask_ignored": "keras/masked-canonical",
    "mask_multiplied": "keras/masked-not-a-number-canonical[steps=item1]",
    "mask_count_padded": "keras/masked-double",
    "masked_output_blank": "keras/masked-canonical",
    "mask_forgotten_in_dx": "keras/masked-canonical",
    "mean_in_half_precision": ONE_STEP,
    "variance_in_half_precision": ONE_STEP,
    "output_through_half_precision": ONE_EVALUATION,
    "coarse_root": ONE_EVALUATION,
    "variance_floor": "numerics/constant[constant=0.0]",
    "count_saturates": "numerics/mean-over-deviation[mean=0]",
    "output_folded": "affine/infinite-gamma",
    "momentum_in_half_precision": ONE_STEP,
    "momentum_in_single_precision": "momentum/double-precision[momentum=0.1]",
    "eps_in_half_precision": "eps/values[eps=0.1]",
    "eps_in_single_precision": "eps/double-precision[eps=0.001]",
    "eps_in_single_precision_for_output": "eps/double-precision[eps=0.001]",
    "saves_the_deviation_in_half_precision": ONE_STEP,
    "saves_the_variance_in_half_precision": ONE_STEP,
    "deviation_in_its_dtype": "dtypes/half[dtype=float16]",
    "normalised_in_the_inputs_dtype": "dtypes/mixed[dtype=float16]",
    "gradient_sums_in_the_inputs_dtype": "dtypes/mixed[dtype=float16]",
    "statistics_stored_in_the_inputs_dtype": "dtypes/mixed[dtype=float16]",
    "double_in_single_precision": "dtypes/full[dtype=float64]",
    "second_by_a_constant_mean": "second/rank2",
    "second_without_the_statistics": "second/rank2",
    "second_by_dy_not_centred": "second/rank2",
    "second_by_gamma_without_inv": "second/rank2",
    "second_by_constant_statistics": "reverse_over_forward/shapes[shape=7x3]",
    "second_lost_in_forward_mode": "forward_over_reverse/shapes[shape=7x3]",
    "second_along_dy": "forward_over_forward/shapes[shape=7x3]",
    "tangent_lost": "tangents/shapes[shape=7x3]",
    "tangent_not_centred": "tangents/shapes[shape=7x3]",
    "tangent_through_a_constant_deviation": "tangents/shapes[shape=7x3]",
    "tangent_of_evaluation_through_the_batch": "tangents/evaluation[shape=7x3]",
    "tangent_of_the_first_call": "tangents/told-to-evaluate",
    "statistics_detached": ONE_STEP,
    "mean_detached": ONE_STEP,
    "variance_detached": ONE_STEP,
    "one_over_n_missing": ONE_STEP,
    "dx_without_gamma": ONE_EVALUATION,
    "dgamma_unnormalised": ONE_EVALUATION,
    "dgamma_of_two_sums": "gradients/overflowed-cotangents",
    "gradients_averaged": ONE_EVALUATION,
    "gradients_swapped": ONE_EVALUATION,
    "gradients_pile_up": "gradients/after-steps",
    "evaluation_through_the_batch": ONE_EVALUATION,
    "learns_while_frozen": "modes/frozen",
    "frozen_for_good": "gradients/frozen-and-thawed",
    "nan_swallowed": "numerics/not-a-number-eval",
    "output_clipped": "affine/values",
    "output_in_float64": ONE_EVALUATION,
    "output_flat": "gradients/rank1[shape=4x3x6,steps=eval]",
    "counter_in_float64": ONE_EVALUATION,
    "writes_to_its_input": "modes/input-unchanged",
    "differs_from_run_to_run": "modes/repeated",
    "refuses_two_values": "shapes/two-values",
    "takes_one_value": "shapes/one-value",
    "takes_wrong_channels": "shapes/wrong-channels[shape=4x3x5x5,steps=train]",
    "takes_wrong_dimensions": "shapes/wrong-dimensions",
    "takes_wrong_dtypes": "dtypes/other-half",
    "raises_another_type": "shapes/wrong-channels[shape=4x3x5x5,steps=train]",
    "refuses_for_another_reason": "shapes/wrong-channels[shape=4x3x5x5,steps=train]",
    "statistics_of_all_channels": ONE_STEP,
    "gamma_forward_alone": ONE_EVALUATION,
    "affine_before_normalising": ONE_STEP,
    "statistics_per_sample": "gradients/rank1[shape=4x3x6,steps=train]",
    "spatial_axes_swapped": "momentum/values[momentum=0.5]",
    "subnormals_flushed": "execution/subnormal-numbers",
    "products_of_tf32": ONE_STEP,
    "one_over_n_missing_of_products": ONE_STEP,
    "nan_skipped": "numerics/not-a-number",
    "keeps_the_first_eps": "execution/beside-another-tiny-eps",
    "keeps_the_first_eps_for_gradients": "execution/beside-another-tiny-eps-and-size",
    "cumulative_up_to_eight": "momentum/cumulative-goes-on",
    "loads_in_the_order_of_names": "state/save-and-load-of-many-channels",
    "gamma_of_64_channels_of_volumes": "shapes/many-channels-of-other-ranks[shape=2x100x1x2x1]",
    "second_of_the_first_call": "second/every-step",
    "dbeta_without_the_end_of_a_block": "shapes/block-remainders",
    "nan_taken_for_no_gradient": "gradients/no-number-arrives",
    "squares_in_half_precision": "dtypes/half-many-values[dtype=float16]",
    "moments_in_brain_float": ONE_STEP,
    "elements_in_the_inputs_dtype": "layouts/strided-half-of-many-values[dtype=float16]",
    "gradients_of_products": "numerics/overflow-everywhere",
    "dx_of_products": "numerics/overflow-everywhere",
    "dx_by_chain_rule": "numerics/large",
    "dx_by_chain_rule_through_the_mean": "numerics/underflow-tiny-eps",
    "dx_by_chain_rule_of_squares": "numerics/underflow-tiny-eps",
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    """The layer cases by their ids with and without brackets."""
    found = corpus()
    return {id_.partition("[")[0]: case for id_, case in reversed(found.items())} | dict(found)


def verdict(fault: str, case: Case) -> Verdict:
    """The verdict on a layer with a fault."""
    problem = materialise(case)
    return judge(Comparison(Oracle(problem), bench().under, bench().observe(fault, problem)))


@pytest.mark.parametrize("fault", CAUGHT)
def test_a_fault_is_caught_and_named(fault: str, cases: dict[str, Case]) -> None:
    found = verdict(fault, cases[CAUGHT[fault]])
    assert found.status == "unexpected"
    assert names_of(found) in (bench().faulty.FAULTS[fault].named or ("unexplained",))


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("keeps_the_first_eps", "eps-of-layer-beside"),
        ("keeps_the_first_eps_for_gradients", "gradients-eps-of-layer-beside"),
    ],
)
def test_what_is_kept_of_another_layer_is_named(fault: str, name: str, cases: dict[str, Case]) -> None:
    assert names_of(verdict(fault, cases[CAUGHT[fault]])) == name


def test_without_a_fault_every_verdict_is_expected(cases: dict[str, Case]) -> None:
    found = {case: verdict("none", cases[case]).status for case in set(CAUGHT.values())}
    assert found == dict.fromkeys(found, "expected")


def test_a_fault_is_an_option_of_a_target(cases: dict[str, Case]) -> None:
    target = parse(f"{FAULTY},fault=gamma_ignored")
    with Pool([target]) as pool:
        (settled,) = judged([cases["affine/values"]], pool)
    assert settled.sides[target.name].verdict.diagnosis == "gamma-ignored"


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


# Two faults at once

#: A layer whose every number is nobody's default, of several samples, trained, evaluated and reloaded.
SHOWS_BOTH: dict[str, Any] = {
    "layer": {
        "eps": 0.2,
        "momentum": 0.3,
        "initial": {
            "gamma": {"normal": {"mean": 1, "std": 0.5, "seed": 1}},
            "beta": {"normal": {"seed": 2}},
            "running_mean": {"normal": {"seed": 3}},
            "running_var": {"uniform": {"low": 0.5, "high": 3, "seed": 4}},
        },
    },
    "input": {"shape": [5, 3, 2, 2], "normal": {"mean": 1, "std": 0.6}},
    "steps": ["default", "train", "eval", {"mode": "eval", "save_load": True}],
}


def explicable(faulty: ModuleType) -> list[str]:
    """The faults that show in `SHOWS_BOTH` and have a name in the catalogue there."""
    of = oracle(**SHOWS_BOTH)
    found = []
    for fault, what in faulty.FAULTS.items():
        verdict = judge(Comparison(of, bench().under, bench().observe(fault, of.problem)))
        if verdict.status == "unexpected" and verdict.tried and verdict.diagnosis in what.named:
            found.append(fault)
    return found


def compatible(faults: Sequence[str], faulty: ModuleType) -> bool:
    """Whether the lines of both can be written into one adapter."""
    try:
        compile(faulty.mutated("+".join(faults)), "adapter.py", "exec")
    except ValueError:
        return False
    return True


def test_two_faults_at_once_are_named_both(faulty: ModuleType) -> None:
    """At least 95 % of pairs drawn by chance, of those in which both still show."""
    of, random = oracle(**SHOWS_BOTH), np.random.RandomState(0)
    single = explicable(faulty)
    assert len(single) > 40
    pairs: list[tuple[str, str]] = []
    while len(pairs) < 300:
        a, b = random.choice(single, 2, replace=False)
        if compatible((a, b), faulty):
            pairs.append((str(a), str(b)))
    wrong, shown = {}, 0
    for pair in pairs:
        adapter = harness.load_adapter(faulty.mutated("+".join(pair)), str(faulty.GOOD))
        adapter.start({"device": "cpu"})
        seen = unpack(harness.answer(adapter, request(0, of.problem, bench().target)))
        if any(same(seen, bench().observe(fault, of.problem)) for fault in pair):
            continue
        shown += 1
        name = names_of(judge(Comparison(of, bench().under, seen)))
        wanted = {f"{x}+{y}" for x in faulty.FAULTS[pair[0]].named for y in faulty.FAULTS[pair[1]].named}
        if name not in wanted and "+".join(reversed(name.split("+"))) not in wanted:
            wrong[pair] = name
    assert shown >= 240
    assert len(wrong) <= 0.05 * shown, wrong


# What the tool says


def test_few_cases_cover_all_that_is_caught() -> None:
    tallies = [
        Tally("a", 1, caught=["x", "y"]),
        Tally("b", 1, caught=["z"]),
        Tally("c", 1, caught=["y", "z"]),
        Tally("d", 1),
    ]
    assert mutants.cover(tallies) == ["a", "b"]


def test_a_fault_without_a_name_should_be_unexplained() -> None:
    assert mutants.rightly(["unexplained", "gamma-ignored"], []) == 1
    assert mutants.rightly(["gamma-ignored", "unexplained"], ["gamma-ignored"]) == 1
