"""What to do about a framework that is not here."""

from __future__ import annotations

import re
import shlex

from conformance.suite_version import source
from conformance.target import Target, interpreter

#: Module → the suite's extra that brings it.
_EXTRAS = {"torch": "torch", "mindspore": "mindspore", "tensorflow": "tensorflow", "keras": "tensorflow", "jax": "jax"}


def installing(module: str) -> str:
    """The command that installs a framework's module here: ``pip install '.[jax]'``."""
    return f"pip install {shlex.quote(f'{source()}[{_EXTRAS[module]}]')}"


def next_step(target: Target, message: str) -> str:
    """What to do where a target did not start for want of a framework; empty where nothing is known to help."""
    missing = re.search(r"No module named '(\w+)'", message)
    if missing is None or missing[1] not in _EXTRAS or target.host is not None or target.recipe is not None:
        return ""
    if target.python is not None:
        return f"{shlex.quote(interpreter(target))} -m pip install {missing[1]}"
    return installing(missing[1])
