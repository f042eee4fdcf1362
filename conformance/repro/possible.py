"""Whether a script can show a result: what `conformance repro` asks first, and all that offer the command ask too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from conformance import data
from conformance.case import Case
from conformance.errors import UsageError
from conformance.profile import AdapterFolder, Profile, open_adapter
from conformance.repro import beside, template
from conformance.repro.shown import NoScript, unshown
from conformance.safe_text import one_line
from conformance.spec import CaseSpec
from conformance.target import parse

#: Of all steps together; a script for more would take minutes to write, and as long to run.
MAX_ELEMENTS = 10**7


class Elsewhere(NoScript):
    """The target is no adapter of the suite's own, and nobody named it: its template is not run."""


def offered(case: Case, line: Mapping[str, Any], target: Mapping[str, Any], *, named: bool = False) -> bool:
    """Whether `conformance repro` on the target writes a script; the arguments are those of `checked`.

    Of an adapter from elsewhere which nobody named, all that counts is whether it brings a template.
    """
    try:
        checked(case, line, target, named=named)
    except Elsewhere:
        return _brings_template(str(line["target"]))
    except NoScript:
        return False
    return True


def checked(
    case: Case, line: Mapping[str, Any], target: Mapping[str, Any] | None, *, named: bool
) -> tuple[AdapterFolder, dict[str, str]]:
    """The adapter and the options of a result that a script can show.

    Args:
        case: what was run.
        line: of results.jsonl, which judges the case on a target.
        target: the target as run.json describes it, for its options.
        named: a person named the target. Else the template of an adapter from elsewhere is not run: a stored run may
            give its targets any name, that of a folder in it too.

    Raises:
        NoScript: no script can show it, or the adapter brings no template.
    """
    _check_result(line)
    _check_case(case)
    adapter, options = _place(str(line["target"]), target, named)
    framework = adapter.profile.framework
    if case.frameworks is not None and framework not in case.frameworks:
        raise NoScript(f"the case says nothing of {framework}")
    spelling = template.opened(adapter.path)
    wanted = {
        "twice": ("second derivatives", any(step.second is not None for step in case.spec.steps)),
        "mixes": (
            "second derivatives in forward mode",
            any(step.second is not None and step.second.mixed for step in case.spec.steps),
        ),
        "recomputes": ("recomputation", case.spec.recompute),
        "tangents": ("derivatives in forward mode", any(step.tangent is not None for step in case.spec.steps)),
        "assigns": ("assigned attributes", any(step.assign is not None for step in case.spec.steps)),
    }
    for name, (what, asked) in wanted.items():
        if asked and not getattr(spelling, name, False):
            raise NoScript(f"{adapter.path / template.NAME} has no words for {what}, as it sets no `{name}`")
    return adapter, options


def case_of(line: Mapping[str, Any]) -> Case:
    """A case from a line of cases.jsonl, which leaves out what is default and spells numbers that JSON lacks.

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


def _check_result(line: Mapping[str, Any]) -> None:
    verdict, error = line["verdict"], line["error"]
    if verdict == "broken":
        raise NoScript(f"the adapter or the environment failed, not the framework: {one_line(error['message'])}")
    if verdict == "refused" and error["type"] == "NotExpressible":
        raise NoScript(f"the framework has no way to say this case: {one_line(error['message'])}")
    unsaid = beside.remarked(line, beside.UNSAID)
    if unsaid is not None:
        raise NoScript(f"the framework has no way to say the layer that is called first: {one_line(unsaid)}")
    words = unshown(line)
    if words is not None:
        raise NoScript(f"{one_line(words)}, which no comparison of numbers shows")


def _check_case(case: Case) -> None:
    elements = 0 if case.kind == "signature" else sum(case.input_of(step).size for step in range(len(case.spec.steps)))
    if case.spec.beside is not None and case.spec.beside.input is not None:
        elements += case.spec.beside.input.size
    if elements > MAX_ELEMENTS:
        raise NoScript(f"the case's tensors have {elements:,} elements; a script shows {MAX_ELEMENTS:,} at most")


def _place(name: str, target: Mapping[str, Any] | None, named: bool) -> tuple[AdapterFolder, dict[str, str]]:
    """The adapter and the options of a target."""
    try:
        if target is not None and target["framework"] in data.adapters() and "/" not in name:
            adapter = _adapter(data.adapters()[target["framework"]])
            _check_options(name, target["options"], adapter.profile)
            usual = {option: values[0] for option, values in adapter.profile.options.items()}
            return adapter, {**usual, **target["options"]}  # a run of before an option was there does not say it
        if not named:
            raise Elsewhere(
                f"{name} is no adapter of the suite's own", hint="conformance repro writes it, with -t and --run"
            )
        return _parsed(name)
    except NoScript:
        raise
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


def _brings_template(name: str) -> bool:
    """Whether the folder that a target names has a template; nothing of it is read."""
    try:
        return (Path(name.partition(",")[0]) / template.NAME).is_file()
    except (OSError, ValueError):  # no name that a folder could have
        return False


@cache
def _adapter(path: Path) -> AdapterFolder:
    return open_adapter(path)


@cache
def _parsed(name: str) -> tuple[AdapterFolder, dict[str, str]]:
    target = parse(name)
    return target.adapter, target.options
