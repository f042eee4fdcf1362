"""Verdicts: what a target returned for a case, held against the reference and against what was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from conformance.bounds import Grade
from conformance.cancellation import recovered
from conformance.case import Case
from conformance.compare import Expected, TensorResult, compare
from conformance.diagnose import (
    CANCELLED,
    CATALOGUE,
    PAIR_ELEMENTS,
    PRECISION,
    Check,
    Diagnosis,
    diagnose,
    name_change,
    worst,
)
from conformance.documents import against_document, against_signature
from conformance.observation import Failure, Observation
from conformance.oracle import Oracle
from conformance.problem import from_wire
from conformance.profile import Profile
from conformance.reference import CANONICAL, Conventions

VerdictName = Literal["conforms", "conventional", "inaccurate", "divergent", "refused", "crashed", "timeout", "broken"]
#: The verdicts from best to worst, in which reports show them.
VERDICTS: tuple[VerdictName, ...] = (
    "conforms",
    "conventional",
    "inaccurate",
    "refused",
    "divergent",
    "timeout",
    "crashed",
    "broken",
)


#: What is expected of a case that says nothing else.
AGREEMENT: tuple[VerdictName, ...] = ("conforms", "conventional")


@dataclass(frozen=True)
class Under:
    """A target as far as judging it goes: its name, its profile and the facts it stated."""

    name: str
    profile: Profile
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """The judgement of one case on one target.

    Attributes:
        status: whether the verdict is the expected one.
        expected: the verdicts expected, such as ``conforms or conventional``.
        diagnosis: name of the convention, fault or problem that explains a difference; None where there is none.
        because: the diagnosis as a sentence with its evidence, or why the verdict was expected.
        tensors: every tensor against the reading that it comes closest to.
        accepted: the conventions of that reading.
        reason: why something other than agreement was expected, in the words of the case or the profile.
    """

    verdict: VerdictName
    status: Literal["expected", "unexpected"]
    expected: str
    diagnosis: str | None = None
    because: str = ""
    seconds: float = 0.0
    tensors: Mapping[str, TensorResult] = field(default_factory=dict)
    error: Failure | None = None
    accepted: Conventions = CANONICAL
    reason: str = ""


@dataclass(frozen=True)
class _Finding:
    """A verdict before it is held against what was expected."""

    verdict: VerdictName
    diagnosis: str | None = None
    because: str = ""
    tensors: Mapping[str, TensorResult] = field(default_factory=dict)
    error: Failure | None = None
    accepted: Conventions = CANONICAL
    contradicts: str = ""


def judge(oracle: Oracle, under: Under, observation: Observation) -> Verdict:
    """Hold what a target returned against the reference, and the verdict against what the case expects."""
    case = oracle.problem.case
    finding = _find(oracle, under, observation)
    allowed, reason, diagnosis = expectation(case, under)
    meaningless = _meaningless(oracle, under)
    if meaningless is not None and allowed == AGREEMENT:
        allowed, reason = ("refused",), meaningless
    fulfilled = finding.verdict in allowed and not finding.contradicts
    if fulfilled and diagnosis is not None:
        fulfilled = _expected_cause(finding, diagnosis)
    wanted = " or ".join(allowed) + (f" ({diagnosis})" if diagnosis else "")
    because = "; ".join(part for part in (finding.contradicts, finding.because, reason if fulfilled else "") if part)
    return Verdict(
        finding.verdict,
        "expected" if fulfilled else "unexpected",
        wanted,
        finding.diagnosis,
        because,
        observation.seconds,
        finding.tensors,
        finding.error,
        finding.accepted,
        reason,
    )


def expectation(case: Case, under: Under) -> tuple[tuple[VerdictName, ...], str, str | None]:
    """Verdicts expected of a case on a target, why, and the diagnosis or exception type named, if one is.

    A case's own `expect:` comes first, then a refusal its profile declares, then agreement.
    """
    facts = {**under.facts, **{path.rpartition(".")[2]: value for path, value in case.matrix.items()}}
    for wanted in case.spec.expect.get(under.profile.framework, ()):
        if case.meets(wanted.condition, facts):
            return (wanted.verdict,), wanted.because, wanted.refuses or wanted.diverges  # type: ignore[return-value]
    declared = under.profile.refusal(case, dict(under.facts))
    if declared is not None:
        return ("refused",), declared.because, declared.refuses
    return AGREEMENT, "", None


def _expected_cause(finding: _Finding, wanted: str) -> bool:
    """Whether the exception or diagnosis is the one named; compilers wrap an exception and name it in their own."""
    if finding.error is not None:
        named = re.search(rf"\b{re.escape(wanted)}[(:]", finding.error.message)
        return finding.error.type == wanted or named is not None
    return (finding.diagnosis or "unexplained") == wanted


def _find(oracle: Oracle, under: Under, observation: Observation) -> _Finding:
    if observation.fate != "answered":
        return _Finding(observation.fate, error=observation.failure)
    if observation.refusal is not None:
        return _Finding("refused", error=observation.refusal, because=_first_line(observation.refusal))
    if oracle.problem.case.kind == "signature":
        return _find_signature(oracle.problem.case, under, observation)
    meaningless = _meaningless(oracle, under)
    if meaningless is not None:
        return _Finding("divergent", "accepted", f"accepted what has no value: {meaningless}")
    return _find_reading(oracle, under, observation)


def _meaningless(oracle: Oracle, under: Under) -> str | None:
    """Why BatchNorm has no value here, so that a refusal is the only right answer; None where it has one."""
    return oracle.undefined or under.profile.senseless(oracle.problem)


def _first_line(failure: Failure) -> str:
    return f"{failure.type}: {failure.message.strip().splitlines()[0] if failure.message.strip() else ''}"


def _find_reading(oracle: Oracle, under: Under, observation: Observation) -> _Finding:
    """Try the readings from best to worst: canonical, declared, with one fault, weak, less precise, with two faults."""
    case = oracle.problem.case

    def check(conventions: Conventions, grade: Grade = "strict") -> Mapping[str, TensorResult]:
        expected = oracle.expected(under.profile, conventions, grade)
        return _compare_all(oracle, under, observation, expected)

    declared = under.profile.declared(case, dict(under.facts))
    meant = {field: value for field, value in declared.items() if field not in _OF_PRECISION}
    profiled = CANONICAL.but(**declared)
    results = check(CANONICAL)
    if _ok(results):
        contradicts = ""
        if meant and not _ok(check(CANONICAL.but(**meant))):
            names = ", ".join(name_change(*change)[0] for change in meant.items())
            contradicts = f"the profile declares {names}, which does not hold here"
        return _Finding("conforms", tensors=results, contradicts=contradicts)
    for reading in (meant, declared):
        if reading and _ok(held := check(CANONICAL.but(**reading))):
            needed = _needed(reading, check)
            words = [name_change(*change) for change in needed.items()]
            return _Finding(
                "conventional",
                "+".join(name for name, _ in words),
                ", and ".join(sentence for _, sentence in words),
                held,
                accepted=CANONICAL.but(**needed),
            )
    results = check(profiled)
    if profiled.variance == "one-pass" and _numbers(results):
        cancelled = _cancelled(oracle, under, observation, profiled, check)
        if cancelled is not None:
            return _Finding("conventional", cancelled.name, str(cancelled), results, accepted=profiled)
    structural = _structural(results)
    if structural is not None:
        return _Finding("divergent", *structural, tensors=results, accepted=profiled)
    found = diagnose(profiled, check, 1)
    if found is not None:
        return _divergent(found, results, profiled)
    less_precise = diagnose(profiled, check, 1, PRECISION)
    for conventions in sorted({CANONICAL, CANONICAL.but(**meant), profiled}, key=lambda held: worst(check(held))):
        weak = check(conventions, "weak")
        if _ok(weak):
            strict = check(conventions)
            because = f"right, but {worst(strict):.2g} times the strict bound off, {worst(weak):.2g} of the weak one"
            name = less_precise.name if less_precise else None
            return _Finding("inaccurate", name, because, strict, accepted=conventions)
    found = less_precise or _cancelled(oracle, under, observation, profiled, check)
    if found is None and all(call.x.size <= PAIR_ELEMENTS for call in oracle.problem.calls):
        found = diagnose(profiled, check, 2, CATALOGUE)
    if found is not None:
        return _divergent(found, results, profiled)
    name, result = max(results.items(), key=lambda item: item[1].off)
    return _Finding("divergent", "unexplained", f"{name} {_words(result)}", results, accepted=profiled)


def _numbers(results: Mapping[str, TensorResult]) -> bool:
    """Whether there is a number wherever there should be one, however wrong."""
    return all(result.problem is None for result in results.values())


#: Fields of `Conventions` that a profile declares and that are no claim about values.
_OF_PRECISION = {field for hypothesis in PRECISION for field in hypothesis.changes}


def _cancelled(
    oracle: Oracle, under: Under, observation: Observation, base: Conventions, check: Check
) -> Diagnosis | None:
    """Whether the running variances that a target returned tell of a variance lost to cancellation."""
    steady = base.but(variance="two-pass")
    variances = {
        name: from_wire(wire).astype(np.float64)
        for name, wire in observation.tensors.items()
        if name.startswith("running_var[")
    }
    traces = oracle.reading(under.profile, steady).traces
    supposed = recovered(traces, variances, steady, oracle.arithmetic, oracle.dtypes)
    if supposed is None or not _ok(results := check(supposed)):
        return None
    return Diagnosis(CANCELLED.name, CANCELLED.sentence, worst(results), worst(check(base)))


def _divergent(found: Diagnosis, results: Mapping[str, TensorResult], accepted: Conventions) -> _Finding:
    return _Finding("divergent", found.name, str(found), results, accepted=accepted)


def _words(result: TensorResult) -> str:
    return result.problem or f"is {result.ratio:.3g} bounds off at {list(result.worst_index or ())}"


def _ok(results: Mapping[str, TensorResult]) -> bool:
    return all(result.ok for result in results.values())


def _needed(declared: dict[str, Any], check: Check) -> dict[str, Any]:
    """The declared conventions without which the tensors are out of bound."""
    needed = dict(declared)
    for name in declared:
        fewer = {other: value for other, value in needed.items() if other != name}
        if _ok(check(CANONICAL.but(**fewer))):
            needed = fewer
    return needed


def _structural(results: Mapping[str, TensorResult]) -> tuple[str, str] | None:
    """A difference in shape, dtype, device or presence, which no convention explains."""
    for name, result in results.items():
        for words, kind in _STRUCTURAL.items():
            if result.problem is not None and result.problem.startswith(words):
                return kind, f"{name} {result.problem}"
    return None


#: How a problem that is none of numbers begins → its name.
_STRUCTURAL = {
    "has shape": "shape",
    "has dtype": "dtype",
    "is missing": "missing",
    "is returned": "returned",
    "is on ": "device",
}


def _compare_all(
    oracle: Oracle, under: Under, observation: Observation, expected: Mapping[str, Expected]
) -> dict[str, TensorResult]:
    """Every tensor that is expected or was returned, and every one that a document prints for this framework."""
    device = str(under.facts.get("device", "cpu"))
    results = {}
    for name in dict.fromkeys((*expected, *observation.tensors)):
        wire, wanted = observation.tensors.get(name), expected.get(name)
        if wire is None:
            if wanted is not None and not wanted.optional:
                results[name] = compare(None, device, wanted, device, oracle.arithmetic)
        else:
            results[name] = compare(from_wire(wire), wire.device, wanted, device, oracle.arithmetic)
    document = oracle.problem.case.spec.documented.get(under.profile.framework)
    for name, text in (document.tensors if document else {}).items():
        if name in observation.tensors and name in expected:
            tensor = from_wire(observation.tensors[name])
            results[f"{name} as documented"] = against_document(tensor, expected[name], text)
        else:
            results[f"{name} as documented"] = TensorResult(None, problem="is missing")
    return results


def _find_signature(case: Case, under: Under, observation: Observation) -> _Finding:
    documented = (case.spec.signature or {})[under.profile.framework]
    real = observation.signature or ()
    if case.spec.excerpt:
        real = tuple((name, default) for name, default in real if name in documented)
    differences = against_signature(real, documented)
    if not differences:
        return _Finding("conforms")
    words = "; ".join(f"{kind}: {what}" for kind, what in differences.items())
    return _Finding("divergent", "signature-" + "+".join(differences), words)
