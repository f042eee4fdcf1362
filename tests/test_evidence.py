"""What is gathered of a tensor when it is judged: enough to draw it without the reference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
from builders import answer, oracle, under
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conformance import compare as comparing
from conformance import evidence as drawing
from conformance import oracle as reading
from conformance import together as laying
from conformance.arithmetic import Array
from conformance.compare import TensorResult
from conformance.comparison import Comparison
from conformance.conventions import CANONICAL, Conventions
from conformance.evidence import LEVELS, PARTS, ULP_CLASSES, WITHIN, Evidence, gather, histograms, strips
from conformance.expected import InChannels
from conformance.judge import judge
from conformance.observation import Observation
from conformance.oracle import Oracle
from conformance.pairs import Side, judge_pair
from conformance.record import RunWriter
from conformance.run_folder import read
from conformance.together import Together

BIASED = CANONICAL.but(running_variance="biased")
STEPS = ["train", "train", "eval"]


def compared(of: Oracle, conventions: Conventions = CANONICAL, **changed: Array | None) -> Comparison:
    target = under({"running_variance": "biased"}) if conventions == BIASED else under()
    return Comparison(of, target, answer(of, conventions, target, **changed))


def gathered(of: Oracle, conventions: Conventions = CANONICAL, **changed: Array | None) -> dict[str, Evidence]:
    comparison = compared(of, conventions, **changed)
    return gather(comparison, judge(comparison))


@pytest.mark.parametrize(
    "shape", [[4, 3, 5, 5], [3, 2, 17, 1000], [3, 2, 117, 151]], ids=["small", "one piece", "large"]
)
@pytest.mark.parametrize("conventions", [CANONICAL, BIASED], ids=["conforms", "conventional"])
@pytest.mark.parametrize("wrong", [0.0, 1e-7, 1.0])
def test_evidence_is_the_same_from_numbers_that_judging_kept_and_from_new_ones(
    shape: list[int], conventions: Conventions, wrong: float
) -> None:
    """Judging compares a conventional answer with the canonical reading first, and running_var in that twice."""
    of = oracle(input={"shape": shape, "normal": {}}, steps=["train", "eval"])
    y = exact(of, "y[0]", conventions).astype(np.float32)
    y.reshape(-1)[[3, -2]] += wrong
    comparison = compared(of, conventions, y_0=y)
    verdict = judge(comparison)
    fresh = Comparison(of, comparison.under, comparison.observation)
    assert gather(comparison, verdict) == gather(fresh, verdict)


def test_a_large_tensor_is_drawn_in_parts_as_it_is_whole() -> None:
    of = oracle(input={"shape": [3, 2, 117, 151], "normal": {}}, steps=["train"])
    y = exact(of, "y[0]").astype(np.float32)
    y.reshape(-1)[[0, 70_000, -1]] += [1e-6, 1e-3, 1.0]
    comparison = compared(of, y_0=y)
    found = gather(comparison, judge(comparison))["y[0]"]
    together = Together({"y[0]": (y, of.expected(under().profile, CANONICAL)["y[0]"])}, of.arithmetic)
    assert [found.strip] == strips(together.ratio, [y.size])
    assert [found.ulps] == histograms(together.ulps, [y.size])


@pytest.mark.parametrize("numbers", [7, 33, 61])
@pytest.mark.parametrize("shape", [[5, 6, 7, 3], [3, 17, 2, 2], [2, 3, 31, 5], [1, 9, 10, 10], [130, 2, 3, 3]], ids=str)
def test_channels_apart_are_judged_drawn_and_paired_as_together(
    shape: list[int], numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[Any, ...]:
        of = oracle(input={"shape": shape, "normal": {}}, steps=["train", "train"], gradient={})
        sides = []
        for spoilt in (0.0, 1e-6):
            y = exact(of, "y[1]").astype(np.float32)
            y.reshape(-1)[[y.size // 3, -1]] += spoilt
            comparison = compared(of, y_1=y)
            verdict = judge(comparison, seek_cause=False)
            evidence = gather(comparison, verdict)
            sides.append(Side(comparison.under, comparison.observation, verdict, evidence))
        results = (*(side.verdict.tensors for side in sides), judge_pair(of, *sides).tensors)
        return [side.evidence for side in sides], [digits(each) for each in results]

    def digits(results: Mapping[str, TensorResult]) -> dict[str, TensorResult]:
        """Without what the order of a bound's own sums decides."""
        return {name: replace(result, ratio=float(f"{result.ratio:.12g}")) for name, result in results.items()}

    whole = found()
    assert [oracle(input={"shape": shape, "normal": {}})._parts] == [[]]
    for module in (comparing, drawing, laying):
        monkeypatch.setattr(module, "TOGETHER", numbers)
    monkeypatch.setattr(reading, "HELD", numbers)
    in_parts = oracle(input={"shape": shape, "normal": {}})
    assert isinstance(in_parts.expected(under().profile, CANONICAL)["y[0]"], InChannels)
    assert found() == whole


def exact(of: Oracle, name: str, conventions: Conventions = CANONICAL) -> Array:
    return np.ascontiguousarray(of.arithmetic.lower(of.expected(under().profile, conventions)[name].value))


def test_the_worst_element_is_told_with_its_reference_and_bound() -> None:
    of = oracle(steps=STEPS)
    wrong = exact(of, "y[1]").astype(np.float32)
    wrong[2, 1, 3, 4] += 1.0
    found = gathered(of, y_1=wrong)["y[1]"]
    reference, observed, bound = found.worst
    assert reference == pytest.approx(exact(of, "y[1]")[2, 1, 3, 4], rel=1e-8)
    assert observed == pytest.approx(wrong[2, 1, 3, 4], rel=1e-8)
    assert 0 < bound < 1e-3
    assert found.shape == (4, 3, 5, 5)


def test_a_strip_shows_where_along_the_tensor_an_error_is() -> None:
    of = oracle(steps=["train"])
    wrong = exact(of, "y[0]").astype(np.float32)
    wrong.reshape(-1)[150] += 1.0  # element 150 of 300: part 32 of 64
    levels = [LEVELS.index(code) for code in gathered(of, y_0=wrong)["y[0]"].strip]
    assert len(levels) == PARTS
    assert [place for place, level in enumerate(levels) if level > WITHIN] == [32]


def test_a_number_where_there_should_be_none_is_the_last_level() -> None:
    of = oracle(steps=["train"])
    wrong = exact(of, "y[0]").astype(np.float32)
    wrong.reshape(-1)[0] = np.nan
    found = gathered(of, y_0=wrong)["y[0]"]
    assert found.strip[0] == LEVELS[-1]
    assert set(found.strip[1:]) != {LEVELS[-1]}


def test_beyond_a_bound_of_zero_is_far_beyond_and_not_no_number() -> None:
    of = oracle(steps=["eval"])  # evaluation leaves the statistics alone
    wrong = exact(of, "running_mean[0]").astype(np.float32) + np.float32(1.0)
    assert set(gathered(of, running_mean_0=wrong)["running_mean[0]"].strip) == {LEVELS[-2]}


def test_running_statistics_are_followed_with_the_canonical_reading_where_it_is_another() -> None:
    of = oracle(steps=STEPS)
    found = gathered(of, BIASED)
    reading, observed, canonical = found["running_var[0]"].running
    assert reading == pytest.approx(observed, rel=1e-5)
    assert reading == pytest.approx(exact(of, "running_var[0]", BIASED), rel=1e-5)
    assert canonical == pytest.approx(exact(of, "running_var[0]"), rel=1e-5)
    assert len(found["running_mean[0]"].running) == 2  # there the two readings are one
    assert found["y[0]"].running == ()


def test_nothing_is_followed_over_a_single_step() -> None:
    of = oracle(steps=["train"])
    assert all(not found.running for found in gathered(of).values())


def test_of_a_tensor_of_another_shape_or_none_nothing_is_gathered() -> None:
    of = oracle(steps=["train"])
    found = gathered(of, y_0=np.zeros((2, 2), np.float32), dx_0=None)
    assert not {"y[0]", "dx[0]"} & set(found)


@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(0, 1e6)))
def test_a_strip_never_understates_and_tells_within_from_beyond(ratio: Array) -> None:
    [codes] = strips(ratio.reshape(-1), [ratio.size])
    assert len(codes) == min(PARTS, ratio.size)
    levels = np.array([LEVELS.index(code) for code in codes])
    assert (levels.max() > WITHIN) == (ratio.max() > 1)
    told = 2.0 ** ((levels.max() - WITHIN) / 2)
    assert levels.max() == len(LEVELS) - 2 or levels.max() == 0 or told >= ratio.max() * (1 - 1e-12)


@given(arrays(np.float64, st.integers(1, 100), elements=st.floats(0, 1e12)))
def test_a_histogram_counts_every_element(ulps: Array) -> None:
    [counts] = histograms(ulps.reshape(-1), [ulps.size])
    assert sum(counts) == ulps.size
    assert counts[0] == (ulps == 0).sum()
    assert sum(counts[:3]) == (ulps <= 1).sum()


@pytest.mark.parametrize("beyond", [2.0**21, np.inf, np.nan, -np.nan])
def test_the_last_class_of_a_histogram_is_open(beyond: float) -> None:
    [counts] = histograms(np.array([beyond, 2.0**20]), [2])
    assert counts[ULP_CLASSES - 2 :] == (1, 1)


def test_evidence_is_recorded_and_read(tmp_path: Path) -> None:
    found = Evidence((1, 3), (1.5, 1.25, 1e-3), "ABg", (1, 2), ((1.0,), (float("nan"),)))
    ran, *_ = tiny_run.targets()
    one = tiny_run.problem()
    with RunWriter(tmp_path / "run", ["conformance", "run"]) as writer:
        writer.case(one)
        writer.verdict(one.case.id, ran.name, tiny_run.CONFORMING, Observation(), {"y[0]": found})
        writer.finish(tiny_run.targets(), tiny_run.starts())
        writer.publish()
    (line,) = read(tmp_path / "run").verdicts
    assert line["tensors"]["y[0]"] | {"ratio": 0.25} == {
        "ratio": 0.25,
        "max_abs": 1e-7,
        "max_ulp": 2.0,
        "worst_index": [0, 2],
        "shape": [1, 3],
        "worst": [1.5, 1.25, 1e-3],
        "strip": "ABg",
        "ulps": [1, 2],
        "running": [[1.0], ["nan"]],
    }


def test_a_run_without_evidence_is_read_all_the_same(tmp_path: Path) -> None:
    run = tiny_run.write(tmp_path / "run")
    assert "strip" not in (run / "results.jsonl").read_text(encoding="utf-8")
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["format"] == 1
    assert read(run).verdicts
