"""Files that are written whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conformance.whole import replacing


def test_what_is_written_takes_the_place_of_what_was(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for text in ("the first\n", "ε, the second\n"):
        with replacing(page) as file:
            file.write(text)
        assert page.read_bytes() == text.encode()
    assert list(tmp_path.iterdir()) == [page]


def test_a_link_stays_a_link_and_a_mode_is_kept(tmp_path: Path) -> None:
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text("old")
    page.chmod(0o640)
    link.symlink_to(page)
    with replacing(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert page.read_text() == "new"
    assert page.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_slip_in_the_middle_leaves_what_was(tmp_path: Path, error: type[BaseException]) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")

    def slip() -> None:
        with replacing(page) as file:
            file.write("half of ")
            raise error

    with pytest.raises(error):
        slip()
    assert page.read_text() == "old"
    assert list(tmp_path.iterdir()) == [page]


def test_a_disk_that_is_full_leaves_what_was(tmp_path: Path) -> None:
    """RLIMIT_FSIZE is a disk that is full after so many bytes."""
    page = tmp_path / "page.html"
    page.write_text("old")
    write = f"""
import pathlib, resource, signal
from conformance.whole import replacing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with replacing(pathlib.Path({str(page)!r})) as file:
        file.write("x" * 1_000_000)
except OSError as error:
    print("said", error.errno)
"""
    done = subprocess.run([sys.executable, "-c", write], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("said")
    assert page.read_text() == "old"
    assert list(tmp_path.iterdir()) == [page]
