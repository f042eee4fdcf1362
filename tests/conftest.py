"""What several test files share: cases made in code, and the suite in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from conformance.case import Case
from conformance.judge import Verdict
from conformance.pool import Pool
from conformance.session import judged
from conformance.spec import CaseSpec

pytest_plugins = ["pytester"]

# A shell that starts the tests in the background has them ignore SIGINT, and nohup SIGHUP, and with them all that they
# start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform != "win32":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

#: The checkout, which processes that the tests start import the suite from.
ROOT = Path(__file__).resolve().parents[1]


class MakeCase(Protocol):
    """Makes a case from the fields of a case file; what is left out is as plain as can be."""

    def __call__(self, name: str = "case", **fields: Any) -> Case: ...


class JudgeAll(Protocol):
    """Runs cases on the targets of a pool: id of the case, name of the target → verdict."""

    def __call__(self, pool: Pool, cases: Sequence[Case]) -> dict[tuple[str, str], Verdict]: ...


@pytest.fixture(scope="session")
def make_case() -> MakeCase:
    def make(name: str = "case", **fields: Any) -> Case:
        kind: dict[str, Any] = {} if {"native", "signature"} & fields.keys() else {"layer": {}}
        plain = {"why": "A test needs it.", "input": {"shape": [4, 3, 2, 2], "normal": {"mean": 3, "std": 2}}}
        return Case(f"made/{name}", "made.yaml", 1, "", CaseSpec.model_validate(plain | kind | fields), {})

    return make


@pytest.fixture(scope="session")
def judge_all() -> JudgeAll:
    def judge(pool: Pool, cases: Sequence[Case]) -> dict[tuple[str, str], Verdict]:
        return {
            (settled.problem.case.id, name): side.verdict
            for settled in judged(cases, pool)
            for name, side in settled.sides.items()
        }

    return judge


@pytest.fixture
def suite_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts import the suite from this checkout, whatever folder they start in."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
