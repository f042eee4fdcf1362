"""A layer carried from one target to another starts from the numbers that the first one holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import case
from pydantic import ValidationError

from conformance.carried import NothingCarried, carried, source_of
from conformance.case import Case
from conformance.load import load_file
from conformance.pool import Observed, Pool
from conformance.problem import Problem
from conformance.session import Carrying, judged, targets_of
from conformance.target import parse

GOOD = parse("numpy")
BIASED = parse(f"{Path(__file__).parent / 'faulty'},fault=running_variance_biased")
#: Batches of one channel, 1 and 5: mean 3, variance 4 biased and 8 unbiased.
TWO = {"values": [[1.0], [5.0]]}


def ported(source: str = "numpy", steps: tuple[str, ...] = ("train",), **fields: Any) -> Case:
    layer = {"momentum": 0.5, "initial": {"gamma": 2.0, "beta": 1.0}}
    spec: dict[str, Any] = {
        "layer": layer,
        "input": TWO,
        "carried": {"from": source, "steps": list(steps)},
        "steps": ["eval"],
    }
    return case("tests/ported", **{**spec, **fields})


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool([GOOD, BIASED]) as started:
        yield started


def test_a_layer_starts_from_what_the_source_was_trained_to(pool: Pool) -> None:
    initial = carried(ported(), pool).initial
    found = {name: value.tolist() for name, value in initial.items()}
    assert found == {"gamma": [2.0], "beta": [1.0], "running_mean": [1.5], "running_var": [4.5]}


def test_it_is_the_source_s_numbers_that_are_carried_right_or_wrong() -> None:
    with Pool([BIASED]) as biased:
        assert carried(ported("numpy"), biased).initial["running_var"].tolist() == [2.5]


def test_the_last_of_several_steps_is_carried(pool: Pool) -> None:
    initial = carried(ported(steps=("train", "train", "eval")), pool).initial
    assert initial["running_mean"].tolist() == [2.25]


def test_every_target_is_judged_on_what_was_carried(pool: Pool) -> None:
    (settled,) = judged([ported()], pool)
    assert {name: side.verdict.verdict for name, side in settled.sides.items()} == {
        GOOD.name: "conforms",
        BIASED.name: "conforms",  # its fault shows in training alone
    }
    assert [pair.agreement for pair in settled.pairs.values()] == ["agree"]


def test_ported_layers_settle_among_others_in_their_order(pool: Pool) -> None:
    others = [case(f"tests/other{number}") for number in range(2)]
    assert [found.problem.case.id for found in judged([others[0], ported(), others[1]], pool)] == [
        "tests/other0",
        "tests/ported",
        "tests/other1",
    ]


def test_nobody_waits_for_a_layer_that_is_carried_but_its_own_case(pool: Pool) -> None:
    before, after = case("tests/before"), case("tests/after")
    carrying = Carrying([before, ported(), after], pool)
    asked = carrying.asked()

    def following() -> Problem | None:
        said = next(asked)
        return said and said[0]

    source, first = following(), following()
    assert source is not None
    assert first is not None
    assert (source.case.id, source.case.spec.carried, first.case) == ("tests/ported", None, before)
    assert (following(), following()) == (None, None)
    (trained,) = pool.observe([(source, [GOOD])])
    assert not carrying.took(Observed(1, first, GOOD, None, last=True))
    assert carrying.took(trained)
    there, last = following(), following()
    assert there is not None
    assert last is not None
    assert there.initial["running_mean"].tolist() == [1.5]
    assert last.case == after


def test_without_its_source_a_case_speaks_to_no_target() -> None:
    assert source_of(ported("keras"), [GOOD]) is None
    assert targets_of(ported("keras"), [GOOD]) == []
    assert targets_of(ported(), [GOOD, BIASED]) == [GOOD, BIASED]


def test_a_source_that_refuses_is_named_and_breaks_the_case_alone(pool: Pool) -> None:
    refused = ported(layer={"rank": 2})
    with pytest.raises(NothingCarried, match=r"tests/ported: numpy, which its layer comes from, failed: .*dimensions"):
        carried(refused, pool)
    broken, other = judged([refused, case("tests/other")], pool)
    assert {side.verdict.verdict for side in broken.sides.values()} == {"broken"}
    assert {side.verdict.verdict for side in other.sides.values()} == {"conforms", "divergent"}


def test_a_source_that_cannot_run_is_named() -> None:
    gone = parse("numpy,python=/no/such/python")
    with Pool([gone]) as absent, pytest.raises(NothingCarried, match="cannot run"):
        carried(ported(), absent)


@pytest.mark.parametrize(
    "fields",
    [
        {"native": {"numpy": {"features": 3}}, "layer": None},
        {"input": None, "steps": [{"mode": "eval", "input": TWO}]},
        {"carried": {"from": "numpy", "steps": []}},
        {"carried": {"steps": ["train"]}},
    ],
    ids=["native", "no input for what it does before", "no steps", "from nowhere"],
)
def test_what_cannot_be_carried_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ported(**fields)


def test_a_source_that_is_misspelled_is_named_with_the_nearest(tmp_path: Path) -> None:
    text = (
        "conformance: 1\nabout: A port.\ncases:\n  ported:\n    why: A test.\n    layer: {}\n"
        "    input: {shape: [4, 3], normal: {}}\n    carried: {from: kears}\n"
    )
    (tmp_path / "ports.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(Exception, match=r"ports\.yaml:8:21.*carried\.from.*names no target.*keras"):
        load_file(tmp_path / "ports.yaml", None, frozenset({"torch", "keras"}))
