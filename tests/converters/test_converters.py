"""From a source to an ONNX model: schemes, the text of inputs, and PyTorch modules beside their exports."""

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_asgnas import models
from onnx_asgnas.converters import Conversion, convert, convert_with_report, parse_input, schemes
from onnx_asgnas.converters.agreement import largest_difference, run_onnx
from onnx_asgnas.errors import ConversionError, ModelError

IMAGE = "image:float32[N,3,16,16]"


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent / "sources")


@pytest.fixture(scope="module")
def exported() -> Conversion:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parent / "sources")
        return convert_with_report("torch:torch_nets:ResNet?width=4", inputs=[IMAGE])


class TestSchemes:
    def test_the_list(self) -> None:
        assert {"models", "torch"} <= set(schemes())

    def test_a_network_built_in_code(self) -> None:
        report = convert_with_report("models:stackedunets?width=2")
        assert report.model.SerializeToString() == models.build("stackedunets", width=2).SerializeToString()
        assert report.max_relative_difference is None
        assert next(iter(report.operators.items())) == ("Conv", 23)

    def test_an_onnx_file(self, tmp_path: Path) -> None:
        model = models.build("demosupnet", width=1)
        onnx.save(model, tmp_path / "net.onnx")
        assert convert(str(tmp_path / "net.onnx")).SerializeToString() == model.SerializeToString()

    def test_a_file_that_is_missing(self) -> None:
        with pytest.raises(ModelError, match=r"absent\.onnx does not exist"):
            convert("absent.onnx")

    def test_a_drive_letter_is_no_scheme(self) -> None:
        with pytest.raises(ModelError, match="does not exist"):
            convert(r"C:\absent.onnx")

    def test_an_unknown_scheme(self) -> None:
        with pytest.raises(
            ConversionError, match=r"no converter for 'caffe'\nA source is an \.onnx file or starts with"
        ):
            convert("caffe:net.prototxt")

    @pytest.mark.parametrize("source", ["models:stackedunets", "file.onnx"])
    def test_inputs_that_the_source_says_itself(self, source: str) -> None:
        with pytest.raises(ConversionError, match="Leave --input out"):
            convert(source, inputs=["x:float32[N]"])

    def test_another_package_adds_a_scheme(self, monkeypatch: pytest.MonkeyPatch) -> None:
        group = "onnx_asgnas.converters"
        points = [
            importlib.metadata.EntryPoint("copy", "onnx_asgnas.converters.networks:convert", group),
            importlib.metadata.EntryPoint("gone", "no_such_module:convert", group),
        ]
        found = importlib.metadata.EntryPoints(points)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda **wanted: found.select(**wanted))
        assert {"copy", "gone", "models"} <= set(schemes())
        assert len(convert("copy:demosupnet?width=1").graph.node) > 10
        with pytest.raises(ConversionError, match=r"for 'gone' \(no_such_module:convert\) cannot be loaded"):
            convert("gone:x")

    def test_a_package_outside_brings_one_in_one_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "toy-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text("[onnx_asgnas.converters]\ntoy = toy_converter:convert\n")
        (tmp_path / "toy_converter.py").write_text((Path(__file__).parent / "toy_converter.py").read_text())
        monkeypatch.syspath_prepend(tmp_path)
        report = convert_with_report("toy:5")
        assert report.max_relative_difference == 0
        assert report.batch_sizes == (2, 5)
        assert report.exporter == "toy"


class TestInputs:
    @pytest.mark.parametrize(
        ("text", "name", "dtype", "shape"),
        [
            ("x:float32[N,3,32,32]", "x", "float32", ("N", 3, 32, 32)),
            ("float32[N,3]", None, "float32", ("N", 3)),
            (" input.1 : int64 [ N , T ] ", "input.1", "int64", ("N", "T")),
            ("flag:bool[]", "flag", "bool", ()),
        ],
    )
    def test_text(self, text: str, name: str | None, dtype: str, shape: tuple[int | str, ...]) -> None:
        spec = parse_input(text)
        assert (spec.name, spec.dtype, spec.shape) == (name, dtype, shape)
        assert parse_input(str(spec)) == spec

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("x", "is not of the form name:type[shape]"),
            ("x:float32[N,3", "is not of the form name:type[shape]"),
            ("x:float33[N]", "has the type 'float33'"),
            ("x:float32[N,-1]", "dimension '-1' of input"),
            ("x:float32[N,0]", "dimension '0' of input"),
            ("x:float32[N,,3]", "dimension '' of input"),
            ("x:float32[N,T=0]", "dimension 'T=0' of input"),
        ],
    )
    def test_broken_text(self, text: str, message: str) -> None:
        with pytest.raises(ConversionError) as caught:
            parse_input(text)
        assert message in str(caught.value)

    @given(st.text(max_size=30))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            spec = parse_input(text)
        except ConversionError:
            return
        assert parse_input(str(spec)).shape == spec.shape

    def test_sizes_at_which_open_dimensions_are_traced(self) -> None:
        spec = parse_input("x:float32[N,T=16,D]")
        assert spec.sample_sizes() == {"N": 2, "T": 16, "D": 8}
        assert spec.random(spec.sample_sizes(), np.random.default_rng(0)).shape == (2, 16, 8)

    @pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
    def test_random_integers_are_valid_as_any_index(self, dtype: str) -> None:
        values = parse_input(f"x:{dtype}[100]").random({}, np.random.default_rng(0))
        assert values.dtype == dtype
        assert set(values.tolist()) == {0, 1}


class TestPyTorch:
    def test_the_export_gives_what_the_module_gives(self, exported: Conversion) -> None:
        assert exported.max_relative_difference is not None
        assert exported.max_relative_difference <= 1e-5
        assert exported.batch_sizes == (2, 5)

    def test_batch_normalisation_is_kept(self, exported: Conversion) -> None:
        assert exported.operators["BatchNormalization"] == 4
        assert exported.operators["Conv"] == 5
        assert exported.operators["Concat"] >= 1
        assert "Dropout" not in exported.operators

    def test_parameters_keep_their_names_and_values(self, exported: Conversion) -> None:
        import torch_nets

        state = torch_nets.ResNet(width=4).state_dict()
        weights = {t.name: onnx.numpy_helper.to_array(t) for t in exported.model.graph.initializer}
        for name, value in state.items():
            if not name.endswith("num_batches_tracked"):
                np.testing.assert_array_equal(weights[name], value.numpy())

    def test_no_bias_is_invented(self, exported: Conversion) -> None:
        biases = {n.input[1]: n.input[2:] for n in exported.model.graph.node if n.op_type == "Conv"}
        assert {weight: list(rest) for weight, rest in biases.items() if rest} == {
            "stem.weight": ["stem.bias"],
            "side.weight": ["side.bias"],
        }

    def test_names_and_the_open_batch(self, exported: Conversion) -> None:
        (given,), (result,) = exported.model.graph.input, exported.model.graph.output
        assert given.name == "image"
        assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["N", 3, 16, 16]
        assert [d.dim_param or d.dim_value for d in result.type.tensor_type.shape.dim] == ["N", 10]

    def test_what_the_training_runtime_loads(self, exported: Conversion) -> None:
        assert exported.model.opset_import[0].version <= 21
        assert exported.model.ir_version <= 10

    def test_nothing_of_the_machine_is_left_in_the_file(self, exported: Conversion) -> None:
        text = re.sub(r"raw_data: .*", "", str(exported.model))
        assert "metadata_props" not in text
        assert "doc_string" not in text
        assert "torch_nets" not in text
        assert ".py" not in text

    def test_an_input_may_be_renamed(self) -> None:
        model = convert("torch:torch_nets:linear", inputs=["features:float32[N,3]"])
        assert [v.name for v in model.graph.input] == ["features"]

    def test_an_input_without_a_name_gets_that_of_forward(self) -> None:
        report = convert_with_report("torch:torch_nets:linear", inputs=["float32[3]"])
        assert [v.name for v in report.model.graph.input] == ["input"]
        assert report.batch_sizes == (3,)

    def test_inputs_by_name_skip_optional_ones(self) -> None:
        report = convert_with_report("torch:torch_nets:TwoInputs", inputs=["mask:float32[N,T=7]", "ids:int64[N,T]"])
        found = {v.name: [d.dim_param for d in v.type.tensor_type.shape.dim] for v in report.model.graph.input}
        assert found == {"ids": ["N", "T"], "mask": ["N", "T"]}
        assert len(report.model.graph.output) == 2
        floats = [t for t in report.model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        assert Counter(tuple(t.dims) for t in floats)[5, 6] == 1, "a tied weight is one initializer"

    @pytest.mark.parametrize(
        ("source", "inputs", "message"),
        [
            ("torch_nets:ResNet", [], 'Add --input "x:float32[N,3,32,32]"'),
            ("torch_nets", [IMAGE], "'torch_nets' does not name an object"),
            ("absent_module:f", [IMAGE], "there is no module 'absent_module'"),
            ("torch_nets:Absent", [IMAGE], "module 'torch_nets' has no 'Absent'"),
            ("torch_nets:number", [IMAGE], "is of type int, not a function that gives a torch.nn.Module"),
            ("torch_nets:linear?a=1", [IMAGE], "is of type Linear, not a function that gives a torch.nn.Module"),
            ("torch_nets:no_module", [IMAGE], "gives an object of type int, not a torch.nn.Module"),
            ("torch_nets:broken", [IMAGE], "torch:torch_nets:broken fails: RuntimeError: no such weights"),
            ("torch_nets:ResNet?depth=3", [IMAGE], "has no argument 'depth'\nIt takes: width=4, seed=0."),
            ("torch_nets:ResNet?width=a", [IMAGE], "argument width='a' of torch:torch_nets:ResNet is not of type int"),
            (
                "torch_nets:ResNet",
                ["image:float32[N,4,16,16]"],
                "the module cannot run on [2, 4, 16, 16] torch.float32",
            ),
            ("torch_nets:FixedBatch", ["x:float32[N,3]"], "if that is fixed, write the number in --input"),
            ("torch_nets:Branching", ["x:float32[N,3]"], "torch cannot export this network"),
            ("torch_nets:Noisy", ["x:float32[N,3]"], "differs from its source by"),
        ],
    )
    def test_what_cannot_be_converted_is_said(self, source: str, inputs: list[str], message: str) -> None:
        with pytest.raises(ConversionError) as caught:
            convert(f"torch:{source}", inputs=inputs)
        assert message in str(caught.value)

    def test_the_exporter_is_quiet(self, capfd: pytest.CaptureFixture[str]) -> None:
        convert("torch:torch_nets:linear", inputs=["float32[N,3]"])
        assert capfd.readouterr() == ("", "")


class TestAgreement:
    def difference(self, want: list[float], have: list[float]) -> float:
        return largest_difference([np.array(want)], [np.array(have)], ["y"])

    def test_it_is_relative_to_the_largest_value(self) -> None:
        assert self.difference([100.0, 0.0], [100.0, 0.005]) == pytest.approx(5e-5)
        assert self.difference([], []) == 0
        assert self.difference([0.0], [0.0]) == 0
        assert self.difference([np.inf, 1.0], [np.inf, 1.0]) == 0

    @pytest.mark.parametrize(
        ("want", "have"), [([1.0], [1.1]), ([1.0], [np.nan]), ([np.nan, 1.0], [1.0, 1.0]), ([np.inf], [-np.inf])]
    )
    def test_what_differs_is_refused(self, want: list[float], have: list[float]) -> None:
        with pytest.raises(ConversionError, match="output 'y' differs from its source by"):
            self.difference(want, have)

    def test_another_shape_or_number_of_outputs_is_refused(self) -> None:
        with pytest.raises(ConversionError, match=r"has the shape \[1\], its source gives \[2\]"):
            self.difference([1.0, 2.0], [1.0])
        with pytest.raises(ConversionError, match="the export has 0 outputs, its source has 1"):
            largest_difference([np.zeros(1)], [], ["y"])

    def test_a_model_that_the_runtime_refuses(self) -> None:
        model = models.build("demosupnet", width=1)
        with pytest.raises(ConversionError, match="onnxruntime cannot run the exported model"):
            run_onnx(model, {"input": np.zeros((1, 1, 5, 5), np.float32)})
