"""A run as JUnit XML: what passes, is skipped or fails, with which words, and that the XML is always well formed."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from handmade_runs import BIASED, REFUSED, UNEXPLAINED, hostile, run, target, tensor, verdict

from conformance.junit import junit
from conformance.run_folder import Run


def suites(of: Run) -> dict[str, ElementTree.Element]:
    return {suite.get("name", ""): suite for suite in ElementTree.fromstring("".join(junit(of)))}


def test_junit_passes_skips_and_fails_by_expectation() -> None:
    lines = [
        verdict(of="a/conforms"),
        verdict("conventional", of="a/conventional", **BIASED),
        verdict("refused", of="a/refused", **REFUSED),
        verdict("divergent", of="a/divergent", because="known since 2.0"),
        verdict("divergent", "unexpected", of="a/wrong", **UNEXPLAINED),
        verdict("conforms", "unexpected", of="a/improved", expected="refused (TypeError)"),
    ]
    suite = suites(run(lines))["torch"]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "6",
        "failures": "2",
        "errors": "0",
        "skipped": "2",
        "time": "1.500",
    }
    results = {test.get("name"): [child.tag for child in test] for test in suite.findall("testcase")}
    assert results == {
        "conforms": [],
        "conventional": [],
        "refused": ["skipped"],
        "divergent": ["skipped"],
        "wrong": ["failure"],
        "improved": ["failure"],
    }


def test_junit_gives_the_reason_of_a_skip_and_the_evidence_of_a_failure() -> None:
    lines = [
        verdict("refused", of="a/1", **REFUSED),
        verdict("divergent", "unexpected", of="a/2", **UNEXPLAINED),
    ]
    _, refused, wrong = suites(run(lines))["torch"]
    assert "one value has no variance" in (refused[0].get("message") or "")
    assert wrong.get("file") == "cases/a.yaml"
    message = wrong[0].get("message")
    assert message == "divergent (unexplained), expected conforms or conventional: y[0] is 53 bounds off at [3, 2]"
    assert (wrong[0].text or "").splitlines() == [
        "a/2 on torch: divergent, expected conforms or conventional",
        "y[0] is 53 bounds off at [3, 2]",
        "torch.nn.BatchNorm2d(num_features=3)",
        "y[0] is 53 bounds off at [2, 1], by 2.3e-07",
        "cases/a.yaml:12",
    ]


def test_a_failure_names_the_worst_element_where_the_run_has_it() -> None:
    wrong = UNEXPLAINED | {"tensors": {"y[0]": tensor(53, worst=[1.5, 1.25, 0.005])}}
    (failed,) = suites(run([verdict("divergent", "unexpected", **wrong)]))["torch"].findall("testcase/failure")
    assert "y[0] is 53 bounds off at [2, 1]: 1.25, not 1.5 within 0.005" in (failed.text or "").splitlines()


def test_junit_counts_a_target_that_did_not_run_as_an_error() -> None:
    found = suites(run([verdict()], targets=[target(), target("keras", ran=False, message="no keras\nat all")]))
    assert found["keras"].get("errors") == "1"
    assert found["keras"].findtext("testcase/error") == "no keras\nat all"


def test_hostile_texts_are_text_in_xml() -> None:
    root = ElementTree.fromstring("".join(junit(hostile())))
    (first, *_) = root.findall("testsuite/testcase/failure")
    assert '</script><img src=x onerror="alert(1)">' in (first.text or "")


@pytest.mark.parametrize("code", [0, 1, 8, 0xB, 0xC, 0xE, 0x1B, 0x1F, 0x7F, 0x9B, 0xD800, 0xFFFE, 0xFFFF])
def test_characters_that_xml_forbids_are_spelled_out(code: int) -> None:
    root = ElementTree.fromstring("".join(junit(run([verdict("refused", "unexpected", because=f"a{chr(code)}b")]))))
    message = root.findall("testsuite/testcase/failure")[0].get("message") or ""
    assert re.search(r"a\\[xu][0-9a-f]+b", message)
