from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from onnx_asgnas.errors import InputError, ModelError, VerificationError
from onnx_asgnas.evaluation import verify
from onnx_asgnas.graph import save_model

if TYPE_CHECKING:
    from .conftest import Edit, Pruned

Parse = Callable[[str], onnx.ModelProto]


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


# What passes


def test_the_compact_model_gives_what_the_full_one_gives(pruned: Pruned) -> None:
    found = verify(pruned.full, pruned.compact, original=pruned.original)
    assert found.passed and found.require() is found
    assert found.max_relative_difference <= 1e-5 == found.tolerance
    assert found.moved is not None and found.moved > 1e-2, "the removal should matter in a network with random weights"
    (output,) = pruned.full.graph.output
    assert found.worst_output == output.name
    assert dict(found.outputs) == {output.name: found.max_relative_difference}
    assert found.first_tensor is None and found.reason == "" and found.remarks == ()
    assert found.runs == ("made-up inputs (batch 1)", "made-up inputs (batch 3)")
    assert str(found).startswith("passed: ")


def test_without_the_original_nothing_is_said_of_it(pruned: Pruned) -> None:
    assert verify(pruned.full, pruned.compact).to_dict() == {
        "max_relative_difference": pytest.approx(0, abs=1e-5),
        "moved": None,
        "passed": True,
        "worst_output": pruned.full.graph.output[0].name,
    }


def test_real_inputs_are_tried_too(pruned: Pruned) -> None:
    value = pruned.full.graph.input[0]
    shape = [5, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])]
    image = np.random.default_rng(0).random(shape)  # float64, as numpy makes them
    found = verify(pruned.full, pruned.compact, inputs={value.name: image}, batches=())
    assert found.passed and found.runs == ("the given inputs",)
    assert verify(pruned.full, pruned.compact, inputs={value.name: image}).runs[-1] == "the given inputs"


def test_models_by_path_and_as_bytes(pruned: Pruned, tmp_path: Path) -> None:
    save_model(pruned.full, tmp_path / "full.onnx")
    before = pruned.compact.SerializeToString()
    assert verify(tmp_path / "full.onnx", before).passed
    assert verify(str(tmp_path / "full.onnx"), pruned.compact).passed
    assert pruned.compact.SerializeToString() == before


def test_a_full_model_in_training_form_counts_in_inference_form(pruned: Pruned) -> None:
    training = copy(pruned.full)
    for node in training.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
            node.output.extend([f"{node.name}.mean", f"{node.name}.var"])
    assert verify(training, pruned.compact).passed


def test_a_fixed_batch_is_kept_to(parse: Parse) -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }")
    found = verify(model, model)
    assert found.passed and found.runs == ("made-up inputs",)


def test_the_batch_may_be_open_in_one_input_only(parse: Parse) -> None:
    model = parse("g (float[N,3] x, float[3] scale) => (float[N,3] y) { y = Mul (x, scale) }")
    assert verify(model, model).runs == ("made-up inputs (batch 1)", "made-up inputs (batch 3)")


def test_a_batch_that_the_full_model_refuses_is_left_out(parse: Parse) -> None:
    baked = parse(
        "g (float[N,4] x) => (float[M,2] y) <int64[2] shape = {2, 2}> { y = Reshape (x, shape) }",
    )
    found = verify(baked, baked)
    assert found.passed and found.runs == ("made-up inputs (batch 1)",)
    assert found.remarks == ("made-up inputs (batch 3): left out, since the full model refuses them",)


# What a pass may hide


def test_all_zero_outputs_agree_but_say_nothing(parse: Parse) -> None:
    zero = parse("g (float[N] x) => (float[N] y, float[N] z) <float[1] w = {0}> { y = Mul (x, w) z = Relu (x) }")
    found = verify(zero, zero)
    assert found.passed and found.max_relative_difference == 0.0
    assert found.remarks == ("output 'y' is all zero in both models, so that they agree on it says nothing",)


def test_a_removal_that_moved_nothing_is_told(pruned: Pruned) -> None:
    found = verify(pruned.full, pruned.compact, original=pruned.full, batches=(2,))
    assert found.passed
    if found.moved == 0.0:
        assert any("moved no output" in remark for remark in found.remarks)
    found = verify(pruned.full, pruned.full, original=pruned.full)
    assert found.moved == 0.0 and "moved no output" in found.remarks[-1]


# What fails


def test_a_tampered_weight_is_found_where_it_is(pruned: Pruned, edit: Edit) -> None:
    """Of every convolution that stayed: the output differs, and the first tensor is the convolution's own."""
    convolutions = [node for node in pruned.compact.graph.node if node.op_type == "Conv"]
    assert len(convolutions) >= 4
    for node in (convolutions[0], convolutions[len(convolutions) // 2], convolutions[-1]):
        tampered = edit(pruned.compact, node.input[1], lambda w: w * np.float32(1.01))
        found = verify(pruned.full, tampered)
        assert not found.passed, f"{node.name} was changed by a hundredth, and nobody saw it"
        assert found.first_tensor == node.output[0]
        with pytest.raises(VerificationError) as caught:
            found.require()
        message = str(caught.value)
        assert found.worst_output in message and f"the first tensor that differs is '{node.output[0]}'" in message
        assert caught.value.tensor == node.output[0] and caught.value.output == found.worst_output
        assert caught.value.difference == found.max_relative_difference > 1e-5
        assert caught.value.exit_code == 1


def test_a_difference_beyond_the_tolerance_is_told_in_figures(parse: Parse) -> None:
    text = "g (float[N] x) => (float[N] y) <float[1] w = {%s}> { h = Abs (x) y = Mul (h, w) }"
    full, near, far = parse(text % "1"), parse(text % "1.0001"), parse(text % "2")
    assert verify(full, near, tolerance=1e-3).passed
    found = verify(full, near)
    assert not found.passed and found.max_relative_difference == pytest.approx(1e-4, rel=1e-3)
    assert found.reason == "output 'y' differs by 0.0001 relative to its largest value, and 1e-05 is allowed"
    assert verify(full, far).max_relative_difference == pytest.approx(1.0)
    assert verify(full, far).first_tensor == "y"
    assert verify(full, full, tolerance=0.0).passed and not verify(full, near, tolerance=0.0).passed


def test_what_float32_only_rounds_is_settled_in_float64(parse: Parse) -> None:
    full = parse("g (float[N] x) => (float[N] y) <float[1] c = {5000}> { h = Add (x, c) y = Sub (h, c) }")
    same = parse("g (float[N] x) => (float[N] y) { y = Identity (x) }")
    other = parse("g (float[N] x) => (float[N] y) <float[1] w = {1.0005}> { y = Mul (x, w) }")
    found = verify(full, same, batches=(8,))
    assert found.passed and found.max_relative_difference < 1e-9
    assert "rounding in float32 moves output 'y' by" in found.remarks[0]
    found = verify(full, other, batches=(8,))
    assert not found.passed and found.max_relative_difference > 1e-4


def test_rounding_inside_of_a_subgraph_is_settled_in_float64(parse: Parse) -> None:
    full = parse(
        """g (float[N] x) => (float[N] y) <bool t = {1}, float[1] c = {5000}> {
            y = If (t) <then_branch = a () => (float[N] p) { k = Constant <value = float[1] {5000.0}> ()
                        h = Add (x, k) p = Sub (h, k) },
                        else_branch = b () => (float[N] q) { q = Sub (x, c) }> }"""
    )
    found = verify(full, parse("g (float[N] x) => (float[N] y) { y = Identity (x) }"), batches=(8,))
    assert found.passed and found.max_relative_difference < 1e-9


def test_what_changes_places_by_rounding_is_settled_in_float64(parse: Parse) -> None:
    text = """g (float[3] x) => (int64[1] y)
        <float[3] c = {0.1, 0.2, 0.3}, float[3] m = {1, 9, 1}, float[1] big = {1e9}, int64[1] k = {1}> {
        z = Sub (x, x) a = Add (z, c) h = Add (a, big) s = Sub (h, big) %s v, y = TopK (r, k) }"""
    full, same = parse(text % "r = Identity (s)"), parse(text % "r = Identity (a)")
    found = verify(full, same)
    assert found.passed and found.max_relative_difference == 0
    assert "rounding in float32 moves output 'y' by inf" in found.remarks[0]
    wrong = verify(full, parse(text % "r = Mul (a, m)"))
    assert not wrong.passed and wrong.reason


@pytest.mark.parametrize("side", ["full", "compact", "both"])
def test_nan_fails_on_either_side(pruned: Pruned, edit: Edit, side: str) -> None:
    name = next(node.input[1] for node in pruned.compact.graph.node if node.op_type == "Gemm")
    broken = [
        edit(model, name, lambda w: w * np.float32("nan")) if side in (which, "both") else model
        for model, which in ((pruned.full, "full"), (pruned.compact, "compact"))
    ]
    found = verify(*broken)
    assert not found.passed
    assert f"of the {'compact' if side == 'compact' else 'full'} model has NaN" in found.reason
    facts = found.to_dict()
    assert facts["max_relative_difference"] is None and facts["passed"] is False
    assert facts["first_tensor"] == found.worst_output == pruned.full.graph.output[0].name
    json.dumps(facts, allow_nan=False)
    assert str(found).startswith("failed: ")


def test_an_infinity_that_only_one_has_fails(parse: Parse) -> None:
    text = "g (float[N] x) => (float[N] y) <float[1] w = {%s}> { a = Abs (x) b = Sub (a, a) y = %s (b, w) }"
    found = verify(parse(text % ("1", "Add")), parse(text % ("0", "Pow")))
    assert found.passed, "0 + 1 = 0 ** 0"
    infinite = parse(
        "g (float[N] x) => (float[N] y) <float[1] one = {1}> { a = Abs (x) b = Sub (a, a) y = Div (one, b) }"
    )
    found = verify(parse(text % ("1", "Add")), infinite)
    assert not found.passed and "an infinite amount" in found.reason


def test_a_renamed_output_fails(parse: Parse) -> None:
    full = parse("g (float[N] x) => (float[N] y) { y = Relu (x) }")
    compact = parse("g (float[N] x) => (float[N] z) { z = Relu (x) }")
    found = verify(full, compact)
    assert not found.passed and found.reason == "only the full model has an output 'y'"
    assert dict(found.outputs).keys() == {"y", "z"}


def test_an_output_that_is_new_fails(parse: Parse) -> None:
    full = parse("g (float[N] x) => (float[N] y) { y = Relu (x) }")
    compact = parse("g (float[N] x) => (float[N] y, float[N] z) { y = Relu (x) z = Abs (x) }")
    assert verify(full, compact).reason == "only the compact model has an output 'z'"


@pytest.mark.parametrize(
    ("compact", "reason"),
    [
        ("g (float[N,2] x) => (double[N,2] y) { r = Relu (x) y = Cast <to = 11> (r) }", "against float64[1, 2]"),
        ("g (float[N,2] x) => (float[N,4] y) { r = Relu (x) y = Concat <axis = 1> (r, r) }", "against float32[1, 4]"),
        ("g (float[N,2] x) => (float[2,N] y) { r = Relu (x) y = Transpose <perm = [1, 0]> (r) }", "float32[2, 1]"),
    ],
)
def test_another_type_or_shape_fails(parse: Parse, compact: str, reason: str) -> None:
    found = verify(parse("g (float[N,2] x) => (float[N,2] y) { y = Relu (x) }"), parse(compact))
    assert (
        not found.passed and found.reason.startswith("output 'y' is float32[1, 2] against") and reason in found.reason
    )


def test_another_input_fails(parse: Parse) -> None:
    full = parse("g (float[N] x) => (float[N] y) { y = Relu (x) }")
    found = verify(full, parse("g (float[N] u) => (float[N] y) { y = Relu (u) }"))
    assert not found.passed and found.reason == "only one of the two models has the input 'u'"
    assert found.first_tensor is None


def test_a_compact_model_that_refuses_a_batch_fails(parse: Parse) -> None:
    full = parse("g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }")
    compact = parse(
        "g (float[N,4] x) => (float[N,4] y) <int64[2] s = {1, 4}> { r = Relu (x) y = Reshape (r, s) }",
    )
    found = verify(full, compact)
    assert not found.passed and found.reason.startswith("on made-up inputs (batch 3) the compact model fails: ")
    with pytest.raises(VerificationError):
        found.require()


def test_the_worst_output_is_named(parse: Parse) -> None:
    text = (
        "g (float[N] x) => (float[N] a, float[N] b) "
        "<float[1] w = {%s}, float[1] v = {%s}> { a = Mul (x, w) b = Mul (x, v) }"
    )
    found = verify(parse(text % (1, 1)), parse(text % (1.001, 1.1)))
    assert found.worst_output == "b" and found.first_tensor == "a"
    assert found.outputs["a"] == pytest.approx(1e-3, rel=1e-2) and found.outputs["b"] == pytest.approx(0.1, rel=1e-2)


def test_the_first_tensor_is_found_in_a_long_chain(parse: Parse) -> None:
    body = " ".join(f"t{at + 1} = Add (t{at}, {'v' if at == 120 else 'w'})" for at in range(150))
    text = f"g (float[N] t0) => (float[N] t150) <float[1] w = {{1}}, float[1] v = {{%s}}> {{ {body} }}"
    assert verify(parse(text % 1), parse(text % 2)).first_tensor == "t121"


# Wrong use


def test_inputs_that_do_not_fit(pruned: Pruned) -> None:
    (value,) = pruned.full.graph.input
    with pytest.raises(InputError, match=f"no input 'pixels'\nIts inputs are: {value.name}"):
        verify(pruned.full, pruned.compact, inputs={"pixels": np.zeros(3)})
    with pytest.raises(ModelError, match="refuses the inputs"):
        verify(pruned.full, pruned.compact, inputs={value.name: np.zeros((1, 2), np.float32)})
    with pytest.raises(InputError, match="nothing to verify on"):
        verify(pruned.full, pruned.compact, batches=())


def test_an_original_of_another_network(pruned: Pruned, parse: Parse) -> None:
    with pytest.raises(InputError, match="the original model has other inputs"):
        verify(pruned.full, pruned.compact, original=parse("g (float[N] x) => (float[N] y) { y = Relu (x) }"))


def test_a_model_that_refuses_every_input(parse: Parse) -> None:
    never = parse("g (float[N,4] x) => (float[5] y) <int64[1] s = {5}> { y = Reshape (x, s) }")
    with pytest.raises(ModelError, match="refuses the inputs"):
        verify(never, never)


def test_a_model_that_the_runtime_does_not_know() -> None:
    unknown = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "mine": 1]> g (float[N] x) => (float[N] y) { y = mine.Own (x) }'
    )
    with pytest.raises(ModelError, match=r"onnxruntime .* refuses the model"):
        verify(unknown, unknown)


def test_no_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError):
        verify(tmp_path / "bad.onnx", tmp_path / "bad.onnx")
