"""Helpers that judge beside the main process: the same verdicts, whoever falls, and nobody left behind."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import case
from conftest import ROOT

from conformance import judges as judges_module
from conformance import lines
from conformance.commands import launch
from conformance.commands import run as run_command
from conformance.comparison import Under
from conformance.crew import Interrupted, Started
from conformance.desk import Desk, Judged, JudgePairs, JudgeSide, Open, PairsJudged, SideJudged, Task
from conformance.judges import Helper, Judges, Wire
from conformance.observation import Observation
from conformance.pool import Pool
from conformance.problem import Problem, materialise
from conformance.process import ProcessError
from conformance.run_folder import read
from conformance.session import Settled, judged
from conformance.target import parse

FAULTY = Path(__file__).parent / "faulty"
TARGETS = [parse("numpy"), parse(f"{FAULTY},fault=running_variance_biased"), parse(f"{FAULTY},fault=beta_ignored")]
LAYER = {"rank": 1, "initial": {"beta": 1.0}}
CASES = [
    case(f"tests/{n}", input={"shape": [4, 3], "normal": {"seed": n}}, layer=LAYER, steps=["train", "eval"])
    for n in range(6)
]
NATIVE = case("tests/native", native={"numpy": {"features": 3}})
SIGNATURE = case("tests/signature", rank=2, signature={"numpy": {"features": None}})
REFUSED = case("tests/refused", input={"shape": [4, 3], "normal": {}}, layer={"rank": 2})


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(TARGETS) as started:
        started.start()
        yield started


@pytest.fixture(scope="module")
def tasks(pool: Pool) -> list[Task]:
    """What is asked of judges for the cases, one case after another."""
    unders = {}
    for target in pool.targets:
        start = pool.starts[target.name]
        assert isinstance(start, Started)
        unders[target.name] = Under(target.name, target.profile, start.facts)
    opened: dict[int, Problem] = {}
    sides: dict[tuple[int, str], Observation] = {}
    for observed in pool.observe((materialise(each), pool.targets) for each in CASES):
        assert observed.observation is not None
        opened[observed.index] = observed.problem
        sides[observed.index, observed.target.name] = observed.observation
    found: list[Task] = []
    for index, problem in sorted(opened.items()):
        found.append(Open(index, problem))
        found += [JudgeSide(index, under, sides[index, name]) for name, under in unders.items()]
        found.append(JudgePairs(index, tuple(unders)))
    return found


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers start with the first verdict."""
    monkeypatch.setattr(judges_module, "ALONE", 1)


def up(judges: Judges, problem: Problem, under: Under, observation: Observation) -> None:
    """Judge something here, so that the helpers start, and wait until they are up."""
    for task in (Open(-1, problem), JudgeSide(-1, under, observation), JudgePairs(-1, (under.name,))):
        judges.give(task)
    taken(judges, lambda _: all(helper.up for helper in judges.helpers))
    assert judges.helpers


def taken(judges: Judges, enough: Callable[[list[Judged]], bool]) -> list[Judged]:
    """What is judged until that is enough; for a minute at most."""
    found: list[Judged] = []
    end = time.monotonic() + 60
    while not enough(found):
        assert time.monotonic() < end
        time.sleep(0.01)
        found += judges.taken()
    return found


def all_taken(judges: Judges) -> list[Judged]:
    return taken(judges, lambda _: not judges.helped)


def first_side(tasks: list[Task]) -> tuple[Problem, Under, Observation]:
    opened, side = tasks[:2]
    assert isinstance(opened, Open)
    assert isinstance(side, JudgeSide)
    return opened.problem, side.under, side.observation


def here(tasks: list[Task]) -> list[Judged]:
    desk = Desk()
    return [found for task in tasks if (found := desk.do(task)) is not None]


def by_case(found: list[Judged]) -> dict[int, list[Any]]:
    """The results of each case in order, as they would be written."""
    answers: dict[int, list[Any]] = {}
    for each in found:
        if isinstance(each, SideJudged):
            said: Any = lines.verdict_line("", each.target, each.verdict, Observation(), each.evidence)
        else:
            said = [lines.pair_line("", *pair, agreement) for pair, agreement in each.pairs.items()]
        answers.setdefault(each.index, []).append(said)
    return answers


def test_helpers_judge_as_this_process_does(eager: None, tasks: list[Task]) -> None:
    with Judges(2) as judges:
        up(judges, *first_side(tasks))
        for task in tasks:
            judges.give(task)
        assert judges.helped
        assert [len(helper.cases) for helper in judges.helpers] == [3, 3]
        found = all_taken(judges)
    assert by_case(found) == by_case(here(tasks))
    assert sum(isinstance(each, PairsJudged) for each in found) == len(CASES)


def test_what_is_known_of_a_target_is_sent_once(tasks: list[Task]) -> None:
    ours, theirs = Wire(), Wire()
    packed = [ours.pack(task) for task in tasks]
    sides = [len(message) for message, task in zip(packed, tasks, strict=True) if isinstance(task, JudgeSide)]
    assert max(sides[3:]) < min(sides[:3]) / 2
    unders = [task.under for message in packed if isinstance(task := theirs.unpack(message), JudgeSide)]
    assert [under.name for under in unders] == [target.name for target in TARGETS] * len(CASES)
    assert all(unders[n] is unders[n % 3] for n in range(len(unders)))


@pytest.mark.parametrize("answered", [0, 1, 5])
def test_a_helper_that_dies_loses_nothing(eager: None, tasks: list[Task], answered: int) -> None:
    """Whether it had answered nothing, a part of a case, or several cases."""
    found: list[Judged] = []
    with Judges(1) as judges:
        up(judges, *first_side(tasks))
        (helper,) = judges.helpers
        assert helper.process.pid is not None
        given = iter(tasks)
        while len(found) < answered:
            judges.give(next(given))
            found += taken(judges, lambda _: helper.owes == 0)
        os.kill(helper.process.pid, signal.SIGSTOP)
        for task in given:
            judges.give(task)
        os.kill(helper.process.pid, signal.SIGKILL)
        found += all_taken(judges)
        assert not helper.up
    assert by_case(found) == by_case(here(tasks))


def test_a_task_that_cannot_be_sent_loses_nothing(
    eager: None, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short."""
    with Judges(1) as judges:
        up(judges, *first_side(tasks))
        (helper,) = judges.helpers

        def fails(*_: object) -> None:
            raise MemoryError("no more")

        monkeypatch.setattr(helper.process._channel, "send", fails)
        for task in tasks:
            judges.give(task)
        found = all_taken(judges)
        assert not helper.up
    assert by_case(found) == by_case(here(tasks))


def test_where_no_helper_can_be_started_this_process_judges(
    eager: None, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> Helper:
        raise ProcessError("no process")

    monkeypatch.setattr(judges_module, "Helper", refuse)
    with Judges(2) as judges:
        for task in tasks:
            judges.give(task)
        assert not judges.helped
        assert by_case(judges.taken()) == by_case(here(tasks))


def test_a_large_case_is_judged_here(eager: None, tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    with Judges(1) as judges:
        up(judges, *first_side(tasks))
        monkeypatch.setattr(judges_module, "LARGE", 11)  # each case has 24 elements
        for task in tasks:
            judges.give(task)
        assert not judges.helped


def test_who_has_enough_is_given_no_more(eager: None, tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    with Judges(1) as judges:
        up(judges, *first_side(tasks))
        monkeypatch.setattr(judges_module, "ENOUGH", 4)  # a case is four answers
        for task in tasks:
            judges.give(task)
        assert len(judges.helpers[0].cases) == 1


def test_few_verdicts_need_no_help(tasks: list[Task]) -> None:
    with Judges(2) as judges:
        for task in tasks:
            judges.give(task)
        assert not judges.helpers


def test_no_helper_is_left_behind(eager: None, tasks: list[Task]) -> None:
    with Judges(2) as judges:
        up(judges, *first_side(tasks))
        pids = [helper.process.pid for helper in judges.helpers]
        for task in tasks:
            judges.give(task)
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def summary(found: list[Settled]) -> list[Any]:
    return [
        (
            each.problem.case.id,
            [(name, side.verdict.verdict, side.verdict.because) for name, side in each.sides.items()],
            [(pair, agreement.agreement, agreement.because) for pair, agreement in each.pairs.items()],
        )
        for each in found
    ]


def test_a_session_waits_for_its_helpers_and_keeps_the_order(eager: None, pool: Pool) -> None:
    cases = [*CASES, REFUSED, NATIVE, SIGNATURE, *CASES]
    with Judges(1, pool.wake) as judges:
        problem, under, observation = first_side_of(pool)
        up(judges, problem, under, observation)
        helped = list(judged(cases, pool, judges=judges))
    assert summary(helped) == summary(list(judged(cases, pool)))


def first_side_of(pool: Pool) -> tuple[Problem, Under, Observation]:
    target = pool.targets[0]
    start = pool.starts[target.name]
    assert isinstance(start, Started)
    (observed,) = pool.observe([(materialise(CASES[0]), [target])])
    assert observed.observation is not None
    return observed.problem, Under(target.name, target.profile, start.facts), observed.observation


def test_a_session_that_is_interrupted_does_not_wait_for_its_helpers(eager: None) -> None:
    with Pool(TARGETS) as pool, Judges(1, pool.wake) as judges:
        pool.start()
        up(judges, *first_side_of(pool))
        pid = judges.helpers[0].process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        settling = judged(CASES, pool, judges=judges)
        signalled: queue.SimpleQueue[float] = queue.SimpleQueue()

        def alarm(*_: object) -> None:
            signalled.put(time.monotonic())
            pool.interrupt()

        before = signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        try:
            with pytest.raises(Interrupted):
                next(settling)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert time.monotonic() - signalled.get() < 5


def test_a_run_with_helpers_is_the_run_without(eager: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Judged] = []

    class Known(Helper):
        """Is given cases before it is up, and has its answers counted."""

        def __init__(self, heard: Callable[[Helper, bytes | None], None]) -> None:
            super().__init__(heard)
            self.up = True

        def answered(self, message: bytes) -> Judged:
            answers.append(super().answered(message))
            return answers[-1]

    monkeypatch.setattr(judges_module, "Helper", Known)
    file = ROOT / "cases" / "eps.yaml"
    for cpus in (2, 4):
        assert not answers
        monkeypatch.setattr(run_command, "cpus", lambda cpus=cpus: cpus)
        assert launch.run([file], ["numpy"], "", tmp_path / f"{cpus}", 1, "cpu", 60.0) == 0
    assert answers
    few, many = (read(tmp_path / f"{cpus}") for cpus in (2, 4))
    assert [{**line, "seconds": 0} for line in few.verdicts] == [{**line, "seconds": 0} for line in many.verdicts]
