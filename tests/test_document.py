"""Behaviour of `conformance.document`: what a YAML document may be, what its scalars mean, and where errors point."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import document
from conformance.document import DocumentError, Fault, Mark, core, parse, plain


def read(text: str) -> Any:
    return plain(parse(text.encode()))


def faults(data: str | bytes) -> list[Fault]:
    with pytest.raises(DocumentError) as caught:
        parse(data if isinstance(data, bytes) else data.encode())
    return list(caught.value.faults)


def fault(data: str | bytes) -> Fault:
    (only,) = faults(data)
    return only


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        (".5", 0.5),
        ("3.", 3.0),
        ("-0.0", -0.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("+3", 3),
        ("~", None),
        ("", None),
        ("NULL", None),
        ("True", True),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    assert core(text) == value
    assert type(core(text)) is type(value)


def test_not_a_number_is_a_float() -> None:
    assert math.isnan(read("a: .nan")["a"])


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "1_000", "1:30", "2024-01-01", "nan", "1e", "0b1", "=", "NaN"]
)
def test_what_only_yaml_1_1_gave_a_meaning_is_text(text: str) -> None:
    assert read(f"a: {text}") == {"a": text}


def test_quoted_scalars_are_text() -> None:
    assert read("""{a: "1", b: 'true', c: "", d: !!str 2, e: ! 3}""") == {
        "a": "1",
        "b": "true",
        "c": "",
        "d": "2",
        "e": "3",
    }


def test_core_tags_are_obeyed() -> None:
    assert read("{a: !!float 3, b: !!int 4, c: !!null ~, d: !!map {}, e: !!seq [], f: !!bool true}") == {
        "a": 3.0,
        "b": 4,
        "c": None,
        "d": {},
        "e": [],
        "f": True,
    }


def test_every_key_and_value_knows_its_place() -> None:
    entries = parse(b"one: 1\ntwo:\n  - x\n  - {three: 3}\n").entries
    assert (entries["one"].key, entries["one"].node.mark) == (Mark(1, 1), Mark(1, 6))
    items = entries["two"].node.value
    assert isinstance(items, tuple)
    assert [item.mark for item in items] == [Mark(3, 5), Mark(4, 5)]
    assert items[1].entries["three"].node.mark == Mark(4, 13)


def test_a_block_is_looked_for_at_its_key_and_a_scalar_at_itself() -> None:
    entries = parse(b"a:\n  b: 1\nc: {d: 1}\ne:\n  text\n").entries
    assert [entries[key].mark for key in "ace"] == [Mark(1, 1), Mark(3, 4), Mark(5, 3)]


def test_aliases_share_a_value_and_its_place() -> None:
    root = parse(b"a: &x [1, 2]\nb: *x\n")
    assert plain(root) == {"a": [1, 2], "b": [1, 2]}
    assert root.entries["b"].node is root.entries["a"].node


def test_an_empty_document_is_null() -> None:
    assert read("") is None
    assert read("# nothing\n") is None


def test_a_byte_order_mark_of_utf_8_is_skipped_and_moves_no_column() -> None:
    root = parse(b"\xef\xbb\xbfa: 1")
    assert root.entries["a"].key == Mark(1, 1)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: [1, 2\nb: 3", 2, 2, "not valid YAML: expected ',' or ']'"),
        ("a: 1\n  b: 2", 2, 4, "not valid YAML: mapping values are not allowed here"),
        ("a: 'open", 1, 9, "not valid YAML: found unexpected end of stream"),
        ("a: *x", 1, 4, "alias *x names no anchor above it"),
        ("a: &x [*x]", 1, 8, "alias *x lies inside what it names"),
        ("a: 1\nb: 2\na: 3", 3, 1, "key a is given twice"),
        ("a: 1\n2: x", 2, 1, "a key must be text, and 2 is not"),
        ("true: x", 1, 1, "a key must be text, and true is not"),
        ("[a]: x", 1, 1, "a key must be text"),
        ("a: {<<: {b: 1}}", 1, 5, "merge keys (<<) are not supported"),
        ("a: !!python/object/apply:os.system [ls]", 1, 4, "the tag !!python/object/apply:os.system is not supported"),
        ("a: !custom 3", 1, 4, "the tag !custom is not supported"),
        ("a: !!map [1]", 1, 4, "the tag !!map is not supported"),
        ("a: !!int x", 1, 4, "x is no int"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document begins here"),
        ("%YAML 1.1\n---\na: yes", 2, 1, "the file asks for YAML 1.1"),
        ("a: 1\nb: 1e999", 2, 4, "1e999 overflows a 64-bit float"),
        ("a: 1e-999", 1, 4, "1e-999 underflows a 64-bit float"),
        ("a: 18446744073709551616", 1, 4, "18446744073709551616 does not fit in 64 bits"),
        (f"a: {'1' * 10**5}", 1, 4, "a number of 100,000 characters is too long"),
        ('a: "\\U99999999"', 1, 1, "not valid YAML from here on"),
        ('a: 1\nb: "\\U99999999"', 2, 1, "not valid YAML from here on"),
        ('a: "\\e[31m"', 1, 4, "text holds the character U+001B"),
        ('a: "\\ud800"', 1, 4, "text holds the character U+D800"),
        ("a: 1\nb: \0", 2, 4, "the character U+0000 is not allowed"),
    ],
)
def test_a_fault_names_its_place(text: str, line: int, column: int, message: str) -> None:
    found = fault(text)
    assert found.message.startswith(message)
    assert found.mark == Mark(line, column)


@pytest.mark.parametrize("data", [b"a: 1\nb: \xe9", "a: 1".encode("utf-16"), b"\xff\xfe"])
def test_bytes_that_are_no_utf_8_are_refused(data: bytes) -> None:
    assert fault(data).message == "the file is not UTF-8 text"


def test_the_place_of_a_byte_that_is_no_utf_8_is_named() -> None:
    assert fault("é: 1\nüb: ".encode() + b"\xe9").mark == Mark(2, 5)


def test_faults_that_leave_the_rest_readable_are_all_reported() -> None:
    assert [found.mark.line for found in faults("a: !x 1\na: 2\n3: 4\nb: 1e999\n")] == [1, 2, 3, 4]


def test_a_fault_of_a_key_is_reported_once() -> None:
    assert len(faults('"\\e": 1')) == 1


def _laughs(levels: int) -> str:
    lines = [f"a0: &a0 [{', '.join('x' * 10)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param("#" * 10**7, "over the limit of 1,000,000 bytes", id="long"),
        pytest.param(_laughs(30), "aliases expand to more than 200,000 values", id="laughs"),
        pytest.param("[" * 10**6, "nested more than 50 levels deep", id="brackets"),
        pytest.param("- " * 10**5, "nested more than 50 levels deep", id="dashes"),
        pytest.param("{a: " * 10**5, "nested more than 50 levels deep", id="braces"),
        pytest.param(
            "a0: &a0 []\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 99)),
            "nests more than 50 levels",
            id="chain",
        ),
        pytest.param("[" + "1," * 400_000 + "]", "the file holds more than 20,000 values", id="many"),
    ],
)
def test_hostile_documents_are_refused_at_once(data: str, message: str) -> None:
    started = time.perf_counter()
    assert message in fault(data).message
    assert time.perf_counter() - started < 60  # a guard against what would never end, not a measurement


def test_limits_admit_what_lies_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain(parse(b"[" * 50 + b"]" * 50))
    assert fault("[" * 51 + "]" * 51)
    monkeypatch.setattr(document, "MAX_NODES", 3)
    assert read("[1, 2]") == [1, 2]
    assert fault("[1, 2, 3]")


def test_size_and_depth_count_what_aliases_stand_for() -> None:
    root = parse(b"a: &x [1, [2]]\nb: [*x, *x]\n")
    assert root.extent == (1 + 4 + 1 + 4 + 4, 4)


def faults_of(data: bytes) -> tuple[Fault, ...]:
    """The faults of a document, none where it is good; anything else that is raised fails the test."""
    try:
        parse(data)
    except DocumentError as error:
        return error.faults or pytest.fail("an error without a fault")
    return ()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


@settings(max_examples=200, deadline=None, database=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(_utf8))
def test_any_bytes_are_a_document_or_faults_with_places(data: bytes) -> None:
    assert all(found.mark.line > 0 and found.mark.column > 0 for found in faults_of(data))


@settings(max_examples=400, deadline=None, database=None)
@given(st.text("ab01:-?*&!|>'\"[]{},#%@`\\\n\t <~.eéU\x85\u2028", max_size=60).map(_utf8))
def test_any_punctuation_is_a_document_or_faults(data: bytes) -> None:
    assert all(found.message for found in faults_of(data))


def shown(node: document.Node) -> Any:
    """A tree with every place in it."""
    value: Any = node.value
    if isinstance(value, dict):
        value = {key: (entry.key, shown(entry.node)) for key, entry in value.items()}
    elif isinstance(value, tuple):
        value = [shown(item) for item in value]
    return node.mark, repr(value)


def outcome(data: bytes) -> Any:
    try:
        return shown(parse(data))
    except DocumentError as error:
        return error.faults


_PIECES = ["a: ", "b", "- ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", ", ", "'", '"', "#", " #", "? ", ": ", "&x "]
_PIECES += ["*x", "|", "|-\n", ">\n", "1e-5", "~", " ", "é", "!!int ", "%", "\t", "c:", "x y", "why: >-\n    text"]


@pytest.mark.skipif(not document._LIBYAML, reason="ruamel.yaml.clib is not installed")
@settings(max_examples=500, deadline=None, database=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=16).map("".join) | st.text("ab1:-?*&|>'\"[]{},#@ \n.~", max_size=30))
def test_what_is_installed_changes_neither_a_document_nor_its_faults(text: str) -> None:
    fast = outcome(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "_LIBYAML", False)
        assert outcome(text.encode()) == fast


@pytest.mark.skipif(not document._LIBYAML, reason="ruamel.yaml.clib is not installed")
def test_the_corpus_is_the_same_by_either_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [file.read_bytes() for file in sorted((ROOT / "cases").rglob("*.yaml"))]
    fast = [outcome(data) for data in files]
    monkeypatch.setattr(document, "_LIBYAML", False)
    assert [outcome(data) for data in files] == fast


def test_what_is_left_out_is_looked_for_where_it_is_missed() -> None:
    root = parse(b"a:   # nothing\n\n\nb: [x, ]\nc:\n")
    assert (root.entries["a"].mark, root.entries["c"].mark) == (Mark(1, 1), Mark(5, 1))
