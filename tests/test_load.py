"""Behaviour of `conformance.load`: which files are read, what they may say, and how they are told they are wrong."""

from __future__ import annotations

import json
import math
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance import data
from conformance import load as loading
from conformance.case import Case
from conformance.case_errors import CaseError, CaseErrors
from conformance.document import parse, plain
from conformance.load import load, load_file
from conformance.locate import corpus_root, find, is_case_file
from conformance.schema import schema
from conformance.spec import CaseSpec

HEAD = "conformance: 1\nabout: x\n"
GOOD = "{why: x, layer: {}, input: {shape: [4, 3], normal: {}}}"
FRAMEWORKS = frozenset({"torch", "keras", "mindspore"})

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file below a folder `cases`, so that ids begin with its name."""

    def write(text: str | bytes, name: str = "cases/f.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def errors(*paths: Path) -> list[CaseError]:
    with pytest.raises(CaseErrors) as caught:
        load(paths, FRAMEWORKS)
    return list(caught.value.errors)


def told(*paths: Path) -> list[str]:
    """Errors as a person reads them, without the folder."""
    return [
        re.sub(r"^.*/", "", str(error).partition(": ")[0]) + ": " + str(error).partition(": ")[2]
        for error in errors(*paths)
    ]


def ids(*paths: Path) -> list[str]:
    return [case.id for case in load(paths)]


DESIGN = """\
conformance: 1
about: Running statistics follow r.
defaults:
  layer: {rank: 2, features: 3, eps: 1e-5, momentum: 0.1}
  input: {shape: [4, 3, 5, 5], normal: {mean: 3, std: 2, seed: 0}}
cases:
  values:
    why: Momentum is the classic porting mistake.
    matrix: {layer.momentum: [0.0, 0.01, 1.0]}
    steps: [train, train, eval]
  cumulative-average:
    why: None is the cumulative average.
    layer: {momentum: null}
    steps: [train, train, train]
    expect:
      mindspore: {refuses: TypeError, because: "momentum must be a number in [0, 1]"}
  as-typed:
    why: As a user types it.
    native: {torch: {num_features: 3}, keras: {}}
    steps: [default]
"""


def test_a_file_becomes_its_cases_in_order(write: Write) -> None:
    path = write(DESIGN, "cases/momentum.yaml")
    cases = load([path])
    assert [case.id for case in cases] == [
        "momentum/values[momentum=0.0]",
        "momentum/values[momentum=0.01]",
        "momentum/values[momentum=1.0]",
        "momentum/cumulative-average",
        "momentum/as-typed",
    ]
    assert [case.line for case in cases] == [7, 7, 7, 11, 17]
    assert {case.file for case in cases} == {str(path)}
    assert {case.about for case in cases} == {"Running statistics follow r."}
    values = cases[1]
    assert values.matrix == {"layer.momentum": 0.01}
    assert values.spec.layer is not None
    assert (values.spec.layer.momentum, values.spec.layer.eps) == (0.01, 1e-5)
    assert [step.mode for step in values.spec.steps] == ["train", "train", "eval"]
    assert cases[3].spec.layer is not None
    assert cases[3].spec.layer.momentum is None
    assert cases[4].kind == "native"


def test_a_case_may_say_nothing_of_its_own(write: Write) -> None:
    assert ids(write(f"{HEAD}defaults: {GOOD}\ncases:\n  a:\n  b: {{}}\n")) == ["f/a", "f/b"]


def test_special_words_among_values_become_numbers(write: Write) -> None:
    (case,) = load([write(f"{HEAD}cases: {{a: {{why: x, layer: {{}}, input: {{values: [[inf, 1, .inf, -inf]]}}}}}}")])
    assert case.input_of(0).values == [[float("inf"), 1, float("inf"), float("-inf")]]


# Files


def test_ids_do_not_depend_on_the_path_that_was_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(f"{HEAD}cases: {{a: {GOOD}}}", "cases/sub/x.y.yaml")
    expected = ["sub/x.y/a"]
    assert ids(path) == ids(path.parent) == ids(path.parent.parent) == ids(path.parents[2]) == expected
    monkeypatch.chdir(path.parent)
    assert ids(Path("x.y.yaml")) == ids(Path()) == ids(Path("../sub")) == expected


def test_without_a_folder_named_cases_ids_begin_below_the_folder_named(write: Write) -> None:
    path = write(f"{HEAD}cases: {{a: {GOOD}}}", "mine/sub/x.yml")
    assert ids(path.parents[1]) == ["sub/x/a"]
    assert ids(path) == ["x/a"]
    assert corpus_root(path) == path.parent


def test_file_names_are_made_safe_for_ids(write: Write) -> None:
    assert ids(write(f"{HEAD}cases: {{a: {GOOD}}}", "cases/a [b],c\n.yaml")) == ["a__b__c_/a"]


def test_folders_are_searched_recursively_in_order_and_each_file_is_read_once(write: Write) -> None:
    one = write(f"{HEAD}cases: {{a: {GOOD}}}", "cases/b.yaml")
    two = write(f"{HEAD}cases: {{a: {GOOD}}}", "cases/a/z.yml")
    write(f"{HEAD}cases: {{a: {GOOD}}}", "cases/.hidden/z.yml")
    write(f"{HEAD}cases: {{a: {GOOD}}}", "cases/.z.yaml")
    write("text", "cases/z.txt")
    (one.parent / "folder.yaml").mkdir()
    assert find([one.parent]) == [one, two]
    assert find([two, one.parent, one]) == [two, one]


@pytest.mark.parametrize(
    "text",
    [
        "a: 1",
        "",
        "- 1",
        "a: !Ref x",
        "a: 1\n---\nb: 2",
        "a: [",
        "nested:\n  conformance: 1",
        "text: conformance",
        b"\xff",
        "#" * 10**6 + "#",
    ],
)
def test_yaml_that_is_not_ours_is_left_alone_in_a_folder_and_refused_by_name(write: Write, text: str | bytes) -> None:
    path = write(text)
    assert load([path.parent]) == []
    assert len(errors(path)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "conformance: [",
        "'conformance': 1\na: !x 1",
        '{"conformance": 1}',
        "# x\n{a: 1, conformance: 1}",
        "\ufeffconformance: 2",
    ],
)
def test_a_file_of_ours_is_known_even_when_broken(write: Write, text: str) -> None:
    path = write(text)
    assert is_case_file(path)
    assert errors(path.parent)


def test_a_file_without_the_key_says_so(write: Write) -> None:
    assert told(write("about: x")) == [
        "f.yaml:1:1: this is no case file: it has no top-level key conformance (begin with conformance: 1)"
    ]
    assert told(write("about: x\nconfomance: 1"))[0].startswith("f.yaml:2:1: ")


@pytest.mark.parametrize("version", ["2", "true", "1.0", "'1'", "null"])
def test_other_versions_of_the_format_are_refused(write: Write, version: str) -> None:
    (found,) = told(write(f"conformance: {version}\ncases: 3"))
    assert found == "f.yaml:1:14: conformance: this version of the suite reads format 1 (write conformance: 1)"


def test_paths_that_cannot_be_read_are_all_reported(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    found = errors(tmp_path / "none.yaml", tmp_path, Path("a\0b"))
    assert [error.message.partition(":")[0] for error in found] == ["cannot be read"] * 3
    assert str(found[0]) == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"
    with pytest.raises(CaseErrors):
        find([tmp_path / "none.yaml"])


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    assert errors(tmp_path / "x.yaml")[0].message == "cannot be read: it is no regular file"


def test_of_a_large_file_no_more_is_read_than_the_limit(write: Write) -> None:
    path = write("")
    os.truncate(path, 10**8)
    tracemalloc.start()
    try:
        assert "over the limit" in errors(path)[0].message
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_reported(write: Write) -> None:
    path = write(DESIGN)
    path.chmod(0)
    assert errors(path.parent)[0].message == "cannot be read: Permission denied"


def test_one_bad_file_or_case_hides_no_other_and_nothing_is_returned(write: Write) -> None:
    one = write(f"{HEAD}cases: {{a: {{why: x}}, b: {GOOD}, c: {{whi: x}}}}", "cases/1.yaml")
    write("conformance: [", "cases/2.yaml")
    write(f"{HEAD}cases: {{a: {GOOD}}}", "cases/3.yaml")
    write(f"{HEAD}cases: {{a: 3}}", "cases/4.yaml")
    assert [(Path(error.file).name, error.line) for error in errors(one.parent)] == [
        ("1.yaml", 3),
        ("1.yaml", 3),
        ("1.yaml", 3),
        ("2.yaml", 1),
        ("4.yaml", 3),
    ]


def test_an_id_that_another_file_gives_is_an_error(write: Write) -> None:
    one = write(f"{HEAD}cases: {{a: {GOOD}}}", "cases/x.yaml")
    write(f"{HEAD}cases:\n  b: {GOOD}\n  a: {GOOD}", "cases/x.yml")
    (found,) = told(one.parent)
    assert found.startswith("x.yml:5: the id x/a is taken already, by ")


# Limits


def test_work_on_faults_is_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_FAULTS", 10)
    text = HEAD + "cases:\n" + "".join(f"  c{n}: {{why: x}}\n" for n in range(100))
    assert len(errors(write(text))) == 11


def test_work_on_values_is_bounded_before_it_begins(write: Write) -> None:
    keys = "".join(f"  k{n}: 1\n" for n in range(2000))
    text = f"{HEAD}defaults:\n{keys}cases:\n" + "".join(f"  c{n}:\n" for n in range(2000))
    assert any("over the limit of 2,000,000 values" in error.message for error in errors(write(text)))


def test_a_matrix_counts_once_and_not_in_each_of_its_cases(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = f"layer.eps: {[n / 1e6 for n in range(1, 61)]}, input.normal.seed: {list(range(60))}"
    path = write(f"{HEAD}cases:\n  a: {{why: x, layer: {{}}, input: {{shape: [4, 3]}}, matrix: {{{axes}}}}}")
    monkeypatch.setattr(loading, "MAX_VALUES", 3600 * 20)
    assert len(load([path])) == 3600


def test_a_matrix_is_multiplied_out_only_after_it_was_counted(write: Write) -> None:
    axes = ", ".join(f"layer.{name}: {list(range(300))}" for name in ("eps", "momentum", "features"))
    (found,) = errors(write(f"{HEAD}cases:\n  a: {{why: x, matrix: {{{axes}}}}}"))
    assert (found.line, found.message) == (4, "with this case the file is over the limit of 100,000 cases")


# Schema


def test_the_schema_describes_whole_files_with_nothing_required_of_a_case() -> None:
    found = schema()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["required"] == ["conformance", "about", "cases"]
    case = found["$defs"]["Case"]
    assert "required" not in case
    assert set(case["properties"]) == {*CaseSpec.model_fields, "matrix"}
    assert {"type": "string", "enum": ["nan", "inf", "-inf"]} in found["$defs"]["Initial"]["properties"]["gamma"][
        "anyOf"
    ]
    assert "layer.momentum" in case["properties"]["matrix"]["anyOf"][0]["properties"]


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    found = schema()
    references = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(found)))
    assert references == set(found["$defs"])


def test_the_schema_is_valid_and_agrees_with_the_loader(write: Write) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    short = "{steps: [train, {mode: eval, input: {constant: 1}}], layer: {initial: {gamma: nan, beta: [1, inf]}}}"
    for text in (DESIGN, f"{HEAD}defaults: {short}\ncases: {{a: {GOOD}}}"):
        assert validator.is_valid(plain(parse(text.encode())))
    for text in (HEAD, f"{HEAD}cases: {{a: {{layer: {{momentun: 1}}}}}}", f"{HEAD}cases: {{../a: {GOOD}}}"):
        assert not validator.is_valid(plain(parse(text.encode())))


@pytest.mark.parametrize("path", find([data.folder("cases")]), ids=lambda path: path.stem)
def test_the_schema_admits_the_corpus(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    assert [error.message for error in validator.iter_errors(plain(parse(path.read_bytes())))] == []


# Properties

FUZZ = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def outcome(path: Path) -> list[Case] | tuple[CaseError, ...]:
    """Cases or errors; anything else that is raised fails the test."""
    try:
        return load_file(path)
    except CaseErrors as found:
        return found.errors or pytest.fail("errors without an error")


def assert_readable(found: list[Case] | tuple[CaseError, ...]) -> None:
    assert all(isinstance(one, Case) or str(one).isprintable() for one in found)


@settings(FUZZ, max_examples=100)
@given(data=st.binary(max_size=200))
def test_any_bytes_give_cases_or_errors(write: Write, data: bytes) -> None:
    assert_readable(outcome(write(HEAD.encode() + data)))


_WORDS = [
    *CaseSpec.model_fields,
    *("matrix", "layer.eps", "steps.0.mode", "input.normal"),
    *(
        "shape",
        "values",
        "constant",
        "normal",
        "replace",
        "at",
        "with",
        "dtype",
        "initial",
        "gamma",
        "momentum",
        "mode",
    ),
    *("torch", "refuses", "because", "when", "version", "tensors", "train", "y[0]", ">=2", "nan"),
]
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(_WORDS)
)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4),
    max_leaves=20,
)


@settings(FUZZ, max_examples=200)
@given(defaults=_TREES, case=_TREES)
def test_any_tree_gives_cases_or_errors(write: Write, defaults: Any, case: Any) -> None:
    good = {"why": "x", "layer": {}, "input": {"shape": [4, 3], "normal": {}}, "steps": ["train"]}
    if isinstance(case, dict):
        case = {**good, **case}
    file = {"conformance": 1, "about": "x", "defaults": defaults, "cases": {"a": case, "b": good}}
    assert_readable(outcome(write(json.dumps(file, ensure_ascii=False).encode("utf-8", "replace"))))


@settings(FUZZ, max_examples=150)
@given(data=st.data())
def test_a_file_with_a_few_characters_changed_gives_cases_or_errors(write: Write, data: st.DataObject) -> None:
    text = DESIGN
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 4))
        text = text[:at] + data.draw(st.text("{}[],:-&*!|>'\"#%\n x1.", max_size=3)) + text[at + cut :]
    assert_readable(outcome(write(text)))


_AXES: dict[str, st.SearchStrategy[Any]] = {
    "layer.eps": st.floats(0, 1),
    "layer.momentum": st.none() | st.floats(0, 1),
    "layer.scale": st.booleans(),
    "input.dtype": st.sampled_from(["float16", "float32", "float64"]),
    "input.shape": st.lists(st.integers(1, 9), min_size=2, max_size=5),
    "steps": st.lists(st.sampled_from(["train", "eval", "default"]), min_size=1, max_size=3),
}


@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_ids_are_unique_stable_and_safe(write: Write, data: st.DataObject) -> None:
    paths = data.draw(st.lists(st.sampled_from(sorted(_AXES)), max_size=4, unique=True))
    matrix = {path: data.draw(st.lists(_AXES[path], min_size=1, max_size=3, unique_by=repr)) for path in paths}
    tags = data.draw(st.lists(st.text(max_size=8), min_size=1, max_size=4, unique=True))
    shared = {"why": "x", "input": {"shape": [4, 3], "normal": {}}}
    cases = {
        "a": {**shared, "layer": {}, "matrix": matrix},
        "b": {**shared, "native": {"torch": {}}, "matrix": {"native.torch.tag": tags}},
    }
    file = {"conformance": 1, "about": "x", "cases": cases}
    path = write(json.dumps(file, ensure_ascii=False).encode("utf-8", "replace"))
    found = outcome(path)
    if isinstance(found, tuple):  # control characters, and texts that would be called alike
        assert all("not allowed" in error.message or "ids would repeat" in error.message for error in found)
        return
    names = [case.id for case in found]
    assert len(set(names)) == len(names) == len(tags) + math.prod(map(len, matrix.values()))
    assert names == ids(path.parent)
    assert all(re.fullmatch(r"f/[ab](\[[\w.]+=[\w.+:-]+(,[\w.]+=[\w.+:-]+)*\])?", name, re.ASCII) for name in names)
