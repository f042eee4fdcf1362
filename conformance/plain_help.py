"""Help in a person's words: arguments by their names, without the Python types that typer puts beside them."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand

_TYPE = re.compile(r" <[^<>]*>$")


class PlainCommand(TyperCommand):
    """A command whose help lists ``PATH`` where typer would list ``PATH <list[Path]>``."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the arguments, then the options."""
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                rows[kind].append((_TYPE.sub("", record[0]), record[1]))
        for kind, of_kind in rows.items():
            if of_kind:
                with formatter.section(kind):
                    formatter.write_dl(of_kind)
