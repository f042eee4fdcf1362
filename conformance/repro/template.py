"""How a framework spells a layer: the Jinja2 macros beside its adapter. A template is code, as the adapter is."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound

from conformance.repro.shown import NoScript

NAME = "repro.py.j2"


def opened(folder: Path) -> Any:
    """The macros and variables of an adapter's template.

    Raises:
        NoScript: it has none, or it is no template.
    """
    try:
        return _environment(folder).get_template(NAME).module
    except TemplateNotFound as missing:
        raise NoScript(
            f"{folder} has no {NAME}, which says how its framework is spelled",
            hint="conformance/repro describes it; adapters/torch has one to start from",
        ) from missing
    except TemplateError as slip:
        raise NoScript(f"{folder / NAME}: {slip}") from slip


@cache
def _environment(folder: Path) -> Environment:
    return Environment(  # noqa: S701 - Python source, not HTML
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
