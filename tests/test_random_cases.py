"""Random cases are cases: valid, and the same from the same seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conformance.load import load
from conformance.problem import materialise

SCRIPT = Path(__file__).parent / "random_cases.py"


def drawn(*options: str) -> bytes:
    return subprocess.run([sys.executable, str(SCRIPT), *options], check=True, capture_output=True).stdout


def cases_of(seed: int) -> bytes:
    """Without the file's description, which says the seed."""
    return drawn("--seed", str(seed), "--count", "5").partition(b"\ncases:")[2]


def test_every_random_case_loads_and_can_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "random.yaml").write_bytes(drawn("--seed", "1", "--count", "150"))
    cases = load([tmp_path / "random.yaml"])
    assert len(cases) == 150
    assert {len(case.spec.steps) for case in cases} == {1, 2, 3, 4}
    assert {case.rank for case in cases} == {1, 2, 3}
    assert all(materialise(case).calls for case in cases)


def test_the_same_seed_draws_the_same_cases_and_another_seed_others() -> None:
    assert cases_of(2)
    assert cases_of(2) == cases_of(2) != cases_of(3)
