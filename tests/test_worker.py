"""Behaviour of `conformance.worker`: where a worker stands, what it is given and what it leaves alone."""

from __future__ import annotations

import os
import queue
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from conformance.target import Target, interpreter, parse
from conformance.worker import Events, Worker

#: Says what it finds; every fact is text.
CURIOUS = """
import os, sys, tempfile
from conformance.harness import Adapter

class Curious(Adapter):
    def start(self, options):
        open("dropping", "w").close()
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
        return {
            "options": repr(sorted(options.items())),
            "folder": os.getcwd(),
            "file": __file__,
            "pinned": ",".join(os.environ[name] for name in names),
            "modules": ",".join(name for name in sys.modules if name.partition(".")[0] == "conformance"),
        }
"""


@pytest.fixture
def curious(tmp_path: Path) -> Path:
    """The folder of an adapter that says what it finds."""
    profile = (ROOT / "adapters" / "numpy" / "profile.yaml").read_text(encoding="utf-8")
    folder = tmp_path / "curious"
    folder.mkdir()
    (folder / "profile.yaml").write_text(profile, encoding="utf-8")
    (folder / "adapter.py").write_text(CURIOUS, encoding="utf-8")
    return folder


class Talk:
    """A worker and what it says."""

    def __init__(self, target: Target) -> None:
        self._events: Events = queue.SimpleQueue()
        self.worker = Worker(target, self._events)

    def hear(self) -> dict[str, Any] | None:
        """What the worker says next; None that it has ended."""
        worker, message = self._events.get(timeout=60)
        assert worker is self.worker
        assert message is None or isinstance(message, dict)
        return message


@pytest.fixture
def talks() -> Iterator[list[Talk]]:
    """Workers that end with the test."""
    started: list[Talk] = []
    yield started
    for talk in started:
        talk.worker.kill()


def hello(talks: list[Talk], target: Target) -> dict[str, Any]:
    """The first thing that the target's worker says."""
    talks.append(Talk(target))
    message = talks[-1].hear()
    assert message is not None
    return message


def test_threads_are_pinned_before_anything_is_imported(talks: list[Talk], curious: Path) -> None:
    assert hello(talks, parse(str(curious)))["facts"]["pinned"] == "1,1,1,1"
    assert hello(talks, parse(f"{curious},threads=3"))["facts"]["pinned"] == "3,3,3,3"


def test_the_adapter_gets_the_options_of_its_target(talks: list[Talk], curious: Path) -> None:
    facts = hello(talks, parse(str(curious), threads=2))["facts"]
    assert facts["options"] == "[('device', 'cpu'), ('threads', '2')]"
    assert facts["threads"] == "2"


def test_a_worker_knows_the_harness_and_nothing_else_of_the_suite(talks: list[Talk], curious: Path) -> None:
    assert hello(talks, parse(str(curious)))["facts"]["modules"] == "conformance,conformance.harness"


def test_a_worker_stands_in_a_folder_of_its_own_that_goes_with_it(
    talks: list[Talk], curious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(curious.parent)
    facts = hello(talks, parse("./curious"))["facts"]
    assert Path(facts["file"]) == curious / "adapter.py"
    folder = Path(facts["folder"])
    assert (folder / "dropping").exists()
    talks[0].worker.kill()
    assert not folder.exists()
    assert os.listdir(curious.parent) == ["curious"]


def test_a_worker_on_a_host_stands_in_a_folder_of_its_own_too(talks: list[Talk], curious: Path) -> None:
    """This machine stands in for the other: nothing of it is shared but the channel."""
    facts = hello(talks, parse(f"{curious},host=popen:here,python={sys.executable}"))["facts"]
    folder = Path(facts["folder"])
    assert (folder / "dropping").exists()
    talks[0].worker.kill()
    assert not folder.exists()


def test_a_killed_worker_says_that_it_has_ended(talks: list[Talk], curious: Path) -> None:
    hello(talks, parse(str(curious)))
    talks[0].worker.kill()
    assert talks[0].hear() is None
    talks[0].worker.send({"id": 0})  # taken silently


def test_a_worker_without_numpy_is_unavailable(talks: list[Talk], tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    message = hello(talks, parse(f"numpy,python={tmp_path / 'bare' / 'bin' / 'python'}"))
    assert message == {"unavailable": "ModuleNotFoundError: No module named 'numpy'"}


def test_a_path_with_blanks_names_an_interpreter(talks: list[Talk], curious: Path, tmp_path: Path) -> None:
    python = tmp_path / "my python"
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    python.chmod(0o755)
    assert "facts" in hello(talks, parse(f"{curious},python={python}"))


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        (None, sys.executable),
        ("3.9", "python3.9"),
        ("python3.9", "python3.9"),
        ("/usr/bin/python3", "/usr/bin/python3"),
    ],
)
def test_an_interpreter_is_named_by_version_name_or_path(python: str | None, expected: str) -> None:
    assert interpreter(parse(f"numpy,python={python}" if python else "numpy")) == expected
