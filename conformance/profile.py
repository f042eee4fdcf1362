"""A profile: the conventions a framework declares, as data, and how its constructor's words read in canonical terms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal

import numpy as np
from packaging.specifiers import SpecifierSet
from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from conformance.arithmetic import Array
from conformance.case import Case
from conformance.conditions import CONDITIONS, TARGET_FACTS, When, matches
from conformance.conventions import CANONICAL, Conventions
from conformance.errors import UsageError
from conformance.fields import Float, Model, Refusal
from conformance.layer import Parameters
from conformance.model_file import read_model
from conformance.problem import INITIAL, Problem
from conformance.schema import nearest


class Default(Model):
    """A parameter's default, and for momentum which statistic it weighs."""

    default: Float
    weighs: Literal["new", "old"] = "new"


class Convention(Refusal):
    """One declared convention and the range it holds for; exactly one field besides says, when and because."""

    running_variance: Literal["unbiased", "biased"] | None = None
    default_mode: Literal["train", "eval"] | None = None
    mode_lasts: bool | None = None
    frozen: Literal["mode", "eval"] | None = None
    unlearned: Literal["absent", "applied"] | None = None
    mask_count: Literal["exact", "padded"] | None = None
    statistics: Literal["accumulated", "rounded", "rounded for gradients"] | None = None
    terms: Literal["accumulated", "rounded"] | None = None
    precision: Literal["as given", "float32"] | None = None
    summation: Literal["blocked", "eight lanes", "sequential"] | None = None
    variance: Literal["two-pass", "one-pass"] | None = None
    subnormals: Literal["kept", "flushed"] | None = None
    layout: Literal["channels_first", "channels_last"] | None = None
    least_eps: Float | None = None
    eps: Default | None = None
    momentum: Default | None = None
    when: When = Field(default_factory=dict)
    because: str = ""

    @model_validator(mode="after")
    def _one_that_can_hold(self) -> Convention:
        given = [name for name in self.model_fields_set if name not in ("says", "when", "because")]
        if len(given) != 1:
            said = f"{len(given)}: {', '.join(sorted(given))}" if given else "none"
            raise ValueError(f"an entry declares exactly one convention, not {said}")
        for key, wanted in self.when.items():
            if key not in CONDITIONS:
                raise ValueError(f"unknown condition {key} ({nearest(key, CONDITIONS)})")
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if key == "version":
                    SpecifierSet(str(value))
                elif isinstance(value, str) and value[:1] in "<>":
                    float(value.lstrip("<>="))
        return self


#: The fields above that `Conventions` has too.
DECLARED = (
    "running_variance",
    "least_eps",
    "default_mode",
    "mode_lasts",
    "frozen",
    "unlearned",
    "mask_count",
    "statistics",
    "terms",
    "precision",
    "summation",
    "variance",
    "subnormals",
)


def _items(given: Any) -> Any:
    """A list of the file as the tuple that is asked for; what is no list is left to be refused."""
    return tuple(given) if isinstance(given, list) else given


Conditional = Annotated[tuple[Convention, ...], BeforeValidator(_items)]


class State(Model):
    """What a layer does in one mode with some arguments: which statistics normalise, and whether the running ones move.

    Attributes:
        arguments: of the constructor, those that decide; empty where the mode alone does.
    """

    mode: Literal["train", "eval"]
    arguments: dict[str, bool | None] = Field(default_factory=dict)
    normalises_by: Literal["batch", "running"]
    updates: bool


class Interface(Model):
    """What a framework calls things, for the pages that set two frameworks side by side.

    Attributes:
        layer: the class, with {rank} where its name has 1, 2 or 3.
        input: the argument that takes x.
        train, eval: how a layer is told to train and to infer.
        names: gamma, beta, running_mean and running_var as the layer's attributes have them.
        states: every combination of mode and arguments that matters, what the defaults give first.
    """

    layer: str
    input: str
    train: str
    eval: str
    names: dict[str, str]
    states: Annotated[tuple[State, ...], BeforeValidator(_items)]


class Profile(Model):
    """What an adapter's ``profile.yaml`` holds.

    Attributes:
        package: the distribution whose presence means that the target can run.
        options: what a target's specification may set, with the values admitted, the default first.
        parameters: argument of the framework's constructor → canonical parameter, null where a call's results do not
            depend on it (a name, a regulariser).
        interface: what else the framework calls by names of its own; a page of differences needs it, a run does not.
    """

    framework: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    name: str
    package: str
    options: dict[str, list[str]]
    parameters: dict[str, str | None]
    interface: Interface | None = None
    conventions: Conditional
    _of_target: dict[tuple[Any, ...], tuple[Convention, ...]] = PrivateAttr(default_factory=dict)

    def declared(self, case: Case, facts: dict[str, Any]) -> dict[str, Any]:
        """The conventions that hold for this case on this target, as changes to `Conventions`.

        How momentum and the defaults are spelled matters where arguments are native; elsewhere the adapter
        translates them.
        """
        changes: dict[str, Any] = {}
        for convention in self._here(facts):
            if not case.meets(convention.when, facts):
                continue
            for field in DECLARED:
                if getattr(convention, field) is not None:
                    changes[field] = getattr(convention, field)
            if convention.eps is not None and case.kind == "native":
                changes["default_eps"] = convention.eps.default
            if convention.momentum is not None and case.kind == "native":
                changes["default_momentum"] = convention.momentum.default
                changes["momentum_weighs"] = convention.momentum.weighs
        return {field: value for field, value in changes.items() if value != getattr(CANONICAL, field)}

    def refusals(self, case: Case, facts: dict[str, Any]) -> Iterator[Convention]:
        """The declared refusals of this case, whichever of them comes first."""
        known = {**facts, **self._said(case)}
        for convention in self._here(facts):
            if convention.refuses is not None and case.meets(convention.when, known):
                yield convention

    def _here(self, facts: dict[str, Any]) -> tuple[Convention, ...]:
        """The entries whose conditions do not keep a target of these facts out, whatever the case."""
        target = tuple(facts.get(key) for key in TARGET_FACTS)
        if target not in self._of_target:
            self._of_target[target] = tuple(
                entry
                for entry in self.conventions
                if matches({key: wanted for key, wanted in entry.when.items() if key in TARGET_FACTS}, facts)
            )
        return self._of_target[target]

    def _said(self, case: Case) -> dict[str, Any]:
        """What a native case says of a cumulative average, as a canonical one says it to a `when:`."""
        given = self._given(case) if case.kind == "native" else {}
        if given.get("momentum", 0) is not None:
            return {}
        return {"momentum": "cumulative", "track_running_stats": given.get("track_running_stats", True)}

    def read(self, problem: Problem, conventions: Conventions) -> Parameters:
        """A case's layer in canonical terms; native arguments are read under `conventions`."""
        layer = problem.case.spec.layer
        if layer is not None:
            initial = {name: problem.initial.get(name) for name in INITIAL}
            beside = None if problem.beside is None else problem.beside[0].layer.eps
            return _parameters(problem.features, initial, **_canonical(layer), eps_beside=beside)
        given = self._given(problem.case)
        statistics = {name: given.get(name) for name in INITIAL}
        affine = given.get("affine", True)
        return _parameters(
            given.get("features", problem.features),
            statistics,
            eps=given.get("eps", conventions.default_eps),
            momentum=given.get("momentum", conventions.default_momentum),
            scale=given.get("scale", affine),
            center=given.get("center", affine and given.get("bias", True)),
            track_running_stats=given.get("track_running_stats", True),
            mode={True: "train", False: "eval", None: None}[given.get("use_batch_statistics")],
            trainable=given.get("trainable", True),
        )

    def senseless(self, problem: Problem) -> str | None:
        """The native argument that says nothing BatchNorm could do, so that a refusal is the only right answer.

        None where `parameters` knows every argument and it has its parameter's type: `affine="False"` is no truth
        value, whatever Python holds it to be, and an eps of text or truth is no number.
        """
        if problem.case.kind != "native":
            return None
        for argument in (problem.case.spec.native or {})[self.framework]:
            if argument not in self.parameters:
                return f"{argument} is no argument that the profile of {self.name} knows"
        for parameter, value in self._given(problem.case).items():
            if not _makes_sense(parameter, value, problem.features):
                return f"{parameter} is {value!r}"
        return None

    def _given(self, case: Case) -> dict[str, Any]:
        """Canonical parameter → what the case's native arguments say of it."""
        given = {}
        for argument, value in (case.spec.native or {})[self.framework].items():
            parameter = self.parameters.get(argument)
            if parameter is not None:
                given[parameter] = value
        return given


#: Canonical parameter → the types of its values. type(True) is bool, so that no truth value passes for a number.
_TYPES: dict[str, tuple[type, ...]] = {
    "eps": (float, int),
    "momentum": (float, int, NoneType),
    "axis": (int,),
    "use_batch_statistics": (bool, NoneType),
    **dict.fromkeys(("affine", "scale", "center", "bias", "track_running_stats", "trainable"), (bool,)),
}


def _makes_sense(parameter: str, value: Any, features: int) -> bool:
    if parameter == "features":
        return type(value) is int and value == features
    if parameter in INITIAL:
        if isinstance(value, list):
            return len(value) == features and all(type(number) in (float, int) for number in value)
        return type(value) in (float, int) or (isinstance(value, str) and value in _NAMED)
    return parameter not in _TYPES or type(value) in _TYPES[parameter]


def _canonical(layer: Any) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("eps", "momentum", "scale", "center", "track_running_stats")}


def _parameters(features: int, initial: dict[str, Any], **rest: Any) -> Parameters:
    rest |= {name: _vector(initial[name], features, start) for name, start in INITIAL.items()}
    return Parameters(**rest)


#: The initialisers that MindSpore and Keras name, and that are no draws.
_NAMED = {"ones": 1.0, "zeros": 0.0}


def _vector(value: Any, features: int, start: float) -> Array:
    """An initial vector (features,) float64 from an array, a number, or an initialiser's name."""
    if value is None:
        value = start
    if isinstance(value, str):
        value = _NAMED[value]
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
        UsageError: the folder has no adapter.py, or no profile.yaml that can be read; the message says which line.
    """
    profile = path / "profile.yaml"
    for needed in (path / "adapter.py", profile):
        if not needed.is_file():
            raise UsageError(f"{path} is no adapter: it has no {needed.name}", hint="see CONTRIBUTING.md, Adapters")
    written = profile.stat()
    return AdapterFolder(path, _profile(profile, (written.st_mtime_ns, written.st_size)))


@lru_cache
def _profile(file: Path, written: tuple[int, int]) -> Profile:
    """A profile, read once as long as its file is what was `written`: it takes longer than a case."""
    return read_model(file, Profile)
