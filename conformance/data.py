"""Where the corpus, the adapters and the report's templates lie: inside the package, or beside it in a checkout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def folder(name: str) -> Path:
    """The data folder ``cases``, ``adapters`` or ``reports``.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"this installation of batchnorm-conformance lacks its {name} folder; install it again")


@cache
def adapters() -> Mapping[str, Path]:
    """Name → folder of the adapters that come with the suite."""
    return {path.name: path for path in sorted(folder("adapters").iterdir()) if (path / "adapter.py").is_file()}
