"""A stand-alone script from one stored result: framework code and NumPy alone, to be pasted into a bug report.

The script exits with 1 while the discrepancy is there and with 0 when it is gone. The discrepancy, by the verdict:

conventional, inaccurate, divergent   the first step of which a tensor is known to leave the strict bound of the
    canonical reference (torch's conventions), and all such tensors of that step, or what else is wrong with them (a
    dtype, a shape). What follows from them in later steps is left out. Where what was stored does not tell the step,
    every tensor that may be out is held against the canonical reference.
refused    any exception, where BatchNorm has a value; its absence, where it has none and refusing is right.
divergent (accepted)    its absence, as BatchNorm has no value there.
crashed, timeout    the process's death, or that it does not end.
conforms   that any tensor leaves the bound, so the script exits with 0.

A bound is written as NumPy's `isclose` has it, atol + rtol·|expected|, at least the suite's own at every element and as
little above as two numbers allow.

How a framework spells a layer stands beside its adapter, in ``repro.py.j2``: a file of Jinja2 macros. Each takes
`case`, a `Spelling`, and those within a step also `step`, a `Step`:

    imports(case)                               the imports, with sys and NumPy (and what a flag of `case` asks for)
    setup(case), layer(case)                    statements: contexts; `layer` with its initial values
    step(case, step)                            one call of the layer: statements
    read(case, step, kind)                      expression of a tensor: y, dx, dgamma, running_mean …
    numpy(case, step, kind, dtype, kept)        the same as a NumPy array; `kept`: later steps must not change it
    dtype(case, step, kind), shape(…)           its dtype's name, such as "float32"; its shape, a tuple
    constructor(case), version(case)            expressions: the class; the framework's version
    twice                                       a variable: true where `step` heeds `step.v`, for second derivatives
    mixes                                       a variable: true where `step` heeds `step.by`, the order of their modes
    recomputes                                  a variable: true where the macros heed `case.recomputes`
    assigns                                     a variable: true where `step` heeds `step.assigned`
    tangents                                    a variable: true where `step` heeds `step.tangent`, for forward mode
    compiles                                    a variable: true where `step` heeds `step.call` and `step.compiles`
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import TemplateError

from conformance.arithmetic import Double
from conformance.oracle import Oracle
from conformance.problem import Array, materialise
from conformance.repro import template
from conformance.repro.possible import case_of, checked, offered
from conformance.repro.shown import NoScript
from conformance.repro.source import broken
from conformance.repro.writer import Writer
from conformance.safe_text import one_line
from conformance.target import installed

__all__ = ["NoScript", "case_of", "of_stored", "offered", "script"]


def of_stored(
    case_line: Mapping[str, Any], verdict_line: Mapping[str, Any], target: Mapping[str, Any] | None = None
) -> str | None:
    """The script of a stored result; None where there is none, or its target is no adapter of the suite's own.

    Args:
        case_line: a line of cases.jsonl.
        verdict_line: a line of results.jsonl that judges the case on a target.
        target: the target as run.json describes it, for its versions and options.
    """
    try:
        return script(case_line, verdict_line, target, named=False)
    except NoScript:
        return None


def script(
    case_line: Mapping[str, Any],
    verdict_line: Mapping[str, Any],
    target: Mapping[str, Any] | None = None,
    *,
    named: bool = True,
    carried: Mapping[str, Array] | None = None,
) -> str:
    """The script of a result.

    Args:
        case_line: as in `of_stored`, as are the two after it.
        named: a person named the target. Else the template of an adapter from elsewhere is not run: a stored run may
            give its targets any name, that of a folder in it too.
        carried: of a case whose layer comes from another framework: what that held, as `materialise` takes it.

    Raises:
        NoScript: no script can show it, or the adapter brings no template.
    """
    case = case_of(case_line)
    adapter, options = checked(case, verdict_line, target, named=named)
    facts = (target or {}).get("facts") or {"version": _installed(adapter.profile.package)}
    if case.spec.carried is not None and carried is None:
        raise NoScript(
            "a run does not keep the numbers that a carried layer starts from",
            hint="conformance repro without --run trains it anew",
        )
    try:
        problem = materialise(case, carried)
    except ValueError as error:
        raise NoScript(f"the stored case cannot be made: {one_line(str(error))}") from error
    oracle = Oracle(problem, Double())  # bounds need no more, and the script computes what is expected itself
    try:
        lines = Writer(problem, oracle, adapter, options, facts, verdict_line).lines()
    except TemplateError as slip:
        raise NoScript(f"{adapter.path / template.NAME}: {slip}") from slip
    text = "\n".join(part.rstrip() for line in lines for part in broken(line))
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n") + "\n"


@cache
def _installed(package: str) -> str:
    return installed(package) or ""
