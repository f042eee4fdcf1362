"""A case as a file says it: the models of the YAML format, down to `CaseSpec`.

Every field's description is what `conformance schema` publishes. Canonical parameters mean what they mean in torch.
"""

from __future__ import annotations

import keyword
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from conformance.conditions import When
from conformance.fields import (
    Bool,
    DType,
    Float,
    Gradient,
    Input,
    Int,
    Mask,
    Mode,
    Model,
    Rank,
    Refusal,
    Second,
    Vector,
    Yes,
)

#: The version of the file format; `conformance: 1` marks a YAML file as ours.
FORMAT = 1


def _argument(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError("is no argument's name")
    return name


#: Of a constructor: what scripts write as it stands.
Argument = Annotated[str, AfterValidator(_argument)]


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


class Assigned(Model):
    """Attributes of the layer that are assigned, as `bn.eps = 1e-3` does, in canonical terms; they stay so."""

    eps: Float | None = None
    momentum: Annotated[Float | None, Field(description="Weighs the new batch.")] = None

    @model_validator(mode="after")
    def _something(self) -> Assigned:
        if not self.values:
            raise ValueError("nothing is assigned; give eps or momentum")
        return self

    @property
    def values(self) -> dict[str, float]:
        """What is assigned."""
        return {name: value for name, value in (("eps", self.eps), ("momentum", self.momentum)) if value is not None}


class Step(Model):
    """One call of the layer. What it leaves out, the case's own fields give."""

    mode: Mode
    input: Input | None = None
    gradient: Gradient | None = None
    frozen: Annotated[Bool, Field(description="The layer's parameters are marked as not to be trained.")] = False
    save_load: Annotated[Bool, Field(description="Through the framework's checkpoint into a new layer first.")] = False
    mask: Annotated[Mask | None, Field(description="Values that count, (N, *spatial); Keras alone takes one.")] = None
    reread: Annotated[Bool, Field(description="Read x again after the call: it must be what it was.")] = False
    assign: Annotated[Assigned | None, Field(description="Attributes that are assigned before the call.")] = None
    second: Annotated[Second | None, Field(description="Second derivatives, of a step with a cotangent.")] = None
    tangent: Annotated[
        Gradient | None, Field(description="Of x: y is differentiated along it in forward mode, not backward.")
    ] = None


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


class Expectation(Refusal):
    """A result other than agreement that a case expects of one framework, and why."""

    diverges: Annotated[str | None, Field(description="Name of the diagnosis, or unexplained.")] = None
    inaccurate: Annotated[Yes | None, Field(description="Within the weak bound only.")] = None
    crashes: Annotated[Yes | None, Field(description="The process dies.")] = None
    because: Annotated[str, Field(min_length=1)]
    version: Annotated[str | None, Field(description="Versions it holds for, such as '>=2.7'.")] = None
    when: Annotated[When, Field(description="Facts of target and case it holds for.")] = Field({})

    @model_validator(mode="after")
    def _one_result(self) -> Expectation:
        given = [name for name in ("refuses", "diverges", "inaccurate", "crashes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("an expectation names exactly one of refuses, diverges, inaccurate and crashes")
        return self

    @property
    def verdict(self) -> Literal["refused", "divergent", "inaccurate", "crashed"]:
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
TENSOR = r"^(y|jvp|dx|dgamma|dbeta|ddx|ddgamma|ddy|gamma|beta|running_mean|running_var|num_batches_tracked)\[\d+\]$"


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
SignatureText = dict[Argument, str | None]


class CaseSpec(Model):
    """One case after defaults and matrix: a canonical `layer`, or `native` arguments, or a `signature`."""

    why: Annotated[str, Field(min_length=1, description="Why the case exists, with its source.")]
    layer: Layer | None = None
    native: Annotated[
        dict[str, dict[Argument, Any]] | None,
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
    recompute: Annotated[
        Bool, Field(description="Keep no activations: the backward pass of every step runs the layer again.")
    ] = False
    carried: Annotated[
        Carried | None, Field(description="The layer starts from what one of another framework was trained to.")
    ] = None
    beside: Annotated[
        Beside | None, Field(description="Another layer that runs first; results must not depend on it.")
    ] = None
    expect: dict[str, Expectations] = Field({})
    documented: dict[str, Documented] = Field({})

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
            if step.second.mixed and self.recompute:
                raise ValueError(f"step {index} differentiates twice in forward mode; have it do so, or recompute")
            if given is not None and given.dtype not in ("float32", "float64"):
                raise ValueError(
                    f"step {index} has second derivatives of {given.dtype}; float32 and float64 alone have bounds"
                )
        return self

    @model_validator(mode="after")
    def _tangents(self) -> CaseSpec:
        for index, step in enumerate(self.steps):
            given = step.input or self.input
            if step.tangent is None:
                continue
            besides = ("gradient", "second", "mask")
            beside = next((name for name in besides if getattr(step, name) is not None), None)
            if beside is not None:
                raise ValueError(f"step {index} has a tangent, and so no {beside} of its own")
            if self.recompute:
                raise ValueError(f"step {index} has a tangent, and so no backward pass that could recompute")
            if given is not None and "float" not in given.dtype:
                raise ValueError(f"step {index} has a tangent of {given.dtype}; integers have none")
        return self

    @model_validator(mode="after")
    def _something_to_recompute(self) -> CaseSpec:
        if self.recompute and self.gradient is None and all(step.gradient is None for step in self.steps):
            raise ValueError("nothing is recomputed without a backward pass; give the case a gradient")
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
        if any(step.assign is not None for step in self.steps):
            if self.layer is None:
                raise ValueError("only attributes of a layer in canonical terms can be assigned")
            if any(step.save_load for step in self.steps):
                raise ValueError("what a checkpoint is loaded into has what it was made with; assign, or save and load")
        if self.signature is not None:
            if self.rank is None:
                raise ValueError("a signature case needs a rank")
            return self
        if self.input is None and any(step.input is None for step in self.steps):
            raise ValueError("a case needs an input, or one in every step")
        return self
