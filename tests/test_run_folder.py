"""Behaviour of `conformance.run_folder`: a run comes back as it was written, and every damage has its name."""

from __future__ import annotations

import gc
import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_run import problem, write

from conformance.damage import (
    DamagedArrays,
    Garbled,
    Incomplete,
    Miscounted,
    MissingFile,
    NotARun,
    RunDamage,
    Truncated,
    UnknownFormat,
)
from conformance.record import FILES
from conformance.report import write_reports
from conformance.run_folder import Run, read


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path / "run")


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run = read(write(tmp_path / "run", problem("tiny/a"), problem("tiny/b")))
    assert list(run.cases) == ["tiny/a", "tiny/b"]
    assert [(line["case"], line["target"], line["verdict"]) for line in run.verdicts] == [
        (case, target, verdict)
        for case in ("tiny/a", "tiny/b")
        for target, verdict in (("numpy", "conforms"), ("numpy,threads=2", "crashed"))
    ]
    assert [(line["case"], line["pair"]) for line in run.pairs] == [
        ("tiny/a", ["numpy", "numpy,threads=2"]),
        ("tiny/b", ["numpy", "numpy,threads=2"]),
    ]
    assert [target["name"] for target in run.targets] == ["numpy", "numpy,threads=2"]
    assert [line["case"] for line in run.unexpected] == ["tiny/a", "tiny/b"]
    assert run.footer["verdicts"] == 4


def test_characters_that_end_lines_elsewhere_end_none_here(run: Path) -> None:
    assert read(run).verdicts[1]["error"]["message"].endswith("é\u2028\x85")


def test_lines_come_in_the_order_of_the_cases_however_they_stand(tmp_path: Path) -> None:
    run = write(tmp_path / "two", problem("tiny/a"), problem("tiny/b"))
    *lines, footer = (run / "results.jsonl").read_bytes().rstrip(b"\n").split(b"\n")
    (run / "results.jsonl").write_bytes(b"\n".join([*reversed(lines), footer, b""]))
    assert [(name, len(verdicts), len(pairs)) for name, verdicts, pairs in read(run).each()] == [
        ("tiny/a", 2, 1),
        ("tiny/b", 2, 1),
    ]


def test_a_line_says_all_that_is_stored_of_it(run: Path) -> None:
    stored = [json.loads(line) for line in (run / "results.jsonl").read_text(encoding="utf-8").split("\n")[:-2]]
    found = read(run)
    assert [dict(line) for line in (*found.verdicts, *found.pairs)] == stored
    assert found.cases["tiny/case[eps=1]"] == json.loads((run / "cases.jsonl").read_bytes())


def test_a_run_that_is_moved_or_deleted_while_it_is_read_stays_what_it_was(run: Path) -> None:
    stored = read(run)
    shutil.rmtree(run.rename(run.with_name("elsewhere")))
    assert stored.verdicts[0]["tensors"]["y[0]"]["ratio"] == 0.25
    assert stored.cases["tiny/case[eps=1]"]["file"] == "tiny.yaml"


def test_a_file_that_changes_while_it_is_read_is_garbled(run: Path) -> None:
    stored = read(run)
    (run / "results.jsonl").write_bytes(b"{" * 10)
    with pytest.raises(Garbled, match=r"results\.jsonl has changed since it was read"):
        stored.verdicts[0]["tensors"]


def test_a_long_run_takes_little_memory(tmp_path: Path) -> None:
    run = write(tmp_path / "run", *(problem(f"tiny/case[number={number}]") for number in range(500)))
    tracemalloc.start()
    try:
        stored = read(run)
        assert len(stored.verdicts) == 1000
        assert tracemalloc.get_traced_memory()[0] < 500 * 1000
    finally:
        tracemalloc.stop()


# Damage


def edited(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """A file with its text changed."""

    def edit(run: Path) -> None:
        text = (run / name).read_text(encoding="utf-8")
        assert change(text) != text
        (run / name).write_text(change(text), encoding="utf-8", newline="\n")

    return edit


def said(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """run.json with something else in it."""

    def edit(text: str) -> str:
        info = json.loads(text)
        change(info)
        return json.dumps(info)

    return edited("run.json", edit)


def removed(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def binary(run: Path) -> None:
    (run / "results.jsonl").write_bytes(b"\xff\xfe\x00\n")


def without_line(number: int) -> Callable[[str], str]:
    def cut(text: str) -> str:
        lines = text.split("\n")
        return "\n".join(lines[:number] + lines[number + 1 :])

    return cut


DAMAGES: list[tuple[str, type[RunDamage], Callable[[Path], None], str]] = [
    ("run.json is not there", NotARun, removed("run.json"), "is no run folder: it has no run.json"),
    ("a newer format", UnknownFormat, said(lambda info: info.update(format=2)), "has format 2; this suite reads 1"),
    ("no format", UnknownFormat, said(lambda info: info.pop("format")), "has format None"),
    ("results are gone", MissingFile, removed("results.jsonl"), "lacks results.jsonl"),
    ("cases are gone", MissingFile, removed("cases.jsonl"), "lacks cases.jsonl"),
    ("arrays are gone", MissingFile, removed("arrays.safetensors"), "lacks arrays.safetensors"),
    ("no targets", Garbled, said(lambda info: info.pop("targets")), "run.json:1: targets: Field required"),
    ("a target without facts", Garbled, said(lambda info: info["targets"][0].pop("facts")), "targets.0.facts"),
    ("run.json is a list", Garbled, edited("run.json", lambda text: f"[{text}]"), "a JSON object was expected"),
    ("no JSON", Garbled, edited("results.jsonl", lambda text: text.replace('"case"', "case", 1)), "results.jsonl:1: "),
    ("no object", Garbled, edited("results.jsonl", lambda text: "3\n" + text), "a JSON object was expected"),
    ("an empty line", Garbled, edited("results.jsonl", lambda text: "\n" + text), "results.jsonl:1: "),
    ("a line of another kind", Garbled, edited("results.jsonl", lambda text: "{}\n" + text), "Field required"),
    ("another verdict", Garbled, edited("results.jsonl", lambda t: t.replace('"crashed"', '"fine"')), ":2: verdict: "),
    ("another status", Garbled, edited("results.jsonl", lambda t: t.replace('"expected",', '"x",', 1)), ":1: status: "),
    (
        "a pair of one",
        Garbled,
        edited("results.jsonl", lambda t: t.replace('["numpy",', "[")),
        "results.jsonl:3: pair",
    ),
    (
        "text for a number",
        Garbled,
        edited("results.jsonl", lambda t: t.replace("0.25", '"0.25"')),
        "tensors.y[0].ratio",
    ),
    (
        "a case of no name",
        Garbled,
        edited("cases.jsonl", lambda t: t.replace('"case"', '"name"', 1)),
        "cases.jsonl:1: ",
    ),
    ("a list for a case", Garbled, edited("cases.jsonl", lambda t: re.sub(r'"tiny/[^"]*"', "[]", t, count=1)), ":1: "),
    ("a strange target", Garbled, edited("results.jsonl", lambda t: t.replace('"numpy"', '"x"', 1)), "no target x"),
    ("a strange case", Garbled, edited("results.jsonl", lambda t: t.replace("tiny/", "x/", 1)), "no case x/case"),
    ("very deep", Garbled, edited("results.jsonl", lambda t: '{"a":' + "[" * 100_000 + "\n" + t), "results.jsonl:1: "),
    ("no UTF-8", Garbled, binary, "results.jsonl:1 is no UTF-8"),
    ("no footer", Truncated, edited("results.jsonl", without_line(3)), "has no footer"),
    ("nothing", Truncated, edited("results.jsonl", lambda text: ""), "has no footer"),
    ("an end in a line", Truncated, edited("results.jsonl", lambda t: t[:-20]), "ends in the middle of line 4"),
    ("cut cases", Truncated, edited("cases.jsonl", lambda t: t[:-1]), "cases.jsonl ends in the middle of line 1"),
    ("a lost verdict", Miscounted, edited("results.jsonl", without_line(0)), "holds 0 conforms, its footer counts 1"),
    ("a lost pair", Miscounted, edited("results.jsonl", without_line(2)), "holds 0 differ, its footer counts 1"),
    ("a lost case", Garbled, edited("cases.jsonl", without_line(0)), "no case tiny/case[eps=1]"),
    ("a case twice", Miscounted, edited("cases.jsonl", lambda t: t * 2), "holds 2 cases, its footer counts 1"),
    ("two runs in one", Garbled, edited("results.jsonl", lambda t: t * 2), "results.jsonl:4: "),
    (
        "a better verdict",
        Miscounted,
        edited("results.jsonl", lambda t: t.replace('"verdict":"crashed"', '"verdict":"conforms"')),
        "holds 2 conforms, its footer counts 1",
    ),
    (
        "a better status",
        Miscounted,
        edited("results.jsonl", lambda t: t.replace('"unexpected","exp', '"expected","exp')),
        "holds 0 unexpected, its footer counts 1",
    ),
    ("no JSON's number", Garbled, edited("results.jsonl", lambda t: t.replace("0.25", "NaN")), "NaN is no JSON"),
    ("a number beyond 64 bits", Garbled, edited("results.jsonl", lambda t: t.replace("0.25", "1e999")), "1e999 is too"),
    (
        "a number of many digits",
        Garbled,
        edited("results.jsonl", lambda t: t.replace("0.25", "9" * 10**5)),
        ":1: Exceeds the limit",
    ),
    ("a deep list", Garbled, edited("results.jsonl", lambda t: "[" * 10**6 + "\n" + t), ":1: maximum recursion depth"),
    ("a verdict twice", Garbled, edited("results.jsonl", lambda t: t.split("\n")[0] + "\n" + t), "is judged twice"),
    (
        "a reason that is no text",
        Garbled,
        edited("cases.jsonl", lambda t: t.replace('"Numbers that JSON lacks."', "3")),
        "why",
    ),
    ("a format that is true", UnknownFormat, said(lambda info: info.update(format=True)), "has format True"),
    (
        "accepted conventions that are a list",
        Garbled,
        edited("results.jsonl", lambda t: t.replace('"accepted":{}', '"accepted":[]', 1)),
        "results.jsonl:1: accepted: ",
    ),
    (
        "a hypothesis of no name",
        Garbled,
        edited("results.jsonl", lambda t: t.replace('"tried":[]', '"tried":[{"off":1.0}]', 1)),
        "results.jsonl:1: tried.0.name: ",
    ),
    (
        "a death without a word",
        Garbled,
        edited("results.jsonl", lambda t: re.sub(r'"error":{[^}]*}', '"error":null', t)),
        "results.jsonl:2: error: none, though it is crashed",
    ),
    (
        "worst numbers that are two",
        Garbled,
        edited("results.jsonl", lambda t: t.replace('"ratio":0.25', '"worst":[1.0, 2.0], "ratio":0.25')),
        "results.jsonl:1: tensors.y[0].worst: ",
    ),
    (
        "a verdict on what did not run",
        Garbled,
        edited("results.jsonl", lambda t: t.replace('"target":"numpy"', '"target":"numpy,threads=3"', 1)),
        "results.jsonl:1: this run has no target numpy,threads=3 that ran",
    ),
    (
        "steps that are a number",
        Garbled,
        edited("cases.jsonl", lambda t: t.replace('"gradient":{}', '"steps":3', 1)),
        "cases.jsonl:1: spec.steps: ",
    ),
    (
        "what nobody asks for, 300 levels deep",
        Garbled,
        edited("cases.jsonl", lambda t: t.replace('"gradient":{}', f'"x":{"[" * 300}{"]" * 300}', 1)),
        "cases.jsonl:1: spec.x",
    ),
    (
        "an interrupted run",
        Incomplete,
        edited("results.jsonl", lambda t: t.replace("true", "false")),
        "after 2 verdicts",
    ),
]


@pytest.mark.parametrize(
    ("kind", "damage", "words"), [row[1:] for row in DAMAGES], ids=[row[0].replace(" ", "-") for row in DAMAGES]
)
def test_every_damage_has_its_name(
    kind: type[RunDamage], damage: Callable[[Path], None], words: str, run: Path
) -> None:
    damage(run)
    gc.collect()  # finalizers of what is collected as deep as a deep list reaches fail, and pytest takes that for ours
    with pytest.raises(RunDamage) as caught:
        read(run)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert re.search(r"\((copy|name|read|run it) .*\)$", str(caught.value)), "it says what to do next"


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_what_is_no_folder_is_no_run(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotARun):
        read(tmp_path / path)


def test_a_folder_in_place_of_a_file_is_a_missing_file(run: Path) -> None:
    (run / "cases.jsonl").unlink()
    (run / "cases.jsonl").mkdir()
    with pytest.raises(MissingFile):
        read(run)


@pytest.mark.parametrize("name", ["cases.jsonl", "results.jsonl"])
def test_a_file_cut_anywhere_is_truncated(name: str, run: Path) -> None:
    whole = (run / name).read_bytes()
    for end in range(len(whole)):
        (run / name).write_bytes(whole[:end])
        with pytest.raises(Truncated if end or name == "results.jsonl" else Garbled):
            read(run)


def test_run_json_cut_anywhere_is_garbled(run: Path) -> None:
    whole = (run / "run.json").read_bytes()
    for end in range(len(whole) - 2):  # the last two are } and a newline
        (run / "run.json").write_bytes(whole[:end])
        with pytest.raises(Garbled):
            read(run)


@pytest.mark.parametrize("name", ["run.json", "cases.jsonl", "results.jsonl"])
def test_a_byte_changed_anywhere_is_a_run_or_a_damage(name: str, run: Path) -> None:
    whole = (run / name).read_bytes()
    for at in range(len(whole)):
        byte = b'\x00"9\n\xff}'[at % 6]
        (run / name).write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        try:
            assert isinstance(read(run), Run)
        except RunDamage as damage:
            assert str(run) in str(damage)  # noqa: PT017 - either is right


def test_arrays_cut_anywhere_are_damaged(run: Path) -> None:
    whole = (run / "arrays.safetensors").read_bytes()
    for end in range(len(whole)):
        (run / "arrays.safetensors").write_bytes(whole[:end])
        with pytest.raises(DamagedArrays):
            read(run).array("tiny/case[eps=1]", "numpy", "y[0]")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "BOOL", "U8"])
def test_arrays_of_a_dtype_that_no_run_keeps_are_damaged(dtype: str, run: Path) -> None:
    file = run / "arrays.safetensors"
    header = json.dumps({"tiny/case[eps=1]::numpy::y[0]": {"dtype": dtype, "shape": [3], "data_offsets": [0, 3]}})
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\x3c" * 3)
    with pytest.raises(DamagedArrays, match=rf"holds tiny/case\[eps=1\]::numpy::y\[0\] as {dtype}"):
        read(run).array("tiny/case[eps=1]", "numpy", "y[0]")


def test_arrays_that_vanish_are_damaged(run: Path) -> None:
    stored = read(run)
    shutil.rmtree(run)
    with pytest.raises(DamagedArrays):
        stored.array("tiny/case[eps=1]", "numpy", "y[0]")


# Hostility


def test_a_message_about_a_folder_from_elsewhere_acts_on_no_terminal(run: Path) -> None:
    edited("results.jsonl", lambda text: text.replace("tiny/case", "\\u001b[31mtiny\\u202e\\ud800", 1))(run)
    with pytest.raises(Garbled) as caught:
        read(run)
    assert str(caught.value).isprintable()
    assert "this run has no case tiny\\u202e\\ud800[eps=1]" in str(caught.value)


def test_a_line_without_an_end_is_not_read_into_memory(run: Path) -> None:
    with (run / "results.jsonl").open("ab") as file:
        file.truncate(2 * 10**9)  # a hole in the file, which takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(Garbled, match="longer than 16,000,000 bytes"):
            read(run)
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()


_VALUES = [
    "null",
    "-1",
    "0.5",
    "1e308",
    "1e999",
    "NaN",
    "true",
    "[]",
    "{}",
    '"x"',
    '"\\ud800"',
    "9" * 30,
    "9" * 9999,
    "[" * 99999,
]


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_in_a_run_it_is_read_and_reported_or_the_damage_named(
    run: Path, data: st.DataObject
) -> None:
    """Values replaced, lines swapped and cut, bytes put in."""
    before = {name: (run / name).read_bytes() for name in FILES}
    name = data.draw(st.sampled_from(FILES))
    text = before[name]
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.sampled_from(["value", "lines", "bytes", "cut"])):
            case "value":
                found = list(re.finditer(rb'-?[0-9][0-9.e-]*|"[^"]*"|null|true', text))
                if found:
                    at = data.draw(st.sampled_from(found))
                    text = text[: at.start()] + data.draw(st.sampled_from(_VALUES)).encode() + text[at.end() :]
            case "lines":
                text = b"\n".join(data.draw(st.permutations(text.split(b"\n"))))
            case "bytes":
                at_byte = data.draw(st.integers(0, len(text)))
                text = (
                    text[:at_byte] + data.draw(st.binary(max_size=8)) + text[at_byte + data.draw(st.integers(0, 8)) :]
                )
            case "cut":
                text = text[: data.draw(st.integers(0, len(text)))]
    try:
        (run / name).write_bytes(text)
        stored = read(run)
        for case in stored.cases:
            for tensor in ("y[0]", "dx[0]", "running_var[0]", "gamma[0]"):
                stored.array(case, "numpy", tensor)
        write_reports(stored, run)
    except RunDamage as damage:
        assert str(damage).isprintable()  # noqa: PT017 - either is right
    finally:
        for name, whole in before.items():
            (run / name).write_bytes(whole)
