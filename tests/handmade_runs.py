"""Small runs made by hand, in the form that `conformance.run_folder` reads, for tests of what is made from a run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.run_folder import Run

Line = dict[str, Any]

#: A text that tries everything: to end an element, a table cell, a code span, a line; to act on a terminal.
HOSTILE = '</script><img src=x onerror="alert(1)">\'`|\n# @team \x1b[31mred\x07\u202e]]>&amp;'


def target(name: str = "torch", title: str = "PyTorch", ran: bool = True, message: str = "", **facts: str) -> Line:
    stated = {"version": "2.13.0+cpu", "device": "cpu", "threads": "1", **facts} if ran else {}
    return {
        "name": name,
        "framework": name.partition(",")[0],
        "title": title,
        "options": {},
        "python": None,
        "host": None,
        "ran": ran,
        "facts": stated,
        "message": message,
    }


def case(name: str = "momentum/values[momentum=0.1]", why: str = "Momentum is the classic porting mistake.") -> Line:
    return {
        "case": name,
        "topic": name.rpartition("/")[0],
        "file": f"cases/{name.rpartition('/')[0]}.yaml",
        "line": 12,
        "about": "Running statistics.",
        "matrix": {},
        "spec": {"why": why, "layer": {"momentum": 0.1}, "steps": [{"mode": "train"}]},
        "digest": "0" * 64,
    }


def tensor(ratio: float | None = 0.25, **more: Any) -> Line:
    return {"ratio": ratio, "max_abs": 2.3e-7, "max_ulp": 3.0, "worst_index": [2, 1], **more}


def verdict(
    verdict: str = "conforms",
    status: str = "expected",
    of: str = "momentum/values[momentum=0.1]",
    on: str = "torch",
    **more: Any,
) -> Line:
    return {
        "case": of,
        "target": on,
        "verdict": verdict,
        "status": status,
        "expected": "conforms or conventional",
        "diagnosis": None,
        "because": "",
        "seconds": 0.25,
        "tensors": {"y[0]": tensor()},
        "error": None,
        "received": "torch.nn.BatchNorm2d(num_features=3)",
        "facts": [],
        **more,
    }


def pair(a: str, b: str, because: str = "", of: str = "momentum/values[momentum=0.1]") -> Line:
    agreement = "differ" if because else "agree"
    tensors = {"running_var[0]": tensor(40.0 if because else 0.5)}
    return {"case": of, "pair": [a, b], "agreement": agreement, "tensors": tensors, "because": because}


def run(
    verdicts: Sequence[Line],
    pairs: Sequence[Line] = (),
    targets: Sequence[Line] = (),
    cases: Sequence[Line] = (),
) -> Run:
    """A run of these lines; targets and cases that are not given follow from them."""
    named = dict.fromkeys(line["target"] for line in verdicts)
    told = dict.fromkeys(line["case"] for line in verdicts)
    info = {
        "format": 1,
        "suite": "0.1.0",
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:05+00:00",
        "command": ["conformance", "run", "-k", "a b"],
        "platform": {
            "system": "Linux",
            "machine": "x86_64",
            "processor": "Processor 9000",
            "cores": 2,
            "python": "3.11.7",
        },
        "targets": list(targets) or [target(name) for name in named],
    }
    paired = dict.fromkeys(line["case"] for line in pairs)
    described = {line["case"]: line for line in (cases or [case(name) for name in {**told, **paired}])}
    order = list(described)
    judged, compared = (sorted(lines, key=lambda line: order.index(line["case"])) for lines in (verdicts, pairs))
    return Run(Path("run"), info, described, judged, compared, {"complete": True})


#: What makes a verdict one of its kind.
UNEXPLAINED: Line = {
    "diagnosis": "unexplained",
    "because": "y[0] is 53 bounds off at [3, 2]",
    "tensors": {"y[0]": tensor(53)},
}
BIASED: Line = {
    "diagnosis": "running-variance-biased",
    "because": "running_var is stored biased, without the n/(n−1) factor",
}
REFUSED: Line = {
    "error": {"type": "ValueError", "message": "Expected more than 1 value, got [1, 3]\nsecond line"},
    "tensors": {},
    "expected": "refused (ValueError)",
    "because": "ValueError: Expected more than 1 value, got [1, 3]; one value has no variance",
}


def large(cases: int, targets: Sequence[str]) -> Run:
    """A run in which every target judged every case, with two steps' tensors each, no two alike."""
    names = [f"topic{i % 20}/case[shape={i},momentum=0.1]" for i in range(cases)]
    draw = random.Random(0)
    verdicts = [
        verdict("conventional", of=name, on=on, diagnosis="running-variance-biased", tensors=_tensors(draw))
        for name in names
        for on in targets
    ]
    pairs = [pair(targets[0], on, f"{on}: running-variance-biased", of=name) for name in names for on in targets[1:]]
    return run(verdicts, pairs)


def _tensors(draw: random.Random) -> Line:
    """What is gathered of two steps of a layer of three channels, none of it exact: more than a real case has."""
    found = {}
    for step in range(2):
        for name in ("y", "dx", "dgamma", "dbeta", "running_mean", "running_var"):
            whole, exact = name in ("y", "dx"), draw.gauss(0, 1)
            held = [[round(draw.random(), 6) for _ in range(3)]] * 2
            found[f"{name}[{step}]"] = {
                **tensor(draw.random() / 10),
                "max_abs": draw.random() * 1e-6,
                "shape": [4, 3, 5, 5] if whole else [3],
                "worst": [float(f"{value:.9g}") for value in (exact, exact + draw.gauss(0, 1e-7))] + [1.23e-6],
                "strip": "".join(draw.choices("PQRSTUVWXYZ", k=64 if whole else 3)),
                "ulps": [draw.randrange(100) for _ in range(8)] if whole else [0, 2, 1],
                "running": held if name.startswith("running") else [],
            }
    return found


def hostile() -> Run:
    """A run in which every text is `HOSTILE`."""
    name = f"topic/{HOSTILE}"
    error = {"type": HOSTILE, "message": HOSTILE}
    everything = verdict(
        "divergent",
        "unexpected",
        of=name,
        on=HOSTILE,
        diagnosis=HOSTILE,
        because=HOSTILE,
        expected=HOSTILE,
        received=HOSTILE,
        facts=[HOSTILE],
        error=error,
        tensors={HOSTILE: tensor(None, problem=HOSTILE)},
    )
    raised = verdict("refused", "unexpected", of=name, on=HOSTILE, error=error, tensors={})
    targets = [target(HOSTILE, HOSTILE, version=HOSTILE), target("b", ran=False, message=HOSTILE)]
    return run([everything, raised], [pair(HOSTILE, HOSTILE, HOSTILE, of=name)], targets, [case(name, HOSTILE)])
