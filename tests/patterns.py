"""Inputs and cotangents as models have them, on the real layers: no right result may be called wrong.

    python tests/patterns.py [--seed N] [--count N] [-t TARGET]…

The corpus draws from normal distributions. Here x lies behind a ReLU or comes from an image, and the cotangent of y
follows from y, as a loss has it. Such terms round alike where random ones do not. Every case should conform, be
conventional or be refused; what is not is printed. Exit code 1: something was. The same seed draws the same cases.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
from builders import case

from conformance import session
from conformance.arithmetic import Array
from conformance.case import Case
from conformance.judge import Verdict
from conformance.pool import Pool
from conformance.problem import Problem, materialise
from conformance.session import judged
from conformance.target import MAIN, parse

Random = np.random.RandomState

#: Name → x, from standard normal draws in its shape.
INPUTS: dict[str, Callable[[Array, Random], Array]] = {
    "normal": lambda z, _: 3 + 2 * z,
    "behind a ReLU": lambda z, _: np.maximum(z, 0),
    "of an image": lambda z, random: random.randint(0, 256, z.shape),
    "of few integers": lambda z, _: np.round(z),
    "evenly spaced": lambda z, _: np.arange(z.size).reshape(z.shape) / z.size * 10,
    "sorted": lambda z, _: np.sort(z, axis=0),
    "alternating": lambda z, _: np.where(np.indices(z.shape).sum(0) % 2, 1, -1) + 1e-3 * z,
    "far from 0": lambda z, _: 1000 + z,
    "of two kinds": lambda z, random: np.where(random.random_sample(z.shape) < 0.5, 100, -100) + z,
    "in samples apart": lambda z, random: z + 10 * random.standard_normal((len(z),) + (1,) * (z.ndim - 1)),
    "mostly 0": lambda z, random: np.where(random.random_sample(z.shape) < 0.02, z, 0),
    "with an outlier": lambda z, _: np.where(np.arange(z.size).reshape(z.shape) == 0, 1e4, z),
    "heavy-tailed": lambda z, random: np.exp(3 * z) * random.choice((-1, 1), z.shape),
}

#: Name → the cotangent, from y as training has it, standard normal draws in its shape, and further draws.
COTANGENTS: dict[str, Callable[[Array, Array, Random], Array]] = {
    "of half the square": lambda y, z, _: y,
    "of the mean square": lambda y, z, _: 2 * y / y.size,
    "of the distance to a target": lambda y, z, _: 2 * (y - z) / y.size,
    "of the fourth power": lambda y, z, _: y**3,
    "of the absolute value": lambda y, z, _: np.sign(y),
    "of the mean": lambda y, z, _: np.full_like(y, 0.7),
    "of labels": lambda y, z, random: 1 / (1 + np.exp(-y)) - random.randint(0, 2, y.shape),
    "before a ReLU": lambda y, z, _: np.where(y > 0, z, 0),
    "before a pooling": lambda y, z, _: np.broadcast_to(z[:, :, *(slice(1),) * (y.ndim - 2)], y.shape),
    "of one sample": lambda y, z, _: np.broadcast_to(z[:1], y.shape),
    "of one number": lambda y, z, _: (np.arange(y.size) == y.size // 2).reshape(y.shape),
    "in blocks": lambda y, z, _: np.where(np.indices(y.shape)[0] % 8 < 4, 0.7, -0.3),
    "in turn": lambda y, z, _: np.where(np.indices(y.shape).sum(0) % 2, 0.7, -0.3),
    "scaled": lambda y, z, _: 65536 * z,
    "heavy-tailed": lambda y, z, random: np.exp(4 * z) * random.choice((-1, 1), z.shape),
}

SHAPES = ((64, 8), (4096, 3), (65536, 2), (1, 4, 50), (16, 4, 200), (4, 3, 5, 5), (16, 8, 14, 14), (32, 3, 64, 64))
#: Of inputs; layers are float32. Of float16 products overflow, and torch computes views of halves in half.
FORMS: tuple[dict[str, Any], ...] = ({}, {"layout": "channels_last"}, {"strided": True}, {"dtype": "bfloat16"})
STEPS = (["train"], ["eval"], ["train", "eval"])


@dataclass(frozen=True)
class Pattern:
    """What a case's tensors are made of."""

    x: str
    g: str
    seed: int

    def of(self, problem: Problem) -> Problem:
        """The case with tensors in this pattern."""
        random, calls = Random(self.seed), []
        for call in problem.calls:
            x = INPUTS[self.x](random.standard_normal(call.x.shape), random).astype(call.x.dtype)
            exact, within = x.astype(np.float64), (0, *range(2, x.ndim))
            y = exact - exact.mean(within, keepdims=True)
            y = 0.3 + 1.3 * y / np.sqrt(np.square(y).mean(within, keepdims=True) + 1e-5)
            g = COTANGENTS[self.g](y, random.standard_normal(x.shape), random).astype(x.dtype)
            calls.append(replace(call, x=x, dy=g))
        return replace(problem, calls=tuple(calls))


def made(index: int, x: str, g: str, shape: tuple[int, ...], form: Mapping[str, Any], steps: list[str]) -> Case:
    """A case for a pattern, which its id tells."""
    where = "x".join(map(str, shape)) + "".join(f",{value}" for value in form.values())
    layer = {"dtype": "float32", "initial": {"gamma": 1.3, "beta": 0.3}}
    drawn = {"shape": list(shape), "normal": {}, **form}
    return case(f"patterns/{index}[x={x},loss={g},{where},{'+'.join(steps)}]", layer=layer, input=drawn, steps=steps)


def drawn(seed: int, count: int) -> Iterator[tuple[Case, Pattern]]:
    """Cases drawn by chance, and the pattern of each."""
    choose = random.Random(seed).choice
    for index in range(count):
        pattern = Pattern(choose([*INPUTS]), choose([*COTANGENTS]), 1000 * seed + index)
        yield made(index, pattern.x, pattern.g, choose(SHAPES), choose(FORMS), choose(STEPS)), pattern


def verdicts(pool: Pool, patterns: Iterable[tuple[Case, Pattern]]) -> Iterator[tuple[str, str, Verdict]]:
    """Id, target and verdict of every case with its tensors in its pattern."""
    cases, pattern = [], {}
    for each, of in patterns:
        cases.append(each)
        pattern[each.id] = of
    with patch.object(session, "materialise", lambda case: pattern[case.id].of(materialise(case))):
        for settled in judged(cases, pool):
            for name, side in settled.sides.items():
                yield settled.problem.case.id, name, side.verdict


def is_right(verdict: Verdict) -> bool:
    """Whether a target agrees, or has no such layer."""
    return verdict.verdict in ("conforms", "conventional", "refused")


def main() -> int:
    """Print what is called wrong, and how many verdicts of each kind there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="another one draws other cases (0)")
    parser.add_argument("--count", type=int, default=300, help="number of cases (300)")
    parser.add_argument(
        "-t", dest="targets", action="append", help="a target; torch, MindSpore and Keras if none is given"
    )
    options = parser.parse_args()
    counted: Counter[tuple[str, str]] = Counter()
    wrong = 0
    with Pool([parse(name) for name in options.targets or MAIN]) as pool:
        for id_, name, verdict in verdicts(pool, drawn(options.seed, options.count)):
            counted[name, verdict.verdict] += 1
            if not is_right(verdict):
                wrong += 1
                print(f"{id_} on {name}: {verdict.verdict}, {verdict.because}", flush=True)
    for (name, what), number in sorted(counted.items()):
        print(f"{name}: {number} {what}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
