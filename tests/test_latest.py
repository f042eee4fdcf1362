"""Answers that are kept."""

from __future__ import annotations

import doctest
import gc
import weakref

import numpy as np

from conformance import latest as latest_module
from conformance.latest import Latest


def test_its_example_holds() -> None:
    failed, tried = doctest.testmod(latest_module)
    assert tried
    assert not failed


def test_what_an_answer_was_made_of_is_told_apart_by_identity() -> None:
    kept, one, other = Latest(9), np.ones(2), np.ones(2)
    assert kept.answer(lambda: "one", "which", one) == "one"
    assert kept.answer(lambda: "other", "which", other) == "other"
    assert kept.answer(lambda: "another question", "what", one) == "another question"
    assert kept.answer(lambda: "new", "which", one) == "one"


def test_what_an_answer_was_made_of_lives_as_long_as_the_answer() -> None:
    """Else another object might take its place in memory, and its id."""
    kept, made = Latest(1), np.ones(2)
    there = weakref.ref(made)
    kept.answer(lambda: 1, "sum", made)
    del made
    gc.collect()
    assert there() is not None
    kept.answer(lambda: 2, "another")
    gc.collect()
    assert there() is None


def test_the_oldest_goes_first_and_none_is_kept_where_none_is_wanted() -> None:
    kept = Latest(2)
    for question in ("a", "b", "c"):
        kept.answer(question.upper, question)
    assert kept.answer(lambda: "new", "b") == "B"
    assert kept.answer(lambda: "new", "a") == "new"
    none = Latest(0)
    assert none.answer(lambda: 1, "same") == 1
    assert none.answer(lambda: 2, "same") == 2


def test_clearing_forgets_all() -> None:
    kept = Latest(2)
    kept.answer(lambda: 1, "a")
    kept.clear()
    assert kept.answer(lambda: 2, "a") == 2
