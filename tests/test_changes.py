"""What changed between two sides: every case and every tensor is in one class, and none is dropped."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from handmade_runs import BIASED, REFUSED, UNEXPLAINED, Line, case, run, target, tensor, verdict
from hypothesis import given
from hypothesis import strategies as st

from conformance.upgrades.changes import (
    CaseChange,
    Comparison,
    Half,
    classed,
    compare,
    distance,
    grouped,
    signature_changes,
)

OF = "momentum/values[momentum=0.1]"


def line(kind: str = "conforms", status: str = "expected", bits: str = "same", **more: Any) -> Line:
    """A verdict of which the one tensor has these bits."""
    return verdict(kind, status, **{"digests": {"y[0]": bits}, **more})


def became(before: Line, after: Line, same: bool = True, ulp: float | None = 2.0) -> CaseChange:
    return classed(before, after, same, lambda _: ulp)


def test_the_same_bits_and_words_are_identical() -> None:
    change = became(line(), line())
    assert (change.change, change.what) == ("identical", "")
    assert [(t.tensor, t.change, t.ulp) for t in change.tensors] == [("y[0]", "identical", 0.0)]


def test_other_bits_within_the_bound_on_both_sides_say_how_far_and_whether_the_error_grew() -> None:
    change = became(line(), line(bits="other", tensors={"y[0]": tensor(0.5)}))
    assert change.change == "within bound"
    assert change.what == "y[0] moved by up to 2 ULP; farther from exact arithmetic in 1 of 1"
    (moved,) = change.tensors
    assert (moved.ulp, moved.old_ratio, moved.new_ratio, moved.grew) == (2.0, 0.25, 0.5, True)
    assert not became(line(), line(bits="other", tensors={"y[0]": tensor(0.1)})).tensors[0].grew


@pytest.mark.parametrize("off", [tensor(1.5), tensor(None, problem="is nan at [0]")])
def test_other_bits_beyond_the_bound_under_the_same_verdict_are_a_class_of_their_own(off: Line) -> None:
    known = {"diagnosis": "unexplained"}
    before, after = (line("divergent", bits=bits, **known, tensors={"y[0]": off}) for bits in "ab")
    assert became(before, after).change == "beyond bound"


BIASED_LINE = line("conventional", bits="other", **BIASED)
REFUSED_LINE = line("refused", digests={}, **REFUSED)


@pytest.mark.parametrize(
    ("before", "after", "change", "what"),
    [
        (line(), BIASED_LINE, "convention", "canonical → conventional (running-variance-biased)"),
        (BIASED_LINE, line(), "convention", "conventional (running-variance-biased) → canonical"),
        (line(), line("divergent", "unexpected", "b", **UNEXPLAINED), "verdict", "canonical → divergent (unexplained)"),
        (line(), line("inaccurate", "unexpected", "b"), "verdict", "canonical → inaccurate"),
        (line(), line(status="unexpected"), "verdict", "conforms, expected → unexpected (conforms or conventional)"),
        (line(), line("crashed", "unexpected", digests={}), "verdict", "canonical → crashed"),
        (line(), REFUSED_LINE, "refusal", "conforms → ValueError"),
        (REFUSED_LINE, line(), "refusal", "ValueError → conforms"),
        (
            REFUSED_LINE,
            {**REFUSED_LINE, "error": {"type": "TypeError", "message": "no"}},
            "refusal",
            "ValueError → TypeError",
        ),
        (REFUSED_LINE, {**REFUSED_LINE, "status": "unexpected"}, "verdict", "ValueError, expected → unexpected"),
    ],
)
def test_what_a_layer_means_is_told_apart_from_how_it_rounds(before: Line, after: Line, change: str, what: str) -> None:
    found = became(before, after, ulp=None)
    assert found.change == change
    assert found.what.startswith(what)


def test_a_refusal_in_other_words_is_reworded_and_harmless() -> None:
    after = {**REFUSED_LINE, "error": {"type": "ValueError", "message": "Expected at least 2 values"}}
    change = became(REFUSED_LINE, after)
    assert (change.change, REFUSED_LINE["error"]["type"]) == ("reworded", "ValueError")
    assert "→ ValueError: Expected at least 2 values" in change.what


def test_a_signature_that_changed_says_which_parameters() -> None:
    old = [["num_features", None], ["eps", "1e-05"]]
    change = became(line(digests={}, signature=old), line(digests={}, signature=[*old, ["dtype", "None"]]))
    assert (change.change, change.what) == ("signature", "dtype=None is new")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([["a", None]], [["a", "1"]], ["a is 1, was None"]),
        ([["a", None], ["b", None]], [["b", None], ["a", None]], ["the order is b, a"]),
        (None, [["a", None]], ["only one side has a signature"]),
    ],
)
def test_a_default_an_order_and_an_older_record_are_told(before: Any, after: Any, words: list[str]) -> None:
    assert signature_changes(before, after) == words


def test_a_case_that_was_asked_otherwise_is_not_comparable_whatever_came_out() -> None:
    change = became(line(), line(), same=False)
    assert (change.change, change.what) == ("not comparable", "the case itself changed")


def test_tensors_that_only_one_side_returned_are_new_and_gone() -> None:
    change = became(line(digests={"y[0]": "a", "dx[0]": "b"}), line(digests={"y[0]": "a", "dgamma[0]": "c"}))
    assert {t.tensor: t.change for t in change.tensors} == {"y[0]": "identical", "dgamma[0]": "new", "dx[0]": "gone"}
    assert change.change == "gone"
    assert change.what == "dx[0] is gone"


def test_where_the_meaning_changed_a_tensor_a_few_ulp_away_moved_within_its_bound_and_others_with_the_meaning() -> None:
    bits = {"y[0]": "a", "running_var[0]": "a"}
    ratios = {"y[0]": tensor(0.1), "running_var[0]": tensor(0.1)}
    before = line(digests=bits, tensors=ratios)
    after = {**BIASED_LINE, "digests": {"y[0]": "b", "running_var[0]": "b"}, "tensors": ratios}
    apart: dict[str, float] = {"y[0]": 1.0, "running_var[0]": 8e4}
    change = classed(before, after, True, apart.get)
    assert {t.tensor: t.change for t in change.tensors} == {"y[0]": "within bound", "running_var[0]": "convention"}


def test_runs_of_before_there_were_digests_are_compared_by_their_arrays() -> None:
    old = verdict()
    for ulp, change in ((0.0, "identical"), (3.0, "within bound"), (None, "not comparable")):
        assert became(old, line(), ulp=ulp).tensors[0].change == change


def halves(before: list[Line], after: list[Line], **facts: Any) -> tuple[Half, Half]:
    new = run(after, targets=[target(**facts)])
    return Half(run(before, targets=[target()]), "torch"), Half(new, "torch")


def whole(before: list[Line], after: list[Line], asked: frozenset[str] | None = None, **facts: Any) -> Comparison:
    old, new = halves(before, after, **facts)
    for half in (old, new):
        object.__setattr__(half.run, "array", lambda *_: None)  # no file lies behind these runs
    return compare(old, new, asked)


def test_cases_of_one_side_only_are_new_and_gone_and_what_was_not_asked_for_is_counted() -> None:
    before, after = [line(of="a/x"), line(of="a/y"), line(of="a/z")], [line(of="a/x"), line(of="a/w")]
    found = whole(before, after)
    assert {c.case: c.change for c in found.cases} == {"a/x": "identical", "a/w": "new", "a/y": "gone", "a/z": "gone"}
    asked = whole(before, after, frozenset({"a/x", "a/w", "a/y"}))
    assert (asked.left_out, asked.counts["gone"]) == (1, 1)


def test_everything_beyond_the_bound_is_harmful_and_strictly_every_bit_is() -> None:
    after = [line(of="a/x", bits="other"), BIASED_LINE | {"case": "a/y"}, line(of="a/z")]
    found = whole([line(of=f"a/{name}") for name in "xyz"], after)
    assert [c.case for c in found.harmful()] == ["a/y"]
    assert [c.case for c in found.harmful(strict=True)] == ["a/x", "a/y"]
    assert [(change, len(cases)) for change, _, cases in grouped(found)] == [("convention", 1), ("within bound", 1)]


def test_what_differs_besides_the_version_is_said() -> None:
    assert whole([line()], [line()], version="9.9").remarks == ()
    assert whole([line()], [line()], threads="4", cudnn="9").remarks == ("threads 1 → 4", "cudnn unknown → 9")
    old, new = halves([line()], [line()])
    new.run.info["platform"]["processor"] = "Processor 9001"
    new.run.info["suite"] = "0.2.0"
    assert compare(old, new, frozenset()).remarks == (
        "suite 0.1.0 → 0.2.0",
        "processor 'Processor 9000' → 'Processor 9001'",
    )


def test_a_case_of_other_bits_is_not_comparable() -> None:
    old, new = halves([line()], [line()])
    new = replace(new, run=replace(new.run, cases={OF: {**case(OF), "digest": "1" * 64}}))
    assert [c.change for c in compare(old, new).cases] == ["not comparable"]


FLOATS = st.floats(width=32, allow_subnormal=True)


@given(FLOATS, FLOATS)
def test_distance_is_symmetric_and_zero_only_for_one_value(a: float, b: float) -> None:
    x, y = (np.array([value], np.float32) for value in (a, b))
    assert distance(x, y) == distance(y, x)
    assert (distance(x, y) == 0.0) == (a == b or (math.isnan(a) and math.isnan(b)))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, max_value=2.0**127, min_value=-(2.0**127)))
def test_the_next_number_is_one_ulp_away_or_half_at_a_power_of_two(a: float) -> None:
    x = np.array([a], np.float32)
    assert distance(x, np.nextafter(x, np.float32(np.inf))) in (0.5, 1.0)


@pytest.mark.parametrize("other", [math.nan, math.inf, -math.inf])
def test_a_number_and_none_are_infinitely_far_apart(other: float) -> None:
    assert distance(np.array([1.0, 2.0]), np.array([1.0, other])) == math.inf
    assert distance(np.array([1.0, other]), np.array([1.0, 2.0])) == math.inf


def test_an_empty_tensor_is_as_far_from_itself_as_can_be() -> None:
    assert distance(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == 0.0
