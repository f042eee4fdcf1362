"""The suite's version is known wherever it runs from."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from conformance.suite_version import suite_version

OURS = '[project]\nname = "batchnorm-conformance"\nversion = "9.8.7"\n'


def test_a_checkout_says_its_version_installed_or_not() -> None:
    assert suite_version() == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("text", ["", "[project", '[project]\nname = "other"\nversion = "1"\n', "project = 3", None])
def test_where_no_checkout_says_it_the_installation_does(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.setattr(importlib.metadata, "version", {"batchnorm-conformance": "1.2.3"}.__getitem__)
    assert suite_version(tmp_path) == "1.2.3"
    (tmp_path / "pyproject.toml").write_text(OURS)
    assert suite_version(tmp_path) == "9.8.7"


def test_where_nothing_says_it_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert suite_version(tmp_path) == "unknown"
