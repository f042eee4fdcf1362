"""What the items of a pytest session share: targets, their workers, and what was observed of the latest cases.

It imports what it needs when a case runs: pytest loads the plugin, and with it this, into sessions without one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conformance.carried import NothingCarried
    from conformance.case import Case
    from conformance.observation import Observation
    from conformance.oracle import Oracle
    from conformance.pairs import Side
    from conformance.pool import Pool
    from conformance.problem import Problem
    from conformance.target import Target
    from conformance.upgrades.standing import Standing

#: Items that are looked at ahead: what they need is asked of all targets together, which work side by side.
AHEAD = 160
#: Cases whose observations are kept, for what follows them.
_REMEMBERED = 2 * AHEAD
#: Elements of the inputs that are looked at ahead, together.
_ELEMENTS = 1_000_000


class Unexpected(Exception):
    """A verdict, or a disagreement, that was not expected."""


#: What tells a case from every other of a session: files in different folders may give the same id.
Place = tuple[str, str]


def _place(case: Case) -> Place:
    return case.file, case.id


@dataclass
class _Seen:
    """A case under way: its reference, what the targets returned, and what was judged of that."""

    oracle: Oracle
    observations: dict[str, Observation | None] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)


class Bench:
    """The targets of a session, their workers, and what was observed of the latest cases."""

    def __init__(self, config: pytest.Config) -> None:
        from conformance.configuration import configured
        from conformance.environments import provide
        from conformance.target import MAIN, installed, parse

        device = config.getoption("--conformance-device")
        named = config.getoption("--conformance-target")
        aliases = configured(config.rootpath)
        targets = [parse(name, device=device, named=aliases) for name in named or MAIN]
        targets = [target for target in targets if named or installed(target.profile.package)]
        self.targets = provide(targets, lambda _: None)
        folder = config.getoption("--conformance-baseline")
        self._baseline = None if folder is None else Path(config.invocation_params.dir, folder)
        self._pool: Pool | None = None
        self._seen: dict[Place, _Seen | NothingCarried] = {}

    def open(self, needed: Collection[str]) -> None:
        """Let the targets of these names come up at the first case; once is enough."""
        from conformance.pool import Pool

        if self._pool is None:
            self._pool = Pool([target for target in self.targets if target.name in needed])

    @property
    def is_open(self) -> bool:
        """Whether it was opened."""
        return self._pool is not None

    def side(self, case: Case, target: Target, coming: Iterable[tuple[Case, Sequence[Target]]] = ()) -> Side:
        """The case on the target, observed once.

        Args:
            coming: cases and targets that will be asked for next; as many as are few are observed along with this one.

        Raises:
            Unexpected: the target cannot run.
        """
        from conformance.comparison import Under
        from conformance.crew import Started
        from conformance.desk import judge_side

        seen = self._seen.get(_place(case))
        if seen is None or (isinstance(seen, _Seen) and target.name not in seen.observations):
            self._observe([(case, [target]), *coming])
            seen = self._seen[_place(case)]
        if not isinstance(seen, _Seen):
            raise Unexpected(str(seen)) from seen
        if target.name not in seen.sides:
            assert self._pool is not None  # something was observed
            observation, start = seen.observations[target.name], self._pool.starts[target.name]
            if observation is None or not isinstance(start, Started):
                raise Unexpected(f"{target.name} cannot run: {getattr(start, 'message', '')}")
            under = Under(target.name, target.profile, start.facts)
            seen.sides[target.name] = judge_side(seen.oracle, under, observation, evidence=False)
        return seen.sides[target.name]

    def _observe(self, asked: Sequence[tuple[Case, Sequence[Target]]]) -> None:
        """Observe the first case, and those after it while they are few and small, on all their targets at once."""
        assert self._pool is not None  # `open` comes first
        wanted: dict[Place, tuple[Problem, dict[str, Target]]] = {}
        elements = 0
        for case, targets in asked:
            elements += sum(
                case.input_of(step).size for step in range(len(case.spec.steps)) if case.kind != "signature"
            )
            if wanted and elements > _ELEMENTS:
                break
            seen = self._begun(case)
            if isinstance(seen, _Seen):
                missing = {target.name: target for target in targets if target.name not in seen.observations}
                if missing:
                    wanted.setdefault(_place(case), (seen.oracle.problem, {}))[1].update(missing)
        problems = ((problem, list(targets.values())) for problem, targets in wanted.values())
        places, first = list(wanted), self._pool.asked
        for observed in self._pool.observe(problems):
            seen = self._seen[places[observed.index - first]]
            assert isinstance(seen, _Seen)
            seen.observations[observed.target.name] = observed.observation

    def _begun(self, case: Case) -> _Seen | NothingCarried:
        """The case with its reference; the oldest cases are forgotten."""
        from conformance.carried import NothingCarried, carried
        from conformance.oracle import Oracle

        assert self._pool is not None
        place = _place(case)
        if place not in self._seen:
            while len(self._seen) >= _REMEMBERED:
                del self._seen[next(iter(self._seen))]
            try:
                self._seen[place] = _Seen(Oracle(carried(case, self._pool)))
            except NothingCarried as error:
                self._seen[place] = error
        return self._seen[place]

    def oracle(self, case: Case) -> Oracle:
        """The reference of a case that was observed."""
        seen = self._seen[_place(case)]
        assert isinstance(seen, _Seen)
        return seen.oracle

    @cached_property
    def baseline(self) -> Standing | None:
        """The stored run to hold results against, if one was named.

        Raises:
            RunDamage: it cannot be read.
        """
        from conformance.run_folder import read
        from conformance.upgrades.standing import Standing

        return None if self._baseline is None else Standing(read(self._baseline))

    def close(self) -> None:
        """End every worker."""
        if self._pool is not None:
            self._pool.__exit__()
