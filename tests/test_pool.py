"""Behaviour of `conformance.pool`: what a worker does wrong costs the case it was on, and nothing else.

The misbehaving adapter goes wrong on layers of 13 channels; tests/misbehaving/adapter.py says how.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import execnet
import pytest
from conftest import ROOT, JudgeAll, MakeCase
from execnet.gateway_base import Channel

from conformance import crew
from conformance.case import Case
from conformance.crew import Interrupted, Limits, NotStarted, Started
from conformance.judge import Verdict
from conformance.pool import Observed, Pool
from conformance.problem import Problem, materialise
from conformance.session import judged
from conformance.target import Target, parse
from conformance.worker import Worker

#: Patience with a machine that is busy, but for what a test waits out.
PATIENT = Limits(start_seconds=60, case_seconds=60)
IMPATIENT = Limits(start_seconds=60, case_seconds=3)

LAST_WORDS = "these are my last words"


def target(fault: str = "none") -> Target:
    return parse(f"{ROOT / 'tests' / 'misbehaving'},fault={fault}")


def adapter(folder: Path, source: str) -> Target:
    """A target of a file that says this."""
    profile = (ROOT / "tests" / "misbehaving" / "profile.yaml").read_text(encoding="utf-8")
    (folder / "profile.yaml").write_text(profile, encoding="utf-8")
    (folder / "adapter.py").write_text(source, encoding="utf-8")
    return parse(str(folder))


@pytest.fixture
def three_cases(make_case: MakeCase) -> list[Case]:
    """The second is the unlucky one."""
    shapes = {"before": [4, 3, 2, 2], "unlucky": [4, 13, 2, 2], "after": [4, 3, 2, 2]}
    return [
        make_case(name, steps=["train", "eval"], input={"shape": shape, "normal": {}}) for name, shape in shapes.items()
    ]


class Recorded(Worker):
    """A worker that stays known when the pool has forgotten it."""

    known: ClassVar[list[Recorded]] = []

    def __init__(self, target: Target, events: queue.SimpleQueue[Any]) -> None:
        super().__init__(target, events)
        self.events = events
        self.known.append(self)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """Every worker that the test starts, in order."""
    monkeypatch.setattr(Recorded, "known", [])
    monkeypatch.setattr(crew, "Worker", Recorded)
    return Recorded.known


def is_running(pid: int | None) -> bool:
    """Whether a process is there, if only to be collected."""
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# A case


@pytest.mark.parametrize(
    ("fault", "verdict", "words", "restarts"),
    [
        ("dies", "crashed", ["SIGKILL", LAST_WORDS], 1),
        ("reads_where_nothing_is", "crashed", ["SIGSEGV", LAST_WORDS, "in reads_where_nothing_is"], 1),
        ("aborts", "crashed", ["SIGABRT", LAST_WORDS, "in aborts"], 1),
        ("starts_another_process", "crashed", ["SIGKILL"], 1),
        ("runs_out_of_memory", "refused", ["Unable to allocate 16.0 GiB"], 0),
        ("has_no_memory_to_answer", "broken", ["MemoryError"], 0),
        ("floods", "timeout", ["no answer within 3 s\nxxx"], 1),
        ("exits", "crashed", ["exited with status 3", LAST_WORDS], 1),
        ("raises_system_exit", "crashed", [f"SystemExit: {LAST_WORDS}"], 1),
        ("hangs", "timeout", ["no answer within 3 s", LAST_WORDS], 1),
        ("raises", "broken", ["in raises", "KeyError: 'y_'"], 0),
        ("returns_an_unknown_dtype", "broken", ["float8"], 0),
        ("returns_too_few_bytes", "broken", ["831 bytes for float32[4, 13, 2, 2], which takes 832"], 0),
        ("returns_objects", "broken", ["Python objects"], 0),
        ("returns_what_cannot_be_sent", "broken", ["can't serialize"], 0),
        ("returns_no_arrays", "broken", ["'numpy.ndarray' object has no attribute 'pack'"], 0),
        ("answers_another_case", "broken", ["the worker answered 2 when asked for 1"], 1),
        ("answers_an_earlier_case", "broken", ["the worker answered 0 when asked for 1"], 2),
        ("answers_nonsense", "broken", ["the worker answered ['nonsense'] when asked for 1"], 1),
        ("answers_in_part", "broken", ["not of the agreed form", "'error'"], 0),
        ("refuses", "refused", ["thirteen channels are unlucky"], 0),
        ("cannot_say", "refused", ["there are no thirteen channels"], 0),
    ],
)
def test_a_fault_costs_its_case_alone_and_is_explained(
    fault: str, verdict: str, words: list[str], restarts: int, three_cases: list[Case], judge_all: JudgeAll
) -> None:
    asked = target(fault)
    with Pool([asked], IMPATIENT if verdict == "timeout" else PATIENT) as pool:
        verdicts = judge_all(pool, three_cases)
        assert pool.restarts == {asked.name: restarts}
    found = {case.rpartition("/")[2]: verdict for (case, _), verdict in verdicts.items()}
    assert {name: verdict.verdict for name, verdict in found.items()} == {
        "before": "conforms",
        "unlucky": verdict,
        "after": "conforms",
    }
    assert found["unlucky"].status == "unexpected"
    error = found["unlucky"].error
    assert error is not None
    assert [word for word in words if word not in error.message] == []
    assert "Extension modules" not in error.message


@pytest.mark.parametrize(
    ("fault", "diagnosis", "words"),
    [
        ("returns_a_wrong_shape", "shape", "y[0] has shape [13, 2, 2], not [4, 13, 2, 2]"),
        ("returns_a_wrong_dtype", "dtype", "y[0] has dtype uint8, not float32"),
        ("returns_nothing", "missing", "y[0] is missing"),
        ("skips_a_step", "missing", "y[1] is missing"),
        ("invents_a_step", "returned", "y[2] is returned, though this layer has none"),
    ],
)
def test_what_is_returned_wrongly_is_judged_and_named(
    fault: str, diagnosis: str, words: str, three_cases: list[Case], judge_all: JudgeAll
) -> None:
    with Pool([target(fault)], PATIENT) as pool:
        before, unlucky, after = judge_all(pool, three_cases).values()
    assert (before.verdict, after.verdict) == ("conforms", "conforms")
    assert (unlucky.verdict, unlucky.diagnosis, unlucky.because) == ("divergent", diagnosis, words)


@pytest.mark.parametrize(
    ("fault", "verdict", "words"),
    [("exits", "crashed", "the process ended"), ("hangs", "timeout", "no answer within 3 s")],
)
def test_a_worker_on_a_host_that_goes_wrong_costs_its_case_alone(
    fault: str,
    verdict: str,
    words: str,
    three_cases: list[Case],
    judge_all: JudgeAll,
    workers: list[Recorded],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This machine stands in for the other; how a process ended there, and what it wrote, is not known."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # what dies there leaves its folder
    remote = parse(f"{target(fault).name},host=popen:here,python={sys.executable}")
    with Pool([remote], IMPATIENT) as pool:
        before, unlucky, after = judge_all(pool, three_cases).values()
    assert (before.verdict, unlucky.verdict, after.verdict) == ("conforms", verdict, "conforms")
    assert unlucky.error is not None
    assert unlucky.error.message == words
    assert [worker.pid for worker in workers if is_running(worker.pid)] == []


def test_what_a_worker_started_ends_with_it(
    three_cases: list[Case], judge_all: JudgeAll, workers: list[Recorded]
) -> None:
    with Pool([target("starts_another_process")], PATIENT) as pool:
        _, unlucky, _ = judge_all(pool, three_cases).values()
    assert unlucky.error is not None
    child = int(unlucky.error.message.rpartition(" ")[2])
    for _ in range(1000):
        with contextlib.suppress(OSError):
            if is_running(child) and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
                time.sleep(0.01)
                continue
        return
    os.kill(child, signal.SIGKILL)
    pytest.fail("it runs on")


def test_the_output_of_a_worker_cannot_fill_the_disk(
    three_cases: list[Case], judge_all: JudgeAll, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes 200 MB a second for as long as it is let."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    largest = 0

    def look() -> None:
        nonlocal largest
        while not done.wait(0.02):
            for log in tmp_path.glob("*/log"):
                with contextlib.suppress(OSError):
                    largest = max(largest, log.stat().st_size)

    done = threading.Event()
    watching = threading.Thread(target=look)
    watching.start()
    try:
        with Pool([target("floods"), parse("numpy")], Limits(start_seconds=60, case_seconds=6)) as pool:
            judge_all(pool, three_cases)
    finally:
        done.set()
        watching.join()
    assert 16_000_000 < largest < 600_000_000


def test_an_answer_that_nobody_asked_for_costs_no_case(make_case: MakeCase, tmp_path: Path) -> None:
    source = """
from conformance import harness
from conformance.harness import Adapter, Array
import numpy as np

class Twice(Adapter):
    def start(self, options):
        answer = harness.answer
        def twice(adapter, request):
            reply = answer(adapter, request)
            if request["id"] == 1:
                import sys
                sys._getframe(1).f_locals["channel"].send(reply)
            return reply
        harness.answer = twice
        return {"version": "1"}

    def build(self, layer):
        return layer

    def step(self, layer, step):
        return layer, {"y": Array.of(np.zeros(3, np.float32))}

    def state(self, layer):
        return {}
"""
    asked = adapter(tmp_path, source)
    with Pool([asked], PATIENT) as pool:
        found = list(pool.observe((materialise(make_case(f"{n}")), [asked]) for n in range(4)))
        assert pool.restarts == {asked.name: 1}
    assert [one.observation and one.observation.fate for one in found] == ["answered"] * 4


@pytest.mark.parametrize("word", ["3", "[1, 2]", "{}", "{'facts': 3}"])
def test_a_first_word_that_is_none_is_the_adapters_fault(word: str, tmp_path: Path) -> None:
    source = f"import sys\nsys._getframe(2).f_locals['channel'].send({word})\nimport time\ntime.sleep(60)"
    asked = adapter(tmp_path, source)
    with Pool([asked], PATIENT) as pool:
        start = pool.start()[asked.name]
    assert start == NotStarted(f"the worker's first word was {word}", broken=True)


def test_a_pool_that_is_interrupted_tells_what_was_judged(make_case: MakeCase) -> None:
    """The second case is under way on one target, and was judged on the other."""
    shapes = [[4, 3, 2, 2], [4, 13, 2, 2], [4, 3, 2, 2]]
    cases = [make_case(f"{n}", input={"shape": shape, "normal": {}}) for n, shape in enumerate(shapes)]
    fallen: list[str] = []
    with Pool([target("hangs"), parse("numpy")], PATIENT) as pool:

        def watch(case: Case, where: Target, verdict: Verdict) -> None:
            fallen.append(where.name)
            if len(fallen) == 4:  # one of three by the target that hangs, three by the other
                pool.interrupt()

        settling = judged(cases, pool, watch)
        found = [next(settling) for _ in cases]
        with pytest.raises(Interrupted):
            next(settling)
    both = [target("hangs").name, "numpy"]
    assert [(one.problem.case.id, list(one.sides)) for one in found] == [
        ("made/0", both),
        ("made/1", ["numpy"]),
        ("made/2", ["numpy"]),
    ]


def test_megabytes_on_stdout_and_stderr_disturb_nobody(three_cases: list[Case], judge_all: JudgeAll) -> None:
    with Pool([target("shouts")], PATIENT) as pool:
        assert {verdict.verdict for verdict in judge_all(pool, three_cases).values()} == {"conforms"}


def test_a_worker_that_stops_reading_cannot_stop_the_run(make_case: MakeCase, judge_all: JudgeAll) -> None:
    """The case after it is sent ahead, and is larger than a pipe holds."""
    unlucky = make_case("unlucky", input={"shape": [4, 13, 2, 2], "normal": {}})
    large = make_case("large", input={"shape": [64, 3, 32, 32], "normal": {}})
    with Pool([target("freezes")], IMPATIENT) as pool:
        first, second = judge_all(pool, [unlucky, large]).values()
    assert first.verdict == "timeout"
    assert first.error is not None
    assert LAST_WORDS in first.error.message
    assert second.verdict == "conforms"


@pytest.mark.parametrize("told", [True, False])
def test_a_case_that_cannot_be_sent_costs_itself_alone(
    told: bool, three_cases: list[Case], judge_all: JudgeAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short; it was waited for until its time was over."""
    send = Channel.send

    def short_of_memory(channel: Channel, message: Any) -> None:
        if isinstance(message, dict) and message.get("id") == 1 and not (told and "unsent" in message):
            raise MemoryError("no more")
        send(channel, message)

    monkeypatch.setattr(Channel, "send", short_of_memory)
    with Pool([target()], PATIENT) as pool:
        found = judge_all(pool, three_cases)
    verdicts = [found[case.id, target().name] for case in three_cases]
    assert [verdict.verdict for verdict in verdicts[1:]] == ["broken" if told else "crashed", "conforms"]
    if told:  # else the worker ends, whatever it is at
        assert verdicts[0].verdict == "conforms"
        assert verdicts[1].error is not None
        assert "RuntimeError: the case could not be sent: MemoryError: no more" in verdicts[1].error.message


def test_one_target_going_wrong_does_not_touch_another(three_cases: list[Case], judge_all: JudgeAll) -> None:
    bad, good = target("dies"), parse("numpy")
    with Pool([bad, good], PATIENT) as pool:
        verdicts = judge_all(pool, three_cases)
    assert [verdicts[case.id, bad.name].verdict for case in three_cases] == ["conforms", "crashed", "conforms"]
    assert [verdicts[case.id, good.name].verdict for case in three_cases] == ["conforms"] * 3


def test_the_tail_of_what_a_process_wrote_is_short(make_case: MakeCase, judge_all: JudgeAll, tmp_path: Path) -> None:
    source = """
import os, sys
from conformance.harness import Adapter

class Shouting(Adapter):
    def start(self, options):
        return {"version": "1"}

    def build(self, layer):
        print("x" * 5_000_000, file=sys.stderr, flush=True)
        print("the end", flush=True)
        os._exit(1)
"""
    with Pool([adapter(tmp_path, source)], PATIENT) as pool:
        (verdict,) = judge_all(pool, [make_case()]).values()
    assert verdict.error is not None
    assert verdict.error.message.endswith("x\nthe end")
    assert len(verdict.error.message) < 2100


def test_what_hangs_is_given_up_in_its_time(make_case: MakeCase) -> None:
    """A case, and a start; the machine may be busy."""
    unlucky = materialise(make_case(input={"shape": [4, 13, 2, 2], "normal": {}}))
    with Pool([target("hangs")], Limits(start_seconds=60, case_seconds=1)) as pool:
        pool.start()
        began = time.monotonic()
        assert pool_fate(pool, unlucky, pool.targets[0]) == "timeout"
        assert 1 <= time.monotonic() - began < 10
    began = time.monotonic()
    with Pool([target("hangs_at_start")], Limits(start_seconds=1)) as pool:
        pool.start()
    assert 1 <= time.monotonic() - began < 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of pipes that nobody closes then
def test_where_a_thread_more_cannot_be_had_the_run_goes_on(
    three_cases: list[Case], judge_all: JudgeAll, workers: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """execnet starts one to wait for a process that ends, and there may be no memory for its stack."""

    def terminate(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(execnet.Group, "terminate", terminate)
    with Pool([target("dies"), target("is_unavailable"), parse("numpy")], PATIENT) as pool:
        verdicts = [verdict.verdict for verdict in judge_all(pool, three_cases).values()]
    assert sorted(verdicts) == ["conforms"] * 5 + ["crashed"]
    for worker in workers:
        with contextlib.suppress(EOFError):
            worker._channel.waitclose(timeout=10)


# Restarts


def test_restarts_are_limited_and_what_remains_is_broken(make_case: MakeCase, judge_all: JudgeAll) -> None:
    bad, good = target("exits"), parse("numpy")
    cases = [make_case(f"{n}", input={"shape": [2, 13], "normal": {}}, layer={"rank": 1}) for n in range(5)]
    with Pool([bad, good], Limits(restarts=2)) as pool:
        verdicts = judge_all(pool, cases)
        assert pool.restarts == {bad.name: 2, good.name: 0}
    found = [verdicts[case.id, bad.name] for case in cases]
    assert [verdict.verdict for verdict in found] == ["crashed"] * 3 + ["broken"] * 2
    assert found[-1].error is not None
    assert found[-1].error.message == (
        f"given up after 2 restarts; the latest: the process exited with status 3\n{LAST_WORDS}"
    )
    assert {verdicts[case.id, good.name].verdict for case in cases} == {"conforms"}


def test_the_limit_holds_over_all_that_a_pool_is_asked(make_case: MakeCase, workers: list[Recorded]) -> None:
    asked = target("exits")
    problem = materialise(make_case(input={"shape": [2, 13], "normal": {}}, layer={"rank": 1}))
    with Pool([asked], Limits(restarts=1)) as pool:
        fates = [pool_fate(pool, problem, asked) for _ in range(4)]
    assert fates == ["crashed", "crashed", "broken", "broken"]
    assert len(workers) == 2


def pool_fate(pool: Pool, problem: Problem, target: Target) -> str:
    (observed,) = pool.observe([(problem, [target])])
    assert observed.observation is not None
    return observed.observation.fate


def test_a_worker_that_cannot_come_up_again_uses_up_the_restarts(
    make_case: MakeCase, judge_all: JudgeAll, tmp_path: Path, workers: list[Recorded]
) -> None:
    source = """
import os
from pathlib import Path
from conformance.harness import Adapter

class ComesUpOnce(Adapter):
    def start(self, options):
        Path(__file__).with_name("been-here").mkdir()
        return {"version": "1"}

    def build(self, layer):
        os._exit(1)
"""
    with Pool([adapter(tmp_path, source)], Limits(restarts=3)) as pool:
        verdicts = judge_all(pool, [make_case("first"), make_case("second")])
    assert [verdict.verdict for verdict in verdicts.values()] == ["crashed", "broken"]
    assert len(workers) == 4


def test_a_worker_that_dies_with_no_case_at_hand_costs_none(
    make_case: MakeCase, judge_all: JudgeAll, workers: list[Recorded]
) -> None:
    asked = target()
    with Pool([asked], PATIENT) as pool:
        assert [verdict.verdict for verdict in judge_all(pool, [make_case("first")]).values()] == ["conforms"]
        assert workers[0].pid is not None
        os.kill(workers[0].pid, signal.SIGKILL)
        while workers[0].events.empty():
            time.sleep(0.01)
        assert [verdict.verdict for verdict in judge_all(pool, [make_case("second")]).values()] == ["conforms"]
        assert pool.restarts == {asked.name: 1}


# Starting


@pytest.mark.parametrize(
    ("fault", "broken", "words"),
    [
        ("is_unavailable", False, "there is no such device here"),
        ("raises_at_start", True, "RuntimeError: the environment is broken"),
        ("exits_at_start", True, "SystemExit: no licence"),
        ("dies_at_start", True, "SIGILL"),
        ("hangs_at_start", True, f"the worker was not up after 5 s\n{LAST_WORDS}"),
    ],
)
def test_a_target_that_does_not_start_says_why(
    fault: str, broken: bool, words: str, three_cases: list[Case], judge_all: JudgeAll
) -> None:
    asked = target(fault)
    with Pool([asked], Limits(start_seconds=5 if fault == "hangs_at_start" else 60)) as pool:
        assert judge_all(pool, three_cases) == {}
        start = pool.starts[asked.name]
        assert pool.restarts == {asked.name: 2 if fault in ("dies_at_start", "exits_at_start") else 0}
    assert isinstance(start, NotStarted)
    assert start.broken == broken
    assert words in start.message


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_worker_that_is_killed_as_it_comes_up_costs_no_case(
    jobs: int, make_case: MakeCase, judge_all: JudgeAll, tmp_path: Path
) -> None:
    """The first two that start are struck down, as by the kernel where memory runs out."""
    source = f"""
import contextlib, os, signal
from pathlib import Path
for number in "12":
    with contextlib.suppress(FileExistsError):
        Path(__file__).with_name(number).mkdir()
        os.kill(os.getpid(), signal.SIGKILL)
exec(Path({str(ROOT / "adapters" / "numpy" / "adapter.py")!r}).read_text())
"""
    asked = adapter(tmp_path, source)
    with Pool([asked], PATIENT, jobs) as pool:
        verdicts = judge_all(pool, [make_case(f"{n}") for n in range(4)])
        assert pool.restarts == {asked.name: 2}
    assert [verdict.verdict for verdict in verdicts.values()] == ["conforms"] * 4


ADAPTER = "from conformance.harness import Adapter\n"


@pytest.mark.parametrize(
    ("source", "broken", "words"),
    [
        ("import a_framework_that_is_not_here", False, "No module named 'a_framework_that_is_not_here'"),
        ("raise RuntimeError('the import is broken')", True, "RuntimeError: the import is broken"),
        ("import half\nhalf.nn", True, "has no attribute 'nn'"),
        ("from half import nn", False, "cannot import name 'nn' from 'half'"),
        ("import ctypes\nctypes.CDLL('libhalf.so')", True, "libhalf.so: cannot open shared object file"),
        ("def (:", True, "SyntaxError"),
        ("", True, "must define exactly one subclass of Adapter, it defines 0"),
        (f"{ADAPTER}class A(Adapter): pass\nclass B(Adapter): pass", True, "exactly one subclass of Adapter"),
        (f"{ADAPTER}class A(Adapter): pass", True, "NotImplementedError"),
        (f"{ADAPTER}class A(Adapter):\n def __init__(self): 1 / 0", True, "ZeroDivisionError"),
        (f"{ADAPTER}class A(Adapter):\n def start(self, options): return None", True, "TypeError"),
    ],
)
def test_a_file_that_is_no_adapter_says_why(
    source: str, broken: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one whose framework is not here, or half of it: a folder without what should be in it."""
    (tmp_path / "site" / "half").mkdir(parents=True)
    (tmp_path / "site" / "half" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    asked = adapter(tmp_path, source)
    with Pool([asked], PATIENT) as pool:
        start = pool.start()[asked.name]
    assert isinstance(start, NotStarted)
    assert start.broken == broken
    assert words in start.message


# execnet leaves the pipes of what it could not start to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("python", ["/there/is/no/python", "0.1", "true", "echo", "false"])
def test_an_interpreter_that_is_none_is_named(python: str) -> None:
    asked = parse(f"numpy,python={python}")
    with Pool([asked], PATIENT) as pool:
        start = pool.start()[asked.name]
    gc.collect()
    assert isinstance(start, NotStarted)
    assert start.broken
    assert start.message.startswith(f"{'python0.1' if python == '0.1' else python} does not start as a Python: ")


def test_a_target_that_states_nothing_runs(three_cases: list[Case], judge_all: JudgeAll) -> None:
    with Pool([target("states_nothing")], PATIENT) as pool:
        assert {verdict.verdict for verdict in judge_all(pool, three_cases).values()} == {"conforms"}


def test_starting_tells_what_runs_and_what_does_not() -> None:
    good, bad = target(), target("is_unavailable")
    with Pool([good, bad], PATIENT) as pool:
        starts = pool.start()
    started = starts[good.name]
    assert isinstance(started, Started)
    assert {"version", "device", "python", "numpy"} <= started.facts.keys()
    assert started.facts["threads"] == "1"
    assert isinstance(starts[bad.name], NotStarted)


# The window


@pytest.mark.parametrize("jobs", [1, 2])
def test_cases_are_drawn_as_the_window_has_room(make_case: MakeCase, jobs: int) -> None:
    drawn = itertools.count()
    asked = target()

    def problems() -> Iterator[tuple[Problem, list[Target]]]:
        for n in range(30):
            next(drawn)
            yield materialise(make_case(f"{n}", input={"shape": [2, 3], "normal": {}}, layer={"rank": 1})), [asked]

    with Pool([asked], Limits(window=3), jobs) as pool:
        for settled, _ in enumerate(pool.observe(problems())):
            so_far = next(drawn)
            drawn = itertools.count(so_far)
            assert so_far - settled <= 3
        assert settled == 29


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The cases that workers are sent, as they are."""
    found: list[int] = []
    sending = Worker.send

    def send(self: Worker, request: dict[str, Any]) -> None:
        found.append(request["id"])
        sending(self, request)

    monkeypatch.setattr(Worker, "send", send)
    return found


def test_a_worker_gets_a_case_for_each_it_has_answered_while_one_was_judged(
    make_case: MakeCase, sent: list[int]
) -> None:
    asked = target()
    problem = materialise(make_case(input={"shape": [2, 3], "normal": {}}, layer={"rank": 1}))
    with Pool([asked], Limits(prefetch=4)) as pool:
        observed = pool.observe([(problem, [asked])] * 12)
        next(observed)
        before = len(sent)
        time.sleep(1)  # judging, while the worker comes to the end of what it has
        next(observed)
        assert len(sent) - before >= 3


@pytest.mark.parametrize(("most", "waiting", "held"), [(6, 40, 6), (6, 12, 2), (1, 40, 2)])
def test_a_worker_holds_more_cases_where_many_wait(
    make_case: MakeCase, sent: list[int], most: int, waiting: int, held: int
) -> None:
    """It hangs on the first, so that what was sent before that one is given up is what it holds."""
    asked = target("hangs")
    problem = materialise(make_case(input={"shape": [2, 13, 2, 2], "normal": {}}))
    with Pool([asked], Limits(prefetch=2, prefetch_most=most, case_seconds=1)) as pool:
        pool.start()
        assert next(pool.observe([(problem, [asked])] * waiting)).index == 0
    assert sent == list(range(held))


@pytest.mark.parametrize("window", [1, 100])
def test_a_case_that_is_not_known_yet_is_waited_for_while_others_go_on(make_case: MakeCase, window: int) -> None:
    asked = target()
    seen: list[int] = []

    def problems() -> Iterator[tuple[Problem, list[Target]] | None]:
        for n in range(6):
            while n == 3 and len(seen) < 2:
                yield None
            yield materialise(make_case(f"{n}")), [asked]

    with Pool([asked], Limits(window=window)) as pool:
        for observed in pool.observe(problems()):
            seen.append(observed.index)  # noqa: PERF401 - the problems look at it meanwhile
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_large_case_goes_alone(make_case: MakeCase) -> None:
    drawn: list[int] = []
    asked = target()

    def problems() -> Iterator[tuple[Problem, list[Target]]]:
        for n in range(6):
            drawn.append(n)
            yield materialise(make_case(f"{n}", input={"shape": [4, 3, 2, 2], "normal": {}})), [asked]

    with Pool([asked], Limits(window_elements=10)) as pool:
        for settled, _ in enumerate(pool.observe(problems())):
            assert len(drawn) == settled + 1


def test_nothing_is_sent_ahead_of_a_case_that_no_target_takes(make_case: MakeCase) -> None:
    with Pool([target()], PATIENT) as pool:
        assert list(pool.observe([(materialise(make_case()), [])])) == []


# The order


def test_one_worker_observes_in_the_order_asked(make_case: MakeCase) -> None:
    asked = target()
    with Pool([asked], PATIENT) as pool:
        problems = [(materialise(make_case(f"{n}")), [asked]) for n in range(9)]
        assert [observed.index for observed in pool.observe(problems)] == list(range(9))
        assert [observed.index for observed in pool.observe(problems)] == list(range(9, 18))


def test_what_was_sent_ahead_of_a_crash_keeps_its_place(make_case: MakeCase) -> None:
    asked = target("exits")
    shapes = [[4, 13 if n in (2, 3) else 3, 2, 2] for n in range(9)]
    with Pool([asked], Limits(prefetch=4)) as pool:
        problems = [
            (materialise(make_case(f"{n}", input={"shape": shape, "normal": {}})), [asked])
            for n, shape in enumerate(shapes)
        ]
        assert [observed.index for observed in pool.observe(problems)] == list(range(9))


@pytest.mark.parametrize("jobs", [1, 2])
def test_cases_are_judged_in_their_order_whatever_happens_to_them(make_case: MakeCase, jobs: int) -> None:
    """A large case takes longer than the small ones beside it, one dies, and two targets answer."""
    sizes = [64, 1, 1, 32, 1, 1, 1, 1]
    cases = [
        make_case(f"{n}", input={"shape": [size, 13 if n == 2 else 3, 32, 32], "normal": {}})
        for n, size in enumerate(sizes)
    ]
    with Pool([target("exits"), parse("numpy")], PATIENT, jobs) as pool:
        settled = list(judged(cases, pool))
    assert [one.problem.case.id for one in settled] == [case.id for case in cases]
    assert [list(one.sides) for one in settled] == [[target("exits").name, "numpy"]] * len(cases)
    assert [one.sides["numpy"].verdict.verdict for one in settled] == ["conforms"] * len(cases)


def test_two_jobs_are_two_processes_that_share_the_cases(make_case: MakeCase, workers: list[Recorded]) -> None:
    asked = target()
    with Pool([asked], PATIENT, jobs=2) as pool:
        pool.start()
        fates = [observed.observation and observed.observation.fate for observed in observe(pool, make_case, 20)]
        assert len({worker.pid for worker in workers}) == 2
    assert fates == ["answered"] * 20


#: An adapter that takes its time over every case, and dies as it comes up where a worker of it has come up before.
SLOW = """
import os, time
from conformance.harness import Adapter, Array, Layer

class Slow(Adapter):
    def start(self, options):
        if {alone} and os.path.exists({mark!r}):
            os._exit(1)
        open({mark!r}, "w").close()
        return {{"version": "1"}}

    def build(self, layer):
        time.sleep(0.02)
        return layer

    def step(self, layer, step):
        return layer, {{"y": step.x}}

    def state(self, layer):
        return {{}}
"""


def quick_and_slow(folder: Path, *, alone: bool = False) -> list[Target]:
    return [parse("numpy"), adapter(folder, SLOW.format(alone=alone, mark=str(folder / "mark")))]


def test_the_place_of_a_target_that_is_done_goes_to_the_last_one(
    make_case: MakeCase, workers: list[Recorded], tmp_path: Path
) -> None:
    targets = quick_and_slow(tmp_path)
    with Pool(targets, Limits(cpus=2, worth=0)) as pool:
        for asked in range(2):  # and comes back to it, for what is asked next
            found = observe(pool, make_case, 200)
            assert [worker.target.name for worker in workers[3 * asked :]] == [
                *(target.name for target in targets[: 2 - asked]),
                targets[1].name,
            ]
            for target in targets:
                assert sorted(one.index - 200 * asked for one in found if one.target is target) == list(range(200))
            assert all(one.observation is not None and one.observation.fate == "answered" for one in found)
        assert set(pool.restarts.values()) == {0}


@pytest.mark.parametrize("limits", [Limits(cpus=1, worth=0), Limits(cpus=2, worth=1e9)], ids=["no CPU", "no gain"])
def test_a_place_is_kept_where_a_new_worker_would_not_help(
    limits: Limits, make_case: MakeCase, workers: list[Recorded], tmp_path: Path
) -> None:
    with Pool(quick_and_slow(tmp_path), limits) as pool:
        assert len(observe(pool, make_case, 60)) == 120
    assert len(workers) == 2


def test_a_worker_that_does_not_come_up_in_a_lent_place_costs_nothing(
    make_case: MakeCase, workers: list[Recorded], tmp_path: Path
) -> None:
    with Pool(quick_and_slow(tmp_path, alone=True), Limits(cpus=2, worth=0)) as pool:
        found = observe(pool, make_case, 200)
        assert set(pool.restarts.values()) == {0}
    assert len(workers) == 3
    assert {one.observation and one.observation.fate for one in found} == {"answered"}


def observe(pool: Pool, make_case: MakeCase, number: int) -> list[Observed]:
    return list(pool.observe((materialise(make_case(f"{n}")), pool.targets) for n in range(number)))


# Afterwards


@pytest.mark.parametrize("fault", ["none", "dies", "hangs", "freezes", "raises_system_exit", "hangs_at_start"])
def test_no_process_and_no_file_is_left_behind(
    fault: str,
    three_cases: list[Case],
    judge_all: JudgeAll,
    workers: list[Recorded],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = Limits(start_seconds=1 if fault == "hangs_at_start" else 60, case_seconds=1)
    with Pool([target(fault), parse("numpy")], limits) as pool:
        judge_all(pool, three_cases)
        assert any(is_running(worker.pid) for worker in workers) or fault == "hangs_at_start"
    assert [worker.pid for worker in workers if is_running(worker.pid)] == []
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_cases_run_ends_the_workers(make_case: MakeCase, workers: list[Recorded]) -> None:
    def fail_at_the_third() -> None:
        with Pool([target()], PATIENT) as pool:
            for observed in pool.observe((materialise(make_case(f"{n}")), pool.targets) for n in range(9)):
                assert observed.index < 2

    with pytest.raises(AssertionError):
        fail_at_the_third()
    assert [worker.pid for worker in workers if is_running(worker.pid)] == []


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="open descriptors cannot be counted here")
def test_workers_do_not_use_up_descriptors() -> None:
    def after_a_worker() -> int:
        with Pool([target()], PATIENT) as pool:
            pool.start()
        return len(os.listdir("/dev/fd"))

    assert after_a_worker() == after_a_worker()
