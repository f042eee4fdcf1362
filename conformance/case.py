"""What a case says: the models of the YAML file format, and a `Case`, one expanded test.

Every field's description is what `conformance schema` publishes. Canonical parameters mean what they mean in torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

#: The version of the file format; `conformance: 1` marks a YAML file as ours.
FORMAT = 1

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
    """The cotangent of y: draws from a normal distribution. Never a plain sum, whose exact input gradient is zero."""

    mean: Float = 0.0
    std: Annotated[Float, Field(ge=0)] = 1.0
    seed: Seed = 1


class Second(Model):
    """The cotangent v of dx, standard normal draws. Σv·dx is differentiated by x, γ and dy: ddx, ddgamma and ddy."""

    seed: Seed = 2


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


class Initial(Model):
    """Parameters and statistics to start from, in place of γ = 1, β = 0, running_mean = 0, running_var = 1."""

    gamma: Vector | None = None
    beta: Vector | None = None
    running_mean: Vector | None = None
    running_var: Vector | None = None


class Layer(Model):
    """A BatchNorm layer in canonical terms, which are torch's."""

    rank: Annotated[
        Rank | None, Field(description="1, 2 or 3, as in BatchNorm1d, 2d and 3d; null: as the input has.")
    ] = None
    features: Annotated[Int | None, Field(ge=1, le=10**6, description="Channels; null: as the input has.")] = None
    eps: Float = 1e-5
    momentum: Annotated[Float | None, Field(description="Weighs the new batch; null: cumulative average.")] = 0.1
    scale: Annotated[Bool, Field(description="Learn γ.")] = True
    center: Annotated[Bool, Field(description="Learn β.")] = True
    track_running_stats: Bool = True
    dtype: Annotated[DType | None, Field(description="Of parameters and statistics; null: as the input's.")] = None
    initial: Initial = Initial()


class Step(Model):
    """One call of the layer. What it leaves out, the case's own fields give."""

    mode: Mode
    input: Input | None = None
    gradient: Gradient | None = None
    frozen: Annotated[Bool, Field(description="The layer's parameters are marked as not to be trained.")] = False
    save_load: Annotated[Bool, Field(description="Through the framework's checkpoint into a new layer first.")] = False
    mask: Annotated[Mask | None, Field(description="Values that count, (N, *spatial); Keras alone takes one.")] = None
    reread: Annotated[Bool, Field(description="Read x again after the call: it must be what it was.")] = False
    second: Annotated[Second | None, Field(description="Second derivatives, of a step with a cotangent.")] = None


class Carried(Model):
    """State that another layer arrived at, as when a trained model is ported."""

    source: Annotated[str, Field(alias="from", min_length=1, description="The framework that the layer is trained in.")]
    steps: Annotated[tuple[Mode, ...], Field(min_length=1, max_length=100, description="What it does before.")] = (
        "train",
    )


#: A step, or the bare name of its mode.
ShortStep = Annotated[
    Step,
    BeforeValidator(
        lambda given: {"mode": given} if isinstance(given, str) else given, json_schema_input_type=Step | Mode
    ),
]


class Beside(Model):
    """Another layer, built and called once before the case's own in the same process, and thrown away.

    Whatever comes of it, a refusal included: the case's results must be the same. Its layer and its input start from
    the case's, without `initial`.
    """

    layer: Layer = Layer()
    mode: Mode = "train"
    input: Input | None = None


#: A condition on a target or a case: key → the value, a list of values, or a comparison such as ">=2.7".
When = dict[str, bool | int | float | str | list[bool | int | float | str]]


class Expectation(Model):
    """A result other than agreement that a case expects of one framework, and why."""

    refuses: Annotated[str | None, Field(description="Name of the exception's type.")] = None
    diverges: Annotated[str | None, Field(description="Name of the diagnosis, or unexplained.")] = None
    inaccurate: Annotated[Yes | None, Field(description="Within the weak bound only.")] = None
    crashes: Annotated[Yes | None, Field(description="The process dies.")] = None
    because: Annotated[str, Field(min_length=1)]
    version: Annotated[str | None, Field(description="Versions it holds for, such as '>=2.7'.")] = None
    when: Annotated[When, Field(description="Facts of target and case it holds for.")] = {}

    @model_validator(mode="after")
    def _one_result(self) -> Expectation:
        given = [name for name in ("refuses", "diverges", "inaccurate", "crashes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("an expectation names exactly one of refuses, diverges, inaccurate and crashes")
        return self

    @property
    def verdict(self) -> str:
        """The verdict expected."""
        if self.refuses is not None:
            return "refused"
        if self.diverges is not None:
            return "divergent"
        return "inaccurate" if self.inaccurate else "crashed"

    @property
    def condition(self) -> When:
        """`when` and `version` as one condition."""
        return {**self.when, **({"version": self.version} if self.version else {})}


#: A tensor of one step, from 0: y[0], running_var[1].
TENSOR = r"^(y|dx|dgamma|dbeta|ddx|ddgamma|ddy|gamma|beta|running_mean|running_var|num_batches_tracked)\[\d+\]$"


class Documented(Model):
    """Numbers that a document prints for one framework, compared to the digits printed."""

    source: Annotated[str, Field(min_length=1, description="The document.")]
    tensors: Annotated[
        dict[Annotated[str, Field(pattern=TENSOR)], str],
        Field(description="Tensor such as 'y[0]' → the printed numbers in order, brackets and all, as text."),
    ]


Expectations = Annotated[
    tuple[Expectation, ...],
    BeforeValidator(
        lambda given: given if isinstance(given, list | tuple) else [given],
        json_schema_input_type=Expectation | list[Expectation],
    ),
]
#: Parameters of a documented constructor: name → default as the document prints it, null where there is none.
SignatureText = dict[str, str | None]


class CaseSpec(Model):
    """One case after defaults and matrix: a canonical `layer`, or `native` arguments, or a `signature`."""

    why: Annotated[str, Field(min_length=1, description="Why the case exists, with its source.")]
    layer: Layer | None = None
    native: Annotated[
        dict[str, dict[str, Any]] | None,
        Field(description="Framework → constructor arguments exactly as a user types them."),
    ] = None
    signature: Annotated[
        dict[str, SignatureText] | None,
        Field(description="Framework → the documented parameters and defaults of its constructor, in order."),
    ] = None
    excerpt: Annotated[Bool, Field(description="The signature names some parameters; there may be others.")] = False
    rank: Annotated[Rank | None, Field(description="Of native and signature cases; null: from the input.")] = None
    input: Input | None = None
    steps: Annotated[tuple[ShortStep, ...], Field(min_length=1, max_length=1000)] = (Step(mode="train"),)
    gradient: Annotated[
        Gradient | None, Field(description="Cotangent of every step; null: no gradients are taken.")
    ] = None
    repeat: Annotated[
        Int, Field(ge=1, le=100, description="Run the case so many times, in new layers: every bit must be the same.")
    ] = 1
    carried: Annotated[
        Carried | None, Field(description="The layer starts from what one of another framework was trained to.")
    ] = None
    beside: Annotated[
        Beside | None, Field(description="Another layer that runs first; results must not depend on it.")
    ] = None
    expect: dict[str, Expectations] = {}
    documented: dict[str, Documented] = {}

    @model_validator(mode="before")
    @classmethod
    def _gradient_by_default(cls, given: Any) -> Any:
        """A canonical layer gets a cotangent unless the case declines it."""
        if isinstance(given, dict) and "gradient" not in given and given.get("layer") is not None:
            return {**given, "gradient": {}}
        return given

    @model_validator(mode="after")
    def _second_derivatives(self) -> CaseSpec:
        for index, step in enumerate(self.steps):
            given = step.input or self.input
            if step.second is None:
                continue
            if step.gradient is None and self.gradient is None:
                raise ValueError(f"step {index} has second derivatives and no gradient; give it a gradient")
            if step.mask is not None:
                raise ValueError(f"step {index} has second derivatives and a mask, for which there is no reference")
            if given is not None and given.dtype not in ("float32", "float64"):
                raise ValueError(
                    f"step {index} has second derivatives of {given.dtype}; float32 and float64 alone have bounds"
                )
        return self

    @model_validator(mode="after")
    def _one_kind(self) -> CaseSpec:
        kinds = [name for name in ("layer", "native", "signature") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError("a case has exactly one of layer, native and signature")
        if self.carried is not None and self.layer is None:
            raise ValueError("only a layer in canonical terms can be carried from one framework to another")
        if self.carried is not None and self.input is None:
            raise ValueError("a layer that is carried needs the case's input for what it does before")
        if self.beside is not None and self.layer is None:
            raise ValueError("a case with another layer beside it has a layer of its own")
        if self.signature is not None:
            if self.rank is None:
                raise ValueError("a signature case needs a rank")
            return self
        if self.input is None and any(step.input is None for step in self.steps):
            raise ValueError("a case needs an input, or one in every step")
        return self


def rank_of(given: Rank | None, first: Input) -> Rank:
    """The rank that is given, or that of a layer which takes this input."""
    by_dimensions: dict[int, Rank] = {2: 1, 3: 1, 4: 2, 5: 3}
    return given or by_dimensions.get(len(first.dimensions), 2)


@dataclass(frozen=True)
class Case:
    """One expanded test.

    Attributes:
        id: ``file/case[key=value]``, stable and unique.
        file: the YAML file's path, as it was named.
        line: line of the case in that file, from 1.
        about: what the file is about.
        matrix: the values that this expansion fixed, dotted path → value.
    """

    id: str
    file: str
    line: int
    about: str
    spec: CaseSpec
    matrix: dict[str, Any]

    @property
    def topic(self) -> str:
        """The file part of the id."""
        return self.id.partition("[")[0].rpartition("/")[0]

    @property
    def kind(self) -> Literal["layer", "native", "signature"]:
        if self.spec.layer is not None:
            return "layer"
        return "native" if self.spec.native is not None else "signature"

    @property
    def frameworks(self) -> frozenset[str] | None:
        """The frameworks that the case speaks to; None for all."""
        named = self.spec.native if self.spec.native is not None else self.spec.signature
        return None if named is None else frozenset(named)

    @property
    def source(self) -> Case | None:
        """The layer that this case's starts from, as a case of its own; None where it starts from `initial`."""
        carried = self.spec.carried
        if carried is None:
            return None
        steps = tuple(Step(mode=mode) for mode in carried.steps)
        changes: dict[str, Any] = {
            "carried": None,
            "beside": None,
            "steps": steps,
            "gradient": None,
            "repeat": 1,
            "expect": {},
            "documented": {},
        }
        return replace(self, spec=self.spec.model_copy(update=changes))

    def input_of(self, step: int) -> Input:
        """The input of a step, its own or the case's."""
        found = self.spec.steps[step].input or self.spec.input
        assert found is not None  # CaseSpec._one_kind
        return found

    @property
    def rank(self) -> Rank:
        given = self.spec.rank if self.spec.layer is None else self.spec.layer.rank
        return given or rank_of(None, self.input_of(0))  # a signature case has its rank, and no input

    @cached_property
    def features(self) -> dict[str, Any]:
        """What a `when:` may ask of a case; a tuple where several values hold at once."""
        if self.kind == "signature":
            return {"kind": self.kind, "rank": self.rank}
        inputs = [self.input_of(step) for step in range(len(self.spec.steps))]
        found: dict[str, Any] = {
            "kind": self.kind,
            "rank": self.rank,
            "mode": tuple(sorted({step.mode for step in self.spec.steps})),
            "dtype": tuple(sorted({x.dtype for x in inputs})),
            "layout": tuple(sorted({x.layout for x in inputs})),
            "dimensions": tuple(sorted({len(x.dimensions) for x in inputs})),
            "values_per_channel": tuple(sorted({x.values_per_channel for x in inputs})),
            "frozen": tuple(sorted({step.frozen for step in self.spec.steps})),
            "second": tuple(sorted({step.second is not None for step in self.spec.steps})),
            "gradient": self.spec.gradient is not None,
        }
        if self.spec.layer is not None:
            layer = self.spec.layer
            found |= {name: getattr(layer, name) for name in _LAYER_FEATURES}
            found["momentum"] = "cumulative" if layer.momentum is None else layer.momentum
            found["layer_dtype"] = layer.dtype or found["dtype"]
        return found

    def meets(self, when: When, facts: dict[str, Any]) -> bool:
        """Whether a condition holds of the case on a target of these facts: where it speaks of steps, of one of them.

        "One value per channel, in training" means both of the same step.
        """
        return any(matches(when, {**self.features, **step, **facts}) for step in self._occasions)

    @cached_property
    def _occasions(self) -> tuple[dict[str, Any], ...]:
        """What a `when:` may ask of each step."""
        if self.kind == "signature":
            return ({},)
        steps = [(step, self.input_of(index)) for index, step in enumerate(self.spec.steps)]
        return tuple(
            {
                "mode": step.mode,
                "dtype": x.dtype,
                "layout": x.layout,
                "dimensions": len(x.dimensions),
                "values_per_channel": x.values_per_channel,
                "frozen": step.frozen,
                "second": step.second is not None,
            }
            for step, x in steps
        )


_LAYER_FEATURES = ("eps", "scale", "center", "track_running_stats")
#: Every key that a `when:` may use: facts of the target, then features of the case.
CONDITIONS = frozenset(
    {
        *("version", "device", "execution", "backend"),
        *("kind", "rank", "mode", "dtype", "layer_dtype", "layout", "dimensions", "values_per_channel"),
        *("frozen", "gradient", "second", "momentum", *_LAYER_FEATURES),
    }
)


def matches(when: When, facts: dict[str, Any]) -> bool:
    """Whether a condition holds of the facts of a target and the features of a case.

    Raises:
        ValueError: a version range is not one.
    """
    return all(_holds(wanted, facts.get(key), key) for key, wanted in when.items())


def _holds(wanted: Any, fact: Any, key: str) -> bool:
    if isinstance(wanted, list):
        return any(_holds(one, fact, key) for one in wanted)
    if isinstance(fact, tuple):
        return any(_holds(wanted, one, key) for one in fact)
    if fact is None:
        return False
    if key == "version":
        from packaging.specifiers import SpecifierSet
        from packaging.version import InvalidVersion, Version

        try:
            release = Version(str(fact)).base_version  # 2.13.0+cpu, and a pre-release, count as their release
        except InvalidVersion:
            return False  # a build from a commit meets no range
        return SpecifierSet(str(wanted)).contains(release)
    if isinstance(wanted, str) and isinstance(fact, int | float) and not isinstance(fact, bool):
        for sign, holds in _COMPARISONS:
            if wanted.startswith(sign):
                return bool(holds(fact, float(wanted[len(sign) :])))
        return False
    return bool(wanted == fact)


_COMPARISONS: tuple[tuple[str, Any], ...] = (
    ("<=", lambda a, b: a <= b),
    (">=", lambda a, b: a >= b),
    ("<", lambda a, b: a < b),
    (">", lambda a, b: a > b),
)
