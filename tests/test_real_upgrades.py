"""Known turns in the frameworks' past, on the real versions; `tox run -e history` installs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT

from conformance.run_folder import read
from conformance.upgrades.changes import Comparison, Half, compare

pytestmark = [
    pytest.mark.upgrades,
    pytest.mark.skipif(not os.environ.get("CONFORMANCE_UPGRADES"), reason="installs gigabytes: tox run -e history"),
]


def upgraded(folder: Path, old: str, new: str, select: str) -> Comparison:
    """Run the upgrade check on the selected cases, and return what it compared."""
    command = [sys.executable, "-m", "conformance", "upgrade", old, new, "-k", select, "-o", str(folder / "run")]
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    run = read(folder / "run")
    assert [line["case"] for line in run.unexpected] == []
    return compare(Half(run, old), Half(run, new))


def conventions(comparison: Comparison) -> Counter[str]:
    return Counter(case.what for case in comparison.cases if case.change == "convention")


def moving(comparison: Comparison) -> int:
    """How many of the cases move the statistics."""
    return sum("momentum=0.0]" not in case.case for case in comparison.cases)


def test_mindspore_made_its_running_variance_unbiased_between_2_0_and_2_7(tmp_path: Path) -> None:
    found = upgraded(tmp_path, "mindspore==2.0.0", "mindspore==2.7.0", "momentum/dimensions")
    assert conventions(found) == {"conventional (running-variance-biased) → canonical": moving(found)}


def test_keras_3_made_the_running_variance_of_images_biased(tmp_path: Path) -> None:
    found = upgraded(tmp_path, "tensorflow==2.15.1", "tensorflow==2.16.2", "momentum/values")
    assert conventions(found)["canonical → conventional (running-variance-biased)"] == moving(found)


def test_tensorflow_2_5_raised_a_small_eps_to_that_of_cudnn(tmp_path: Path) -> None:
    found = upgraded(tmp_path, "tensorflow==2.5.0", "tensorflow==2.15.1", "eps/values")
    assert any("least-eps-1.001e-05" in what.partition("→")[0] for what in conventions(found))
    assert not any("least-eps" in what.partition("→")[2] for what in conventions(found))


def test_torch_grew_arguments_and_kept_its_conventions(tmp_path: Path) -> None:
    select = "momentum/values or momentum/dimensions or claims/batchnorm2d/signature"
    found = upgraded(tmp_path, "torch==1.8.1", "torch==2.13.0", select)
    assert conventions(found) == {}
    (signature,) = [case for case in found.cases if case.change == "signature"]
    assert signature.what.startswith("device=None is new; dtype=None is new")
    assert {case.change for case in found.cases} <= {"identical", "within bound", "signature"}
