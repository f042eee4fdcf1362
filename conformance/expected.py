"""What a tensor should be, and how far it may be from that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from conformance.arithmetic import Array


@dataclass(frozen=True)
class Expected:
    """What a tensor should be.

    Attributes:
        value: the exact values, in the arithmetic they were computed in.
        bound: largest admitted absolute error, float64, in the shape of `value`.
        dtype: name of the dtype a target must return; None for exact counters, which may be of any integer type.
        optional: a target that does not return it is not at fault.
        grid: name of the coarser dtype whose numbers alone it may hold; None: any.
    """

    value: Array
    bound: Array
    dtype: str | None
    optional: bool = False
    grid: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor."""
        return self.value.shape

    @property
    def parts(self) -> Iterable[Expected]:
        """The same in parts, some channels (axis 1) after others; all at once where it is small."""
        return (self,)

    def at(self, place: tuple[int, ...]) -> tuple[Any, Any]:
        """Value and bound of one element."""
        return self.value[place], self.bound[place]


class InChannels(Expected):
    """A large tensor, (N, C, *spatial), in parts, which are not put together where nobody asks for all of it."""

    _shape: tuple[int, ...]
    _parts: Iterable[Expected]

    def __init__(self, shape: tuple[int, ...], parts: Iterable[Expected]) -> None:
        """What some channels after others should be.

        Args:
            shape: of all of it.
            parts: may be gone through again and again; alike in all but their channels.
        """
        first = next(iter(parts))
        fields = {"dtype": first.dtype, "optional": first.optional, "grid": first.grid}
        vars(self).update(fields, _shape=shape, _parts=parts)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def parts(self) -> Iterable[Expected]:
        return self._parts

    @cached_property
    def value(self) -> Array:
        return np.concatenate([part.value for part in self.parts], 1)

    @cached_property
    def bound(self) -> Array:
        return np.concatenate([part.bound for part in self.parts], 1)

    def at(self, place: tuple[int, ...]) -> tuple[Any, Any]:
        sample, channel, *rest = place
        for part in self.parts:
            if channel < part.shape[1]:
                return part.at((sample, channel, *rest))
            channel -= part.shape[1]
        raise IndexError(f"there is no channel {place[1]}")
