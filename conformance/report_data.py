"""The data that the HTML report carries for its script: cases in full, compressed, so that one file is enough.

An index says of every case what the list and its filters need. Details, which a case's own page needs, come in parts
that are unpacked when one is looked at. Each is JSON, deflated (RFC 1950) and in base64, which no markup can end.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from conformance.agreements import DIFFER, agreement, kind, order
from conformance.asked import dtypes, parameters, signature, specification, steps
from conformance.diagnose import EVIDENCE
from conformance.findings import Finding, causes, off, outcome, reason, topic
from conformance.repro import NoScript, case_of, of_stored, offered
from conformance.run_folder import Line, Run, whole
from conformance.safe_text import shorten
from conformance.streams import encoded

#: Longer texts are cut in the middle; the run folder has them whole.
TEXT_LIMIT = 4_000
#: What is searched of a message.
SEARCH_LIMIT = 300
#: A page lists so many cases. A longer run is more than a browser shows well, and the page says what it leaves out.
CASES = 5_000
#: The tensors that a step returns, in the order in which it makes them.
TENSORS = (
    *("y", "jvp", "dx", "dgamma", "dbeta", "ddx", "ddgamma", "ddy"),
    *("gamma", "beta", "running_mean", "running_var", "num_batches_tracked", "x"),
)
#: Details are unpacked so many cases at a time.
PART = 40
#: So many scripts are written into a report; the command repro writes the others.
SCRIPTS = 400
_PAIR_TENSORS = 6


@dataclass(frozen=True)
class Embedded:
    """What the page holds of a run's cases.

    Attributes:
        index: in base64, as the details are.
        details: of every `PART` cases in the order of the index.
        cases: number of cases listed.
        tensors: the tensors that their verdicts speak of.
        dtypes: the dtypes of their inputs and parameters.

    """

    index: str
    details: tuple[str, ...]
    cases: int
    tensors: tuple[str, ...]
    dtypes: tuple[str, ...]


def embedded(run: Run, found: Iterable[Finding], proofs: Mapping[str, Sequence[str]]) -> Embedded:
    """The run as the report's script reads it, with its findings and what proves each row of the API differences."""
    targets = [target["name"] for target in run.info["targets"]]
    described = {target["name"]: target for target in run.targets}
    odd, written, listed = agreement(run).odd, scripts(run, found), _listed(run)
    index: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    parts: list[str] = []
    places: dict[str, int] = {}
    tensors: set[str] = set()
    for name, verdicts, pairs in run.each():
        if name not in listed:
            continue
        case = run.cases[name]
        lines = [whole(line) for line in verdicts], [whole(line) for line in pairs]  # read once for both
        places[name] = len(index)
        index.append(_entry(case, *lines, targets, odd.get(name, "")))
        commands = _commands(case, lines[0], described, written)
        details.append(_details(case, *lines, targets, written, commands))
        tensors.update(_bare(tensor) for line in lines[0] for tensor in line["tensors"])
        if len(details) == PART:
            parts.append(pack(details))
            details = []
    proved = {row: [places[name] for name in cases if name in places] for row, cases in proofs.items()}
    return Embedded(
        pack({"targets": targets, "part": PART, "proofs": proved, "cases": index}),
        (*parts, pack(details)) if details else tuple(parts),
        len(index),
        tuple(tensor for tensor in TENSORS if tensor in tensors),
        tuple(sorted({dtype for entry in index for dtype in entry.get("dtypes", ())})),
    )


def _listed(run: Run) -> Container[str]:
    """The cases that the page lists: all; of too many, unexpected ones first, then what is not plain agreement."""
    if len(run.cases) <= CASES:
        return run.cases
    ranks = [
        (not any(line["status"] == "unexpected" for line in verdicts), _is_plain(verdicts, pairs), name)
        for name, verdicts, pairs in run.each()
    ]
    return {name for *_, name in sorted(ranks, key=itemgetter(0, 1))[:CASES]}


def _is_plain(verdicts: Iterable[Line], pairs: Iterable[Line]) -> bool:
    """Whether there is nothing to tell of a case: all are right by the canonical conventions, and agree."""
    return all(line["verdict"] == "conforms" for line in verdicts) and all(
        line["agreement"] == "agree" for line in pairs
    )


def pack(data: Any) -> str:
    """JSON data, deflated and in base64."""
    return base64.b64encode(zlib.compress(encoded(data), 7)).decode()


def scripts(run: Run, found: Iterable[Finding]) -> dict[tuple[str, str], str]:
    """Case and target → a script, for what people ask about first: a script takes some 20 ms to write.

    That is every unexpected verdict, then every one that is neither right nor a refusal, then the worst case of every
    cause on every target; `SCRIPTS` at most.
    """
    targets = {target["name"]: target for target in run.targets}
    asked = [_subject(line) for line in run.unexpected]
    asked += [_subject(line) for line in run.verdicts if line["verdict"] not in ("conforms", "conventional", "refused")]
    for finding in found:
        asked += list({at.target: (at.case, at.target) for at in reversed(finding.occurrences)}.values())
    wanted = dict.fromkeys(list(dict.fromkeys(asked))[:SCRIPTS])
    lines = {subject: line for line in run.verdicts if (subject := _subject(line)) in wanted}
    written = {key: of_stored(run.cases[key[0]], lines[key], targets[key[1]]) for key in wanted}
    return {key: script for key, script in written.items() if script}


def _commands(
    case: Line, verdicts: Iterable[Line], targets: Mapping[str, Line], written: Container[tuple[str, str]]
) -> frozenset[str]:
    """The targets on which `conformance repro` would write a script that the page does not hold."""
    missing = [line for line in verdicts if _subject(line) not in written]
    if not missing:
        return frozenset()
    try:
        read = case_of(case)
    except NoScript:
        return frozenset()
    return frozenset(line["target"] for line in missing if offered(read, line, targets[line["target"]]))


def _subject(line: Line) -> tuple[str, str]:
    return line["case"], line["target"]


def _entry(
    case: Line,
    verdicts: Sequence[Line],
    pairs: Sequence[Line],
    targets: list[str],
    odd: str,
) -> dict[str, Any]:
    """What the list shows of a case and filters it by."""
    differing = [line for line in pairs if line["agreement"] != "agree"]
    return _without_empty(
        {
            "id": case["case"],
            "topic": topic(case),
            "about": case["about"],
            "why": case["spec"].get("why"),
            "dtypes": dtypes(case["spec"]),
            "tensors": sorted({_bare(name) for line in (*verdicts, *differing) for name in _out_of_bound(line)}),
            "odd": odd,
            "differ": [
                _without_empty(
                    {
                        "pair": "~".join(line["pair"]),
                        "because": line["because"],
                        "how": "" if (how := kind(line, verdicts)) == DIFFER else how,
                        "order": order(how, line["because"]),
                    }
                )
                for line in differing
            ],
            "verdicts": [
                _without_empty(
                    {
                        "target": targets.index(line["target"]),
                        "verdict": outcome(line),
                        "unexpected": int(line["status"] == "unexpected"),
                        "causes": list(causes(line)),
                        "said": shorten(_said(line), SEARCH_LIMIT),
                        "label": line["diagnosis"] or (line["error"] or {}).get("type"),
                    }
                )
                for line in verdicts
            ],
        }
    )


def _said(line: Line) -> str:
    """What is searched of a verdict beyond its cause."""
    error = f"{line['error']['type']}: {line['error']['message']}" if line["error"] else ""
    return "\n".join(text for text in (reason(line), error, line["received"]) if text)


def _out_of_bound(line: Line) -> list[str]:
    return [name for name, tensor in line["tensors"].items() if off(tensor) > 1]


def _bare(name: str) -> str:
    """running_var of running_var[2] and of running_var[2] as documented."""
    return name.partition("[")[0]


def _details(
    case: Line,
    verdicts: Sequence[Line],
    pairs: Sequence[Line],
    targets: list[str],
    written: Mapping[tuple[str, str], str],
    commands: Container[str],
) -> dict[str, Any]:
    """What the page of a case shows beyond the list."""
    asked = {"steps": steps(case["spec"]), "parameters": parameters(case["spec"])}
    return {
        "file": case["file"],
        "line": case["line"],
        "spec": shorten(specification(case["spec"]), TEXT_LIMIT),
        **_without_empty(asked),
        "verdicts": [
            _verdict(line, targets, written.get(_subject(line)), line["target"] in commands) for line in verdicts
        ],
        "pairs": [_pair(line, targets) for line in pairs],
    }


def _verdict(line: Line, targets: list[str], script: str | None, command: bool) -> dict[str, Any]:
    """What is shown of a verdict; `command`: `conformance repro` would write its script."""
    error = line["error"]
    return _without_empty(
        {
            "target": targets.index(line["target"]),
            "verdict": outcome(line),
            "unexpected": int(line["status"] == "unexpected"),
            "expected": line["expected"],
            "diagnosis": line["diagnosis"],
            "because": shorten(EVIDENCE.sub("", reason(line)), TEXT_LIMIT),
            "diagnosed": _diagnosed(line),
            "tried": [[str(one["name"]), _number(one["off"])] for one in line.get("tried") or ()],
            "received": line["received"] or signature(line.get("signature") or ()),
            "seconds": _number(line["seconds"]),
            "tensors": [
                _tensor(name, tensor) | _explained(name, line.get("explained") or {})
                for name, tensor in line["tensors"].items()
            ],
            "facts": [shorten(fact, TEXT_LIMIT) for fact in line["facts"]],
            "error": [error["type"], shorten(error["message"], TEXT_LIMIT)] if error else None,
            "script": script,
            "repro": int(command),
        }
    )


def _diagnosed(line: Line) -> list[str] | None:
    """The worst error over its bound that is left under a diagnosis, and what was wrong before; where it says both."""
    found = EVIDENCE.search(line["because"]) if line["diagnosis"] else None
    return [found["under"], found["before"]] if found else None


def _explained(name: str, explained: Mapping[str, float | None]) -> dict[str, Any]:
    """What is left of a tensor's error under the diagnosis: a fraction of its bound, or that it is no number."""
    if name not in explained:
        return {}
    left = explained[name]
    return {"under": "no number" if left is None else _number(left)}


def _pair(line: Line, targets: list[str]) -> dict[str, Any]:
    """A pair with the tensors that differ, and the worst where none does: results.jsonl has the rest."""
    ranked = sorted(line["tensors"].items(), key=lambda item: -off(item[1]))
    differing = [item for item in ranked if off(item[1]) > 1]
    return _without_empty(
        {
            "pair": [targets.index(name) for name in line["pair"]],
            "agree": int(line["agreement"] == "agree"),
            "because": line["because"],
            "tensors": [_tensor(name, tensor) for name, tensor in (differing or ranked[:1])[:_PAIR_TENSORS]],
            "differing": len(differing),
            "compared": len(ranked),
        }
    )


def _tensor(name: str, tensor: Mapping[str, Any]) -> dict[str, Any]:
    """A tensor with the digits that a person reads; `conformance.evidence` describes the fields."""
    exact = tensor["ratio"] == 0 and not tensor.get("problem")
    return _without_empty(
        {
            "name": name,
            "exact": exact,
            "ratio": _number(tensor["ratio"]),
            "abs": _number(tensor.get("max_abs")),
            "ulp": _number(tensor.get("max_ulp")),
            "at": tensor.get("worst_index"),
            "problem": shorten(tensor.get("problem") or "", TEXT_LIMIT),
            "shape": tensor.get("shape"),
            "worst": None if exact else tensor.get("worst"),
            "strip": tensor.get("strip"),
            "ulps": tensor.get("ulps"),
            "running": tensor.get("running"),
        }
    )


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that say something; an absent number is 0, an absent text empty."""
    return {name: value for name, value in fields.items() if value}


def _number(value: float | None) -> float | str | None:
    """Three digits, in fewest characters; beyond JSON's numbers in words."""
    if value is None:
        return None
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short
