"""Verdicts: what a target returned for a case, held against the reference and against what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from conformance.bounds import Grade
from conformance.case import Case, matches
from conformance.compare import Expected, TensorResult, compare
from conformance.diagnose import PAIR_ELEMENTS, Check, Diagnosis, diagnose, name_change, worst
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
    )


def expectation(case: Case, under: Under) -> tuple[tuple[VerdictName, ...], str, str | None]:
    """Verdicts expected of a case on a target, why, and the diagnosis or exception type named, if one is.

    A case's own `expect:` comes first, then a refusal its profile declares, then agreement.
    """
    facts = {**case.features, **under.facts}
    for wanted in case.spec.expect.get(under.profile.framework, ()):
        if matches(wanted.condition, facts | {k.rpartition(".")[2]: v for k, v in case.matrix.items()}):
            return (wanted.verdict,), wanted.because, wanted.refuses or wanted.diverges  # type: ignore[return-value]
    declared = under.profile.refusal(case, dict(under.facts))
    if declared is not None:
        return ("refused",), declared.because, declared.refuses
    return ("conforms", "conventional"), "", None


def _expected_cause(finding: _Finding, wanted: str) -> bool:
    if finding.error is not None:
        return finding.error.type == wanted
    return (finding.diagnosis or "unexplained") == wanted


def _find(oracle: Oracle, under: Under, observation: Observation) -> _Finding:
    if observation.fate != "answered":
        return _Finding(observation.fate, error=observation.failure)
    if observation.refusal is not None:
        return _Finding("refused", error=observation.refusal, because=_first_line(observation.refusal))
    if oracle.problem.case.kind == "signature":
        return _find_signature(oracle.problem.case, under, observation)
    if oracle.undefined is not None:
        return _Finding("divergent", "accepted", f"accepted what has no value: {oracle.undefined}")
    return _find_reading(oracle, under, observation)


def _first_line(failure: Failure) -> str:
    return f"{failure.type}: {failure.message.strip().splitlines()[0] if failure.message.strip() else ''}"


def _find_reading(oracle: Oracle, under: Under, observation: Observation) -> _Finding:
    """Try the readings from best to worst: canonical, declared, either with one named fault, weak, two faults."""
    case = oracle.problem.case

    def check(conventions: Conventions, grade: Grade = "strict") -> Mapping[str, TensorResult]:
        expected = oracle.expected(under.profile, conventions, grade)
        return _compare_all(oracle, under, observation, expected)

    declared = under.profile.declared(case, dict(under.facts))
    profiled = CANONICAL.but(**declared)
    results = check(CANONICAL)
    if _ok(results):
        contradicts = ""
        if declared and not _ok(check(profiled)):
            names = ", ".join(name_change(*change)[0] for change in declared.items())
            contradicts = f"the profile declares {names}, which does not hold here"
        return _Finding("conforms", tensors=results, contradicts=contradicts)
    if declared and _ok(held := check(profiled)):
        needed = _needed(declared, check)
        words = [name_change(*change) for change in needed.items()]
        return _Finding(
            "conventional",
            "+".join(name for name, _ in words),
            ", and ".join(sentence for _, sentence in words),
            held,
            accepted=CANONICAL.but(**needed),
        )
    results = check(profiled)
    structural = _structural(results)
    if structural is not None:
        return _Finding("divergent", *structural, tensors=results, accepted=profiled)
    found = diagnose(profiled, check, 1)
    if found is not None:
        return _divergent(found, results, profiled)
    for conventions in dict.fromkeys((CANONICAL, profiled)):
        weak = check(conventions, "weak")
        if _ok(weak):
            strict = check(conventions)
            because = f"right, but {worst(strict):.2g} times the strict bound off, {worst(weak):.2g} of the weak one"
            return _Finding("inaccurate", None, because, strict, accepted=conventions)
    if all(call.x.size <= PAIR_ELEMENTS for call in oracle.problem.calls):
        found = diagnose(profiled, check, 2)
        if found is not None:
            return _divergent(found, results, profiled)
    name, result = max(results.items(), key=lambda item: item[1].off)
    return _Finding("divergent", "unexplained", f"{name} {_words(result)}", results, accepted=profiled)


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
        for word in ("shape", "dtype", "missing", "returned"):
            if result.problem is not None and f" {word}" in f" {result.problem}":
                return word, f"{name} {result.problem}"
    return None


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
    differences = against_signature(observation.signature or (), documented)
    if not differences:
        return _Finding("conforms")
    words = "; ".join(f"{kind}: {what}" for kind, what in differences.items())
    return _Finding("divergent", "signature-" + "+".join(differences), words)
