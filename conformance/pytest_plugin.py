"""pytest collects case files: an item is a case on a target, or a case on a pair of targets.

``cases/momentum.yaml::values[momentum=0.1]::torch`` and ``…::torch~keras``. Expected divergences are xfailed with their
reason, expected refusals skipped with theirs; what is unexpected fails with a message that fits on a screen.
"""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance.pytest_bench import AHEAD, Bench, Unexpected

if TYPE_CHECKING:
    from conformance.case import Case
    from conformance.compare import TensorResult
    from conformance.pairs import Side
    from conformance.target import Target

#: What a failure shows of the framework's own words, so that it fits on a screen.
_LINES, _CHARACTERS = 12, 1200

_MARKERS = {
    "pair": "two targets against each other",
    "train": "has a step in training mode",
    "eval": "has a step in evaluation mode",
    "default": "has a step in the layer's default mode",
    "float64": "on float64 inputs",
    "float32": "on float32 inputs",
    "float16": "on float16 inputs",
    "bfloat16": "on bfloat16 inputs",
    "int64": "on int64 inputs",
    "int32": "on int32 inputs",
    "cpu": "on the CPU; `cpu and cuda` are the pairs that hold one against the other",
    "cuda": "on a CUDA device",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; a case file needs none of them."""
    group = parser.getgroup("conformance", "BatchNorm conformance cases")
    group.addoption(
        "--conformance-target",
        action="append",
        default=[],
        metavar="TARGET",
        help="run case files on this target (repeatable); every installed one of torch, mindspore and keras if none",
    )
    group.addoption("--conformance-device", default="cpu", metavar="DEVICE", help="cpu or cuda")
    group.addoption(
        "--conformance-baseline",
        metavar="DIR",
        help="fail on what changed since this stored run instead of on what is unexpected",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known, the frameworks' among them."""
    from conformance import data

    for name in data.adapters():
        config.addinivalue_line("markers", f"{name}: conformance case on {name}")
    for name, meaning in _MARKERS.items():
        config.addinivalue_line("markers", f"{name}: conformance case {meaning}")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a YAML file that says it is a case file."""
    if file_path.suffix in (".yaml", ".yml") and _is_ours(file_path):
        return CaseFile.from_parent(parent, path=file_path)
    return None


def _is_ours(path: Path) -> bool:
    from conformance.locate import is_case_file

    try:
        return is_case_file(path)
    except OSError:
        return False


_BENCH = pytest.StashKey["Bench"]()
#: Where each item stands among the session's.
_PLACES = pytest.StashKey["dict[pytest.Item, int]"]()
#: Case file → whether any of its cases speaks to a target of the session.
_SPOKEN = pytest.StashKey["dict[Path, bool]"]()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what the baseline is of."""
    folder = config.getoption("--conformance-baseline")
    if not folder:
        return []
    from conformance.errors import UsageError

    try:
        old = _bench(config).baseline
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    assert old is not None
    made = ", ".join(f"{target['name']} {target['facts'].get('version', '')}" for target in old.run.targets)
    return [f"conformance baseline: {folder}, of {old.run.info['started'][:10]}: {made}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skip point at the case's line in its YAML file, not at the line of this file that skips."""
    report = yield
    if isinstance(item, ConformanceItem) and report.skipped and isinstance(report.longrepr, tuple):
        path, line, _ = item.reportinfo()
        report.longrepr = (str(path), line + 1, report.longrepr[2])
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why no case file gave a test, where none did."""
    spoken = config.stash.get(_SPOKEN, {})
    if not spoken or any(spoken.values()):
        return
    from conformance.commands.absent import installing

    files = f"{len(spoken)} case file{'' if len(spoken) == 1 else 's'}"
    names = ", ".join(target.name for target in _bench(config).targets)
    why = f"no case speaks to {names} (name others with --conformance-target)"
    if not names:
        why = f"no framework is installed here ({installing('torch')}, or name a target with --conformance-target)"
    terminalreporter.write_line(f"conformance: no test came of {files}: {why}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the workers."""
    bench = config.stash.get(_BENCH, None)
    if bench is not None:
        bench.close()


def _bench(config: pytest.Config) -> Bench:
    if _BENCH not in config.stash:
        config.stash[_BENCH] = Bench(config)
    return config.stash[_BENCH]


class CaseFile(pytest.File):
    """A case file."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """Yield the items of every case.

        A node id with a bracket is one name to pytest's command line and one without is split at ``::``, so that
        cases of a matrix are items of the file, and the others collectors of their own.
        """
        from conformance import data
        from conformance.errors import UsageError
        from conformance.load import load_file
        from conformance.session import targets_of

        try:
            bench = _bench(self.config)
            known = frozenset(data.adapters()) | {target.framework for target in bench.targets}
            cases = load_file(self.path, None, known)
        except UsageError as error:
            raise self.CollectError(str(error)) from error
        spoken = self.config.stash.setdefault(_SPOKEN, {})
        spoken[self.path] = any(targets_of(case, bench.targets) for case in cases)
        for case in cases:
            name = case.id.rpartition("/")[2]
            if "[" in name:
                yield from _items(self, case, bench, f"{name}::")
            else:
                yield CaseNode.from_parent(self, name=name, case=case)


class CaseNode(pytest.Collector):
    """A case without a matrix."""

    def __init__(self, *, case: Case, **rest: Any) -> None:
        super().__init__(**rest)
        self.case = case

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the case's items."""
        yield from _items(self, self.case, _bench(self.config), "")


def _items(parent: pytest.Collector, case: Case, bench: Bench, prefix: str) -> Iterator[pytest.Item]:
    from conformance.session import targets_of

    def item(kind: type[ConformanceItem], *targets: Target) -> ConformanceItem:
        name = prefix + "~".join(target.name for target in targets)
        # Given as text, since pytest reads it back from text (--lf), and finds a name with a bracket in it another one.
        return kind.from_parent(parent, name=name, nodeid=f"{parent.nodeid}::{name}", case=case, targets=targets)

    targets = targets_of(case, bench.targets)
    for target in targets:
        yield item(TargetItem, target)
    if case.kind != "signature":
        for a, b in itertools.combinations(targets, 2):
            yield item(PairItem, a, b)


class ConformanceItem(pytest.Item):
    """A case on some targets."""

    def __init__(self, *, case: Case, targets: Sequence[Target], **rest: Any) -> None:
        from conformance import data
        from conformance.carried import source_of

        super().__init__(**rest)
        self.case = case
        self.targets = targets
        source = source_of(case, _bench(self.config).targets)
        self.needed = (*targets, *([source] if source else []))
        markers = {word for target in targets for word in (target.framework, target.options["device"])}
        for key in ("mode", "dtype"):
            markers.update(case.features.get(key, ()))
        for marker in sorted(markers):
            if marker not in _MARKERS and marker not in data.adapters():  # of an adapter from elsewhere
                self.config.addinivalue_line("markers", f"{marker}: conformance case")
            self.add_marker(marker)

    def sides(self) -> list[Side]:
        """The case on each of the item's targets, observed along with what the next items ask for."""
        bench = _bench(self.config)
        if not bench.is_open:
            bench.open({target.name for item in self.session.items for target in getattr(item, "needed", ())})
        return [bench.side(self.case, target, self.coming()) for target in self.targets]

    def coming(self) -> Iterator[tuple[Case, Sequence[Target]]]:
        """What the next items ask for."""
        for item in itertools.islice(_following(self), AHEAD):
            if isinstance(item, ConformanceItem):
                yield item.case, item.targets

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What was found is its message; anything else is a fault of ours, and keeps its traceback.

        pytest asks this of an xfail too, and would read this file for the source of a traceback that it never shows.
        """
        if isinstance(excinfo.value, Unexpected | pytest.xfail.Exception):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the case stands in its YAML file."""
        return self.path, self.case.line - 1, self.nodeid.partition("::")[2]


def _following(item: pytest.Item) -> Iterator[pytest.Item]:
    """The items that this process runs after one, as far as is known: a worker of pytest-xdist gets them in batches."""
    items = item.session.items
    if not hasattr(item.config, "workerinput"):
        order = item.config.stash.setdefault(_PLACES, {})
        if not order:
            order.update({each: place for place, each in enumerate(items)})
        yield from itertools.islice(items, order.get(item, len(items)) + 1, None)
        return
    for plugin in item.config.pluginmanager.get_plugins():  # what xdist keeps in a worker is among them
        queue, following = getattr(plugin, "torun", None), getattr(plugin, "nextitem_index", None)
        if queue is not None and hasattr(queue, "lock") and isinstance(following, int):
            with queue.lock() as waiting:
                coming = [following, *(place for place in waiting if isinstance(place, int))]
            yield from (items[place] for place in coming)


class TargetItem(ConformanceItem):
    """A case on one target."""

    def runtest(self) -> None:
        """Pass, skip, xfail or fail by the verdict and its status."""
        (side,) = self.sides()
        verdict = side.verdict
        self._hold_against_baseline(side)
        if verdict.status == "unexpected":
            raise Unexpected(self._message(side))
        if verdict.verdict == "refused":
            pytest.skip(verdict.because)
        if verdict.verdict not in ("conforms", "conventional"):
            pytest.xfail(verdict.because)

    def _message(self, side: Side) -> str:
        from conformance.lines import target_line, verdict_line
        from conformance.repro import offered

        (target,) = self.targets
        line = verdict_line(self.case.id, target.name, side.verdict, side.observation)
        return message(self.case, side, offered(self.case, line, target_line(target, None), named=True))

    def _hold_against_baseline(self, side: Side) -> None:
        """Fail on a change since the baseline; an unexpected verdict that it had already is xfailed."""
        from conformance.errors import UsageError
        from conformance.lines import verdict_line
        from conformance.upgrades.changes import HARMLESS

        bench = _bench(self.config)
        if bench.baseline is None:
            return
        name, framework = side.under.name, side.under.profile.framework
        line = verdict_line(self.case.id, name, side.verdict, side.observation)
        try:
            change = bench.baseline.changed(line, bench.oracle(self.case).problem.digest, framework)
        except UsageError as error:
            raise Unexpected(str(error)) from error
        if change.change not in HARMLESS:
            remarks = bench.baseline.remarks(name, framework, side.under.facts)
            since = "; ".join(remarks) or "the same version and environment"
            head = f"changed since the baseline: {change.change}: {change.what} ({since})"
            raise Unexpected(f"{head}\n{self._message(side)}")
        if side.verdict.status == "unexpected":
            pytest.xfail("unexpected, as it was in the baseline")


class PairItem(ConformanceItem):
    """A case on two targets."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self.add_marker("pair")

    def runtest(self) -> None:
        """Pass if the two agree, xfail if they differ as expected, fail otherwise."""
        from conformance.pairs import judge_pair

        a, b = self.sides()
        agreement = judge_pair(_bench(self.config).oracle(self.case), a, b)
        if agreement.agreement == "agree":
            return
        if all(side.verdict.status == "expected" for side in (a, b)) and agreement.because:
            pytest.xfail(f"differ: {agreement.because}")
        names = a.under.name, b.under.name
        lines = [
            f"{names[0]} and {names[1]} differ: {_shown(agreement.because)}",
            *_rows(agreement.tensors),
            f"see: {_command('explain', self.case, *names)}",
        ]
        raise Unexpected("\n".join(lines))


def message(case: Case, side: Side, reproducible: bool) -> str:
    """An unexpected verdict on one screen: what, why, the worst tensors, and how to see more.

    `reproducible`: a script can show it.
    """
    verdict = side.verdict
    because = _shown(verdict.because)
    evidence = [f"{verdict.error.type}: {_shown(verdict.error.message)}"] if verdict.error else []
    evidence += _rows(verdict.tensors)
    lines = [
        f"{side.under.name}: {verdict.verdict}, expected {verdict.expected}",
        *([f"because: {because}"] if because else []),
        *(line for line in evidence if line.strip() not in because),
        *([f"received: {_shown(side.observation.received)}"] if side.observation.received else []),
        f"see: {_command('explain', case, side.under.name)}",
        *([f"repro: {_command('repro', case, side.under.name)}"] if reproducible else []),
    ]
    return "\n".join(lines)


def _command(name: str, case: Case, *targets: str) -> str:
    """A command on a case and some targets, as it is typed where pytest was."""
    from conformance.safe_text import clean

    file = os.path.relpath(case.file)
    options = [word for target in targets for word in ("-t", target)]
    return clean(shlex.join(["conformance", name, case.id, "-p", file, *options]))


def _shown(text: str) -> str:
    """The end of a text that is longer than a screen bears: there tracebacks and dying processes say the most."""
    from conformance.safe_text import clean

    text = clean(text).strip()
    lines = text[-_CHARACTERS:].splitlines()[-_LINES:]
    return "\n".join(lines) if "\n".join(lines) == text else "\n".join(["…", *lines])


def _rows(tensors: Any) -> list[str]:
    """The five tensors that are furthest off."""
    off = sorted(((name, r) for name, r in tensors.items() if not r.ok), key=lambda row: -row[1].off)
    return [f"  {name} {_row(r)}" for name, r in off[:5]]


def _row(result: TensorResult) -> str:
    if result.problem is not None:
        return result.problem
    where = list(result.worst_index or ())
    return f"at {where} off by {result.max_abs:.3g}, {result.ratio:.3g} times its bound ({result.max_ulp:.3g} ULP)"
