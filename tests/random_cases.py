"""Cases drawn by chance, to look where the corpus does not.

    python tests/random_cases.py [--seed N] [--count N] > random.yaml
    conformance run random.yaml

They expect agreement, and say nothing of what is known: what a run calls unexpected is read, and what is new there is
shrunk to a case of the corpus. The same seed draws the same cases.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from typing import Any, get_args

from ruamel.yaml import YAML

from conformance.fields import By

#: Around the widths of vectors and blocks, where kernels change their ways.
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 128, 129, 256, 257)
SAMPLES = (1, 2, 3, 4, 5, 8, 16, 31, 33, 64)
SIZES = {1: (1, 2, 3, 5, 8, 17, 33, 64, 129), 2: (1, 2, 3, 5, 7, 8, 16, 31, 65, 128), 3: (1, 2, 3, 4, 5, 7, 8)}
#: Values of an input at most.
ELEMENTS = 60_000

EPS = (1e-5, 1e-3, 1e-7, 1e-12, 0.1, 1.0, 1e-30)
MOMENTUM = (0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99, 1.0)
MEANS = (0.0, 0.0, 3.0, -10.0, 100.0, 1000.0, 1e-6)
DEVIATIONS = (1.0, 2.0, 10.0, 1e-3, 1e3, 1e-6, 1e-10)
SPECIAL = ("nan", "inf", "-inf", 1e30, 3e38, -1e-40, 0.0)
INITIAL = {
    "gamma": (1.0, -2.0, 0.0, 1e-3, 0.5, 1e4),
    "beta": (0.0, 1.0, 0.25, -1e3),
    "running_mean": (0.0, 1.0, -3.0, 0.5, 1e4),
    "running_var": (1.0, 0.5, 4.0, 1e-8),
}

#: What a layer is without where a flag is off.
OF_FLAG = {"scale": ("gamma",), "center": ("beta",), "track_running_stats": ("running_mean", "running_var")}


class Draw:
    """One case after another.

    Attributes:
        by: what chooses.
    """

    def __init__(self, seed: int) -> None:
        self.by = random.Random(seed)

    def likely(self, share: float) -> bool:
        """Whether something happens that happens in such a share of cases."""
        return self.by.random() < share

    def case(self) -> dict[str, Any]:
        """A case as a file has it."""
        layer = self._layer()
        found: dict[str, Any] = {"why": "drawn by chance", "input": self._input(layer), "layer": layer}
        found["steps"] = [self._step(found["input"], layer) for _ in range(self.by.randint(1, 4))]
        if self.likely(0.15):
            mean, std = self.by.choice(((0.0, 1e-20), (0.0, 1e-6), (0.0, 1e3), (10.0, 1.0), (0.1, 0.0)))
            found["gradient"] = {"mean": mean, "std": std}
        return found | self._around(layer)

    def _around(self, layer: dict[str, Any]) -> dict[str, Any]:
        """What is done beside the case's own steps."""
        if self.likely(0.05):
            return {"repeat": 3}
        if self.likely(0.05):
            others = {"eps": self.by.choice(EPS), "momentum": self.by.choice(MOMENTUM)}
            return {"beside": {"layer": others, "mode": self.by.choice(("train", "eval"))}}
        if self.likely(0.05) and "initial" not in layer:
            source = self.by.choice(("torch", "mindspore", "keras"))
            return {"carried": {"from": source, "steps": ["train"] * self.by.randint(1, 3)}}
        return {}

    def _layer(self) -> dict[str, Any]:
        choose = self.by.choice
        layer: dict[str, Any] = {"rank": choose((1, 2, 2, 3)), "eps": choose(EPS), "momentum": choose(MOMENTUM)}
        absent = [name for name in OF_FLAG if self.likely(0.12)]
        layer |= dict.fromkeys(absent, False)
        initial: dict[str, Any] = {}
        if self.likely(0.5):
            initial |= {name: self._vector(name) for name in INITIAL}
        for name in absent:  # what a layer does not have cannot be set
            initial |= dict.fromkeys(OF_FLAG[name], None)
        return layer | ({"initial": initial} if initial else {})

    def _vector(self, name: str) -> Any:
        """One number for all channels, or another for each."""
        if self.likely(0.5):
            return self.by.choice(INITIAL[name])
        seed = self.by.randrange(1000)
        if name == "running_var":
            return {"uniform": {"low": self.by.choice((0.0, 0.5)), "high": self.by.choice((1.0, 4.0)), "seed": seed}}
        return {"normal": {"mean": self.by.choice(INITIAL[name]), "std": self.by.choice((0.1, 1.0)), "seed": seed}}

    def _input(self, layer: dict[str, Any]) -> dict[str, Any]:
        """The input; of halves the layer's dtype may be float32, which is added to it."""
        choose = self.by.choice
        shape = self._shape(layer["rank"])
        drawn = {"mean": choose(MEANS), "std": choose(DEVIATIONS), "seed": self.by.randrange(1000)}
        found: dict[str, Any] = {"shape": shape, "normal": drawn}
        dtype = choose(("float32",) * 6 + ("float64", "float16", "bfloat16"))
        if dtype != "float32":
            found["dtype"] = dtype
        if dtype.endswith("float16"):
            drawn |= {"mean": choose((0.0, 1.0, 3.0)), "std": choose((0.1, 1.0, 2.0))}
            layer |= {"dtype": "float32"} if self.likely(0.5) else {}
        elif self.likely(0.1):
            found["replace"] = [{"at": [self.by.randrange(size) for size in shape], "with": choose(SPECIAL)}]
        if self.likely(0.25):
            found["layout"] = "channels_last"
        if self.likely(0.2):
            found["strided"] = True
        return found

    def _shape(self, rank: int) -> list[int]:
        while True:
            spatial = [] if rank == 1 and self.likely(0.5) else self.by.choices(SIZES[rank], k=rank)
            shape = [self.by.choice(SAMPLES), self.by.choice(CHANNELS), *spatial]
            if math.prod(shape) <= ELEMENTS:
                return shape

    def _step(self, given: dict[str, Any], layer: dict[str, Any]) -> str | dict[str, Any]:
        """A step by its mode alone, or with what else it does."""
        mode = self.by.choice(("train", "train", "eval", "default"))
        for flag in ("frozen", "save_load", "reread"):
            if self.likely(0.08):
                return {"mode": mode, flag: True}
        if self.likely(0.1):  # another batch size
            shape = [self.by.choice(SAMPLES), *given["shape"][1:]]
            if math.prod(shape) <= ELEMENTS and "replace" not in given:
                return {"mode": mode, "input": {"shape": shape}}
        if self.likely(0.05) and given.get("dtype", "float32") in ("float32", "float64"):
            return {"mode": mode, "second": {"seed": self.by.randrange(1000), "by": self.by.choice(get_args(By))}}
        if self.likely(0.08):
            return {
                "mode": mode,
                "tangent": {"mean": self.by.choice((0.0, 0.0, 10.0)), "seed": self.by.randrange(1000)},
            }
        return mode


def main() -> None:
    """Write a case file to the standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    draw, yaml = Draw(options.seed), YAML()
    cases = {f"case-{number}": draw.case() for number in range(options.count)}
    yaml.default_flow_style = None
    yaml.dump({"conformance": 1, "about": f"Drawn by chance, from seed {options.seed}.", "cases": cases}, sys.stdout)


if __name__ == "__main__":
    main()
