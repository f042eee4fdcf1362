"""What formats, grade and conventions say of rounding: the u, u_o, η, h and l of `conformance.bounds`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conformance.conventions import Conventions

Grade = Literal["strict", "weak"]

#: Unit roundoff 2⁻ᵖ and smallest subnormal of each output dtype.
UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SUBNORMAL = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}

#: Smallest normal number of each accumulator.
NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126}

#: Depth of a blocked or pairwise summation, which the strict grade admits.
BLOCKED_DEPTH = 64


def accumulator(*dtypes: str) -> float:
    """Unit roundoff of the accumulator: float64's where float64 goes in, else float32's."""
    return UNIT_ROUNDOFF["float64" if "float64" in dtypes else "float32"]


def _format(u: float) -> str:
    """The accumulator of this unit roundoff."""
    return "float64" if u == UNIT_ROUNDOFF["float64"] else "float32"


@dataclass(frozen=True)
class Rounding:
    """What the dtypes, the grade and the conventions come to.

    Attributes:
        u: unit roundoff of the accumulator.
        io_dtype, layer_dtype: what y and dx, and the rest, are rounded to.
        statistics: unit roundoff of what the batch's mean and inv go through beyond the accumulator's.
        saved: the same, of the mean and inv that gradients are taken with.
        terms: the same, of the sums of gradients.
        elements: the same, of every operation on elements: x−μ, x̂, γ·x̂, g·(x−μ).
        tiny: what is flushed to zero is smaller.
        normal, subnormal: the accumulator's smallest numbers.
    """

    u: float
    io_dtype: str
    layer_dtype: str
    statistics: float
    saved: float
    terms: float
    elements: float
    tiny: float
    grade: Grade
    conventions: Conventions

    @property
    def normal(self) -> float:
        return NORMAL[_format(self.u)]

    @property
    def subnormal(self) -> float:
        return SUBNORMAL[_format(self.u)]

    @property
    def sequential(self) -> bool:
        return self.grade == "weak" or self.conventions.summation == "sequential"

    @property
    def one_pass(self) -> bool:
        known = self.conventions.variances is not None
        return not known and (self.grade == "weak" or self.conventions.variance == "one-pass")

    def depth(self, n: int) -> int:
        """h: n terms are never summed deeper than n, and blocked or pairwise no deeper than `BLOCKED_DEPTH`."""
        lane = n // 8 + 8 if self.conventions.summation == "eight lanes" else 0
        return n if self.sequential else min(n, max(lane, BLOCKED_DEPTH))

    def lane(self, n: int) -> int:
        """l: as `depth`, but an eighth of n where that is longer."""
        return max(self.depth(n), n // 8)


def rounding(grade: Grade, io_dtype: str, layer_dtype: str, conventions: Conventions) -> Rounding:
    """The roundings of a step whose y and dx have one dtype and whose layer has another."""
    if conventions.precision == "float32":
        io_dtype, layer_dtype = (name.replace("float64", "float32") for name in (io_dtype, layer_dtype))
    wide = accumulator(io_dtype, layer_dtype)
    narrower = max(UNIT_ROUNDOFF[io_dtype], UNIT_ROUNDOFF[layer_dtype])
    rounded = {
        "accumulated": (0.0, 0.0),
        "rounded": (UNIT_ROUNDOFF[layer_dtype],) * 2,
        "rounded for gradients": (0.0, narrower),
    }[conventions.statistics]
    terms = 0.0 if conventions.terms == "accumulated" else UNIT_ROUNDOFF[io_dtype]
    elements = terms if conventions.terms == "rounded, elements too" else 0.0
    statistics, saved, terms, elements = (u if u > wide else 0.0 for u in (*rounded, terms, elements))
    smallest = NORMAL[_format(wide)] if conventions.subnormals == "flushed" else 0.0
    return Rounding(wide, io_dtype, layer_dtype, statistics, saved, terms, elements, smallest, grade, conventions)
