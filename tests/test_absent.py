"""What is missing is named with the command that installs it, where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from conformance.commands.absent import installing, next_step
from conformance.suite_version import source
from conformance.target import parse

MISSING = "ModuleNotFoundError: No module named 'jax'"


def test_a_checkout_is_installed_from_its_folder_and_a_wheel_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert installing("keras") == "pip install '.[tensorflow]'"
    monkeypatch.chdir(tmp_path)
    assert source() == str(ROOT)
    assert source(tmp_path) == "batchnorm-conformance"


@pytest.mark.parametrize(
    ("target", "message", "step"),
    [
        ("keras,backend=jax", f"Keras cannot be imported: {MISSING}", "pip install '.[jax]'"),
        ("keras,python=3.12", MISSING, "python3.12 -m pip install jax"),
        ("keras,host=ssh:there", MISSING, ""),
        ("keras==3.0.0", MISSING, ""),
        ("numpy", "ModuleNotFoundError: No module named 'something_else'", ""),
        ("numpy", "there is no such device here", ""),
    ],
)
def test_the_next_step_is_for_the_interpreter_that_lacks_the_framework(
    target: str, message: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert next_step(parse(target), message) == step
