"""The main job in small: cases through real workers to verdicts and pairs, in the order of the cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import case

from conformance import desk
from conformance.case import Case
from conformance.comparison import Comparison
from conformance.crew import NotStarted
from conformance.judge import Verdict, judge
from conformance.pairs import Agreement
from conformance.pool import Pool
from conformance.session import Settled, judged, targets_of
from conformance.target import Target, parse

GOOD = parse("numpy")
FAULTY = Path(__file__).parent / "faulty"
BIASED = parse(f"{FAULTY},fault=running_variance_biased")
FLAT = parse(f"{FAULTY},fault=beta_ignored")

SMALL = case(
    "tests/small",
    input={"shape": [4, 3], "normal": {}},
    layer={"rank": 1, "initial": {"beta": 1.0}},
    steps=["train", "eval"],
)
LARGE = case("tests/large", input={"shape": [16, 16, 16, 16], "normal": {}}, layer={}, gradient=None)
REFUSED = case("tests/refused", input={"shape": [4, 3], "normal": {}}, layer={"rank": 2})
ELSEWHERE = case("tests/elsewhere", native={"torch": {}})
NATIVE = case("tests/native", native={"numpy": {"features": 3}, "torch": {}})
SIGNATURE = case("tests/signature", rank=2, signature={"numpy": {"features": None}})


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool([GOOD, BIASED, FLAT]) as started:
        yield started


def settled(pool: Pool, *cases: Case) -> dict[str, Settled]:
    return {found.problem.case.id: found for found in judged(cases, pool)}


def test_cases_settle_in_their_order_whatever_they_cost(pool: Pool) -> None:
    ids = [found.problem.case.id for found in judged([LARGE, SMALL, NATIVE, REFUSED], pool)]
    assert ids == ["tests/large", "tests/small", "tests/native", "tests/refused"]


def test_cases_settle_in_their_order_whichever_worker_is_first() -> None:
    quick = [case(f"tests/quick{number}", input={"shape": [4, 3, 1, 1], "normal": {}}) for number in range(5)]
    with Pool([GOOD], jobs=2) as two:
        two.start()
        ids = [found.problem.case.id for found in judged([LARGE, *quick], two)]
    assert ids == ["tests/large", *(each.id for each in quick)]


def test_every_case_has_a_verdict_of_every_target(pool: Pool) -> None:
    sides = settled(pool, SMALL)["tests/small"].sides
    assert list(sides) == [GOOD.name, BIASED.name, FLAT.name]
    assert [side.verdict.diagnosis for side in sides.values()] == [None, "running-variance-biased", "beta-ignored"]
    assert [side.verdict.verdict for side in sides.values()] == ["conforms", "divergent", "divergent"]
    assert sides[GOOD.name].under.facts["device"] == "cpu"


def test_every_pair_is_judged_in_the_order_of_the_targets(pool: Pool) -> None:
    pairs = settled(pool, SMALL)["tests/small"].pairs
    assert list(pairs) == [(GOOD.name, BIASED.name), (GOOD.name, FLAT.name), (BIASED.name, FLAT.name)]
    assert [pair.agreement for pair in pairs.values()] == ["differ"] * 3
    assert pairs[BIASED.name, FLAT.name].because == (
        f"{BIASED.name}: running-variance-biased; {FLAT.name}: beta-ignored"
    )


def test_a_fault_in_judging_costs_the_verdict_and_says_whose_it_is(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_of_one(comparison: Comparison) -> Verdict:
        if comparison.under.name == BIASED.name and comparison.observation.fate == "answered":
            raise ZeroDivisionError("one over nothing")
        return judge(comparison)

    monkeypatch.setattr(desk, "judge", fails_of_one)
    found = settled(pool, SMALL, NATIVE)
    assert [side.verdict.verdict for side in found["tests/small"].sides.values()] == ["conforms", "broken", "divergent"]
    failed = found["tests/small"].sides[BIASED.name].verdict
    assert failed.status == "unexpected"
    assert failed.error is not None
    assert failed.error.type == "JudgingFailed"
    first, second, *_ = failed.error.message.splitlines()
    assert first == "judging failed, for which no framework is to blame: ZeroDivisionError: one over nothing"
    assert second.startswith("Traceback")
    assert found["tests/small"].pairs[GOOD.name, BIASED.name].because == f"{BIASED.name}: broken (JudgingFailed)"
    assert found["tests/native"].sides[GOOD.name].verdict.verdict == "conforms"


def test_a_fault_in_comparing_two_costs_their_agreement(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Agreement:
        raise ZeroDivisionError("one over nothing")

    monkeypatch.setattr(desk, "judge_pair", fails)
    found = settled(pool, SMALL)["tests/small"]
    assert {pair.agreement for pair in found.pairs.values()} == {"differ"}
    assert all("ZeroDivisionError: one over nothing" in pair.because for pair in found.pairs.values())


def test_a_refusal_is_a_verdict_and_pairs_of_them_agree(pool: Pool) -> None:
    found = settled(pool, REFUSED)["tests/refused"]
    assert {side.verdict.verdict for side in found.sides.values()} == {"refused"}
    assert {pair.because for pair in found.pairs.values()} == {"both refuse"}


def test_a_case_that_speaks_to_no_target_is_left_out(pool: Pool) -> None:
    assert list(settled(pool, SMALL, ELSEWHERE, REFUSED)) == ["tests/small", "tests/refused"]
    assert targets_of(ELSEWHERE, pool.targets) == []
    assert targets_of(NATIVE, pool.targets) == targets_of(SMALL, pool.targets) == list(pool.targets)


def test_signatures_are_held_against_the_document_and_not_each_other(pool: Pool) -> None:
    found = settled(pool, SIGNATURE)["tests/signature"]
    assert {side.verdict.diagnosis for side in found.sides.values()} == {"signature-added"}
    assert found.pairs == {}


def test_every_verdict_is_watched_as_it_falls(pool: Pool) -> None:
    seen: list[tuple[str, str, str]] = []

    def watch(of: Case, target: Target, verdict: Verdict) -> None:
        seen.append((of.id, target.name, verdict.verdict))

    list(judged([SMALL, REFUSED], pool, watch))
    assert sorted(seen) == sorted(
        [
            ("tests/small", GOOD.name, "conforms"),
            ("tests/small", BIASED.name, "divergent"),
            ("tests/small", FLAT.name, "divergent"),
            *(("tests/refused", target.name, "refused") for target in pool.targets),
        ]
    )


def test_no_cases_settle_nothing(pool: Pool) -> None:
    assert settled(pool) == {}


def test_a_target_that_cannot_run_has_no_side_and_no_pair() -> None:
    gone = parse("numpy,python=/no/such/python")
    with Pool([GOOD, gone]) as started:
        found = settled(started, SMALL)["tests/small"]
        assert isinstance(started.starts[gone.name], NotStarted)
    assert list(found.sides) == [GOOD.name]
    assert found.pairs == {}
