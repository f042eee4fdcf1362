"""A baseline while results come in one by one: what became of each case since, and what else differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from conformance.errors import UsageError
from conformance.run_folder import Line, Run
from conformance.upgrades.changes import CaseChange, alone, classed, fact_remarks


@dataclass(frozen=True)
class Standing:
    """A stored run to hold results against."""

    run: Run

    def changed(self, after: Line, digest: str, framework: str) -> CaseChange:
        """What became of a case since.

        Args:
            after: the line that the result makes in results.jsonl.
            digest: of the case's bits.
            framework: of the target, for a baseline whose target has another name.

        Raises:
            UsageError: the baseline has no such target.

        """
        name = after["case"]
        before = self._lines.get((name, self.target(after["target"], framework)["name"]))
        if before is None:
            return alone(name, "new", "this run")
        return classed(before, after, self.run.cases[name]["digest"] == digest, lambda _: None)

    def remarks(self, target: str, framework: str, facts: Mapping[str, str]) -> list[str]:
        """What the baseline's target stated otherwise, its version first."""
        before = self.target(target, framework)["facts"]
        version = f"version {before.get('version')} → {facts.get('version')}"
        return [*([version] if before.get("version") != facts.get("version") else []), *fact_remarks(before, facts)]

    def target(self, name: str, framework: str) -> dict[str, Any]:
        """The baseline's target of this name, else its only one of this framework.

        Raises:
            UsageError: there is none.

        """
        named = [target for target in self.run.targets if target["name"] == name]
        alike = [target for target in self.run.targets if target["framework"] == framework]
        if not named and len(alike) != 1:
            raise UsageError(f"the baseline {self.run.path} has no target {name}")
        return (named or alike)[0]

    @cached_property
    def _lines(self) -> dict[tuple[str, str], Line]:
        return {(line["case"], line["target"]): line for line in self.run.verdicts}
