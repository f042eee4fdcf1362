"""Versions side by side: what appears, what disappears, and for which inputs."""

from __future__ import annotations

import dataclasses
from typing import Any

from handmade_runs import BIASED, REFUSED, UNEXPLAINED, Line, case, run, target, verdict

from conformance.upgrades.changes import Half
from conformance.upgrades.history import History, Row, Version, history


class _NoArrays:
    def __call__(self, *_: str) -> None:
        """These runs kept no arrays."""


def half(*lines: Line, cases: tuple[Line, ...] = (), **facts: Any) -> Half:
    made = run(lines, targets=[target(**facts)], cases=cases)
    object.__setattr__(made, "array", _NoArrays())
    return Half(made, "torch")


def rows(of: History) -> dict[str, Row]:
    return {row.title: row for row in of.rows}


def counts(row: Row) -> list[int | None]:
    return [None if cell is None else cell.count for cell in row.cells]


def sized(name: str, *shape: int, dtype: str = "float32") -> Line:
    return {**case(name), "spec": {"input": {"shape": list(shape), "dtype": dtype}, "steps": [{"mode": "train"}]}}


CASES = (sized("a/flat", 4, 3), sized("a/image", 4, 3, 5, 5), sized("a/double", 4, 3, 5, 5, dtype="float64"))


def biased_in(*names: str, **facts: Any) -> Half:
    """A version that stores the running variance biased in these of the cases."""
    lines = [
        verdict("conventional", of=one["case"], **BIASED) if one["case"] in names else verdict(of=one["case"])
        for one in CASES
    ]
    return half(*lines, cases=CASES, **facts)


def test_a_convention_moves_where_it_disappears_and_stays_where_it_does_not() -> None:
    everywhere = biased_in("a/flat", "a/image", "a/double")
    row = rows(history("Frame", [everywhere, biased_in()]))["running-variance-biased"]
    assert (row.kind, counts(row), row.moves) == ("convention", [3, 0], True)
    assert not rows(history("Frame", [everywhere, everywhere]))["running-variance-biased"].moves


def test_a_convention_of_some_inputs_says_which() -> None:
    everywhere = biased_in("a/flat", "a/image", "a/double")
    row = rows(history("Frame", [biased_in("a/flat", "a/double"), everywhere]))["running-variance-biased"]
    assert [cell and (cell.count, cell.of, cell.where) for cell in row.cells] == [
        (2, 3, "2-D, 4-D float64"),
        (3, 3, ""),
    ]
    assert row.moves


def test_a_convention_that_others_stand_in_for_in_part_does_not_move() -> None:
    twice = (*CASES, sized("a/other", 4, 3))
    everywhere = half(*(verdict("conventional", of=one["case"], **BIASED) for one in twice), cases=twice)
    some = [verdict("conventional", of=one["case"], **BIASED) for one in twice[:3]] + [verdict(of="a/other")]
    row = rows(history("Frame", [half(*some, cases=twice), everywhere]))["running-variance-biased"]
    assert [cell and cell.where for cell in row.cells] == ["2-D float32 in part, 4-D", ""]
    assert not row.moves


def test_a_case_that_was_not_answered_tells_nothing_of_a_convention() -> None:
    refused = half(verdict("refused", of="a/flat", **REFUSED), cases=CASES[:1])
    row = rows(history("Frame", [refused, biased_in("a/flat")]))["running-variance-biased"]
    assert [cell and (cell.count, cell.of) for cell in row.cells] == [(0, 0), (1, 1)]
    assert not row.moves


def test_a_version_that_did_not_run_keeps_its_column_and_its_reason() -> None:
    found = history("Frame", [biased_in("a/flat"), Version("frame==9", "9", missing="no such version")])
    assert [version.missing for version in found.versions] == ["", "no such version"]
    assert counts(rows(found)["running-variance-biased"]) == [1, None]


def test_refusals_of_one_reason_are_one_row_whatever_the_message_and_unexpected_ones_stand_by_case() -> None:
    told = {**REFUSED, "because": "ValueError: n is 1; one value has no variance"}
    first = half(verdict("refused", of="a/flat", **told), cases=CASES[:1])
    other = half(verdict("refused", "unexpected", of="a/flat", **REFUSED), cases=CASES[:1])
    found = rows(history("Frame", [first, other]))
    assert {title: counts(row) for title, row in found.items()} == {
        next(title for title in found if "variance" in title): [1, 0],
        "ValueError in a/flat": [0, 1],
    }
    assert [cell and cell.unexpected for cell in found["ValueError in a/flat"].cells] == [0, 1]


def test_what_nobody_can_explain_stands_by_case() -> None:
    wrong = half(verdict("divergent", "unexpected", of="a/flat", **UNEXPLAINED), cases=CASES[:1])
    found = rows(history("Frame", [half(verdict(of="a/flat"), cases=CASES[:1]), wrong]))
    assert counts(found["divergent: a/flat"]) == [0, 1]


def test_neighbours_are_compared_to_the_bit() -> None:
    same, moved = (half(verdict(of="a/flat", digests={"y[0]": bits}), cases=CASES[:1]) for bits in "ab")
    found = history("Frame", [same, moved, Version("frame==2", "2", missing="gone"), same])
    assert [version.since and dict(version.since) for version in found.versions] == [
        None,
        {"within bound": 1},
        None,
        None,
    ]


def test_a_column_is_the_release_and_the_backend_it_ran_on() -> None:
    labels = [version.label for version in history("Frame", [half(verdict(), version="2.13.0+cpu")]).versions]
    assert labels == ["2.13.0"]
    on = half(verdict(), version="3.4.1", backend="tensorflow", backend_version="2.16.2")
    assert history("Keras", [on]).versions[0].label == "3.4.1 on tensorflow 2.16.2"


def test_rows_of_every_kind_are_told_apart_by_whether_they_move() -> None:
    found = history("Frame", [biased_in("a/flat"), biased_in()])
    assert [row.title for row in found.of("convention", moving=True)] == ["running-variance-biased"]
    assert found.of("convention", moving=False) == []
    assert dataclasses.replace(found, rows=()).of("convention", moving=True) == []
