"""What SECURITY.md promises, promise by promise, on the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from conformance.commands.compare import safe_name

CASES = """\
conformance: 1
about: "<script>alert(1)</script> {{ 7 * 191 }} \\u202e"
cases:
  hostile:
    why: "[bold]<img src=x onerror=alert(1)>[/] {{ 7 * 191 }} {% raw %} \\u202ereversed"
    layer: {}
    input: {shape: [4, 3], normal: {}}
    expect: {numpy: {refuses: "</script><script>alert(1)</script>", because: "{{ 7 * 191 }} \\u2066x"}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.yaml").write_text(CASES)
    return tmp_path


def conformance(*arguments: str) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "conformance", *arguments], capture_output=True, timeout=300, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert "Traceback" not in said
    return done.returncode, said


def harmless(text: str) -> bool:
    """Whether no character of it acts on a terminal."""
    return all(character.isprintable() or character == "\n" for character in text)


def test_text_of_a_case_acts_neither_on_a_terminal_nor_in_a_report(folder: Path) -> None:
    for arguments in (
        ["list", "hostile.yaml"],
        ["explain", "hostile/hostile", "-p", "hostile.yaml", "-t", "numpy"],
        ["run", "hostile.yaml", "-t", "numpy", "-o", "out"],
    ):
        code, said = conformance(*arguments)
        assert code in (0, 1)
        assert harmless(said), said
    for name in ("report.html", "junit.xml", "summary.md"):
        text = (folder / "out" / name).read_text(encoding="utf-8")
        assert "<script>alert(1)" not in text
        assert "<img src=x" not in text
        assert "1337" not in text  # 7 * 191
        assert "\u202e" not in text
        assert "\u2066" not in text


@pytest.mark.parametrize(
    "name", ["../up", "..", "/etc/passwd", "a/b", ".hidden", "a b", "a[b]", "%2e%2e", "a\\b", "-o"]
)
def test_no_name_of_a_case_leads_out_of_a_folder(name: str, folder: Path) -> None:
    (folder / "hostile.yaml").write_text(CASES.replace("  hostile:", f"  '{name}':"))
    code, said = conformance("run", "hostile.yaml", "-t", "numpy", "-o", "out")
    assert code == 2
    assert "hostile.yaml:4:3: " in said
    assert "cannot be the name of a case" in said
    assert os.listdir(folder) == ["hostile.yaml"]


@pytest.mark.parametrize("name", ["..", "../../x", "/etc/x", "a/b", ".", "", "a\\..\\b"])
def test_no_name_of_a_target_leads_out_of_a_folder(name: str) -> None:
    """Comparisons of several targets stand below a folder, each by its name."""
    folder = Path("out")
    assert (folder / safe_name(name)).resolve().is_relative_to(folder.resolve())


@pytest.mark.parametrize(
    "line",
    [
        "about: !!python/object/apply:os.system ['touch owned']",
        "about: !!python/name:os.system x",
        "about: !include /etc/passwd",
        "about: !!binary aGk=",
        "<<: {about: x}",
    ],
)
def test_no_tag_of_a_case_file_does_anything(line: str, folder: Path) -> None:
    (folder / "hostile.yaml").write_text(CASES.replace(CASES.splitlines()[1], line))
    code, said = conformance("validate", "hostile.yaml")
    assert code == 2
    assert "hostile.yaml:2:" in said
    assert "not supported" in said
    assert os.listdir(folder) == ["hostile.yaml"]


def test_no_text_of_a_case_becomes_code_of_a_script(folder: Path) -> None:
    """A document's name has lines that would be Python."""
    source = "A page\\nimport os\\nos.mkdir('owned')"
    documented = f'documented: {{numpy: {{source: "{source}", tensors: {{"y[0]": "9"}}}}}}'
    (folder / "hostile.yaml").write_text(CASES.replace("layer: {}", f"layer: {{}}\n    {documented}"))
    shutil.copytree(ROOT / "adapters" / "torch", folder / "mine")
    shutil.copy(ROOT / "adapters" / "numpy" / "adapter.py", folder / "mine")
    profile = folder / "mine" / "profile.yaml"
    profile.write_text(profile.read_text().replace("framework: torch", "framework: numpy"))
    code, script = conformance("repro", "hostile/hostile", "-p", "hostile.yaml", "-t", "./mine")
    assert code == 0
    assert "# What is documented, in: A page import os os.mkdir('owned')" in script.splitlines()


def test_a_case_cannot_name_an_adapter(folder: Path) -> None:
    """Nor does one that lies beside it run unasked."""
    for place in (folder / "evil", folder / "adapters" / "numpy"):
        place.mkdir(parents=True)
        (place / "adapter.py").write_text(f"open({str(folder / 'owned')!r}, 'w')")
        (place / "profile.yaml").write_text((ROOT / "adapters" / "numpy" / "profile.yaml").read_text())
    (folder / "hostile.yaml").write_text(CASES.replace("layer: {}", "native: {./evil: {}}"))
    assert conformance("run", "hostile.yaml", "-t", "numpy", "-o", "out")[0] == 2
    (folder / "hostile.yaml").write_text(CASES)
    assert conformance("run", "hostile.yaml", "-t", "numpy", "-o", "out")[0] == 1
    assert not (folder / "owned").exists()


def test_a_name_of_a_file_acts_on_no_terminal(folder: Path) -> None:
    (folder / "hostile.yaml").rename(folder / "\x1b[31mred.yaml")
    for arguments in (["list"], ["validate"], ["run", "-t", "numpy", "-o", "out"], ["validate", "\x1b[31mno.yaml"]):
        assert harmless(conformance(*arguments, ".")[1])


@pytest.mark.parametrize("name", ["report.html", "junit.xml", "summary.md"])
def test_a_report_follows_no_link_out_of_its_folder(name: str, folder: Path) -> None:
    conformance("run", "hostile.yaml", "-t", "numpy", "-o", "out")
    precious = folder / "precious"
    precious.write_text("mine")
    (folder / "out" / name).unlink()
    (folder / "out" / name).symlink_to(precious)
    code, said = conformance("report", "out")
    assert code == 2
    assert f"{Path('out', name)} is a link" in said
    assert precious.read_text() == "mine"


def test_a_report_waits_for_no_pipe(folder: Path) -> None:
    conformance("run", "hostile.yaml", "-t", "numpy", "-o", "out")
    (folder / "out" / "report.html").unlink()
    os.mkfifo(folder / "out" / "report.html")
    code, said = conformance("report", "out")
    assert code == 2
    assert f"{Path('out', 'report.html')} is no plain file" in said
