"""Which version of the suite this is: as its checkout says, else as it was installed."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

NAME = "batchnorm-conformance"

_CHECKOUT = Path(__file__).resolve().parents[1]


def suite_version(checkout: Path = _CHECKOUT) -> str:
    """0.1.0; what runs from a checkout is of its version, whatever is installed, and ``unknown`` if neither says.

    Args:
        checkout: the folder that holds the package.
    """
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == NAME:
            return str(project["version"])
    except (OSError, ValueError, AttributeError, KeyError):  # none, no TOML, or one of something else
        pass
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
