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
from typing import Any

from ruamel.yaml import YAML

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
        found["steps"] = [self._step() for _ in range(self.by.randint(1, 3))]
        return found | ({"gradient": {"std": self.by.choice((1e-20, 1e-6, 1e3))}} if self.likely(0.15) else {})

    def _layer(self) -> dict[str, Any]:
        choose = self.by.choice
        layer: dict[str, Any] = {"rank": choose((1, 2, 2, 3)), "eps": choose(EPS), "momentum": choose(MOMENTUM)}
        absent = [name for name in OF_FLAG if self.likely(0.12)]
        layer |= dict.fromkeys(absent, False)
        initial: dict[str, float | None] = {}
        if self.likely(0.5):
            initial |= {name: choose(values) for name, values in INITIAL.items()}
        for name in absent:  # what a layer does not have cannot be set
            initial |= dict.fromkeys(OF_FLAG[name], None)
        return layer | ({"initial": initial} if initial else {})

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

    def _step(self) -> str | dict[str, Any]:
        mode = self.by.choice(("train", "train", "eval", "default"))
        for flag in ("frozen", "save_load"):
            if self.likely(0.1):
                return {"mode": mode, flag: True}
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
