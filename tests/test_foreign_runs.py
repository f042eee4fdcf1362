"""A run folder from elsewhere is data: whatever it says, it is shown or refused by a name, and nothing of it runs."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from foreign_runs import EVIL, Line, at, changed, lines_of, places, read_by_all, real, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance.commands import baseline, launch, report
from conformance.damage import RunDamage
from conformance.repro import of_stored


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_run_is_read_by_all(run: Path, whole: Path, tmp_path: Path) -> None:
    """What the tests below spoil is in order before: refused is only what nobody can show or take."""
    refused = read_by_all(run, whole, tmp_path / "out")
    assert [words for words in refused if "script" not in words and "no way to say" not in words] == [
        f"small/layer on torch is in {run} and in {whole}"
    ]


# Nothing of it runs

#: Half a character is refused where a case is read, before it could do any harm.
CODE = EVIL.removesuffix("\ud800")


def all_scripts(files: dict[str, list[Line]], of: str | None = None) -> list[str]:
    """Every script that a run's report may hold, or those of one case."""
    cases = {line["case"]: line for line in files["cases.jsonl"]}
    targets = {target["name"]: target for target in files["run.json"][0]["targets"]}
    lines = [line for line in files["results.jsonl"] if "pair" not in line and of in (None, line["case"])]
    found = [of_stored(cases[line["case"]], line, targets[line["target"]]) for line in lines]
    return [text for text in found if text is not None]


@pytest.mark.parametrize("name", ["run.json", "cases.jsonl", "results.jsonl"])
def test_no_text_of_a_run_becomes_code_of_a_script(name: str, whole: Path) -> None:
    """Each text, and each key of what a case says, in turn: scripts are made to be run."""
    written = 0
    for number, line in enumerate(lines_of(whole)[name]):
        for *outer, key in places(line):
            if outer[:1] in (["digests"], ["tensors"]) or "pair" in line:
                continue  # no script shows them
            files = lines_of(whole)
            around = at(files[name][number], tuple(outer))
            if isinstance(around, dict) and outer[:1] == ["spec"]:
                around[CODE] = around.pop(key)
                written += harmless(files, line["case"])
                around[key] = around.pop(CODE)
            if isinstance(around[key], str) and key not in ("case", "target", "name"):
                around[key] = CODE
                written += harmless(files, line.get("case"))
    assert written > 20


def harmless(files: dict[str, list[Line]], case: str | None) -> int:
    """How many scripts there are, which call nothing that a text names."""
    scripts = all_scripts(files, case)
    for text in scripts:
        tree = ast.parse(text)
        assert "owned" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}, text
    return len(scripts)


@pytest.mark.parametrize("framework", ["torch", "evil"])
def test_no_adapter_that_a_run_names_is_opened(
    framework: str, run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its template is code, as the adapter is, and may lie in the run's own folder."""
    monkeypatch.chdir(tmp_path)
    evil = Path(shutil.copytree(ROOT / "adapters" / "torch", run / "evil"))
    template = "{% set _ = cycler.__init__.__globals__.os.mkdir('owned') %}"
    (evil / "repro.py.j2").write_text(template + (evil / "repro.py.j2").read_text(encoding="utf-8"), encoding="utf-8")
    text = json.dumps(lines_of(whole)).replace('"framework": "torch"', f'"framework": "{framework}"')
    for before in ('"name": "torch"', '"target": "torch"', '"pair": ["torch"'):
        text = text.replace(before, before.replace("torch", "run/evil"))
    write(run, json.loads(text))
    report.write(run)
    assert "run/evil" in (run / "summary.md").read_text(encoding="utf-8")
    assert not (tmp_path / "owned").exists()


#: Where a run says what one of a few words says, or which case and target is meant.
WORDS = frozenset(
    {"case", "target", "name", "title", "framework", "verdict", "status", "agreement", "digest", "mode", "dtype"}
)


def test_no_text_of_a_run_acts_on_a_page_or_a_terminal(
    run: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All texts at once, in whatever a command prints or writes."""
    files = lines_of(whole)
    for line in (line for lines in files.values() for line in lines):
        for *outer, key in list(places(line)):
            around = at(line, tuple(outer))
            if isinstance(around[key], str) and key not in WORDS and not {"options", "pair", "digests"} & {*outer}:
                around[key] = EVIL
    write(run, files)
    words = read_by_all(run, whole, tmp_path / "out")
    assert not [text for text in words if text.startswith((f"{run}/", f"{run} holds"))]
    said = capsys.readouterr()
    assert "owned" in said.out
    assert all(letter.isprintable() or letter == "\n" for letter in said.out + said.err)
    pages = [path for folder in (run, tmp_path / "out") for path in folder.rglob("*.*") if path.is_file()]
    shown = {path.name: path.read_text() for path in pages if path.suffix in (".html", ".md", ".xml")}
    assert {
        "report.html",
        "summary.md",
        "junit.xml",
        "changes.html",
        "history.html",
        "history.md",
        "torch-keras.md",
    } <= shown.keys()
    for text in shown.values():
        assert "<img" not in re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", text)  # a code span of Markdown shows it
        assert not {"\x1b", "\u202e"} & {*text}


# It is shown, or refused


@pytest.mark.parametrize("name", ["run.json", "cases.jsonl", "results.jsonl"])
def test_every_command_refuses_a_damaged_run_by_name(name: str, run: Path, whole: Path, tmp_path: Path) -> None:
    (run / name).write_bytes((run / name).read_bytes()[:-5])
    refused = read_by_all(run, whole, tmp_path / "out")
    assert len(refused) == 7
    assert [words for words in refused if not words.startswith(f"{run / name}")] == []
    with pytest.raises(RunDamage, match=name):
        launch.run([], ["numpy"], "", tmp_path / "new", 1, "cpu", 1.0, baseline=run)
    assert not (tmp_path / "new").exists()


def test_a_baseline_can_be_shown_as_a_run_can(whole: Path, tmp_path: Path) -> None:
    """Of its tensors it has kept what tells one result from another, and no more."""
    blessed = [line["case"] for line in lines_of(whole)["cases.jsonl"]]
    assert baseline.update(tmp_path / "baseline", whole, blessed) == 0
    shutil.copytree(tmp_path / "baseline", tmp_path / "run")
    read_by_all(tmp_path / "run", tmp_path / "baseline", tmp_path / "out")
    assert (tmp_path / "run" / "report.html").exists()


@settings(
    max_examples=int(os.environ.get("FOREIGN_RUNS", "40")),  # a run takes half a second
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_whatever_a_run_says_every_command_shows_or_refuses_it(
    run: Path, whole: Path, tmp_path: Path, data: st.DataObject
) -> None:
    files = lines_of(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        changed(lambda options: data.draw(st.sampled_from(options)), files)
    write(run, files)
    for words in read_by_all(run, whole, tmp_path / "out"):
        assert words.isprintable()
