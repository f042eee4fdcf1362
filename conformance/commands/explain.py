"""The command explain: one case end to end, in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conformance.catalogue import name_change
from conformance.commands.absent import next_step
from conformance.commands.console import console as make_console
from conformance.commands.corpus import named_cases, read_cases
from conformance.commands.exit_codes import COULD_NOT_RUN
from conformance.commands.launch import choose_targets
from conformance.compare import TensorResult
from conformance.conventions import CANONICAL
from conformance.crew import NotStarted
from conformance.diagnose import Tried
from conformance.errors import UsageError
from conformance.oracle import Oracle
from conformance.pairs import Side, odd_one_out
from conformance.pool import Pool
from conformance.problem import from_wire
from conformance.session import Settled, judged, targets_of


def explain(case_id: str, paths: Sequence[Path], named: Sequence[str], device: str) -> int:
    """Run the case on the targets and print what each received, returned and was judged; return the exit code.

    Raises:
        UsageError: no case has that id, or it says nothing of these targets.

    """
    console = make_console()
    targets = choose_targets(named, device, console)
    cases = read_cases(paths, "", frozenset(target.framework for target in targets))
    found = named_cases(case_id, cases)
    if not any(targets_of(case, targets) for case in found):
        spoken_to = ", ".join(sorted(found[0].frameworks or ()))
        if found[0].spec.carried is not None:
            source = found[0].spec.carried.source
            raise UsageError(f"case {case_id!r} needs {source}, which its layer comes from", hint=f"add -t {source}")
        raise UsageError(f"case {case_id!r} speaks to {spoken_to} only", hint="name one of them with -t")
    with Pool(targets) as pool:
        for settled in judged(found, pool):
            _show(console, settled)
        absent = {name: start for name, start in pool.starts.items() if isinstance(start, NotStarted)}
    for name, start in absent.items():
        step = next_step(next(target for target in targets if target.name == name), start.message)
        console.print(f"{escape(name)} cannot run: {escape(start.message + (f' ({step})' if step else ''))}")
    return COULD_NOT_RUN if absent and (named or len(absent) == len(targets)) else 0


def _show(console: Console, settled: Settled) -> None:
    problem = settled.problem
    case = problem.case
    console.print(f"[bold]{escape(case.id)}[/]  {escape(case.file)}:{case.line}")
    console.print(escape(case.spec.why.strip()), style="italic")
    for index, call in enumerate(problem.calls):
        extra = "".join(f", {word}" for word in ("frozen", "save_load", "strided") if getattr(call, word))
        extra += "".join(f", {name} = {value:g} assigned" for name, value in call.assigned)
        extra += f", differentiated {call.by or 'twice'}" if call.v is not None else ""
        extra += ", differentiated along a tangent" if call.tangent is not None else ""
        extra += ", recomputed for its gradients" if case.spec.recompute and call.dy is not None else ""
        console.print(f"step {index}: {call.mode}, x {list(call.x.shape)} {call.x.dtype.name}{extra}")
    oracle = Oracle(problem)
    for side in settled.sides.values():
        _show_side(console, oracle, side)
    for (a, b), agreement in settled.pairs.items():
        because = f": {agreement.because}" if agreement.because else ""
        console.print(f"[bold]{escape(a)} ~ {escape(b)}[/] {agreement.agreement}{escape(because)}")
    odd = odd_one_out(settled.sides, settled.pairs)
    if odd is not None:
        console.print(f"[bold]{escape(odd.target)}[/] is the odd one out: {escape(odd.because)}")


def _show_side(console: Console, oracle: Oracle, side: Side) -> None:
    verdict = side.verdict
    console.print()
    console.print(f"[bold]{escape(side.under.name)}[/] {verdict.verdict}, {verdict.status}")
    if side.observation.received:
        console.print(f"  received  {escape(side.observation.received)}")
    if verdict.because:
        console.print(f"  because   {escape(verdict.because)}")
    if verdict.error is not None:
        console.print(f"  {escape(verdict.error.type)}: {escape(verdict.error.message.strip()[:2000])}")
    for fact in side.observation.facts:
        console.print(f"  note      {escape(fact)}")
    if not verdict.tensors:
        return
    if verdict.accepted != CANONICAL:
        changes = verdict.accepted.changes
        read_as = ", ".join(name_change(field, value)[0] for field, value in changes.items())
        console.print(f"  reference under {escape(read_as)}:")
    table = Table(show_edge=False, pad_edge=False)
    for column in ("tensor", "worst at", "reference", "observed", "error", "bound", "error/bound", "ULP"):
        table.add_column(column, justify="left" if column in ("tensor", "worst at") else "right")
    for name, result in verdict.tensors.items():
        table.add_row(*_row(name, result, oracle, side))
    console.print(table)
    if verdict.tried:
        console.print(f"  tried     {escape(', '.join(_tried(each) for each in verdict.tried))}")


def _tried(tried: Tried) -> str:
    """``eps-1e-3 (off by 12 bounds)``."""
    if tried.off <= 1:
        return f"{tried.name} (fits: within {tried.off:.2g} of the bound)"
    return f"{tried.name} (off by {tried.off:.3g} bounds)" if math.isfinite(tried.off) else f"{tried.name} (no number)"


def _row(name: str, result: TensorResult, oracle: Oracle, side: Side) -> list[str]:
    if result.problem is not None or result.ratio is None:
        return [name, "", "", "", "", "", escape(result.problem or "?"), ""]
    expected = oracle.expected(side.under.profile, side.verdict.accepted).get(name)
    wire = side.observation.tensors.get(name)
    if expected is None or wire is None or result.worst_index is None:
        return [name, "", "", "", f"{result.max_abs:.2g}", "", f"{result.ratio:.3f}", ""]
    at = result.worst_index
    exact = oracle.arithmetic.lower(np.asarray(expected.value[at]))
    seen = from_wire(wire)[at]
    bound = expected.bound[at]
    return [
        name,
        str(list(at)),
        f"{float(exact):.9g}",
        f"{float(seen):.9g}",
        f"{result.ratio * bound:.2g}",
        f"{bound:.2g}",
        f"{result.ratio:.3f}",
        f"{result.max_ulp:.3g}",
    ]
