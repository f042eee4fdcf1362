"""Runs as someone else might have made them: a real one under other names, changed value by value.

For tests only. `real` makes a run of the NumPy layer that gives itself out for torch and Keras, `changed` spoils it,
and `read_by_all` puts it through every command that takes a stored run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from conformance.commands import baseline, compare, docs, findings, history, merge, report, repro
from conformance.commands.console import console
from conformance.errors import UsageError
from conformance.lines import case_line, target_line, verdict_line
from conformance.load import load_file
from conformance.pool import Pool
from conformance.problem import materialise
from conformance.record import RunWriter
from conformance.run_folder import Run, read
from conformance.session import judged
from conformance.target import parse
from conformance.upgrades import page
from conformance.upgrades.changes import Half
from conformance.upgrades.history import Version
from conformance.upgrades.history import history as versions_of
from conformance.upgrades.standing import Standing

Line = dict[str, Any]

#: Of every kind that a file of cases can hold.
CASES = """\
conformance: 1
about: Small cases of every kind.
defaults: {why: A test needs it., steps: [train, eval], input: {shape: [4, 3], normal: {}}}
cases:
  layer:
    layer: {initial: {gamma: [1, 2, nan]}}
    input: {shape: [2, 3, 2], normal: {}, replace: [{at: [0, 0, 0], with: inf}]}
  several: {layer: {}, matrix: {layer.momentum: [0.5, null]}, steps: [train, train, train, {mode: eval, frozen: true}]}
  documented:
    layer: {}
    input: {values: [[1, 2], [3, 4]]}
    steps: [train]
    documented: {numpy: {source: A page., tensors: {"y[0]": "9"}}}
  native: {native: {torch: {num_features: 3, affine: false}, keras: {axis: 1}}}
  signature:
    signature: {torch: {num_features: null, eps: "1e-5"}, keras: {axis: "-1"}}
    rank: 2
    input: null
  masked: {layer: {}, steps: [{mode: train, mask: {}}]}
  second: {layer: {}, steps: [{mode: train, second: {}}]}
"""

#: What a target of the run is called, and gives itself out for.
NAMES = {"numpy": ("torch", "PyTorch"), "numpy,threads=2": ("keras", "Keras")}

#: Text that would end a string, a comment, a statement, an element or a cell, and would act on a terminal.
EVIL = 'x\n\'""")]}; owned(); ({{ owned() }}</script><img src=x onerror=owned()>|`\x1b[31m\u202e\ud800'

#: What no run holds, and another program may write.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 10**30, 10**400, 0.5, -0.0, 1e308, 5e-324),
    *("", "x", "nan", "inf", "y[0]", "y[9]", "y[x]", "y[0] as documented", "is nan at [9], not 1", "..", "../../x"),
    *("./evil", "torch", "keras", "refused", "broken", "conventional", "timeout", "owned()", EVIL),
    *([], {}, [[]], [None], [1, 2, 3], [10**6], [0.5, "nan", 1e-9], {"": {}}, {EVIL: EVIL}, {"type": EVIL}),
)


def real(folder: Path) -> Path:
    """A run of the NumPy layer on small cases of every kind, which says that it is of torch and Keras."""
    file = folder / "small.yaml"
    file.write_text(CASES)
    targets = [parse(name) for name in NAMES]
    with RunWriter(folder / "run", ["conformance", "run"]) as writer, Pool(targets) as pool:
        for settled in judged([case for case in load_file(file) if case.kind == "layer"], pool):
            id_ = settled.problem.case.id
            asked = case_line(settled.problem)
            printed = asked["spec"].get("documented", {})
            printed |= {name: printed["numpy"] for name, _ in NAMES.values() if printed}
            writer.case_line(asked)
            for name, side in settled.sides.items():
                line = verdict_line(id_, name, side.verdict, side.observation, side.evidence)
                writer.verdict_line(_renamed(line))
                for tensor, array in side.observation.tensors.items():
                    writer.array(f"{id_}::{NAMES[name][0]}::{tensor}", array)
            for (a, b), agreement in settled.pairs.items():
                writer.pair(id_, NAMES[a][0], NAMES[b][0], agreement)
        for number, case in enumerate(case for case in load_file(file) if case.kind != "layer"):
            writer.case_line(case_line(materialise(case)))
            error = {"type": "ValueError", "message": "it may not be"}
            for name, _ in NAMES.values():
                said = {**line, "case": case.id, "target": name, "error": error, "diagnosis": None, "tensors": {}}
                writer.verdict_line({**said, "verdict": ("refused", "crashed")[number % 2], "status": "unexpected"})
        started = [_renamed(target_line(target, pool.starts[target.name])) for target in targets]
        writer.finish_as({**writer._info([], {}), "targets": started})
        return writer.publish()


def _renamed(line: Line) -> Line:
    """A line of one target as if it were of another; a target has no `case`."""
    if "case" in line:
        return {**line, "target": NAMES[line["target"]][0]}
    name, title = NAMES[line["name"]]
    return {**line, "name": name, "framework": name, "title": title, "options": parse(name).options}


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths to everything within JSON data."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def changed(choose: Callable[[Sequence[Any]], Any], files: dict[str, list[Line]]) -> None:
    """Spoil one thing in the lines of a run: a value, a key, its place, how deep it lies."""
    lines = files[choose(sorted(files))]
    index = choose(range(len(lines)))
    found = sorted(places(lines[index]), key=str)
    if not found:
        return
    *outer, key = choose(found)
    around = at(lines[index], tuple(outer))
    match choose(["value", "value", "value", "other", "drop", "key", "deep", "line", "add"]):
        case "value":
            around[key] = choose(VALUES)
        case "other":
            around[key] = copied(at(lines[index], choose(found)))
        case "drop":
            del around[key]
        case "key" if isinstance(around, dict):
            around[choose(["", "x", "y[9]", "0", "native", "keras", EVIL])] = around.pop(key)
        case "deep":
            for _ in range(choose([1, 60, 240, 700])):
                around[key] = [around[key]]
        case "line":
            lines.insert(choose(range(len(lines) + 1)), copied(lines[index]))
        case _ if isinstance(around, dict):
            around[choose(["x", "signature", "documented", "problem", "worst"])] = choose(VALUES)


def lines_of(run: Path) -> dict[str, list[Line]]:
    """What a run says, but for its footer."""
    texts = {name: (run / name).read_text(encoding="utf-8") for name in ("cases.jsonl", "results.jsonl")}
    files = {name: [json.loads(line) for line in text.split("\n")[:-1]] for name, text in texts.items()}
    files["results.jsonl"].pop()
    return {**files, "run.json": [json.loads((run / "run.json").read_text(encoding="utf-8"))]}


def write(run: Path, files: dict[str, list[Line]]) -> None:
    """Put lines into a run's files, with a footer that counts them, so that the lines are what is wrong."""
    results = files["results.jsonl"]
    counts = Counter(str(line.get("agreement" if "pair" in line else "verdict")) for line in results)
    counts["unexpected"] = sum("pair" not in line and line.get("status") == "unexpected" for line in results)
    counts["pairs"] = sum("pair" in line for line in results)
    counts.update(cases=len(files["cases.jsonl"]), verdicts=len(results) - counts["pairs"])
    texts = {name: "".join(json.dumps(line) + "\n" for line in lines) for name, lines in files.items()}
    texts["results.jsonl"] += json.dumps({"complete": True, **counts}) + "\n"
    for name, text in texts.items():
        (run / name).write_text(text, encoding="utf-8", newline="\n")


def _history(runs: list[Run], out: Path) -> None:
    """The table of the first target over the runs, as `conformance history` makes it of runs of one target."""
    halves: list[Half | Version] = [Half(run, run.targets[0]["name"]) for run in runs if run.targets]
    made = versions_of("PyTorch", halves)
    history._show(console(), made)
    values = history._values([made], {"PyTorch": halves}, [], "")
    out.mkdir(exist_ok=True)
    (out / "history.html").write_text(page.rendered("history.html.j2", values), encoding="utf-8")
    template = page.templates(autoescape=False).get_template("history.md.j2")
    (out / "history.md").write_text(template.render(values), encoding="utf-8")


def read_by_all(run: Path, whole: Path, out: Path) -> list[str]:
    """Every command that takes a stored run, on this one and on a whole one; the messages of those that refuse it."""
    said: list[str] = []

    def attempt(command: Callable[..., Any], *arguments: Any) -> None:
        try:
            command(*arguments)
        except UsageError as error:
            said.append(str(error))

    attempt(report.write, run)
    attempt(docs.write, run, out / "docs")
    attempt(findings.show, run, None)
    attempt(compare.compare, whole, run, out / "changes", False)
    attempt(compare.compare, run, whole, None, True)
    attempt(merge.merge, [run, whole], out / "merged")
    attempt(baseline.update, out / "baseline", run, [])
    try:
        stored = read(run)
    except UsageError:
        return said
    for line in stored.verdicts:
        attempt(repro.repro, line["case"], [], line["target"], "cpu", run)
        for tensor in line.get("digests", {}):
            attempt(stored.array, line["case"], line["target"], tensor)
    before = Standing(read(whole))
    attempt(_history, [before.run, stored], out)
    for line in stored.verdicts:
        attempt(before.changed, line, stored.cases[line["case"]]["digest"], line["target"])
    return said
