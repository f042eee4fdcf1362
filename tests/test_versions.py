"""How versions are installed: rules as data beside each adapter, and targets that name a version."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance import data
from conformance.crew import NotStarted
from conformance.errors import UsageError
from conformance.pool import Pool
from conformance.target import parse
from conformance.versions import Recipe, Versions, read, recipe

RULES = Versions.model_validate(
    {
        "packages": {
            "frame": [
                {"versions": "<2", "python": "<3.10", "install": ["frame=={version}", "numpy<1.24"]},
                {
                    "versions": ">=2",
                    "install": ["frame=={version}", "frame-extras=={minor}.*"],
                    "backend": {"fast": ["fast>=1"]},
                },
            ]
        }
    }
)


def made(version: str, **options: str) -> Recipe:
    return recipe(RULES, "frame", version, options)


def test_the_first_rule_whose_range_holds_says_what_is_installed_and_where() -> None:
    assert made("1.9") == Recipe("frame==1.9", ("frame==1.9", "numpy<1.24"), "<3.10")
    assert made("2.4.1").requirements == ("frame==2.4.1", "frame-extras==2.4.*")


def test_a_backend_brings_its_own_requirements() -> None:
    assert made("2.0", backend="fast").requirements[-1] == "fast>=1"
    assert made("2.0", backend="other").requirements[-1] == "frame-extras==2.0.*"


def test_a_release_candidate_counts_as_within_the_range() -> None:
    assert made("3.0rc1").requirements[0] == "frame==3.0rc1"


def test_a_distribution_without_rules_is_installed_as_it_stands_beside_numpy() -> None:
    assert recipe(Versions(), "other", "1.0", {}).requirements == ("other==1.0", "numpy")


@pytest.mark.parametrize("version", ["", "two", "1..2"])
def test_what_is_no_version_is_told(version: str) -> None:
    with pytest.raises(UsageError, match="is no version"):
        made(version)


def test_a_version_beyond_every_rule_is_refused_with_the_known_ranges() -> None:
    rules = Versions.model_validate({"packages": {"frame": [{"versions": ">=2", "install": ["frame"]}]}})
    with pytest.raises(UsageError, match=r"frame==1.0 cannot be installed here \(known are versions >=2\)"):
        recipe(rules, "frame", "1.0", {})


def test_the_rules_of_every_adapter_can_be_read_and_hold_for_the_versions_that_its_history_lists() -> None:
    for name, path in data.adapters().items():
        listed = read(path).history
        assert listed, name
        for version in listed:
            target = parse(version if "==" in version else f"{name}=={version}")
            assert target.recipe is not None
            assert any(version.rpartition("=")[2] in requirement for requirement in target.recipe.requirements)


def test_rules_that_cannot_be_read_are_told_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "versions.yaml").write_text("packages: {frame: [{versions: 'newest', install: [frame]}]}")
    with pytest.raises(UsageError, match=r"versions\.yaml:1:31: packages\.frame\.0\.versions: Invalid specifier"):
        read(tmp_path)


def test_a_target_may_name_a_version_of_its_framework_or_of_a_distribution_that_brings_it() -> None:
    assert parse("torch==1.9.0").recipe == parse("torch,version=1.9.0").recipe
    target = parse("tensorflow==2.15.1,execution=compiled")
    assert (target.framework, target.options["execution"]) == ("keras", "compiled")
    assert target.recipe is not None
    assert target.recipe.title == "tensorflow==2.15.1"


def test_the_users_own_python_outweighs_the_rule() -> None:
    target = parse("mindspore,version=2.0.0,python=3.9")
    assert target.recipe is not None
    assert (target.recipe.python, target.recipe.exact) == ("3.9", True)


def test_a_target_whose_environment_was_not_made_does_not_run_in_another() -> None:
    with Pool([parse("numpy==1.26.4")]) as pool:
        start = pool.start()["numpy==1.26.4"]
    assert start == NotStarted("its environment was not made", broken=False)


def test_without_a_version_the_interpreter_is_used_as_it_is() -> None:
    target = parse("numpy,python=3.9")
    assert (target.recipe, target.python) == (None, "3.9")


def test_no_environment_is_made_on_another_host() -> None:
    with pytest.raises(UsageError, match="environments are made on this machine only"):
        parse("torch==1.9.0,host=ssh:build3")
