"""One target's tensors beside the readings of its case."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.arithmetic import Array
from conformance.compare import TensorResult, compare_all
from conformance.conventions import Conventions
from conformance.documents import AS_DOCUMENTED, against_document
from conformance.expected import Expected
from conformance.observation import Observation
from conformance.oracle import Oracle
from conformance.problem import from_wire
from conformance.profile import Profile
from conformance.rounding import Grade
from conformance.together import Together


@dataclass(frozen=True)
class Under:
    """A target as far as judging it goes: its name, its profile and the facts it stated."""

    name: str
    profile: Profile
    facts: Mapping[str, Any]


class Comparison:
    """Holds what a target returned against its case under any conventions.

    Readings share tensors: one that was held against the same expectation before is not compared again.

    Attributes:
        observed: tensor such as ``y[0]`` → what was returned.
    """

    def __init__(
        self, oracle: Oracle, under: Under, observation: Observation, observed: dict[str, Array] | None = None
    ) -> None:
        """Open what was returned.

        Args:
            observed: those of the channels that the oracle is of; None: all.
        """
        self.oracle = oracle
        self.under = under
        self.observation = observation
        self._of_some = observed is not None
        self.observed = observed or {name: from_wire(wire) for name, wire in observation.tensors.items()}
        self._device = str(under.facts.get("device", "cpu"))
        self._readings: dict[tuple[Conventions, Grade], Mapping[str, TensorResult]] = {}
        self._tensors: dict[tuple[str, int], tuple[Expected | None, TensorResult, Together | None]] = {}

    def check(
        self, conventions: Conventions, first: Collection[str] = (), grade: Grade = "strict"
    ) -> Mapping[str, TensorResult]:
        """Every tensor that is expected or was returned, and every one that a document prints for this framework.

        Where one of those that come `first` is wrong, there are no others.
        """
        conventions = self.oracle.effective(conventions)
        found = self._readings.get((conventions, grade))
        if found is None:
            expected = self.oracle.expected(self.under.profile, conventions, grade)
            results = self._results(first, expected)
            if not all(result.ok for result in results.values()):
                return results
            names = dict.fromkeys((*expected, *self.observed))
            results |= self._results((name for name in names if name not in results), expected)
            found = self._readings[conventions, grade] = results | self._documented(expected)
        return found

    def nearer(self, conventions: Conventions, base: Conventions, names: Collection[str]) -> float:
        """The worst error of some tensors under the conventions, by the strict bounds of others.

        A reading may admit a tensor by what it does to the bound; its values are then no nearer to what was returned.
        """
        expected = self.oracle.within(self.under.profile, conventions, base)
        results = self._results((name for name in names if name in expected and name in self.observed), expected)
        return max((result.off for result in results.values()), default=0.0)

    def of_channel(self, channel: int) -> Comparison | None:
        """The same of one channel of a large case, as far as no channel bears on another; None of a small case.

        A document, which prints all channels, is left out.
        """
        oracle = self.oracle.of_channel(channel)
        if oracle is None:
            return None
        only = slice(channel, channel + 1)
        observed = {
            name: value[:, only] if value.ndim > 1 else value[only] if value.ndim else value
            for name, value in self.observed.items()
        }
        return Comparison(oracle, self.under, self.observation, observed)

    def blank(self, names: Iterable[str]) -> bool:
        """Whether nothing but NaN was returned of some tensors."""
        return all(np.isnan(self.observed[name].astype(np.float64)).all() for name in names if name in self.observed)

    def compared(self, name: str, expected: Expected) -> Together | None:
        """What a tensor was compared together with, if that is kept."""
        return self._tensors.get((name, id(expected)), (None, None, None))[2]

    def _results(self, names: Iterable[str], expected: Mapping[str, Expected]) -> dict[str, TensorResult]:
        """In the order of the names."""
        found: dict[str, TensorResult | None] = {}
        new: dict[str, tuple[Array | None, str, Expected | None]] = {}
        for name in names:
            wire, wanted = self.observation.tensors.get(name), expected.get(name)
            _, found[name], _ = self._tensors.get((name, id(wanted)), (None, None, None))
            if found[name] is not None:
                continue
            if wire is not None or (wanted is not None and not wanted.optional):
                new[name] = self.observed.get(name), self._device if wire is None else wire.device, wanted
        if new:
            if len(self._tensors) > self.oracle.keeps:
                self._tensors.clear()
            kept: list[Together] = []
            results = compare_all(new, self._device, self.oracle.arithmetic, kept)
            together = {name: each for each in kept for name in each.tensors}
            for name, result in results.items():
                found[name], (*_, wanted) = result, new[name]
                self._tensors[name, id(wanted)] = wanted, result, together.get(name)  # the first keeps its id to itself
        return {name: result for name, result in found.items() if result is not None}

    def _documented(self, expected: Mapping[str, Expected]) -> dict[str, TensorResult]:
        if self._of_some:
            return {}
        document = self.oracle.problem.case.spec.documented.get(self.under.profile.framework)
        return {
            f"{name}{AS_DOCUMENTED}": against_document(self.observed[name], expected[name], text)
            if name in self.observed and name in expected
            else TensorResult(None, problem="is missing")
            for name, text in (document.tensors if document else {}).items()
        }
