"""Behaviour of `conformance.expand`: how defaults are inherited, what a matrix multiplies to, what ids say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conformance.document import Fault, Node, parse, plain
from conformance.expand import MAX_AXES, Expansion, axes_of, expand, label, merge, with_defaults


def node(text: str) -> Node:
    return parse(text.encode())


def merged(defaults: str, case: str) -> Any:
    return plain(with_defaults(node(defaults), node(case)))


def expanded(case: str, defaults: str = "{}") -> list[Expansion]:
    body = with_defaults(node(defaults), node(case))
    axes, faults = axes_of(body)
    assert faults == []
    reported: list[Fault] = []
    found = list(expand(body, axes, reported.append))
    assert reported == []
    return found


def bodies(case: str, defaults: str = "{}") -> list[Any]:
    return [plain(expansion.body) for expansion in expanded(case, defaults)]


def matrix_faults(matrix: str, case: str = "") -> list[str]:
    body = node(f"{{{case}{', ' if case else ''}matrix: {matrix}}}")
    axes, faults = axes_of(body)
    list(expand(body, axes, faults.append))
    return [f"{fault.path}: {fault.message} ({fault.hint})" for fault in faults]


# Defaults


@pytest.mark.parametrize(
    ("defaults", "case", "result"),
    [
        ("{layer: {eps: 1, rank: 2}}", "{layer: {eps: 3}}", {"layer": {"eps": 3, "rank": 2}}),
        ("{layer: {momentum: 0.1}}", "{layer: {momentum: null}}", {"layer": {"momentum": None}}),
        ("{layer: null}", "{layer: {eps: 1}}", {"layer": {"eps": 1}}),
        ("{steps: [train, eval]}", "{steps: [eval]}", {"steps": ["eval"]}),
        ("{why: x}", "{}", {"why": "x"}),
    ],
)
def test_mappings_merge_key_by_key_and_the_rest_replaces(defaults: str, case: str, result: object) -> None:
    assert merged(defaults, case) == result


_INPUT = "input: {shape: [2, 3], normal: {mean: 3, std: 2}, replace: [{at: [0, 0], with: 1}], dtype: float16}"


@pytest.mark.parametrize(
    ("own", "gone"),
    [
        ("{normal: {seed: 1}}", set()),
        ("{dtype: float32}", set()),
        ("{constant: 1}", {"normal"}),
        ("{shape: [4, 3]}", {"replace"}),
        ("{values: [[1, 2]]}", {"normal", "shape", "replace"}),
        ("{constant: null}", set()),
        ("{shape: [4, 3], replace: [], arange: {}}", {"normal"}),
    ],
)
def test_an_input_inherits_what_does_not_contradict_it(own: str, gone: set[str]) -> None:
    found = merged(f"{{{_INPUT}}}", f"{{input: {own}}}")["input"]
    inherited = set(plain(node(f"{{{_INPUT}}}"))["input"])
    assert set(found) == (inherited - gone) | set(plain(node(own)))


def test_the_same_generator_is_refined() -> None:
    assert merged("{input: {normal: {mean: 3}}}", "{input: {normal: {std: 2}}}") == {
        "input": {"normal": {"mean": 3, "std": 2}}
    }


def test_initial_vectors_follow_the_rule_of_generators() -> None:
    found = merged("{layer: {initial: {gamma: {normal: {}}}}}", "{layer: {initial: {gamma: {uniform: {}}}}}")
    assert found == {"layer": {"initial": {"gamma": {"uniform": {}}}}}


@pytest.mark.parametrize("own", ["native: {torch: {}}", "signature: {torch: {}}", "matrix: {native.torch.eps: [1]}"])
def test_a_case_of_one_kind_inherits_no_other(own: str) -> None:
    assert set(merged("{layer: {eps: 1}, why: x}", f"{{{own}}}")) == {"why", own.split(":")[0]}


def test_a_null_kind_names_none() -> None:
    assert merged("{layer: {eps: 1}}", "{native: null}") == {"layer": {"eps": 1}, "native": None}


def test_an_expectation_is_replaced_whole() -> None:
    defaults = "{expect: {torch: {refuses: E, because: x, version: '>=2'}, keras: {refuses: E, because: x}}}"
    found = merged(defaults, "{expect: {torch: {diverges: d, because: y}}}")["expect"]
    assert found == {"torch": {"diverges": "d", "because": "y"}, "keras": {"refuses": "E", "because": "x"}}


@pytest.mark.parametrize(("own", "left"), [("{torch: null}", {"keras": {}}), ("null", None)])
def test_an_inherited_expectation_is_declined_by_null(own: str, left: object) -> None:
    (body,) = bodies(f"{{expect: {own}}}", "{expect: {torch: {}, keras: {}}}")
    assert body.get("expect") == left


def test_an_inherited_axis_comes_first_and_may_be_replaced_or_declined() -> None:
    defaults = "{matrix: {layer.eps: [1, 2], layer.momentum: [3]}}"
    assert [e.suffix for e in expanded("{matrix: {input.dtype: [a]}}", defaults)] == [
        "[eps=1,momentum=3,dtype=a]",
        "[eps=2,momentum=3,dtype=a]",
    ]
    assert [e.suffix for e in expanded("{matrix: {layer.eps: [7]}}", defaults)] == ["[eps=7,momentum=3]"]
    assert [e.suffix for e in expanded("{matrix: {layer.eps: null}}", defaults)] == ["[momentum=3]"]
    assert [e.suffix for e in expanded("{matrix: null}", defaults)] == [""]


@pytest.mark.parametrize(
    ("axis", "case"),
    [
        ("layer.momentum: [1]", "{layer: {momentum: 0.5}}"),
        ("layer.momentum: [1]", "{native: {torch: {}}}"),
        ("layer.momentum: [1]", "{layer: null}"),
        ("steps.0.mode: [train]", "{steps: [eval]}"),
        ("input.normal.mean: [1]", "{input: {constant: 1}}"),
        ("input: [{}]", "{input: {constant: 1}}"),
    ],
)
def test_what_a_case_says_itself_beats_an_inherited_axis(axis: str, case: str) -> None:
    assert [expansion.matrix for expansion in expanded(case, f"{{matrix: {{{axis}}}}}")] == [{}]


def test_an_axis_of_another_kind_is_not_inherited_by_a_case_whose_matrix_names_its_kind() -> None:
    (found,) = expanded("{matrix: {native.torch.eps: [2]}}", "{layer: {}, matrix: {layer.eps: [1]}}")
    assert found.matrix == {"native.torch.eps": 2}


def test_an_axis_adds_a_second_kind_rather_than_hide_the_first() -> None:
    assert bodies("{layer: {}, matrix: {native.torch.eps: [2]}}") == [{"layer": {}, "native": {"torch": {"eps": 2}}}]


def test_an_inherited_axis_stands_beside_what_a_case_says_of_other_things() -> None:
    assert bodies("{input: {shape: [2, 3]}}", "{matrix: {input.dtype: [a]}}") == [
        {"input": {"shape": [2, 3], "dtype": "a"}}
    ]


_TREES = st.recursive(
    st.none() | st.integers(-9, 9) | st.sampled_from(["x", "y"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=12,
)
_MAPPINGS = st.dictionaries(st.sampled_from("abcd"), _TREES, max_size=4)


def _tree(value: object) -> Node:
    return node(json.dumps(value))


@hypothesis_settings(deadline=None, database=None)
@given(_MAPPINGS, _MAPPINGS, _MAPPINGS)
def test_merging_is_associative_and_the_empty_mapping_its_identity(a: Any, b: Any, c: Any) -> None:
    one, two, three = _tree(a), _tree(b), _tree(c)
    assert plain(merge(one, one)) == a
    assert plain(merge(_tree({}), one)) == plain(merge(one, _tree({}))) == a
    if not any(
        isinstance(low, dict) and isinstance(high, dict) and not isinstance(mid, dict)
        for low, mid, high in _aligned(a, b, c)
    ):
        assert plain(merge(merge(one, two), three)) == plain(merge(one, merge(two, three)))


def _aligned(a: Any, b: Any, c: Any) -> list[tuple[Any, Any, Any]]:
    """The values at every key that all three have: where the middle one breaks a mapping, order matters."""
    if not all(isinstance(value, dict) for value in (a, b, c)):
        return [(a, b, c)]
    shared = set(a) & set(b) & set(c)
    return [triple for key in shared for triple in _aligned(a[key], b[key], c[key])]


def test_what_runs_beside_starts_from_the_layer_and_the_input_but_not_its_initial_values() -> None:
    case = """
        {layer: {eps: 1, rank: 2, initial: {gamma: 2}}, input: {shape: [2, 3], normal: {seed: 4}, dtype: float16},
         beside: {layer: {eps: 3}, input: {constant: 5}, mode: eval}}
    """
    (body,) = bodies(case)
    assert body["beside"] == {
        "layer": {"eps": 3, "rank": 2},
        "input": {"shape": [2, 3], "constant": 5, "dtype": "float16"},
        "mode": "eval",
    }


def test_what_runs_beside_is_the_same_layer_where_nothing_is_said_of_it() -> None:
    (body,) = bodies("{layer: {eps: 1, initial: {gamma: 2}}, input: {shape: [2, 3]}, beside: {mode: eval}}")
    assert body["beside"] == {"mode": "eval", "layer": {"eps": 1}}


def test_an_axis_reaches_into_what_runs_beside() -> None:
    found = bodies("{layer: {eps: 1}, input: {shape: [2, 3]}, matrix: {beside.layer.eps: [3, 5]}}")
    assert [body["beside"]["layer"] for body in found] == [{"eps": 3}, {"eps": 5}]


# Matrix


def test_the_first_axis_is_the_slowest() -> None:
    found = expanded("{matrix: {layer.eps: [1, 2], layer.rank: [1, 3]}}")
    assert [plain(e.body)["layer"] for e in found] == [
        {"eps": 1, "rank": 1},
        {"eps": 1, "rank": 3},
        {"eps": 2, "rank": 1},
        {"eps": 2, "rank": 3},
    ]
    assert found[1].matrix == {"layer.eps": 1, "layer.rank": 3}
    assert found[1].suffix == "[eps=1,rank=3]"


def test_a_value_is_put_in_whole_and_null_stays_null() -> None:
    assert bodies("{layer: {initial: {beta: 1}}, matrix: {layer.initial: [{gamma: 2}, null]}}") == [
        {"layer": {"initial": {"gamma": 2}}},
        {"layer": {"initial": None}},
    ]


def test_an_axis_follows_the_rule_of_generators() -> None:
    case = "{input: {shape: [2, 3], constant: 1}, matrix: {input.normal: [{}, null]}}"
    assert [set(body["input"]) for body in bodies(case)] == [{"shape", "normal"}, {"shape", "constant", "normal"}]
    assert bodies("{input: {shape: [2, 3]}, matrix: {input.values: [[[1]]]}}") == [{"input": {"values": [[1]]}}]


def test_an_axis_reaches_into_steps() -> None:
    case = "{steps: [train, {mode: eval}], matrix: {steps.0.frozen: [true], steps.1.mode: [default]}}"
    assert bodies(case) == [{"steps": [{"mode": "train", "frozen": True}, {"mode": "default"}]}]


def test_a_step_takes_what_its_input_leaves_out_from_the_case_after_the_matrix() -> None:
    steps = "[{mode: train, input: {constant: 1}}, eval]"
    case = f"{{input: {{shape: [2, 3], normal: {{}}}}, steps: {steps}, matrix: {{input.dtype: [a, b]}}}}"
    assert [body["steps"] for body in bodies(case)] == [
        [{"mode": "train", "input": {"shape": [2, 3], "dtype": dtype, "constant": 1}}, "eval"] for dtype in "ab"
    ]


def test_paths_that_end_alike_are_told_apart_in_ids() -> None:
    (found,) = expanded("{steps: [train, eval], matrix: {steps.0.mode: [eval], steps.1.mode: [train], layer.eps: [0]}}")
    assert found.suffix == "[steps.0.mode=eval,steps.1.mode=train,eps=0]"


@pytest.mark.parametrize(
    ("matrix", "complaint"),
    [
        ("{layer.momentun: [1]}", "matrix.layer.momentun: names no field of a case (did you mean layer.momentum?)"),
        (
            "{inptu.normal.std: [1]}",
            "matrix.inptu.normal.std: names no field of a case (did you mean input.normal.std?)",
        ),
        ("{layer.eps.x: [1]}", "matrix.layer.eps.x: names no field of a case ()"),
        ("{matrix: [1]}", "matrix.matrix: names no field of a case ()"),
        ("{layer.eps: 1}", "matrix.layer.eps: should be a list of values (write it in brackets)"),
        ("{layer.eps: []}", "matrix.layer.eps: has no values, so no case would run ()"),
        ("{layer.eps: [1, 2, 1]}", "matrix.layer.eps: another value is called 1 too; ids would repeat ()"),
        (
            "{'native.torch.a,b': [1]}",
            "matrix.native.torch.a,b: cannot vary: ids have letters, digits, _ and - only ()",
        ),
        ("{layer: [{}], layer.eps: [1]}", "matrix.layer.eps: overlaps with layer, which the matrix sets too ()"),
        (
            "{input.normal.std: [1], input.constant: [1]}",
            "matrix.input.constant: cannot stand beside input.normal.std, which the matrix sets too ()",
        ),
        ("[1]", "matrix: should be a mapping of dotted paths to lists of values ()"),
        (
            f"{{{', '.join(f'native.torch.a{n}: [1]' for n in range(MAX_AXES + 1))}}}",
            "matrix: has more than 20 axes ()",
        ),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(matrix: str, complaint: str) -> None:
    assert matrix_faults(matrix) == [complaint]


@pytest.mark.parametrize(
    ("case", "matrix", "complaint"),
    [
        ("steps: [train]", "{steps.1.mode: [eval]}", "steps is a list of 1, so 1 is no place in it"),
        ("layer: 3", "{layer.eps: [1]}", "layer is no mapping in this case, so it has no eps"),
    ],
)
def test_an_axis_that_leads_nowhere_in_this_case_is_refused(case: str, matrix: str, complaint: str) -> None:
    (found,) = matrix_faults(matrix, case)
    assert complaint in found


# Ids


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1e-05"),
        (0.1, "0.1"),
        (1, "1"),
        (1.0, "1.0"),
        (float("nan"), "nan"),
        (None, "null"),
        (True, "true"),
        ("float16", "float16"),
        ([4, 3, 5, 5], "4x3x5x5"),
        (["train", "eval"], "train+eval"),
        ({"mean": 3, "std": 0.5}, "mean:3+std:0.5"),
        ([True, 1], "true+1"),
        ("a/b", "item3"),
        ("..", "item3"),
        ("a..b", "item3"),
        ("a]", "item3"),
        ("a,b", "item3"),
        ("a\nb", "item3"),
        ("", "item3"),
        ("x" * 41, "item3"),
        ([], "item3"),
        ({}, "item3"),
        ([[1]], "item3"),
        ([1] * 99, "item3"),
        ({"a/b": 1}, "item3"),
    ],
)
def test_a_label_is_readable_where_it_can_be_and_safe_always(value: object, text: str) -> None:
    assert label(value, 2) == text


@hypothesis_settings(deadline=None, database=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_no_value_puts_anything_dangerous_into_an_id(value: object) -> None:
    text = label(value, 0)
    assert 0 < len(text) <= 40
    assert ".." not in text
    assert not set(text) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+:-")
