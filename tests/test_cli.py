"""Behaviour of the command line: exit codes, what is printed where, and what is left on disk."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from typer.main import get_command

from conformance import cli, crew
from conformance.commands import targets as targets_command
from conformance.commands.interruption import Interruption
from conformance.crew import Interrupted
from conformance.damage import RunDamage
from conformance.pool import Pool
from conformance.problem import Problem
from conformance.record import RunWriter
from conformance.run_folder import read
from conformance.suite_version import suite_version
from conformance.target import Target, installed, parse

MISBEHAVING = ROOT / "tests" / "misbehaving"

#: Three cases; misbehaving targets go wrong on the second.
CASES = """\
conformance: 1
about: Small cases.
defaults:
  why: A test needs it.
  layer: {}
  input: {shape: [4, 3, 2, 2], normal: {}}
  steps: [train, eval]
cases:
  first:
  unlucky: {input: {shape: [4, 13, 2, 2]}}
  last: {matrix: {layer.eps: [1e-5, 0.1]}}
"""


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback (most recent call last)" not in err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with small.yaml in it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CASES)
    return tmp_path


def conformance(*arguments: str) -> Said:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "conformance", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Said]]:
    """The command in this process, which is quicker."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["conformance", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return Said(int(caught.value.code or 0), said.out, said.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


Command = Callable[..., Said]

# run


def test_a_run_as_expected_exits_with_0_and_says_where_the_report_is(folder: Path) -> None:
    said = conformance("run", "small.yaml", "-t", "numpy", "-o", "out")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[:4] == [
        "numpy: 1 of 4 · small/first",
        "numpy: 2 of 4 · small/unlucky",
        "numpy: 3 of 4 · small/last[eps=1e-05]",
        "numpy: 4 of 4 · small/last[eps=0.1]",
    ]
    assert [word.strip() for word in lines[5].split("┃")] == ["target", "version", "conforms", "unexpected"]
    assert [word.strip() for word in lines[7].split("│")][::2] == ["numpy", "4"]
    assert lines[-1] == f"Report: {Path('out', 'report.html')}"
    assert sorted(os.listdir(folder)) == ["out", "small.yaml"]
    assert {"report.html", "junit.xml", "summary.md", "run.json"} <= set(os.listdir(folder / "out"))
    run = read(folder / "out")
    assert run.info["command"] == ["conformance", "run", "small.yaml", "-t", "numpy", "-o", "out"]
    assert [line["verdict"] for line in run.verdicts] == ["conforms"] * 4


def test_without_a_folder_named_a_run_gets_one_by_its_time(command: Command, folder: Path) -> None:
    assert command("run", "small.yaml", "-t", "numpy", "-k", "first").code == 0
    (run,) = (folder / "conformance-runs").iterdir()
    assert len(read(run).verdicts) == 1


def test_a_run_names_the_one_that_it_replaces(command: Command, folder: Path) -> None:
    first = command("run", "small.yaml", "-t", "numpy", "-k", "first", "-o", "out")
    assert "replaces" not in first.out
    started = read(folder / "out").info["started"][:16].replace("T", " ")
    again = command("run", "small.yaml", "-t", "numpy,threads=2", "-o", "out")
    words = f"out holds the run of {started} on numpy, which this one replaces once it is whole"
    assert again.out.splitlines()[0] == words
    assert len(read(folder / "out").verdicts) == 4


def test_progress_is_a_line_per_tenth(command: Command, folder: Path) -> None:
    many = CASES.replace("[1e-5, 0.1]", str([n / 100 for n in range(1, 39)]))
    (folder / "many.yaml").write_text(many)
    said = command("run", "many.yaml", "-t", "numpy", "-o", "out")
    assert [line.split(" · ")[0] for line in said.out.splitlines() if " of " in line] == [
        f"numpy: {done} of 40" for done in range(4, 41, 4)
    ]


def test_an_unexpected_verdict_exits_with_1_and_is_named(folder: Path) -> None:
    said = conformance("run", "small.yaml", "-t", f"{MISBEHAVING},fault=returns_a_wrong_shape", "-o", "out")
    assert said.code == 1
    assert "2 of 4, 1 unexpected · small/unlucky" in said.out
    assert (
        f"unexpected {MISBEHAVING},fault=returns_a_wrong_shape divergent small/unlucky: "
        "y[0] has shape [13, 2, 2], not [4, 13, 2, 2] (expected conforms or conventional)"
    ) in said.out
    assert said.out.endswith(f"Report: {Path('out', 'report.html')}\n")


@pytest.mark.parametrize(("fault", "code"), [("dies", 0), ("none", 1), ("refuses", 1)])
def test_an_expectation_must_hold(fault: str, code: int, command: Command, folder: Path) -> None:
    """Expected to crash: it does, it does not any more, it does something else."""
    expect = "expect: {misbehaving: {crashes: true, because: it is unlucky}}"
    (folder / "small.yaml").write_text(CASES.replace("unlucky: {", f"unlucky: {{{expect}, "))
    assert command("run", "small.yaml", "-t", f"{MISBEHAVING},fault={fault}", "-o", "out").code == code
    assert len(read(folder / "out").unexpected) == code


def test_a_case_that_takes_too_long_is_given_up(command: Command, folder: Path) -> None:
    said = command("run", "small.yaml", "-t", f"{MISBEHAVING},fault=hangs", "-o", "out", "--timeout", "2")
    assert said.code == 1
    assert "timeout small/unlucky: no answer within 2 s" in said.out
    assert [line["verdict"] for line in read(folder / "out").verdicts].count("conforms") == 3


def test_a_limit_may_be_infinite(command: Command) -> None:
    assert command("run", "small.yaml", "-t", "numpy", "-o", "out", "--timeout", "inf").code == 0


def test_two_targets_and_two_jobs_are_judged_in_the_order_of_the_cases(command: Command, folder: Path) -> None:
    assert command("run", "small.yaml", "-t", "numpy", "-t", str(MISBEHAVING), "-j", "2", "-o", "out").code == 0
    run = read(folder / "out")
    ids = ["small/first", "small/unlucky", "small/last[eps=1e-05]", "small/last[eps=0.1]"]
    assert [(line["case"], line["target"]) for line in run.verdicts] == [
        (id_, target) for id_ in ids for target in ("numpy", str(MISBEHAVING))
    ]
    assert [line["case"] for line in run.pairs] == ids
    assert list(run.cases) == ids


def test_a_target_that_states_no_version_is_reported_all_the_same(command: Command) -> None:
    assert command("run", "small.yaml", "-t", f"{MISBEHAVING},fault=states_nothing", "-o", "out").code == 0


def test_what_a_framework_prints_does_not_act_on_the_terminal(command: Command, folder: Path) -> None:
    (folder / "rude").mkdir()
    shutil.copy(MISBEHAVING / "profile.yaml", folder / "rude")
    source = "from conformance.harness import Unavailable\nraise RuntimeError('\\x1b[31m[bold]rude[/bold]\\x07')\n"
    (folder / "rude" / "adapter.py").write_text(source)
    said = command("run", "small.yaml", "-t", "./rude", "-o", "out")
    assert "RuntimeError: [bold]rude[/bold]" in said.out
    assert "\x1b" not in said.out
    assert "\x07" not in said.out


# Bad usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "-t", "troch"], "no target 'troch' (did you mean torch?)"),
        (["run", "-t", "numpy", "-t", "numpy"], "a target is named twice"),
        (["run", "-t", "numpy,execution=graph"], "unknown option 'execution'"),
        (["run", "-t", "torch,device=gpu"], "device is one of cpu, cuda, not 'gpu'"),
        (["run", "-t", "torch,compiled"], "'compiled' is no option=value"),
        (["run", "-t", "numpy,host=bogus:x"], "host=bogus:x names no host (write host=ssh:NAME)"),
        (["upgrade", "torch==", "torch==2.15.0"], "target torch==: no version follows =="),
        (["history", "torch==1.9.0", "torch=="], "target torch==: no version follows =="),
        (["run", "-t", "numpy,threads=0"], "threads is a whole number from 1, not '0'"),
        (["run", "-t", "torch", "--device", "tpu"], "PyTorch has no device tpu"),
        (["run", "-t", "./nowhere"], "nowhere is no adapter: it has no adapter.py"),
        (["run", "-t", "numpy", "-k", "a and"], "-k: a word was expected at the end"),
        (["run", "-t", "numpy", "-k", "(a"], "-k: a closing parenthesis is missing"),
        (["run", "-t", "numpy", "-k", "a) b"], "unexpected ')'"),
        (["run", "-t", "numpy", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
        (["run", "-t", "numpy", "-o", "small.yaml", "small.yaml"], "small.yaml is there and is no run folder"),
        (["run", "-t", "numpy", "-o", ".", "small.yaml"], ". is there and is no run folder"),
        (["run", "-t", "numpy", "-o", "small.yaml/out", "small.yaml"], "cannot write a run to"),
        (["run", "-t", "numpy", "-j", "0"], "Invalid value for '-j'"),
        (["run", "-t", "numpy", "--timeout", "soon"], "Invalid value for '--timeout'"),
        (["run", "--tragets", "numpy"], "No such option: --tragets"),
        (["rnu"], "No such command 'rnu'"),
        (["list", "-k", "not"], "-k: a word was expected at the end"),
        (["explain", "small/frist", "-p", "small.yaml", "-t", "numpy"], "(near are small/first"),
        (["explain", "nothing", "-p", "small.yaml", "-t", "numpy"], "(see: conformance list)"),
        (
            ["explain", "small/last", "-p", "small.yaml", "-t", "numpy"],
            "'small/last' stands for 2 cases; name one, in ",
        ),
        (["repro", "small/last", "-p", "small.yaml", "-t", "numpy"], "(small/last[eps=1e-05], small/last[eps=0.1])"),
        (["report", "nowhere"], "nowhere is no run folder: it has no run.json"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_to_do(
    arguments: list[str], words: str, command: Command, folder: Path
) -> None:
    said = command(*arguments)
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert os.listdir(folder) == ["small.yaml"]


def test_bad_case_files_exit_with_2_and_all_their_errors(folder: Path) -> None:
    (folder / "bad.yaml").write_text(CASES.replace("layer: {}", "layer: {esp: 1}").replace("steps:", "stesp:"))
    (folder / "worse.yaml").write_text("conformance: 1\nabout: [")
    said = conformance("run", ".", "-t", "numpy", "-o", "out")
    assert (said.code, said.out) == (2, "")
    assert "bad.yaml:5:11: " in said.err
    assert "esp: " in said.err
    assert "did you mean eps?" in said.err
    assert "bad.yaml:7:3: " in said.err
    assert "worse.yaml:2:" in said.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[targets]\nfast = 3\n", "[targets] gives each target as text"),
        ("[targets\n", "conformance.toml is no TOML"),
        ("[targets]\nfast = 'torhc'\n", "did you mean torch?"),
    ],
)
def test_a_bad_configuration_is_bad_usage(text: str, words: str, command: Command, folder: Path) -> None:
    (folder / "conformance.toml").write_text(text)
    said = command("run", "small.yaml", "-t", "fast", "-o", "out")
    assert said.code == 2
    assert words in said.err


# What cannot run


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("is_unavailable", "refused to start: there is no such device here"),
        ("raises_at_start", "is broken: Traceback"),
        ("dies_at_start", "is broken: the worker died as it started: the process was ended by SIGILL"),
    ],
)
def test_a_target_asked_for_that_cannot_run_exits_with_3(
    fault: str, words: str, command: Command, folder: Path
) -> None:
    """The others are run and reported all the same."""
    absent = f"{MISBEHAVING},fault={fault}"
    said = command("run", "small.yaml", "-t", "numpy", "-t", absent, "-o", "out")
    assert said.code == 3
    assert f"{absent} {words}" in said.out
    assert "numpy: 4 of 4" in said.out
    run = read(folder / "out")
    assert [(target["name"], target["ran"]) for target in run.info["targets"]] == [("numpy", True), (absent, False)]
    assert len(run.verdicts) == 4


@pytest.mark.frameworks
@pytest.mark.skipif(installed("torch") is None, reason="torch is not installed")
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a CUDA device here")
def test_a_device_that_is_not_there_exits_with_3(folder: Path) -> None:
    said = conformance("run", "small.yaml", "-t", "torch,device=cuda", "-o", "out")
    assert said.code == 3
    assert "torch,device=cuda refused to start: torch sees no CUDA device" in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["small.yaml", "-k", "nothing"],
            "no case was selected by -k 'nothing' (conformance list shows the ids)",
        ),
        (["torch-only.yaml"], "of the 3 cases selected none fits: they speak to torch, not to numpy (add -t torch)"),
        (
            [str(ROOT / "cases" / "porting.yaml"), "-k", "fine-tuning and torch"],
            "of the 1 case selected none fits: a layer is carried over from torch, and there is only numpy "
            "(add -t torch)",
        ),
        (
            [str(ROOT / "cases" / "porting.yaml"), "-k", "channels-last"],
            "of the 2 cases selected none fits: a layer is carried over from keras or torch, and there is only numpy "
            "(add -t keras or -t torch)",
        ),
    ],
)
def test_nothing_to_run_exits_with_3(arguments: list[str], words: str, command: Command, folder: Path) -> None:
    torch_only = CASES.replace("layer: {}", "native: {torch: {num_features: 3}}").replace(
        "{layer.eps", "{input.strided"
    )
    (folder / "torch-only.yaml").write_text(torch_only.replace("[1e-5, 0.1]", "[true]"))
    said = command("run", "-t", "numpy", "-o", "out", *arguments)
    assert (said.code, said.out, said.err) == (3, "", f"conformance: nothing to run: {words}\n")
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-t", "numpy", "small.yaml"],
        ["upgrade", "torch==1.9.0", "torch==2.13.0", "small.yaml"],
        ["history", "torch==1.9.0", "torch==2.13.0", "-p", "small.yaml"],
    ],
)
def test_an_expression_that_chooses_nothing_exits_with_3_wherever_it_is_given(
    arguments: list[str], command: Command, folder: Path
) -> None:
    """Before any environment is made."""
    said = command(*arguments, "-k", "nomatch", "-o", "out")
    assert (said.code, said.out) == (3, "")
    assert "nothing to run: no case was selected by -k 'nomatch'" in said.err
    assert os.listdir(folder) == ["small.yaml"]


@pytest.mark.skipif(importlib.util.find_spec("jax") is not None, reason="jax is installed")
@pytest.mark.skipif(installed("keras") is None, reason="Keras is not installed")
def test_a_framework_that_is_missing_says_how_to_install_it_and_leaves_no_empty_report(
    command: Command, folder: Path
) -> None:
    assert command("run", "small.yaml", "-t", "numpy", "-o", "out").code == 0
    said = command("run", "small.yaml", "-t", "keras,backend=jax", "-o", "out")
    assert said.code == 3
    assert f"No module named 'jax' (pip install '{ROOT}[jax]')" in said.out
    assert said.out.endswith("Nothing ran, so that no run is stored and there is no report.\n")
    assert "┃" not in said.out
    assert len(read(folder / "out").verdicts) == 4


# Launching


def test_what_launches_the_frameworks_waits_for_no_other_module(suite_importable: None) -> None:
    late = ["conformance.judge", "conformance.report", "conformance.run_folder", "gmpy2"]
    code = f"import sys, conformance.commands.launch; print([name for name in {late} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
    assert all(importlib.util.find_spec(name) for name in late)


# Interrupted


class Started:
    """The command on a case file whose second case hangs, in a process of its own; its first verdict has fallen."""

    def __init__(self, folder: Path, *arguments: str, fault: str = "hangs") -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir(exist_ok=True)
        target = f"{MISBEHAVING},fault={fault}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "conformance", "run", "small.yaml", "-t", target, *arguments],
            env={**os.environ, "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:  # the first may name a run that is going to be replaced
            if "1 of 4" in line:
                return
        raise AssertionError("no verdict has fallen")

    def ended(self) -> Said:
        try:
            out, err = self.process.communicate(timeout=60)
        finally:
            self.process.kill()  # where it does not end by itself
        return Said(self.process.returncode, out, err)


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_an_interrupted_run_keeps_what_was_judged_and_does_not_look_whole(
    number: signal.Signals, code: int, folder: Path
) -> None:
    started = Started(folder, "-o", "out")
    started.process.send_signal(number)
    said = started.ended()
    assert said.code == code
    assert said.err == (
        f"conformance: interrupted by {number.name}; what was judged is in out.partial, which is no whole run\n"
    )
    assert [word.strip() for word in said.out.splitlines()[-2].split("│")][2] == "1"
    assert sorted(os.listdir(folder)) == ["out.partial", "small.yaml", "temporary"]
    assert os.listdir(started.temporary) == []
    kept = read(folder / "out.partial", partial=True)
    assert kept.footer == {"complete": False, "cases": 1, "verdicts": 1, "conforms": 1, "unexpected": 0}
    assert [line["case"] for line in kept.verdicts] == ["small/first"]
    assert kept.array("small/first", f"{MISBEHAVING},fault=hangs", "y[0]") is not None
    reported = conformance("report", "out.partial")
    assert reported.code == 2
    assert "out.partial is incomplete: the run was interrupted after 1 verdicts on 1 cases" in reported.err


def test_partial_runs_take_no_place_of_another(folder: Path) -> None:
    for _ in range(2):
        started = Started(folder, "-o", "out")
        started.process.send_signal(signal.SIGINT)
        assert started.ended().code == 130
    assert sorted(os.listdir(folder)) == ["out.partial", "out.partial-2", "small.yaml", "temporary"]


def test_a_run_interrupted_before_its_first_verdict_leaves_nothing(folder: Path) -> None:
    temporary = folder / "temporary"
    temporary.mkdir()
    words = ["run", "small.yaml", "-t", f"{MISBEHAVING},fault=hangs_at_start", "-o", "out"]
    with subprocess.Popen(
        [sys.executable, "-m", "conformance", *words],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        while not list(temporary.glob("*/log")):  # the worker is up, and in its start
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "conformance: interrupted by SIGINT; nothing was judged\n")
    assert sorted(os.listdir(folder)) == ["small.yaml", "temporary"]
    assert os.listdir(temporary) == []


def test_a_case_file_in_error_is_told_of_and_ends_the_workers_that_are_coming_up(folder: Path) -> None:
    temporary = folder / "temporary"
    temporary.mkdir()
    (folder / "wrong.yaml").write_text("conformance: 1\nabout: It is wrong.\ncases: 7\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "conformance", "run", "wrong.yaml", "-t", f"{MISBEHAVING},fault=hangs_at_start"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "wrong.yaml:3" in done.stderr
    assert os.listdir(temporary) == []
    assert sorted(os.listdir(folder)) == ["small.yaml", "temporary", "wrong.yaml"]


def test_a_second_signal_waits_for_no_verdict_and_one_while_results_are_saved_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first asks the pool to stop, which it does between two verdicts; large cases take long to judge."""
    with Pool([]) as pool, Interruption(pool) as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.number == signal.SIGINT
        with pytest.raises(Interrupted):
            list(pool.observe([]))
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.code == 143
        interruption.shield()
        dropped: list[int] = []
        monkeypatch.setattr(os, "_exit", dropped.append)
        signal.raise_signal(signal.SIGINT)
        assert dropped == [130]


def test_signals_in_quick_succession_end_a_run_and_leave_no_process(folder: Path) -> None:
    """Whichever of them finds what is being saved; a third may leave a hidden folder, and no more."""
    started = Started(folder, "-o", "out")
    for _ in range(3):
        started.process.send_signal(signal.SIGINT)
    assert started.ended().code == 130
    assert {name for name in os.listdir(folder) if not name.startswith(".")} <= {
        "out.partial",
        "small.yaml",
        "temporary",
    }
    assert worker_pids(started) == []


def worker_pids(started: Started) -> list[int]:
    """The processes that stand in the temporary folder of the command, as workers do; for at most ten seconds."""
    for _ in range(100):
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if Path(os.readlink(process / "cwd")).is_relative_to(started.temporary):
                    found.append(int(process.name))
        if not found:
            break
        time.sleep(0.1)
    return found


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="there is no /proc here")
def test_a_run_that_is_killed_leaves_no_process(folder: Path) -> None:
    """The worker hangs in its case and reads nothing."""
    started = Started(folder, "-o", "out", fault="freezes")
    assert len(worker_pids(started)) == 1
    started.process.kill()
    started.process.communicate(timeout=60)
    assert worker_pids(started) == []
    (left,) = folder.glob(".out.*.partial")
    assert len((left / "results.jsonl").read_text().splitlines()) == 1


def test_a_hangup_that_is_ignored_stays_ignored(folder: Path) -> None:
    """As nohup starts a command."""
    words = ["run", "small.yaml", "-t", f"{MISBEHAVING},fault=hangs", "-o", "out", "--timeout", "3"]
    with subprocess.Popen(
        [sys.executable, "-m", "conformance", *words],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:
        assert process.stdout is not None
        assert "1 of 4" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(read(folder / "out").verdicts) == 4


# Where a run cannot be written


def test_a_disk_that_is_full_is_named_and_what_it_took_is_kept(folder: Path) -> None:
    """A limit on the size of files stands in for the disk's end."""
    (folder / "small.yaml").write_text(CASES.replace("[1e-5, 0.1]", str([n / 100 for n in range(1, 100)])))
    done = subprocess.run(
        [sys.executable, "-m", "conformance", "run", "small.yaml", "-t", "numpy", "-o", "out"],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr == (
        "conformance: cannot write the run: File too large (what was judged is in out.partial, which is no whole run)\n"
    )
    assert sorted(os.listdir(folder)) == ["out.partial", "small.yaml"]
    lines = (folder / "out.partial" / "results.jsonl").read_text().split("\n")
    assert lines.pop() == ""
    assert len([json.loads(line) for line in lines]) > 10
    with pytest.raises(RunDamage):
        read(folder / "out.partial")


def test_a_run_that_needs_more_memory_than_there_is_says_so_and_keeps_what_was_judged(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = RunWriter.case

    def short_of_memory(writer: RunWriter, problem: Problem) -> None:
        if problem.case.id == "small/last[eps=0.1]":
            raise MemoryError("Unable to allocate 488. MiB")
        record(writer, problem)

    monkeypatch.setattr(RunWriter, "case", short_of_memory)
    said = command("run", "small.yaml", "-t", "numpy", "-o", "out")
    assert (said.code, said.err) == (
        2,
        "conformance: there is not enough memory: Unable to allocate 488. MiB "
        "(what was judged is in out.partial, which is no whole run)\n",
    )
    assert len((folder / "out.partial" / "results.jsonl").read_text().splitlines()) == 4  # three, and the footer


def test_an_adapters_own_slip_is_told_in_its_last_line(command: Command) -> None:
    target = f"{MISBEHAVING},fault=raises"
    said = command("run", "small.yaml", "-t", target, "-o", "out")
    assert f"unexpected {target} broken small/unlucky: KeyError: 'y_' (expected" in " ".join(said.out.split())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no folder here that even root cannot write to")
def test_a_working_directory_that_cannot_be_written_to_is_named_before_anything_runs(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/proc")
    said = command("run", str(folder / "small.yaml"), "-t", "numpy")
    assert (said.code, said.out) == (2, "")
    assert "cannot write a run to conformance-runs/" in said.err
    assert "(name another with -o)" in said.err


def test_a_working_directory_that_is_gone_is_named(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["/bin/sh", "-c", 'rmdir "$PWD" && exec "$0" -m conformance list', sys.executable],
        cwd=gone,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "conformance: the working directory is not there any more (change to another)"
    )


def test_a_case_file_that_vanishes_while_it_runs_is_missed_by_nobody(folder: Path) -> None:
    started = Started(folder, "-o", "out", "--timeout", "2")
    (folder / "small.yaml").unlink()
    assert started.ended().code == 1
    assert len(read(folder / "out").verdicts) == 4


@pytest.mark.parametrize("arguments", [(), ("-o", "out")], ids=["unnamed", "named"])
def test_two_runs_at_once_do_not_disturb_each_other(arguments: tuple[str, ...], folder: Path) -> None:
    """Without a folder named each has its own; with one the later takes the earlier's place, as it always does."""
    runs = [Started(folder, *arguments, fault="none") for _ in range(2)]
    assert [run.ended().code for run in runs] == [0, 0]
    found = [folder / "out"] if arguments else sorted((folder / "conformance-runs").iterdir())
    assert len(found) == (1 if arguments else 2)
    for run in found:
        assert len(read(run).verdicts) == 4
    assert not [path for path in folder.rglob("*") if path.name.endswith((".partial", ".replaced"))]


# The other commands


def test_a_list_of_nothing_says_so(command: Command) -> None:
    said = command("list", "small.yaml", "-k", "nothing-like-it")
    words = "no case was selected by -k 'nothing-like-it' (without it, all are listed)"
    assert (said.code, said.out, said.err) == (3, "", f"conformance: nothing to run: {words}\n")


def test_list_prints_one_id_a_line(command: Command) -> None:
    said = command("list", "small.yaml")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == ["small/first", "small/unlucky", "small/last[eps=1e-05]", "small/last[eps=0.1]"]
    assert command("list", "small.yaml", "-k", "LAST and not 0.1").out.splitlines() == ["small/last[eps=1e-05]"]


def test_validate_counts_what_is_in_order_and_names_what_is_not(command: Command, folder: Path) -> None:
    assert re.fullmatch(
        r"the suite's own cases in .*cases: \d+ files, [\d,]+ cases: no errors\n", command("validate").out
    )
    assert command("validate", ".").out == ".: 1 file, 4 cases: no errors\n"
    (folder / "small.yaml").write_text(CASES.replace("train", "trian").replace("eps: [", "esp: ["))
    said = command("validate", ".")
    assert (said.code, said.out) == (2, "")
    lines = said.err.removeprefix("conformance: ").splitlines()
    assert [line.split(":")[:2] for line in lines] == [["small.yaml", "7"], ["small.yaml", "11"]]


@pytest.mark.parametrize("name", ["validate", "list"])
def test_a_folder_without_case_files_does_not_pass_for_one_in_order(name: str, command: Command, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / "other.yaml").write_text("colour: red\n")
    said = command(name, "small.yaml", "empty")
    assert (said.code, said.out) == (2, "")
    assert "no case file in empty (looked for *.yaml and *.yml with a top-level key conformance" in said.err


@pytest.mark.parametrize("name", ["validate", "list"])
def test_cases_that_speak_to_a_users_own_adapter_are_in_order_once_it_is_named(
    name: str, command: Command, folder: Path
) -> None:
    """By -t, which starts nothing, or in the configuration."""
    expect = "expect: {misbehaving: {crashes: true, because: it is unlucky}}"
    (folder / "small.yaml").write_text(CASES.replace("unlucky: {", f"unlucky: {{{expect}, "))
    said = command(name, "small.yaml")
    assert (said.code, said.out) == (2, "")
    assert "expect.misbehaving: " in said.err
    assert "makes its name known with -t ./FOLDER, or as a target in conformance.toml" in said.err.splitlines()[-1]
    assert command(name, "small.yaml", "-t", f"{MISBEHAVING},fault=hangs_at_start").code == 0
    torch_only = CASES.replace("layer: {}", "native: {torch: {}}").replace(
        "unlucky: {", "unlucky: {expect: {keras: {crashes: true, because: x}}, "
    )
    (folder / "other.yaml").write_text(torch_only)
    other = command(name, "other.yaml").err
    assert "names no target of this case" in other
    assert "./FOLDER" not in other
    (folder / "conformance.toml").write_text(f'[targets]\nmine = "{MISBEHAVING}"\nbad = "nowhere"\n')
    assert command(name, "small.yaml").code == 0
    assert command(name, "small.yaml", "-t", "bad").code == 2


def test_schema_prints_a_json_schema(command: Command) -> None:
    schema = json.loads(command("schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"conformance", "about", "cases"} <= schema["properties"].keys()


def test_explain_shows_a_case_end_to_end(folder: Path) -> None:
    said = conformance(
        "explain",
        "small/unlucky",
        "-p",
        "small.yaml",
        "-t",
        "numpy",
        "-t",
        f"{MISBEHAVING},fault=returns_a_wrong_shape",
    )
    assert said.code == 0
    for words in (
        "small/unlucky  small.yaml:10",
        "A test needs it.",
        "step 1: eval, x [4, 13, 2, 2] float32",
        "numpy conforms, expected",
        "received  BatchNorm(rank=2, features=13",
        "error/bound",
        "fault=returns_a_wrong_shape divergent, unexpected",
        "has shape [13, 2, 2], not [4, 13, 2, 2]",
        f"numpy ~ {MISBEHAVING},fault=returns_a_wrong_shape differ",
    ):
        assert words in said.out
    row = next(line for line in said.out.splitlines() if line.startswith("running_var[1]"))
    error, bound, ratio = (float(cell) for cell in row.split("│")[4:7])
    assert error / bound == pytest.approx(ratio, rel=0.1)


def test_explain_says_when_the_target_cannot_run(command: Command) -> None:
    said = command("explain", "small/first", "-p", "small.yaml", "-t", f"{MISBEHAVING},fault=is_unavailable")
    assert said.code == 3
    assert "cannot run: there is no such device here" in said.out


def test_explain_says_when_a_case_is_about_others(command: Command, folder: Path) -> None:
    torch_only = CASES.replace("layer: {}", "native: {torch: {num_features: 3}}").replace(
        "{layer.eps", "{input.strided"
    )
    (folder / "small.yaml").write_text(torch_only.replace("[1e-5, 0.1]", "[true]"))
    said = command("explain", "small/first", "-p", "small.yaml", "-t", "numpy")
    assert said.code == 2
    assert "speaks to torch only (name one of them with -t)" in said.err


def test_report_writes_the_reports_of_a_stored_run_anew(command: Command, folder: Path) -> None:
    assert command("run", "small.yaml", "-t", "numpy", "-o", "out").code == 0
    reports = ("report.html", "junit.xml", "summary.md")
    before = {name: (folder / "out" / name).read_text() for name in reports}
    for name in reports:
        (folder / "out" / name).unlink()
    said = command("report", "out")
    assert (said.code, said.out) == (0, f"{Path('out', 'report.html')}\n")
    assert {name: (folder / "out" / name).read_text() for name in reports} == before


def test_report_names_what_is_wrong_with_a_run(command: Command, folder: Path) -> None:
    assert command("run", "small.yaml", "-t", "numpy", "-o", "out").code == 0
    results = folder / "out" / "results.jsonl"
    results.write_text(results.read_text()[:-10])
    said = command("report", "out")
    assert (said.code, said.out) == (2, "")
    assert "results.jsonl ends in the middle of line 5" in said.err
    (folder / "out" / "run.json").unlink()
    assert "it has no run.json" in command("report", "out").err


def test_report_says_when_it_cannot_write(command: Command, folder: Path) -> None:
    assert command("run", "small.yaml", "-t", "numpy", "-o", "out").code == 0
    (folder / "out" / "report.html").unlink()
    (folder / "out" / "report.html").mkdir()
    said = command("report", "out")
    assert said.code == 2
    assert "cannot write the reports of out" in said.err


def test_compare_calls_cases_that_one_run_lacks_new_and_not_changed(command: Command) -> None:
    assert command("run", "small.yaml", "-t", "numpy", "-k", "first", "-o", "few").code == 0
    assert command("run", "small.yaml", "-t", "numpy", "-o", "all").code == 0
    said = command("compare", "few", "all")
    assert said.code == 1
    assert (
        f"NumPy {installed('numpy')}: 1 case of both sides, every one the same to the last bit; 3 are new." in said.out
    )
    assert "new 3 × only the new side has it: small/unlucky, small/last[eps=1e-05], small/last[eps=0.1]" in said.out


@pytest.mark.parametrize(
    ("file", "table"), [("conformance.toml", "targets"), ("pyproject.toml", "tool.conformance.targets")]
)
def test_a_target_may_be_given_a_name(file: str, table: str, command: Command, folder: Path) -> None:
    (folder / file).write_text(f'[{table}]\nmine = "numpy,threads=2"\n')
    assert command("run", "small.yaml", "-t", "mine", "-o", "out").code == 0
    (target,) = read(folder / "out").targets
    assert (target["name"], target["framework"], target["facts"]["threads"]) == ("mine", "numpy", "2")


def test_targets_says_what_runs_here_and_why_the_rest_does_not(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(MISBEHAVING.parent)
    faults = ["none", "is_unavailable", "raises_at_start"]
    found = [parse("numpy"), *(parse(f"./misbehaving,fault={fault}") for fault in faults)]
    monkeypatch.setattr(targets_command, "variants", lambda device: found)
    said = command("targets")
    assert said.code == 0
    rows = [[cell.strip() for cell in line.split("│")] for line in said.out.splitlines()[2:]]
    assert [(name, runs) for name, runs, _ in rows] == [
        ("numpy", "yes"),
        ("./misbehaving,fault=none", "yes"),
        ("./misbehaving,fault=is_unavailable", "no"),
        ("./misbehaving,fault=raises_at_start", "broken"),
    ]
    assert rows[0][2].startswith("version ")
    assert rows[2][2] == "there is no such device here"
    assert rows[3][2] == "RuntimeError: the environment is broken"
    monkeypatch.setattr(targets_command, "variants", lambda device: found[2:])
    assert command("targets").code == 3


def test_targets_of_the_configuration_are_listed_too(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is misspelt costs the others nothing, and no environment is made for one of a named version."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr(targets_command, "variants", lambda device: [parse("numpy")])
    text = '[targets]\nnumpy = "numpy,threads=2"\nold = "torch==1.9.0"\nbad = "numpy,colour=red"\n'
    (folder / "conformance.toml").write_text(text)
    said = command("targets")
    rows = [[cell.strip() for cell in line.split("│")] for line in said.out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["numpy", "yes"],
        ["numpy = numpy,threads=2", "yes"],
        ["old = torch==1.9.0", "no"],
        ["bad = numpy,colour=red", "no"],
    ]
    assert rows[2][2] == "its environment is not made yet; conformance run makes it"
    assert "unknown option 'colour'" in rows[3][2]
    assert "starting 4 targets" in said.err
    assert not (folder / "cache").exists()


def test_targets_come_up_side_by_side_and_are_told_as_soon_as_they_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools: list[list[str]] = []

    def counting(targets: list[Target]) -> Pool:
        pools.append([target.name for target in targets])
        return Pool(targets)

    monkeypatch.setattr(targets_command, "Pool", counting)
    found = [parse(f"numpy,threads={number}") for number in range(1, 6)]
    rows = targets_command._started([targets_command.Row(target.name, target) for target in found], 2)
    name = next(rows)[0].name
    assert (name, len(pools)) == ("numpy,threads=1", 1)
    assert [row.name for row, start in rows if isinstance(start, crew.Started)] == [
        f"numpy,threads={n}" for n in range(2, 6)
    ]
    assert [len(pool) for pool in pools] == [2, 2, 1]


def test_variants_are_every_combination_of_what_an_adapter_offers() -> None:
    names = [target.name for target in targets_command.variants("cpu")]
    assert {"numpy", "torch", "torch,execution=compiled", "mindspore,execution=graph", "keras,backend=jax"} <= set(
        names
    )
    assert "numpy" not in [target.name for target in targets_command.variants("cuda")]


# Help

FOREIGN = {"numpy", "torch", "tensorflow", "keras", "mindspore", "jax", "ruamel", "gmpy2", "execnet", "jinja2"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_imports_nothing_that_takes_time(arguments: list[str], folder: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "conformance", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert imported & FOREIGN == set()
    assert "Usage: python -m conformance" in done.stdout


def commands() -> list[list[str]]:
    """Every command as it is typed."""
    root = get_command(cli.app)
    names = [[name] for name in root.commands if name != "baseline"]  # type: ignore[attr-defined]
    return [[], *names, ["baseline"], ["baseline", "update"]]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_says_in_whole_sentences_what_there_is_and_names_no_type_of_python(
    words: list[str], command: Command
) -> None:
    said = command(*words, "--help")
    assert said.code == 0
    assert "..." not in re.sub(r"\]\.\.\.|\}\.\.\.|ARGS\]\.\.\.", "", said.out)
    assert not re.search(r"<\w+(\[\w+\])?( range)?>", said.out)


def test_the_suites_version_is_printed_and_recorded(folder: Path) -> None:
    said = conformance("--version")
    assert (said.code, said.out) == (0, f"batchnorm-conformance {suite_version()}\n")
    assert conformance("run", "small.yaml", "-t", "numpy", "-k", "first", "-o", "out").code == 0
    assert read(folder / "out").info["suite"] == suite_version() != "unknown"


def test_without_a_command_help_is_shown(command: Command) -> None:
    said = command()
    assert said.code == 2
    for name in ("run", "list", "validate", "schema", "targets", "explain", "report"):
        assert f"  {name} " in said.out + said.err


def test_a_reader_that_has_enough_is_no_error(folder: Path) -> None:
    command = [sys.executable, "-m", "conformance", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
