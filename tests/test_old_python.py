"""The adapter's half runs where old framework versions live: on the oldest Python that is here and has NumPy."""

from __future__ import annotations

import subprocess

import pytest
from conftest import ROOT

from conformance import data
from conformance.crew import Started
from conformance.environments import cache_folder, pythons
from conformance.load import load
from conformance.pool import Pool
from conformance.session import judged
from conformance.target import parse

OLDEST = (3, 8)
BEFORE = (3, 10)


def asked(python: str, code: str) -> str:
    """What an interpreter prints; empty if it fails."""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def version(python: str) -> tuple[int, ...]:
    said = asked(python, "import sys; print('.'.join(map(str, sys.version_info[:3])))")
    return tuple(map(int, said.split("."))) if said else ()


def old_pythons() -> list[str]:
    """Interpreters of 3.8 and 3.9, the oldest first, those of environments built earlier among them."""
    built = sorted(str(path) for path in cache_folder().glob("*/bin/python"))
    found = {python: version(python) for python in (*pythons(), *built)}
    return sorted((p for p, v in found.items() if OLDEST <= v < BEFORE), key=lambda python: found[python])


def test_the_numpy_target_conforms_on_the_oldest_python_that_has_numpy() -> None:
    python = next((one for one in old_pythons() if asked(one, "import numpy; print(numpy.__version__)")), None)
    if python is None:
        pytest.skip("no Python 3.8 or 3.9 with NumPy is here")
    target = parse(f"numpy,python={python}")
    cases = load([ROOT / "cases" / "momentum.yaml", ROOT / "cases" / "modes.yaml"], frozenset(data.adapters()))
    with Pool([target]) as pool:
        sides = [side for settled in judged(cases, pool) for side in settled.sides.values()]
        start = pool.starts[target.name]
    assert isinstance(start, Started)
    assert tuple(map(int, start.facts["python"].split(".")))[:2] < BEFORE
    assert len(sides) > 100
    assert [side.verdict for side in sides if side.verdict.status != "expected"] == []


def test_harness_and_adapters_are_python_3_8() -> None:
    """Also without NumPy: what they are written in compiles."""
    python = next(iter(old_pythons()), None)
    if python is None:
        pytest.skip("no Python 3.8 or 3.9 is here")
    for source in (ROOT / "conformance" / "harness.py", *sorted((ROOT / "adapters").glob("*/adapter.py"))):
        code = f"compile(open({str(source)!r}, encoding='utf-8').read(), {str(source)!r}, 'exec'); print('compiles')"
        assert asked(python, code) == "compiles", source
