"""What a person is told about a case that is wrong: where it was written, which key it is, and a way out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from conformance import judge
from conformance.case_errors import CaseError, CaseErrors
from conformance.catalogue import NAMES, misnamed
from conformance.check import check
from conformance.document import parse
from conformance.load import load
from conformance.spec import CaseSpec

HEAD = "conformance: 1\nabout: x\n"
DEFAULTS = "defaults: {why: x, layer: {}, input: {shape: [4, 3], normal: {}}}\n"
FRAMEWORKS = frozenset({"torch", "keras", "mindspore"})
HERE = "▸"  # stands in a test's text where the error must point


def errors(folder: Path, text: str) -> list[CaseError]:
    path = folder / "f.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CaseErrors) as caught:
        load([path], FRAMEWORKS)
    return list(caught.value.errors)


def assert_told(folder: Path, marked: str, *complaints: str) -> None:
    """The text's errors are these, in order, and each points at its mark."""
    places = []
    text = ""
    for part in marked.split(HERE)[:-1]:
        text += part
        places.append((text.count("\n") + 1, len(text) - text.rfind("\n")))
    found = errors(folder, marked.replace(HERE, ""))
    prefix = f"{folder}/f.yaml:"
    assert [str(error).removeprefix(prefix).split(" ", 1)[1] for error in found] == list(complaints)
    assert [(error.line, error.column) for error in found] == places


KEYS = ", ".join(sorted({*CaseSpec.model_fields, "matrix"}))
MODES = "'train', 'eval' or 'default'"
DTYPES = "'float64', 'float32', 'float16', 'bfloat16', 'int64' or 'int32'"
VECTOR = "a number, a list of numbers, or a mapping"
GENERATORS = "an input needs exactly one of values, constant, normal, uniform, arange; here is"


def assert_case_told(folder: Path, body: str, complaint: str) -> None:
    assert_told(folder, f"{HEAD}{DEFAULTS}cases:\n  a: {{{body}}}\n", complaint)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("layer: {▸momentun: 1}", "layer.momentun: unknown key (did you mean momentum?)"),
        ("input: {normal: {▸decay: 1}}", "input.normal.decay: unknown key (one of: mean, seed, std)"),
        ("layer: {initial: {beta: {▸unifrm: 1}}}", "layer.initial.beta.unifrm: unknown key (did you mean uniform?)"),
        ("layer: null, native: {torch: {▸'x=1)': 1}}", "native.torch.x=1): is no argument's name"),
        ("layer: null, native: {torch: {▸lambda: 1}}", "native.torch.lambda: is no argument's name"),
        ("layer: null, rank: 2, signature: {torch: {▸'eps\"': null}}", "signature.torch.eps\": is no argument's name"),
        ("▸bogus: 1", f"bogus: unknown key (one of: {KEYS})"),
        ("steps: [▸{frozen: true}]", "steps.0.mode: is missing"),
        ("expect: {▸torch: {refuses: E}}", "expect.torch.because: is missing"),
        ("expect: {torch: [▸{refuses: E}]}", "expect.torch.0.because: is missing"),
        ("documented: {▸torch: {tensors: {}}}", "documented.torch.source: is missing"),
    ],
)
def test_keys_that_are_wrong_or_missing(tmp_path: Path, body: str, complaint: str) -> None:
    assert_case_told(tmp_path, body, complaint)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("why: ▸3", "why: should be text, not 3 (put it in quotes)"),
        ("why: ▸''", "why: text should have at least 1 character, not ''"),
        ("layer: ▸3", "layer: should be a mapping, not 3"),
        ("layer: {rank: ▸true}", "layer.rank: should be 1, 2 or 3"),
        ("layer: {rank: ▸2.0}", "layer.rank: should be 1, 2 or 3"),
        ("layer: {rank: ▸4}", "layer.rank: should be 1, 2 or 3, not 4"),
        ("layer: {eps: ▸'1e-5'}", "layer.eps: should be a number, not '1e-5'"),
        ("layer: {eps: ▸true}", "layer.eps: should be a number, not true"),
        ("layer: {eps: ▸[1]}", "layer.eps: should be a number"),
        ("layer: {scale: ▸yes}", "layer.scale: should be a truth value, not 'yes' (write true or false)"),
        ("layer: {features: ▸1e3}", "layer.features: should be an integer, not 1000.0"),
        ("layer: {features: ▸0}", "layer.features: should be greater than or equal to 1, not 0"),
        ("gradient: {seed: ▸-1}", "gradient.seed: should be greater than or equal to 0, not -1"),
        ("steps: ▸train", "steps: should be a list, not 'train'"),
        ("steps: ▸[]", "steps: list should have at least 1 item, not 0"),
        ("steps: [▸trian]", f"steps.0: should be {MODES}, not 'trian' (did you mean train?)"),
        ("steps: [{mode: ▸both}]", f"steps.0.mode: should be {MODES}, not 'both'"),
        ("steps: [▸3]", "steps.0: should be a mode (train, eval, default) or a mapping, not 3"),
        ("steps: [eval, {mode: eval, input: {dtype: ▸x}}]", f"steps.1.input.dtype: should be {DTYPES}, not 'x'"),
        ("layer: {initial: {beta: ▸true}}", f"layer.initial.beta: should be {VECTOR}, not true"),
        ("layer: {initial: {beta: ▸abc}}", "layer.initial.beta: should be a number, not 'abc'"),
        ("layer: {initial: {beta: [1, ▸x, 3]}}", "layer.initial.beta.1: should be a number, not 'x'"),
        ("layer: {initial: {beta: ▸[1, 2]}}", "layer.initial.beta: has 2 numbers for 3 features"),
        ("layer: {features: 2, initial: {beta: ▸[1, 2, 3]}}", "layer.initial.beta: has 3 numbers for 2 features"),
        ("beside: {layer: {initial: {beta: ▸[1]}}}", "beside.layer.initial.beta: has 1 number for 3 features"),
        ("beside: {layer: {▸epsilon: 1}}", "beside.layer.epsilon: unknown key (did you mean eps?)"),
        ("layer: {initial: {beta: ▸{values: [1]}}}", "layer.initial.beta: has 1 number for 3 features"),
    ],
)
def test_values_that_are_wrong(tmp_path: Path, body: str, complaint: str) -> None:
    assert_case_told(tmp_path, body, complaint)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (
            "{shape: ▸[1000000, 1000000]}",
            ".shape: a tensor of 1,000,000,000,000 elements is over the limit of 100,000,000",
        ),
        ("{shape: ▸[4]}", ".shape: an input has from 2 (N, C) to 8 dimensions, not 1"),
        ("{shape: [4, ▸-1]}", ".shape.1: should be greater than or equal to 0, not -1"),
        ("{values: ▸[[1], [1, 2]]}", ".values: values are ragged: lists at one depth have different lengths"),
        ("{values: ▸[[1, x]]}", ".values: values hold 'x', which is no number"),
        ("{values: ▸[[true]]}", ".values: values hold True, which is no number"),
        ("▸{normal: null}", f": {GENERATORS} none"),
        ("▸{normal: {}, constant: 1}", f": {GENERATORS} constant and normal"),
        ("▸{replace: [{at: [4, 0], with: 1}]}", ": replace at [4, 0] lies outside the shape [4, 3]"),
    ],
)
def test_inputs_that_cannot_be_made(tmp_path: Path, body: str, complaint: str) -> None:
    assert_case_told(tmp_path, f"input: {body}", f"input{complaint}")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (
            "expect: {▸trch: {refuses: E, because: x}}",
            "expect.trch: an expectation that names no target (did you mean torch?)",
        ),
        (
            "documented: {▸jax: {source: x, tensors: {}}}",
            "documented.jax: names no target (one of: keras, mindspore, torch)",
        ),
        ("native: {▸keas: {}}", "native.keas: names no target (did you mean keras?)"),
        ("rank: 2, signature: {▸trch: {}}", "signature.trch: names no target (did you mean torch?)"),
    ],
)
def test_frameworks_that_nobody_knows(tmp_path: Path, body: str, complaint: str) -> None:
    assert_case_told(tmp_path, body, complaint)


@pytest.mark.parametrize(
    ("expectation", "complaint"),
    [
        ("▸{because: x}", ": an expectation names exactly one of refuses, diverges, inaccurate and crashes"),
        ("{because: x, crashes: ▸1}", ".crashes: should be true"),
        ("▸{because: x, crashes: true, says: x}", ": says is of an exception's message, and goes with refuses"),
        ("{because: x, refuses: E, says: ▸''}", ".says: text should have at least 1 character, not ''"),
        ("{because: x, refuses: E, version: ▸'2.7'}", ".version: '2.7' is no range of versions (write '>=2.7,<3')"),
        ("{because: x, refuses: E, when: ▸3}", ".when: should be a mapping, not 3"),
        (
            "[{because: x, refuses: E, when: {▸devise: cpu}}]",
            ".0.when.devise: unknown condition (did you mean device?)",
        ),
    ],
)
def test_expectations_that_cannot_be_met(tmp_path: Path, expectation: str, complaint: str) -> None:
    assert_case_told(tmp_path, f"expect: {{torch: {expectation}}}", f"expect.torch{complaint}")


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("version: ▸2.7", "version: 2.7 is no range of versions (write '>=2.7,<3')"),
        ("dtype: [float32, ▸float3]", "dtype: 'float3' is no dtype (did you mean float32?)"),
        ("rank: ▸'>two'", "rank: '>two' compares with no number (write '>=2')"),
        ("rank: ▸null", "rank: should be a truth value, an integer, a number, text or a list, not null"),
        ("rank: [1, ▸null]", "rank.1: should be a truth value, an integer, a number or text, not null"),
    ],
)
def test_conditions_that_never_hold(tmp_path: Path, condition: str, complaint: str) -> None:
    expectation = f"{{refuses: E, because: x, when: {{{condition}}}}}"
    assert_case_told(tmp_path, f"expect: {{torch: {expectation}}}", f"expect.torch.when.{complaint}")


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ("▸'y[2]': '1'", "y[2]: the case has 2 steps, counted from 0"),
        ("▸'y[99999999999999999999]': '1'", "y[99999999999999999999]: the case has 2 steps, counted from 0"),
        ("▸z: '1'", "z: is no tensor of a step (write y[0], dx[1], running_mean[0] …)"),
        ("'y[1]': ▸1", "y[1]: should be text, not 1 (put it in quotes)"),
    ],
)
def test_documented_tensors_that_no_step_has(tmp_path: Path, tensors: str, complaint: str) -> None:
    document = f"{{source: x, tensors: {{{tensors}}}}}"
    body = f"steps: [eval, eval], documented: {{torch: {document}}}"
    assert_case_told(tmp_path, body, f"documented.torch.tensors.{complaint}")


@pytest.mark.parametrize(
    ("cases", "complaint"),
    [
        ("  ▸a: {layer: {}, input: {shape: [4, 3], normal: {}}}", "why: is missing"),
        ("  ▸a: {why: x, layer: {}}", "a case needs an input, or one in every step"),
        ("  ▸a: {why: x, layer: {}, native: {}}", "a case has exactly one of layer, native and signature"),
        ("  ▸a:\n    why: x", "a case has exactly one of layer, native and signature"),
        ("  ▸a: {why: x, signature: {torch: {eps: null}}}", "a signature case needs a rank"),
        ("  a: ▸3", "a: should be a mapping"),
        ("  ▸../a: {}", "'../a' cannot be the name of a case (letters, digits, _ . + and -, a letter or digit first)"),
        ("  ▸'': {}", "'' cannot be the name of a case (letters, digits, _ . + and -, a letter or digit first)"),
        (
            '  ▸"a\\n": {}',
            "'a\\n' cannot be the name of a case (letters, digits, _ . + and -, a letter or digit first)",
        ),
    ],
)
def test_what_is_missing_is_reported_by_the_name_of_the_case(tmp_path: Path, cases: str, complaint: str) -> None:
    defaults = DEFAULTS if "cannot be" in complaint else ""
    assert_told(tmp_path, f"{HEAD}{defaults}cases:\n{cases}\n", complaint)


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("▸conformance: 1\n", ["about: is missing (say in a sentence what the file is about)"]),
        ("conformance: 1\nabout: ▸' '\n", ["about: should be text (say in a sentence what the file is about)"]),
        (f"{HEAD}▸defalts: {{}}\n", ["defalts: unknown key (did you mean defaults?)"]),
        (f"{HEAD}defaults: ▸3\n", ["defaults: should be a mapping"]),
    ],
)
def test_an_error_in_a_file_names_its_place(tmp_path: Path, text: str, complaints: list[str]) -> None:
    case = "{why: x, layer: {}, input: {shape: [4, 3], normal: {}}}"
    assert_told(tmp_path, f"{text}cases: {{a: {case}}}", *complaints)


@pytest.mark.parametrize(
    ("cases", "complaint"),
    [
        ("", "cases: is missing"),
        ("cases: ▸{}", "cases: should be a mapping of names to cases, one at least"),
        ("cases: ▸[{}]", "cases: should be a mapping of names to cases, one at least"),
    ],
)
def test_a_file_has_cases(tmp_path: Path, cases: str, complaint: str) -> None:
    assert_told(tmp_path, (HEAD if cases else HERE + HEAD) + cases, complaint)


def test_a_value_is_reported_where_it_was_written_and_once(tmp_path: Path) -> None:
    text = """\
conformance: 1
about: x
defaults:
  why: x
  layer:
    eps: ▸x
  input: {shape: [4, 3], normal: {}}
cases:
  a: {}
  b:
    matrix:
      layer.momentum: [1, ▸y, 2]
      layer.rank: [1, 2, ▸true]
"""
    assert_told(
        tmp_path,
        text,
        "layer.eps: should be a number, not 'x'",
        "layer.momentum: should be a number, not 'y'",
        "layer.rank: should be 1, 2 or 3",
    )


def test_a_mapping_from_a_matrix_is_reported_where_it_was_written(tmp_path: Path) -> None:
    text = "cases:\n  a:\n    matrix:\n      input:\n        - ▸{shape: [2, 3]}\n        - {shape: [2, 3], normal: {}}"
    assert_told(tmp_path, f"{HEAD}{DEFAULTS}{text}", f"input: {GENERATORS} none")


def test_an_axis_does_not_take_the_blame_for_what_lies_around_its_values(tmp_path: Path) -> None:
    text = (
        "cases:\n  a:\n    why: x\n    layer: {}\n    ▸input:\n      shape: [2, 3]\n    matrix: {input.dtype: [int32]}"
    )
    assert_told(tmp_path, HEAD + text, f"input: {GENERATORS} none")


def test_one_place_is_reported_once_even_where_the_matrix_makes_the_messages_differ(tmp_path: Path) -> None:
    text = "{input: ▸{replace: [{at: [9, 9], with: 1}]}, matrix: {input.shape: [[2, 3], [3, 3], [9, 9]]}}"
    complaint = "input: replace at [9, 9] lies outside the shape [2, 3]"
    assert_told(tmp_path, f"{HEAD}{DEFAULTS}cases: {{a: {text}}}", complaint)


def test_a_case_with_any_fault_has_no_specification() -> None:
    body = b"a: {why: x, layer: {}, input: {shape: [4, 3], normal: {}}, expect: {jax: {refuses: E, because: x}}}"
    case = parse(body).entries["a"]
    assert check(case)[0] is not None
    spec, faults = check(case, FRAMEWORKS)
    assert spec is None
    assert len(faults) == 1


def test_a_block_is_reported_at_its_key(tmp_path: Path) -> None:
    text = "cases:\n  a:\n    why: x\n    layer: {}\n    ▸input:\n      shape: [4, 3]\n"
    assert_told(tmp_path, HEAD + text, f"input: {GENERATORS} none")


def test_keys_of_defaults_are_checked_even_where_no_case_inherits_them(tmp_path: Path) -> None:
    text = "defaults: {layer: {▸esp: 1}}\ncases: {a: {why: x, native: {torch: {}}, input: {shape: [4, 3], normal: {}}}}"
    assert_told(tmp_path, HEAD + text, "layer.esp: unknown key (did you mean eps?)")


@pytest.mark.parametrize("said", ["refuses: E, because: x", "source: x, tensors: {}"])
def test_what_is_said_of_a_framework_that_the_case_does_not_speak_to_is_a_fault(tmp_path: Path, said: str) -> None:
    place = "expect" if "refuses" in said else "documented"
    body = f"why: x, native: {{torch: {{}}}}, {place}: {{torch: {{{said}}}, ▸keras: {{{said}}}}}"
    text = f"cases: {{a: {{{body}, input: {{shape: [4, 3], normal: {{}}}}}}}}"
    complaint = f"{place}.keras: names no target of this case (it speaks to torch)"
    assert_told(tmp_path, HEAD + text, complaint)


@pytest.mark.parametrize(
    ("diagnosis", "complaint"),
    [
        ("gamma-ignord", "'gamma-ignord' is no diagnosis (did you mean gamma-ignored?)"),
        ("sums-overflow+gamma-ignord", "'gamma-ignord' is no diagnosis (did you mean gamma-ignored?)"),
        ("signature-shape", "'signature-shape' is no diagnosis (did you mean signature-changed?)"),
        ("xyz", "'xyz' is no diagnosis (conformance/catalogue.py has them all; or write unexplained)"),
    ],
)
def test_a_diagnosis_that_there_is_none_of_is_a_fault(tmp_path: Path, diagnosis: str, complaint: str) -> None:
    body = f"expect: {{torch: {{diverges: ▸{diagnosis}, because: x}}}}"
    assert_case_told(tmp_path, body, f"expect.torch.diverges: {complaint}")


@pytest.mark.parametrize(
    "diagnosis", ["unexplained", "accepted", "eps-ignored+gamma-ignored", "signature-added+removed"]
)
def test_diagnoses_may_be_made_of_several_names(diagnosis: str) -> None:
    assert misnamed(diagnosis) is None


def test_whatever_judging_names_may_be_expected() -> None:
    source = inspect.getsource(judge)
    named = {*judge._STRUCTURAL.values(), *(kind for _, kind, _ in judge._TOUCHED)}
    named |= set(re.findall(r'_Finding\("divergent", "([a-z-]+)"', source)) | set(
        re.findall(r'"(document-[a-z]+)"', source)
    )
    assert {"accepted", "unexplained", "document-contradicted"} <= named - {"signature-"} <= NAMES


def test_an_expectation_may_speak_of_some_expansions_only_and_of_what_its_case_inherits(tmp_path: Path) -> None:
    expected = "{refuses: E, because: x}"
    text = f"""\
{HEAD}defaults: {{input: {{shape: [4, 3], normal: {{}}}}, expect: {{mindspore: {expected}}}}}
cases:
  some: {{why: x, matrix: {{native: [{{torch: {{}}}}, {{keras: {{}}}}]}}, expect: {{keras: {expected}}}}}
"""
    path = tmp_path / "topic.yaml"
    path.write_text(text, encoding="utf-8")
    assert len(load([path], FRAMEWORKS)) == 2


def test_all_faults_of_a_case_are_reported(tmp_path: Path) -> None:
    text = "  ▸a: {layer: {eps: ▸x, ▸momentun: 1}, steps: [▸trian], input: {shape: ▸x}, expect: {▸trch: ▸3}}"
    assert_told(
        tmp_path,
        f"{HEAD}cases:\n{text}",
        "why: is missing",
        "layer.eps: should be a number, not 'x'",
        "layer.momentun: unknown key (did you mean momentum?)",
        "steps.0: should be 'train', 'eval' or 'default', not 'trian' (did you mean train?)",
        "input.shape: should be a list, not 'x'",
        "expect.trch: an expectation that names no target (did you mean torch?)",
        "expect.trch: should be a mapping, not 3",
    )


def test_any_framework_may_be_named_where_none_are_given(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"{HEAD}{DEFAULTS}cases: {{a: {{native: {{mine: {{}}}}}}}}")
    assert load([path])[0].frameworks == frozenset({"mine"})


def test_channels_other_than_the_layers_are_a_refusal_to_test_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"{HEAD}{DEFAULTS}cases: {{a: {{layer: {{features: 5}}}}}}")
    assert load([path])


def test_an_error_is_one_line_whatever_the_file_holds(tmp_path: Path) -> None:
    (found,) = errors(tmp_path, f'{HEAD}{DEFAULTS}cases: {{a: {{"\\n\\t\\u202e{"k" * 900}": 1}}}}')
    assert str(found).isprintable()
    assert len(str(found)) < 1000


def test_an_error_carries_what_it_says_as_fields(tmp_path: Path) -> None:
    (found,) = errors(tmp_path, f"{HEAD}{DEFAULTS}cases:\n  a: {{layer: {{momentun: 1}}}}")
    file = str(tmp_path / "f.yaml")
    assert found == CaseError(file, 5, 15, "layer.momentun", "unknown key", "did you mean momentum?")
    assert str(found) == f"{file}:5:15: layer.momentun: unknown key (did you mean momentum?)"
