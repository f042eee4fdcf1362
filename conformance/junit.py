"""A run as JUnit XML, which every CI shows: a suite per target, a test per case.

What was expected passes, or is skipped with the reason where the framework does something else than the reference;
what was not fails with its evidence. A target that did not start is an error of its own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from conformance.findings import off, topic
from conformance.run_folder import Line, Run
from conformance.safe_text import one_line, shorten

#: Messages longer than this are cut in the middle; a framework may print its whole C++ stack.
MESSAGE_LIMIT = 4_000
_WORST_TENSORS = 5


def junit(run: Run) -> Iterator[str]:
    """The run as a JUnit XML document, piece by piece, since a long run has many tests."""
    run = run.cleaned()
    suites = [_suite(run, target) if target["ran"] else _no_suite(run, target) for target in run.info["targets"]]
    root = ElementTree.Element("testsuites", name="batchnorm-conformance")
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time', 0)) for suite in suites):.3f}")
    yield f'<?xml version="1.0" encoding="utf-8"?>\n{_opened(root)}\n'
    for suite in suites:
        tests = (_test(run.cases[line["case"]], line) for line in run.verdicts if line["target"] == suite.get("name"))
        yield f"  {_opened(suite)}\n"
        for element in itertools.chain(suite, tests):
            ElementTree.indent(element, level=2)
            yield f"    {ElementTree.tostring(element, encoding='unicode').rstrip()}\n"
        yield f"  </{suite.tag}>\n"
    yield f"</{root.tag}>\n"


def _opened(element: ElementTree.Element) -> str:
    """The tag that begins an element."""
    alone = ElementTree.tostring(ElementTree.Element(element.tag, element.attrib), encoding="unicode")
    return f"{alone.removesuffix(' />')}>"


def _suite(run: Run, target: dict[str, Any]) -> ElementTree.Element:
    """A target's suite, its tests counted and left out."""
    suite = ElementTree.Element("testsuite", name=target["name"], timestamp=run.info["started"])
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in target["facts"].items():
        ElementTree.SubElement(properties, "property", name=name, value=str(value))
    results = Counter(_result(line) for line in run.verdicts if line["target"] == target["name"])
    seconds = sum(line["seconds"] for line in run.verdicts if line["target"] == target["name"])
    suite.set("tests", str(results.total()))
    suite.set("failures", str(results["failure"]))
    suite.set("errors", "0")
    suite.set("skipped", str(results["skipped"]))
    suite.set("time", f"{seconds:.3f}")
    return suite


def _no_suite(run: Run, target: dict[str, Any]) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=target["name"], timestamp=run.info["started"])
    suite.attrib |= {"tests": "1", "failures": "0", "errors": "1", "skipped": "0", "time": "0.000"}
    test = ElementTree.SubElement(suite, "testcase", classname=target["name"], name="starts", time="0.000")
    message = target["message"] or "the target was not started"
    error = ElementTree.SubElement(test, "error", type="did not run", message=one_line(message))
    error.text = shorten(message, MESSAGE_LIMIT)
    return suite


def _result(line: Line) -> str:
    """What JUnit has for a verdict: a failure, a test that was skipped, or nothing."""
    if line["status"] == "unexpected":
        return "failure"
    return "" if line["verdict"] in ("conforms", "conventional") else "skipped"


def _test(case: Line, line: Line) -> ElementTree.Element:
    within = topic(case)
    test = ElementTree.Element(
        "testcase",
        classname=f"{line['target']}.{within.replace('/', '.')}",
        name=line["case"].removeprefix(f"{within}/"),
        time=f"{line['seconds']:.3f}",
    )
    test.set("file", case["file"])
    test.set("line", str(case["line"]))
    result = _result(line)
    if result == "failure":
        verdict = line["verdict"] + (f" ({line['diagnosis']})" if line["diagnosis"] else "")
        message = f"{verdict}, expected {line['expected']}" + (f": {line['because']}" if line["because"] else "")
        failure = ElementTree.SubElement(test, result, type=line["verdict"], message=one_line(message, 300))
        failure.text = _evidence(case, line)
    elif result:
        reason = one_line(f"{line['verdict']} as expected: {line['because']}", 300)
        ElementTree.SubElement(test, result, type=f"expected {line['verdict']}", message=reason)
    return test


def _evidence(case: Line, line: Line) -> str:
    """What a person needs to see why a test failed, the first thing first."""
    said = [f"{line['case']} on {line['target']}: {line['verdict']}, expected {line['expected']}", line["because"]]
    said += [line["received"]] if line["received"] else []
    ranked = sorted(line["tensors"].items(), key=lambda item: -off(item[1]))
    said += [_words(name, tensor) for name, tensor in ranked[:_WORST_TENSORS] if off(tensor) > 1]
    if line["error"]:
        said.append(shorten(f"{line['error']['type']}: {line['error']['message']}", MESSAGE_LIMIT))
    said.append(f"{case['file']}:{case['line']}")
    return "\n".join(text for text in said if text)


def _words(name: str, tensor: Mapping[str, Any]) -> str:
    if tensor.get("problem"):
        return f"{name} {tensor['problem']}"
    if tensor["ratio"] is None:
        return f"{name} is beyond its bound"
    where = f"{name} is {tensor['ratio']:.3g} bounds off at {tensor.get('worst_index')}"
    if tensor.get("worst"):
        exact, seen, bound = tensor["worst"]
        return f"{where}: {seen}, not {exact} within {bound}"
    return f"{where}, by {tensor.get('max_abs') or 0:.3g}"
