"""Behaviour of `conformance.cases`: what a run draws is what was checked, however many cases there are."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from conformance import cases as drawing
from conformance.case_errors import CaseErrors
from conformance.cases import Cases
from conformance.load import load


def write(folder: Path, numbers: int = 4) -> Path:
    file = folder / "many.yaml"
    file.write_text(
        "conformance: 1\n"
        "about: Many.\n"
        "cases:\n"
        "  many:\n"
        "    why: There may be many.\n"
        "    layer: {}\n"
        "    input: {shape: [2, 2], normal: {}}\n"
        f"    matrix: {{input.normal.seed: {list(range(numbers))}}}\n",
        encoding="utf-8",
    )
    return file


@pytest.mark.parametrize("held", [3, 4])
def test_many_cases_are_the_same_as_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(drawing, "HELD", held)
    file = write(tmp_path)
    cases = Cases([file], None, lambda case: case.spec.input is not None)
    assert list(cases) == list(cases) == load([file])
    assert len(cases) == 4
    assert load([file])[3] in cases


@pytest.mark.parametrize("held", [1, 2])
def test_only_what_is_chosen_is_drawn_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(drawing, "HELD", held)
    cases = Cases([write(tmp_path)], None, lambda case: case.id.endswith(("=1]", "=3]")))
    assert [case.id for case in cases] == ["many/many[seed=1]", "many/many[seed=3]"]
    assert len(cases) == 2


def test_a_file_that_changes_or_goes_while_a_run_goes_on_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "HELD", 1)
    file = write(tmp_path)
    cases = Cases([file], None, lambda _: True)
    drawn = iter(cases)
    first = next(drawn)
    file.write_text("conformance: [", encoding="utf-8")
    second = next(drawn)
    file.unlink()
    assert [case.id for case in (first, second, *drawn)] == [f"many/many[seed={seed}]" for seed in range(4)]


def test_what_is_not_chosen_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "wrong.yaml").write_text("conformance: 1\nabout: x\ncases: {a: {why: x}}\n", encoding="utf-8")
    with pytest.raises(CaseErrors):
        Cases([tmp_path], None, lambda case: case.topic == "many")


def test_memory_does_not_grow_with_the_number_of_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "HELD", 100)
    list(Cases([write(tmp_path)], None, lambda _: True))  # what is made on first use, is made
    tracemalloc.start()
    try:
        cases = Cases([write(tmp_path, 2000)], None, lambda _: True)
        assert sum(1 for _ in cases) == 2000
        assert tracemalloc.get_traced_memory()[1] < 2000 * 1500  # a case takes 5 kB, its seed in the document 0.3 kB
    finally:
        tracemalloc.stop()
