"""Isolated environments, one per version of a framework, built once and kept in the user's cache.

venv and pip make them, so the user's own pip settings hold. An environment is built aside under a lock and renamed
when whole: two processes that want the same one share the work, and a failed install leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from packaging.specifiers import SpecifierSet

from conformance.errors import UsageError
from conformance.safe_text import clean
from conformance.target import Target
from conformance.versions import Recipe

#: Told what is under way, in a line.
Say = Callable[[str], None]

#: What the installer said last is what explains its failure.
_LAST_LINES = 12
#: Settings that would put packages elsewhere than into the environment, or let others into it.
_LEAKS = (
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
    "PIP_ROOT",
    "__PYVENV_LAUNCHER__",
)
#: Wheels are preferred: an old version's source may not build any more.
_INSTALL = (
    *("-m", "pip", "install", "--prefer-binary", "--compile", "--no-input"),
    *("--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off"),
)


class NotBuilt(UsageError):
    """An environment could not be made; the message has the installer's last lines."""


def cache_folder() -> Path:
    """Where environments are kept: below XDG_CACHE_HOME, by default ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "batchnorm-conformance" / "environments"


def provide(targets: Sequence[Target], say: Say) -> list[Target]:
    """The targets with the interpreter of their environment, which is built where it is not there yet.

    One that could not be built is still a target, `missing`, and costs the others nothing.
    """
    return [_provided(target, say) for target in targets]


def _provided(target: Target, say: Say) -> Target:
    if target.recipe is None:
        return target
    try:
        return dataclasses.replace(target, python=str(environment(target.recipe, say)), missing="")
    except NotBuilt as error:
        return dataclasses.replace(target, missing=str(error))


def environment(recipe: Recipe, say: Say, cache: Path | None = None) -> Path:
    """The interpreter of an environment made by this recipe, building it unless it is there.

    Raises:
        NotBuilt: no Python fits, the installer failed, or the cache cannot be written to.

    """
    base = _base(recipe)
    folder = (cache or cache_folder()) / _name(recipe, base)
    python = _interpreter(folder)
    if python.exists():
        return python
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(folder.name + ".lock"), recipe, say):
            if not python.exists():
                _build(recipe, base, folder, say)
    except OSError as error:
        raise NotBuilt(f"no environment for {recipe.title}: {error}") from error
    return python


def made(recipe: Recipe, cache: Path | None = None) -> Path | None:
    """The interpreter of an environment that is there already; None where it would have to be built, or cannot be."""
    with contextlib.suppress(NotBuilt):
        python = _interpreter((cache or cache_folder()) / _name(recipe, _base(recipe)))
        return python if python.exists() else None
    return None


def _interpreter(folder: Path) -> Path:
    return folder / "bin" / "python"


def _build(recipe: Recipe, base: str, folder: Path, say: Say) -> None:
    """Make the environment beside its place, then rename it; nothing in it knows where it stands but scripts."""
    for dropped in folder.parent.glob(f".{folder.name}.*.partial"):  # by a process that was killed; the lock is ours
        shutil.rmtree(dropped, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        say(f"{recipe.title}: making an environment of Python {_version(base)}")
        _run([base, "-m", "venv", str(aside)], recipe, say)
        _run([str(aside / "bin" / "python"), *_INSTALL, *recipe.requirements], recipe, say)
        told = {"title": recipe.title, "python": _version(base), "requirements": list(recipe.requirements)}
        (aside / "conformance.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # an environment whose Python is gone
        aside.rename(folder)
        say(f"{recipe.title}: ready")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _run(command: Sequence[str], recipe: Recipe, say: Say) -> None:
    settings = {name: value for name, value in os.environ.items() if name not in _LEAKS}
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(  # noqa: S603 - an interpreter, with words of ours
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=settings,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                text = clean(line).strip()
                if text and not text.startswith("WARNING: "):
                    last.append(text)
                if text.startswith(("Collecting ", "Downloading ", "Installing ", "Building ")):
                    say(f"{recipe.title}: {text[0].lower()}{text[1:100]}")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        words = "\n".join(f"  {line}" for line in last)
        asked = " ".join(recipe.requirements)
        raise NotBuilt(
            f"no environment for {recipe.title}: pip install {asked} failed on Python {_version(command[0])}\n{words}"
        )


@contextlib.contextmanager
def _locked(path: Path, recipe: Recipe, say: Say) -> Iterator[None]:
    """Hold a file's lock, which the system takes back from a process that dies."""
    import fcntl  # POSIX only, as environments are; the other commands do without

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{recipe.title}: another process is building it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _name(recipe: Recipe, base: str) -> str:
    """The folder's name: readable, and another for other requirements or another Python."""
    version = _version(base)
    told = json.dumps([recipe.requirements, version, os.path.realpath(base)])
    digest = hashlib.blake2b(told.encode(), digest_size=4).hexdigest()
    return f"{recipe.title.replace('==', '-')}-py{version}-{digest}"


def _base(recipe: Recipe) -> str:
    """The interpreter to build on: the user's word, else this one if it will do, else the newest that will.

    Raises:
        NotBuilt: there is none.

    """
    named = recipe.python
    if recipe.exact and not named.replace(".", "").isdigit():
        if _version(named) is None:
            raise NotBuilt(f"no environment for {recipe.title}: {named} is no Python")
        return named
    wanted = SpecifierSet(f"=={named}.*" if recipe.exact else named)
    if wanted.contains(platform.python_version(), prereleases=True):
        return sys.executable
    fitting = [(version, path) for path in pythons() if (version := _version(path)) and wanted.contains(version)]
    if not fitting:
        seen = ", ".join(sorted({version for path in pythons() if (version := _version(path))}, key=_order))
        raise NotBuilt(
            f"no environment for {recipe.title}: it needs Python {wanted}, and here are {seen}",
            hint="install one, or name its path with python=",
        )
    return max(fitting, key=lambda found: _order(found[0]))[1]


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@cache
def pythons() -> tuple[str, ...]:
    """Interpreters on the PATH, of pyenv and of uv."""
    on_path = [found for minor in range(8, 20) if (found := shutil.which(f"python3.{minor}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local" / "share" / "uv" / "python")
    managed = [str(path) for root in (pyenv, uv) for path in sorted(root.glob("*3.*/bin/python3"))]
    return (sys.executable, *managed, *on_path)


@cache
def _version(python: str) -> str | None:
    """3.9.18, or None if it does not run."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
