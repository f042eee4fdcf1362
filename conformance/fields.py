"""What the fields of a case hold: strict numbers, and tensors by the recipe that they are made from."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

#: No tensor of a case may have more elements than this (400 MB in float32).
MAX_ELEMENTS = 10**8

#: Nor more dimensions: two beyond what any layer takes, for cases that expect a refusal.
MAX_DIMENSIONS = 8

Mode = Literal["train", "eval", "default"]
Layout = Literal["channels_first", "channels_last"]
DType = Literal["float64", "float32", "float16", "bfloat16"]
InputDType = Literal["float64", "float32", "float16", "bfloat16", "int64", "int32"]

_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _special(value: Any) -> Any:
    return _SPECIAL.get(value, value) if isinstance(value, str) else value


def _exactly(kind: type, wanted: str) -> BeforeValidator:
    """Literals compare with ==, and to Python True == 1 == 1.0; a case means what it says."""

    def check(given: Any) -> Any:
        if given is not None and type(given) is not kind:
            raise ValueError(f"should be {wanted}")
        return given

    return BeforeValidator(check)


Rank = Annotated[Literal[1, 2, 3], _exactly(int, "1, 2 or 3")]
Yes = Annotated[Literal[True], _exactly(bool, "true")]
#: A float; the words nan, inf and -inf are accepted as YAML's .nan, .inf and -.inf are.
Number = Annotated[
    float, BeforeValidator(_special, json_schema_input_type=float | Literal["nan", "inf", "-inf"]), Strict()
]
#: No text passes for a number, and no number for a truth value: a case never runs as something else.
Float = Annotated[float, Strict()]
Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]


class Model(BaseModel):
    """Frozen, and a key that is not a field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Refusal(Model):
    """An exception that is expected, where one is."""

    refuses: Annotated[str | None, Field(description="Name of the exception's type.")] = None
    says: Annotated[str | None, Field(min_length=1, description="Text that its message must contain.")] = None

    @model_validator(mode="after")
    def _said_as_it_refuses(self) -> Self:
        if self.says is not None and self.refuses is None:
            raise ValueError("says is of an exception's message, and goes with refuses")
        return self


class Normal(Model):
    """Draws from a normal distribution, by NumPy's RandomState, whose streams never change (NEP 19)."""

    mean: Float = 0.0
    std: Annotated[Float, Field(ge=0)] = 1.0
    seed: Seed = 0


class Uniform(Model):
    """Draws from a uniform distribution, by NumPy's RandomState."""

    low: Float = 0.0
    high: Float = 1.0
    seed: Seed = 0


class Arange(Model):
    """start, start + step, start + 2·step … in C order."""

    start: Float = 0.0
    step: Float = 1.0


class Replacement(Model):
    """One element set to a value."""

    at: Annotated[tuple[Int, ...], Field(description="Index of the element, one number per dimension.")]
    value: Annotated[Number, Field(alias="with", description="The new value: a number, nan, inf or -inf.")]


GENERATORS = ("values", "constant", "normal", "uniform", "arange")


def _bounded(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not 2 <= len(shape) <= MAX_DIMENSIONS:
        raise ValueError(f"an input has from 2 (N, C) to {MAX_DIMENSIONS} dimensions, not {len(shape)}")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"a tensor of {math.prod(shape):,} elements is over the limit of {MAX_ELEMENTS:,}")
    return shape


def _tensor(values: Any) -> Any:
    """Nested lists with their words turned into numbers, found to be a tensor."""
    if values is not None:
        values = _nested(values)
        _bounded(_shape_of(values))
    return values


def _nested(values: Any) -> Any:
    return [_nested(item) for item in values] if isinstance(values, list | tuple) else _special(values)


def _shape_of(values: Any) -> tuple[int, ...]:
    """The shape of nested lists of numbers.

    Raises:
        ValueError: the lists are ragged or hold something else than numbers.
    """
    if isinstance(values, list | tuple):
        shapes = {_shape_of(item) for item in values}
        if len(shapes) > 1:
            raise ValueError("values are ragged: lists at one depth have different lengths")
        return (len(values), *(shapes.pop() if shapes else ()))
    if isinstance(values, int | float) and not isinstance(values, bool):
        return ()
    raise ValueError(f"values hold {values!r}, which is no number")


class Input(Model):
    """A tensor (N, C, *spatial). Random ones are drawn anew for every step, from (seed, number of the step)."""

    shape: Annotated[
        Annotated[tuple[Annotated[Int, Field(ge=0)], ...], AfterValidator(_bounded)] | None,
        Field(description="(N, C, *spatial), always channels first; `layout` says how the layer meets it."),
    ] = None
    values: Annotated[
        Any,
        BeforeValidator(_tensor, json_schema_input_type=list[Any] | None),
        Field(description="Nested lists of numbers; the shape follows from them."),
    ] = None
    constant: Number | None = None
    normal: Normal | None = None
    uniform: Uniform | None = None
    arange: Arange | None = None
    replace: tuple[Replacement, ...] = ()
    dtype: InputDType = "float32"
    layout: Layout = "channels_first"
    strided: Annotated[Bool, Field(description="Hand the layer a non-contiguous view.")] = False

    @model_validator(mode="after")
    def _one_generator(self) -> Input:
        given = [name for name in GENERATORS if getattr(self, name) is not None]
        if len(given) != 1:
            what = " and ".join(given) if given else "none"
            raise ValueError(f"an input needs exactly one of {', '.join(GENERATORS)}; here is {what}")
        if given == ["values"]:
            if self.shape is not None:
                raise ValueError("an input with values takes its shape from them; leave out shape")
        elif self.shape is None:
            raise ValueError("an input needs a shape (N, C, *spatial)")
        for replacement in self.replace:
            inside = len(replacement.at) == len(self.dimensions) and all(
                0 <= i < n for i, n in zip(replacement.at, self.dimensions, strict=False)
            )
            if not inside:
                raise ValueError(f"replace at {list(replacement.at)} lies outside the shape {list(self.dimensions)}")
        return self

    @cached_property
    def dimensions(self) -> tuple[int, ...]:
        """The tensor's shape, (N, C, *spatial)."""
        return self.shape if self.shape is not None else _shape_of(self.values)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dimensions)

    @property
    def values_per_channel(self) -> int:
        """n = N·∏spatial, what one channel's statistics are taken over."""
        return math.prod(self.dimensions[:1] + self.dimensions[2:])


class Mask(Model):
    """Which values statistics are taken over: (N, *spatial) of booleans, each kept with a probability."""

    keep: Annotated[Float, Field(ge=0, le=1)] = 0.5
    seed: Seed = 0


class Gradient(Model):
    """The cotangent of y, or a tangent of x: draws from a normal distribution.

    Never a plain sum, whose exact input gradient is zero.
    """

    mean: Float = 0.0
    std: Annotated[Float, Field(ge=0)] = 1.0
    seed: Seed = 1


#: In which modes y is differentiated twice.
By = Literal["reverse-over-reverse", "forward-over-reverse", "reverse-over-forward", "forward-over-forward"]


class Second(Model):
    """Standard normal draws v in the shape of x, and the derivatives of Σv·dx by x, γ and dy: ddx, ddgamma and ddy.

    Those of dx, dγ and y along v are the same numbers, and those of Σdy·(y along v) by x and γ; and the derivative of y
    along v and then along dy is ddx.
    """

    seed: Seed = 2
    by: Annotated[
        By, Field(description="What is differentiated last over what is first: backward, or along v, or along dy.")
    ] = "reverse-over-reverse"

    @property
    def mixed(self) -> By | None:
        """The order of the modes where one is forward."""
        return None if self.by == "reverse-over-reverse" else self.by


class InitialValues(Model):
    """A (features,) vector: one number for all, a list, or draws."""

    values: tuple[Number, ...] | None = None
    constant: Number | None = None
    normal: Normal | None = None
    uniform: Uniform | None = None

    @model_validator(mode="after")
    def _one_of(self) -> InitialValues:
        if sum(value is not None for value in (self.values, self.constant, self.normal, self.uniform)) != 1:
            raise ValueError("give a number, a list of numbers, or one of normal and uniform")
        return self


def _vector(given: Any) -> Any:
    if isinstance(given, list):
        return {"values": given}
    if isinstance(given, int | float | str) and not isinstance(given, bool):
        return {"constant": given}
    return given


#: An initial vector in its short forms: a number, a list of numbers.
Vector = Annotated[
    InitialValues, BeforeValidator(_vector, json_schema_input_type=InitialValues | Number | list[Number])
]
