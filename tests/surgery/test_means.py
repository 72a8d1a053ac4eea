"""A mean over channels: zeros add nothing to it, so channels may leave when it is scaled to its full length."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_asgnas.config import Target
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.pruning import cut
from onnx_asgnas.space import analyze
from onnx_asgnas.surgery import construct

RMS_NORM = """
<ir_version: 8, opset_import: ["": 17]>
net (float[N, 6] x) => (float[N, 3] y)
<float eps = {0.00001}, float two = {2}>
{
    hidden = MatMul(x, first)
    stream = Add(hidden, b)
    squares = Pow(stream, two)
    mean = ReduceMean <axes = [-1], keepdims = 1> (squares)
    shifted = Add(mean, eps)
    root = Sqrt(shifted)
    normed = Div(stream, root)
    scaled = Mul(normed, scale)
    y = MatMul(scaled, last)
}
"""


def network(text: str = RMS_NORM) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in {"first": (6, 8), "b": (8,), "scale": (8,), "last": (8, 3)}.items():
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    return model


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_the_width_of_a_stream_under_an_rms_norm_may_leave(fraction: float) -> None:
    result = cut(network(), Target(uniform=fraction), criterion="random", seed=1)
    assert result.space.channel_groups.free == 8
    verification = result.verify().require()
    assert verification.moved is not None and verification.moved > 1e-3
    kept = {tensor.name: tuple(tensor.dims) for tensor in result.compact.graph.initializer}
    width = round(8 * (1 - fraction))
    assert kept["first"] == (6, width) and kept["last"] == (width, 3)
    (share,) = (numpy_helper.to_array(t) for t in result.compact.graph.initializer if t.name.endswith(".share"))
    assert share == np.float32(width / 8)


def test_a_compact_mean_is_cut_again_and_construct_leaves_it_alone() -> None:
    once = cut(network(), Target(uniform=0.5), criterion="random", seed=1).compact
    graph = TraceGraph.of(once)
    assert construct(graph).SerializeToString() == graph.model.SerializeToString()
    twice = cut(once, Target(uniform=0.5), criterion="random", seed=2)
    twice.verify().require()
    shares = sorted(float(numpy_helper.to_array(t)) for t in twice.compact.graph.initializer if ".share" in t.name)
    assert shares == [0.5, 0.5]


def test_a_mean_of_what_is_not_zero_keeps_its_channels() -> None:
    space = analyze(network(RMS_NORM.replace("squares = Pow(stream, two)", "squares = Exp(stream)")), mode="prune")
    assert space.channel_groups.free == 0
    assert any("not zero" in frozen.reason for frozen in space.frozen)
