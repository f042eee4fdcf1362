"""The pages that set two frameworks side by side: what they say follows from profiles and verdicts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import case as case_of
from handmade_runs import BIASED, HOSTILE, REFUSED, Line, case, pair, run, target, tensor, verdict
from tiny_run import write as tiny_run

from conformance import data
from conformance.commands import docs
from conformance.conventions import CANONICAL
from conformance.conversion import Row, Table
from conformance.differences import Differences, differences
from conformance.errors import UsageError
from conformance.oracle import Oracle
from conformance.overview import target_labels
from conformance.problem import materialise
from conformance.profile import open_adapter
from conformance.proof import Side, sides
from conformance.report import difference_pages
from conformance.run_folder import Run

TARGETS = [
    target("torch", "PyTorch"),
    target("mindspore", "MindSpore", version="2.10.0"),
    target("keras", "Keras", version="3.15.1", backend="tensorflow"),
]


def native(name: str, **arguments: dict[str, Any]) -> Line:
    """A case of constructor arguments, in training mode."""
    return case(name) | {"spec": {"why": "…", "native": arguments, "steps": [{"mode": "train"}]}}


def agreeing(name: str, a: str, b: str, apart: dict[str, float] | None = None) -> tuple[list[Line], list[Line]]:
    """Verdicts and the pair of two targets that agree in y and running_mean, or differ in what is named."""
    tensors = {f"{one}[0]": tensor((apart or {}).get(one, 0.5)) for one in ("y", "running_mean")}
    both = pair(a, b, "they differ" if apart else "", of=name) | {"tensors": tensors}
    return [verdict(of=name, on=one) for one in (a, b)], [both]


def pages(cases: list[Line], *found: tuple[list[Line], list[Line]]) -> dict[str, Differences]:
    verdicts = [line for lines, _ in found for line in lines]
    pairs = [line for _, lines in found for line in lines]
    of = run(verdicts, pairs, TARGETS, cases)
    return {one.slug: one for one in differences(of, sides(of, target_labels(of.targets)))}


def rows(page: Differences, title: str) -> dict[str, Row]:
    return {" | ".join(row.cells): row for table in page.tables if table.title == title for row in table.rows}


def test_momentum_is_converted_as_the_profiles_weigh_it_and_proved_by_the_cases_that_keep_the_rule() -> None:
    cases = [
        native("a/kept", torch={"momentum": 0.1}, mindspore={"momentum": 0.9}),
        native("a/broken", torch={"momentum": 0.1}, mindspore={"momentum": 0.1}),
        native("a/kept-but-apart", torch={"momentum": 0.2}, mindspore={"momentum": 0.8}),
    ]
    found = pages(
        cases,
        agreeing("a/kept", "torch", "mindspore"),
        agreeing("a/broken", "torch", "mindspore", apart={"running_mean": 40.0}),
        agreeing("a/kept-but-apart", "torch", "mindspore", apart={"running_mean": 40.0}),
    )
    rules = rows(found["torch-mindspore"], "Conversion")
    assert rules["momentum_torch = 1 − momentum_mindspore"].proof.cases == ("a/kept",)
    assert "momentum_mindspore = momentum_keras" in rows(found["mindspore-keras"], "Conversion")
    assert "eps_torch = epsilon_keras" in rows(found["torch-keras"], "Conversion")


def test_parameters_are_matched_by_what_they_mean_with_their_real_defaults() -> None:
    signature = verdict(of="a/signature", on="torch") | {"signature": [["num_features", None], ["eps", "1e-05"]]}
    found = rows(pages([case("a/signature")], ([signature], []))["torch-keras"], "Parameters")
    assert "added to the variance under the root | eps=1e-05 | epsilon=0.001 | the defaults differ" in found
    momentum = "weight in the running statistics | momentum=0.1 | momentum=0.99 | "
    assert momentum + "opposite meaning; the defaults differ all the same" in found
    assert "number of channels C | num_features |  | Keras takes it from the input" in found
    assert "γ and β are learned | affine |  | scale and center together" in found
    assert "the input | input | inputs | the name only" in found


def test_a_parameter_is_proved_by_the_cases_that_give_it() -> None:
    cases = [native("a/given", torch={"affine": False}), native("a/not", torch={})]
    found = pages(cases, ([verdict(of="a/given"), verdict(of="a/not")], []))["torch-keras"]
    (affine,) = [row for text, row in rows(found, "Parameters").items() if text.startswith("γ and β are learned")]
    assert affine.proof.cases == ("a/given",)


def test_a_state_is_proved_by_the_cases_that_run_in_it() -> None:
    cases = [
        native("a/left-out", torch={}),
        native("a/untracked", torch={"track_running_stats": False}),
        native("a/wrong", torch={"track_running_stats": False}),
    ]
    lines = [verdict(of="a/left-out"), verdict(of="a/untracked"), verdict("divergent", "unexpected", of="a/wrong")]
    found = rows(pages(cases, (lines, []))["torch-keras"], "States")
    tracked = found["PyTorch | train | track_running_stats=True | the batch's | move"]
    untracked = found["PyTorch | train | track_running_stats=False | the batch's | stay"]
    assert tracked.proof.cases == ("a/left-out",)
    assert (untracked.proof.cases, untracked.proof.unexpected) == (("a/wrong", "a/untracked"), 1)


def test_a_convention_is_proved_by_the_cases_that_need_it() -> None:
    lines = [verdict("conventional", of="a/1", on="keras", **BIASED), verdict(of="a/2", on="keras")]
    found = rows(pages([case("a/1"), case("a/2")], (lines, []))["torch-keras"], "Conventions")
    variance = found["Running variance | unbiased, with n/(n−1) | biased, without n/(n−1)"]
    assert variance.proof.cases == ("a/1",)
    assert not [text for text in found if text.startswith("Formula of the variance")]  # only of Keras on torch


def test_a_convention_holds_for_the_version_that_ran() -> None:
    old = [TARGETS[0], target("mindspore", "MindSpore", version="2.0.0")]
    of = run([verdict()], targets=old)
    (page,) = differences(of, sides(of, target_labels(of.targets)))
    assert "Running variance | unbiased, with n/(n−1) | biased, without n/(n−1)" in rows(page, "Conventions")
    assert not [text for text in rows(pages([])["torch-mindspore"], "Conventions") if "Running variance" in text]


def test_what_only_one_refuses_is_told_with_what_the_other_does() -> None:
    lines = [verdict("refused", of="a/1", on="mindspore", **REFUSED), verdict(of="a/1", on="torch")]
    found = rows(pages([case("a/1")], (lines, []))["torch-mindspore"], "What only one of them takes")
    (only,) = found
    assert only == "MindSpore | one value has no variance | conforms in 1"


def test_claims_are_named_first() -> None:
    lines = [verdict("conventional", of=name, on="keras", **BIASED) for name in ("a/1", "claims/page/long-name")]
    found = pages([case("a/1"), case("claims/page/long-name")], (lines, []))["torch-keras"]
    (variance,) = [row for text, row in rows(found, "Conventions").items() if text.startswith("Running variance")]
    assert variance.proof.cases == ("claims/page/long-name", "a/1")


def test_a_target_without_a_profile_here_has_no_page() -> None:
    of = run([verdict(on="mine")], targets=[*TARGETS[:1], target("mine", "Mine")])
    assert sides(of, target_labels(of.targets))[0].framework == "torch"
    assert differences(of, sides(of, target_labels(of.targets))) == ()


@pytest.mark.parametrize("framework", ["torch", "mindspore", "keras"])
def test_every_state_that_a_profile_tells_is_what_the_reference_computes(framework: str) -> None:
    profile = open_adapter(data.adapters()[framework]).profile
    assert profile.interface is not None
    required = {"torch": {"num_features": 3}, "mindspore": {"num_features": 3}, "keras": {}}[framework]
    for state in profile.interface.states:
        arguments = {framework: required | state.arguments}
        of = Oracle(materialise(case_of(native=arguments, steps=[state.mode])))
        declared = CANONICAL.but(frozen="eval") if framework == "keras" else CANONICAL
        (trace,) = of.reading(profile, declared).traces
        assert trace.batch == (state.normalises_by == "batch"), state
        assert (trace.weight is not None) == state.updates, state


# As Markdown.


def test_the_command_writes_a_page_for_every_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(docs, "read", lambda _: run([verdict()], targets=TARGETS))
    docs.write(tmp_path / "run", tmp_path / "pages")
    names = ["mindspore-keras.md", "torch-keras.md", "torch-mindspore.md"]
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == names
    assert sorted(Path(line).name for line in capsys.readouterr().out.splitlines()) == names


def test_the_command_needs_two_frameworks_it_knows(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fewer than two frameworks"):
        docs.write(tiny_run(tmp_path / "run"), tmp_path / "pages")


def test_without_a_run_the_command_takes_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no run in conformance-runs"):
        docs.write(None, tmp_path / "pages")
    for name in ("20260101-000000", "20260102-000000"):
        tiny_run(tmp_path / "conformance-runs" / name)
    with pytest.raises(UsageError, match="20260102-000000 holds fewer than two"):
        docs.write(None, tmp_path / "pages")


def test_every_row_of_a_page_has_all_its_columns() -> None:
    texts = difference_pages(hostile_between_two())
    for text in texts.values():
        tables = [block for block in text.split("\n\n") if block.startswith("|")]
        assert tables
        for table in tables:
            widths = {line.replace("\\|", "").count("|") for line in table.splitlines()}
            assert len(widths) == 1, table


def hostile_between_two() -> Run:
    """A run of torch and Keras in which whatever comes from outside tries to act."""
    error = {"type": "E", "message": HOSTILE}
    name = f"topic/{HOSTILE}"
    lines = [
        verdict("refused", of=name, error=error, because=f"E: {HOSTILE}; {HOSTILE}"),
        verdict("divergent", of=name, on="keras", diagnosis=HOSTILE, because=HOSTILE),
    ]
    return run(lines, [pair("torch", "keras", f"keras: {HOSTILE}", of=name)], [TARGETS[0], TARGETS[2]], [case(name)])


def test_a_side_is_the_first_target_of_its_framework() -> None:
    of = run([verdict()], targets=[*TARGETS, target("torch,execution=compiled", "PyTorch")])
    found: tuple[Side, ...] = sides(of, target_labels(of.targets))
    assert [side.target for side in found] == ["torch", "mindspore", "keras"]
    assert all(isinstance(table, Table) for page in differences(of, found) for table in page.tables)
