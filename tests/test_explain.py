"""What explain prints of a case that went wrong: what was tried, how far each was off, and who is the odd one out."""

from __future__ import annotations

import itertools
import math

from builders import answer, oracle, under
from rich.console import Console

from conformance.commands.explain import _show, _tried
from conformance.comparison import Comparison
from conformance.conventions import CANONICAL
from conformance.diagnose import Tried
from conformance.judge import judge
from conformance.pairs import Side, judge_pair
from conformance.session import Settled


def test_a_hypothesis_says_how_far_it_was_off() -> None:
    assert _tried(Tried("eps-1e-3", 12.345)) == "eps-1e-3 (off by 12.3 bounds)"
    assert _tried(Tried("eps-1e-3", 0.25)) == "eps-1e-3 (fits: within 0.25 of the bound)"
    assert _tried(Tried("eps-1e-3", math.inf)) == "eps-1e-3 (no number)"


def test_the_cause_what_was_tried_and_the_odd_one_out_are_shown() -> None:
    of = oracle(steps=["train", "eval"])
    wrong = CANONICAL.but(gamma="ignored")
    sides = {}
    for name, conventions in (("a", CANONICAL), ("b", wrong), ("c", CANONICAL)):
        target, seen = under(name=name), answer(of, conventions)
        sides[name] = Side(target, seen, judge(Comparison(of, target, seen)))
    pairs = {(a, b): judge_pair(of, sides[a], sides[b]) for a, b in itertools.combinations(sides, 2)}
    console = Console(width=200)
    with console.capture() as shown:
        _show(console, Settled(of.problem, sides, pairs))
    said = shown.get()
    for words in (
        "b divergent, unexpected",
        "because   γ is not applied: all within 0.",
        "tried     gamma-ignored (fits: within 0.",
        "a ~ b differ: b: gamma-ignored",
        "b is the odd one out: gamma-ignored",
    ):
        assert words in said
