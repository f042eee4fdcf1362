"""Environments are built once, whole or not at all; a failure is told in the installer's own words.

Nothing is downloaded: pip is told to look into an empty folder, and installs what was built from a folder here.
"""

from __future__ import annotations

import multiprocessing
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.crew import NotStarted
from conformance.environments import NotBuilt, cache_folder, environment, provide
from conformance.pool import Pool
from conformance.target import parse
from conformance.versions import Recipe

PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
#: A build backend that needs nothing: it writes the wheel of a package of one module.
BACKEND = """\
import zipfile

def build_wheel(folder, settings=None, metadata=None):
    name = "tiny_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("tiny_thing.py", "VALUE = 7\\n")
        about = "Metadata-Version: 2.1\\nName: tiny-thing\\nVersion: 1.0\\n"
        wheel.writestr("tiny_thing-1.0.dist-info/METADATA", about)
        wheel.writestr(
            "tiny_thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        )
        wheel.writestr("tiny_thing-1.0.dist-info/RECORD", "")
    return name
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a cache of its own, where pip finds nothing but paths; one for all, since each build takes long."""
    path = tmp_path_factory.mktemp("home")
    (path / "source").mkdir()
    (path / "source" / "pyproject.toml").write_text(PROJECT)
    (path / "source" / "backend.py").write_text(BACKEND)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(path), "CONFIG_FILE": "/dev/null"}.items():
            patch.setenv(f"PIP_{name}", value)
        patch.delenv("PIP_CONSTRAINT", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(path / "cache"))
        yield path


@pytest.fixture(scope="module")
def tiny(home: Path) -> Recipe:
    """What installs a package of one module from its source."""
    return Recipe("tiny-thing==1.0", (str(home / "source"),), ">=3.8")


def quiet(_: str) -> None:
    pass


def left() -> set[str]:
    """What the cache holds besides locks."""
    cache = cache_folder()
    return {path.name for path in cache.iterdir() if path.suffix != ".lock"} if cache.is_dir() else set()


def answer(python: Path, code: str) -> list[str]:
    """What an environment's interpreter says, as isolated as a worker is."""
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def _build(recipe: Recipe, told: multiprocessing.Queue[str]) -> None:
    told.put(str(environment(recipe, quiet)))


def test_two_processes_that_want_the_same_one_get_the_same_one(home: Path, tiny: Recipe) -> None:
    spawn = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[str] = spawn.Queue()
    processes = [spawn.Process(target=_build, args=(tiny, told)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = {told.get(timeout=300) for _ in processes}
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len(answers) == 1
    assert left() == {Path(answers.pop()).parents[1].name}


def test_an_environment_has_what_was_asked_for_as_compiled_bytecode_and_nothing_of_ours(tiny: Recipe) -> None:
    python = environment(tiny, quiet)
    value, cached = answer(python, "import tiny_thing; print(tiny_thing.VALUE, tiny_thing.__cached__)")
    assert value == "7"
    assert Path(cached).is_file()
    assert answer(python, "from importlib.util import find_spec; print(find_spec('conformance'))") == ["None"]


def test_it_is_built_once_and_on_the_python_that_runs_the_suite_where_that_will_do(tiny: Recipe) -> None:
    first = environment(tiny, quiet)
    told: list[str] = []
    assert environment(tiny, told.append) == first
    assert told == []
    assert answer(first, "import platform; print(platform.python_version())") == [platform.python_version()]


def test_what_a_killed_process_left_is_cleared_away_and_a_broken_environment_built_anew(tiny: Recipe) -> None:
    python = environment(tiny, quiet)
    place = python.parents[1]
    left_over = place.with_name(f".{place.name}.x.partial")
    left_over.mkdir()
    python.unlink()
    assert environment(tiny, quiet) == python
    assert answer(python, "import tiny_thing; print(tiny_thing.VALUE)") == ["7"]
    assert not left_over.exists()


def test_a_failed_install_is_told_in_pips_words_and_leaves_nothing(home: Path, tiny: Recipe) -> None:
    environment(tiny, quiet)
    before = left()
    told: list[str] = []
    other = Recipe(tiny.title, (*tiny.requirements, "no-such-thing==9"), tiny.python)  # not taken for `tiny`
    with pytest.raises(NotBuilt) as caught:
        environment(other, told.append)
    message = str(caught.value)
    assert "no-such-thing==9 failed on Python 3" in message
    assert "No matching distribution found for no-such-thing==9" in message
    assert told[0].startswith("tiny-thing==1.0: making an environment of Python 3")
    assert left() == before


def test_a_python_that_is_not_here_is_told_with_those_that_are(home: Path) -> None:
    with pytest.raises(NotBuilt, match=r"it needs Python .*3\.2.*, and here are .*3\.\d+"):
        environment(Recipe("old==1", ("old==1",), "3.2", exact=True), quiet)
    with pytest.raises(NotBuilt, match="/no/python is no Python"):
        environment(Recipe("old==1", ("old==1",), "/no/python", exact=True), quiet)


def test_a_target_without_its_environment_cannot_run_and_costs_the_others_nothing(home: Path) -> None:
    targets = provide([parse("numpy==1.99.99"), parse("numpy")], quiet)
    with Pool(targets) as pool:
        starts = pool.start()
    absent = starts["numpy==1.99.99"]
    assert isinstance(absent, NotStarted)
    assert not absent.broken
    assert "No matching distribution found for numpy==1.99.99" in absent.message
    assert not isinstance(starts["numpy"], NotStarted)
