"""Coverage-guided fuzzing of what reads files from elsewhere.

``python benchmarks/fuzz.py case -max_total_time=600``, or ``run``; the rest goes to libFuzzer, folders of seeds too.
Needs atheris (``pip install atheris``), which has wheels for few Pythons and so is no dependency; hypothesis does the
same in small in the tests. Ends with a crash file on anything but a named error.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["conformance", "ruamel"]):
    from conformance.case_errors import CaseErrors
    from conformance.damage import RunDamage
    from conformance.load import load_file
    from conformance.record import FILES
    from conformance.run_folder import read

HEAD = b"conformance: 1\nabout: x\n"


def case(folder: Path, data: bytes) -> None:
    """Bytes as the rest of a case file: cases, or errors that each say where they are."""
    file = folder / "fuzz.yaml"
    file.write_bytes(HEAD + data)
    try:
        load_file(file)
    except CaseErrors as found:
        assert found.errors
        assert all(error.line and str(error).isprintable() for error in found.errors)


def run(folder: Path, data: bytes) -> None:
    """Bytes as one file of a run that has the others: a run, or a damage that has a name."""
    whole = {
        "run.json": b'{"format": 1, "suite": "", "started": "", "finished": "", "command": [], "platform": '
        b'{"system": "", "machine": "", "processor": "", "cores": 1, "python": ""}, "targets": []}',
        "cases.jsonl": b"",
        "results.jsonl": b'{"complete": true}\n',
        "arrays.safetensors": (2).to_bytes(8, "little") + b"{}",
    }
    whole[FILES[data[0] % len(FILES)] if data else "run.json"] = data[1:]
    for name, text in whole.items():
        (folder / name).write_bytes(text)
    try:
        read(folder).array("case", "target", "y[0]")
    except RunDamage as damage:
        assert str(damage).isprintable()


def main() -> None:
    """Fuzz until the time given is over."""
    kinds = {"case": case, "run": run}
    if len(sys.argv) < 2 or sys.argv[1] not in kinds:
        raise SystemExit(__doc__)
    kind = kinds[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as folder:
        atheris.Setup(sys.argv, lambda data: kind(Path(folder), data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
