"""Why there is nothing to run, in words: what was chosen leaves no case for these targets, or no target at all."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from conformance.carried import source_of
from conformance.case import Case
from conformance.errors import NothingToRun
from conformance.session import targets_of
from conformance.target import Target


def nothing_to_run(chosen: Collection[Case], targets: Sequence[Target], select: str) -> NothingToRun:
    """The error that says why.

    Args:
        chosen: the cases that the paths and the expression leave, whomever they speak to.
        select: the expression of ``-k``; empty if there was none.
    """
    if not targets:
        return NothingToRun("no framework is installed here", hint="install one, or name a target with -t")
    if not chosen:
        hint = f"conformance {'list shows the ids' if select else 'validate says what is there'}"
        return NothingToRun(f"no case was selected{f' by -k {select!r}' if select else ''}", hint=hint)
    names = ", ".join(target.name for target in targets)
    orphaned = [case.spec.carried for case in chosen if case.spec.carried is not None and not source_of(case, targets)]
    if len(orphaned) == len(chosen):
        needed = sorted({carried.source for carried in orphaned})
        why = f"a layer is carried over from {_either(needed)}, and there is only {names}"
    else:
        needed = sorted({name for case in chosen for name in case.frameworks or ()})
        why = f"they speak to {_either(needed)}, not to {names}"
    count = f"{len(chosen):,} case{'' if len(chosen) == 1 else 's'}"
    hint = f"add {_either([f'-t {name}' for name in needed])}"
    return NothingToRun(f"of the {count} selected none fits: {why}", hint=hint)


def _either(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def fitting(cases: Collection[Case], targets: Sequence[Target]) -> bool:
    """Whether any of the cases speaks to any of the targets."""
    return any(targets_of(case, targets) for case in cases)
