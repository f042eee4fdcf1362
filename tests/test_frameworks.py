"""What the real frameworks do, seen through their adapters: known truths, on the layers that are installed here."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders import module
from conftest import ROOT, MakeCase
from numpy.typing import NDArray

from conformance.case import Case
from conformance.crew import Limits, NotStarted, Started
from conformance.harness import load_adapter
from conformance.load import load
from conformance.oracle import Oracle
from conformance.pairs import Side, judge_pair
from conformance.pool import Pool
from conformance.problem import from_wire, materialise
from conformance.session import judged
from conformance.target import installed, parse

pytestmark = pytest.mark.frameworks

MAIN = ["torch", "mindspore", "keras"]
#: The same frameworks run in other ways.
OTHERS = ["mindspore,execution=graph", "keras,backend=torch", "keras,execution=compiled"]

#: x of the first step of a case that says nothing else, and what its channels hold.
SHAPE = (4, 3, 5, 5)
N = 100

Run = Callable[[str, Case], Side]


@pytest.fixture(scope="session")
def pools() -> Iterator[Callable[[str], Pool]]:
    """A pool per target, whose framework is imported once."""
    opened: dict[str, Pool] = {}

    def pool(name: str) -> Pool:
        if name not in opened:
            target = parse(name)
            for package in {target.profile.package, target.options.get("backend", target.profile.package)}:
                if installed(package) is None and not (package == "tensorflow" and installed("tensorflow-cpu")):
                    pytest.skip(f"{package} is not installed")
            opened[name] = Pool([target], Limits(start_seconds=300, case_seconds=300))
        start = opened[name].starts.get(name) or opened[name].start()[name]
        if isinstance(start, NotStarted):
            pytest.fail(f"{name} does not start: {start.message}")
        return opened[name]

    yield pool
    for one in opened.values():
        one.__exit__()


@pytest.fixture(scope="session")
def run(pools: Callable[[str], Pool]) -> Run:
    """Run and judge one case on one target."""

    def run(name: str, case: Case) -> Side:
        (settled,) = judged([case], pools(name))
        return settled.sides[name]

    return run


def draw(case: Case, step: int = 0) -> NDArray[np.float64]:
    """x of a step, a row per channel."""
    x = materialise(case).calls[step].x.astype(np.float64)
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def tensor(side: Side, name: str) -> NDArray[Any]:
    return from_wire(side.observation.tensors[name])


def about(make_case: MakeCase, **fields: Any) -> Case:
    """A case on (4, 3, 5, 5) with mean 3 and deviation 2."""
    plain = {"input": {"shape": list(SHAPE), "normal": {"mean": 3, "std": 2, "seed": 7}}}
    return make_case(**{**plain, **fields})


# Every framework


@pytest.mark.parametrize("target", [*MAIN, *OTHERS])
def test_a_plain_layer_does_what_its_profile_says(target: str, run: Run, make_case: MakeCase) -> None:
    initial = {"gamma": {"normal": {"seed": 1}}, "beta": {"normal": {"seed": 2}}}
    side = run(target, about(make_case, layer={"initial": initial}, steps=["train", "train", "eval"]))
    assert side.verdict.verdict in ("conforms", "conventional"), side.verdict
    assert side.verdict.status == "expected"


@pytest.mark.parametrize("target", [*MAIN, *OTHERS])
def test_what_a_layer_cannot_say_names_no_version_which_would_be_a_change_with_every_upgrade(
    target: str, run: Run, pools: Callable[[str], Pool], make_case: MakeCase
) -> None:
    layers = [{"scale": False}, {"center": False}, {"momentum": None}, {"track_running_stats": False}]
    volumes = {"shape": [2, 3, 2, 2, 2], "normal": {}, "layout": "channels_last"}
    cases = [about(make_case, layer=layer) for layer in layers] + [about(make_case, input=volumes)]
    refusals = [run(target, case).observation.refusal for case in cases]
    said = [refusal.message for refusal in refusals if refusal is not None and refusal.type == "NotExpressible"]
    started = pools(target).starts[target]
    assert isinstance(started, Started)
    assert said
    assert not [message for message in said if started.facts["version"].partition("+")[0] in message]


def test_keras_names_a_layer_whatever_came_before_it(run: Run, make_case: MakeCase) -> None:
    other = {"mode": "train", "input": {"shape": [4, 5, 2, 2], "normal": {}}}
    for _ in range(2):
        refusal = run("keras", about(make_case, steps=["train", other])).observation.refusal
        assert refusal is not None
        assert "'batch_normalization'" in refusal.message


@pytest.mark.parametrize("target", [*MAIN, *OTHERS])
def test_tensors_say_what_they_are_and_where_they_were(target: str, run: Run, make_case: MakeCase) -> None:
    side = run(
        target,
        about(make_case, input={"shape": list(SHAPE), "normal": {}, "dtype": "float16"}, layer={"dtype": "float32"}),
    )
    assert side.verdict.status == "expected"
    tensors = side.observation.tensors
    assert {array.device for array in tensors.values()} == {"cpu"}
    assert {
        name: tensors[f"{name}[0]"].dtype for name in ("y", "dx", "dgamma", "dbeta", "running_mean", "running_var")
    } == {
        "y": "float16",
        "dx": "float16",
        "dgamma": "float32",
        "dbeta": "float32",
        "running_mean": "float32",
        "running_var": "float32",
    }
    assert tensors["y[0]"].shape == tensors["dx[0]"].shape == SHAPE
    assert tensors["dgamma[0]"].shape == tensors["running_var[0]"].shape == (3,)


@pytest.mark.parametrize("target", [*MAIN, *OTHERS])
def test_statistics_move_once_a_step_whether_gradients_are_taken_or_not(
    target: str, run: Run, make_case: MakeCase
) -> None:
    with_gradients = about(make_case, gradient={}, steps=["train", "train"])
    without = about(make_case, gradient=None, steps=["train", "train"])
    for step in (0, 1):
        means = [tensor(run(target, case), f"running_mean[{step}]") for case in (with_gradients, without)]
        np.testing.assert_array_equal(means[0], means[1])
    moved = 0.9 * 0.1 * draw(with_gradients).mean(1) + 0.1 * draw(with_gradients, 1).mean(1)
    np.testing.assert_allclose(means[0], moved, rtol=1e-5)
    assert "dx[0]" not in run(target, without).observation.tensors


@pytest.mark.parametrize("target", MAIN)
def test_facts_name_version_device_and_threads(target: str, pools: Callable[[str], Pool]) -> None:
    start = pools(target).starts[target]
    assert isinstance(start, Started)
    version = installed(parse(target).profile.package)
    assert version is not None
    assert start.facts["version"].partition("+")[0] == version.partition("+")[0]
    assert (start.facts["device"], start.facts["threads"]) == ("cpu", "1")


@pytest.mark.parametrize("target", MAIN)
def test_a_layer_outlives_its_checkpoint(target: str, run: Run, make_case: MakeCase) -> None:
    steps = ["train", {"mode": "eval", "save_load": True}, {"mode": "train", "save_load": True}, "eval"]
    reloaded, plain = (
        run(target, about(make_case, steps=given)) for given in (steps, ["train", "eval", "train", "eval"])
    )
    assert reloaded.verdict.status == "expected"
    for name, array in plain.observation.tensors.items():
        assert reloaded.observation.tensors[name].data == array.data, name


@pytest.mark.parametrize("target", MAIN)
def test_the_same_layer_gives_the_same_bits_and_leaves_its_input_alone(
    target: str, run: Run, make_case: MakeCase
) -> None:
    case = about(make_case, steps=[{"mode": "train", "reread": True}, "eval"], repeat=3)
    side = run(target, case)
    assert side.verdict.status == "expected"
    assert tensor(side, "x[0]").tobytes() == materialise(case).calls[0].x.tobytes()


# Running variance


@pytest.mark.parametrize(
    ("target", "correction"),
    [("torch", 1), ("mindspore", 1), ("mindspore,execution=graph", 1), ("keras", 0), ("keras,backend=torch", 0)],
)
def test_running_variance_is_unbiased_in_torch_and_mindspore_and_biased_in_keras(
    target: str, correction: int, run: Run, make_case: MakeCase
) -> None:
    case = about(make_case)
    side = run(target, case)
    expected = 0.9 + 0.1 * draw(case).var(1, ddof=correction)
    np.testing.assert_allclose(tensor(side, "running_var[0]"), expected, rtol=1e-6)
    assert side.verdict.verdict == ("conforms" if correction else "conventional")
    assert side.verdict.diagnosis == (None if correction else "running-variance-biased")


# Modes


@pytest.mark.parametrize(("target", "trains"), [("torch", True), ("mindspore", False), ("keras", False)])
def test_a_new_layer_trains_in_torch_and_infers_elsewhere(
    target: str, trains: bool, run: Run, make_case: MakeCase
) -> None:
    side = run(target, about(make_case, steps=["default"]))
    assert side.verdict.status == "expected"
    assert bool(tensor(side, "running_mean[0]").any()) == trains
    assert (abs(tensor(side, "y[0]").mean()) < 1e-6) == trains


@pytest.mark.parametrize(("target", "infers"), [("torch", False), ("mindspore", False), ("keras", True)])
def test_a_frozen_layer_infers_in_keras_and_goes_on_training_elsewhere(
    target: str, infers: bool, run: Run, make_case: MakeCase
) -> None:
    side = run(target, about(make_case, steps=[{"mode": "train", "frozen": True}]))
    assert side.verdict.status == "expected"
    assert bool(tensor(side, "running_mean[0]").any()) != infers
    assert not {"dgamma[0]", "dbeta[0]"} & side.observation.tensors.keys()


# One value per channel


def one_value(make_case: MakeCase) -> Case:
    return make_case(layer={"rank": 1}, input={"shape": [1, 3], "normal": {"mean": 3}})


def test_torch_refuses_to_train_on_one_value_per_channel(run: Run, make_case: MakeCase) -> None:
    side = run("torch", one_value(make_case))
    assert (side.verdict.verdict, side.verdict.status) == ("refused", "expected")
    assert side.verdict.error is not None
    assert side.verdict.error.type == "ValueError"
    assert "Expected more than 1 value per channel when training" in side.verdict.error.message


def test_mindspore_stores_no_number_for_the_variance_of_one_value(run: Run, make_case: MakeCase) -> None:
    side = run("mindspore", one_value(make_case))
    assert np.isnan(tensor(side, "running_var[0]")).all()
    assert not tensor(side, "y[0]").any()


def test_keras_stores_zero_for_the_variance_of_one_value(run: Run, make_case: MakeCase) -> None:
    side = run("keras", one_value(make_case))
    np.testing.assert_allclose(tensor(side, "running_var[0]"), [0.9] * 3, rtol=1e-6)
    assert not tensor(side, "y[0]").any()


# Momentum and eps


@pytest.mark.parametrize(
    ("target", "arguments", "weight_of_the_new"),
    [
        ("torch", {"num_features": 3, "momentum": 0.25}, 0.25),
        ("mindspore", {"num_features": 3, "momentum": 0.25}, 0.75),
        ("keras", {"axis": 1, "momentum": 0.25}, 0.75),
        ("torch", {"num_features": 3}, 0.1),
        ("mindspore", {"num_features": 3}, 0.1),
        ("keras", {"axis": 1}, 0.01),
    ],
)
def test_momentum_weighs_the_new_value_in_torch_and_the_old_elsewhere(
    target: str, arguments: dict[str, Any], weight_of_the_new: float, run: Run, make_case: MakeCase
) -> None:
    framework = target.partition(",")[0]
    case = about(make_case, native={framework: arguments}, steps=["train"])
    side = run(target, case)
    np.testing.assert_allclose(tensor(side, "running_mean[0]"), weight_of_the_new * draw(case).mean(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "arguments", "eps"),
    [("torch", {"num_features": 3}, 1e-5), ("mindspore", {"num_features": 3}, 1e-5), ("keras", {"axis": 1}, 1e-3)],
)
def test_eps_is_a_hundred_times_larger_in_keras(
    target: str, arguments: dict[str, Any], eps: float, run: Run, make_case: MakeCase
) -> None:
    case = about(make_case, native={target: arguments}, steps=["eval"])
    expected = materialise(case).calls[0].x / np.sqrt(1 + eps)
    np.testing.assert_allclose(tensor(run(target, case), "y[0]"), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("torch", "torch.nn.BatchNorm2d(num_features=3, eps=1e-05, momentum=0.25, "),
        ("mindspore", "mindspore.nn.BatchNorm2d(num_features=3, eps=1e-05, momentum=0.75, "),
        ("keras", "keras.layers.BatchNormalization(axis=1, momentum=0.75, epsilon=1e-05"),
    ],
)
def test_what_the_framework_received_reads_as_it_is_typed(
    target: str, words: str, run: Run, make_case: MakeCase
) -> None:
    assert run(target, about(make_case, layer={"momentum": 0.25})).observation.received.startswith(words)


# Refusals

NHWC = {"shape": list(SHAPE), "normal": {}, "layout": "channels_last"}
DOUBLE = {"shape": list(SHAPE), "normal": {}, "dtype": "float64"}


@pytest.mark.parametrize(
    ("target", "fields", "error"),
    [
        ("torch", {"layer": {"scale": False}}, "NotExpressible"),
        ("torch", {"layer": {"features": 5}}, "RuntimeError"),
        ("torch", {"layer": {"rank": 3}}, "ValueError"),
        ("mindspore", {"layer": {"momentum": None}}, "TypeError"),
        ("mindspore", {"layer": {"momentum": 1.5}}, "ValueError"),
        ("mindspore", {"layer": {"track_running_stats": False}}, "NotExpressible"),
        ("mindspore", {"input": NHWC}, "ValueError"),
        ("mindspore", {"input": DOUBLE}, "TypeError"),
        ("keras", {"layer": {"momentum": None}}, "NotExpressible"),
        ("keras", {"layer": {"track_running_stats": False}}, "NotExpressible"),
        ("keras", {"layer": {"features": 5}}, "ValueError"),
    ],
)
def test_a_refusal_is_kept_with_its_type(
    target: str, fields: dict[str, Any], error: str, run: Run, make_case: MakeCase
) -> None:
    side = run(target, about(make_case, **fields))
    assert side.verdict.verdict == "refused", side.verdict
    assert side.verdict.error is not None
    assert side.verdict.error.type == error
    assert side.verdict.error.message


@pytest.mark.parametrize("target", MAIN)
def test_after_a_refusal_the_next_case_is_judged(target: str, run: Run, make_case: MakeCase) -> None:
    assert run(target, about(make_case, layer={"features": 5})).verdict.verdict == "refused"
    assert run(target, about(make_case)).verdict.status == "expected"


# What one of them alone has


def test_torch_counts_the_batches_it_trained_on(run: Run, make_case: MakeCase) -> None:
    side = run("torch", about(make_case, steps=["train", "eval", {"mode": "train", "save_load": True}]))
    counters = [side.observation.tensors[f"num_batches_tracked[{step}]"] for step in range(3)]
    assert [(counter.dtype, counter.shape) for counter in counters] == [("int64", ())] * 3
    assert [int(from_wire(counter)) for counter in counters] == [1, 1, 2]


@pytest.mark.parametrize("target", ["mindspore", "keras"])
def test_the_others_do_not(target: str, run: Run, make_case: MakeCase) -> None:
    assert "num_batches_tracked[0]" not in run(target, about(make_case)).observation.tensors


@pytest.mark.parametrize(("target", "takes_it"), [("torch", False), ("mindspore", False), ("keras", True)])
def test_keras_alone_takes_a_mask(target: str, takes_it: bool, run: Run, make_case: MakeCase) -> None:
    layout = "channels_first" if target == "mindspore" else "channels_last"
    step = {"mode": "train", "mask": {"keep": 0.5, "seed": 1}}
    side = run(target, about(make_case, input={**NHWC, "layout": layout}, steps=[step]))
    assert (side.verdict.verdict != "refused") == takes_it
    if takes_it:
        assert side.verdict.status == "expected"


@pytest.mark.parametrize("target", ["torch", "keras", "keras,backend=torch"])
def test_channels_may_come_last(target: str, run: Run, make_case: MakeCase) -> None:
    side = run(target, about(make_case, input=NHWC, steps=["train", "eval"]))
    assert side.verdict.status == "expected"
    assert side.observation.tensors["y[0]"].shape == SHAPE


def test_tensorflow_says_that_it_has_no_strides(run: Run, make_case: MakeCase) -> None:
    side = run("keras", about(make_case, input={"shape": list(SHAPE), "normal": {}, "strided": True}))
    assert side.verdict.status == "expected"
    assert "TensorFlow tensors have no strides" in " ".join(side.observation.facts)
    strided = run("torch", about(make_case, input={"shape": list(SHAPE), "normal": {}, "strided": True}))
    assert (strided.verdict.status, strided.observation.facts) == ("expected", ())


@pytest.mark.parametrize(
    ("target", "first"), [("torch", "num_features"), ("mindspore", "num_features"), ("keras", "axis")]
)
def test_a_signature_is_the_real_one(target: str, first: str, run: Run, make_case: MakeCase) -> None:
    side = run(target, make_case(signature={target: {}}, rank=2, input=None))
    assert side.observation.signature is not None
    assert side.observation.signature[0][0] == first
    assert side.verdict.diagnosis == "signature-added"


# Pairs


@pytest.mark.parametrize(
    ("a", "b", "fields", "because"),
    [
        ("torch", "mindspore", {}, ""),
        ("torch", "keras", {}, "keras: running-variance-biased"),
        ("torch", "keras", {"steps": ["eval"]}, ""),
        ("mindspore", "keras", {"steps": ["default"]}, ""),
        ("torch", "keras", {"layer": {"momentum": None}}, "keras: refused (NotExpressible)"),
        ("mindspore", "keras", {"layer": {"momentum": None}}, None),
    ],
)
def test_a_pair_agrees_or_says_what_sets_it_apart(
    a: str, b: str, fields: dict[str, Any], because: str | None, run: Run, make_case: MakeCase
) -> None:
    """Two that refuse agree."""
    case = about(make_case, **fields)
    agreement = judge_pair(Oracle(materialise(case)), run(a, case), run(b, case))
    assert agreement.agreement == ("differ" if because else "agree")
    assert agreement.because == ("both refuse" if because is None else because)
    if because == "keras: running-variance-biased":
        assert [name for name, result in agreement.tensors.items() if not result.ok] == ["running_var[0]"]


# Documents


@pytest.mark.parametrize(
    ("claims", "target"),
    [
        ("batchnorm1d", "torch"),
        ("batchnorm1d", "mindspore"),
        ("batchnorm2d", "torch"),
        ("batchnorm2d", "mindspore"),
        ("keras-and-torch", "torch"),
        ("keras-and-torch", "keras"),
        ("running-statistics", "torch"),
    ],
)
def test_the_examples_that_documents_print_come_out_as_printed(
    claims: str, target: str, pools: Callable[[str], Pool]
) -> None:
    file = ROOT / "cases" / "claims" / f"{claims}.yaml"
    cases = [case for case in load([file]) if target in case.spec.documented and case.input_of(0).size < 10**6]
    assert cases
    for settled in judged(cases, pools(target)):
        verdict = settled.sides[target].verdict
        assert verdict.status == "expected", (settled.problem.case.id, verdict)
        assert any(name.endswith("as documented") for name in verdict.tensors)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process to one CPU")
@pytest.mark.parametrize(
    ("target", "flushes"),
    [("mindspore", None), ("mindspore,cpus=one", False), ("mindspore,execution=graph,cpus=one", True)],
)
def test_mindspore_keeps_subnormals_on_one_cpu_and_flushes_them_on_several(
    target: str, flushes: bool | None, run: Run, pools: Callable[[str], Pool], make_case: MakeCase
) -> None:
    layer = {"initial": {"gamma": [1e-40, 1.0, 1.0], "beta": 0.0}}
    side = run(target, make_case(layer=layer, steps=["eval"]))
    started = pools(target).starts[target]
    assert isinstance(started, Started)
    flushes = started.facts["cpus"] == "several" if flushes is None else flushes
    assert side.verdict.verdict == ("conventional" if flushes else "conforms")
    assert bool(from_wire(side.observation.tensors["y[0]"])[:, 0].any()) is not flushes


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process to one CPU")
def test_a_settled_mindspore_keeps_to_one_cpu_and_counts_as_run_on_all() -> None:
    with Pool([parse("mindspore")]) as pool:
        (started,) = pool.start().values()
        if not isinstance(started, Started):
            pytest.skip(started.message)
        (worker,) = pool.workers
        assert worker.pid is not None
        assert len(os.sched_getaffinity(worker.pid)) == 1
        assert started.facts["cpus"] == ("several" if len(os.sched_getaffinity(0)) > 1 else "one")


@pytest.mark.skipif(sys.platform != "linux", reason="names of sockets without a file are Linux's")
def test_workers_of_mindspore_keep_to_different_cpus_while_there_are_any() -> None:
    source = parse("mindspore").adapter.source
    cpus = os.sched_getaffinity(0)
    adapters: list[Any] = [load_adapter(source.read_text(encoding="utf-8"), str(source)) for _ in cpus]
    kept = [adapter.place() for adapter in adapters]
    claims = [getattr(adapter, "claim", None) for adapter in adapters]
    mine = [cpu for cpu, claim in zip(kept, claims, strict=True) if claim]
    assert len(set(mine)) == len(mine)  # those of other processes count, too
    for cpu in cpus:
        with socket.socket(socket.AF_UNIX) as another, pytest.raises(OSError, match="in use"):
            another.bind(f"\0conformance-mindspore-{cpu}")
    for claim in filter(None, claims):
        claim.close()


def test_a_compiled_layer_of_keras_is_compiled_once_for_each_mode_and_for_what_learns() -> None:
    adapter = module(ROOT / "adapters" / "keras" / "adapter.py")

    class Counting(adapter.Backend):  # type: ignore[name-defined, misc]
        def start(self, threads: int) -> None:
            self.compiled, self.forgotten = list[Any](), 0

        def compile(self, call: Any) -> Any:
            self.compiled.append(call)
            return call

        def forget(self) -> None:
            self.forgotten += 1

    layers = [SimpleNamespace(trainable=True) for _ in range(2)]
    training, inferring = (("training", True), None), (("training", False), None)
    backend = Counting("cpu", "compiled", 1)
    used = [
        backend.once(call, layers[0], mode) for call, mode in zip("abc", (training, inferring, training), strict=True)
    ]
    assert used == ["a", "b", "a"]
    layers[0].trainable = False
    assert backend.once("d", layers[0], training) == "d"
    assert (backend.once("e", layers[1], training), backend.forgotten) == ("e", 2)
    assert backend.once("f", layers[0], training) == "f"
    assert backend.compiled == ["a", "b", "d", "e", "f"]
    eager = Counting("cpu", "eager", 1)
    assert [eager.once(call, layers[0], training) for call in "ab"] == ["a", "b"]
    assert eager.compiled == []
