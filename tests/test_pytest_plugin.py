"""Behaviour of the pytest plugin: what is collected, under which names, and what becomes of each verdict."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import ROOT

from conformance import cli, crew, pytest_bench, pytest_plugin, session  # noqa: F401 - or pytester imports them anew
from conformance.target import Target
from conformance.worker import Worker

MISBEHAVING = ROOT / "tests" / "misbehaving"

# Where the suite is not installed the plugin has to be named, and this process has imported it already.
pytestmark = pytest.mark.filterwarnings("ignore:Module already imported:pytest.PytestAssertRewriteWarning")

#: Hypothesis's plugin would be imported anew for every test.
PLUGIN = ["-p", "no:hypothesispytest"]
if not entry_points(group="pytest11", name="conformance"):
    PLUGIN += ["-p", pytest_plugin.__name__]

CASES = """\
conformance: 1
about: Small cases.
defaults:
  why: A test needs it.
  layer: {}
  input: {shape: [4, 3, 2, 2], normal: {}}
cases:
  plain:
  unlucky: {input: {shape: [4, 13, 2, 2]}, steps: [eval]}
  matrix:
    matrix: {layer.eps: [1e-5, 0.1]}
    input: {dtype: float16}
    layer: {dtype: bfloat16}
"""


@pytest.fixture
def folder(pytester: pytest.Pytester, suite_importable: None) -> Path:
    """The folder that pytest runs in, with a case file."""
    return write(pytester.path, CASES)


def write(folder: Path, text: str, name: str = "cases/small.yaml") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def options(*targets: str) -> list[str]:
    """The plugin, and the targets it runs on."""
    return [*PLUGIN, *(f"--conformance-target={target}" for target in targets or ("numpy",))]


def misbehaving(fault: str) -> str:
    return f"{MISBEHAVING},fault={fault}"


def spelled(fault: str) -> str:
    """The same in a folder of the test's own, with a template for scripts."""
    shutil.copytree(MISBEHAVING, "tests/spelled")
    shutil.copytree(ROOT / "adapters" / "numpy", "adapters/numpy")  # which it looks for beside its own
    shutil.copy(ROOT / "adapters" / "torch" / "repro.py.j2", "tests/spelled")
    return f"./tests/spelled,fault={fault}"


def node_ids(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line and " " not in line]


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """Node id → outcome, from ``-rA``.

    pytest 9.2 takes all that follows a bracket for parameters, and adds the bracket that it thinks was lost.
    """
    words = ("PASSED", "FAILED", "XFAIL", "ERROR")
    lines = (line.partition(" ") for line in result.outlines)
    return {rest.partition(" - ")[0].removesuffix("]"): word for word, _, rest in lines if word in words}


# What is collected


def test_an_item_is_a_case_on_a_target_or_on_a_pair(pytester: pytest.Pytester, folder: Path) -> None:
    other = str(MISBEHAVING)
    result = pytester.runpytest(*options("numpy", other), "--collect-only", "-q")
    assert node_ids(result) == [
        f"cases/small.yaml::{case}::{target}"
        for case in ("plain", "unlucky", "matrix[eps=1e-05]", "matrix[eps=0.1]")
        for target in ("numpy", other, f"numpy~{other}")
    ]


def test_a_case_is_collected_for_the_frameworks_it_speaks_to(pytester: pytest.Pytester) -> None:
    text = """\
conformance: 1
about: Cases of a framework's own.
cases:
  torch-only: {why: x, native: {torch: {num_features: 3}}, input: {shape: [4, 3], normal: {}}}
  both: {why: x, native: {numpy: {features: 3}, torch: {num_features: 3}}, input: {shape: [4, 3], normal: {}}}
  signature: {why: x, rank: 1, signature: {numpy: {}, misbehaving: {}}}
"""
    write(pytester.path, text)
    result = pytester.runpytest(*options("numpy", str(MISBEHAVING)), "--collect-only", "-q")
    assert node_ids(result) == [
        "cases/small.yaml::both::numpy",
        "cases/small.yaml::signature::numpy",
        f"cases/small.yaml::signature::{MISBEHAVING}",
    ]


def test_other_yaml_is_left_alone(pytester: pytest.Pytester, folder: Path) -> None:
    write(folder, "services: {web: {image: x}}", "compose.yaml")
    write(folder, "a: [", "broken.yml")
    write(folder, "about: conformance\nnested:\n  conformance: 1\n", "nested.yaml")
    write(folder, CASES, "cases/small.txt")
    write(folder, "", "empty.yaml")
    result = pytester.runpytest(*options(), "--collect-only", "-q")
    assert result.ret == 0
    assert {line.partition("::")[0] for line in node_ids(result)} == {"cases/small.yaml"}


def test_a_bad_case_file_is_a_collection_error_that_names_the_place(pytester: pytest.Pytester, folder: Path) -> None:
    write(folder, CASES.replace("eps:", "esp:").replace("eval", "evil"), "cases/bad.yaml")
    result = pytester.runpytest(*options())
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*cases/bad.yaml:9:*", "*cases/bad.yaml:11:*esp*did you mean*eps*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_an_unknown_target_is_named_with_the_nearest(pytester: pytest.Pytester, folder: Path) -> None:
    result = pytester.runpytest(*options("nunpy"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no target 'nunpy' (did you mean numpy?)"])


def test_targets_have_names_in_conformance_toml(pytester: pytest.Pytester, folder: Path) -> None:
    write(folder, '[targets]\nmine = "numpy,threads=2"\n', "conformance.toml")
    result = pytester.runpytest(*options("mine"), "--collect-only", "-q", "-k", "plain")
    assert node_ids(result) == ["cases/small.yaml::plain::mine"]


def test_items_stand_at_their_line(pytester: pytest.Pytester, folder: Path) -> None:
    record = pytester.inline_run(*options(), "-k", "not float16 and not matrix")
    reports = record.getreports("pytest_runtest_logreport")
    assert {report.nodeid: report.location for report in reports} == {
        "cases/small.yaml::plain::numpy": ("cases/small.yaml", 7, "plain::numpy"),
        "cases/small.yaml::unlucky::numpy": ("cases/small.yaml", 8, "unlucky::numpy"),
    }


def test_a_run_without_case_files_pays_nothing(pytester: pytest.Pytester, suite_importable: None) -> None:
    pytester.makepyfile("def test_something(): pass")
    code = f"import sys, pytest; pytest.main({PLUGIN!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60, check=True)
    assert "1 passed" in done.stdout
    assert {"conformance.pytest_plugin"} <= set(done.stdout.split())
    assert not {"numpy", "pydantic", "ruamel.yaml", "conformance.load"} & set(done.stdout.split())


# Verdicts

EXPECTING = """\
conformance: 1
about: What may become of a case.
defaults:
  why: A test needs it.
  layer: {rank: 1}
  input: {shape: [4, 13], normal: {}}
cases:
  expected: {expect: {misbehaving: {EXPECTED: it is unlucky}}}
  unexpected:
  refused-as-declared: {input: {shape: [1, 3], normal: {}}}
  lucky: {input: {shape: [4, 3], normal: {}}}
"""


def expecting(result: str) -> str:
    return EXPECTING.replace("EXPECTED", f"{result}, because")


@pytest.mark.parametrize(
    ("fault", "result", "expected"),
    [
        ("returns_a_wrong_shape", "diverges: shape", "XFAIL"),
        ("refuses", "refuses: ArithmeticError", "SKIPPED"),
        ("dies", "crashes: true", "XFAIL"),
        ("none", "diverges: shape", "FAILED"),
        ("returns_a_wrong_dtype", "diverges: shape", "FAILED"),
        ("refuses", "refuses: ValueError", "FAILED"),
        ("raises", "crashes: true", "FAILED"),
    ],
)
def test_an_expectation_that_holds_is_xfail_or_skipped_and_any_other_verdict_fails(
    fault: str, result: str, expected: str, pytester: pytest.Pytester
) -> None:
    write(pytester.path, expecting(result))
    target = misbehaving(fault)
    run = pytester.runpytest(*options(target), "-rA", "-k", "expected or lucky")
    skipped = [line for line in run.outlines if line.startswith("SKIPPED") and "it is unlucky" in line]
    found = {node.split("::")[1]: outcome for node, outcome in outcomes(run).items() if "::" in node}
    assert found.get("expected", "SKIPPED" if skipped else None) == expected
    assert found["unexpected"] == ("PASSED" if fault == "none" else "FAILED")
    assert found["lucky"] == "PASSED"
    if expected == "XFAIL":
        run.stdout.fnmatch_lines(["XFAIL cases/small.yaml::expected::* - *it is unlucky"])


def test_an_xfail_is_its_reason_and_costs_no_traceback(pytester: pytest.Pytester) -> None:
    write(pytester.path, expecting("diverges: shape"))
    run = pytester.inline_run(*options(misbehaving("returns_a_wrong_shape")), "-k", "expected")
    (report,) = [one for one in run.getreports("pytest_runtest_logreport") if hasattr(one, "wasxfail")]
    assert isinstance(report.longrepr, str)
    assert "it is unlucky" in report.longrepr


def test_a_skip_points_at_the_line_of_its_case(pytester: pytest.Pytester, folder: Path) -> None:
    expect = "expect: {misbehaving: {refuses: ArithmeticError, because: it is unlucky}}"
    write(folder, CASES.replace("unlucky: {", f"unlucky: {{{expect}, "))
    result = pytester.runpytest(*options(misbehaving("refuses")), "-rs", "-k", "unlucky")
    result.stdout.fnmatch_lines([f"SKIPPED [[]1] {Path('cases', 'small.yaml')}:9: *it is unlucky"])


def test_no_test_for_want_of_a_framework_says_so(
    pytester: pytest.Pytester, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.target.installed", lambda package: None)
    result = pytester.runpytest(*PLUGIN, "-q")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    words = (
        "conformance: no test came of 1 case file: no framework is installed here (pip install '*[[]torch]', or name *"
    )
    result.stdout.fnmatch_lines([words])


def test_no_test_for_want_of_a_case_that_speaks_to_the_target_says_so(pytester: pytest.Pytester, folder: Path) -> None:
    native = CASES.replace("layer: {}", "native: {torch: {num_features: 3}}").replace("layer.eps: [1e-5", "repeat: [1")
    write(folder, native.replace("[1, 0.1]", "[1, 2]").replace("layer: {dtype: bfloat16}", ""))
    result = pytester.runpytest(*options("numpy"))
    result.stdout.fnmatch_lines(["conformance: no test came of 1 case file: no case speaks to numpy (name others *"])
    assert "no test came of" not in pytester.runpytest(*options("torch"), "-k", "nothing").stdout.str()


def test_a_refusal_that_the_profile_declares_is_skipped_with_its_reason(pytester: pytest.Pytester) -> None:
    write(pytester.path, CASES.replace("[4, 3, 2, 2]", "[1, 3, 1, 1]"))
    result = pytester.runpytest(*options("numpy"), "-rs", "-k", "plain")
    result.assert_outcomes(skipped=1, deselected=3)
    result.stdout.fnmatch_lines(["SKIPPED * ValueError: expected more than 1 value*; an unbiased variance needs two*"])


def test_pairs_agree_differ_as_expected_or_fail(pytester: pytest.Pytester) -> None:
    write(pytester.path, expecting("diverges: shape"))
    target = misbehaving("returns_a_wrong_shape")
    result = pytester.runpytest(*options("numpy", target), "-rA", "-m", "pair")
    assert {node.split("::")[1]: outcome for node, outcome in outcomes(result).items() if "::" in node} == {
        "expected": "XFAIL",
        "unexpected": "FAILED",
        "refused-as-declared": "PASSED",
        "lucky": "PASSED",
    }
    result.stdout.fnmatch_lines([f"XFAIL *~* - differ: {target}: shape"])


def test_a_target_that_cannot_run_fails_its_items_alone(pytester: pytest.Pytester, folder: Path) -> None:
    target = misbehaving("is_unavailable")
    result = pytester.runpytest(*options("numpy", target), "-rA", "-k", "plain")
    assert outcomes(result) == {
        "cases/small.yaml::plain::numpy": "PASSED",
        f"cases/small.yaml::plain::{target}": "FAILED",
        f"cases/small.yaml::plain::numpy~{target}": "FAILED",
    }
    result.stdout.fnmatch_lines([f"{target} cannot run: there is no such device here"])


def test_files_of_one_name_in_two_folders_are_judged_apart(pytester: pytest.Pytester) -> None:
    """Both give the id small/case, one that conforms and one that is refused."""
    text = "conformance: 1\nabout: x\ncases: {case: {why: x, layer: {rank: 1}, input: {shape: [N, 3], normal: {}}}}\n"
    write(pytester.path, text.replace("N", "4"), "one/small.yaml")
    write(pytester.path, text.replace("N", "1"), "two/small.yaml")
    pytester.runpytest(*options()).assert_outcomes(passed=1, skipped=1)


# Failures

SHOUTING = """
import os, sys
from conformance.harness import Adapter

class Shouting(Adapter):
    def start(self, options):
        return {"version": "1", "device": "cpu"}

    def build(self, layer):
        for n in range(1000):
            print("\\x1b[31mline", n, "of many", file=sys.stderr, flush=True)
        os._exit(1)
"""


def failures(result: pytest.RunResult) -> list[list[str]]:
    """The lines below each failure's headline."""
    section = "\n".join(result.outlines).partition("= FAILURES =")[2].partition("\n=")[0]
    return [part.splitlines()[1:] for part in re.split(r"^_", section, flags=re.MULTILINE)[1:]]


def test_a_failure_says_what_and_why_and_how_to_see_more(
    pytester: pytest.Pytester, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spelled("returns_a_wrong_shape")
    (lines,) = failures(pytester.runpytest(*options(target), "-k", "unlucky"))
    assert lines == [
        f"{target}: divergent, expected conforms or conventional",
        "because: y[0] has shape [13, 2, 2], not [4, 13, 2, 2]",
        f"see: conformance explain small/unlucky -p cases/small.yaml -t {target}",
        f"repro: conformance repro small/unlucky -p cases/small.yaml -t {target}",
    ]
    monkeypatch.setattr(sys, "argv", shlex.split(lines[-2].removeprefix("see: ")))
    with pytest.raises(SystemExit) as exited:
        cli.app()
    assert exited.value.code == 0
    assert "divergent, unexpected" in capsys.readouterr().out


@pytest.mark.parametrize(("of", "fault"), [(misbehaving, "returns_a_wrong_shape"), (spelled, "cannot_say")])
def test_a_failure_that_no_script_can_show_offers_none(
    of: Callable[[str], str], fault: str, pytester: pytest.Pytester, folder: Path
) -> None:
    """Without a template, and of a case that the adapter has no words for."""
    first, *_ = failures(pytester.runpytest(*options(of(fault)), "-k", "unlucky"))
    assert any(line.startswith("see: ") for line in first)
    assert not any(line.startswith("repro: ") for line in first)


def test_a_pair_that_differs_says_how_to_see_more(pytester: pytest.Pytester, folder: Path) -> None:
    target = misbehaving("returns_a_wrong_shape")
    (lines,) = failures(pytester.runpytest(*options("numpy", target), "-k", "unlucky", "-m", "pair"))
    assert lines[0] == f"numpy and {target} differ: {target}: shape"
    assert lines[-1] == f"see: conformance explain small/unlucky -p cases/small.yaml -t numpy -t {target}"


def test_a_failure_shows_the_worst_element_against_its_bound(pytester: pytest.Pytester) -> None:
    text = """\
conformance: 1
about: A document that is wrong.
cases:
  wrong:
    why: x
    native: {numpy: {features: 2}}
    input: {values: [[1, 2], [3, 5]]}
    steps: [train]
    documented: {numpy: {source: a dream, tensors: {"running_mean[0]": "0.2 0.9"}}}
"""
    write(pytester.path, text)
    (lines,) = failures(pytester.runpytest(*options()))
    row = next(line for line in lines if line.startswith("  running_mean[0]"))
    assert "[1] off by 0.55, 11 times its bound (" in row
    assert "received: BatchNorm(rank=1, features=2)" in lines


def test_a_failure_fits_on_a_screen_and_leaves_the_terminal_alone(pytester: pytest.Pytester, folder: Path) -> None:
    write(folder, (MISBEHAVING / "profile.yaml").read_text(encoding="utf-8"), "shouting/profile.yaml")
    write(folder, SHOUTING, "shouting/adapter.py")
    result = pytester.runpytest(*options("./shouting"), "-k", "plain")
    (lines,) = failures(result)
    assert len(lines) <= 24
    assert "line 999 of many" in lines
    assert "\x1b" not in "".join(lines)


def test_a_name_of_a_file_does_not_act_through_a_failure(pytester: pytest.Pytester, folder: Path) -> None:
    (folder / "cases" / "small.yaml").rename(folder / "cases" / "\x1b[31mred\u202e.yaml")
    result = pytester.runpytest(*options(spelled("refuses")))
    # Where CI is set pytest's summary says every line once more.
    said = {line for line in result.outlines if line.startswith(("see: ", "repro: "))}
    assert len(said) == 6
    assert all(line.isprintable() for line in said)


def test_a_mistake_of_the_suites_own_keeps_its_traceback(
    pytester: pytest.Pytester, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest_bench.Bench, "side", lambda *_: 1 / 0)
    result = pytester.runpytest(*options(), "-k", "plain")
    result.stdout.fnmatch_lines(["*ZeroDivisionError*"])


# Choosing


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("cases/small.yaml::plain::numpy", ["plain::numpy"]),
        ("cases/small.yaml::plain", ["plain::numpy", "plain::OTHER", "plain::numpy~OTHER"]),
        ("cases/small.yaml::plain::numpy~OTHER", ["plain::numpy~OTHER"]),
        ("cases/small.yaml::matrix[eps=0.1]::numpy", ["matrix[eps=0.1]::numpy"]),
        ("cases/small.yaml::matrix[eps=1e-05]::numpy~OTHER", ["matrix[eps=1e-05]::numpy~OTHER"]),
    ],
)
def test_a_node_id_selects_its_items(
    node: str, expected: Sequence[str], pytester: pytest.Pytester, folder: Path
) -> None:
    other = str(MISBEHAVING)
    result = pytester.runpytest(*options("numpy", other), "--collect-only", "-q", node.replace("OTHER", other))
    assert node_ids(result) == [f"cases/small.yaml::{name.replace('OTHER', other)}" for name in expected]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["-k", "matrix and 0.1"], ["matrix[eps=0.1]"]),
        (["-k", "plain or unlucky"], ["plain", "unlucky"]),
        (["-m", "train"], ["plain", "matrix[eps=1e-05]", "matrix[eps=0.1]"]),
        (["-m", "eval"], ["unlucky"]),
        (["-m", "float16"], ["matrix[eps=1e-05]", "matrix[eps=0.1]"]),
        (["-m", "float32 and train"], ["plain"]),
        (["-m", "numpy"], ["plain", "unlucky", "matrix[eps=1e-05]", "matrix[eps=0.1]"]),
        (["-m", "torch or keras or mindspore or pair"], []),
    ],
)
def test_items_are_chosen_by_words_and_by_markers(
    chosen: list[str], expected: list[str], pytester: pytest.Pytester, folder: Path
) -> None:
    result = pytester.runpytest(*options(), "--strict-markers", "--collect-only", "-q", *chosen)
    assert node_ids(result) == [f"cases/small.yaml::{name}::numpy" for name in expected]


def test_pairs_carry_the_markers_of_both(pytester: pytest.Pytester, folder: Path) -> None:
    other = str(MISBEHAVING)
    result = pytester.runpytest(
        *options("numpy", other), "--collect-only", "-q", "-m", "numpy and misbehaving and pair", "-k", "plain"
    )
    assert node_ids(result) == [f"cases/small.yaml::plain::numpy~{other}"]


def test_pairs_of_two_devices_are_chosen_by_both(pytester: pytest.Pytester, folder: Path) -> None:
    targets = options("torch", "torch,device=cuda", "keras")
    result = pytester.runpytest(*targets, "--collect-only", "-q", "-m", "cpu and cuda and torch", "-k", "plain")
    assert node_ids(result) == [
        "cases/small.yaml::plain::torch~torch,device=cuda",
        "cases/small.yaml::plain::torch,device=cuda~keras",
    ]


def test_markers_explain_themselves(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(*PLUGIN, "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.pair: *", "@pytest.mark.train: *", "@pytest.mark.float32: *"])


def test_a_target_that_was_deselected_is_not_started(
    pytester: pytest.Pytester, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    class Recorded(Worker):
        def __init__(self, target: Target, *rest: Any) -> None:
            started.append(target.name)
            super().__init__(target, *rest)

    monkeypatch.setattr(crew, "Worker", Recorded)
    result = pytester.runpytest(*options("numpy", str(MISBEHAVING)), "-m", "not misbehaving")
    result.assert_outcomes(passed=2, skipped=2, deselected=8)
    assert started == ["numpy"]


# With pytest's own options


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_last_failed_runs_what_failed(processes: list[str], pytester: pytest.Pytester, folder: Path) -> None:
    """The unlucky case, and the two of two halves, which this target refuses without having said so."""
    target = misbehaving("returns_a_wrong_shape")
    if processes:
        pytest.importorskip("xdist")
        first = pytester.runpytest_subprocess(*options(target), *processes)
    else:
        first = pytester.runpytest(*options(target))
    first.assert_outcomes(passed=1, failed=3)
    result = pytester.runpytest(*options(target), "--lf", "-rA")
    assert outcomes(result) == {
        f"cases/small.yaml::{name}::{target}": "FAILED" for name in ("unlucky", "matrix[eps=1e-05]", "matrix[eps=0.1]")
    }


def test_the_first_failure_may_end_it(pytester: pytest.Pytester, folder: Path) -> None:
    result = pytester.runpytest(*options(misbehaving("returns_a_wrong_shape")), "-x", "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*matrix*")


def test_two_processes_find_the_same(pytester: pytest.Pytester, folder: Path) -> None:
    pytest.importorskip("xdist")
    target = misbehaving("returns_a_wrong_shape")
    arguments = [*options("numpy", target), "-rA"]
    alone = outcomes(pytester.runpytest(*arguments))
    together = outcomes(pytester.runpytest_subprocess(*arguments, "-n", "2"))
    assert together == alone
    assert len(alone) > 4


#: Writes down what it runs, and returns too little of it.
DIARY = """
from conformance.harness import Adapter

class Diary(Adapter):
    def start(self, options):
        return {{"version": "1"}}

    def build(self, layer):
        with open({file!r}, "a") as diary:
            print(layer.eps, file=diary)
        return layer

    def step(self, layer, step):
        return layer, {{}}

    def state(self, layer):
        return {{}}
"""


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one", "two"])
def test_no_case_is_run_twice_or_for_nothing(
    processes: list[str], pytester: pytest.Pytester, suite_importable: None
) -> None:
    """Where pytest-xdist hands out the items, what one process looks ahead at is what it will run itself."""
    if processes:
        pytest.importorskip("xdist")
    numbers = [n / 1000 for n in range(1, 301)]
    write(pytester.path, CASES.partition("cases:")[0] + f"cases: {{matrix: {{matrix: {{layer.eps: {numbers}}}}}}}\n")
    write(pytester.path, DIARY.format(file=str(pytester.path / "log")), "diary/adapter.py")
    write(pytester.path, (MISBEHAVING / "profile.yaml").read_text(encoding="utf-8"), "diary/profile.yaml")
    arguments = [*PLUGIN, "--conformance-target=./diary", "--tb=no", *processes, "cases"]
    pytester.runpytest_subprocess(*arguments).assert_outcomes(failed=300)
    assert sorted(map(float, (pytester.path / "log").read_text().split())) == numbers


def test_junit_xml_holds_every_item(pytester: pytest.Pytester, folder: Path) -> None:
    write(pytester.path, expecting("refuses: ArithmeticError"))
    pytester.runpytest(*options(misbehaving("refuses")), "--junitxml", "junit.xml")
    cases = {
        case.get("classname", "").rpartition(".")[2]: [(child.tag, child.get("message")) for child in case]
        for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase")
    }
    assert cases["lucky"] == []
    assert cases["expected"][0][0] == "skipped"
    assert "it is unlucky" in str(cases["expected"][0][1])
    assert cases["unexpected"][0][0] == "failure"
    assert "refused, expected conforms or conventional" in str(cases["unexpected"][0][1])


# Faults while it runs


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one", "two"])
def test_a_worker_that_dies_costs_its_items_alone(
    processes: list[str], pytester: pytest.Pytester, folder: Path
) -> None:
    words = *options(misbehaving("dies"), "numpy"), "-rA", "-k", "not matrix", *processes
    found = outcomes(pytester.runpytest_subprocess(*words))
    dying, pair = misbehaving("dies"), f"{misbehaving('dies')}~numpy"
    assert {node for node, outcome in found.items() if outcome != "PASSED"} == {
        f"cases/small.yaml::unlucky::{target}" for target in (dying, pair)
    }
    assert len(found) == 6


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one", "two"])
def test_ctrl_c_ends_a_session_and_its_workers(
    processes: list[str], pytester: pytest.Pytester, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer hangs in its case; what workers wrote goes too."""
    monkeypatch.setenv("TMPDIR", str(folder / "temporary"))
    (folder / "temporary").mkdir()
    words = [sys.executable, "-m", "pytest", *options(misbehaving("hangs")), *processes]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not any("last words" in log.read_text() for log in (folder / "temporary").glob("*/log")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert list((folder / "temporary").glob("conformance-*")) == []
