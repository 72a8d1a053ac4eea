"""The networks built in code: topology by name, sizes, determinism, and errors."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from onnx_asgnas import models
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.models.builder import Activation, NetworkBuilder

# The paths of the published figure, each from where it starts to where it ends.
STACKED_UNETS = """
    input conv0 bn1 relu2 conv3 pool4 conv5 relu6 conv7 relu8 bn9
    bn9 pool10 conv11 conv12 pool13 conv14 conv15 resize19 add20
    conv12 add20 resize24 add25
    bn9 add25 conv26 conv27 bn28 relu29 resize33 add34
    conv3 add34 relu35 conv36 relu37 bn38 add76
    input conv39 bn40 relu41 conv42 conv43 relu44 conv45 relu46 bn47 conv48 conv49 conv50 conv51 conv52 resize56 add57
    conv49 add57 resize61 add62
    relu44 add62 conv63 conv64 bn65 relu66 resize70 add71
    relu41 add71 relu72 conv73 relu74 bn75 add76
    add76 global_pool77 flatten78 linear79
"""
DEMO_SUP_NET = """
    input conv1 bn1 relu1 conv2 bn2 concat6 conv6 bn6 relu6 conv7 bn7 relu7 conv8 bn8 add8
    relu1 maxpool3 conv3 bn3 concat6
    relu1 avgpool4 conv4 bn4 relu4 conv5 bn5 add5 concat6
    avgpool4 add5
    relu7 add8 relu8 conv9 bn9 add10
    relu8 conv10 bn10 add10 relu10 global_pool flatten linear
"""
OPERATORS = {
    "conv": "Conv",
    "bn": "BatchNormalization",
    "relu": "Relu",
    "pool": "MaxPool",
    "maxpool": "MaxPool",
    "avgpool": "AveragePool",
    "resize": "Resize",
    "add": "Add",
    "concat": "Concat",
    "global_pool": "GlobalAveragePool",
    "flatten": "Flatten",
    "linear": "Gemm",
}


SHALLOW = {"darts": {"cells": 3}, "superresnet": {"depth": 10}, "regnetx": {"depth": 4}, "regnety": {"depth": 4}}
"""Arguments that make the deep networks quick to build."""


def small(name: str, **arguments: int) -> onnx.ModelProto:
    return models.build(name, **(SHALLOW.get(name, {}) | arguments))


def edges(model: onnx.ModelProto) -> set[tuple[str, str]]:
    """The activations that each node reads."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {(name, node.name) for node in model.graph.node for name in node.input if name and name not in weights}


def shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    """The shape of every activation, from the value infos in the model."""
    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def cost(model: onnx.ModelProto) -> tuple[int, int]:
    """Trainable parameters and multiply-accumulates of one sample, by an independent count."""
    weights, known = {t.name: t for t in model.graph.initializer}, shapes(model)
    untrained = ("running_mean", "running_var", "scales", "starts", "ends", "axes", "factor")
    parameters = sum(int(np.prod(t.dims)) for n, t in weights.items() if not n.endswith(untrained))
    macs = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            pixels = [d for d in known[node.output[0]][2:] if isinstance(d, int)]
            macs += int(np.prod(weights[node.input[1]].dims)) * int(np.prod(pixels))
    return parameters, macs


def run(model: onnx.ModelProto, batch: int) -> np.ndarray:
    channels, height, width = (d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])
    data = np.random.default_rng(0).standard_normal((batch, channels, height, width)).astype(np.float32)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, {"input": data})[0]
    return output


def test_the_registry_names_its_networks() -> None:
    assert models.names() == ("darts", "demosupnet", "regnetx", "regnety", "stackedunets", "superresnet")


@pytest.mark.parametrize(("name", "drawing"), [("stackedunets", STACKED_UNETS), ("demosupnet", DEMO_SUP_NET)])
def test_topology(name: str, drawing: str) -> None:
    drawn = {pair for path in drawing.split("\n") for pair in itertools.pairwise(path.split())}
    model = models.build(name, width=2)
    assert edges(model) == drawn
    for node in model.graph.node:
        assert node.op_type == OPERATORS[node.name.rstrip("0123456789")]
        assert list(node.output) == [node.name]


@pytest.mark.parametrize("name", models.names())
def test_every_network_is_valid_and_keeps_its_batch_open(name: str) -> None:
    model = small(name, width=3)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 17
    assert model.ir_version == 8
    assert all(shape[0] == "N" for shape in shapes(model).values())
    assert run(model, 1).shape == (1, 10)
    assert run(model, 3).shape == (3, 10)


@pytest.mark.parametrize("name", models.names())
def test_the_same_arguments_give_the_same_bytes(name: str) -> None:
    model = small(name, width=2, seed=1)
    assert model.SerializeToString() == small(name, width=2, seed=1).SerializeToString()
    other = small(name, width=2, seed=2)
    assert [t.name for t in other.graph.initializer] == [t.name for t in model.graph.initializer]
    assert other.SerializeToString() != model.SerializeToString()


@pytest.mark.parametrize("name", models.names())
def test_a_model_says_how_to_build_it_again(name: str) -> None:
    model = small(name, width=2, classes=7)
    (source,) = [p.value for p in model.metadata_props if p.key == "onnx_asgnas.source"]
    assert source.startswith(f"models:{name}?") and "width=2&classes=7" in source
    assert models.parse(source.removeprefix("models:")).SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize(
    ("source", "parameters", "macs"),
    [
        ("stackedunets?width=8", 12_610, 2_558_096),
        ("stackedunets", 49_402, 10_006_432),
        ("stackedunets?width=64&in_channels=3&size=32", 780_490, 207_028_864),
        ("demosupnet?width=8", 8_434, 984_864),
        ("demosupnet", 32_858, 3_826_240),
    ],
)
def test_cost(source: str, parameters: int, macs: int) -> None:
    assert cost(models.parse(source)) == (parameters, macs)


def test_sizes_of_the_stacked_unets() -> None:
    found = shapes(models.build("stackedunets", width=2))
    for level, size in {"conv3": 28, "bn9": 14, "conv12": 7, "conv15": 4, "resize19": 7, "resize33": 28}.items():
        assert found[level] == ["N", 2, size, size]
    for level, size in {"relu41": 28, "conv42": 14, "conv49": 7, "conv50": 4, "resize56": 7, "resize70": 28}.items():
        assert found[level] == ["N", 2, size, size]


def test_resizes_repeat_whole_pixels_where_sizes_allow() -> None:
    model = models.build("stackedunets", width=2, size=32)
    scales = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith(".scales")]
    assert len(scales) == 6
    assert all(np.array_equal(s, [1, 1, 2, 2]) for s in scales)


@pytest.mark.parametrize("name", ["stackedunets", "demosupnet"])
@given(size=st.integers(1, 70), channels=st.integers(1, 3))
def test_every_size_fits(name: str, size: int, channels: int) -> None:
    model = models.build(name, width=1, size=size, in_channels=channels)  # shape inference is strict and checked
    assert run(model, 2).shape == (2, 10)


@pytest.mark.parametrize("name", ["regnetx", "regnety", "superresnet"])
@settings(max_examples=25)
@given(size=st.integers(1, 70), channels=st.integers(1, 3))
def test_every_size_fits_systems(name: str, size: int, channels: int) -> None:
    assert run(small(name, width=1, size=size, in_channels=channels), 2).shape == (2, 10)


@settings(max_examples=10)  # it has many more nodes than the others
@given(size=st.integers(1, 70), stem_stride=st.sampled_from([0, 1, 2, 4, 8]))
def test_every_size_fits_darts(size: int, stem_stride: int) -> None:
    model = models.build("darts", width=1, cells=2, size=size, stem_stride=stem_stride)
    assert run(model, 2).shape == (2, 10)


def test_weights_are_he_normal() -> None:
    weights = {t.name: numpy_helper.to_array(t) for t in models.build("stackedunets", width=64).graph.initializer}
    fan_in = 64 * 9
    assert np.std(weights["conv5.weight"]) == pytest.approx(np.sqrt(2 / fan_in), rel=0.02)  # a ReLU follows
    assert np.std(weights["conv11.weight"]) == pytest.approx(np.sqrt(1 / fan_in), rel=0.02)  # a convolution follows
    assert np.std(weights["linear79.weight"]) == pytest.approx(np.sqrt(1 / 64), rel=0.1)


def test_normalisations_start_as_the_identity_and_replace_a_bias() -> None:
    model = models.build("stackedunets", width=4)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            roles = ("weight", "bias", "running_mean", "running_var")
            assert list(node.input[1:]) == [f"{node.name}.{role}" for role in roles]
            assert [float(weights[name].mean()) for name in node.input[1:]] == [1, 0, 0, 1]
            assert "training_mode" not in {a.name for a in node.attribute}
    assert "conv0.bias" not in weights
    assert not weights["conv3.bias"].any()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nope", "there is no network 'nope'\nChoose one of: darts, demosupnet, regnetx"),
        ("stackedunets?widht=3", "models:stackedunets has no argument 'widht'\nIt takes: width=16, in_channels=1"),
        ("stackedunets?width=wide", "argument width='wide' of models:stackedunets is not of type int"),
        ("stackedunets?width=1.5", "argument width=1.5 of models:stackedunets is not of type int"),
        ("stackedunets?width=0", "width is 0\nGive at least 1."),
        ("demosupnet?size=0", "size is 0\nGive at least 1."),
        ("demosupnet?classes=1", "classes is 1\nGive at least 2."),
        ("demosupnet?seed=-1", "seed is -1\nGive at least 0."),
        ("demosupnet?width", "'width' in 'demosupnet?width' is not an argument"),
    ],
)
def test_wrong_sources_are_refused(source: str, message: str) -> None:
    with pytest.raises(ConversionError) as caught:
        models.parse(source)
    assert message in str(caught.value)


def test_a_name_is_registered_once() -> None:
    from onnx_asgnas.models.registry import register

    with pytest.raises(ValueError, match="two networks are called 'stackedunets'"):
        register("stackedunets")(lambda: onnx.ModelProto())


@pytest.mark.parametrize("names", ["conv1-what2", "resize3"])
def test_a_chain_of_unknown_operators_is_a_mistake(names: str) -> None:
    net = NetworkBuilder("net", in_channels=1, size=8, seed=0)
    with pytest.raises(ValueError, match="is no operator of this builder"):
        net.chain(Activation("input", 1, 8), names)
