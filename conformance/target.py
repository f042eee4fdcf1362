"""Who is tested: a target is an adapter, options such as execution or backend, and the interpreter it runs in.

``torch``, ``torch,execution=compiled``, ``keras,backend=jax``, ``torch,device=cuda``, ``./folder``; in an
environment of its own ``torch==1.9.0``, ``mindspore,version=2.0.0,python=3.9``, ``tensorflow==2.15.1``.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance import data, versions
from conformance.errors import UsageError
from conformance.profile import AdapterFolder, Profile, open_adapter

#: The targets of the main job, in the order in which reports show them.
MAIN = ("torch", "mindspore", "keras")

#: Options that say where a worker runs, not what it does there.
PLACE = frozenset({"python", "host"})


@dataclass(frozen=True)
class Target:
    """One column of a run.

    Attributes:
        name: the specification as the user wrote it, which names it in every file and report.
        options: what goes to the adapter: device, threads, execution, backend.
        python: interpreter of the worker; None for this one.
        host: execnet's place, such as ``ssh:build3``; None for this machine.
        recipe: how the environment of a named version is made; `conformance.environments` does.
        missing: why there is no such environment (yet); empty where there is one, or none is needed.
    """

    name: str
    adapter: AdapterFolder
    options: dict[str, str]
    python: str | None = None
    host: str | None = None
    recipe: versions.Recipe | None = None
    missing: str = ""

    @property
    def framework(self) -> str:
        return self.adapter.profile.framework

    @property
    def profile(self) -> Profile:
        return self.adapter.profile


def parse(text: str, *, device: str = "cpu", threads: int = 1, named: Mapping[str, str] | None = None) -> Target:
    """A target from its specification; `named` are the aliases of a configuration file.

    Raises:
        UsageError: an unknown adapter, option or value; the message names the nearest known one.
    """
    name = text
    if named and text in named:
        text = named[text]
    head, *pairs = text.split(",")
    head, _, version = head.partition("==")
    path, package = adapter_of(head)
    adapter = open_adapter(path)
    profile = adapter.profile
    options = {option: values[0] for option, values in profile.options.items()}
    if device not in profile.options.get("device", ["cpu"]):
        raise UsageError(f"target {name}: {profile.name} has no device {device}")
    options["device"] = device
    options["threads"] = str(threads)
    place: dict[str, str] = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"target {name}: {pair!r} is no option=value")
        if option in PLACE:
            place[option] = value
        elif option == "threads":
            if not (value.isascii() and value.isdecimal() and int(value) > 0):
                raise UsageError(f"target {name}: threads is a whole number from 1, not {value!r}")
            options[option] = value
        elif option == "version":
            version = value
        elif option not in profile.options:
            raise UsageError(f"target {name}: unknown option {option!r}", hint=_nearest(option, [*profile.options]))
        elif value not in profile.options[option]:
            admitted = profile.options[option]
            raise UsageError(f"target {name}: {option} is one of {', '.join(admitted)}, not {value!r}")
        else:
            options[option] = value
    python, host = place.get("python"), place.get("host")
    if not version:
        return Target(name, adapter, options, python, host)
    if host is not None:
        raise UsageError(f"target {name}: environments are made on this machine only", hint="leave out version or host")
    recipe = versions.recipe(versions.read(path), package or profile.package, version, options, python)
    return Target(name, adapter, options, python, host, recipe, missing="its environment was not made")


def adapter_of(head: str) -> tuple[Path, str]:
    """An adapter's folder, and the distribution where one was named that is not the adapter itself.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    known = data.adapters()
    if head in known:
        return known[head], ""
    if "/" in head or "\\" in head or Path(head).is_dir():
        return Path(head), ""
    for path in known.values():
        if head in versions.read(path).packages:
            return path, head
    raise UsageError(f"no target {head!r}", hint=_nearest(head, [*known]))


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"


def installed(package: str) -> str | None:
    """Version of a distribution in this interpreter, or None; nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def configured(folder: Path) -> dict[str, str]:
    """Named targets: ``[targets]`` of conformance.toml, else ``[tool.conformance.targets]`` of pyproject.toml.

    Raises:
        UsageError: the file is no TOML, or a target is not given as text.
    """
    for name, path in (("conformance.toml", ("targets",)), ("pyproject.toml", ("tool", "conformance", "targets"))):
        file = folder / name
        if not file.is_file():
            continue
        try:
            table: Any = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} is no TOML: {error}") from error
        for key in path:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise UsageError(f"{file}: [{'.'.join(path)}] gives each target as text, such as 'torch,device=cuda'")
        if table:
            return dict(table)
    return {}


def interpreter(target: Target) -> str:
    """The Python that the target's worker runs on; ``python=3.9`` is looked for as python3.9."""
    if target.python is None:
        return sys.executable
    if target.python.replace(".", "").isdigit():
        return f"python{target.python}"
    return target.python
