"""A profile: the conventions a framework declares, as data, and how its constructor's words read in canonical terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from conformance.case import Case, Float, Model, When, matches
from conformance.errors import UsageError
from conformance.problem import INITIAL, Problem
from conformance.reference import CANONICAL, Array, Conventions, Parameters


class Default(Model):
    """A parameter's default, and for momentum which statistic it weighs."""

    default: Float
    weighs: Literal["new", "old"] = "new"


class Convention(Model):
    """One declared convention and the range it holds for; exactly one field besides when and because."""

    running_variance: Literal["unbiased", "biased"] | None = None
    default_mode: Literal["train", "eval"] | None = None
    mode_lasts: bool | None = None
    frozen: Literal["mode", "eval"] | None = None
    statistics: Literal["accumulated", "rounded"] | None = None
    layout: Literal["channels_first", "channels_last"] | None = None
    eps: Default | None = None
    momentum: Default | None = None
    refuses: str | None = None
    when: When = Field(default_factory=dict)
    because: str = ""


Conditional = Annotated[tuple[Convention, ...], BeforeValidator(tuple)]


class Profile(Model):
    """What an adapter's ``profile.yaml`` holds.

    Attributes:
        package: the distribution whose presence means that the target can run.
        options: what a target's specification may set, with the values admitted, the default first.
        parameters: argument of the framework's constructor → canonical parameter.
    """

    framework: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    name: str
    package: str
    options: dict[str, list[str]]
    parameters: dict[str, str]
    conventions: Conditional

    def declared(self, case: Case, facts: dict[str, Any]) -> dict[str, Any]:
        """The conventions that hold for this case on this target, as changes to `Conventions`.

        How momentum and the defaults are spelled matters where arguments are native; elsewhere the adapter
        translates them.
        """
        changes: dict[str, Any] = {}
        for convention in self.conventions:
            if not matches(convention.when, {**case.features, **facts}):
                continue
            for field in ("running_variance", "default_mode", "mode_lasts", "frozen", "statistics"):
                if getattr(convention, field) is not None:
                    changes[field] = getattr(convention, field)
            if convention.eps is not None and case.kind == "native":
                changes["default_eps"] = convention.eps.default
            if convention.momentum is not None and case.kind == "native":
                changes["default_momentum"] = convention.momentum.default
                changes["momentum_weighs"] = convention.momentum.weighs
        return {field: value for field, value in changes.items() if value != getattr(CANONICAL, field)}

    def refusal(self, case: Case, facts: dict[str, Any]) -> Convention | None:
        """The declared refusal of this case, if there is one."""
        for convention in self.conventions:
            if convention.refuses is not None and matches(convention.when, {**case.features, **facts}):
                return convention
        return None

    def read(self, problem: Problem, conventions: Conventions) -> Parameters:
        """A case's layer in canonical terms; native arguments are read under `conventions`.

        Raises:
            UsageError: a native argument that the profile does not map to a canonical parameter.
        """
        layer = problem.case.spec.layer
        if layer is not None:
            initial = {name: problem.initial.get(name) for name in INITIAL}
            return _parameters(problem.features, initial, **_canonical(layer))
        native = (problem.case.spec.native or {})[self.framework]
        given = {}
        for argument, value in native.items():
            if argument not in self.parameters:
                raise UsageError(
                    f"{problem.case.file}:{problem.case.line}: {self.name} argument {argument!r} has no meaning in "
                    f"adapters/{self.framework}/profile.yaml",
                    hint="map it under parameters: there",
                )
            given[self.parameters[argument]] = value
        statistics = {name: given.get(name) for name in INITIAL}
        return _parameters(
            int(given.get("features", problem.features)),
            statistics,
            eps=given.get("eps", conventions.default_eps),
            momentum=given.get("momentum", conventions.default_momentum),
            scale=given.get("scale", given.get("affine", True)),
            center=given.get("center", given.get("affine", True)),
            track_running_stats=given.get("track_running_stats", True),
            mode={True: "train", False: "eval", None: None}[given.get("use_batch_statistics")],
        )


def _canonical(layer: Any) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("eps", "momentum", "scale", "center", "track_running_stats")}


def _parameters(features: int, initial: dict[str, Any], **rest: Any) -> Parameters:
    rest |= {name: _vector(initial[name], features, start) for name, start in INITIAL.items()}
    return Parameters(**rest)


def _vector(value: Any, features: int, start: float) -> Array:
    """An initial vector (features,) float64 from an array, a number, or an initialiser's name."""
    if value is None:
        value = start
    if isinstance(value, str):
        value = {"ones": 1.0, "zeros": 0.0}[value]
    return np.broadcast_to(np.asarray(value, np.float64), (features,)).copy()


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter on disk: ``adapter.py`` and the profile beside it."""

    path: Path
    profile: Profile

    @property
    def source(self) -> Path:
        return self.path / "adapter.py"


def open_adapter(path: Path) -> AdapterFolder:
    """Read an adapter's folder.

    Raises:
        UsageError: the folder has no adapter.py, or no profile.yaml that can be read; the message says where.
    """
    profile = path / "profile.yaml"
    for needed in (path / "adapter.py", profile):
        if not needed.is_file():
            raise UsageError(f"{path} is no adapter: it has no {needed.name}", hint="see CONTRIBUTING.md, Adapters")
    try:
        return AdapterFolder(path, Profile.model_validate(YAML(typ="safe", pure=True).load(profile)))
    except (YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise UsageError(f"{profile} cannot be read: {error}") from error
