"""Who is tested: a target is an adapter, options such as execution or backend, and the interpreter it runs in.

``torch``, ``torch,execution=compiled``, ``keras,backend=jax``, ``torch,device=cuda``, ``./folder``; in an
environment of its own ``torch==1.9.0``, ``mindspore,version=2.0.0,python=3.9``, ``tensorflow==2.15.1``.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance import data, versions
from conformance.errors import UsageError
from conformance.profile import AdapterFolder, Profile, open_adapter

#: The targets of the main job, in the order in which reports show them.
MAIN = ("torch", "mindspore", "keras")

#: Options that say where a worker runs, not what it does there.
PLACE = frozenset({"python", "host"})

#: What a host may be reached by, as execnet knows it: ``host=ssh:build3``.
REACHED_BY = ("ssh", "vagrant_ssh", "socket", "popen")


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
        UsageError: an unknown adapter, option or value, or none where one was begun; the message names the nearest
            known one.
    """
    name = text
    if named and text in named:
        text = named[text]
    head, *pairs = text.split(",")
    head, asked, version = head.partition("==")
    path, package = adapter_of(head, named or ())
    if asked and not version.strip():
        raise _no_version(name, head, "==")
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
        if option in PLACE and not value.strip():
            raise UsageError(
                f"target {name}: nothing follows {option}=", hint=f"leave {option}= out, or give it a value"
            )
        if option == "host":
            place[option] = _host(name, value)
        elif option in PLACE:
            place[option] = value
        elif option == "threads":
            if not (value.isascii() and value.isdecimal() and int(value) > 0):
                raise UsageError(f"target {name}: threads is a whole number from 1, not {value!r}")
            options[option] = value
        elif option == "version":
            if not value.strip():
                raise _no_version(name, head, "version=")
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


def _no_version(name: str, head: str, sign: str) -> UsageError:
    """An empty version is no version: read as "the installed one", it would run what nobody asked for."""
    hint = f"a script's variable may be empty; write {head}==1.2.3, or {head} for what is installed"
    return UsageError(f"target {name}: no version follows {sign}", hint=hint)


def _host(name: str, value: str) -> str:
    """A host as execnet reaches it, ``ssh:build3``.

    Raises:
        UsageError: it is none.
    """
    kind, _, where = value.partition(":")
    if kind not in REACHED_BY or not where.strip() or "//" in where:
        raise UsageError(f"target {name}: host={value} names no host", hint="write host=ssh:NAME")
    return value


def adapter_of(head: str, named: Iterable[str] = ()) -> tuple[Path, str]:
    """An adapter's folder, and the distribution where one was named that is not the adapter itself.

    Args:
        named: aliases of a configuration file, one of which may have been meant.

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
    raise UsageError(f"no target {head!r}", hint=_as_an_option(head) or _nearest(head, [*known, *named]))


def _as_an_option(word: str) -> str:
    """A hint for a word that is no target and a value of some target's option, as jax is a backend of Keras."""
    for name, path in data.adapters().items():
        for option, values in open_adapter(path).profile.options.items():
            if word in values:
                return f"did you mean {name},{option}={word}?"
    return ""


def framework_of(text: str, named: Mapping[str, str]) -> str:
    """The framework that a target's specification speaks of, whatever device or interpreter it asks for.

    Raises:
        UsageError: there is no such adapter.
    """
    head = named.get(text, text).partition(",")[0].partition("==")[0]
    return open_adapter(adapter_of(head, named)[0]).profile.framework


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"


def installed(package: str) -> str | None:
    """Version of a distribution in this interpreter, or None; nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def interpreter(target: Target) -> str:
    """The Python that the target's worker runs on; ``python=3.9`` is looked for as python3.9."""
    if target.python is None:
        return sys.executable
    if target.python.replace(".", "").isdigit():
        return f"python{target.python}"
    return target.python
