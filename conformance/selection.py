"""``-k``: choose cases by parts of their ids, with and, or, not and parentheses, as pytest's own ``-k`` does."""

from __future__ import annotations

import re
from collections.abc import Callable

from conformance.errors import UsageError

Predicate = Callable[[str], bool]

_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")


def selector(expression: str) -> Predicate:
    """A predicate over case ids; an empty expression holds for all. Words are matched without regard to case.

    Raises:
        UsageError: the expression is malformed.
    """
    tokens = _TOKEN.findall(expression)
    if not tokens:
        return lambda _: True
    predicate, rest = _either(tokens)
    if rest:
        raise UsageError(f"-k {expression!r}: unexpected {rest[0]!r}")
    return predicate


def _either(tokens: list[str]) -> tuple[Predicate, list[str]]:
    left, tokens = _both(tokens)
    while tokens and tokens[0] == "or":
        right, tokens = _both(tokens[1:])
        left = _or(left, right)
    return left, tokens


def _both(tokens: list[str]) -> tuple[Predicate, list[str]]:
    left, tokens = _one(tokens)
    while tokens and tokens[0] == "and":
        right, tokens = _one(tokens[1:])
        left = _and(left, right)
    return left, tokens


def _one(tokens: list[str]) -> tuple[Predicate, list[str]]:
    if not tokens or tokens[0] in ("and", "or", ")"):
        raise UsageError(f"-k: a word was expected{f' before {tokens[0]!r}' if tokens else ' at the end'}")
    head, *rest = tokens
    if head == "not":
        inner, rest = _one(rest)
        return (lambda id_: not inner(id_)), rest
    if head == "(":
        inner, rest = _either(rest)
        if not rest or rest[0] != ")":
            raise UsageError("-k: a closing parenthesis is missing")
        return inner, rest[1:]
    word = head.lower()
    return (lambda id_: word in id_.lower()), rest


def _and(a: Predicate, b: Predicate) -> Predicate:
    return lambda id_: a(id_) and b(id_)


def _or(a: Predicate, b: Predicate) -> Predicate:
    return lambda id_: a(id_) or b(id_)
