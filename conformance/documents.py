"""What a document says against what a target shows: printed numbers, and a constructor's parameters."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import numpy as np

from conformance.arithmetic import Array, Double
from conformance.compare import TensorResult, compare
from conformance.expected import Expected
from conformance.spec import SignatureText

#: What the name of a tensor ends with that is held against the numbers of a document.
AS_DOCUMENTED = " as documented"

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|[-+]?inf")


def printed_numbers(text: str) -> tuple[list[float], list[float]]:
    """The numbers that a document prints, and half a unit of the last digit of each."""
    printed = _NUMBER.findall(text)
    return [float(number) for number in printed], [_half_unit(number) for number in printed]


def against_document(observed: Array, exact: Expected, text: str) -> TensorResult:
    """A tensor against the numbers a document prints, which must be its elements in order, or one for all.

    They may be apart by the bound and half a unit of the last digit printed.
    """
    printed, half_units = printed_numbers(text)
    if len(printed) not in (1, observed.size):
        return TensorResult(None, problem=f"has {observed.size} elements, the document prints {len(printed)}")
    shape = observed.shape if len(printed) > 1 else (1,) * observed.ndim
    wanted = np.broadcast_to(np.array(printed).reshape(shape), observed.shape)
    rounding = np.array(half_units).reshape(shape)
    bound = np.asarray(exact.bound, np.float64) + rounding
    numbers = observed.astype(np.float64) if exact.dtype is None else observed  # a counter has no rounding
    return compare(numbers, "", Expected(wanted, bound, numbers.dtype.name), "", Double())


def _half_unit(number: str) -> float:
    """Half a unit of the last digit printed: 0.00005 for 0.9995."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 0.5 * 10.0 ** (int(exponent or 0) - decimals)


def against_signature(real: Sequence[tuple[str, str | None]], documented: SignatureText) -> dict[str, str]:
    """How a constructor's parameters differ from the documented ones: kind of difference → what differs."""
    defaults = dict(real)
    added = [name if text is None else f"{name}={text}" for name, text in real if name not in documented]
    removed = [name for name in documented if name not in defaults]
    changed = [
        f"{name}={defaults[name]}, documented {text}"
        for name, text in documented.items()
        if name in defaults and not _same_default(defaults[name], text)
    ]
    kept = [name for name, _ in real if name in documented]
    moved = kept != [name for name in documented if name in defaults]
    found = {
        "added": ", ".join(added),
        "removed": ", ".join(removed),
        "changed": "; ".join(changed),
        "reordered": ", ".join(kept) if moved else "",
    }
    return {kind: words for kind, words in found.items() if words}


def _same_default(real: str | None, documented: str | None) -> bool:
    """Equal as Python values, so that 1e-5 is 1e-05, though True is not 1; as text where they are no literals."""
    if real is None or documented is None:
        return real is documented
    try:
        a, b = ast.literal_eval(real), ast.literal_eval(documented)
    except (ValueError, TypeError, SyntaxError):
        return real == documented
    return isinstance(a, bool) is isinstance(b, bool) and bool(a == b)
