"""The reports of a run: the numbers they tell, in which order, and that no text from outside acts in them."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import handmade_runs
import pytest
from handmade_runs import (
    BIASED,
    HOSTILE,
    REFUSED,
    UNEXPLAINED,
    Line,
    hostile,
    large,
    pair,
    run,
    target,
    tensor,
    verdict,
)

from conformance import data, report_data
from conformance.agreements import DIFFER, Difference, agreement, pair_findings
from conformance.asked import dtypes, parameters, steps
from conformance.findings import OUTCOMES, findings, ranked
from conformance.judge import VERDICTS
from conformance.junit import junit
from conformance.overview import MEANINGS, headline, overview, sharing, subject
from conformance.report import SUMMARY_LIMIT, html, summary, write_reports
from conformance.report_data import Embedded, embedded
from conformance.run_folder import Run
from conformance.safe_text import clean


class Page(HTMLParser):
    """The elements and texts of a document, as a browser's parser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.data = ""
        self._within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        self._within = [tag, attributes.get("id", "")]

    def handle_endtag(self, tag: str) -> None:
        self._within = []

    def handle_data(self, text: str) -> None:
        if self._within == ["script", "data"]:
            self.data += text
        elif self._within[:1] not in (["script"], ["style"]):
            self.texts.append(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


# What is told.


def said(of: Run) -> str:
    return headline(of, agreement(of), findings(of))


def test_the_headline_tells_whether_they_agree_and_whether_that_was_expected() -> None:
    keras = target("keras", "Keras", version="3.15.1", backend="tensorflow", backend_version="2.21.0")
    right = [verdict(on="torch"), verdict("conventional", on="keras", **BIASED)]
    wrong = [verdict(on="torch"), verdict("divergent", "unexpected", on="keras", **UNEXPLAINED)]
    apart, together = [pair("torch", "keras", "keras: unexplained")], [pair("torch", "keras")]
    targets = [target(), keras]
    two = [*together, pair("torch", "keras", "keras: running-variance-biased", of="a/2")]
    more = [*right, verdict(on="torch", of="a/2"), verdict("conventional", on="keras", of="a/2", **BIASED)]
    runs = ((right, together), (more, two), (wrong, apart))
    assert [said(run(lines, pairs, targets)) for lines, pairs in runs] == [
        "PyTorch and Keras agree in the one case that two or more answer. All is as expected.",
        "Once declared conventions are applied, PyTorch and Keras agree in all of the 2 cases that two or more answer. "
        "All is as expected.",
        "1 verdict is unexpected. PyTorch and Keras differ in the one case that two or more answer. "
        "1 finding: 1 wrong result.",
    ]
    assert subject(run(wrong, apart, targets)) == (
        "PyTorch 2.13.0 and Keras 3.15.1 (TensorFlow 2.21.0) on CPU: 2 verdicts on 1 case."
    )


def test_the_headline_of_one_target_counts_what_is_right() -> None:
    lines = [verdict(of="a/1"), verdict("refused", of="a/2", **REFUSED)]
    assert said(run(lines)) == "PyTorch is right in the one case that it answers. All is as expected."
    lines = [verdict(of="a/1"), verdict("divergent", "unexpected", of="a/2", **UNEXPLAINED)]
    assert said(run(lines)) == (
        "1 verdict is unexpected. PyTorch is right in 1 of the 2 cases that it answers. 1 finding: 1 wrong result."
    )
    assert said(run([verdict("refused", of=f"a/{i}", **REFUSED) for i in range(2)])) == (
        "PyTorch answers none of 2 cases. All is as expected."
    )


def test_an_expectation_that_no_longer_holds_is_grammatical_and_not_green() -> None:
    one = run([verdict("conforms", "unexpected", expected="refused (TypeError)")])
    assert said(one) == (
        "1 verdict is unexpected. PyTorch is right in the one case that it answers. 1 finding: 1 outdated expectation."
    )
    style = (data.folder("reports") / "style.css").read_text(encoding="utf-8")
    assert ".matrix .flag { display: inline-block; background: var(--ink);" in style


def test_the_headline_counts_findings_by_severity() -> None:
    lines = [
        verdict("divergent", of="a/1", diagnosis="accepted", reason="f(x='1') is taken for 1"),
        verdict(
            "divergent", of="a/2", diagnosis="signature-added", because="added: b=2; since 2.9", reason="since 2.9"
        ),
        verdict("divergent", of="a/3", diagnosis="sums-overflow", reason="squares are summed in float32"),
        verdict("divergent", of="a/4", diagnosis="sums-overflow", reason="squares are summed in float32"),
        verdict("crashed", "unexpected", of="a/5", error={"type": "Died", "message": "signal 11"}),
    ]
    assert said(run(lines)).endswith(
        "4 findings, 1 of them unexpected: "
        "1 crash or timeout, 1 wrong result, 1 lenient check and 1 contradicted document."
    )
    assert said(run(lines[:4])).endswith(
        "3 known findings: 1 wrong result, 1 lenient check and 1 contradicted document."
    )


def test_the_numbers_of_shared_cases_add_up_in_words() -> None:
    keras = target("keras", "Keras")
    lines = [
        *(verdict(of=f"a/{i}") for i in range(4)),
        *(verdict(on="keras", of=f"a/{i}") for i in range(2)),
        verdict("refused", on="keras", of="a/2", **REFUSED),
    ]
    pairs = [pair("torch", "keras", of="a/0"), pair("torch", "keras", "keras: x", of="a/1")]
    pairs.append(pair("torch", "keras", "keras: refused (ValueError)", of="a/2"))
    of = run(lines, pairs, [target(), keras])
    assert sharing(of, agreement(of)) == (
        "Of 4 cases, 1 ran on one target only; fewer than two answered 1, as the others refused or have no such option"
        "; in 1 of the other 2 they agree even as they stand."
    )


def test_targets_of_one_framework_are_told_apart() -> None:
    lines = [verdict(on="torch"), verdict(on="torch,execution=compiled")]
    assert "PyTorch 2.13.0 as torch; torch,execution=compiled on CPU" in subject(run(lines))
    lines = [verdict(on="torch"), verdict(on="cuda")]
    found = subject(run(lines, targets=[target(), target("cuda", device="cuda")]))
    assert found == "PyTorch 2.13.0 on CPU and PyTorch 2.13.0 on CUDA: 2 verdicts on 1 case."


def test_a_run_of_nothing_says_so() -> None:
    nothing = run([], targets=[target(ran=False, message="no module named torch")])
    assert said(nothing) == "Nothing ran: there is no verdict."
    assert "no module named torch" in Page(html(nothing)).text
    assert "no module named torch" in summary(nothing)
    assert ElementTree.fromstring("".join(junit(nothing))).get("errors") == "1"


def test_every_verdict_has_a_meaning_and_a_colour() -> None:
    style = (data.folder("reports") / "style.css").read_text(encoding="utf-8")
    assert set(MEANINGS) == {*VERDICTS, "inexpressible"} == set(OUTCOMES)
    assert all(f".v-{name} {{ --c: var(--{name}); }}" in style for name in OUTCOMES)
    assert all(f".mark.v-{name} " in style for name in OUTCOMES)
    assert "as its profile declares" in MEANINGS["conventional"]


def test_what_an_adapter_cannot_ask_is_counted_apart_from_what_a_framework_refuses() -> None:
    unable: Line = {"error": {"type": "NotExpressible", "message": "there is no such option"}, "tensors": {}}
    of = run([verdict("refused", of="a/1", **REFUSED), verdict("refused", of="a/2", **unable), verdict(of="a/3")])
    text = Page(html(of)).text
    assert "refused 1 the framework raised an exception" in text
    assert "inexpressible 1 the adapter has no way to ask this" in text
    assert "| target | conforms | inexpressible | refused | unexpected |" in summary(of)


def test_one_convention_is_told_once_with_its_targets_and_cases() -> None:
    both = {"diagnosis": "default-eps-0.001+running-variance-biased", "because": "…"}
    lines = [verdict("conventional", of=f"a/{i}", on="keras", **(both if i == 0 else BIASED)) for i in range(5)]
    lines.append(verdict("conventional", of="a/1", on="mindspore", **BIASED))
    found = {finding.cause: finding for finding in findings(run(lines))}
    assert {name: (finding.cases, finding.targets) for name, finding in found.items()} == {
        "running-variance-biased": (5, {"keras": 5, "mindspore": 1}),
        "default-eps-0.001": (1, {"keras": 1}),
    }
    assert found["running-variance-biased"].sentence == "running_var is stored biased, without the n/(n−1) factor"
    assert found["running-variance-biased"].occurrences[0].note == "with default-eps-0.001"
    assert found["default-eps-0.001"].sentence == "default eps is 0.001"


def test_an_exponent_joins_no_conventions() -> None:
    (only,) = findings(run([verdict("conventional", diagnosis="default-eps-1e+06")]))
    assert only.cause == "default-eps-1e+06"


def test_unexpected_findings_come_first_and_the_worst_first_of_these() -> None:
    lines = [
        verdict("conventional", of="a/1", **BIASED),
        verdict("inaccurate", "unexpected", of="a/2"),
        verdict("divergent", "unexpected", of="a/3", **UNEXPLAINED),
        verdict("crashed", "unexpected", of="a/4"),
        verdict("refused", of="a/5", **REFUSED),
        verdict("conforms", of="a/6"),
    ]
    found = [(finding.verdict, finding.status) for finding in findings(run(lines))]
    assert found[:3] == [(name, "unexpected") for name in ("crashed", "divergent", "inaccurate")]
    assert sorted(found[3:]) == [("conventional", "expected"), ("refused", "expected")]


def test_the_worst_case_of_a_finding_comes_first() -> None:
    lines = [
        verdict("divergent", "unexpected", of=f"a/{ratio}", diagnosis="unexplained", tensors={"y[0]": tensor(ratio)})
        for ratio in (2.0, 50.0, 3.0)
    ]
    (only,) = findings(run(lines))
    assert [at.case for at in only.occurrences] == ["a/50.0", "a/3.0", "a/2.0"]


def test_exceptions_that_differ_in_numbers_are_one_finding() -> None:
    errors = [{"type": "ValueError", "message": f"float32: 1 of 2, got size [{i}, 3]"} for i in (1, 2)]
    lines = [
        verdict("refused", "unexpected", of=f"a/{i}", error=error, because=f"ValueError: {error['message']}")
        for i, error in enumerate(errors)
    ]
    (only,) = findings(run(lines))
    assert only.message == "ValueError: float32: 1 of 2, got size […]"
    assert (only.cause, only.name) == ("ValueError: float32: … of …, got size […]", "")
    assert (only.sentence, len(only.occurrences)) == ("", 2)


def test_exceptions_expected_for_one_reason_are_one_finding_with_that_reason() -> None:
    lines = [
        verdict("refused", of=f"a/{i}", error={"type": "E", "message": f"no {i}"}, because=f"E: no {i}; floats only")
        for i in ("float64", "bfloat16")
    ]
    (only,) = findings(run(lines))
    assert only.sentence == "floats only"
    assert [(at.case, at.note) for at in only.occurrences] == [("a/float64", ""), ("a/bfloat16", "E: no bfloat16")]


def test_an_expectation_that_no_longer_holds_is_told_as_such() -> None:
    (only,) = findings(run([verdict("conforms", "unexpected", expected="refused (TypeError)")]))
    assert only.sentence == "refused (TypeError) was expected, and the verdict is conforms"


def test_pairs_are_counted_and_their_differences_grouped() -> None:
    lines = [
        pair("torch", "keras", of="a/1"),
        *(pair("torch", "keras", "keras: running-variance-biased", of=f"a/{i}") for i in (2, 3)),
        pair("torch", "keras", "torch: refused (ValueError)", of="a/4"),
    ]
    (only,) = pair_findings(run([verdict()], lines))
    assert (only.pair, only.agree, only.apart) == (("torch", "keras"), 1, 3)
    assert only.differences == (
        Difference(DIFFER, "keras: running-variance-biased", ("a/2", "a/3")),
        Difference(DIFFER, "torch: refused (ValueError)", ("a/4",)),
    )


def test_answers_that_differ_come_before_declared_ones_and_before_what_one_target_did_not_answer() -> None:
    unable: Line = {"error": {"type": "NotExpressible", "message": "no"}, "tensors": {}}
    lines = [
        *(verdict(of=f"a/{i}") for i in range(9)),
        verdict("divergent", on="keras", of="a/0", **UNEXPLAINED),
        *(verdict("conventional", on="keras", of=f"a/{i}", **BIASED) for i in (1, 2)),
        *(verdict("refused", on="keras", of=f"a/{i}", **unable) for i in (3, 4, 5)),
        *(verdict("refused", on="keras", of=f"a/{i}", **REFUSED) for i in (6, 7)),
        verdict(on="keras", of="a/8"),
    ]
    why = ["unexplained", *["running-variance-biased"] * 2, *["refused (NotExpressible)"] * 3]
    why += ["refused (ValueError)"] * 2
    pairs = [pair("torch", "keras", f"keras: {said}", of=f"a/{i}") for i, said in enumerate(why)]
    of = run(lines, [*pairs, pair("torch", "keras", of="a/8")], [target(), target("keras", "Keras")])
    (only,) = pair_findings(of)
    assert (only.agree, only.convention, only.differ, only.silent) == (1, 2, 1, 5)
    assert [one.because.removeprefix("keras: ") for one in only.differences] == [
        *dict.fromkeys(why[:3]),
        why[6],
        why[3],
    ]
    assert [
        (one["differ"][0]["order"] if one["differ"][0].get("order") else 0)
        for one in unpack(held(of).index)["cases"][:7:3]
    ] == [0, 3, 2]
    found = agreement(of)
    assert (found.shared, found.answered, found.together, found.declared) == (9, 4, 1, 3)


def test_the_matrix_counts_per_topic_and_target_and_links_to_these_cases() -> None:
    lines = [
        verdict(of="a b/1"),
        verdict("divergent", "unexpected", of="a b/2", **UNEXPLAINED),
        verdict(of="a b/2", on="keras"),
    ]
    page = Page(html(run(lines)))
    links = {attributes.get("href") for tag, attributes in page.elements if tag == "a"}
    assert "#topic=a%20b&target=torch&verdict=divergent" in links
    assert "#topic=a%20b&target=torch&status=unexpected" in links
    assert "#case=a%20b/2" in links
    assert "1 unexpected 1 divergent 1" in page.text


def test_the_target_that_differs_from_all_others_is_the_odd_one_out() -> None:
    def pairs(case: str, **apart: bool) -> list[Line]:
        named = {"torch~mindspore": ("torch", "mindspore"), "torch~keras": ("torch", "keras")}
        named["mindspore~keras"] = ("mindspore", "keras")
        return [pair(*two, "differs" if apart.get("_".join(two)) else "", of=case) for two in named.values()]

    lines = [
        *pairs("a/together"),
        *pairs("a/keras", torch_keras=True, mindspore_keras=True),
        *pairs("a/nobody", torch_mindspore=True, torch_keras=True, mindspore_keras=True),
        *pairs("a/chain", torch_keras=True),
        pair("torch", "keras", "differs", of="a/two"),
    ]
    found = agreement(run([verdict()], lines))
    assert (found.shared, found.together) == (5, 1)
    assert found.odd == {"a/keras": "keras"}


def test_the_environment_names_versions_machine_date_and_command() -> None:
    text = Page(html(run([verdict()]))).text
    for fact in ("2.13.0+cpu", "Processor 9000, 2 cores", "Linux", "2026-01-02T03:04:05+00:00, in 60 seconds"):
        assert fact in text
    assert "conformance run -k 'a b'" in text


# The findings: each once, by whose it is, the gravest first.

ACCEPTED: Line = {"diagnosis": "accepted", "tensors": {}}


def test_no_target_answers_for_what_is_said_of_another() -> None:
    lines = [
        verdict("divergent", on="keras", reason='BatchNormalization(momentum="0.1") is taken for 0.1', **ACCEPTED),
        verdict("divergent", on="torch", reason="BatchNorm2d(3, momentum=True) weighs with 1", **ACCEPTED),
        verdict("divergent", on="torch", of="a/2", reason="BatchNorm2d([3]) runs", **ACCEPTED),
        verdict("divergent", on="torch", of="a/3", reason="BatchNorm2d([3]) runs", **ACCEPTED),
    ]
    of = run(lines, targets=[target("torch"), target("keras", "Keras", version="3.15.1")])
    said = {(one.framework, one.sentence): one.cases for one in findings(of)}
    assert said == {
        ("keras", 'BatchNormalization(momentum="0.1") is taken for 0.1'): 1,
        ("torch", "BatchNorm2d(3, momentum=True) weighs with 1"): 1,
        ("torch", "BatchNorm2d([3]) runs"): 2,
    }
    assert all(len(one.targets) == 1 for one in findings(of))
    (row,) = [line for line in summary(of).splitlines() if "BatchNormalization" in line]
    assert "Keras 3.15.1" in row
    assert "orch" not in row
    assert re.search(r"Keras 3\.15\.1 BatchNormalization\(momentum=\S+ is taken for 0\.1", Page(html(of)).text)


def test_exceptions_of_two_targets_are_two_findings() -> None:
    error = {"type": "ValueError", "message": "no"}
    lines = [verdict("refused", on=on, error=error, because="ValueError: no", tensors={}) for on in ("torch", "keras")]
    assert [one.targets for one in findings(run(lines))] == [{"torch": 1}, {"keras": 1}]


def test_a_finding_of_several_targets_of_a_framework_is_told_once_with_those_that_show_it() -> None:
    names = ["keras", "keras,backend=jax", "keras,execution=xla", "torch"]
    shown = {"of all": names[:3], "of two": names[:2], "of one": names[2:3]}
    lines = [
        verdict("divergent", on=on, of=f"a/{reason}", diagnosis="eps-ignored", reason=reason)
        for reason, on_targets in shown.items()
        for on in reversed(on_targets)
    ]
    lines += [verdict("divergent", on="torch", of="a/of all", diagnosis="eps-ignored", reason="of all")]
    of = run(lines, targets=[target(name, name.partition(",")[0].title(), version="3.15.1") for name in names])
    found = ranked(findings(of))
    assert [(one.framework, one.reason, one.cases) for one in found] == [
        ("keras", "of all", 1),
        ("keras", "of two", 1),
        ("torch", "of all", 1),
        ("keras", "of one", 1),
    ]
    assert list(overview(of)["whose"].values()) == [
        "Keras 3.15.1",
        "Keras 3.15.1 as keras; keras,backend=jax",
        "Torch 3.15.1",
        "Keras 3.15.1 as keras,execution=xla",
    ]
    assert "4 known findings" in summary(of)


def test_someones_own_adapter_of_a_framework_does_not_answer_for_it() -> None:
    lines = [verdict("divergent", on=on, diagnosis="eps-ignored", reason="no ε") for on in ("torch", "./mine")]
    own = target("./mine", "My torch") | {"framework": "torch"}
    of = run(lines, targets=[target("torch"), own])
    assert sorted(one.title for one in findings(of)) == ["My torch", "PyTorch"]


def test_a_finding_of_several_versions_names_none_where_all_show_it() -> None:
    names = ["torch,version=2.9.0", "torch,version=2.13.0"]
    lines = [verdict("divergent", on=on, diagnosis="eps-ignored", reason="no ε") for on in names]
    of = run(lines, targets=[target(name, version=name.partition("=")[2]) for name in names])
    assert list(overview(of)["whose"].values()) == ["PyTorch"]


def test_what_nothing_explains_is_told_apart_by_its_reason_or_by_what_was_found() -> None:
    of = [
        verdict("divergent", of="a/1", **UNEXPLAINED, reason="y = x·a + b is NaN"),
        verdict("divergent", of="a/2", **UNEXPLAINED, reason="memory that nobody has written"),
        verdict("divergent", "unexpected", of="a/3", **UNEXPLAINED),
        verdict("divergent", "unexpected", of="a/4", **UNEXPLAINED | {"because": "y[1] is 7 bounds off at [0, 0]"}),
        verdict("divergent", "unexpected", of="a/5", **UNEXPLAINED | {"because": "dx[0] is nan at [0, 0], not 1.5"}),
    ]
    found = [(one.sentence, one.cases) for one in ranked(findings(run(of)))]
    assert found == [
        ("y[…] is … bounds off at […]", 2),
        ("dx[0] is nan at [0, 0], not 1.5", 1),
        ("y = x·a + b is NaN", 1),
        ("memory that nobody has written", 1),
    ]


def test_findings_are_ranked_by_severity_then_by_cases() -> None:
    lines = [
        verdict("divergent", of="a/1", diagnosis="signature-added", because="added: b=2", reason="since 2.9"),
        *(verdict("divergent", of=f"b/{i}", reason="f(x='1') is taken for 1", **ACCEPTED) for i in range(9)),
        verdict("inaccurate", of="a/2", reason="one pass"),
        verdict("divergent", of="a/3", diagnosis="eps-ignored", reason="rare"),
        *(verdict("divergent", of=f"c/{i}", diagnosis="second-mean-detached", reason="common") for i in range(2)),
        verdict("divergent", of="a/4", diagnosis="dtype", reason="it casts"),
        verdict("timeout", of="a/5", error={"type": "Timeout", "message": "60 s"}, because="hangs"),
        verdict("divergent", of="a/6", diagnosis="document-contradicted", reason="the page says 0.5"),
        verdict("conventional", of="a/7", **BIASED),
        verdict("refused", of="a/8", **REFUSED),
        verdict(of="a/9"),
    ]
    of = run(lines)
    assert [one.severity and one.severity.name for one in ranked(findings(of))] == [
        *("crash", "wrong", "wrong", "inaccurate", "form", "lenient", "document", "document")
    ]
    text = Page(html(of)).text
    places = [text.index(word) for word in ("Hangs.", "Common.", "Rare.", "One pass.", "It casts.", "is taken for 1.")]
    assert places == sorted(places)
    assert text.index("Known differences conventions that") > places[-1]
    assert text.index("is taken for 1.") == text.rindex("is taken for 1.")  # not a known difference as well


def test_findings_stand_first_and_the_tenth_is_the_last_before_the_disclosure() -> None:
    lines = [verdict("divergent", of=f"a/{i}", diagnosis="eps-ignored", reason=f"reason {'x' * i}.") for i in range(12)]
    page = Page(html(run(lines)))
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections[0] == "findings"
    rows = [place for place, (_, attributes) in enumerate(page.elements) if attributes.get("class") == "fault"]
    disclosure = next(place for place, (_, each) in enumerate(page.elements) if each.get("id") == "more-findings")
    assert sum(row < disclosure for row in rows) == 10
    assert len(rows) == 12
    assert "2 more findings" in page.text


def test_a_finding_tells_its_largest_error_and_links_to_its_cases_and_the_worst_of_them() -> None:
    tensors = [{"y[0]": tensor(2.5)}, {"y[0]": tensor(42431.0), "dx[0]": tensor(None, problem="is nan at [0], not 1")}]
    lines = [
        verdict("divergent", of=f"a/{i}", diagnosis="eps-ignored", reason="no ε", tensors=each)
        for i, each in enumerate(tensors)
    ]
    of = run(lines)
    (only,) = ranked(findings(of))
    assert only.error == "42,400 bounds, NaN"
    page = Page(html(of))
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a" and "href" in attributes]
    assert "#finding=PyTorch:%20no%20%CE%B5%20%28eps-ignored%2C%20expected%29" in [
        link.replace(",", "%2C") for link in links
    ]
    assert links.index("#case=a/1") < links.index("#topic=a")
    assert unpack(page.data)["proofs"][only.address] == [1, 0]


def test_what_a_diagnosis_leaves_is_told_apart_from_what_was_wrong_before() -> None:
    because = (
        "eps is not added at all: all within 0.14 of the bound (otherwise y[0] is 1.6e+03 bounds off at [1]); so be it"
    )
    line = verdict("divergent", diagnosis="eps-ignored", because=because, tensors={"y[0]": tensor(1603.0)})
    (only,) = details(run([line | {"explained": {"y[0]": 0.1391}}]))
    (told,) = only["verdicts"]
    assert told["because"] == "eps is not added at all; so be it"
    assert told["diagnosed"] == ["0.14", "y[0] is 1.6e+03 bounds off at [1]"]
    assert (told["tensors"][0]["ratio"], told["tensors"][0]["under"]) == (1600, 0.139)
    (without,) = details(run([line]))
    assert "under" not in without["verdicts"][0]["tensors"][0]


# The data for the script.


def unpack(text: str) -> Any:
    """What the report's script does to get at the data."""
    return json.loads(zlib.decompress(base64.b64decode(text)))


def held(of: Run) -> Embedded:
    """What the page holds of a run's cases."""
    return embedded(of, findings(of), {})


def scripts(of: Run) -> dict[tuple[str, str], str]:
    return report_data.scripts(of, findings(of))


def details(of: Run) -> list[Line]:
    """The details of every case."""
    return [case for part in held(of).details for case in unpack(part)]


def test_the_index_tells_what_the_list_shows_and_filters() -> None:
    lines = [verdict("divergent", "unexpected", **UNEXPLAINED), verdict(on="keras")]
    found = unpack(held(run(lines, [pair("torch", "keras", "torch: unexplained")])).index)
    assert found["targets"] == ["torch", "keras"]
    (only,) = found["cases"]
    assert only["why"] == "Momentum is the classic porting mistake."
    assert (only["dtypes"], only["tensors"]) == (["float32"], ["running_var", "y"])
    assert only["differ"] == [{"pair": "torch~keras", "because": "torch: unexplained"}]
    first, second = only["verdicts"]
    assert (first["verdict"], first["unexpected"], first["causes"]) == ("divergent", 1, ["unexplained"])
    assert (second["target"], second["verdict"]) == (1, "conforms")


def test_the_command_for_a_script_is_offered_where_it_writes_one() -> None:
    asked = handmade_runs.case("a/b")
    asked["spec"] |= {"input": {"shape": [2, 3], "constant": 1.0}}
    unsaid = {"type": "NotExpressible", "message": "no such thing"}
    lines = [
        verdict(of="a/b"),
        verdict("refused", of="a/b", on="mindspore", error=unsaid),
        verdict("divergent", of="a/b", on="numpy", **UNEXPLAINED),
    ]
    (only,) = details(run(lines, cases=[asked]))
    assert [one.get("repro", 0) for one in only["verdicts"]] == [1, 0, 0]


def test_the_index_names_the_cases_that_prove_a_row() -> None:
    lines = [verdict(of=f"a/{i}") for i in range(3)]
    found = unpack(embedded(run(lines), [], {"a rule": ["a/2", "a/0"]}).index)
    assert found["proofs"] == {"a rule": [2, 0]}


def test_the_details_tell_every_verdict_and_tensor() -> None:
    tried = [{"name": "eps-ignored", "off": 12.3456}]
    lines = [verdict("divergent", "unexpected", tried=tried, **UNEXPLAINED), verdict(on="keras")]
    (only,) = details(run(lines, [pair("torch", "keras", "torch: unexplained")]))
    assert only["spec"] == "layer: {momentum: 0.1}\nsteps: [{mode: train}]"
    first, _ = only["verdicts"]
    assert first["tried"] == [["eps-ignored", 12.3]]
    (found,) = first["tensors"]
    assert found == {"name": "y[0]", "ratio": 53, "abs": 2.3e-7, "ulp": 3, "at": [2, 1]}
    assert only["pairs"][0]["pair"] == [0, 1]


def test_an_exact_tensor_says_so_and_a_problem_is_told() -> None:
    tensors = {"beta[0]": tensor(0.0), "y[0]": tensor(None, problem="is missing")}
    (only,) = details(run([verdict(tensors=tensors)]))
    exact, missing = only["verdicts"][0]["tensors"]
    assert exact["exact"]
    assert "ratio" not in missing
    assert missing["problem"] == "is missing"


def test_what_was_gathered_of_a_tensor_reaches_the_page() -> None:
    gathered = {"shape": [2, 3], "worst": [1.0, 1.5, 0.01], "strip": "ABg", "ulps": [0, 3], "running": [[1.0], [1.5]]}
    (only,) = details(run([verdict(tensors={"y[0]": tensor(53.0, **gathered)})]))
    (found,) = only["verdicts"][0]["tensors"]
    assert {name: found[name] for name in gathered} == gathered


def test_scripts_are_written_for_what_people_ask_about_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_data, "of_stored", lambda case, line, on: f"{case['case']} {on['name']}")
    biased = [
        verdict("conventional", of=f"a/biased-{i}", on="keras", **BIASED, tensors={"y[0]": tensor(i)}) for i in range(9)
    ]
    wrong = [verdict("divergent", status, of=f"a/{status}", **UNEXPLAINED) for status in ("expected", "unexpected")]
    lines = [verdict(of="a/right"), *biased, *wrong]
    assert list(scripts(run(lines)).values()) == [
        "a/unexpected torch",
        "a/expected torch",
        "a/biased-8 keras",
    ]
    monkeypatch.setattr(report_data, "SCRIPTS", 1)
    assert list(scripts(run(lines)).values()) == ["a/unexpected torch"]


def test_steps_that_ask_the_same_are_one_row() -> None:
    spec = {
        "layer": {"momentum": 0.5},
        "input": {"shape": [2, 3], "constant": 1.0, "dtype": "float16"},
        "gradient": {},
        "steps": [{"mode": "train"}, {"mode": "train"}, {"mode": "eval", "frozen": True}],
    }
    assert steps(spec) == [
        ["0 to 1", "train", "shape: [2, 3], constant: 1.0", "float16", "standard normal", ""],
        ["2", "eval", "shape: [2, 3], constant: 1.0", "float16", "standard normal", "frozen"],
    ]


def test_parameters_are_told_as_each_kind_of_case_gives_them() -> None:
    assert parameters({"layer": {"momentum": 0.5}})[:2] == [["eps", "1e-05"], ["momentum", "0.5"]]
    native = {"torch": {"num_features": 3, "momentum": None}, "keras": {}}
    assert parameters({"native": native}) == [["torch", "num_features=3, momentum=None"], ["keras", ""]]
    assert parameters({"signature": {"torch": {"x": None, "eps": "1e-05"}}}) == [["torch", "x, eps=1e-05"]]


def test_a_page_lists_a_part_of_a_long_run_the_unexpected_first_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_data, "CASES", 3)
    lines = [
        *(verdict(of=f"a/right-{i}") for i in range(3)),
        *(verdict("conventional", of=f"a/biased-{i}", **BIASED) for i in range(2)),
        verdict("divergent", "unexpected", of="a/wrong", **UNEXPLAINED),
    ]
    of = run(lines)
    index = unpack(embedded(of, findings(of), {"a rule": ["a/right-0", "a/biased-1"]}).index)
    assert [case["id"] for case in index["cases"]] == ["a/biased-0", "a/biased-1", "a/wrong"]
    assert index["proofs"] == {"a rule": [1]}
    assert "This page lists 3 of 6 cases" in Page(html(of)).text
    assert "This page lists" not in Page(html(run(lines[:3]))).text


def test_a_case_has_the_dtypes_of_its_inputs_and_its_layer() -> None:
    own = {"mode": "eval", "input": {"shape": [1, 1], "dtype": "bfloat16"}}
    spec = {"layer": {"dtype": "float64"}, "input": {"shape": [2, 3]}, "steps": [{"mode": "train"}, own]}
    assert dtypes(spec) == ["bfloat16", "float32", "float64"]
    assert dtypes({"signature": {"torch": {}}}) == []


def test_a_run_of_the_size_of_the_corpus_stays_within_five_megabytes() -> None:
    assert len(html(large(1500, ["torch", "mindspore", "keras"]))) < 5_000_000


# Nothing from outside acts.


def test_hostile_texts_are_text_in_html() -> None:
    text = html(hostile())
    page = Page(text)
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert [one.get("id") or one.get("class") for one in scripts] == ["data", "details", None, None, None]
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert '</script><img src=x onerror="alert(1)">' in page.text
    assert not set("\x1b\x07\u202e") & set(text)


def test_hostile_texts_do_not_end_the_data() -> None:
    page = Page(html(hostile()))
    assert re.fullmatch("[A-Za-z0-9+/=]+", page.data)
    (only,) = unpack(page.data)["cases"]
    assert only["id"] == f"topic/{clean(HOSTILE)}"


def test_hostile_texts_are_text_in_markdown() -> None:
    text = summary(hostile())
    assert not set("\x1b\x07\u202e") & set(text)
    kinds, written = parsed(text)
    assert kinds <= {"text", "code_inline", "softbreak", "strong_open", "strong_close", "link_open", "link_close"}
    assert set(re.findall(r"\]\(([^)#]*)", text)) == {"report.html"}
    assert '<img src=x onerror="alert(1)">' in written
    assert "@team" not in written  # outside of code, which mentions nobody
    assert text.count("#### ") == 1
    rows = [re.sub(r"\\\|", "", line) for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}


def parsed(text: str) -> tuple[set[str], str]:
    """The kinds of inline elements that CommonMark sees in a text, and the text outside of code."""
    markdown_it = pytest.importorskip("markdown_it")
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text)
    assert not [token for token in tokens if token.type == "html_block"]
    inline = [child for token in tokens for child in token.children or ()]
    return {child.type for child in inline}, "\n".join(child.content for child in inline if child.type == "text")


def test_the_document_refers_to_nothing_outside_itself() -> None:
    text = html(large(3, ["torch", "keras"]))
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            assert attributes.get(name, "#").startswith("#") or attributes[name] == "data:,", (tag, attributes)
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttpRequest|import\(", text)
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")


# The summary.


def test_the_summary_is_worst_first() -> None:
    lines = [
        verdict("inaccurate", "unexpected", of="a/1"),
        verdict("divergent", "unexpected", of="a/2", **UNEXPLAINED),
        verdict("conventional", of="a/3", **BIASED),
    ]
    text = summary(run(lines))
    assert (
        text.index("2 verdicts are unexpected")
        < text.index("**divergent**")
        < text.index("**inaccurate**")
        < text.index("1 known difference")
    )
    assert "| `torch` | 1 | 1 | 1 | **2** |" in text


def test_the_summary_keeps_its_size_whatever_happens() -> None:
    lines = [
        verdict(
            "refused",
            "unexpected",
            of=f"a/{'x' * 300}{i}",
            error={"type": f"E{chr(65 + i % 26)}{i}", "message": "m" * 900},
        )
        for i in range(300)
    ]
    text = summary(run(lines))
    assert len(text) <= SUMMARY_LIMIT
    assert "more causes; report.html and junit.xml have them all" in text


def test_the_summary_of_a_clean_run_is_short() -> None:
    text = summary(run([verdict(), verdict("conventional", of="a/3", **BIASED)]))
    assert "All is as expected" in text
    assert "`torch`, 1 case: running\\_var is stored biased" in text
    assert len(text.splitlines()) < 14


def test_the_reports_are_written_beside_the_run(tmp_path: Path) -> None:
    write_reports(run([verdict()]), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["junit.xml", "report.html", "summary.md"]


# Colours.


def colours(scheme: int) -> dict[str, tuple[float, ...]]:
    """The colours that the style names in its first :root block, which is light, or its second."""
    style = (data.folder("reports") / "style.css").read_text(encoding="utf-8")
    block = style.split(":root {")[1 + scheme].split("}")[0]
    found = re.findall(r"--([a-z0-9]+): #([0-9a-f]{6});", block)
    return {name: tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, code in found}


def luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The contrast ratio of WCAG 2."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_word_has_the_contrast_of_wcag_aa(scheme: int) -> None:
    found = colours(scheme)
    for name in (*VERDICTS, "ink", "muted", "link", "over"):
        assert contrast(found[name], found["paper"]) >= 4.5, name
        assert contrast(found[name], found["tint"]) >= 4.5, name
    for name in VERDICTS:
        for tint in VERDICTS:
            mixed = tuple(0.15 * c + 0.85 * p for c, p in zip(found[tint], found["paper"], strict=True))
            assert contrast(found[name], mixed) >= 4.5, (name, tint)
