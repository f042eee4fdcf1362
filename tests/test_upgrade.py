"""upgrade, compare, history, merge and baselines end to end, on a framework of one module in real environments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT
from tiny_framework import make

from conformance.run_folder import read
from conformance.upgrades.copies import without_pairs


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback (most recent call last)" not in err


Command = Callable[..., Said]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upgrade")
    make(path)
    return path


@pytest.fixture(scope="module")
def conformance(folder: Path) -> Command:
    """The command in a process of its own, in the folder, where pip finds the wheels in it and nothing else."""
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": os.devnull,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
    }

    def run(*arguments: str, module: str = "conformance") -> Said:
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=settings, capture_output=True, encoding="utf-8", timeout=600, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="module")
def old_run(conformance: Command) -> str:
    """A stored run of 1.0, and a baseline made of it."""
    said = conformance("run", "small.yaml", "-t", "./tinyframe==1.0", "-o", "old", "--save-baseline", "base")
    assert said.code == 0, said.out + said.err
    assert "Baseline: base, 3 verdicts" in said.out
    return "old"


def test_an_upgrade_that_changes_a_convention_says_so_everywhere_and_exits_with_1(
    conformance: Command, folder: Path
) -> None:
    said = conformance("upgrade", "./tinyframe==1.0", "./tinyframe==2.0", "small.yaml", "-o", "moved")
    assert said.code == 1, said.out + said.err
    assert "tinyframe==1.0: making an environment of Python 3" in said.out
    assert "Tinyframe 1.0 → Tinyframe 2.0: 2 of 3 cases changed beyond the bound on rounding." in said.out
    assert "convention 2 × conventional (running-variance-biased) → canonical: small/trains" in said.out
    page = (folder / "moved" / "changes.html").read_text()
    assert "conventional (running-variance-biased) → canonical" in page
    assert "script" not in page.partition("<body>")[2]
    assert "- **convention**, 2 cases" in (folder / "moved" / "changes.md").read_text()
    suite = ElementTree.parse(folder / "moved" / "changes.xml").getroot()
    assert {name: suite.get(name) for name in ("tests", "failures")} == {"tests": "3", "failures": "2"}
    run = read(folder / "moved")
    assert [target["facts"]["version"] for target in run.targets] == ["1.0", "2.0"]
    assert all(line["status"] == "expected" for line in run.verdicts)


def test_an_upgrade_that_changes_nothing_exits_with_0_strictly_too(conformance: Command) -> None:
    said = conformance("upgrade", "./tinyframe==2.0", "./tinyframe==2.1", "small.yaml", "-o", "same", "--strict")
    assert said.code == 0, said.out + said.err
    assert "Tinyframe 2.0 → Tinyframe 2.1: 3 cases, every one the same to the last bit." in said.out


def test_an_upgrade_that_rounds_otherwise_exits_with_0_and_strictly_with_1(conformance: Command, folder: Path) -> None:
    said = conformance("upgrade", "./tinyframe==2.0", "./tinyframe==3.0", "small.yaml", "-o", "rounded")
    assert said.code == 0, said.out + said.err
    assert "nothing changed beyond the bound on rounding in 3 cases; 2 moved within it." in said.out
    assert " ULP; farther from exact arithmetic in " in (folder / "rounded" / "changes.html").read_text()
    for version in ("2.0", "3.0"):
        one = conformance("run", "small.yaml", "-t", f"./tinyframe=={version}", "-o", f"run-{version}")
        assert one.code == 0, one.out + one.err
    assert conformance("compare", "run-2.0", "run-3.0").code == 0
    strict = conformance("compare", "run-2.0", "run-3.0", "--strict", "-o", "strict")
    assert strict.code == 1
    assert ElementTree.parse(folder / "strict" / "changes.xml").getroot().get("failures") == "2"


def test_an_environment_that_cannot_be_built_exits_with_3_and_pips_words(conformance: Command, folder: Path) -> None:
    said = conformance("upgrade", "./tinyframe==1.0", "./tinyframe==9.9", "small.yaml", "-o", "never")
    assert said.code == 3
    assert "No matching distribution found for tinyframe==9.9" in said.out
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("numpy==1.26.4", "numpy==1.26.4", "are the same"),
        ("numpy==1.26.4", "torch==2.13.0", "an upgrade is between versions of one framework"),
        ("nonsense==1", "numpy==1.26.4", "no target 'nonsense'"),
    ],
)
def test_what_is_no_upgrade_is_told_before_anything_is_installed(
    conformance: Command, old: str, new: str, words: str
) -> None:
    said = conformance("upgrade", old, new)
    assert (said.code, said.out) == (2, "")
    assert words in said.err


def test_history_shows_where_a_convention_disappears(conformance: Command, folder: Path, old_run: str) -> None:
    said = conformance("history", old_run, "./tinyframe==2.0", "-p", "small.yaml", "-o", "past")
    assert said.code == 0, said.out + said.err
    text = (folder / "past" / "history.md").read_text()
    assert "| running-variance-biased | 2 | · |" in text
    assert "on 3 cases of 1 topic: small." in text
    assert "| unexpected | · | · |" in text
    assert "running-variance-biased" in (folder / "past" / "history.html").read_text()


def test_history_goes_on_past_a_version_that_cannot_be_had(conformance: Command, folder: Path, old_run: str) -> None:
    said = conformance("history", old_run, "./tinyframe==9.9", "-p", "small.yaml", "-o", "gap")
    assert said.code == 3
    text = (folder / "gap" / "history.md").read_text()
    assert "| conventional | 2 | did not run |" in text
    assert "No matching distribution found" in text


def test_a_baseline_that_holds_exits_with_0_and_counts_what_was_not_asked_for(
    conformance: Command, old_run: str
) -> None:
    held = ("run", "small.yaml", "-t", "./tinyframe==1.0", "--baseline", "base", "-o", "again", "-k", "trains")
    said = conformance(*held)
    assert said.code == 0, said.out + said.err
    assert "2 cases, every one the same to the last bit." in said.out
    assert "1 cases of the old side were not asked for" in said.out


def test_a_change_since_the_baseline_exits_with_1_though_every_verdict_is_expected(
    conformance: Command, folder: Path, old_run: str
) -> None:
    moved = ("run", "small.yaml", "-t", "./tinyframe==2.0", "--baseline", "base", "-o", "new")
    said = conformance(*moved)
    assert said.code == 1
    assert "convention 2 ×" in said.out
    assert "To make this the baseline: conformance baseline update base new" in said.out
    assert (folder / "new" / "changes.html").is_file()


def test_the_same_results_make_the_same_baseline(conformance: Command, folder: Path, old_run: str) -> None:
    assert conformance("run", "small.yaml", "-t", "./tinyframe==1.0", "-o", "more").code == 0
    assert conformance("baseline", "update", "base2", "more").code == 0
    for name in ("results.jsonl", "cases.jsonl", "arrays.safetensors"):
        assert (folder / "base2" / name).read_bytes() == (folder / "base" / name).read_bytes()


def test_an_unexpected_verdict_has_to_be_blessed_by_name(conformance: Command, folder: Path) -> None:
    (folder / "strange.yaml").write_text(
        "conformance: 1\nabout: One verdict that nobody expects.\ncases:\n  odd:\n    why: A test needs it.\n"
        "    layer: {}\n    input: {shape: [4, 3], normal: {}}\n"
        "    expect: {tinyframe: {refuses: ValueError, because: it does not}}\n"
    )
    assert conformance("run", "strange.yaml", "-t", "./tinyframe==2.0", "-o", "odd").code == 1
    refused = conformance("baseline", "update", "blessed", "odd")
    assert refused.code == 1
    assert "strange/odd on ./tinyframe==2.0: conforms" in refused.out
    assert not (folder / "blessed").exists()
    assert conformance("baseline", "update", "blessed", "odd", "--bless", "strange/other").code == 2
    assert conformance("baseline", "update", "blessed", "odd", "--bless", "strange/odd").code == 0
    assert conformance("baseline", "update", "blessed", "odd").code == 0  # it is not new any more
    held = conformance("run", "strange.yaml", "-t", "./tinyframe==2.0", "-o", "odd2", "--baseline", "blessed")
    assert held.code == 0, held.out


def test_pytest_holds_results_against_a_baseline(conformance: Command, old_run: str) -> None:
    installed = entry_points(group="pytest11", name="conformance")
    plugin = () if installed else ("-p", "conformance.pytest_plugin")
    ours = ("-q", *plugin, "-p", "no:cacheprovider", "small.yaml")
    against = ("--conformance-baseline", "base", "--conformance-target")
    held = conformance(*ours, *against, "./tinyframe==1.0", module="pytest")
    assert held.code == 0, held.out
    assert "3 passed" in held.out
    moved = conformance(*ours, *against, "./tinyframe==2.0", module="pytest")
    assert moved.code == 1
    assert "2 failed, 1 passed" in moved.out
    assert "changed since the baseline: convention: conventional (running-variance-biased) → canonical" in moved.out
    assert "version 1.0 → 2.0" in moved.out


def test_shards_of_one_run_merge_into_what_the_whole_would_be(conformance: Command, folder: Path, old_run: str) -> None:
    for name in ("evaluates", "trains"):
        assert conformance("run", "small.yaml", "-t", "./tinyframe==1.0", "-o", name, "-k", name).code == 0
    said = conformance("merge", "evaluates", "trains", "-o", "merged")
    assert said.code == 0, said.err
    compared = conformance("compare", old_run, "merged", "--strict")
    assert compared.code == 0, compared.out
    whole, merged = (read(folder / name) for name in (old_run, "merged"))
    assert (merged.footer["cases"], merged.footer["verdicts"]) == (whole.footer["cases"], whole.footer["verdicts"])
    assert merged.array("small/trains[momentum=0.1]", "./tinyframe==1.0", "y[0]") is not None


def test_shards_by_target_have_no_pairs_and_say_so(conformance: Command, folder: Path, old_run: str) -> None:
    conformance("run", "small.yaml", "-t", "numpy", "-o", "other-target")
    said = conformance("merge", old_run, "other-target", "-o", "by-target")
    assert said.code == 0, said.err
    assert "./tinyframe==1.0 and numpy ran in different shards" in said.err
    assert not list(read(folder / "by-target").pairs)
    whole = conformance("run", "small.yaml", "-t", "numpy", "-t", "./tinyframe==1.0", "-o", "both")
    assert whole.code == 0
    assert without_pairs(read(folder / "both")) == []


def test_what_are_no_shards_is_told(conformance: Command, folder: Path, old_run: str) -> None:
    twice = conformance("merge", old_run, old_run, "-o", "no")
    assert twice.code == 2
    assert "is in old and in old" in twice.err
    assert "nothing to merge" in conformance("merge", old_run).err
    other = folder / "other"
    other.mkdir(exist_ok=True)
    for name in ("cases.jsonl", "arrays.safetensors", "results.jsonl"):
        (other / name).write_bytes((folder / old_run / name).read_bytes())
    info = json.loads((folder / old_run / "run.json").read_text())
    info["platform"]["processor"] = "another"
    (other / "run.json").write_text(json.dumps(info))
    assert "differ in platform" in conformance("merge", old_run, "other", "-o", "no").err
