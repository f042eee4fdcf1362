"""Which version of the suite this is, and what pip installs it from: its checkout, else the package's name."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

NAME = "batchnorm-conformance"

_CHECKOUT = Path(__file__).resolve().parents[1]


def suite_version(checkout: Path = _CHECKOUT) -> str:
    """0.1.0; what runs from a checkout is of its version, whatever is installed, and ``unknown`` if neither says.

    Args:
        checkout: the folder that holds the package.
    """
    version = _project(checkout).get("version")
    if version is not None:
        return str(version)
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def source(checkout: Path = _CHECKOUT) -> str:
    """What stands before the bracket of an extra in pip's arguments: ``.``, another folder, or the package's name."""
    if not _project(checkout):
        return NAME
    return "." if checkout == Path.cwd() else str(checkout)


def _project(checkout: Path) -> dict[str, Any]:
    """``[project]`` of our own pyproject.toml; empty where there is none."""
    try:
        project: Any = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError):  # none, or no TOML
        return {}
    return project if isinstance(project, dict) and project.get("name") == NAME else {}
