"""``-k`` is a word, and, or, not and parentheses, over the ids of cases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.errors import UsageError
from conformance.selection import selector

ID = "momentum/values[momentum=0.1]"


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("", True),
        ("   ", True),
        ("momentum", True),
        ("MOMENTUM", True),
        ("[momentum=0.1]", True),
        ("values[", True),
        ("eps", False),
        ("not eps", True),
        ("not not momentum", True),
        ("eps or momentum", True),
        ("eps and momentum", False),
        ("momentum and not eps", True),
        ("momentum or eps and eps", True),
        ("(momentum or eps) and eps", False),
        ("not (eps or axes)", True),
        ("not eps or momentum", True),
        ("not momentum or eps", False),
        ("((momentum))", True),
        ("(momentum)and(values)", True),
        ("android or 0.1", True),
    ],
)
def test_an_expression_holds_of_an_id(expression: str, holds: bool) -> None:
    assert selector(expression)(ID) is holds


def test_case_does_not_matter_in_the_id_either() -> None:
    assert selector("values")("Momentum/VALUES")
    assert selector("VALUES")("momentum/values")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("a b", "-k 'a b': unexpected 'b'"),
        ("a)", "-k 'a)': unexpected ')'"),
        ("(a", "-k: a closing parenthesis is missing"),
        ("(a b)", "-k: a closing parenthesis is missing"),
        ("and a", "-k: a word was expected before 'and'"),
        ("a or", "-k: a word was expected at the end"),
        ("not", "-k: a word was expected at the end"),
        ("a and or b", "-k: a word was expected before 'or'"),
        ("()", "-k: a word was expected before ')'"),
    ],
)
def test_what_is_malformed_says_where(expression: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        selector(expression)
    assert str(caught.value) == message


TREES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["a", "b", "c"]),
    lambda inner: st.one_of(st.tuples(st.just("not"), inner), st.tuples(inner, st.sampled_from(["and", "or"]), inner)),
    max_leaves=8,
)


def written(tree: Any) -> str:
    """An expression with no more parentheses than Python needs."""
    if isinstance(tree, str):
        return tree
    return " ".join(part if part in ("and", "or", "not") else f"({written(part)})" for part in tree)


@given(TREES, st.sets(st.sampled_from("abc")))
@settings(deadline=None)
def test_expressions_mean_what_they_mean_in_python(tree: Any, present: set[str]) -> None:
    expression = written(tree)
    names = {name: name in present for name in "abc"}
    assert selector(expression)("".join(sorted(present))) is eval(expression, {}, names)


@given(st.lists(st.sampled_from(["a", "b", "c", "not a", "not b"]), min_size=1, max_size=6), st.data())
@settings(deadline=None)
def test_and_binds_tighter_than_or_and_not_tighter_than_both(words: list[str], data: st.DataObject) -> None:
    joined = words[0]
    for word in words[1:]:
        joined += f" {data.draw(st.sampled_from(['and', 'or']))} {word}"
    present = data.draw(st.sets(st.sampled_from("abc")))
    assert selector(joined)("".join(present)) is eval(joined, {}, {name: name in present for name in "abc"})
