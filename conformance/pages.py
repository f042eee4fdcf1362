"""What every page shares: the templates of reports/, its files, and a policy that admits nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from conformance import data
from conformance.safe_text import clean, markdown, markdown_cell, markdown_code

#: What a template calls a function.
Filters = dict[str, Callable[..., Any]]


def asset(name: str) -> str:
    """A file of reports/: a style or a script."""
    return (data.folder("reports") / name).read_text(encoding="utf-8")


def policy(style: str, scripts: Sequence[str] = ()) -> str:
    """A Content-Security-Policy that admits no request, and no style or script but these, by their digests.

    A text that slipped through the escaping would still not run.
    """
    admitted = f"script-src {' '.join(map(_digest, scripts))}; " if scripts else ""
    return (
        f"default-src 'none'; img-src data:; {admitted}style-src {_digest(style)}; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def templates(filters: Filters, *, autoescape: bool) -> Environment:
    """The templates of reports/: with `autoescape` for HTML; without it they must filter every text themselves."""
    found = Environment(
        loader=FileSystemLoader(data.folder("reports")),
        autoescape=autoescape,  # noqa: S701 - off for Markdown only
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    found.filters |= {"clean": clean, "markdown": markdown, "code": markdown_code, "cell": markdown_cell, **filters}
    return found
