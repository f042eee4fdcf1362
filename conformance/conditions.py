"""Conditions, `when:` and `version:`: which targets and cases a statement holds for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

#: A condition on a target or a case: key → the value, a list of values, or a comparison such as ">=2.7".
When = dict[str, bool | int | float | str | list[bool | int | float | str]]

#: Parameters of the layer that a `when:` may ask of a case.
LAYER_FEATURES = ("eps", "scale", "center", "track_running_stats")
#: Facts of a target that a `when:` may ask for.
TARGET_FACTS = ("version", "device", "execution", "backend", "cpus")
#: Every key that a `when:` may use: facts of the target, then features of the case.
CONDITIONS = frozenset(
    {
        *TARGET_FACTS,
        *("kind", "rank", "mode", "dtype", "layer_dtype", "layout", "strided", "dimensions"),
        *("values_per_channel", "frozen", "gradient", "second", "by", "tangent", "recompute"),
        *("momentum", *LAYER_FEATURES),
    }
)


def matches(when: When, facts: Mapping[str, Any], features: Mapping[str, Any] | None = None) -> bool:
    """Whether a condition holds of the facts of a target and the features of a case; facts go before features.

    Raises:
        ValueError: a version range is not one.
    """
    for key, wanted in when.items():
        fact = facts.get(key) if features is None or key in facts else features.get(key)
        if not _holds(wanted, fact, key):
            return False
    return True


def _holds(wanted: Any, fact: Any, key: str) -> bool:
    if isinstance(wanted, list):
        return any(_holds(one, fact, key) for one in wanted)
    if isinstance(fact, tuple):
        return any(_holds(wanted, one, key) for one in fact)
    if fact is None:
        return False
    if key == "version":
        return _within(str(wanted), str(fact))
    if isinstance(wanted, str) and isinstance(fact, int | float) and not isinstance(fact, bool):
        for sign, holds in _COMPARISONS:
            if wanted.startswith(sign):
                return bool(holds(fact, float(wanted[len(sign) :])))
        return False
    return bool(wanted == fact)


@cache
def _within(versions: str, version: str) -> bool:
    """Whether a version is in a range."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        release = Version(version).base_version  # 2.13.0+cpu, and a pre-release, count as their release
    except InvalidVersion:
        return False  # a build from a commit meets no range
    return SpecifierSet(versions).contains(release)


_COMPARISONS: tuple[tuple[str, Any], ...] = (
    ("<=", lambda a, b: a <= b),
    (">=", lambda a, b: a >= b),
    ("<", lambda a, b: a < b),
    (">", lambda a, b: a > b),
)
