"""The targets that a folder's configuration names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from conformance.errors import UsageError


def configured(folder: Path) -> dict[str, str]:
    """Named targets: ``[targets]`` of conformance.toml, else ``[tool.conformance.targets]`` of pyproject.toml.

    Raises:
        UsageError: the file is no TOML, or a target is not given as text.
    """
    for name, path in (("conformance.toml", ("targets",)), ("pyproject.toml", ("tool", "conformance", "targets"))):
        file = folder / name
        if not file.is_file():
            continue
        try:
            table: Any = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} is no TOML: {error}") from error
        for key in path:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise UsageError(f"{file}: [{'.'.join(path)}] gives each target as text, such as 'torch,device=cuda'")
        if table:
            return dict(table)
    return {}
