"""Behaviour of `conformance.harness`: old Pythons, tensors as bytes, and whose fault it is that there is no result."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import ROOT, JudgeAll, MakeCase

from conformance import harness
from conformance.crew import Limits
from conformance.harness import Adapter, Array, Layer, Native, NotExpressible, Refused, Step, framework, load_adapter
from conformance.pool import Pool
from conformance.problem import from_wire, materialise, to_wire
from conformance.target import parse

NUMPY = ROOT / "adapters" / "numpy" / "adapter.py"
RUN_BY_WORKERS = [Path(harness.__file__), *sorted((ROOT / "adapters").glob("*/adapter.py"))]

# Old Pythons


@pytest.mark.parametrize("path", RUN_BY_WORKERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_runs_in_a_worker_is_written_in_python_3_8(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    if "from __future__ import annotations" not in source:
        assert [node for node in ast.walk(tree) if is_new_in_an_annotation(node)] == []


def is_new_in_an_annotation(node: ast.AST) -> bool:
    """`list[int]`, whose syntax is old and whose meaning is not."""
    generics = {"list", "dict", "tuple", "set", "frozenset", "type"}
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in generics


def old_pythons() -> list[str]:
    """Interpreters on the PATH that are older than the suite's own, the oldest first."""
    found: dict[int, str] = {}
    for folder in filter(None, os.environ.get("PATH", "").split(os.pathsep)):
        for path in sorted(Path(folder).glob("python3.*")):
            minor = re.fullmatch(r"python3\.(\d+)", path.name)
            if minor and 8 <= int(minor[1]) < 11:
                found.setdefault(int(minor[1]), str(path))
    return [found[minor] for minor in sorted(found)]


def runs(python: str, *modules: str) -> bool:
    """Whether an interpreter starts (a launcher need not) and has these modules."""
    command = [python, "-c", "; ".join(["pass", *(f"import {module}" for module in modules)])]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_the_harness_compiles_on_the_oldest_python_here() -> None:
    python = next(filter(runs, old_pythons()), None)
    if python is None:
        pytest.skip("no Python from 3.8 to 3.10 is on the PATH")
    check = "import sys; [compile(open(p, encoding='utf-8').read(), p, 'exec') for p in sys.argv[1:]]"
    subprocess.run([python, "-c", check, *map(str, RUN_BY_WORKERS)], check=True, timeout=60)


def test_cases_run_on_the_oldest_python_here(make_case: MakeCase, judge_all: JudgeAll) -> None:
    python = next((python for python in old_pythons() if runs(python, "numpy")), None)
    if python is None:
        pytest.skip("no Python from 3.8 to 3.10 with NumPy is on the PATH")
    old = parse(f"numpy,python={python}")
    cases = [make_case("a", steps=["train", "eval"]), make_case("b", input={"shape": [1, 3, 1, 1], "constant": 1})]
    with Pool([old], Limits(start_seconds=60)) as pool:
        conforming, refused = judge_all(pool, cases).values()
    assert (conforming.verdict, refused.verdict, refused.status) == ("conforms", "refused", "expected")


# Tensors


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 3, 4), (0, 3), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [dtype for dtype in harness.DTYPES if dtype != "bfloat16"])
def test_an_array_comes_back_bit_by_bit(dtype: str, shape: tuple[int, ...]) -> None:
    array = special(shape).astype(dtype)
    crossed = Array.unpack(Array.of(array).pack())
    for back in (crossed.numpy(), from_wire(crossed)):
        assert (back.dtype.name, back.shape, back.tobytes()) == (dtype, shape, array.tobytes())
    assert Array.unpack(to_wire(array)) == crossed


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_bfloat16_crosses_as_its_bits(shape: tuple[int, ...]) -> None:
    array = special(shape).astype(ml_dtypes.bfloat16)
    crossed = Array.unpack(Array.of(array.view(np.uint16), "bfloat16").pack())
    assert crossed.numpy().tobytes() == array.tobytes()
    assert (from_wire(crossed).dtype, from_wire(crossed).shape) == (array.dtype, shape)
    assert Array.unpack(to_wire(array)) == crossed


def special(shape: Sequence[int]) -> Any:
    """Numbers with an infinity, a negative zero and a subnormal among them."""
    numbers = np.resize(np.array([1.5, -0.0, 6e-8, 448.0, -3.0, 0.1]), shape)
    return np.asarray(numbers)


def test_special_values_keep_their_bits() -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0, np.float32(1e-45)], np.float32)
    array.view(np.uint32)[0] = 0x7FC00ABC  # a NaN with a payload
    assert Array.unpack(Array.of(array).pack()).numpy().tobytes() == array.tobytes()


def test_views_cross_as_they_look() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (array.T, array[:, ::2], array[::-1], np.broadcast_to(array[0], (3, 4)), array.astype(">f4")[0:1]):
        assert (Array.of(view).numpy() == view).all()


def test_an_array_that_came_across_is_ones_own() -> None:
    crossed = Array.of(np.zeros(3))
    crossed.numpy()[0] = 1
    assert crossed.numpy().tolist() == [0, 0, 0]


def test_objects_are_no_tensor() -> None:
    with pytest.raises(TypeError, match="Python objects"):
        Array.of(np.array([object()]))


def test_an_array_says_where_it_was() -> None:
    assert Array.unpack(Array.of(np.zeros(1), device="cuda").pack()).device == "cuda"


# Whose fault it is


class Scripted(Adapter):
    """Does what the test says at every call."""

    def __init__(self, at_build: Any = None, at_step: Any = None, at_state: Any = None) -> None:
        super().__init__()
        self.at_build, self.at_step, self.at_state = at_build, at_step, at_state

    def build(self, layer: Layer) -> Any:
        self.received = f"Layer({layer.features})"
        return self.at_build() if self.at_build else None

    def build_native(self, native: Native) -> Any:
        return dict(native.arguments)

    def step(self, layer: Any, step: Step) -> tuple[Any, dict[str, Array]]:
        self.facts.append(f"a call in mode {step.mode}")
        if self.at_step:
            self.at_step()
        return layer, {"y": step.x}

    def state(self, layer: Any) -> dict[str, Array]:
        if self.at_state:
            self.at_state()
        return {}

    def constructor(self, rank: int) -> Any:
        return {1: Scripted, 2: None}[rank]


def inside() -> None:
    with framework():
        raise ValueError("the layer refuses")


def outside() -> None:
    raise ValueError("the adapter is wrong")


def limited() -> None:
    raise NotExpressible("no word for it")


def answer(adapter: Adapter, make_case: MakeCase, **fields: Any) -> dict[str, Any]:
    wire = materialise(make_case(**fields)).wire
    return harness.answer(adapter, {"id": 7, "native": None, **wire})


@pytest.mark.parametrize("where", ["at_build", "at_step", "at_state"])
@pytest.mark.parametrize(
    ("what", "fault", "kind"),
    [(inside, "framework", "ValueError"), (limited, "framework", "NotExpressible"), (outside, "adapter", "ValueError")],
)
def test_a_refusal_a_limit_and_a_mistake_are_told_apart(
    where: str, what: Any, fault: str, kind: str, make_case: MakeCase
) -> None:
    reply = answer(Scripted(**{where: what}), make_case)
    assert (reply["id"], reply["error"]["fault"], reply["error"]["type"]) == (7, fault, kind)
    assert ("Traceback" in reply["error"]["message"]) == (fault == "adapter")
    assert not reply["error"]["message"].startswith("Traceback")  # what it says comes first


def test_the_steps_before_an_error_are_kept(make_case: MakeCase) -> None:
    calls = iter([None, None, ValueError("the third")])

    def third() -> None:
        error = next(calls)
        if error is not None:
            raise error

    reply = answer(Scripted(at_step=third), make_case, steps=["train", "eval", "train", "eval"])
    assert [list(step) for step in reply["steps"]] == [["y"], ["y"]]
    assert reply["error"]["type"] == "ValueError"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"mode": "train", "mask": {"keep": 0.5, "seed": 1}}, "the layer takes no mask"),
        ({"mode": "train", "second": {"seed": 1}}, "the adapter takes no second derivatives"),
        ({"mode": "train", "assign": {"eps": 0.5}}, "the adapter assigns no attributes"),
        ({"mode": "train", "tangent": {}}, "the adapter takes no derivatives in forward mode"),
    ],
)
def test_what_an_adapter_cannot_ask_is_said_whatever_the_layer_would_refuse(
    make_case: MakeCase, step: dict[str, Any], words: str
) -> None:
    reply = answer(Counting(1e-5), make_case, steps=["train", step])
    assert (reply["error"]["type"], reply["error"]["message"]) == ("NotExpressible", words)
    assert reply["steps"] == []


def test_an_adapter_that_differentiates_twice_need_not_do_so_in_both_modes(make_case: MakeCase) -> None:
    class Twice(Scripted):
        twice = True

    steps: list[Any] = [{"mode": "train", "second": {}}, {"mode": "train", "second": {"by": "forward-over-reverse"}}]
    assert answer(Twice(), make_case, steps=steps[:1])["error"] is None
    error = answer(Twice(), make_case, steps=steps)["error"]
    assert error["type"] == "NotExpressible"
    assert error["message"] == "the adapter takes no second derivatives in forward mode"


def test_recomputation_is_asked_of_adapters_that_know_it_alone(make_case: MakeCase) -> None:
    class Recomputing(Scripted):
        recomputes = True

        def build(self, layer: Layer) -> Any:
            asked.append(layer.recompute)

        def build_native(self, native: Native) -> Any:
            asked.append(native.recompute)

    asked: list[bool] = []
    wire = materialise(make_case(recompute=True)).wire
    for request in (wire | {"recompute": False}, wire, wire | {"native": {}}):
        assert harness.answer(Recomputing(), {"id": 7, "native": None, **request})["error"] is None
    assert asked == [False, True, True]
    reply = answer(Scripted(), make_case, recompute=True)
    said = "NotExpressible", "the adapter does not recompute activations"
    assert (reply["error"]["type"], reply["error"]["message"]) == said


class Counting(Scripted):
    """Notes every layer that it builds and every call, and refuses the layers it is told to."""

    def __init__(self, *refused: float) -> None:
        super().__init__()
        self.refused, self.calls = refused, list[tuple[float, str]]()

    def build(self, layer: Layer) -> Any:
        if layer.eps in self.refused:
            with framework():
                raise ValueError(f"no eps of {layer.eps}\nat its kernel")
        return layer.eps

    def step(self, layer: Any, step: Step) -> tuple[Any, dict[str, Array]]:
        self.calls.append((layer, step.mode))
        return super().step(layer, step)


BESIDE = {"beside": {"layer": {"eps": 0.25}, "mode": "eval"}, "steps": ["train"]}


def test_the_layer_beside_runs_first_and_leaves_nothing_in_the_answer(make_case: MakeCase) -> None:
    adapter = Counting()
    reply = answer(adapter, make_case, repeat=2, **BESIDE)
    assert adapter.calls == [(0.25, "eval"), (1e-5, "train")] * 2
    assert [list(step) for step in reply["steps"]] == [["y", "repeats_differing"]]
    assert reply["facts"] == ["a call in mode train"] * 2


def test_a_layer_beside_that_is_refused_is_a_remark(make_case: MakeCase) -> None:
    reply = answer(Counting(0.25), make_case, repeat=2, **BESIDE)
    assert reply["error"] is None
    assert reply["facts"].count("the layer beside was refused: ValueError no eps of 0.25") == 1


def test_a_layer_beside_that_the_framework_has_no_words_for_is_another_remark(make_case: MakeCase) -> None:
    class Wordless(Counting):
        def build(self, layer: Layer) -> Any:
            if layer.eps == 0.25:
                raise NotExpressible("no word for an eps of 0.25")
            return super().build(layer)

    reply = answer(Wordless(), make_case, **BESIDE)
    assert reply["error"] is None
    assert "the layer beside cannot be said: no word for an eps of 0.25" in reply["facts"]


def test_a_mistake_with_the_layer_beside_is_the_adapters(make_case: MakeCase) -> None:
    reply = answer(Scripted(at_step=outside), make_case, **BESIDE)
    assert (reply["error"]["fault"], reply["steps"]) == ("adapter", [])


def test_a_case_leaves_no_remark_for_the_next(make_case: MakeCase) -> None:
    adapter = Scripted()
    assert answer(adapter, make_case, steps=["train", "eval"])["facts"] == [
        "a call in mode train",
        "a call in mode eval",
    ]
    assert answer(adapter, make_case, steps=["eval"])["facts"] == ["a call in mode eval"]
    assert answer(adapter, make_case)["received"] == "Layer(3)"


def test_a_layers_own_constructor_comes_before_what_it_inherits() -> None:
    """Python 3.11.2 takes the signature from `__new__`, as MindSpore's Cell has it."""

    class Cell:
        def __new__(cls, *args: Any, **kwargs: Any) -> Cell:
            return super().__new__(cls)

    class Layer(Cell):
        def __init__(self, features: int, eps: float = 1e-5) -> None: ...

    class Of(Scripted):
        def constructor(self, rank: int) -> Any:
            return Layer if rank == 2 else lambda features: Layer(features)

    assert Of().parameters(2)["eps"].default == 1e-5
    assert [*Of().parameters(2)] == ["features", "eps"]
    assert [*Of().parameters(1)] == ["features"]


def test_a_signature_is_names_and_defaults_in_order(make_case: MakeCase) -> None:
    fields = {"signature": {"numpy": {"x": None}}, "input": None}
    reply = answer(Scripted(), make_case, rank=1, **fields)
    assert reply["signature"] == [["at_build", "None"], ["at_step", "None"], ["at_state", "None"]]
    assert reply["error"] is None
    reply = answer(Scripted(), make_case, rank=2, **fields)
    assert (reply["error"]["fault"], reply["error"]["type"]) == ("framework", "TypeError")


def test_what_was_refused_inside_stays_what_it_was() -> None:
    with pytest.raises(Refused) as caught, framework(), framework():
        raise KeyError("inner")
    assert (caught.value.kind, caught.value.message) == ("KeyError", "'inner'")
    with pytest.raises(NotExpressible), framework():
        raise NotExpressible("inner")


def test_what_ends_a_process_is_no_refusal() -> None:
    with pytest.raises(KeyboardInterrupt), framework():
        raise KeyboardInterrupt


def test_native_arguments_arrive_as_they_were_typed(make_case: MakeCase) -> None:
    typed = {"a": 1, "b": 1.0, "c": True, "d": None, "e": [1, "x"], "f": {"g": -0.5}}
    received: list[Any] = []

    class Listening(Scripted):
        def build_native(self, native: Native) -> Any:
            received.append(native.arguments)

    wire = materialise(make_case(native={"numpy": typed})).wire
    assert harness.answer(Listening(), {"id": 0, "native": typed, **wire})["error"] is None
    assert received == [typed]


# Loading


def test_an_adapter_finds_its_own_file(tmp_path: Path) -> None:
    """MindSpore compiles functions from their source, and dataclasses look up their module."""
    source = """
from __future__ import annotations
import dataclasses, inspect
from conformance.harness import Adapter

@dataclasses.dataclass
class Held:
    value: int = 1

class Here(Adapter):
    def start(self, options):
        return {"file": __file__, "source": inspect.getsource(Held)}
"""
    facts = load_adapter(source, str(tmp_path / "not-there.py")).start({})
    assert facts["file"] == str(tmp_path / "not-there.py")
    assert "value: int = 1" in facts["source"]


def test_an_imported_adapter_is_not_counted() -> None:
    source = NUMPY.read_text(encoding="utf-8")
    again = f"{source}\nfrom conformance.harness import Adapter as Another\nclass NotMine: pass\n"
    assert type(load_adapter(again, str(NUMPY))).__name__ == "NumPy"


def test_a_call_reads_as_it_is_typed() -> None:
    arguments = {"num_features": 3, "eps": 1e-05, "momentum": None, "affine": True, "name": "a"}
    text = Adapter().call_text("nn.BatchNorm2d", arguments)
    assert text == "nn.BatchNorm2d(num_features=3, eps=1e-05, momentum=None, affine=True, name='a')"


def test_the_package_imports_nothing_by_itself() -> None:
    """A worker's environment holds NumPy and one framework; the harness must not ask for more."""
    code = "import sys; before = set(sys.modules); import conformance.harness; print(*set(sys.modules) - before)"
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    imported = {name.partition(".")[0] for name in result.stdout.decode().split()}
    foreign = {name for name in imported if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign <= {"conformance", "numpy", "mkl", "cython_runtime"}
