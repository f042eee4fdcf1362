"""How a version of a framework is installed: the rules in an adapter's ``versions.yaml``, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import Field, field_validator

from conformance.errors import UsageError
from conformance.fields import Model
from conformance.model_file import read_model


class Rule(Model):
    """What versions of a range need.

    Attributes:
        versions: the range, such as ``<2.7``.
        python: the Pythons that there are wheels for.
        install: what pip is asked for; ``{version}`` is 2.15.1 and ``{minor}`` 2.15.
        backend: value of the target's option ``backend`` → what that takes besides.

    """

    versions: str = ""
    python: str = ">=3.8"
    install: tuple[str, ...] = Field(min_length=1)
    backend: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("versions", "python")
    @classmethod
    def _a_range(cls, given: str) -> str:
        try:
            SpecifierSet(given)
        except InvalidSpecifier as error:
            raise ValueError(str(error)) from error
        return given


class Versions(Model):
    """What an adapter's ``versions.yaml`` holds.

    Attributes:
        history: the versions that `conformance history` shows where none are named.
        packages: distribution as a user asks for it → its rules; the first one whose range holds counts.

    """

    history: tuple[str, ...] = ()
    packages: dict[str, tuple[Rule, ...]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """An environment to be made: what pip installs, on which Pythons.

    Attributes:
        title: what it is for, such as ``torch==1.8.1``.
        python: the Pythons that will do, or the one that the user named, as a version or a path.
        exact: whether `python` was the user's word.

    """

    title: str
    requirements: tuple[str, ...]
    python: str
    exact: bool = False


def read(folder: Path) -> Versions:
    """The rules of an adapter's folder; none where it has no ``versions.yaml``.

    Raises:
        UsageError: the file is there and cannot be read.

    """
    file = folder / "versions.yaml"
    if not file.is_file():
        return Versions()
    return read_model(file, Versions)


def recipe(
    rules: Versions, package: str, version: str, options: Mapping[str, str], python: str | None = None
) -> Recipe:
    """How this version of this distribution is installed; as it stands where there are no rules for it.

    Raises:
        UsageError: the version is none, or no rule's range holds it.

    """
    try:
        release = Version(version)
    except InvalidVersion as error:
        raise UsageError(f"{package}=={version}: {version!r} is no version") from error
    known = rules.packages.get(package, (Rule(install=("{package}=={version}", "numpy")),))
    for rule in known:
        if SpecifierSet(rule.versions).contains(release, prereleases=True):
            words = {"package": package, "version": version, "minor": f"{release.major}.{release.minor}"}
            asked = [text.format_map(words) for text in rule.install]
            if options.get("backend") in rule.backend:
                asked += rule.backend[options["backend"]]
            return Recipe(f"{package}=={version}", tuple(asked), python or rule.python, python is not None)
    ranges = ", ".join(rule.versions for rule in known)
    raise UsageError(f"{package}=={version} cannot be installed here", hint=f"known are versions {ranges}")
