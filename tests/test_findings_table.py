"""The tables of findings: every finding once, in the words of the case, safe in a document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from handmade_runs import BIASED, HOSTILE, UNEXPLAINED, case, hostile, run, target, verdict
from typer.testing import CliRunner

from conformance import data
from conformance.cli import app
from conformance.errors import UsageError
from conformance.findings_table import BEGIN, END, inserted, tables
from conformance.load import load

FROZEN = {"diagnosis": "statistics-not-updated", "reason": "half layers keep their statistics (10 of 10 runs)"}


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]


def test_one_reason_is_one_row_with_its_first_case_and_the_number_of_others() -> None:
    lines = [verdict("divergent", of=f"dtypes/half[seed={seed}]", **FROZEN) for seed in range(3)]
    _, row, _ = rows(tables(run(lines)))
    assert row == (
        "| torch 2.13.0+cpu | half layers keep their statistics (10 of 10 runs) "
        "| divergent: `dtypes/half[seed=0]` and 2 more |"
    )


def test_an_unexpected_verdict_is_told_by_what_was_found() -> None:
    found = tables(run([verdict("divergent", "unexpected", **UNEXPLAINED)]))
    assert "y\\[0\\] is 53 bounds off at \\[3, 2\\]" in found


def test_agreement_and_refusals_are_no_findings() -> None:
    assert "0 findings and 0 declared conventions, from 1 cases" in tables(run([verdict(), verdict("refused")]))


def test_a_convention_is_told_once_with_the_cases_that_need_it() -> None:
    lines = [verdict("conventional", of=f"state/a[seed={seed}]", **BIASED) for seed in range(2)]
    told = "running\\_var is stored biased, without the n/(n−1) factor | `state/a[seed=0]` and 1 more |"
    assert f"| torch 2.13.0+cpu | {told}" in tables(run(lines))


def test_rows_come_in_the_order_of_the_targets() -> None:
    lines = [
        verdict("divergent", "unexpected", on=on, **UNEXPLAINED)
        for on in ("keras", "torch")  # as a run may settle them
    ]
    found = rows(tables(run(lines, targets=[target("torch"), target("keras", "Keras")])))
    assert [row.split()[1] for row in found[1:3]] == ["torch", "keras"]


def test_what_only_other_targets_of_a_framework_show_is_told_once_and_apart() -> None:
    """Of the first target, as always; of the others what the first does not show, with all that show it."""
    names = ["keras", "keras,backend=torch", "keras,backend=jax"]
    other = {"diagnosis": "unexplained", "reason": "y is NaN (10 of 10 runs)"}
    lines = [verdict("divergent", on=name, **FROZEN) for name in names]
    lines += [verdict("divergent", on=name, of="dtypes/other", **other) for name in names[1:]]
    lines += [verdict("conventional", on=names[2], of="state/a", **BIASED)]
    cases = [case(), case("dtypes/other"), case("state/a")]
    found = tables(run(lines, cases=cases, targets=[target(name, "Keras") for name in names]))
    own, others = found.split("1 more findings, of other targets of the same frameworks alone: ")
    assert own.startswith("1 findings and 0 declared conventions")
    assert "keras,backend" not in own
    assert others.startswith("keras,backend=torch, keras,backend=jax.")
    (row,) = rows(others)[1:]
    assert row.startswith("| keras,backend=torch 2.13.0+cpu; keras,backend=jax 2.13.0+cpu | y is NaN (10 of 10 runs) |")


def test_no_text_of_a_run_ends_a_row_or_becomes_markup() -> None:
    found = tables(hostile())
    assert "<img" not in re.sub("`` .*? ``", "", found)  # within code it is text
    assert "\x1b" not in found
    assert all(line.startswith(("|", "2 findings")) for line in found.splitlines() if line)


def test_a_document_gets_the_tables_between_its_marks() -> None:
    document = f"# Cases\n\n{BEGIN}\nold\n{END}\nafter\n"
    assert inserted(document, "new", "README.md") == f"# Cases\n\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


@pytest.mark.parametrize("document", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_document_without_one_place_is_left_alone(document: str) -> None:
    with pytest.raises(UsageError, match=r"README\.md has no place for findings"):
        inserted(document, "new", "README.md")


def test_the_command_says_what_is_wrong_with_a_run_or_a_document(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["findings", str(tmp_path / HOSTILE.replace("/", ""))])
    assert isinstance(result.exception, UsageError)


def test_the_readme_of_the_cases_names_cases_that_are_there() -> None:
    folder = data.folder("cases")
    text = (folder / "README.md").read_text(encoding="utf-8")
    named = {
        word for row in rows(text.partition(BEGIN)[2]) for word in row.split("`") if "/" in word and " " not in word
    }
    assert named
    assert named <= {found.id for found in load([folder])}


def test_a_case_without_a_reason_is_told_by_its_diagnosis() -> None:
    line = verdict("divergent", **UNEXPLAINED)
    assert "reason" not in line
    assert "53 bounds off" in tables(run([line], cases=[case()]))
