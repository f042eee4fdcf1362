"""Behaviour of `conformance.record`: what a run folder holds, and that only whole runs are ever seen."""

from __future__ import annotations

import datetime
import errno
import io
import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
from safetensors.numpy import load_file
from tiny_run import TENSORS, fill, problem, starts, targets, write

from conformance import streams
from conformance.damage import Incomplete
from conformance.errors import UsageError
from conformance.harness import Array
from conformance.lines import digest
from conformance.observation import Observation
from conformance.problem import Problem, from_wire
from conformance.record import ARRAY_LIMIT, RunWriter, default_folder
from conformance.run_folder import read


def strict(text: str) -> Any:
    """JSON as other programs read it, which know no NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def lines(path: Path) -> list[dict[str, Any]]:
    return [strict(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


# What it holds


def test_a_run_is_a_folder_of_four_files(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    assert sorted(os.listdir(run)) == ["arrays.safetensors", "cases.jsonl", "results.jsonl", "run.json"]
    assert stat.S_IMODE(run.stat().st_mode) == 0o755


def test_run_json_says_what_ran_where(tmp_path: Path) -> None:
    info = strict((write(tmp_path / "run") / "run.json").read_text(encoding="utf-8"))
    assert list(info) == ["format", "suite", "started", "finished", "command", "platform", "targets"]
    assert info["format"] == 1
    assert info["command"] == ["conformance", "run", "-t", "numpy"]
    started, finished = (datetime.datetime.fromisoformat(info[key]) for key in ("started", "finished"))
    assert started.utcoffset() == datetime.timedelta(0)
    assert started <= finished
    assert list(info["platform"]) == ["system", "machine", "processor", "cores", "python"]
    ran, _, absent = info["targets"]
    assert ran == {
        "name": "numpy",
        "framework": "numpy",
        "title": "NumPy",
        "options": {"device": "cpu", "threads": "1"},
        "python": None,
        "host": None,
        "ran": True,
        "facts": {"version": "1.26.4", "device": "cpu"},
        "message": "",
    }
    assert (absent["name"], absent["ran"], absent["facts"]) == ("numpy,threads=3", False, {})
    assert absent["message"] == "no such thing"


def test_a_verdict_is_a_line(tmp_path: Path) -> None:
    conforming, crashed, *_ = lines(write(tmp_path / "run") / "results.jsonl")
    assert conforming == {
        "case": "tiny/case[eps=1]",
        "target": "numpy",
        "verdict": "conforms",
        "status": "expected",
        "expected": "conforms or conventional",
        "diagnosis": None,
        "because": "",
        "seconds": 0.000123,
        "tensors": {"y[0]": {"ratio": 0.25, "max_abs": 1e-7, "max_ulp": 2.0, "worst_index": [0, 2]}},
        "reason": "",
        "accepted": {},
        "tried": [],
        "error": None,
        "received": "Layer(3)",
        "facts": ["copied"],
        "digests": {name: digest(array) for name, array in TENSORS.items()},
    }
    assert crashed["digests"] == {}
    assert crashed["error"] == {"type": "WorkerDied", "message": "ended by SIGKILL\n\x1b[31mé\u2028\x85"}
    assert crashed["tensors"]["y[0]"] == {
        "ratio": None,
        "max_abs": 0.5,
        "max_ulp": None,
        "worst_index": [],
        "problem": "has dtype µ8",
    }


def test_a_digest_tells_bits_dtype_and_shape_apart_and_is_the_same_in_every_process() -> None:
    zero = np.zeros((2, 3), np.float32)
    others = [-zero, zero.T, zero.astype(np.float16), zero.view(np.int32), zero.ravel(), np.nextafter(zero, 1)]
    digests = [digest(Array.of(array)) for array in (zero, zero.copy(), *others)]
    assert digests[0] == digests[1] == "7UTSxc1x"  # of "float32[2, 3]" and 24 bytes of zero
    assert len(set(digests)) == 1 + len(others)


def test_a_pair_is_a_line(tmp_path: Path) -> None:
    assert lines(write(tmp_path / "run") / "results.jsonl")[2] == {
        "case": "tiny/case[eps=1]",
        "pair": ["numpy", "numpy,threads=2"],
        "agreement": "differ",
        "tensors": {"y[0]": {"ratio": 2.5, "max_abs": 1e-3, "max_ulp": 7.0, "worst_index": [0, 1]}},
        "because": "other: crashed",
    }


def test_the_last_line_counts_the_others(tmp_path: Path) -> None:
    run = write(tmp_path / "run", problem("tiny/a"), problem("tiny/b"))
    assert lines(run / "results.jsonl")[-1] == {
        "complete": True,
        "cases": 2,
        "verdicts": 4,
        "conforms": 2,
        "crashed": 2,
        "unexpected": 2,
        "pairs": 2,
        "differ": 2,
    }


def test_an_empty_run_has_a_last_line_too(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", []) as writer:
        writer.finish([], {})
        writer.publish()
    assert lines(tmp_path / "run" / "results.jsonl") == [{"complete": True}]
    assert read(tmp_path / "run").verdicts == []


def test_a_case_is_a_line_with_numbers_that_json_lacks_in_words(tmp_path: Path) -> None:
    (line,) = lines(write(tmp_path / "run") / "cases.jsonl")
    assert line == {
        "case": "tiny/case[eps=1]",
        "topic": "tiny",
        "file": "tiny.yaml",
        "line": 3,
        "about": "A tiny file.",
        "matrix": {"layer.eps": "inf"},
        "spec": {
            "why": "Numbers that JSON lacks.",
            "layer": {"rank": 1, "initial": {"gamma": {"values": ["nan", 1.0, "inf"]}}},
            "input": {"shape": [1, 3], "constant": 1.0, "replace": [{"at": [0, 0], "with": "-inf"}]},
            "gradient": {},
        },
        "digest": problem().digest,
    }


def test_a_file_whose_name_is_no_text_is_named_still(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.yaml")
    run = write(tmp_path / "run", problem(file=name))
    assert read(run).cases["tiny/case[eps=1]"]["file"] == "caf\\udce9.yaml"


# Tensors


def test_tensors_come_back_bit_by_bit(tmp_path: Path) -> None:
    run = read(write(tmp_path / "run"))
    for name, array in TENSORS.items():
        back = run.array("tiny/case[eps=1]", "numpy", name)
        assert back is not None
        assert (back.dtype, back.shape) == (from_wire(array).dtype, array.shape)
        assert back.tobytes() == array.data
    assert run.array("tiny/case[eps=1]", "numpy", "beta[0]") is None
    assert run.array("tiny/case[eps=1]", "numpy,threads=2", "y[0]") is None


def test_any_reader_of_safetensors_reads_them(tmp_path: Path) -> None:
    path = write(tmp_path / "run", problem("tiny/a"), problem("tiny/b")) / "arrays.safetensors"
    assert sorted(load_file(path)) == sorted(f"tiny/{case}::numpy::{name}" for case in "ab" for name in TENSORS)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    assert size % 8 == 0


@pytest.mark.parametrize(
    ("array", "kept"),
    [
        (Array.of(np.zeros(ARRAY_LIMIT, np.float32)), True),
        (Array.of(np.zeros(ARRAY_LIMIT + 1, np.float32)), False),
        (Array.of(np.zeros(1, np.complex64)), False),
    ],
    ids=["large", "too large", "of a strange type"],
)
def test_what_is_too_large_or_strange_is_judged_and_not_kept(array: Array, kept: bool, tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", []) as writer:
        writer.case(problem())
        writer.verdict("tiny/case[eps=1]", "numpy", tiny_run.CONFORMING, Observation(tensors={"y[0]": array}))
        writer.finish(targets(), starts())
        run = read(writer.publish())
    assert len(run.verdicts) == 1
    assert (run.array("tiny/case[eps=1]", "numpy", "y[0]") is not None) == kept


# Whole or not at all


def test_nothing_stands_there_until_the_run_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    with RunWriter(out, []) as writer:
        fill(writer, [problem()])
        assert not out.exists()
        aside = writer.finish(targets(), starts())
        (aside / "report.html").touch()
        assert not out.exists()
        assert writer.publish() == out
    assert os.listdir(out.parent) == ["run"]
    assert (out / "report.html").exists()


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_that_is_not_kept_leaves_nothing(finished: bool, tmp_path: Path) -> None:
    def interrupted() -> None:
        with RunWriter(tmp_path / "run", []) as writer:
            fill(writer, [problem()])
            if finished:
                writer.finish(targets(), starts())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_an_interrupted_run_leaves_the_earlier_one(tmp_path: Path) -> None:
    earlier = write(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), RunWriter(tmp_path / "run", []):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["run"]
    assert len(read(earlier).verdicts) == 2


def test_a_new_run_takes_the_place_of_an_earlier_one_as_a_whole(tmp_path: Path) -> None:
    (write(tmp_path / "run", problem("tiny/old")) / "report.html").touch()
    run = write(tmp_path / "run", problem("tiny/new"))
    assert os.listdir(tmp_path) == ["run"]
    assert list(read(run).cases) == ["tiny/new"]
    assert not (run / "report.html").exists()


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    assert write(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert write(Path()) == tmp_path / "here"
    assert len(read(tmp_path / "here").verdicts) == 2


def foreign_folder(tmp_path: Path) -> Path:
    (tmp_path / "precious").write_text("mine")
    return tmp_path


def foreign_run_json(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text("{}")
    return foreign_folder(tmp_path)


def damaged_run(tmp_path: Path) -> Path:
    run = write(tmp_path / "run")
    (run / "results.jsonl").unlink()
    return run


def plain_file(tmp_path: Path) -> Path:
    return foreign_folder(tmp_path) / "precious"


def below_a_file(tmp_path: Path) -> Path:
    return plain_file(tmp_path) / "run"


def dangling_link(tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to("nowhere")
    return tmp_path / "link"


def long_name(tmp_path: Path) -> Path:
    return tmp_path / ("x" * 300)


@pytest.mark.parametrize(
    "make",
    [foreign_folder, foreign_run_json, damaged_run, plain_file, below_a_file, dangling_link, long_name],
    ids=lambda make: make.__name__,
)
def test_what_is_no_run_is_left_alone(make: Any, tmp_path: Path) -> None:
    out = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="name another with -o"):
        RunWriter(out, [])
    assert sorted(tmp_path.rglob("*")) == before


# Interrupted


def kept(out: Path, *cases: Problem) -> Path | None:
    """What is left of a run of these cases that never came to its end."""
    with RunWriter(out, []) as writer:
        fill(writer, cases)
        return writer.keep(targets(), starts())


def test_what_was_judged_is_kept_beside_and_says_that_it_is_not_whole(tmp_path: Path) -> None:
    folder = kept(tmp_path / "run", problem())
    assert folder == tmp_path / "run.partial"
    assert os.listdir(tmp_path) == ["run.partial"]
    assert lines(folder / "results.jsonl")[-1]["complete"] is False
    with pytest.raises(Incomplete, match="interrupted after 2 verdicts on 1 cases"):
        read(folder)
    run = read(folder, partial=True)
    assert len(run.verdicts) == 2
    assert run.array("tiny/case[eps=1]", "numpy", "y[0]") is not None


def test_of_a_run_that_judged_nothing_nothing_is_kept(tmp_path: Path) -> None:
    assert kept(tmp_path / "run") is None
    assert os.listdir(tmp_path) == []


def test_what_is_kept_takes_no_place(tmp_path: Path) -> None:
    (tmp_path / "run.partial").write_text("mine")
    assert kept(tmp_path / "run", problem()) == tmp_path / "run.partial-2"
    assert kept(tmp_path / "run", problem()) == tmp_path / "run.partial-3"
    assert (tmp_path / "run.partial").read_text() == "mine"


def test_a_run_whose_reports_failed_is_kept_whole(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", []) as writer:
        fill(writer, [problem()])
        writer.finish(targets(), starts())
        folder = writer.keep(targets(), starts())
    assert folder == tmp_path / "run.partial"
    assert len(read(folder).verdicts) == 2


class FullDisk(io.FileIO):
    """A file on a disk that takes `room` bytes more."""

    room = 0

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = super().write(data[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize("room", [0, 1, 100, 900])
def test_a_line_that_the_disk_does_not_take_is_taken_back(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = FullDisk(tmp_path / "results.jsonl", "w")
    with RunWriter(tmp_path / "run", []) as writer:
        writer._results.close()
        monkeypatch.setattr(writer._results, "_file", file)
        file.room = 10_000
        fill(writer, [problem("tiny/a")])
        before = (tmp_path / "results.jsonl").read_bytes()
        file.room = room
        with pytest.raises(OSError, match="No space left"):
            fill(writer, [problem("tiny/b")])
    after = (tmp_path / "results.jsonl").read_bytes()
    assert after.startswith(before)
    assert after.endswith(b"\n")
    assert [strict(line.decode()) for line in after.splitlines()]


def test_where_tensors_find_no_room_the_verdicts_are_kept(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", []) as writer:
        fill(writer, [problem()])

        def full(_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        writer._arrays._data.write = full  # type: ignore[method-assign]
        writer._arrays._assemble = lambda: full(None)  # type: ignore[method-assign, assignment]
        with pytest.raises(OSError, match="No space left"):
            fill(writer, [problem("tiny/b")])
        folder = writer.keep(targets(), starts())
    assert folder is not None
    run = read(folder, partial=True)
    assert (run.footer["cases"], run.footer["verdicts"]) == (2, 3)
    assert run.array("tiny/case[eps=1]", "numpy", "y[0]") is None


def test_a_clock_that_is_set_back_does_not_end_a_run_before_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime.datetime):
        times = itertools.chain(["2026-01-02T12:00:00+00:00"], itertools.repeat("2026-01-01T00:00:00+00:00"))

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Clock:
            return cls.fromisoformat(next(cls.times))

    monkeypatch.setattr(datetime, "datetime", Clock)
    info = strict((write(tmp_path / "run") / "run.json").read_text(encoding="utf-8"))
    assert info["started"] == "2026-01-02T12:00:00+00:00"
    assert info["finished"].startswith("2026-01-02T12:00:0")


# Two at once


def test_of_two_runs_in_one_place_the_later_stays(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", []) as one, RunWriter(tmp_path / "run", []) as other:
        for writer, name in ((one, "tiny/one"), (other, "tiny/other")):
            fill(writer, [problem(name)])
            writer.finish(targets(), starts())
        assert one.publish() == other.publish() == tmp_path / "run"
    assert list(read(tmp_path / "run").cases) == ["tiny/other"]
    assert os.listdir(tmp_path) == ["run"]


def test_a_run_that_replaces_none_takes_the_next_free_name(tmp_path: Path) -> None:
    for expected in ("run", "run-2", "run-3"):
        with RunWriter(tmp_path / "run", [], replace=False) as writer:
            writer.finish([], {})
            assert writer.publish() == tmp_path / expected


def test_what_has_come_to_stand_there_while_a_run_went_on_is_left_alone(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", []) as writer:
        writer.finish([], {})
        (tmp_path / "run").write_text("mine")
        assert writer.publish() == tmp_path / "run-2"
    assert (tmp_path / "run").read_text() == "mine"


def test_tensors_beyond_what_a_header_may_list_are_judged_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEADER_LIMIT", 1_000)
    run = read(write(tmp_path / "run", *(problem(f"tiny/{n}") for n in range(9))))
    assert len(run.verdicts) == 18
    assert run.array("tiny/0", "numpy", "y[0]") is not None
    assert run.array("tiny/8", "numpy", "y[0]") is None


def test_without_a_name_a_run_is_called_by_its_time() -> None:
    folder = default_folder()
    assert folder.parent == Path("conformance-runs")
    datetime.datetime.strptime(folder.name, "%Y%m%d-%H%M%S")
