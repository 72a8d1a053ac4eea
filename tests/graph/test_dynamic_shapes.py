"""What stays open stays open: real exports with an open batch and an open length, and targets as constant as can be."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from onnx_asgnas.graph import TraceGraph, normalise
from onnx_asgnas.graph.runtime import run, session
from tests.graph.test_normalise import operators, parse, same_numbers, weights


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and a causal mask, in the manner of Llama."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.shared, self.width = 4, 2, 6
        self.embed = nn.Embedding(50, 12)
        self.q, self.o = nn.Linear(12, 24), nn.Linear(24, 12)
        self.k, self.v = nn.Linear(12, 12), nn.Linear(12, 12)

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], heads, self.width).transpose(1, 2)

    def rotate(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[2])[:, None] / 10.0 ** torch.arange(3)
        cos, sin = (torch.cat([f(places)] * 2, -1)[None, None] for f in (torch.cos, torch.sin))
        one, two = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return x * cos + torch.cat([-two, one], -1) * sin

    def repeat(self, x: Tensor) -> Tensor:
        batch, heads, length, width = x.shape
        wide = x[:, :, None].expand(batch, heads, self.heads // self.shared, length, width)
        return wide.reshape(batch, self.heads, length, width)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = (
            self.rotate(self.split(self.q(x), self.heads)),
            self.repeat(self.rotate(self.split(self.k(x), self.shared))),
            self.repeat(self.split(self.v(x), self.shared)),
        )
        length = ids.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool).tril()[None, None] & mask[:, None, None].bool()
        scores = q @ k.transpose(2, 3) / self.width**0.5 + torch.where(allowed, 0.0, -1e9)[:, :, :length, :length]
        y = F.softmax(scores, -1) @ v
        return x + self.o(y.transpose(1, 2).reshape(x.shape[0], length, -1))


class Merged(nn.Module):
    """Batch and length merged into one axis and taken apart again, in the manner of GPT-2 and of attention by bmm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.weight, self.bias = nn.Parameter(torch.randn(12, 36)), nn.Parameter(torch.randn(36))
        self.project = nn.Linear(12, 5)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(ids)
        shape = (*x.shape[:-1], 36)
        q, k, v = torch.addmm(self.bias, x.view(-1, 12), self.weight).view(shape).split(12, 2)
        batch, length = ids.shape
        q, k, v = (t.reshape(batch, length, 3, 4).transpose(1, 2).reshape(batch * 3, length, 4) for t in (q, k, v))
        scores = (
            torch.bmm(q, k.transpose(1, 2)).view(batch, 3, length, length) + (1.0 - mask[:, None, None].float()) * -1e4
        )
        y = torch.bmm(F.softmax(scores, -1).view(batch * 3, length, length), v).view(batch, 3, length, 4)
        return self.project(x + y.permute(0, 2, 1, 3).contiguous().view(batch, length, 12))


class Windows(nn.Module):
    """Attention within shifted windows of an image of an open size, in the manner of Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.norm, self.qkv, self.head = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch(image).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        x = torch.roll(self.norm(x), (-1, -1), (1, 2))
        w = x.view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)
        q, k, v = self.qkv(w).reshape(-1, 4, 3, 2, channels // 2).permute(2, 0, 3, 1, 4)
        y = (F.softmax(q @ k.transpose(-2, -1), -1) @ v).transpose(1, 2).reshape(-1, 4, channels)
        y = y.view(batch, height // 2, width // 2, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        return self.head(torch.roll(y.reshape(batch, height, width, channels), (1, 1), (1, 2)).mean((1, 2)))


def export(
    network: nn.Module, example: tuple[Tensor, ...], names: list[str], axes: dict[int, str], exporter: str
) -> onnx.ModelProto:
    """The network with these axes of every input open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn of their own deprecated parts
        if exporter == "dynamo":
            dims = {axis: torch.export.Dim.DYNAMIC for axis in axes}
            program = torch.onnx.export(
                network, example, dynamo=True, optimize=False, dynamic_shapes=(dims,) * len(example), verbose=False
            )
            assert program is not None
            return program.model_proto
        file = io.BytesIO()
        torch.onnx.export(
            network,
            example,
            file,
            dynamo=False,
            opset_version=17,
            input_names=names,
            dynamic_axes=dict.fromkeys(names, axes),
            do_constant_folding=False,
        )
        return onnx.load_from_string(file.getvalue())


def text(batch: int, length: int) -> list[np.ndarray]:
    random = np.random.default_rng(length)
    mask = np.ones((batch, length), np.int64)
    mask[-1, : length // 2] = batch == 1 or length < 2
    mask[:, -1] = 1
    return [random.integers(0, 50, (batch, length)), mask]


def image(batch: int, size: int) -> list[np.ndarray]:
    return [np.random.default_rng(size).normal(size=(batch, 3, 8 * size, 16)).astype(np.float32)]


def open_targets(model: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    constants = {t.name for t in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == op_type and node.input[1] not in constants]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int, int], list[np.ndarray]], dict[int, str]]] = {
    "attention": (Attention, text, {0: "batch", 1: "length"}),
    "merged": (Merged, text, {0: "batch", 1: "length"}),
    "windows": (Windows, image, {0: "batch", 2: "height"}),
}


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", CASES)
def test_exports_with_open_axes_keep_their_numbers_at_every_size(name: str, exporter: str) -> None:
    build, inputs_of, axes = CASES[name]
    torch.manual_seed(0)
    example = tuple(torch.from_numpy(array) for array in inputs_of(2, 7))
    names = [f"i{at}" for at in range(len(example))]
    source = export(build().eval(), example, names, axes, exporter)
    result = normalise(source)
    onnx.checker.check_model(result, full_check=True)
    assert normalise(result).SerializeToString() == result.SerializeToString()
    before, after = session(source), session(result)
    given = [value.name for value in source.graph.input]
    for batch, length in ((1, 1), (1, 7), (2, 3), (3, 1), (5, 12)):
        feeds = dict(zip(given, inputs_of(batch, length), strict=True))
        expected, got = run(before, feeds), run(after, feeds)
        assert all(np.array_equal(expected[key], got[key]) for key in expected)
    (expand, reshape) = (open_targets(result, op_type) for op_type in ("Expand", "Reshape"))
    if name == "attention":  # only the mask may keep computed ones
        assert all(len(TraceGraph(result).shape(node.output[0]) or ()) < 5 for node in expand)
    graph = TraceGraph(result)
    for node in reshape:  # whatever is left has its constant lengths apart
        concat = graph.nodes[graph.producer[node.input[1]]]
        fixed = [n for n in graph.shape(node.output[0]) or () if n is not None and n > 1]
        assert concat.op_type == "Concat" or not fixed
        apart = [int(v) for piece in concat.input if piece in graph.initializers for v in graph.array(piece)]
        assert concat.op_type != "Concat" or all(n in apart or -1 in apart for n in fixed)


def test_an_expand_keeps_the_lengths_that_its_input_has() -> None:
    model = parse(
        """agraph (float[N, 2, 1, S, 3] x) => (float[N, 2, 4, S, 3] y)
        <int64[1] i0 = {0}, int64[1] i3 = {3}, int64[1] two = {2}, int64[1] four = {4}, int64[1] three = {3}> {
            s = Shape (x)  n = Gather (s, i0)  l = Gather (s, i3)
            t = Concat <axis = 0> (n, two, four, l, three)  y = Expand (x, t) }"""
    )
    result = same_numbers(model)
    assert operators(result) == ["Expand"]
    (target,) = weights(result).values()
    assert target.tolist() == [1, 2, 4, 1, 3]


def test_an_expand_to_another_length_stays_computed() -> None:
    model = parse(
        """agraph (float[1, 4] x, float[N, 3] z) => (float[N, 4] y) <int64[1] i0 = {0}, int64[1] four = {4}> {
            s = Shape (z)  n = Gather (s, i0)  t = Concat <axis = 0> (n, four)  y = Expand (x, t) }"""
    )
    assert "Shape" in operators(same_numbers(model))


def test_constant_lengths_in_a_computed_target_stand_apart() -> None:
    model = parse(
        """agraph (float[N, S, 6] x) => (float[a, b, c] y)
        <int64[3] turn = {1, 0, 2}, int64[1] i0 = {0}, int64[1] i2 = {2}> {
            s = Shape (x)  t = Gather (s, turn)  y = Reshape (x, t) }"""
    )
    result = same_numbers(model)
    assert operators(result) == ["Shape", "Gather", "Gather", "Concat", "Reshape"]
    graph = TraceGraph(result)
    (concat,) = (node for node in graph.nodes if node.op_type == "Concat")
    assert graph.array(concat.input[1]).tolist() == [6]


def test_a_slice_to_the_end_of_an_open_axis_needs_no_arithmetic() -> None:
    text = """agraph (float[N, S, 6] x, float[N, T] z) => (float[N, a, 6] y)
        <int64[1] i1 = {{1}}, int64[1] one = {{1}}> {{
            s = Shape ({source})  e = Gather (s, i1)  y = Slice (x, one, e, i1) }}"""
    result = same_numbers(parse(text.format(source="x")))
    assert operators(result) == ["Slice"]
    assert "Shape" in operators(normalise(parse(text.format(source="z"))))


def test_a_slice_that_ends_elsewhere_stays_computed() -> None:
    model = parse(
        """agraph (float[N, S, 6] x) => (float[N, a, 6] y) <int64[1] i1 = {1}, int64[1] one = {1}, int64[1] two = {2}> {
            s = Shape (x)  l = Gather (s, i1)  e = Div (l, two)  y = Slice (x, one, e, i1) }"""
    )
    assert "Div" in operators(same_numbers(model))


STRIDES = """
agraph (float[N,1,L] x) => (float[N,M,8] y)
<int64[1] eight = {8}, int64[2] split = {2, 4}>
{
  z = Conv<strides = [320]>(x, w)
  t = Transpose<perm = [0, 2, 1]>(z)
  s = Shape<start = 0, end = 2>(t)
  target = Concat<axis = 0>(s, split)
  heads = Reshape<allowzero = 1>(t, target)
  rows = Transpose<perm = [0, 1, 3, 2]>(heads)
  again = Concat<axis = 0>(s, eight)
  y = Reshape(rows, again)
}
"""


def test_windows_of_speech_are_longer_than_the_usual_lengths() -> None:
    random = np.random.default_rng(0)
    model = parse(STRIDES)
    model.graph.initializer.append(numpy_helper.from_array(random.standard_normal((8, 1, 400), np.float32), "w"))
    graph = TraceGraph.of(model)
    assert graph.open_length > 64
    assert graph.shape("heads") == (None, None, 2, 4)
    assert graph.shape("rows") == (None, None, 4, 2)
    for batch, length in ((1, 400), (2, 1100)):
        x = random.standard_normal((batch, 1, length), np.float32)
        (expected,), (found,) = run(session(model), {"x": x}).values(), run(session(graph.model), {"x": x}).values()
        np.testing.assert_array_equal(found, expected)


def test_what_is_empty_at_every_length_does_not_make_lengths_longer() -> None:
    model = parse(
        """agraph (float[N, L, 4] x) => (float[N, L, 4] y) <int64[1] one = {1}, int64[1] zero = {0}> {
            none = Slice (x, zero, zero, one)  y = Concat <axis = 1> (none, x) }"""
    )
    graph = TraceGraph.of(model)
    assert graph.open_length == 64
    assert graph.shape("none") == (None, 0, 4)


def test_lengths_stay_within_a_table_of_positions() -> None:
    model = parse(
        """agraph (float[N, L, 4] x) => (float[N, L, 4] y) <int64[1] zero = {0}, int64[1] one = {1}> {
            s = Shape <start = 1, end = 2> (x)
            places = Slice (table, zero, s, one)
            y = Add (x, places) }"""
    )
    table = np.random.default_rng(0).standard_normal((1, 20, 4), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    graph = TraceGraph.of(model)
    assert graph.open_length < 20
    assert graph.shape("y") == (None, None, 4)
    assert graph.shape("places") == (1, None, 4)


def test_operands_that_never_fit_leave_the_usual_lengths() -> None:
    model = parse("agraph (float[N, L, 4] x, float[N, K] z) => (float[N, L, 4] y) { y = Add (x, z) }")
    assert TraceGraph.of(model).open_length == 64


def test_a_graph_of_a_model_in_normal_form_has_a_frame_without_nodes() -> None:
    model = parse("agraph (float[N] x) => (float[N] y) { y = Relu (x) }")
    graph = TraceGraph(model)
    assert not graph.frame().graph.node
    assert [node.op_type for node in graph.outline().graph.node] == ["Relu"]
