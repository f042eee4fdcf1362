"""Verdicts: what a target returned for a case, held against the reference and against what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from conformance.case import Case
from conformance.catalogue import CATALOGUE, HYPOTHESES, PRECISION, Hypothesis, name_change
from conformance.compare import TensorResult
from conformance.comparison import Comparison, Under
from conformance.conventions import CANONICAL, Conventions
from conformance.diagnose import PAIR_ELEMENTS, Diagnosis, Search, Tried, words, worst
from conformance.documents import AS_DOCUMENTED, against_signature
from conformance.observation import Failure, Observation
from conformance.oracle import Oracle
from conformance.recovery import LOSSES, Loss, recovered

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
class Wanted:
    """What is expected of a case on a target; agreement where nothing else is said.

    Attributes:
        why: in the words of the case or the profile.
        cause: the diagnosis or the type of exception that is named, if one is.
        says: text that the exception's message must contain.
    """

    verdicts: tuple[VerdictName, ...] = ("conforms", "conventional")
    why: str = ""
    cause: str | None = None
    says: str = ""

    def __str__(self) -> str:
        return " or ".join(self.verdicts) + (f" ({self.cause})" if self.cause else "")

    def caused(self, finding: _Finding) -> bool:
        """Whether the cause is the one named, if one is; a compiler wraps an exception, and names it in its message."""
        if self.cause is None:
            return True
        if finding.error is None:
            return self.cause == (finding.diagnosis or "unexplained")
        wrapped = re.search(rf"\b{re.escape(self.cause)}[(:]", finding.error.message)
        return self.cause == finding.error.type or wrapped is not None

    def unlike(self, finding: _Finding) -> str:
        """What an exception's message does not say, in words; nothing where it does."""
        unsaid = finding.error is not None and self.says not in finding.error.message
        return f"the message does not say {self.says!r}" if unsaid else ""


AGREEMENT = Wanted()


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
        tried: the hypotheses that came closest to explaining a mismatch; empty where none was sought.
        explained: every tensor once more, against the same reading with what the diagnosis supposes; empty where a
            mismatch was not explained by such a supposition.
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
    tried: tuple[Tried, ...] = ()
    explained: Mapping[str, TensorResult] = field(default_factory=dict)


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
    tried: tuple[Tried, ...] = ()
    explained: Mapping[str, TensorResult] = field(default_factory=dict)


def judge(comparison: Comparison, *, seek_cause: bool = True) -> Verdict:
    """Hold what a target returned against the reference, and the verdict against what the case expects.

    Args:
        comparison: what was returned, beside its case.
        seek_cause: whether to look for the cause of a mismatch; without it, what diverges is unexplained.
    """
    oracle, under = comparison.oracle, comparison.under
    case = oracle.problem.case
    finding = _find(comparison, seek_cause)
    wanted = expectation(case, under, finding)
    meaningless = _meaningless(oracle, under)
    if meaningless is not None and wanted == AGREEMENT:
        wanted = Wanted(("refused",), meaningless)
    caused = finding.verdict in wanted.verdicts and wanted.caused(finding)
    contradicts = finding.contradicts or (wanted.unlike(finding) if caused else "")
    fulfilled = caused and not contradicts
    because = "; ".join(part for part in (contradicts, finding.because, wanted.why if fulfilled else "") if part)
    return Verdict(
        finding.verdict,
        "expected" if fulfilled else "unexpected",
        str(wanted),
        finding.diagnosis,
        because,
        comparison.observation.seconds,
        finding.tensors,
        finding.error,
        finding.accepted,
        wanted.why,
        finding.tried,
        finding.explained,
    )


def expectation(case: Case, under: Under, finding: _Finding | None = None) -> Wanted:
    """What is expected of a case on a target.

    A case's own `expect:` comes first, then a refusal its profile declares, then agreement. Of several refusals it is
    the one found: which comes first is the framework's own affair.
    """
    fixed = {path.rpartition(".")[2]: value for path, value in case.matrix.items()}
    facts = {**under.facts, **{name: value for name, value in fixed.items() if name not in case.features}}
    for said in case.spec.expect.get(under.profile.framework, ()):
        if case.meets(said.condition, facts):
            return Wanted((said.verdict,), said.because, said.refuses or said.diverges, said.says or "")
    declared = [
        Wanted(("refused",), each.because, each.refuses, each.says or "")
        for each in under.profile.refusals(case, dict(under.facts))
    ]
    met = (each for each in declared if finding is not None and each.caused(finding) and not each.unlike(finding))
    return next(met, declared[0] if declared else AGREEMENT)


def _find(comparison: Comparison, seek_cause: bool) -> _Finding:
    oracle, under, observation = comparison.oracle, comparison.under, comparison.observation
    if observation.fate != "answered":
        return _Finding(observation.fate, error=observation.failure)
    if observation.refusal is not None:
        return _Finding("refused", error=observation.refusal, because=_first_line(observation.refusal))
    if oracle.problem.case.kind == "signature":
        return _find_signature(oracle.problem.case, under, observation)
    meaningless = _meaningless(oracle, under)
    if meaningless is not None:
        return _Finding("divergent", "accepted", f"accepted what has no value: {meaningless}")
    return _find_reading(comparison, seek_cause)


def _meaningless(oracle: Oracle, under: Under) -> str | None:
    """Why BatchNorm has no value here, so that a refusal is the only right answer; None where it has one."""
    return oracle.undefined or under.profile.senseless(oracle.problem)


def _first_line(failure: Failure) -> str:
    return f"{failure.type}: {failure.message.strip().splitlines()[0] if failure.message.strip() else ''}"


def _find_reading(comparison: Comparison, seek_cause: bool) -> _Finding:
    """Try the readings from best to worst: canonical, declared, with one fault, weak, less precise, with two faults."""
    oracle, under, check = comparison.oracle, comparison.under, comparison.check
    case = oracle.problem.case
    declared = under.profile.declared(case, dict(under.facts))
    meant = {field: value for field, value in declared.items() if field not in _OF_PRECISION}
    profiled = CANONICAL.but(**declared)
    results = check(CANONICAL)
    if _ok(results):
        contradicts = ""
        if meant and not any(_ok(check(CANONICAL.but(**reading))) for reading in (meant, declared)):
            names = ", ".join(name_change(*change)[0] for change in meant.items())
            contradicts = f"the profile declares {names}, which does not hold here"
        return _Finding("conforms", tensors=results, contradicts=contradicts)
    readings = _Readings(comparison, _furthest(comparison, results))
    for reading in (meant, declared):
        if reading and readings.hold(CANONICAL.but(**reading)):
            needed = readings.needed(reading)
            told = [name_change(*change) for change in needed.items()]
            return _Finding(
                "conventional",
                "+".join(name for name, _ in told),
                ", and ".join(sentence for _, sentence in told),
                check(CANONICAL.but(**reading)),
                accepted=CANONICAL.but(**needed),
            )
    results = check(profiled)
    if profiled.variance == "one-pass" and _numbers(results):
        cancelled = _recovered(LOSSES[:1], comparison, Search(profiled, check))
        if cancelled is not None:
            return _Finding(
                "conventional",
                cancelled.name,
                str(cancelled),
                results,
                accepted=profiled,
                explained=cancelled.tensors,
            )
    plain = _plain(results)
    if plain is not None:
        return _Finding("divergent", *plain, tensors=results, accepted=profiled)
    channel = _furthest(comparison, results)
    screen = Search(profiled, channel.check, channel.nearer) if channel else None
    search = Search(profiled, check, comparison.nearer, screen)

    def divergent(found: Diagnosis) -> _Finding:
        return _Finding(
            "divergent",
            found.name,
            str(found),
            results,
            accepted=profiled,
            tried=search.tried,
            explained=found.tensors,
        )

    found = search.one() if seek_cause else None
    if found is not None:
        return divergent(found)
    less_precise = search.one(PRECISION) if seek_cause else None
    for conventions in sorted({CANONICAL, CANONICAL.but(**meant), profiled}, key=lambda held: worst(check(held))):
        weak = check(conventions, search.failing, "weak")
        if _ok(weak):
            strict = check(conventions)
            because = f"right, but {worst(strict):.2g} times the strict bound off, {worst(weak):.2g} of the weak one"
            name = less_precise.name if less_precise else None
            explained = less_precise.tensors if less_precise else {}
            return _Finding(
                "inaccurate", name, because, strict, accepted=conventions, tried=search.tried, explained=explained
            )
    if seek_cause:
        found = less_precise or _recovered(LOSSES, comparison, search)
        most = PAIR_ELEMENTS // oracle.arithmetic.weight
        if found is None and all(call.x.size <= most for call in oracle.problem.calls):
            blank = comparison.blank(search.failing)
            found = search.two(CATALOGUE, blank=blank) or _recovered(LOSSES, comparison, search, HYPOTHESES)
    if found is not None:
        return divergent(found)
    return _Finding("divergent", "unexplained", words(results), results, accepted=profiled, tried=search.tried)


def _furthest(comparison: Comparison, results: Mapping[str, TensorResult]) -> Comparison | None:
    """The channel of a large case that is furthest off; None of a small one."""
    off = max(results.values(), key=lambda result: result.off)
    at = off.worst_index or ()
    return comparison.of_channel(at[1] if len(at) > 1 else at[0]) if at else None


@dataclass(frozen=True)
class _Readings:
    """Whether readings hold of what was returned, of a large case in one channel first."""

    whole: Comparison
    channel: Comparison | None

    def hold(self, conventions: Conventions) -> bool:
        """Whether every tensor is within its bound."""
        return self.hold_there(conventions) and _ok(self.whole.check(conventions))

    def needed(self, declared: dict[str, Any]) -> dict[str, Any]:
        """The declared conventions without which the tensors are out of bound."""
        needed = _least(declared, self.hold_there)
        return needed if self.hold(CANONICAL.but(**needed)) else _least(declared, self.hold)

    def hold_there(self, conventions: Conventions) -> bool:
        """The same of the one channel, where no channel bears on another."""
        if self.channel is None or not conventions.by_channel:
            return _ok(self.whole.check(conventions))
        return _ok(self.channel.check(conventions))


def _least(declared: dict[str, Any], hold: Callable[[Conventions], bool]) -> dict[str, Any]:
    """Declared conventions that hold, without those that are not needed to."""
    least = dict(declared)
    for name in declared:
        fewer = {other: value for other, value in least.items() if other != name}
        if hold(CANONICAL.but(**fewer)):
            least = fewer
    return least


def _numbers(results: Mapping[str, TensorResult]) -> bool:
    """Whether there is a number wherever there should be one, however wrong."""
    return all(result.problem is None for result in results.values())


#: Fields of `Conventions` that a profile declares and that are no claim about values.
_OF_PRECISION = {field for hypothesis in PRECISION for field in hypothesis.changes}


def _recovered(
    losses: Sequence[Loss],
    comparison: Comparison,
    search: Search,
    besides: Sequence[Hypothesis | None] = (None,),
) -> Diagnosis | None:
    """Whether the running statistics that a target returned tell of statistics that coarse arithmetic has lost.

    Args:
        besides: what may be the matter as well; None: nothing.
    """
    oracle = comparison.oracle
    running = {
        name: value.astype(np.float64)
        for name, value in comparison.observed.items()
        if name.startswith(("running_mean[", "running_var["))
    }
    strict = search.check(search.base.but(variance="two-pass"), ())
    if all(strict[name].ok for name in running if name in strict):
        return None  # what was weighed in is right
    for other in besides:
        supposed = search.base.but(variance="two-pass", **(other.changes if other else {}))
        traces = oracle.reading(comparison.under.profile, supposed).traces
        for loss in losses:
            found = recovered(loss, traces, running, supposed, oracle.arithmetic, oracle.dtypes)
            if found is not None and _ok(results := search.check(found, search.failing)):
                return search.diagnosis(results, *filter(None, (other, loss.cause)))
    return None


def _ok(results: Mapping[str, TensorResult]) -> bool:
    return all(result.ok for result in results.values())


def _plain(results: Mapping[str, TensorResult]) -> tuple[str, str] | None:
    """What no reading of the formulas explains and needs no search: a name for it, and a sentence.

    A difference in shape, dtype, device or presence; a document alone in what it says; x written to; parameters that
    moved; runs that differ.
    """
    for name, result in results.items():
        for begins, kind in _STRUCTURAL.items():
            if result.problem is not None and result.problem.startswith(begins):
                return kind, f"{name} {result.problem}"
    wrong = {name: result for name, result in results.items() if not result.ok}
    if wrong and all(name.endswith(AS_DOCUMENTED) for name in wrong):
        return (
            "document-contradicted",
            f"what was computed is right, and the document prints other numbers: {words(wrong)}",
        )
    failing = {name.partition("[")[0] for name in wrong}
    for tensors, kind, sentence in _TOUCHED:
        if failing & tensors:
            touched = {name: result for name, result in results.items() if name.partition("[")[0] in tensors}
            return kind, f"{sentence}: {words(touched)}"
    return None


#: How a problem that is none of numbers begins → its name.
_STRUCTURAL = {
    "has shape": "shape",
    "has dtype": "dtype",
    "is missing": "missing",
    "is returned": "returned",
    "is on ": "device",
}

#: Tensors that no step may change, the name of that, and a sentence.
_TOUCHED = (
    ({"x"}, "input-changed", "the layer wrote to its input"),
    ({"gamma", "beta"}, "parameters-changed", "γ or β is not what was set"),
    ({"repeats_differing"}, "differs-from-run-to-run", "the same case gave other bits when it was run again"),
)


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
