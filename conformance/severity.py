"""How grave a finding is: from a process that died down to a document that says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.run_folder import Line


@dataclass(frozen=True)
class Severity:
    """A class of findings.

    Attributes:
        name: what the report's address calls it.
        one: one finding of it, in words; and `many` of them.
        meaning: what belongs to it, in a clause.

    """

    name: str
    one: str
    many: str
    meaning: str

    def count(self, number: int) -> str:
        """A number of its findings.

        >>> WRONG.count(1), WRONG.count(1500)
        ('1 wrong result', '1,500 wrong results')
        """
        return f"{number:,} {self.one if number == 1 else self.many}"


CRASH = Severity("crash", "crash or timeout", "crashes and timeouts", "the process died, or took longer than admitted")
WRONG = Severity(
    "wrong", "wrong result", "wrong results", "numbers that no rounding explains, NaN and infinity among them"
)
INACCURATE = Severity(
    "inaccurate", "inaccurate result", "inaccurate results", "right, but beyond the strict bound on rounding"
)
FORM = Severity(
    "form", "result of another form", "results of another form", "another dtype, shape or device, or none at all"
)
REFUSAL = Severity("refusal", "refusal", "refusals", "an exception or NotExpressible that was not expected")
LENIENT = Severity("lenient", "lenient check", "lenient checks", "an argument or input without meaning is accepted")
DOCUMENT = Severity(
    "document",
    "contradicted document",
    "contradicted documents",
    "a page or a signature says otherwise, which is no fault of the framework’s numbers",
)
OUTDATED = Severity(
    "outdated", "outdated expectation", "outdated expectations", "right where a case or a profile says that it is not"
)
BROKEN = Severity("broken", "broken adapter", "broken adapters", "the adapter or the environment, not the framework")

#: The gravest first.
SEVERITIES = (CRASH, WRONG, INACCURATE, FORM, REFUSAL, LENIENT, DOCUMENT, OUTDATED, BROKEN)

_OF_VERDICT = {
    "crashed": CRASH,
    "timeout": CRASH,
    "inaccurate": INACCURATE,
    "divergent": WRONG,
    "refused": REFUSAL,
    "conforms": OUTDATED,
    "conventional": OUTDATED,
    "broken": BROKEN,
}
_OF_DIAGNOSIS = {
    "accepted": LENIENT,
    "document-contradicted": DOCUMENT,
    **dict.fromkeys(("dtype", "shape", "device", "missing", "returned"), FORM),
}


def severity(line: Line) -> Severity | None:
    """How grave a verdict is; None where nothing is wrong: agreement, or a refusal that was expected."""
    verdict, diagnosis = line["verdict"], line["diagnosis"] or ""
    if line["status"] != "unexpected" and verdict in ("conforms", "conventional", "refused"):
        return None
    if verdict == "divergent":
        return DOCUMENT if diagnosis.startswith("signature-") else _OF_DIAGNOSIS.get(diagnosis, WRONG)
    return _OF_VERDICT.get(verdict, BROKEN)
