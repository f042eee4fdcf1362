"""Stand-alone scripts: they are Python, they draw the case's own bits, and they exit as the verdict says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches NumPy the name bfloat16
import numpy as np
import pytest
from conftest import ROOT, MakeCase

from conformance import data
from conformance.arithmetic import Double
from conformance.case import Case
from conformance.commands.repro import repro
from conformance.conventions import CANONICAL
from conformance.crew import Limits, NotStarted
from conformance.lines import case_line, target_line, verdict_line
from conformance.load import load
from conformance.oracle import Oracle
from conformance.pool import Pool
from conformance.problem import Problem, materialise, rounded
from conformance.repro import NoScript, formulas, of_stored, offered, script, source
from conformance.session import judged
from conformance.target import installed, parse

MAIN = ["torch", "mindspore", "keras"]
#: But those of carried layers, which start from numbers that another framework has to give first.
CASES = [case for case in load([ROOT / "cases"], frozenset(data.adapters())) if not case.spec.carried]
SMALL = 5_000


def small(case: Case) -> bool:
    return case.kind != "signature" and all(case.input_of(i).size <= SMALL for i in range(len(case.spec.steps)))


def line(verdict: str, target: str, **fields: Any) -> dict[str, Any]:
    """A verdict's line of results.jsonl."""
    plain: dict[str, Any] = {
        "case": "",
        "diagnosis": None,
        "because": "",
        "tensors": {},
        "accepted": {},
        "error": None,
        "received": "",
    }
    return {**plain, "verdict": verdict, "target": target, "status": "expected", **fields}


def refused(target: str) -> dict[str, Any]:
    return line("refused", target, error={"type": "ValueError", "message": 'it said "no"\n\x1b[31m\\'})


def stored(problem: Problem) -> dict[str, Any]:
    """A case's line as it is read back."""
    said: dict[str, Any] = json.loads(json.dumps(case_line(problem)))
    return said


def tensors(problem: Problem) -> list[str]:
    """Source of all that the steps are given."""
    gradients, twice = (any(getattr(call, name) is not None for call in problem.calls) for name in ("dy", "v"))
    return source.tensors(problem, len(problem.calls), gradients=gradients, twice=twice)


@pytest.mark.parametrize("framework", MAIN)
def test_every_case_has_a_script_that_compiles(framework: str) -> None:
    for case in CASES[::7]:
        if (case.frameworks is None or framework in case.frameworks) and (case.kind == "signature" or small(case)):
            if framework == "mindspore" and any(step.second for step in case.spec.steps):
                continue  # its adapter takes none
            text = script(stored(materialise(case)), refused(framework))
            compile(text, case.id, "exec")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of what overflows in half precision
def test_the_script_draws_the_bits_of_the_case() -> None:
    for case in filter(small, CASES[::2]):
        problem = materialise(case)
        names: dict[str, Any] = {"np": np}
        lines = tensors(problem)
        exec("\n".join(lines), names)
        several = len(problem.calls) > 1
        for index, call in enumerate(problem.calls):
            given = {name: getattr(call, name) for name in ("x", "dy", "v", "tangent")} | {"keep": call.mask}
            for name, wanted in given.items():
                if wanted is not None:
                    drawn = names[f"{name}s"][index] if several else names[name]
                    assert np.array_equal(drawn.astype(wanted.dtype), wanted, equal_nan=True), (case.id, name, index)
        for name, vector in problem.initial.items():
            assert np.array_equal(names[name].astype(vector.dtype), vector, equal_nan=True), (case.id, name)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NaN and of nothing, as the script has them
def test_its_reference_is_the_suites_own() -> None:
    held = ("x", "gamma", "beta", "running_mean", "running_var")
    kinds = ("y", "jvp", "dx", "dgamma", "dbeta", "ddx", "ddy", "ddgamma", *held)
    profile = parse("torch").profile
    layers = [case for case in CASES if small(case) and case.kind == "layer"]
    twice = ("second", "forward_over_reverse")  # the other orders have the same reference
    for case in [*layers[::9], *(case for case in layers if case.topic in ("keras", "tangents", *twice))]:
        problem = materialise(case)
        oracle = Oracle(problem, Double())
        if oracle.undefined or (case.spec.input and any(n == 0 for n in case.spec.input.dimensions)):
            continue
        expected, reading = oracle.expected(profile, CANONICAL), oracle.reading(profile, CANONICAL)
        number = len(problem.calls)
        some = {name.partition("[")[0] for name in expected}
        wanted = formulas.Wanted([kind for kind in kinds if kind in some], number, number > 1)
        lines = tensors(problem) + formulas.reference(problem, reading.parameters, reading.traces, wanted)
        names: dict[str, Any] = {"np": np}
        with np.errstate(all="ignore"):
            exec("\n".join(lines), names)
        for name, found in names["expected"].items():
            key = name if number > 1 else f"{name}[0]"
            if key not in expected:  # of a frozen step
                continue
            exact, bound = np.asarray(expected[key].value, np.float64), expected[key].bound
            with np.errstate(invalid="ignore"):
                close = (np.abs(found - exact) <= bound) | (found == exact) | (np.isnan(found) & np.isnan(exact))
            assert close.all(), (case.id, key)


def test_bfloat16_is_rounded_once_from_float64() -> None:
    """A first rounding to float32 would make a tie of what is just beyond one."""
    names: dict[str, Any] = {"np": np}
    exec("\n".join(source._BFLOAT16), names)
    random = np.random.RandomState(8)
    values = random.standard_normal(100_000) * 10.0 ** random.randint(-30, 30, 100_000)
    beside = np.array(
        [1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8 - 2.0**-40, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 0.0, -0.0, np.inf, -np.inf]
    )
    for exact in (values, beside):
        assert names["bfloat16"](exact).tobytes() == rounded(exact, "bfloat16").astype(np.float32).tobytes()
    assert np.isnan(names["bfloat16"](np.array([np.nan])))


def test_an_adapter_without_a_template_is_told_what_to_do() -> None:
    problem = materialise(next(filter(small, CASES)))
    with pytest.raises(NoScript, match=r"has no repro\.py\.j2.*conformance/repro describes it"):
        script(stored(problem), refused("numpy"))
    assert of_stored(stored(problem), refused("numpy")) is None


@pytest.mark.parametrize(
    ("variable", "case", "words"),
    [
        ("twice", "second/rank3", "second derivatives"),
        ("recomputes", "recompute/frozen", "recomputation"),
        ("assigns", "assigned/later", "assigned attributes"),
        ("tangents", "tangents/momentum-half", "derivatives in forward mode"),
    ],
)
def test_a_template_without_words_for_what_a_case_asks_is_told(
    variable: str, case: str, words: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(ROOT / "adapters" / "torch", tmp_path / "mine")
    template = folder / "repro.py.j2"
    without = template.read_text(encoding="utf-8").replace(f"{{% set {variable} = true %}}", "")
    template.write_text(without, encoding="utf-8")
    with pytest.raises(NoScript, match=rf"mine.* has no words for {words}"):
        script(stored(of_case(case)), refused(str(folder)))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("torch", ["layer.eps = 0.25", "layer.momentum = 0.5"]),
        ("mindspore", ["layer.eps = 0.25", "layer.momentum = 0.75"]),
        ("keras", ["layer.epsilon = 0.25", "layer.momentum = 0.75"]),
    ],
)
def test_a_script_assigns_attributes_by_the_frameworks_own_names(target: str, words: list[str]) -> None:
    text = script(stored(of_case("assigned/by-turns")), refused(target))
    for each in words:
        assert f"\n    {each}\n" in text


@pytest.mark.parametrize("target", ["keras,execution=compiled", "keras,backend=jax,execution=compiled"])
def test_a_script_compiles_once_for_each_kind_of_call(target: str) -> None:
    """train, eval, eval, train, eval: what is compiled for a mode is called again in it."""
    text = script(stored(of_case("assigned/by-turns")), refused(target))
    assert (text.count("def call(") + text.count("\n    call = "), text.count("call_2")) == (1, 4)
    reloaded = script(stored(of_case("recompute/reloaded")), refused(target))
    assert (
        reloaded.count("def call(") + reloaded.count("jax.jit(") == 3
    )  # train, train, eval: a new layer takes new code


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("torch", "y, jvp = forward_ad.unpack_dual(layer(dual))"),
        ("torch,execution=compiled", "y, jvp = forward_ad.unpack_dual(compiled(dual))"),
        ("mindspore", "y, jvp = ms.jvp(layer, tx, ms.Tensor(tangents[0]))"),
        ("keras", "jvp = accumulator.jvp(y, "),
        ("keras,execution=xla", "y, jvp = call(tx, tf.constant("),
        ("keras,backend=torch", "y, jvp = torch.autograd.forward_ad.unpack_dual(layer(dual, training=True))"),
        ("keras,backend=jax", "y, jvp, after = jax.jvp("),
    ],
)
def test_a_script_takes_a_tangent_as_the_framework_has_it(target: str, words: str) -> None:
    assert words in script(stored(of_case("tangents/momentum-half")), refused(target))


def test_a_scripted_layer_is_frozen_parameter_by_parameter() -> None:
    """TorchScript has no requires_grad_ of modules."""
    of = stored(of_case("tangents/frozen[steps=item1]"))
    assert "layer.requires_grad_(False)" in script(of, refused("torch"))
    assert "layer.requires_grad_" not in script(of, refused("torch,execution=scripted"))


def test_where_a_template_compiles_nothing_itself_equal_steps_are_one_loop(make_case: MakeCase) -> None:
    problem = materialise(make_case(steps=["train", *["eval"] * 4]))
    assert "for i in range(1, 5):" in script(stored(problem), refused("torch,execution=scripted"))
    assert "for i in range(2, 5):" in script(stored(problem), refused("keras,execution=compiled"))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("torch", "y = checkpoint(layer, tx, use_reentrant=False)"),
        (
            "torch,execution=compiled",
            "torch.compile(lambda x: checkpoint(layer, x, use_reentrant=False), fullgraph=True)",
        ),
        ("mindspore", "layer.recompute()"),
        ("keras", 'with keras.RematScope(mode="full"):'),
    ],
)
def test_a_script_recomputes_as_the_framework_has_it_and_takes_gradients(target: str, words: str) -> None:
    text = script(stored(of_case("recompute/reloaded")), refused(target))
    assert words in text
    assert "dy = " in text or "dys = " in text


def test_the_command_is_offered_where_it_writes_a_script() -> None:
    case = next(filter(small, CASES))
    target = {"framework": "torch", "options": {"device": "cpu", "execution": "eager"}}
    said = {"type": "NotExpressible", "message": ""}
    wrong = {"y[0]": {"ratio": None, "problem": "is missing", "worst_index": None}}
    assert offered(case, refused("torch"), target)
    assert offered(case, line("divergent", "torch"), target)
    assert not offered(case, line("refused", "torch", error=said), target)
    assert not offered(case, line("broken", "torch", error=said), target)
    assert not offered(case, line("divergent", "torch", tensors=wrong), target)
    assert not offered(case, refused("numpy"), target | {"framework": "numpy"})  # it has no template
    assert not offered(of_case("second/rank3").case, refused("mindspore"), target | {"framework": "mindspore"})


def test_of_an_adapter_from_elsewhere_the_template_is_looked_for_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = next(filter(small, CASES))
    target = {"framework": "torch", "options": {}}
    assert not offered(case, refused("./mine,fault=none"), target)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "repro.py.j2").write_text("{{ 1 / 0 }}")
    assert offered(case, refused("./mine,fault=none"), target)
    assert not offered(case, refused("./mi\0ne"), target)
    assert not offered(case, line("broken", "./mine", error={"type": "", "message": ""}), target)


def test_a_run_of_before_an_option_was_there_has_its_scripts() -> None:
    problem, target = of_case("momentum/values[momentum=0.1]"), {"framework": "mindspore", "options": {"device": "cpu"}}
    compile(script(stored(problem), refused("mindspore"), target), "", "exec")


def test_what_a_framework_cannot_say_has_no_script() -> None:
    problem = materialise(next(filter(small, CASES)))
    error = {"type": "NotExpressible", "message": "torch has no such thing"}
    with pytest.raises(NoScript, match="torch has no such thing"):
        script(stored(problem), line("refused", "torch", error=error))
    assert of_stored(stored(problem), line("broken", "torch", error=error)) is None


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        ({"running_variance": "as a foreign suite has it"}, "accepted conventions that are none"),
        ({"updates": [3]}, "accepted conventions that are none"),
        ({"polarity": "reversed"}, "accepted conventions that are not known here: polarity"),
    ],
)
def test_a_verdict_under_conventions_of_another_suite_has_no_script(accepted: dict[str, Any], words: str) -> None:
    problem = materialise(next(case for case in filter(small, CASES) if case.kind == "layer"))
    tensors = {"y[0]": {"ratio": 2.0, "worst_index": None}}
    with pytest.raises(NoScript, match=words):
        script(stored(problem), line("divergent", "torch", tensors=tensors, accepted=accepted))


def test_accepted_moments_come_back_from_json(make_case: MakeCase) -> None:
    """JSON has lists where conventions have tuples."""
    problem = materialise(make_case(input={"shape": [4, 2], "normal": {}}))
    accepted = {"means": [[0.5, 0.25]], "variances": [None]}
    tensors = {"y[0]": {"ratio": 0.5, "worst_index": [0, 0]}}
    assert "expected" in script(stored(problem), line("divergent", "torch", tensors=tensors, accepted=accepted))


def test_a_case_of_very_many_elements_has_no_script(make_case: MakeCase) -> None:
    case = make_case(input={"shape": [100, 1000, 100], "constant": 1.0}, steps=["train"] * 1000)
    said = {"case": case.id, "file": "", "line": 1, "about": "", "matrix": {}}
    spec = case.spec.model_dump(exclude_defaults=True, by_alias=True)
    with pytest.raises(NoScript, match="10,000,000,000 elements; a script shows 10,000,000 at most"):
        script({**said, "spec": json.loads(json.dumps(spec))}, refused("torch"))


def test_the_words_of_a_framework_stay_in_a_comment() -> None:
    text = script(stored(materialise(next(filter(small, CASES)))), refused("torch"))
    assert "# torch" in text or "# PyTorch" in text
    assert "\x1b" not in text


def of_case(name: str) -> Problem:
    return materialise(next(case for case in CASES if case.id == name))


def test_the_tensors_of_the_layer_that_is_called_first_are_drawn_as_the_case_has_them() -> None:
    for case in [case for case in CASES if case.spec.beside is not None]:
        problem = materialise(case)
        assert problem.beside is not None
        built, call = problem.beside
        names: dict[str, Any] = {"np": np}
        exec("\n".join(source.of_beside(problem, built, call)), names)
        for name, wanted in (("x", call.x), ("dy", call.dy), *built.initial.items()):
            if wanted is not None:
                assert np.array_equal(names[name].astype(wanted.dtype), wanted, equal_nan=True), (case.id, name)


def test_the_layer_that_is_called_first_is_so_in_the_script() -> None:
    text = script(stored(of_case("execution/beside-another-tiny-eps")), refused("mindspore"))
    other, own = text.index("eps=2.4e-17"), text.index("eps=1.6e-17")
    assert text.index("value_and_grad") < own
    assert other < own
    assert text.count("x = (") == 1  # the same tensors are not drawn twice


def test_where_it_is_refused_or_cannot_be_said_the_script_knows() -> None:
    case = stored(of_case("execution/beside-refused"))
    remarked = refused("torch") | {"facts": ["the layer beside was refused: RuntimeError 5 is not 3"]}
    text = script(case, remarked)
    assert text.index("try:") < text.index("BatchNorm2d(3") < text.index('print(f"refused: ')
    assert text.count("try:") == 2  # the other is of the exception that the script shows
    with pytest.raises(NoScript, match="the layer that is called first: torch has no such thing"):
        script(case, refused("torch") | {"facts": ["the layer beside cannot be said: torch has no such thing"]})


PORTED = """\
conformance: 1
about: A port.
cases:
  port:
    why: x
    layer: {}
    input: {shape: [4, 3], normal: {mean: 5}}
    carried: {from: numpy, steps: [train, train]}
    steps: [eval, train]
"""


def test_a_carried_layer_starts_from_numbers_that_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "ported.yaml").write_text(PORTED)
    (case,) = load([tmp_path / "ported.yaml"], frozenset(data.adapters()))
    held = {"running_mean": np.array([0.1, 0.2, 1e-9], np.float32), "gamma": np.array([1, 2, 3], np.float32)}
    problem = materialise(case, held)
    text = script(stored(problem), refused("torch"), carried=held)
    assert "running_mean = np.array([0.1, 0.2, 1e-09], np.float32)" in text
    assert "layer.weight.copy_(torch.tensor(gamma))" in text
    with pytest.raises(NoScript, match="a run does not keep the numbers that a carried layer starts from"):
        script(stored(problem), refused("torch"))


# On the frameworks

#: Runs many scripts in one interpreter, so that the framework is imported once; writes the exit code of each.
#: TensorFlow's and MindSpore's threads are set once, and torch recompiles so many layers and no more.
RUNNER = """
import contextlib, io, json, linecache, runpy, sys
codes = {}
for name, text in json.load(open(sys.argv[1])).items():
    text = text.replace("tf.config.threading.set_intra_op_parallelism_threads(1)", "")
    text = text.replace("ms.device_context.cpu.op_tuning.threads_num(1)", "")
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    with open("script.py", "w") as file:
        file.write(text)
    linecache.clearcache()  # MindSpore compiles functions from the source that they stand in
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path("script.py", run_name="__main__")
        codes[name] = 0
    except SystemExit as end:
        codes[name] = int(end.code not in (None, 0, False))
    except BaseException as error:
        codes[name] = repr(error)
json.dump(codes, open(sys.argv[2], "w"))
"""


def run_scripts(scripts: dict[str, str], folder: Path) -> dict[str, Any]:
    """Name of the script → its exit code, or the exception that it died of."""
    (folder / "scripts.json").write_text(json.dumps(scripts))
    command = [sys.executable, "-c", RUNNER, str(folder / "scripts.json"), str(folder / "codes.json")]
    subprocess.run(command, cwd=folder, timeout=600, check=True, capture_output=True)
    codes: dict[str, Any] = json.loads((folder / "codes.json").read_text())
    return codes


def of_findings(framework: str) -> list[Case]:
    """A case of every finding that the corpus declares of a framework, and some that conform."""
    found: dict[Any, Case] = {}
    for case in filter(small, CASES):
        for wanted in case.spec.expect.get(framework, ()):
            if wanted.diverges or wanted.inaccurate:
                found.setdefault((wanted.diverges, wanted.because), case)
    plain = [case for case in CASES if small(case) and case.kind == "layer" and not case.spec.expect]
    others = [case for case in plain if case.spec.beside is not None or case.topic == "second"]
    return list({case.id: case for case in [*found.values(), *plain[::60], *others[::5]]}.values())


@pytest.fixture(scope="module")
def scripts(request: pytest.FixtureRequest) -> dict[str, tuple[str, int]]:
    """Of every finding on a target: its script, and the exit code that the verdict asks for."""
    target = parse(request.param)
    if installed(target.profile.package) is None:
        pytest.skip(f"{target.profile.package} is not installed")
    found: dict[Any, Any] = {}
    cases = [case for case in of_findings(target.framework) if target.framework in (case.frameworks or MAIN)]
    with Pool([target], Limits(start_seconds=300, case_seconds=300)) as pool:
        for settled in judged(cases, pool):
            side = settled.sides[target.name]
            said = verdict_line(settled.problem.case.id, target.name, side.verdict, side.observation)
            start = pool.starts[target.name]
            assert not isinstance(start, NotStarted)
            text = of_stored(stored(settled.problem), said, target_line(target, start))
            if text is not None and side.verdict.verdict != "refused":
                found[settled.problem.case.id] = text, int(side.verdict.verdict != "conforms")
    return found


OTHERS = [
    "mindspore,execution=graph",
    "mindspore,execution=jit",
    "torch,execution=compiled",
    "keras,execution=compiled",
    "keras,backend=torch",
]


@pytest.mark.frameworks
@pytest.mark.parametrize("scripts", [*MAIN, *OTHERS], indirect=True)
def test_a_script_exits_as_the_verdict_says(scripts: dict[str, tuple[str, int]], tmp_path: Path) -> None:
    codes = run_scripts({name: text for name, (text, _) in scripts.items()}, tmp_path)
    assert {code for _, code in scripts.values()} == {0, 1}
    assert codes == {name: code for name, (_, code) in scripts.items()}


@pytest.mark.frameworks
@pytest.mark.parametrize("scripts", ["keras"], indirect=True)
def test_a_script_exits_with_0_once_the_framework_is_right(scripts: dict[str, tuple[str, int]], tmp_path: Path) -> None:
    right = "seen = {name: np.asarray(expected[name]).astype(seen[name].dtype) for name in seen}\n\n# How far"
    repaired = {name: text.replace("\n# How far", right, 1) for name, (text, code) in scripts.items() if code}
    repaired = {name: text for name, text in repaired.items() if right in text}
    assert repaired
    assert set(run_scripts(repaired, tmp_path).values()) == {0}


@pytest.mark.frameworks
@pytest.mark.parametrize("target", MAIN)
def test_the_command_trains_the_layer_that_is_carried(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if installed(parse(target).profile.package) is None:
        pytest.skip(f"{target} is not installed")
    (tmp_path / "ported.yaml").write_text(PORTED)
    assert repro("ported/port", [tmp_path / "ported.yaml"], target, "cpu", None) == 0
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith("running_mean = np.array(")]
    assert float(line.partition("([")[2].partition(",")[0]) > 0.5  # after two steps towards a mean of 5, from 0
    assert run_scripts({"port": text}, tmp_path)["port"] == int(target == "keras")  # its running_var is biased
