"""What was judged as the JSON lines of a run's files, one function for each kind of line.

A tensor in results.jsonl is `ratio, max_abs, max_ulp, worst_index` and, of a target, what `conformance.evidence`
gathers: `shape`; `worst`, the exact and the observed value and the bound there; `strip`, error over bound along the
tensor; `ulps`, a histogram; `running`, the first channels of running statistics in cases of several steps. All of this
is before any diagnosis; under it, every tensor's error over its bound is `explained`, of a line that has a diagnosis. A
line of a signature case has the constructor's real `signature`. Runs without these fields are read all the same.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from conformance.compare import TensorResult
from conformance.crew import Start, Started
from conformance.evidence import Evidence, as_json
from conformance.harness import Array
from conformance.judge import Verdict
from conformance.observation import Observation
from conformance.pairs import Agreement
from conformance.problem import Problem
from conformance.target import Target


def digest(array: Array) -> str:
    """What tells a tensor's bits from another's: 48 bits of BLAKE2b over dtype, shape and bytes, in base 64."""
    told = hashlib.blake2b(f"{array.dtype}{list(array.shape)}".encode(), digest_size=6)
    told.update(array.data)
    return base64.urlsafe_b64encode(told.digest()).decode()


def case_line(problem: Problem) -> dict[str, Any]:
    """A line of cases.jsonl: where a case stands, what it says, the digest of its bits."""
    case = problem.case
    return {
        "case": case.id,
        "topic": case.topic,
        "file": case.file,
        "line": case.line,
        "about": case.about,
        "matrix": case.matrix,
        "spec": case.spec.model_dump(exclude_defaults=True, by_alias=True),
        "digest": problem.digest,
    }


def verdict_line(
    case: str,
    target: str,
    verdict: Verdict,
    observation: Observation,
    evidence: Mapping[str, Evidence] = MappingProxyType({}),
) -> dict[str, Any]:
    """A line of results.jsonl: one case on one target.

    `accepted` is what its reading changes of the canonical conventions.
    """
    signature = observation.signature
    return {
        "case": case,
        "target": target,
        "verdict": verdict.verdict,
        "status": verdict.status,
        "expected": verdict.expected,
        "diagnosis": verdict.diagnosis,
        "because": verdict.because,
        "reason": verdict.reason,
        "seconds": round(verdict.seconds, 6),
        "tensors": _tensors(verdict.tensors, evidence),
        "accepted": verdict.accepted.changes,
        "tried": [{"name": each.name, "off": _finite(each.off)} for each in verdict.tried],
        "error": None if verdict.error is None else {"type": verdict.error.type, "message": verdict.error.message},
        "received": observation.received,
        "facts": list(observation.facts),
        "digests": {name: digest(array) for name, array in observation.tensors.items()},
        **({"explained": _ratios(verdict.explained)} if verdict.explained else {}),
        **({} if signature is None else {"signature": [list(parameter) for parameter in signature]}),
    }


def pair_line(case: str, a: str, b: str, agreement: Agreement) -> dict[str, Any]:
    """A line of results.jsonl: one case on a pair of targets."""
    return {
        "case": case,
        "pair": [a, b],
        "agreement": agreement.agreement,
        "tensors": _tensors(agreement.tensors),
        "because": agreement.because,
    }


def target_line(target: Target, start: Start | None) -> dict[str, Any]:
    """A target as run.json describes it."""
    started = isinstance(start, Started)
    return {
        "name": target.name,
        "framework": target.framework,
        "title": target.profile.name,
        "options": target.options,
        "python": target.python,
        "host": target.host,
        "ran": started,
        "facts": start.facts if isinstance(start, Started) else {},
        "message": "" if start is None or isinstance(start, Started) else start.message,
    }


def _tensors(
    results: Mapping[str, TensorResult], evidence: Mapping[str, Evidence] = MappingProxyType({})
) -> dict[str, Any]:
    return {
        name: {
            "ratio": _finite(result.ratio),
            "max_abs": _finite(result.max_abs),
            "max_ulp": _finite(result.max_ulp),
            "worst_index": None if result.worst_index is None else list(result.worst_index),
            **({"problem": result.problem} if result.problem else {}),
            **as_json(evidence.get(name)),
        }
        for name, result in results.items()
    }


def _ratios(results: Mapping[str, TensorResult]) -> dict[str, float | None]:
    """Tensor → error over bound, in the digits that a report shows."""
    return {name: float(f"{result.off:.3g}") if math.isfinite(result.off) else None for name, result in results.items()}


def _finite(value: float | None) -> float | None:
    """JSON knows no infinity."""
    return value if value is not None and math.isfinite(value) else None
