"""Case files among paths: which files are ours, what the ids of their cases are relative to, and reading them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.case_errors import CaseError, CaseErrors
from conformance.document import MAX_BYTES, DocumentError, parse

SUFFIXES = (".yaml", ".yml")

# Tells our files from others without parsing them, so that ours are known even when they are broken.
_MARKER = re.compile(rb"""(\A(\xef\xbb\xbf)?\s*(\{\s*)?|^)["']?conformance["']?[ \t]*:""", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """A file to load, and the folder that was searched for it."""

    path: Path
    root: Path | None


def find(paths: Sequence[Path]) -> list[Path]:
    """The case files among `paths` and, searched recursively, in them.

    In a folder, YAML files without a top-level ``conformance`` key are not ours and are left alone; so are hidden
    files and folders.

    Raises:
        CaseErrors: a path does not exist or cannot be read.
    """
    found, errors = search(paths)
    if errors:
        raise CaseErrors(errors)
    return [file.path for file in found]


def is_case_file(path: Path) -> bool:
    """Whether a file has a top-level ``conformance`` key; a broken file has if a line begins with it.

    Raises:
        OSError: the file cannot be read.
    """
    data = read(path)
    if _MARKER.search(data):
        return True
    try:
        return b"conformance" in data and "conformance" in parse(data).entries
    except DocumentError:
        return False


def corpus_root(path: Path, named: Path | None = None) -> Path:
    """What the ids of a file's cases are relative to, so that they do not depend on which path was named.

    The nearest folder above the file that is called ``cases``; else `named`, the folder that was searched; else the
    file's own folder.
    """
    absolute = Path(os.path.abspath(path))
    corpus = next((folder for folder in absolute.parents if folder.name == "cases"), None)
    return corpus or (absolute.parent if named is None else Path(os.path.abspath(named)))


def topic(path: Path, root: Path | None) -> str:
    """The file part of ids: its path below the root, without suffix, in characters that are safe anywhere."""
    absolute = Path(os.path.abspath(path))
    base = corpus_root(path, root)
    relative = absolute.relative_to(base) if absolute.is_relative_to(base) else Path(absolute.name)
    return "/".join(re.sub(r"[^\w.+-]", "_", part) for part in relative.with_suffix("").parts)


def search(paths: Iterable[Path]) -> tuple[list[Found], list[CaseError]]:
    """The files that `paths` mean, each once, and the paths that mean none."""
    found: dict[str, Found] = {}
    errors: list[CaseError] = []
    for path in paths:
        try:
            if stat.S_ISDIR(path.stat().st_mode):
                for file in _below(path, errors):
                    found.setdefault(os.path.abspath(file), Found(file, path))
            else:
                found.setdefault(os.path.abspath(path), Found(path, None))
        except (OSError, ValueError) as error:
            errors.append(unreadable(path, error))
    return list(found.values()), errors


def _below(folder: Path, errors: list[CaseError]) -> Iterator[Path]:
    """The case files in a folder, sorted."""

    def refused(error: OSError) -> None:
        errors.append(unreadable(Path(error.filename), error))

    for parent, folders, names in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or path.suffix not in SUFFIXES:
                continue
            try:
                if is_case_file(path):
                    yield path
            except OSError as error:
                errors.append(unreadable(path, error))


def read(path: Path) -> bytes:
    """A file's bytes, one more than the limit at most: a large file, a device or a pipe costs nothing."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(None, "it is no regular file")
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def unreadable(path: Path, error: Exception) -> CaseError:
    """The file as a whole is at fault."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return CaseError(str(path), 0, 0, "", f"cannot be read: {reason}")
