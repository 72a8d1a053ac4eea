"""What is the same for every exporter: names of parameters, batch normalisations put back, old operator sets, logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_asgnas.converters import convert_with_report
from onnx_asgnas.converters.agreement import run_onnx
from onnx_asgnas.converters.batchnorm import unfold
from onnx_asgnas.converters.export import Export, Sample
from onnx_asgnas.converters.failing import exporter_failed, logged
from onnx_asgnas.converters.finishing import checked
from onnx_asgnas.converters.inputs import arrange, parse_input
from onnx_asgnas.converters.naming import name_parameters
from onnx_asgnas.errors import ConversionError

CONV = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,2,5,5] x) => (float[N,3,3,3] y) {
  h = Conv(x, kernel, shift)
  y = Relu(h)
}
"""


def conv() -> onnx.ModelProto:
    model: onnx.ModelProto = onnx.parser.parse_model(CONV)
    random = np.random.default_rng(0)
    kernel, shift = random.standard_normal((3, 2, 3, 3)), random.standard_normal(3)
    for name, value in (("kernel", kernel), ("shift", shift)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    return model


class TestUnfold:
    def test_it_changes_no_bit(self) -> None:
        model, changed = conv(), conv()
        assert unfold(changed) == 1
        assert [node.op_type for node in changed.graph.node] == ["Conv", "BatchNormalization", "Relu"]
        onnx.checker.check_model(changed, full_check=True)
        feeds = {"x": np.random.default_rng(1).standard_normal((4, 2, 5, 5)).astype(np.float32)}
        np.testing.assert_array_equal(run_onnx(model, feeds)[0], run_onnx(changed, feeds)[0])

    def test_it_is_done_once(self) -> None:
        model = conv()
        unfold(model)
        assert unfold(model) == 0

    def test_a_convolution_without_bias_has_lost_nothing(self) -> None:
        model = conv()
        del model.graph.node[0].input[2]
        assert unfold(model) == 0

    def test_of_a_file(self, tmp_path: Path) -> None:
        onnx.save(conv(), tmp_path / "net.onnx")
        found = convert_with_report(str(tmp_path / "net.onnx"), unfold_bn=True)
        assert found.unfolded == found.operators["BatchNormalization"] == 1


class TestNames:
    def test_the_values_tell_whatever_the_order_of_axes(self) -> None:
        model = conv()
        arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        source = {"stem.weight": arrays["kernel"].transpose(2, 3, 1, 0), "stem.bias": arrays["shift"]}
        names = name_parameters(model, source)
        assert names.renamed == {"kernel": "stem.weight", "shift": "stem.bias"}
        assert list(model.graph.node[0].input) == ["x", "stem.weight", "stem.bias"]
        assert not names.lost

    def test_equal_values_are_told_apart_by_the_layer(self) -> None:
        model = conv()
        model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "shift"))
        kernel = onnx.numpy_helper.to_array(model.graph.initializer[0])
        zeros = np.zeros(3, np.float32)
        names = name_parameters(model, {"a.bias": zeros, "b.weight": kernel, "b.bias": zeros})
        assert names.renamed["shift"] == "b.bias"
        assert names.lost == ("a.bias",)

    def test_a_kernel_with_a_normalisation_folded_in_is_known(self) -> None:
        random = np.random.default_rng(0)
        model = conv()
        kernel = onnx.numpy_helper.to_array(model.graph.initializer[0])
        folded = (kernel * random.normal(size=(3, 1, 1, 1))).astype(np.float32)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(folded, "kernel"))
        source = {"stem.kernel": kernel.transpose(2, 3, 1, 0), "other.kernel": random.permutation(kernel.ravel())}
        names = name_parameters(model, {**source, "other.kernel": source["other.kernel"].reshape(kernel.shape)})
        assert names.renamed == {"kernel": "stem.kernel"} and names.scaled == ("stem.kernel",)
        assert names.lost == ("other.kernel",)

    def test_what_has_its_name_keeps_it(self) -> None:
        model = conv()
        kernel = onnx.numpy_helper.to_array(model.graph.initializer[0])
        assert name_parameters(model, {"kernel": kernel}).kept == ("kernel",)


class TestFiles:
    def test_an_old_operator_set_is_raised(self, tmp_path: Path) -> None:
        text = '<ir_version: 4, opset_import: ["" : 9]> g (float[N,4] x) => (float[N,4] y) { y = Softmax<axis=1>(x) }'
        onnx.save(onnx.parser.parse_model(text), tmp_path / "old.onnx")
        found = convert_with_report(str(tmp_path / "old.onnx"))
        assert found.model.opset_import[0].version == 20
        assert found.notes == ("operator set 9 was raised to 20; the outputs are the same",)


class TestExport:
    def test_it_survives_a_folder(self, tmp_path: Path) -> None:
        x = np.ones((2, 3), np.float32)
        export = Export(
            model=conv(),
            exporter="none",
            samples=(Sample(feeds={"x": x}, outputs=(2 * x, x), batch=2),),
            parameters={"a/b": x},
            normalisations=3,
            notes=("a note",),
        )
        export.write(tmp_path)
        found = Export.read(tmp_path)
        assert (found.exporter, found.normalisations, found.notes) == ("none", 3, ("a note",))
        np.testing.assert_array_equal(found.samples[0].outputs[0], 2 * x)
        np.testing.assert_array_equal(found.parameters["a/b"], x)


class TestArrange:
    def test_dicts_and_tuples(self) -> None:
        specs = [parse_input(f"{name}:float32[N]") for name in ("batch.image", "pair.0", "batch.mask", "pair.1")]
        assert arrange(specs, [1, 2, 3, 4]) == ([], {"batch": {"image": 1, "mask": 3}, "pair": (2, 4)})

    def test_names_that_exclude_each_other(self) -> None:
        for names in (("a", "a.b"), ("a.b", "a"), ("a", "a")):
            with pytest.raises(ConversionError, match="is there twice, or inside of another input"):
                arrange([parse_input(f"{name}:float32[N]") for name in names], [1, 2])


class TestFailing:
    def test_the_innermost_reason_with_operator_and_layer(self) -> None:
        try:
            try:
                raise ValueError("No decomposition for aten::fancy_op\nmore")
            except ValueError as inner:
                raise RuntimeError("advice, nn_module_stack: L['self']._modules['block']._modules['conv']") from inner
        except RuntimeError as outer:
            error = exporter_failed("torch", outer)
        assert error.message == (
            "torch cannot export this network: ValueError: No decomposition for aten::fancy_op (in block.conv)"
        )
        assert (error.op_type, error.layer) == ("aten::fancy_op", "block.conv")

    def test_the_rest_goes_to_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        log = tmp_path / "sub" / "log.txt"
        with pytest.raises(ConversionError, match="The full log: "), logged(log):
            print("what the exporter said")
            raise exporter_failed("x", ValueError("why")) from ValueError("why")
        assert "what the exporter said" in log.read_text()
        assert "Traceback" in log.read_text()
        assert capsys.readouterr().out == ""


def test_shapes_that_contradict_the_graph_are_inferred_anew() -> None:
    model = conv()
    stale = onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ["N", 3, 3, 9])
    model.graph.value_info.append(stale)
    (found,) = checked(model, "an exporter").graph.value_info
    assert [d.dim_value for d in found.type.tensor_type.shape.dim[1:]] == [3, 3, 3]
    assert list(model.graph.value_info) == [stale]
