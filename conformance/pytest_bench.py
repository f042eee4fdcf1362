"""What the items of a pytest session share: targets, their workers, and what was observed of the latest cases.

It imports what it needs when a case runs: pytest loads the plugin, and with it this, into sessions without one.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conformance.case import Case
    from conformance.oracle import Oracle
    from conformance.pairs import Side
    from conformance.pool import Pool
    from conformance.target import Target
    from conformance.upgrades.standing import Standing

#: Cases whose observations are kept for the pairs that follow them.
_REMEMBERED = 8


class Unexpected(Exception):
    """A verdict, or a disagreement, that was not expected."""


#: What tells a case from every other of a session: files in different folders may give the same id.
Place = tuple[str, str]


def _place(case: Case) -> Place:
    return case.file, case.id


class Bench:
    """The targets of a session, their workers, and what was observed of the latest cases."""

    def __init__(self, config: pytest.Config) -> None:
        from conformance.environments import provide
        from conformance.target import MAIN, configured, installed, parse

        device = config.getoption("--conformance-device")
        named = config.getoption("--conformance-target")
        aliases = configured(config.rootpath)
        targets = [parse(name, device=device, named=aliases) for name in named or MAIN]
        targets = [target for target in targets if named or installed(target.profile.package)]
        self.targets = provide(targets, lambda _: None)
        folder = config.getoption("--conformance-baseline")
        self._baseline = None if folder is None else Path(config.invocation_params.dir, folder)
        self._pool: Pool | None = None
        self._oracles: dict[Place, Oracle] = {}
        self._sides: dict[tuple[Place, str], Side] = {}

    def side(self, case: Case, target: Target, wanted: list[Target]) -> Side:
        """The case on the target; observed once, with every target of `wanted` coming up at the first call.

        Raises:
            Unexpected: the target cannot run.
        """
        from conformance.carried import NothingCarried
        from conformance.judge import Under, judge
        from conformance.pairs import Side
        from conformance.pool import Pool, Started

        known = self._sides.get((_place(case), target.name))
        if known is not None:
            return known
        if self._pool is None:
            self._pool = Pool(wanted)
        try:
            oracle = self.oracle(case)
        except NothingCarried as error:
            raise Unexpected(str(error)) from error
        (observed,) = self._pool.observe([(oracle.problem, [target])])
        start = self._pool.starts[target.name]
        if observed.observation is None or not isinstance(start, Started):
            raise Unexpected(f"{target.name} cannot run: {getattr(start, 'message', '')}")
        under = Under(target.name, target.profile, start.facts)
        side = Side(under, observed.observation, judge(oracle, under, observed.observation))
        self._sides[_place(case), target.name] = side
        return side

    def oracle(self, case: Case) -> Oracle:
        """The reference of a case; the oldest cases' references and observations are forgotten."""
        from conformance.carried import carried
        from conformance.oracle import Oracle

        place = _place(case)
        if place not in self._oracles:
            while len(self._oracles) >= _REMEMBERED:
                oldest = next(iter(self._oracles))
                del self._oracles[oldest]
                self._sides = {key: side for key, side in self._sides.items() if key[0] != oldest}
            assert self._pool is not None  # `side` comes first
            self._oracles[place] = Oracle(carried(case, self._pool))
        return self._oracles[place]

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
