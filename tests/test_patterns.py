"""Results on inputs and cotangents as models have them are right, and no bound says otherwise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from patterns import COTANGENTS, INPUTS, Pattern, drawn, is_right, made, verdicts

from conformance.pool import Pool
from conformance.problem import materialise
from conformance.target import MAIN, installed, parse

TARGETS = [target for target in map(parse, MAIN) if installed(target.profile.package)]

#: Where terms are equal, few or on a grid.
X = ("behind a ReLU", "of an image", "evenly spaced", "alternating")
G = ("of half the square", "of labels", "of the mean", "in turn")


@pytest.mark.skipif(not TARGETS, reason="no framework is installed")
def test_no_right_result_is_called_wrong_whose_terms_round_alike() -> None:
    cases = [
        (made(index, x, g, shape, {}, ["eval", "train"]), Pattern(x, g, index))
        for index, (x, g, shape) in enumerate(itertools.product(X, G, ((65536, 2), (16, 3, 14, 14))))
    ]
    with Pool(TARGETS) as pool:
        found = list(verdicts(pool, cases))
    assert len(found) == len(cases) * len(TARGETS)
    assert [(id_, name, verdict.because) for id_, name, verdict in found if not is_right(verdict)] == []


@pytest.mark.parametrize("x", INPUTS)
@pytest.mark.parametrize("g", COTANGENTS)
def test_patterns_are_numbers_of_their_own_that_a_seed_draws_again(x: str, g: str) -> None:
    plain = materialise(made(0, x, g, (16, 3, 4, 4), {"dtype": "bfloat16"}, ["train"]))
    (call,), (again,), (other,) = (Pattern(x, g, seed).of(plain).calls for seed in (1, 1, 2))
    assert call.dy is not None
    assert again.dy is not None
    assert np.isfinite(call.x.astype(float)).all()
    assert np.isfinite(call.dy.astype(float)).all()
    assert (call.x == again.x).all()
    assert (call.dy == again.dy).all()
    assert x == "evenly spaced" or (call.x != other.x).any()


def test_the_same_seed_draws_the_same_cases() -> None:
    (first, again, other) = ([(case.id, pattern) for case, pattern in drawn(seed, 20)] for seed in (1, 1, 2))
    assert first == again != other
    assert len({id_ for id_, _ in first}) == 20
