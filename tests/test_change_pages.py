"""The pages of a comparison and of a history: whole, harmless whatever the texts hold, and well formed."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import ROOT
from handmade_runs import BIASED, HOSTILE, REFUSED, case, hostile, run, tensor, verdict
from ruamel.yaml import YAML
from typer.main import get_command

from conformance.cli import app
from conformance.run_folder import Run
from conformance.upgrades import page
from conformance.upgrades.changes import Comparison, Half, compare


def bare(made: Run) -> Run:
    """A run behind which there is no file of arrays."""
    object.__setattr__(made, "array", lambda *_: None)
    return made


def moved() -> Comparison:
    """One case of each of: identical, moved within the bound, another convention."""
    names = ["a/same", "a/rounded", "b/meant"]
    cases = [case(name) for name in names]
    old = [verdict(of=name, digests={"y[0]": "old"}) for name in names]
    new = [
        verdict(of="a/same", digests={"y[0]": "old"}),
        verdict(of="a/rounded", digests={"y[0]": "new"}, tensors={"y[0]": tensor(0.5)}),
        verdict("conventional", of="b/meant", digests={"y[0]": "new"}, **BIASED),
    ]
    return compare(Half(bare(run(old, cases=cases)), "torch"), Half(bare(run(new, cases=cases)), "torch"))


def evil() -> Comparison:
    """What two runs changed in which every text tries to act."""
    old, new = bare(hostile()), bare(hostile())
    first, *rest = new.verdicts
    new = replace(new, verdicts=[{**first, "diagnosis": f"other {HOSTILE}"}, *rest])
    new.info["suite"] = HOSTILE
    return compare(Half(old, HOSTILE), Half(new, HOSTILE))


class Tags(HTMLParser):
    """Collects what a document would do."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("make", [moved, evil])
def test_the_page_runs_nothing_and_asks_for_nothing(make: object) -> None:
    tags = Tags(page.html(make())).tags  # type: ignore[operator]
    assert not {"script", "img", "iframe", "object", "form"} & {tag for tag, _ in tags}
    assert not [attrs for _, attrs in tags if any(name.startswith("on") for name in attrs)]
    assert {attrs.get("href", "#")[:1] for tag, attrs in tags if tag == "a"} <= {"#"}  # type: ignore[index]
    (policy,) = [a["content"] for tag, a in tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_page_names_every_change_and_its_meaning() -> None:
    text = page.html(moved())
    for words in ("PyTorch 2.13.0+cpu: 1 of 3 cases changed", "convention", "b/meant", "other bits, and both within"):
        assert words in text


def test_a_hostile_text_stays_text_in_markdown_and_in_xml() -> None:
    text = page.markdown_page(evil())
    assert "<img" not in re.sub(r"`+[^`]*`+", "", text)
    assert "\x1b" not in text
    ElementTree.fromstring(page.junit(evil()))


def test_junit_fails_what_is_harmful_and_keeps_the_evidence_of_the_rest() -> None:
    (suite,) = ElementTree.fromstring(page.junit(moved()))
    tests = {test.get("name"): [child.tag for child in test] for test in suite}
    assert tests == {"same": [], "rounded": ["system-out"], "meant": ["failure"]}
    (strict,) = ElementTree.fromstring(page.junit(moved(), strict=True))
    assert strict.get("failures") == "2"


@pytest.mark.parametrize(
    ("strict", "words"),
    [(False, "1 of 3 cases changed beyond the bound on rounding."), (True, "2 of 3 cases changed.")],
)
def test_the_headline_says_the_result(strict: bool, words: str) -> None:
    assert page.headline(moved(), strict).endswith(words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ([], "2 cases, every one the same to the last bit."),
        (["rounded"], "in 2 cases; 1 moved within it."),
        (["refused"], "in 2 cases; 1 refused in other words."),
        (["rounded", "refused"], "in 2 cases; 1 moved within it, 1 refused in other words."),
    ],
)
def test_the_headline_tells_other_words_from_other_bits(changed: list[str], words: str) -> None:
    cases = [case("a/rounded"), case("a/refused")]
    old = [verdict(of="a/rounded", digests={"y[0]": "old"}), verdict("refused", of="a/refused", digests={}, **REFUSED)]
    new = list(old)
    if "rounded" in changed:
        new[0] = {**old[0], "digests": {"y[0]": "new"}}
    if "refused" in changed:
        new[1] = {**old[1], "error": {"type": "ValueError", "message": "other words"}}
    found = compare(Half(bare(run(old, cases=cases)), "torch"), Half(bare(run(new, cases=cases)), "torch"))
    assert page.headline(found).endswith(words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ab", "abcd", "PyTorch 2.13.0+cpu: 2 cases of both sides, every one the same to the last bit; 2 are new."),
        ("abc", "a", "1 case of both sides, every one the same to the last bit; 2 are gone."),
        ("aB", "abc", "1 of 2 cases of both sides changed beyond the bound on rounding; 1 is new."),
        ("ab", "cd", "no case can be compared; 2 are gone, 2 are new."),
        ("abX", "abx", "2 cases of both sides, every one the same to the last bit; 1 is not comparable."),
    ],
)
def test_the_headline_counts_what_one_side_lacks_apart_from_what_changed(old: str, new: str, words: str) -> None:
    """A capital is another verdict, and an X another case of the same name."""

    def side(letters: str) -> Half:
        held: dict[str, Any] = {"digests": {"y[0]": "same"}}
        lines = [
            verdict("conventional", of="a/b", **held, **BIASED) if letter == "B" else verdict(of=f"a/{letter}", **held)
            for letter in letters.replace("X", "x")
        ]
        cases = [case(f"a/{letter.lower()}") | {"digest": letter} for letter in letters.replace("B", "b")]
        return Half(bare(run(lines, cases=cases)), "torch")

    assert page.headline(compare(side(old), side(new))).endswith(words)


COMMANDS = re.findall(
    r"^ *(?:entry: |- run: )?(conformance (?:[a-z]+) .*)$", (ROOT / "docs" / "ci.md").read_text(encoding="utf-8"), re.M
)


@pytest.mark.parametrize("line", [*COMMANDS])
def test_every_command_of_the_documentation_has_the_options_it_is_shown_with(line: str) -> None:
    words = line.split()[1:]
    command = get_command(app)
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)} <= known


def test_the_workflow_of_the_documentation_is_yaml_with_a_job() -> None:
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    workflow = YAML(typ="safe").load(block)
    steps = workflow["jobs"]["upgrade"]["steps"]
    assert all("uses" in step or "run" in step for step in steps)
    assert any("GITHUB_STEP_SUMMARY" in step.get("run", "") for step in steps)


@pytest.mark.parametrize(
    ("pinned", "newest", "code", "called"),
    [
        ("torch==2.13.0  # as tested\n", "2.15.0", 0, ["upgrade torch==2.13.0 torch==2.15.0 -o upgrade"]),
        ("torch==2.15.0\n", "2.15.0", 0, []),
        ("torch>=2.0\n", "2.15.0", 1, []),
        ("torch==2.13.0\n", "", 1, []),
    ],
)
def test_the_workflow_compares_two_versions_or_says_which_is_missing(
    pinned: str, newest: str, code: int, called: list[str], tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    steps = YAML(typ="safe").load(block)["jobs"]["upgrade"]["steps"]
    (script,) = (step["run"] for step in steps if step.get("name") == "Compare")
    (tmp_path / "requirements.txt").write_text(pinned)
    for name, body in {"pip": f"echo 'torch ({newest})'", "conformance": 'echo "$*" >> called'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(["/bin/sh", "-ec", script], cwd=tmp_path, env={"PATH": path}, check=False, timeout=60)
    assert done.returncode == code
    log = tmp_path / "called"
    assert (log.read_text().splitlines() if log.exists() else []) == called


def test_pages_are_written_into_a_folder(tmp_path: Path) -> None:
    page.write(moved(), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"changes.html", "changes.md", "changes.xml"}
