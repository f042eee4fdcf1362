"""The data that the HTML report carries for its script: every case in full, small enough for one file.

Texts repeat (a constructor call, a cause, an expectation), so each is stored once and named by its place in `texts`.
A number keeps the digits that a person reads. A tensor is a row [name, ratio, max_abs, max_ulp, worst_index,
problem], cut after its last value; one without any error is its name alone. Of a pair only the tensors that differ are
kept, and the worst where none does: results.jsonl has the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from conformance.findings import off, reason, topic
from conformance.run_folder import Run
from conformance.safe_text import shorten

#: Longer texts are cut in the middle; the run folder has them whole.
TEXT_LIMIT = 4_000
_PAIR_TENSORS = 6

_PLAIN = re.compile(r"[A-Za-z_][\w .-]*")


class Texts:
    """Texts stored once each, in the order of their first use; the empty one is at 0, so it may be left out."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {"": 0}

    def __call__(self, text: str | None) -> int:
        """The place of a text; nothing counts as the empty text."""
        return self._places.setdefault(shorten(text or "", TEXT_LIMIT), len(self._places))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)


def embedded(run: Run) -> str:
    """The run as JSON that is safe within a <script> element: no markup can end it."""
    texts = Texts()
    targets = [target["name"] for target in run.info["targets"]]
    cases = {name: _case(case, texts) for name, case in run.cases.items()}
    for line in run.verdicts:
        cases[line["case"]]["verdicts"].append(_verdict(line, targets, texts))
    for line in run.pairs:
        cases[line["case"]]["pairs"].append(_pair(line, targets, texts))
    data = {"targets": targets, "cases": list(cases.values()), "texts": list(texts)}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for harmful in "<>&":  # none has a meaning in JSON, so each stands within a string
        text = text.replace(harmful, f"\\u{ord(harmful):04x}")
    return text


def _case(case: dict[str, Any], texts: Texts) -> dict[str, Any]:
    return {
        "id": case["case"],
        "topic": texts(topic(case)),
        "file": texts(case["file"]),
        "line": case["line"],
        "about": texts(case["about"]),
        "why": texts(case["spec"].get("why")),
        "spec": texts(specification(case["spec"])),
        "verdicts": [],
        "pairs": [],
    }


def _verdict(line: dict[str, Any], targets: list[str], texts: Texts) -> dict[str, Any]:
    error = line["error"]
    found = {
        "target": targets.index(line["target"]),
        "verdict": texts(line["verdict"]),
        "unexpected": int(line["status"] == "unexpected"),
        "expected": texts(line["expected"]),
        "diagnosis": texts(line["diagnosis"]),
        "because": texts(reason(line)),
        "received": texts(line["received"]),
        "seconds": _number(line["seconds"]),
        "tensors": [_tensor(name, tensor, texts) for name, tensor in line["tensors"].items()],
        "facts": [texts(fact) for fact in line["facts"]],
        "error": [texts(error["type"]), texts(error["message"])] if error else None,
    }
    return {name: value for name, value in found.items() if value}


def _pair(line: dict[str, Any], targets: list[str], texts: Texts) -> dict[str, Any]:
    ranked = sorted(line["tensors"].items(), key=lambda item: -off(item[1]))
    differing = [item for item in ranked if off(item[1]) > 1]
    found = {
        "pair": [targets.index(name) for name in line["pair"]],
        "agree": int(line["agreement"] == "agree"),
        "because": texts(line["because"]),
        "tensors": [_tensor(name, tensor, texts) for name, tensor in (differing or ranked[:1])[:_PAIR_TENSORS]],
        "differing": len(differing),
        "compared": len(ranked),
    }
    return {name: value for name, value in found.items() if value}


def _tensor(name: str, tensor: dict[str, Any], texts: Texts) -> list[Any]:
    if tensor["ratio"] == 0 and not tensor.get("problem"):
        return [texts(name)]
    numbers = [_number(tensor[key]) for key in ("ratio", "max_abs", "max_ulp")]
    row = [texts(name), *numbers, tensor["worst_index"]]
    return [*row, texts(tensor["problem"])] if tensor.get("problem") else row


def _number(value: float | None) -> float | None:
    """Three digits, in fewest characters."""
    if value is None:
        return None
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short


def specification(spec: dict[str, Any]) -> str:
    """What a case says, a line for each of its fields, nearly as its author wrote it."""
    return "\n".join(f"{key}: {_flow(value)}" for key, value in spec.items() if key != "why")


def _flow(value: Any) -> str:
    """JSON data in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)
