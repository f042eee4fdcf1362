"""A `Case`, one expanded test, and what may be asked of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from conformance.conditions import LAYER_FEATURES, When, matches
from conformance.fields import Input, Rank
from conformance.spec import CaseSpec, Step


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
            "recompute": False,
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
            "mode": tuple(sorted(set(self._modes))),
            "dtype": tuple(sorted({x.dtype for x in inputs})),
            "layout": tuple(sorted({x.layout for x in inputs})),
            "strided": tuple(sorted({x.strided for x in inputs})),
            "dimensions": tuple(sorted({len(x.dimensions) for x in inputs})),
            "values_per_channel": tuple(sorted({x.values_per_channel for x in inputs})),
            "frozen": tuple(sorted({step.frozen for step in self.spec.steps})),
            "second": tuple(sorted({step.second is not None for step in self.spec.steps})),
            "by": tuple(sorted({step.second.by for step in self.spec.steps if step.second is not None})),
            "tangent": tuple(sorted({step.tangent is not None for step in self.spec.steps})),
            "gradient": self.spec.gradient is not None,
            "recompute": self.spec.recompute,
        }
        if self.spec.layer is not None:
            layer = self.spec.layer
            found |= {name: getattr(layer, name) for name in LAYER_FEATURES}
            found["momentum"] = "cumulative" if layer.momentum is None else layer.momentum
            found["layer_dtype"] = layer.dtype or found["dtype"]
        return found

    @cached_property
    def _modes(self) -> tuple[str, ...]:
        """The mode of every step, in torch's terms: default is the one named last, and default where none was."""
        modes: list[str] = []
        for step in self.spec.steps:
            modes.append(modes[-1] if step.mode == "default" and modes else step.mode)
        return tuple(modes)

    def meets(self, when: When, facts: dict[str, Any]) -> bool:
        """Whether a condition holds of the case on a target of these facts: where it speaks of steps, of one of them.

        "One value per channel, in training" means both of the same step.
        """
        return not when or any(matches(when, facts, step) for step in self._occasions)

    @cached_property
    def _occasions(self) -> tuple[dict[str, Any], ...]:
        """What a `when:` may ask of the case and one of its steps, of every step in which that is something else."""
        if self.kind == "signature":
            return (self.features,)
        occasions: list[dict[str, Any]] = []
        for index, (step, mode) in enumerate(zip(self.spec.steps, self._modes, strict=True)):
            x = self.input_of(index)
            occasion = {
                **self.features,
                "mode": mode,
                "dtype": x.dtype,
                "layout": x.layout,
                "strided": x.strided,
                "dimensions": len(x.dimensions),
                "values_per_channel": x.values_per_channel,
                "frozen": step.frozen,
                "second": step.second is not None,
                "by": None if step.second is None else step.second.by,
                "tangent": step.tangent is not None,
            }
            if occasion not in occasions:
                occasions.append(occasion)
        return tuple(occasions)
