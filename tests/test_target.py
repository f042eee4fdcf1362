"""A target is an adapter, its options and its interpreter; what is misspelled is told with the nearest known word."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conformance import data
from conformance.configuration import configured
from conformance.data import folder
from conformance.errors import UsageError
from conformance.target import MAIN, Target, installed, interpreter, parse

OWN_PROFILE = """\
framework: mine
name: Mine
package: numpy
options:
  device: [cpu]
  execution: [eager, compiled]
parameters: {}
conventions: []
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's own adapter."""
    path = tmp_path / "mine"
    path.mkdir()
    (path / "adapter.py").write_text("")
    (path / "profile.yaml").write_text(OWN_PROFILE)
    return path


def failing(text: str, **how: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, **how)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_name_alone_has_the_first_value_of_every_option() -> None:
    target = parse("torch")
    assert (target.name, target.framework, target.python, target.host) == ("torch", "torch", None, None)
    assert target.options["device"] == "cpu"
    assert target.options["execution"] == target.profile.options["execution"][0]
    assert target.options["threads"] == "1"
    assert target.adapter.source == folder("adapters") / "torch" / "adapter.py"


def test_options_are_set_and_the_name_keeps_what_was_written() -> None:
    target = parse("torch,execution=compiled,threads=4", device="cuda")
    assert target.name == "torch,execution=compiled,threads=4"
    assert (target.options["execution"], target.options["threads"], target.options["device"]) == (
        "compiled",
        "4",
        "cuda",
    )
    assert parse("torch,device=cpu", device="cuda").options["device"] == "cpu"
    assert parse("torch", threads=3).options["threads"] == "3"


def test_the_place_of_a_worker_is_no_option_of_the_adapter() -> None:
    target = parse("numpy,python=3.9,host=ssh:build3")
    assert (target.python, target.host) == ("3.9", "ssh:build3")
    assert target.options == {"device": "cpu", "threads": "1"}


def test_a_folder_is_an_adapter_too(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = parse(f"{mine},execution=compiled")
    assert (target.framework, target.options["execution"]) == ("mine", "compiled")
    monkeypatch.chdir(mine.parent)
    assert parse("./mine").framework == parse("mine").framework == "mine"


def test_an_alias_of_the_configuration_stands_for_its_text() -> None:
    target = parse("gpu", named={"gpu": "torch,device=cuda"})
    assert (target.name, target.framework, target.options["device"]) == ("gpu", "torch", "cuda")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("troch", "no target 'troch' (did you mean torch?)"),
        ("zzz", "no target 'zzz' (known are "),
        (
            "torch,exection=compiled",
            "target torch,exection=compiled: unknown option 'exection' (did you mean execution?)",
        ),
        ("numpy,colour=red", "target numpy,colour=red: unknown option 'colour' (known are device)"),
        ("numpy,device=gpu", "target numpy,device=gpu: device is one of cpu, not 'gpu'"),
        ("torch,execution", "target torch,execution: 'execution' is no option=value"),
        ("torch,", "target torch,: '' is no option=value"),
        ("torch,threads=0", "target torch,threads=0: threads is a whole number from 1, not '0'"),
        ("torch,threads=two", "target torch,threads=two: threads is a whole number from 1, not 'two'"),
        ("torch==", "target torch==: no version follows == (a script's variable may be empty; write torch==1.2.3, or "),
        ("torch== ", "target torch== : no version follows =="),
        ("torch,version=", "target torch,version=: no version follows version= ("),
        ("numpy,python=", "target numpy,python=: nothing follows python= (leave python= out, or give it a value)"),
        ("numpy,host=", "target numpy,host=: nothing follows host="),
        ("numpy,host=bogus:x", "target numpy,host=bogus:x: host=bogus:x names no host (write host=ssh:NAME)"),
        ("numpy,host=ssh", "target numpy,host=ssh: host=ssh names no host (write host=ssh:NAME)"),
        ("numpy,host=ssh:", "target numpy,host=ssh:: host=ssh: names no host (write host=ssh:NAME)"),
        ("jax", "no target 'jax' (did you mean keras,backend=jax?)"),
        ("no/such/folder", "no/such/folder is no adapter: it has no adapter.py"),
    ],
)
def test_what_is_no_target_says_why(text: str, message: str) -> None:
    assert failing(text).startswith(message)


def test_a_name_of_the_configuration_is_hinted_at_too() -> None:
    assert failing("min", named={"mine": "torch"}) == "no target 'min' (did you mean mine?)"  # type: ignore[arg-type]


def test_a_device_that_an_adapter_does_not_have_is_refused() -> None:
    assert failing("numpy", device="cuda") == "target numpy: NumPy has no device cuda"


def test_a_folder_without_a_profile_says_what_is_missing(mine: Path) -> None:
    (mine / "profile.yaml").unlink()
    assert failing(str(mine)) == f"{mine} is no adapter: it has no profile.yaml (see CONTRIBUTING.md, Adapters)"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda text: text.replace("mine", "Mine!", 1),
            "1:12: framework: text should match pattern '^[a-z][a-z0-9_]*$', ",
        ),
        (
            lambda text: text.replace("[]", "[{running_variance: sometimes}]"),
            "8:34: conventions.0.running_variance: should be 'unbiased' or 'biased', not 'sometimes'",
        ),
        (
            lambda text: text.replace("[]", "[{runing_variance: biased}]"),
            "8:16: conventions.0.runing_variance: unknown key (did you mean running_variance?)",
        ),
        (
            lambda text: text.replace("[]", "\n  - running_variance: biased\n    when: {devise: cpu}"),
            "9:5: conventions.0: unknown condition devise (did you mean device?)",
        ),
        (lambda text: text.replace("[]", ""), "8:1: conventions: should be a list, not null"),
        (lambda text: text.replace("package:", "packge:"), "3:1: packge: unknown key (did you mean package?)"),
        (lambda text: text.replace("package: numpy\n", ""), "1:1: package: is missing"),
        (lambda text: text + "colour: red\n", "9:1: colour: unknown key (one of: conventions, framework, "),
        (lambda text: text.replace("options:", "options: ["), "6:3: not valid YAML: "),
        (lambda text: "", "1:1: should be a mapping, not null"),
        (lambda text: "- 1", "1:1: should be a mapping"),
    ],
)
def test_a_profile_that_cannot_be_read_is_told_line_by_line(mine: Path, spoil: Callable[[str], str], told: str) -> None:
    path = mine / "profile.yaml"
    path.write_text(spoil(OWN_PROFILE))
    said = failing(str(mine)).splitlines()
    assert [line for line in said if line.startswith(f"{path}:{told}")], said
    assert "pydantic" not in "".join(said)


def test_the_adapters_that_come_along_are_known_by_name() -> None:
    assert {*MAIN, "numpy"} <= data.adapters().keys()
    for name in data.adapters():
        assert parse(name).framework == name


def test_a_distribution_is_looked_up_without_importing_it() -> None:
    assert installed("numpy") == np.__version__
    assert installed("no-such-distribution") is None


@pytest.mark.parametrize(
    ("python", "found"), [("", sys.executable), (",python=3.9", "python3.9"), (",python=/opt/python", "/opt/python")]
)
def test_the_interpreter_of_a_worker(python: str, found: str) -> None:
    assert interpreter(parse(f"numpy{python}")) == found


# Configuration


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("conformance.toml", "[targets]\ngpu = 'torch,device=cuda'\n"),
        ("pyproject.toml", "[tool.conformance.targets]\ngpu = 'torch,device=cuda'\n"),
    ],
)
def test_named_targets_are_configured(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    assert configured(tmp_path) == {"gpu": "torch,device=cuda"}


def test_the_file_of_our_own_comes_first(tmp_path: Path) -> None:
    (tmp_path / "conformance.toml").write_text("[targets]\na = 'torch'\n")
    (tmp_path / "pyproject.toml").write_text("[tool.conformance.targets]\nb = 'torch'\n")
    assert configured(tmp_path) == {"a": "torch"}
    (tmp_path / "conformance.toml").write_text("")
    assert configured(tmp_path) == {"b": "torch"}


def test_no_configuration_names_no_targets(tmp_path: Path) -> None:
    assert configured(tmp_path) == {}
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert configured(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("targets = [", "is no TOML: "),
        ("[targets]\na = 3\n", "gives each target as text, such as 'torch,device=cuda'"),
        ("targets = 3", "gives each target as text, such as 'torch,device=cuda'"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "conformance.toml").write_text(text)
    with pytest.raises(UsageError, match=r"conformance\.toml") as caught:
        configured(tmp_path)
    assert message in str(caught.value)


def test_a_target_is_a_value() -> None:
    assert parse("numpy") == parse("numpy")
    assert isinstance(parse("numpy"), Target)
