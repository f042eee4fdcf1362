"""What an engineer would write without the suite: one pytest file, a NumPy reference in float64, `assert_allclose`.

`pytest benchmarks/handwritten.py` runs every case on every installed framework, all in this process. The cases, their
tensors and the layer calls are the suite's own, so that what is compared is the judging: a reference in one convention,
torch's, and one tolerance per dtype. Failures are part of it: each framework's conventions, and what rounding does.
BENCH_CASES names case files instead of the corpus.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conformance import data
from conformance.case import Case
from conformance.harness import Adapter, answer, load_adapter
from conformance.harness import Array as WireArray
from conformance.load import load
from conformance.pool import request
from conformance.problem import INITIAL, Call, Problem, from_wire, materialise
from conformance.session import targets_of
from conformance.target import MAIN, installed, parse

Array = NDArray[Any]

TARGETS = {name: parse(name) for name in MAIN if installed(parse(name).profile.package)}
PATHS = os.environ.get("BENCH_CASES")
CASES = load([Path(path) for path in PATHS.split(os.pathsep)] if PATHS else [data.folder("cases")])
LAYERS = [
    (case, target.name)
    for case in CASES
    if case.kind != "signature"
    for target in targets_of(case, list(TARGETS.values()))
]

#: What torch.testing.assert_close allows: (rtol, atol).
TOLERANCE = {"float64": (1e-7, 1e-7), "float32": (1.3e-6, 1e-5), "float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5)}

#: How the frameworks call what a native case sets, their defaults, and the mode of a layer that is called as it stands.
NAMES = {"torch": "eps momentum", "mindspore": "eps momentum", "keras": "epsilon momentum"}
DEFAULTS = {"torch": (1e-5, 0.1), "mindspore": (1e-5, 0.9), "keras": (1e-3, 0.99)}
DEFAULT_MODE = {"torch": "train", "mindspore": "eval", "keras": "eval"}


class BatchNorm:
    """BatchNorm in float64 with running statistics as torch has them: the new batch weighs m, the variance is unbiased.

    Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3, with its gradients.
    """

    def __init__(self, eps: float, momentum: float | None, initial: Mapping[str, Array], *, track: bool) -> None:
        self.eps, self.momentum, self.track = eps, momentum, track
        self.gamma, self.beta, self.mean, self.var = (initial[name].astype(np.float64) for name in INITIAL)
        self.batches = 0

    def step(self, mode: str, x: Array, dy: Array | None) -> dict[str, Array]:
        """Call it once with x and a cotangent, (N, C, *spatial) float64."""
        axes, shape = (0, *range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
        n = x.size // x.shape[1]
        batch = mode == "train" or not self.track
        mu, var = (x.mean(axes), x.var(axes)) if batch else (self.mean, self.var)
        inv = 1 / np.sqrt(var + self.eps)
        xhat = (x - mu.reshape(shape)) * inv.reshape(shape)
        found = {"y": xhat * self.gamma.reshape(shape) + self.beta.reshape(shape)}
        if mode == "train" and self.track:
            self.batches += 1
            m = 1 / self.batches if self.momentum is None else self.momentum
            self.mean = (1 - m) * self.mean + m * mu
            self.var = (1 - m) * self.var + m * var * n / max(n - 1, 1)
        if self.track:
            found.update(running_mean=self.mean, running_var=self.var)
        if dy is not None:
            dbeta, dgamma = dy.sum(axes), (dy * xhat).sum(axes)
            through = (dbeta.reshape(shape) + xhat * dgamma.reshape(shape)) / n if batch else 0.0
            found.update(dbeta=dbeta, dgamma=dgamma, dx=(self.gamma * inv).reshape(shape) * (dy - through))
        return found


def reference(problem: Problem, name: str) -> BatchNorm:
    """The reference of a case on a framework."""
    layer, native = problem.case.spec.layer, problem.case.spec.native
    initial = {key: problem.initial.get(key, np.full(problem.features, value)) for key, value in INITIAL.items()}
    if layer is not None:
        return BatchNorm(layer.eps, layer.momentum, initial, track=layer.track_running_stats)
    assert native is not None
    pairs = zip(NAMES[name].split(), DEFAULTS[name], strict=True)
    eps, momentum = (native[name].get(key, default) for key, default in pairs)
    if momentum is not None and name != "torch":
        momentum = 1 - momentum
    track = native[name].get("track_running_stats", True)
    return BatchNorm(float(eps), momentum, initial, track=track)


@functools.cache
def adapter(name: str) -> Adapter:
    """A framework, ready in this process."""
    target = TARGETS[name]
    found = load_adapter(target.adapter.source.read_text(encoding="utf-8"), str(target.adapter.source))
    found.start(target.options)
    return found


@functools.lru_cache(maxsize=4)
def drawn(index: int) -> Problem:
    """The tensors of a case; a layer that is carried from another framework is trained there first."""
    case = CASES[index]
    if case.source is None or case.spec.carried is None:
        return materialise(case)
    name = case.spec.carried.source
    reply = answer(adapter(name), request(0, materialise(case.source), TARGETS[name]))
    return materialise(case, {key: unpacked(value) for key, value in reply["steps"][-1].items()})


def unpacked(tensor: dict[str, Any]) -> Array:
    """A tensor that an adapter returned."""
    return from_wire(WireArray.unpack(tensor))


def check(call: Call, layer: BatchNorm, mode: str, seen: Mapping[str, dict[str, Any]]) -> None:
    """Hold one call against the reference."""
    dy = None if call.dy is None else call.dy.astype(np.float64)
    for key, wanted in layer.step(mode, call.x.astype(np.float64), dy).items():
        if key not in seen and key in ("dgamma", "dbeta"):
            continue  # frozen, or none of the layer's own
        rtol, atol = TOLERANCE[seen[key]["dtype"]]
        np.testing.assert_allclose(unpacked(seen[key]).astype(np.float64), wanted, rtol, atol, err_msg=key)


@pytest.fixture(scope="session", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Frameworks leave files where they stand."""
    os.chdir(tmp_path_factory.mktemp("layers"))


INDEX = {id(case): index for index, case in enumerate(CASES)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("case", "name"), LAYERS, ids=[f"{case.id}::{name}" for case, name in LAYERS])
def test_layer(case: Case, name: str) -> None:
    """The framework's layer does what the reference does."""
    problem = drawn(INDEX[id(case)])
    reply = answer(adapter(name), request(0, problem, TARGETS[name]))
    if reply["error"] is not None:
        pytest.skip(f"{reply['error']['type']}: {reply['error']['message']}")
    if any(call.mask is not None for call in problem.calls):
        pytest.skip("the reference has no masks")
    layer = reference(problem, name)
    with np.errstate(all="ignore"):
        for call, seen in zip(problem.calls, reply["steps"], strict=True):
            check(call, layer, DEFAULT_MODE[name] if call.mode == "default" else call.mode, seen)
    assert unpacked(reply["steps"][0].get("repeats_differing", WireArray.of(np.zeros(())).pack())) == 0
