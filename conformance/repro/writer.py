"""The script itself: the framework's half from its template, NumPy's half, and the comparison."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conformance.conventions import CANONICAL
from conformance.documents import printed_numbers
from conformance.oracle import Oracle
from conformance.problem import Problem
from conformance.profile import AdapterFolder
from conformance.repro import beside, endings, formulas, source, template
from conformance.repro.shown import IMAGES, SECOND, Row, shown
from conformance.repro.source import literal
from conformance.repro.spelling import Spelling, Step
from conformance.repro.words import Words
from conformance.safe_text import one_line
from conformance.spec import Documented

_GRADIENTS = frozenset({"dx", "dgamma", "dbeta"}) | SECOND

#: From here on frameworks may use several threads, which changes the order of sums.
_LARGE = 10_000


class Writer:
    """Composes one script."""

    def __init__(
        self,
        problem: Problem,
        oracle: Oracle,
        adapter: AdapterFolder,
        options: dict[str, str],
        facts: Mapping[str, str],
        line: Mapping[str, Any],
    ) -> None:
        self.case = problem.case
        self.problem = problem
        self.oracle = oracle
        self.profile = adapter.profile
        self.options = options
        self.facts = facts
        self.line = line
        self.template: Any = template.opened(adapter.path)
        meaningless = oracle.undefined or self.profile.senseless(problem)
        self.words = Words(self.case, self.profile, options, facts, line, meaningless)
        self.raises = self.words.raises
        self.dies = self.words.verdict in ("crashed", "timeout")

    def lines(self) -> list[str]:
        """The whole script."""
        if self.case.kind == "signature":
            return self._signature()
        rows = [] if self.raises or self.dies else self._rows()
        number = max((row.step + 1 for row in rows), default=len(self.problem.calls))
        whole = (
            self.raises
            or self.dies
            or self.problem.beside is not None  # what ran before may have left something for any of it
            or self.case.spec.recompute  # the backward pass runs the layer, too
            or self._executes_otherwise
        )
        gradients = bool(whole or {row.kind for row in rows} & _GRADIENTS) and any(
            call.dy is not None for call in self.problem.calls[:number]
        )
        twice = bool(whole or {row.kind for row in rows} & SECOND) and any(
            call.v is not None for call in self.problem.calls[:number]
        )
        spelling = self._spelling(number)
        tensors = source.tensors(self.problem, number, gradients=gradients, twice=twice)
        body = [*self._text("layer", spelling), *self._calls(spelling, number, gradients, twice, rows)]
        start = [*self.words.header(rows), *self._text("imports", spelling)]
        start += endings.GUARD if self.dies else []
        start += ["", *self._text("setup", spelling), *self._tensors(tensors, spelling), f"# {self.profile.name}"]
        if self.raises:
            return [*start, *endings.attempted(body, self.words.meaningless is not None)]
        if self.dies:
            return [*start, *body, 'print("It came to an end: nothing is wrong.")']
        if any(row.kind == "repeats_differing" for row in rows):
            return [*start, *self._repeated(body, spelling, len(self.problem.calls))]
        if rows[0].what in ("dtype", "shape"):
            return [*start, "seen = {}", *body, "", *self._facts(rows)]
        return [*start, "seen = {}", *body, "", *self._comparison(rows, number)]

    @property
    def _executes_otherwise(self) -> bool:
        """Whether the target executes otherwise than its framework does usually."""
        usual = self.profile.options.get("execution", [self.options.get("execution")])[0]
        return self.options.get("execution") != usual

    def _tensors(self, own: Sequence[str], spelling: Spelling) -> list[str]:
        """The case's tensors; before them, or before its layer where they are the same, the layer that is called first.

        Its variables are the case's own, which are set again.
        """
        if self.problem.beside is None:
            return [*own, ""]
        built, call = self.problem.beside
        other = beside.spelled(built, call, spelling)
        tensors = source.of_beside(self.problem, built, call)
        calls = [*self._text("layer", other), *self._text("step", other, beside.step(call))]
        if beside.remarked(self.line, beside.REFUSED) is not None:
            calls = endings.let(calls)
        said = f"# Another {self.profile.name} layer, called once and thrown away."
        calls = [said, "# What follows should be the same without it.", *calls, ""]
        if set(tensors) <= set(own):
            return [*own, "", *calls]
        return [*tensors, "", *calls, *source.unsaid(own, tensors), ""]

    def _rows(self) -> list[Row]:
        declared = self.profile.declared(self.case, {**self.options, **self.facts})
        return shown(self.oracle, self.profile, self.line, declared)

    def _printed(self, rows: Sequence[Row], several: bool) -> list[str]:
        expected = self.oracle.expected(self.profile, CANONICAL)
        items = {}
        for row in rows:
            name = f"{row.kind}[{row.step}]"
            numbers, _ = printed_numbers(self._document.tensors[name])
            shape = np.shape(expected[name].value)
            text = f"np.array({literal(numbers)})"
            whole = (
                f"{text}.reshape({literal(shape)})"
                if len(numbers) > 1
                else f"np.full({literal(shape)}, {numbers[0]!r})"
            )
            items[_key(row.kind, str(row.step), several).strip('"')] = whole
        return source.dictionary("expected", items)

    @property
    def _document(self) -> Documented:
        return self.case.spec.documented[self.profile.framework]

    # The framework's half

    def _spelling(self, number: int) -> Spelling:
        problem, layer, native = self.problem, self.case.spec.layer, self.case.spec.native
        others = [] if problem.beside is None else [problem.beside[1]]
        canonical = None
        if layer is not None:
            canonical = layer.model_dump(exclude={"initial"})
            canonical |= {"dtype": problem.layer_dtype}
        calls = problem.calls[:number]
        return Spelling(
            rank=self.case.rank,
            features=problem.features,
            layer=canonical,
            native=None if native is None else native[self.profile.framework],
            initial=tuple(problem.initial),
            layer_dtype=problem.layer_dtype,
            layout="channels_first" if native is not None or not calls else self.case.input_of(0).layout,
            learned=self._learned(),
            step_dtypes=tuple(call.x.dtype.name for call in [*calls, *others]),
            shapes=tuple(call.x.shape for call in calls),
            options=self.options,
            framework_version=str(self.facts.get("version", "")),
            large=any(call.x.size >= _LARGE for call in calls) or "sums" in str(self.line["diagnosis"]),
            saves=any(call.save_load for call in calls),
            dies=self.dies,
            signature=self.case.kind == "signature",
            recomputes=self.case.spec.recompute,
            tangents=any(call.tangent is not None for call in calls),
            orders=frozenset(call.by or "" for call in calls),
        )

    def _learned(self) -> tuple[str, ...]:
        if self.case.kind == "signature":
            return ()
        if self.case.kind == "native" and self.raises:
            affine = (self.case.spec.native or {})[self.profile.framework].get("affine", True)
            return ("gamma", "beta") if affine else ()
        p = self.profile.read(self.problem, CANONICAL)
        return tuple(name for name, has in (("gamma", p.scale), ("beta", p.center)) if has and p.trainable)

    def _text(self, macro: str, *arguments: Any) -> list[str]:
        """The lines of a macro."""
        text = str(getattr(self.template, macro)(*arguments)).strip("\n")
        return text.split("\n") if text else []

    def _calls(self, spelling: Spelling, number: int, gradients: bool, twice: bool, rows: Sequence[Row]) -> list[str]:
        """The steps, each written out; runs of equal ones as a loop."""
        several = number > 1
        flags = []
        compiles = self._executes_otherwise and getattr(self.template, "compiles", False)
        kinds: dict[tuple[object, ...], str] = {}
        for index, call in enumerate(self.problem.calls[:number]):
            absent = (getattr(call, name) is None for name in ("dy", "v", "mask", "tangent"))
            kind = (call.mode, call.frozen, call.by, *absent)
            if call.save_load:
                kinds.clear()  # as its layer is another one
            known = kind in kinds
            name = kinds.setdefault(kind, f"call_{len(kinds) + 1}" if kinds else "call")
            step = Step(
                mode=call.mode,
                x="xs[{}]" if several else "x",
                dy=("dys[{}]" if several else "dy") if gradients and call.dy is not None else "",
                keep=("keeps[{}]" if several else "keep") if call.mask is not None else "",
                dtype=call.x.dtype.name,
                dy_dtype="" if call.dy is None else call.dy.dtype.name,
                shape=call.x.shape,
                frozen=call.frozen,
                was_frozen=index > 0 and self.problem.calls[index - 1].frozen,
                save_load=call.save_load,
                strided=call.strided,
                first=index == 0,
                v=("vs[{}]" if several else "v") if twice and call.v is not None else "",
                assigned=call.assigned,
                call=name if compiles else "call",
                compiles=not (compiles and known),
                tangent=("tangents[{}]" if several else "tangent") if call.tangent is not None else "",
                by=(call.by or "") if twice else "",
            )
            flags.append((step, tuple((row.kind, row.what, row.dtype) for row in rows if row.step == index)))
        lines: list[str] = []
        start = 0
        for (step, read), group in itertools.groupby(flags):
            count = len(list(group))
            loop = count > 2
            for index in [start] if loop else range(start, start + count):
                at = _At(step, "i" if loop else str(index))
                text = [*self._text("step", spelling, at.step), *self._seen(spelling, at, read, several)]
                if loop:
                    lines.append(f"for i in range({start}, {start + count}):" if start else f"for i in range({count}):")
                    text = endings.indented(text)
                lines += text
            start += count
        return lines

    def _seen(self, spelling: Spelling, at: _At, rows: Sequence[tuple[str, str, str]], several: bool) -> list[str]:
        lines = []
        for kind, what, dtype in rows:
            if kind == "repeats_differing":
                continue
            if what in ("numbers", "documented"):
                (value,) = self._text("numpy", spelling, at.step, kind, dtype, several)
            else:
                (value,) = self._text(what, spelling, at.step, kind)
            lines.append(f"seen[{_key(kind, at.index, several)}] = {value}")
        return lines

    # The other half

    def _comparison(self, rows: Sequence[Row], number: int) -> list[str]:
        """Reference, bounds, and the loop that prints and decides."""
        several = number > 1
        reading = self.oracle.reading(self.profile, CANONICAL)
        counters = [row for row in rows if row.kind == "num_batches_tracked"]
        kinds = {row.kind for row in rows} - {"num_batches_tracked"}
        lines = ["# What it should return: BatchNorm on the same numbers, computed far more precisely."]
        if any(not np.isfinite(call.x.astype(np.float64)).all() for call in self.problem.calls[:number]):
            lines.append('np.seterr(all="ignore")')
        wanted = formulas.Wanted(kinds, number, several)
        if rows[0].what == "documented":
            lines = [f"# What is documented, in: {one_line(self._document.source)}", *self._printed(rows, several)]
        elif kinds:
            lines += formulas.reference(self.problem, reading.parameters, reading.traces, wanted)
        else:
            lines.append("expected = {}")
        for row in counters:
            count = reading.traces[row.step].num_batches_tracked
            lines.append(f"expected[{_key(row.kind, str(row.step), several)}] = np.array({count})")
        for limit, group in itertools.groupby(rows, lambda row: row.overflow):
            for row in group if limit is not None else ():
                name = f"expected[{_key(row.kind, str(row.step), several)}]"
                lines.append(f"{name}[np.abs({name}) >= {limit!r}] *= np.inf  # in {row.dtype}")
        bounds = {
            _key(row.kind, str(row.step), several).strip('"'): f"({_digits(row.rtol)}, {self._atol(row)})"
            for row in rows
        }
        pair = "seen[name].astype(np.float64), expected[name]"
        pair = f"np.atleast_1d({pair})" if counters else pair
        return [
            *lines,
            "",
            "# How far rounding may take a correct implementation: rtol and atol.",
            *source.dictionary("bounds", bounds),
            *endings.compared(pair),
        ]

    def _atol(self, row: Row) -> str:
        if len(row.atol) == 1:
            return _digits(row.atol[0])
        numbers = f"[{', '.join(_digits(value) for value in row.atol)}]"
        if row.kind not in IMAGES:
            return f"np.array({numbers})"
        ndim = self.problem.calls[row.step].x.ndim
        return f"np.reshape({numbers}, {literal((-1, *[1] * (ndim - 2)))})" if ndim > 2 else f"np.array({numbers})"

    def _facts(self, rows: Sequence[Row]) -> list[str]:
        """The comparison of dtypes or shapes."""
        canonical = self.oracle.expected(self.profile, CANONICAL)
        several = max(row.step for row in rows) > 0
        items = {}
        for row in rows:
            wanted = canonical[f"{row.kind}[{row.step}]"]
            value = wanted.dtype if row.what == "dtype" else tuple(wanted.value.shape)
            items[_key(row.kind, str(row.step), several).strip('"')] = literal(value)
        what = rows[0].what
        return [
            *source.dictionary("expected", items),
            "for name in expected:",
            f'    print(f"{what} of {{name}}: {{seen[name]}}, should be {{expected[name]}}")',
            "sys.exit(seen != expected)",
        ]

    def _repeated(self, body: Sequence[str], spelling: Spelling, number: int) -> list[str]:
        step = Step("default", "x", "", "", "float32", "", (), False, False, False, False, False)
        (value,) = self._text("numpy", spelling, step, "y", self.problem.calls[-1].x.dtype.name, False)
        read = [] if any("seen[" in line for line in body) else [f'seen["y"] = {value}']
        return endings.repeated([*body, *read], self.case.spec.repeat - 1, number)

    def _signature(self) -> list[str]:
        spelling = self._spelling(0)
        documented = (self.case.spec.signature or {})[self.profile.framework]
        (constructor,) = self._text("constructor", spelling)
        said = {name: None if text is None else _normal(text) for name, text in documented.items()}
        kept = ", only those named" if self.case.spec.excerpt else ""
        return [
            *self.words.header([]),
            *self._text("imports", spelling),
            "",
            f"# Parameter: its documented default, None where it has none{kept}.",
            *source.dictionary("documented", {name: literal(text) for name, text in said.items()}),
            f"_, *parameters = inspect.signature({constructor}.__init__).parameters.values()",
            "real = {p.name: None if p.default is p.empty else repr(p.default) for p in parameters}",
            *(["real = {name: real[name] for name in real if name in documented}"] if self.case.spec.excerpt else []),
            "for name in {**documented, **real}:",
            '    found, wanted = real.get(name, "absent"), documented.get(name, "absent")',
            "    if found != wanted:",
            '        print(f"{name}: {found}, documented: {wanted}")',
            "sys.exit(list(real.items()) != list(documented.items()))",
        ]


class _At:
    """A step at an index, which is a number or the variable of a loop."""

    def __init__(self, step: Step, index: str) -> None:
        self.index = index
        said = {name: getattr(step, name).format(index) for name in ("x", "dy", "keep", "v", "tangent")}
        self.step = Step(**{**vars(step), **said})


def _key(kind: str, index: str, several: bool) -> str:
    """``"y"``, ``"y[1]"``, or ``f"y[{i}]"`` within a loop."""
    if not several:
        return f'"{kind}"'
    return f'f"{kind}[{{i}}]"' if index == "i" else f'"{kind}[{index}]"'


def _digits(value: float) -> str:
    return re.sub(r"e\+0?", "e", f"{value:.2e}") if value else "0"


def _normal(text: str) -> str:
    """A documented default as Python's own repr has it: 1e-05 for 1e-5."""
    try:
        return repr(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text
