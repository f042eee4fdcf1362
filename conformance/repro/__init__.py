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
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateNotFound
from pydantic import ValidationError

from conformance import data
from conformance.arithmetic import Double
from conformance.case import Case
from conformance.errors import UsageError
from conformance.oracle import Oracle
from conformance.problem import materialise
from conformance.profile import AdapterFolder, Profile, open_adapter
from conformance.repro import beside
from conformance.repro.shown import NoScript
from conformance.repro.source import broken
from conformance.repro.writer import TEMPLATE, Writer
from conformance.safe_text import one_line
from conformance.spec import CaseSpec
from conformance.target import installed, parse

__all__ = ["NoScript", "of_stored", "script"]

#: Of all steps together; a script for more would take minutes to write, and as long to run.
MAX_ELEMENTS = 10**7


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
) -> str:
    """The script of a result.

    Args:
        case_line: as in `of_stored`, as are the two after it.
        named: a person named the target. Else the template of an adapter from elsewhere is not run: a stored run may
            give its targets any name, that of a folder in it too.

    Raises:
        NoScript: no script can show it, or the adapter brings no template.
    """
    verdict, error = verdict_line["verdict"], verdict_line["error"]
    if verdict == "broken":
        raise NoScript(f"the adapter or the environment failed, not the framework: {one_line(error['message'])}")
    if verdict == "refused" and error["type"] == "NotExpressible":
        raise NoScript(f"the framework has no way to say this case: {one_line(error['message'])}")
    case = _case(case_line)
    if case.spec.carried is not None:
        raise NoScript("one script cannot show it: its layer starts from another framework's")
    unsaid = beside.remarked(verdict_line, beside.UNSAID)
    if unsaid is not None:
        raise NoScript(f"the framework has no way to say the layer that is called first: {one_line(unsaid)}")
    adapter, options = _place(str(verdict_line["target"]), target, named)
    framework = adapter.profile.framework
    if case.frameworks is not None and framework not in case.frameworks:
        raise NoScript(f"the case says nothing of {framework}")
    elements = 0 if case.kind == "signature" else sum(case.input_of(step).size for step in range(len(case.spec.steps)))
    if elements > MAX_ELEMENTS:
        raise NoScript(f"the case's tensors have {elements:,} elements; a script shows {MAX_ELEMENTS:,} at most")
    facts = (target or {}).get("facts") or {"version": _installed(adapter.profile.package)}
    try:
        problem = materialise(case)
    except ValueError as error:
        raise NoScript(f"the stored case cannot be made: {one_line(str(error))}") from error
    oracle = Oracle(problem, Double())  # bounds need no more, and the script computes what is expected itself
    try:
        lines = Writer(problem, oracle, adapter, options, facts, verdict_line).lines()
    except TemplateNotFound as missing:
        raise NoScript(
            f"{adapter.path} has no {TEMPLATE}, which says how its framework is spelled",
            hint="conformance/repro describes it; adapters/torch has one to start from",
        ) from missing
    except TemplateError as slip:
        raise NoScript(f"{adapter.path / TEMPLATE}: {slip}") from slip
    text = "\n".join(part.rstrip() for line in lines for part in broken(line))
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n") + "\n"


def _place(name: str, target: Mapping[str, Any] | None, named: bool) -> tuple[AdapterFolder, dict[str, str]]:
    """The adapter and the options of a target."""
    try:
        if target is not None and target["framework"] in data.adapters() and "/" not in name:
            adapter = _adapter(data.adapters()[target["framework"]])
            _check_options(name, target["options"], adapter.profile)
            return adapter, dict(target["options"])
        if not named:
            raise NoScript(
                f"{name} is no adapter of the suite's own", hint="conformance repro writes it, with -t and --run"
            )
        return _parsed(name)
    except UsageError as error:
        raise NoScript(f"the target {name} is not known here: {error}") from error


def _check_options(name: str, options: Mapping[str, str], profile: Profile) -> None:
    """Options as a target has them: templates write them into code.

    Raises:
        NoScript: there is another, or one has another value.
    """
    for option, value in options.items():
        whole = value.isascii() and value.isdecimal()
        if not (whole if option == "threads" else value in profile.options.get(option, ())):
            said = one_line(f"{option}={value}", 80)
            raise NoScript(f"{name} is said to have run with {said}, which {profile.name} does not know")


@cache
def _adapter(path: Path) -> AdapterFolder:
    return open_adapter(path)


@cache
def _parsed(name: str) -> tuple[AdapterFolder, dict[str, str]]:
    target = parse(name)
    return target.adapter, target.options


@cache
def _installed(package: str) -> str:
    return installed(package) or ""


def _case(line: Mapping[str, Any]) -> Case:
    """A case from a stored line, which leaves out what is default and spells numbers that JSON lacks.

    Raises:
        NoScript: the line is of no case that this version of the suite knows.
    """
    try:
        spec = CaseSpec.model_validate(_numbers({"gradient": None, **line["spec"]}))
    except ValidationError as error:
        raise NoScript(f"the stored case cannot be read: {one_line(str(error))}") from error
    return Case(line["case"], line["file"], line["line"], line["about"], spec, line["matrix"])


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if value in ("nan", "inf", "-inf") else value
