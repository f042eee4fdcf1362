"""Workers killed at random throughout a run: it ends, and judges what no kill struck as a calm run does.

A killed worker costs the case it was on, which is `crashed` and not tried again, since nobody can tell a kill from a
crash. So the same verdicts means: every case has one, in the order of the cases; at most one is `crashed` for each
kill; and every other is what the calm run said. The long form takes the whole corpus, on torch too:
``tox run -e chaos``.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT, JudgeAll

from conformance.case import Case
from conformance.crew import Limits, Started
from conformance.judge import Verdict
from conformance.load import load
from conformance.pool import Pool
from conformance.session import targets_of
from conformance.target import Target, installed, parse

LONG = "CHAOS" in os.environ
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM)

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc here")


class Killer(threading.Thread):
    """Ends workers of a pool at random moments, and counts how many."""

    def __init__(self, pool: Pool, every: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._pool = pool
        self._every = every
        self._random = random.Random(seed)
        self._done = threading.Event()
        self.left = 0
        self.kills = 0

    def run(self) -> None:
        while not self._done.wait(self._random.uniform(0, 2 * self._every)):
            workers = self._pool.workers
            pid = self._random.choice(workers).pid if workers else None
            if self.left and pid is not None and self._is_ours(pid):
                os.kill(pid, self._random.choice(SIGNALS))
                self.left -= 1
                self.kills += 1

    def _is_ours(self, pid: int) -> bool:
        """Whether it is a child of this process still, and not another that has got its number."""
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return state[0] != "Z" and int(state[1]) == os.getpid()

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self.kills


def corpus(targets: Sequence[Target]) -> list[Case]:
    """The cases that speak to any of the targets; in the short form, some of them."""
    cases = [case for case in load([ROOT / "cases"]) if targets_of(case, targets)]
    if LONG:
        return cases
    chosen = set(random.Random(0).sample([case.id for case in cases], 80))
    return [case for case in cases if case.id in chosen]


def gist(verdict: Verdict) -> tuple[str, str, str | None]:
    return verdict.verdict, verdict.status, verdict.diagnosis


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    "names",
    [
        ["numpy"],
        pytest.param(
            ["numpy", "torch"],
            marks=[
                pytest.mark.frameworks,
                pytest.mark.skipif(not LONG or installed("torch") is None, reason="the long form, where torch is"),
            ],
        ),
    ],
    ids=",".join,
)
def test_killed_workers_cost_a_case_each_and_change_no_other_verdict(
    names: list[str], jobs: int, judge_all: JudgeAll
) -> None:
    targets = [parse(name) for name in names]
    cases = corpus(targets)
    with Pool(targets, jobs=jobs) as pool:
        calm = judge_all(pool, cases)
        assert set(pool.restarts.values()) == {0}
    with Pool(targets, Limits(restarts=10**6), jobs) as pool:
        assert all(isinstance(start, Started) for start in pool.start().values())
        killer = Killer(pool, 0.5 if names == ["numpy"] else 3.0, seed=jobs)
        killer.start()
        crashed: list[tuple[str, str]] = []
        for _ in range(10):  # until a kill has struck a case, and not a worker at rest or on its way up
            killer.left = 10**6 if LONG else 8  # a machine that is busy takes seconds to start a worker
            wild = judge_all(pool, cases)
            crashed = [key for key in wild if wild[key].verdict == "crashed" and calm[key].verdict != "crashed"]
            assert list(wild) == list(calm)
            assert {key: gist(wild[key]) for key in wild if key not in crashed} == {
                key: gist(calm[key]) for key in calm if key not in crashed
            }
            if crashed:
                break
        kills = killer.stop()
        restarts = sum(pool.restarts.values())
    for key in crashed:
        error = wild[key].error
        assert error is not None
        assert "the process was ended by SIG" in error.message
    print(f"{len(wild)} verdicts, {kills} kills, {restarts} restarts, {len(crashed)} crashed")
    assert 0 < len(crashed) <= kills
    assert restarts <= kills
