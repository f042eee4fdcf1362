"""What the tests are made of: layers, cases, profiles and answers by hand, and what a real layer answers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from conformance.arithmetic import Arithmetic, Array, Multiprecision
from conformance.case import Case
from conformance.comparison import Comparison, Under
from conformance.conventions import CANONICAL, Conventions
from conformance.harness import Array as WireArray
from conformance.judge import Verdict, judge
from conformance.layer import Parameters, Trace, Values
from conformance.observation import Failure, Observation
from conformance.oracle import Oracle
from conformance.pool import Pool
from conformance.problem import dtype_of, from_wire, materialise
from conformance.profile import Profile
from conformance.reference import evaluate
from conformance.session import judged
from conformance.spec import CaseSpec
from conformance.target import parse

#: What one step of the reference computes, by the names that cases use.
STEP_TENSORS = ("y", "dx", "dgamma", "dbeta", "running_mean", "running_var")

# For the reference


def parameters(features: int = 1, **changes: Any) -> Parameters:
    """γ = 1, β = 0, running_mean = 0, running_var = 1, ε = ½, m = ½; vectors may be given as lists."""
    start = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0}
    vectors: dict[str, Any] = {
        name: np.asarray(changes.pop(name, [value] * features), float) for name, value in start.items()
    }
    rest = {"eps": 0.5, "momentum": 0.5, "scale": True, "center": True, "track_running_stats": True} | changes
    return Parameters(**vectors, **rest)


def values(
    x: Any,
    g: Any = None,
    mode: str = "train",
    *,
    frozen: bool = False,
    mask: Any = None,
    samples: int = 0,
    reloaded: bool = False,
) -> Values:
    """One step; one channel where x and g are plain lists of numbers."""
    cotangent = None if g is None else np.atleast_2d(np.asarray(g, float))
    kept = None if mask is None else np.asarray(mask, float)
    return Values(mode, np.atleast_2d(np.asarray(x, float)), cotangent, frozen, kept, samples, reloaded)


def tensors(trace: Trace, arithmetic: Arithmetic) -> dict[str, Array]:
    """What a step computed, in float64."""
    found = {name: getattr(trace, name) for name in STEP_TENSORS}
    with np.errstate(invalid="ignore"):
        return {name: arithmetic.lower(value) for name, value in found.items() if value is not None}


def one(p: Parameters, step: Values, conventions: Conventions = CANONICAL) -> dict[str, Array]:
    """The tensors of a single step in float64, rounded once from 50 digits."""
    return tensors(evaluate(p, [step], conventions, Multiprecision())[0], Multiprecision())


def running(p: Parameters, *steps: Values, conventions: Conventions = CANONICAL) -> list[tuple[float, float, int]]:
    """running_mean, running_var and the number of batches seen after every step, of one channel."""
    traces = evaluate(p, steps, conventions, Multiprecision())
    return [(float(t.running_mean[0]), float(t.running_var[0]), t.num_batches_tracked) for t in traces]


# For verdicts

SMALL: dict[str, Any] = {"shape": [4, 3, 5, 5], "normal": {"mean": 3, "std": 2, "seed": 5}}
#: Parameters and statistics that are nobody's defaults.
INITIAL: dict[str, Any] = {
    "gamma": {"normal": {"mean": 1, "std": 0.5, "seed": 1}},
    "beta": {"normal": {"seed": 2}},
    "running_mean": {"normal": {"seed": 3}},
    "running_var": {"uniform": {"low": 0.5, "high": 3, "seed": 4}},
}


def case(id_: str = "tests/case", matrix: dict[str, Any] | None = None, **spec: Any) -> Case:
    """A case; a layer on `SMALL` where nothing else is said."""
    if not spec.keys() & {"layer", "native", "signature"}:
        spec["layer"] = {"initial": INITIAL}
    if "signature" not in spec:
        spec.setdefault("input", SMALL)
    return Case(id_, "tests.yaml", 1, "", CaseSpec.model_validate({"why": "a test"} | spec), matrix or {})


def oracle(of: Case | None = None, **spec: Any) -> Oracle:
    return Oracle(materialise(of or case(**spec)))


def profile(
    *conventions: dict[str, Any], framework: str = "numpy", parameters: dict[str, str] | None = None
) -> Profile:
    """A profile that declares these conventions."""
    named = ("features", "eps", "momentum", "scale", "center", "track_running_stats")
    return Profile.model_validate(
        {
            "framework": framework,
            "name": framework.title(),
            "package": framework,
            "options": {"device": ["cpu", "cuda"]},
            "parameters": parameters or {name: name for name in named},
            "conventions": list(conventions),
        }
    )


def under(*conventions: dict[str, Any], framework: str = "numpy", name: str = "", **facts: str) -> Under:
    """A target of a profile that declares these conventions."""
    declared = profile(*conventions, framework=framework)
    return Under(name or framework, declared, {"version": "1.26.4", "device": "cpu", **facts})


def answer(
    of: Oracle, conventions: Conventions = CANONICAL, by: Under | None = None, **changed: Array | None
) -> Observation:
    """What a target of these conventions returns: the exact values, rounded once.

    Args:
        changed: tensor, such as y_0 for ``y[0]`` → what it returns instead; None: nothing.
    """
    expected = of.expected((by or under()).profile, conventions)
    found: dict[str, Array | None] = {}
    with np.errstate(all="ignore"):
        for name, tensor in expected.items():
            found[name] = of.arithmetic.lower(tensor.value).astype(dtype_of(tensor.dtype or "int64"))
    for name, value in changed.items():
        tensor_name, _, step = name.rpartition("_")
        found[f"{tensor_name}[{step}]"] = value
    return Observation(tensors={name: wire(value) for name, value in found.items() if value is not None})


def wire(array: Array, device: str = "cpu") -> WireArray:
    return WireArray(array.dtype.name, array.shape, array.tobytes(), device)


def refusal(kind: str = "ValueError", message: str = "it does not like it") -> Observation:
    return Observation(refusal=Failure(kind, message))


def verdict(of: Oracle, observation: Observation, by: Under | None = None) -> Verdict:
    return judge(Comparison(of, by or under(), observation))


def signature(*parameters: tuple[str, str | None]) -> Observation:
    return Observation(signature=tuple(parameters))


def printed(values: Sequence[float] | Array, digits: int = 4) -> str:
    """Numbers as a document prints them."""
    return " ".join(f"{value:.{digits}f}" for value in np.ravel(values))


def problems(found: Verdict) -> Mapping[str, str]:
    """Tensor → what is wrong with it beyond numbers."""
    return {name: result.problem for name, result in found.tensors.items() if result.problem is not None}


# For adapters


def module(path: Path) -> ModuleType:
    """A Python file that is in no package, imported under its folder's name."""
    name = f"{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # dataclasses look their module up
    spec.loader.exec_module(found)
    return found


def on(target: str, of: Case) -> tuple[Verdict, dict[str, Array]]:
    """The verdict on a case, and what was returned."""
    with Pool([parse(target)]) as pool:
        (settled,) = judged([of], pool)
    side = settled.sides[target]
    return side.verdict, {name: from_wire(wire) for name, wire in side.observation.tensors.items()}
