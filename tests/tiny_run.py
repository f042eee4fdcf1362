"""A run folder as small as can be: one case on two targets, which differ; for tests of writing and reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

from conformance.case import Case
from conformance.compare import TensorResult
from conformance.crew import NotStarted, Start, Started
from conformance.harness import Array
from conformance.judge import Verdict
from conformance.observation import Failure, Observation
from conformance.pairs import Agreement
from conformance.problem import Problem, materialise
from conformance.record import RunWriter
from conformance.spec import CaseSpec
from conformance.target import Target, parse

#: What the first target returned: a tensor of every dtype that is kept.
TENSORS = {
    "y[0]": Array.of(np.array([[1.5, -0.0, np.nan]], np.float32)),
    "dx[0]": Array.of(np.array([[0.1, 2.0, -np.inf]], np.float64)),
    "running_mean[0]": Array.of(np.array([6e-8, 1.0, 65504.0], np.float16)),
    "running_var[0]": Array.of(np.array([0.1, 1.0, 3e38]).astype(ml_dtypes.bfloat16).view(np.uint16), "bfloat16"),
    "num_batches_tracked[0]": Array.of(np.asarray(3, np.int64)),
    "gamma[0]": Array.of(np.array([], np.int32)),
}

CONFORMING = Verdict(
    "conforms",
    "expected",
    "conforms or conventional",
    seconds=0.00012345678,
    tensors={"y[0]": TensorResult(0.25, 1e-7, 2.0, (0, 2))},
)
CRASHED = Verdict(
    "crashed",
    "unexpected",
    "conforms or conventional",
    tensors={"y[0]": TensorResult(float("inf"), 0.5, float("inf"), (), "has dtype µ8")},
    error=Failure("WorkerDied", "ended by SIGKILL\n\x1b[31mé\u2028\x85"),
)
DIFFERING = Agreement("differ", {"y[0]": TensorResult(2.5, 1e-3, 7.0, (0, 1))}, "other: crashed")


def targets() -> list[Target]:
    return [parse("numpy"), parse("numpy,threads=2"), parse("numpy,threads=3")]


def starts() -> Mapping[str, Start]:
    facts = {"version": "1.26.4", "device": "cpu"}
    ran, also_ran, absent = (target.name for target in targets())
    return {ran: Started(facts), also_ran: Started(facts), absent: NotStarted("no such thing", broken=False)}


def problem(name: str = "tiny/case[eps=1]", file: str = "tiny.yaml") -> Problem:
    spec = {
        "why": "Numbers that JSON lacks.",
        "layer": {"rank": 1, "initial": {"gamma": ["nan", 1.0, "inf"]}},
        "input": {"shape": [1, 3], "constant": 1.0, "replace": [{"at": [0, 0], "with": "-inf"}]},
    }
    return materialise(Case(name, file, 3, "A tiny file.", CaseSpec.model_validate(spec), {"layer.eps": float("inf")}))


def fill(writer: RunWriter, cases: Sequence[Problem]) -> None:
    """Record the same results for every case."""
    ran, also_ran, _ = targets()
    for one in cases:
        case = one.case.id
        writer.case(one)
        writer.verdict(case, ran.name, CONFORMING, Observation(tensors=TENSORS, received="Layer(3)", facts=("copied",)))
        writer.verdict(case, also_ran.name, CRASHED, Observation("crashed", failure=CRASHED.error))
        writer.pair(case, ran.name, also_ran.name, DIFFERING)


def write(out: Path, *cases: Problem) -> Path:
    """Write a whole run of these cases, or of one, and return where it stands."""
    with RunWriter(out, ["conformance", "run", "-t", "numpy"]) as writer:
        fill(writer, cases or [problem()])
        writer.finish(targets(), starts())
        return writer.publish()
