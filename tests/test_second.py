"""Second derivatives: the formulas against differences of dx in 50 digits, their laws, and what a case may say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from builders import answer, case, on, oracle, parameters, values, verdict
from mutants import bench
from pydantic import ValidationError

from conformance import second as second_module
from conformance.arithmetic import Array, Double, Multiprecision
from conformance.comparison import Comparison
from conformance.conventions import CANONICAL, Conventions
from conformance.fields import By
from conformance.judge import judge
from conformance.layer import Parameters, Values
from conformance.problem import materialise
from conformance.reference import evaluate

MP = Multiprecision(50)
#: Central differences of this width are right to 10⁻²⁸ or so in 50 digits.
H = MP.lift(np.array([1e-14]))[0]

P = parameters(2, gamma=[1.5, -0.7], beta=[0.3, 2.0], running_mean=[0.4, -1.0], running_var=[0.6, 2.0], eps=0.01)


def step(mode: str = "train", n: int = 6) -> Values:
    random = np.random.RandomState(4)
    x, g, v = random.standard_normal((3, 2, n))
    return replace(values(3 + 2 * x, g, mode), v=v)


def second(s: Values, p: Parameters = P, conventions: Conventions = CANONICAL) -> dict[str, Any]:
    """ddx, ddgamma and ddy in 50 digits."""
    trace = evaluate(p, [s], conventions, MP)[0]
    return {name: getattr(trace, name) for name in ("ddx", "ddgamma", "ddy")}


def weighed(mode: str, x: Array, gamma: Array, g: Array, v: Array) -> Any:
    """Σv·dx of each channel, from the definition of dx: y differentiated by differences of its own.

    dx in closed form would do, but shares its derivation with what is tested.
    """
    total = MP.lift(np.zeros(2))
    for i in range(x.shape[1]):
        moved = []
        for sign in (1, -1):
            shifted = x.copy()
            shifted[:, i] += sign * H
            moved.append((g * gamma[:, None] * normalised(mode, shifted)).sum(1))
        total = total + v[:, i] * (moved[0] - moved[1]) / (2 * H)
    return total


def normalised(mode: str, x: Array) -> Any:
    """x̂, from the definition."""
    n = x.shape[1]
    mu, var = MP.lift(P.running_mean), MP.lift(P.running_var)
    if mode == "train":
        mu = x.sum(1) / n
        var = ((x - mu[:, None]) ** 2).sum(1) / n
    return (x - mu[:, None]) / MP.sqrt(var + P.eps)[:, None]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_they_are_the_differences_of_dx(mode: str) -> None:
    s = step(mode)
    assert s.g is not None
    assert s.v is not None
    found = second(s)
    lifted = {name: MP.lift(array) for name, array in (("x", s.x), ("g", s.g), ("v", s.v), ("gamma", P.gamma))}
    v = lifted.pop("v")
    for name, of in (("ddx", "x"), ("ddy", "g"), ("ddgamma", "gamma")):
        places: list[tuple[Any, ...]] = [(...,)] if of == "gamma" else [(slice(None), i) for i in range(6)]
        for at in places:
            moved = []
            for sign in (1, -1):
                changed = {key: array.copy() for key, array in lifted.items()}
                changed[of][at] += sign * H
                moved.append(weighed(mode, v=v, **changed))
            numeric = (moved[0] - moved[1]) / (2 * H)
            off = np.abs(MP.lower(found[name][at] - numeric))
            assert off.max() < 1e-18, (name, at)


def test_evaluation_has_no_second_derivative_by_x() -> None:
    assert not MP.lower(second(step("eval"))["ddx"]).any()


def test_in_evaluation_x_has_no_part_in_them_and_may_be_no_number() -> None:
    """Seen to fail where 0·NaN was added to what a step of evaluation has."""
    given = {"shape": [4, 3], "normal": {"mean": 3, "seed": 3}}
    steps = [{"mode": "eval", "second": {}}]
    plain, special = (
        oracle(layer={}, steps=steps, input=given | {"replace": replaced})
        for replaced in ([], [{"at": [1, 1], "with": "nan"}])
    )
    profile = bench().under.profile
    wanted, found = plain.expected(profile, CANONICAL), special.expected(profile, CANONICAL)
    for name in ("ddx[0]", "ddy[0]", "ddgamma[0]", "dx[0]"):
        assert np.array_equal(found[name].value, wanted[name].value), name
        assert np.array_equal(found[name].bound, wanted[name].bound), name


def test_a_shift_of_x_changes_none_of_them() -> None:
    s = step()
    for name, value in second(replace(s, x=s.x + 1024)).items():
        assert np.allclose(MP.lower(value), MP.lower(second(s)[name]), rtol=1e-9, atol=0), name


def test_ddx_is_symmetric_in_the_two_cotangents() -> None:
    s = step()
    swapped = second(replace(s, g=s.v, v=s.g))
    assert np.allclose(MP.lower(swapped["ddx"]), MP.lower(second(s)["ddx"]), rtol=1e-30)
    assert np.allclose(MP.lower(swapped["ddgamma"]), MP.lower(second(s)["ddgamma"]), rtol=1e-30)


def test_ddx_sums_to_nothing_in_training() -> None:
    """dx does not feel a shift of x."""
    assert np.abs(MP.lower(MP.sum(second(step())["ddx"]))).max() < 1e-40


def test_ddgamma_is_what_gamma_multiplies() -> None:
    s = step()
    trace = evaluate(P, [s], CANONICAL, MP)[0]
    assert s.v is not None
    weighed_dx = MP.sum(MP.lift(s.v) * trace.dx) / MP.lift(P.gamma)
    assert np.allclose(MP.lower(second(s)["ddgamma"]), MP.lower(weighed_dx), rtol=1e-30)


def test_a_layer_without_gamma_has_no_ddgamma() -> None:
    found = second(step(), replace(P, scale=False))
    assert found["ddgamma"] is None
    assert found["ddx"] is not None


def test_a_variance_about_a_constant_moves_ddx_by_the_mean_of_v() -> None:
    s = step()
    trace = evaluate(P, [s], CANONICAL, Double())[0]
    moved = second(s, conventions=CANONICAL.but(second="variance about a constant"))
    assert trace.sums is not None
    share = -P.gamma * trace.inv**2 * trace.sums[1] / 6 * np.asarray(s.v).mean(1)
    assert np.allclose(MP.lower(moved["ddx"] - second(s)["ddx"]), share[:, None], rtol=1e-12)


def y_along(along: Array, x: Array, held: Array, v: Array) -> Any:
    """Σalong·(y along v), by differences from the definition, with the variance about `held`."""

    def y(x: Array) -> Any:
        var = ((x - held[:, None]) ** 2).sum(1) / x.shape[1]
        return MP.lift(P.gamma)[:, None] * (x - x.sum(1)[:, None] / x.shape[1]) / MP.sqrt(var + P.eps)[:, None]

    return (along * (y(x + H * v) - y(x - H * v))).sum(1) / (2 * H)


@pytest.mark.parametrize("by", get_args(By))
def test_a_variance_about_a_constant_is_differentiated_so_in_every_order(by: str) -> None:
    """By the definition with the mean held where it is; the last order has a tangent for its last derivative."""
    s = step()
    x, g, v = (MP.lift(np.asarray(array)) for array in (s.x, s.g, s.v))
    held = x.sum(1) / 6
    found = second(replace(s, by=by), conventions=CANONICAL.but(second="variance about a constant"))["ddx"]
    for i in range(6):
        place = MP.lift(np.zeros_like(s.x))
        place[:, i] = place[:, i] + 1
        if by == "forward-over-forward":
            moved = [y_along(place, x + sign * H * g, held, v) for sign in (1, -1)]
        else:
            moved = [y_along(g, x + sign * H * place, held, v) for sign in (1, -1)]
        assert np.abs(MP.lower(found[:, i] - (moved[0] - moved[1]) / (2 * H))).max() < 1e-10


@pytest.mark.parametrize("by", ["reverse-over-forward", "forward-over-forward"])
def test_statistics_that_are_constants_leave_what_x_does_by_itself(by: str) -> None:
    s = step()
    x, g, v = (MP.lift(np.asarray(array)) for array in (s.x, s.g, s.v))
    mu = x.sum(1)[:, None] / 6
    inv = (1 / MP.sqrt(((x - mu) ** 2).sum(1) / 6 + P.eps))[:, None]
    centred = v - v.sum(1)[:, None] / 6

    def along(x: Array) -> Any:
        """y along v by a mean and a deviation that are held."""
        slope = (centred * (x - mu)).sum(1)[:, None] / 6
        return MP.lift(P.gamma)[:, None] * (inv * centred - inv**3 * (x - mu) * slope)

    found = second(replace(s, by=by), conventions=CANONICAL.but(second_over_forward="statistics constant"))["ddx"]
    wanted = (along(x + H * g) - along(x - H * g)) / (2 * H)
    for i in range(6 if by == "reverse-over-forward" else 0):
        place = MP.lift(np.zeros_like(s.x))
        place[:, i] = place[:, i] + H
        wanted[:, i] = (g * (along(x + place) - along(x - place))).sum(1) / (2 * H)
    assert np.abs(MP.lower(found - wanted)).max() < 1e-18


def test_an_order_of_modes_makes_no_difference_but_for_the_gradients_of_parameters() -> None:
    one, *others = (oracle(steps=[{"mode": "train", "second": {"by": by}}]) for by in get_args(By))
    usual = one.expected(bench().under.profile, CANONICAL)
    for of in others:
        expected = of.expected(bench().under.profile, CANONICAL)
        without = of.problem.calls[0].by == "forward-over-forward"
        assert usual.keys() - expected.keys() == ({"dgamma[0]", "dbeta[0]", "ddgamma[0]"} if without else set())
        for name, found in expected.items():
            assert np.array_equal(found.value, usual[name].value), name


@pytest.mark.frameworks
@pytest.mark.parametrize("target", ["torch", "keras,backend=torch", "keras"])
@pytest.mark.parametrize("by", get_args(By))
def test_the_real_layers_in_every_order(target: str, by: str) -> None:
    """What tracks torch.func does not differentiate: torch's own layer does not, and Keras's on torch evaluates."""
    mode = "eval" if (target, by) == ("keras,backend=torch", "forward-over-forward") else "train"
    of = case(
        layer={"track_running_stats": target != "torch"},
        input={"shape": [6, 2], "normal": {"mean": 3, "seed": 3}},
        steps=[{"mode": mode, "second": {"by": by}}],
    )
    found, _ = on(target, of)
    if target == "keras":
        assert found.diagnosis == "second-mean-detached"
    elif target == "torch" and by.endswith("over-forward"):
        assert found.diagnosis == "second-statistics-constant"
    else:
        assert found.verdict in ("conforms", "conventional")


def test_a_tangent_that_is_lost_leaves_zeros_in_every_order() -> None:
    lost = CANONICAL.but(tangent="lost")
    for by in get_args(By)[1:]:
        trace = evaluate(P, [replace(step(), by=by)], lost, Double())[0]
        zeros = {"ddx", "ddy"} | ({"dx"} if by == "forward-over-forward" else {"ddgamma"})
        of = ("dx", "ddx", "ddy", "ddgamma")
        assert {name for name in of if (value := getattr(trace, name)) is not None and not value.any()} == zeros


def test_a_condition_asks_for_the_order_of_a_step_and_its_mode_together() -> None:
    steps = [{"mode": "train", "second": {}}, {"mode": "eval", "second": {"by": "forward-over-reverse"}}]
    of = case(steps=steps)
    assert of.meets({"by": "reverse-over-reverse", "mode": "train"}, {})
    assert of.meets({"by": ["forward-over-reverse", "reverse-over-forward"]}, {})
    assert not of.meets({"by": "forward-over-reverse", "mode": "train"}, {})
    assert not case(steps=["train"]).meets({"by": "reverse-over-reverse"}, {})


def test_they_are_judged_and_named() -> None:
    of = oracle(steps=[{"mode": "train", "second": {}}])
    assert verdict(of, answer(of)).verdict == "conforms"
    detached = CANONICAL.but(second="variance about a constant")
    assert verdict(of, answer(of, detached)).diagnosis == "second-mean-detached"


def test_what_is_left_out_of_an_answer_is_missed() -> None:
    of = oracle(steps=[{"mode": "train", "second": {}}])
    assert verdict(of, answer(of, ddx_0=None)).verdict == "divergent"


def test_v_is_drawn_by_a_stream_of_its_own() -> None:
    call = materialise(case(steps=[{"mode": "train", "gradient": {"seed": 2}, "second": {"seed": 2}}])).calls[0]
    assert call.v is not None
    assert call.dy is not None
    assert call.v.shape == call.x.shape
    assert not np.array_equal(call.v, call.dy)


def test_cases_without_second_derivatives_keep_their_digests() -> None:
    """A run of an earlier release compares with one of this."""
    plain, twice = (materialise(case(steps=[step])) for step in ({"mode": "train"}, {"mode": "train", "second": {}}))
    assert "second" not in repr(plain.wire)
    assert plain.digest == "0369b5fc4ff50d6fe4b441740083fb32e606912f195594eb4960e64b09566241"
    assert twice.digest == "829f3c4ae2f44c963e38cb1eb2d452b899c61f3ef55fb63cb392b81104467d57"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"gradient": None}, "no gradient"),
        ({"steps": [{"mode": "train", "second": {}, "mask": {}}]}, "a mask"),
        ({"input": {"shape": [2, 3], "constant": 1, "dtype": "float16"}}, "float16"),
        (
            {"steps": [{"mode": "train", "second": {"by": "forward-over-reverse"}}], "recompute": True},
            "do so, or recompute",
        ),
        ({"steps": [{"mode": "train", "second": {"by": "backward"}}]}, "should be|Input should be"),
    ],
)
def test_a_case_that_asks_for_none_is_told(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        case(**{"steps": [{"mode": "train", "second": {}}], **spec})


def test_the_numpy_layer_is_within_its_bounds_and_near_them() -> None:
    worst: dict[str, float] = {}
    for mean in (0, 100, 1e4):
        of = oracle(
            steps=[{"mode": "train", "second": {}}],
            input={"shape": [16, 3, 5, 5], "normal": {"mean": mean, "std": 2, "seed": 9}},
        )
        for name, result in judge(Comparison(of, bench().under, bench().observe("none", of.problem))).tensors.items():
            worst[name] = max(worst.get(name, 0.0), result.off)
    assert all(0.02 <= worst[f"{name}[0]"] <= 1 for name in ("ddx", "ddy", "ddgamma")), worst


def test_the_bound_of_ddx_has_every_term_of_its_size() -> None:
    """(20) of docs/bounds.md, where nothing but the roundoff u of its own operations is at fault."""
    s, u = step(n=5), 2.0**-24
    t = evaluate(P, [s], CANONICAL, Double())[0]
    assert t.g is not None
    assert t.v is not None
    none = np.zeros(2)
    found, _ = second_module.bounds(
        t, second_module.Errors(u, none, np.zeros((2, 5)), 0.0, (none, none), (none, none)), Double()
    )
    a = 1 / 5
    for c in range(2):
        x, g, v, inv = t.xhat[c], t.g[c], t.v[c], t.inv[c]
        big_s, big_v, big_g, v_x, g_x = (abs(float(total)) for total in (v @ g, v.sum(), g.sum(), v @ x, g @ x))
        size = big_s + a * big_v * big_g + 3 * a * v_x * g_x
        w = inv * (abs(t.x[c]) + abs(t.mu[c]))
        summed = 6 * u * np.linalg.norm(abs(v) * (abs(g) + a * (big_g + w * g_x)))
        for i in range(5):
            parts = abs(x[i]) * size + g_x * (abs(v[i]) + a * big_v) + v_x * (abs(g[i]) + a * big_g)
            each = abs(x[i]) * (summed + 4 * u * size) + 6 * u * parts
            assert found[c, i] == pytest.approx(a * abs(P.gamma[c]) * inv**2 * each, rel=1e-9)
