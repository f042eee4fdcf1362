"""The files of a run that grow with it, written as results come, so that memory does not: JSON lines and tensors."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pydantic_core import to_json

from conformance.harness import Array

#: Tensors that come when the header is this long, in bytes, are not kept: readers of safetensors take 100 MB at most.
HEADER_LIMIT = 99_000_000

# A tensor of another dtype is never right; its verdict says what it was.
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
}


class Lines:
    """A file of JSON lines, each on disk once it is written, and whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line.

        Raises:
            OSError: the disk does not take it; the lines before it stand.

        """
        data = encoded(line) + b"\n"
        start = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
        except BaseException:
            self._file.truncate(start)
            self._file.seek(start)
            raise

    def close(self) -> None:
        self._file.close()


class ArrayFile:
    """A safetensors file written as the tensors come, so that memory does not grow with them.

    The format puts its JSON header first; data and header wait in spools beside it until all of the header is known.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by close()
        self._data: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by close()
        self._closed = False

    def add(self, name: str, array: Array) -> None:
        if self._header.tell() > HEADER_LIMIT:
            return
        start = self._data.tell()
        self._data.write(array.data)
        entry = {
            "dtype": DTYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, self._data.tell()],
        }
        comma = b", " if self._header.tell() else b""
        self._header.write(comma + json.dumps(name).encode() + b": " + json.dumps(entry).encode())

    def close(self) -> None:
        """Put header and data together.

        Raises:
            OSError: the disk does not take them; the file is that of no tensors.

        """
        if self._closed:
            return
        self._closed = True
        with self._header, self._data:
            try:
                self._assemble()
                return
            except OSError as error:
                failure = error
        with contextlib.suppress(OSError):
            self._path.write_bytes((8).to_bytes(8, "little") + b"{}      ")
        raise failure

    def _assemble(self) -> None:
        length = self._header.tell() + 2
        padding = -length % 8  # data start at a multiple of 8
        with self._path.open("wb") as file:
            file.write((length + padding).to_bytes(8, "little") + b"{")
            for spool, end in ((self._header, b"}" + b" " * padding), (self._data, b"")):
                spool.seek(0)
                shutil.copyfileobj(spool, file)
                file.write(end)


#: What pydantic writes of a number that is none; a text may hold it, too, of which `spelled` changes nothing.
_NO_NUMBER = re.compile(rb"(?:NaN|Infinity)[,\]}]")


def encoded(data: Mapping[str, Any]) -> bytes:
    """JSON data as UTF-8, what either lacks as `spelled` has it."""
    with contextlib.suppress(ValueError):  # half a character
        text = to_json(data)
        if not _NO_NUMBER.search(text):
            return text
    return to_json(spelled(data))


def spelled(value: Any) -> Any:
    """JSON data without what JSON or UTF-8 lack: numbers that are none as case files spell them, half characters."""
    if isinstance(value, dict):
        return {key: spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
