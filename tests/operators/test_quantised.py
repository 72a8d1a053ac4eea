"""Quantised networks, cut. Scales are powers of two, so that every sum is exact in whatever order it is taken."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_asgnas import Target
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import counted_parameters, trainable_parameters
from onnx_asgnas.pruning import cut, redundancy_of
from onnx_asgnas.space import analyze
from tests.operators.cutting import Array, attributes_of, cut_half, free_groups, model_of, normal, sizes_of

QDQ = """(float[N, 4, 6, 6] x) => (float[N, 5] y) {
    xq = QuantizeLinear (x, xs, xz)
    xd = DequantizeLinear (xq, xs, xz)
    w = DequantizeLinear <axis = 0> (wq, ws, wz)
    b = DequantizeLinear <axis = 0> (bq, bs, bz)
    c = Conv (xd, w, b)
    cq = QuantizeLinear (c, cs, cz)
    cd = DequantizeLinear (cq, cs, cz)
    r = Relu (cd)
    g = GlobalMaxPool (r)
    f = Flatten (g)
    fq = QuantizeLinear (f, cs, cz)
    fd = DequantizeLinear (fq, cs, cz)
    m = DequantizeLinear (mq, ms, mz)
    y = MatMul (fd, m)
}"""


def whole(low: int, high: int, *shape: int, kind: str = "int8") -> Array:
    return np.random.default_rng(shape).integers(low, high, shape).astype(kind)


def weights(*, per_axis: bool, signed: bool) -> dict[str, Array]:
    kind = "int8" if signed else "uint8"
    low, high, middle = (-100, 100, 3) if signed else (20, 230, 120)
    lead = (8,) if per_axis else ()
    scales = np.float32(2.0 ** -np.random.default_rng(1).integers(4, 8, lead))
    return {
        "xs": np.float32(2**-5),
        "xz": np.uint8(128),
        "wq": whole(low, high, 8, 4, 3, 3, kind=kind),
        "ws": scales,
        "wz": np.full(lead, middle, kind) + np.arange(8).astype(kind) if per_axis else np.array(middle, kind),
        "bq": whole(-1000, 1000, 8, kind="int32"),
        "bs": scales * np.float32(2**-5),
        "bz": np.zeros(lead, np.int32),
        "cs": np.float32(2**-1),
        "cz": np.uint8(100),
        "mq": whole(low, high, 8, 5, kind=kind),
        "ms": np.float32(2**-6),
        "mz": np.array(middle, kind),
    }


@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("opset", [13, 19, 21])
def test_a_network_between_quantise_and_dequantise_is_cut(per_axis: bool, signed: bool, opset: int) -> None:
    arrays = weights(per_axis=per_axis, signed=signed)
    result = cut_half(model_of(QDQ, arrays, opset, ir=8 if opset < 21 else 10))
    assert free_groups(result) == 8
    sizes = sizes_of(result.compact)
    assert sizes["wq"] == [4, 4, 3, 3] and sizes["bq"] == [4] and sizes["mq"] == [4, 5]
    assert sizes["ws"] == sizes["wz"] == ([4] if per_axis else [])
    assert sizes["bs"] == sizes["bz"] == ([4] if per_axis else [])


def test_what_is_zero_in_a_quantised_weight_is_its_zero_point() -> None:
    arrays = weights(per_axis=True, signed=False)
    result = cut_half(model_of(QDQ, arrays))
    left = {t.name: onnx.numpy_helper.to_array(t) for t in result.zeroed.graph.initializer}
    gone = [row for row in range(8) if (left["wq"][row] == arrays["wz"][row]).all()]
    assert len(gone) == 4
    assert not left["bq"][gone].any()


def test_quantised_weights_count_and_do_not_train() -> None:
    model = model_of(QDQ, weights(per_axis=True, signed=True))
    graph = TraceGraph.of(model)
    assert counted_parameters(graph) == ("wq", "bq", "mq")
    assert trainable_parameters(graph) == ()
    space = analyze(model, mode="prune")
    assert space.params == 8 * 4 * 9 + 8 + 8 * 5
    result = cut_half(model)
    assert result.kept["params"] == pytest.approx((4 * 4 * 9 + 4 + 4 * 5) / space.params)


def test_norms_are_those_of_the_numbers_that_are_meant() -> None:
    arrays = weights(per_axis=True, signed=False)
    model = model_of(QDQ, arrays)
    space = analyze(model, mode="prune")
    meant = (arrays["wq"] - arrays["wz"].astype(float)[:, None, None, None]) * arrays["ws"][:, None, None, None]
    expected = np.sqrt((meant**2).sum((1, 2, 3)) + (arrays["bq"] * arrays["bs"].astype(float)) ** 2)
    found = np.sort(-redundancy_of(space, "magnitude")(()))
    np.testing.assert_allclose(found, np.sort(expected), rtol=1e-6)


def test_other_zero_points_in_front_and_behind_keep_the_channels() -> None:
    arrays = weights(per_axis=False, signed=True) | {"other": np.uint8(7)}
    text = QDQ.replace("fd = DequantizeLinear (fq, cs, cz)", "fd = DequantizeLinear (fq, cs, other)")
    space = analyze(model_of(text, arrays), mode="prune")
    assert space.channels.count == 0
    assert ("MatMul", 8) in {(f.op_type, f.channels) for f in space.frozen if "is not zero" in f.reason}


def test_a_weight_that_is_read_with_two_scales_stays() -> None:
    text = """(float[N, 4] x) => (float[N, 6] y, float[N, 3] z) {
        w = DequantizeLinear (wq, s1)  v = DequantizeLinear (wq, s2)
        a = MatMul (x, w)  y = Relu (a)  b = MatMul (x, v)  r = Relu (b)  z = MatMul (r, last)
    }"""
    arrays = {"wq": whole(-9, 9, 4, 6), "s1": np.float32(0.5), "s2": np.float32(0.25), "last": np.ones((6, 3), "f")}
    assert analyze(model_of(text, arrays), mode="prune").channels.count == 0


def test_four_bits_in_blocks_leave_by_columns_and_by_whole_blocks() -> None:
    import ml_dtypes

    text = """(float[N, 3] x) => (float[N, 5] y) {
        h = MatMul (x, first)  r = Relu (h)
        w = DequantizeLinear <axis = 0, block_size = 4> (wq, ws, wz)
        k = MatMul (r, w)  q = Relu (k)  y = MatMul (q, last)
    }"""
    arrays = {
        "first": whole(-4, 4, 3, 16, kind="float32"),
        "wq": whole(-7, 7, 16, 8).astype(ml_dtypes.int4),
        "ws": np.float32(2.0 ** -np.random.default_rng(1).integers(1, 4, (4, 8))),
        "wz": whole(-3, 3, 4, 8).astype(ml_dtypes.int4),
        "last": whole(-4, 4, 8, 5, kind="float32"),
    }
    result = cut_half(model_of(text, arrays, 21, ir=10))
    sizes = sizes_of(result.compact)
    assert sizes == {"first": [3, 8], "wq": [8, 4], "ws": [2, 4], "wz": [2, 4], "last": [4, 5]}
    assert free_groups(result) == 4 + 8


def test_a_float_weight_that_is_quantised_in_the_graph_is_cut() -> None:
    text = """(float[N, 4] x) => (float[N, 5] y) {
        q = QuantizeLinear <axis = 1> (w, s, z)  d = DequantizeLinear <axis = 1> (q, s, z)
        h = MatMul (x, d)  r = Relu (h)  y = MatMul (r, last)
    }"""
    arrays = {
        "w": np.random.default_rng(0).normal(size=(4, 6)).astype("f"),
        "s": np.float32(2.0 ** -np.arange(3, 9)),
        "z": np.arange(6).astype("int8"),
        "last": whole(-4, 4, 6, 5, kind="float32"),
    }
    result = cut_half(model_of(text, arrays))
    sizes = sizes_of(result.compact)
    assert sizes["w"] == [4, 3] and sizes["s"] == sizes["z"] == [3] and sizes["last"] == [3, 5]


def test_dynamic_quantisation_is_cut() -> None:
    text = """(float[N, 4] x) => (float[N, 5] y) {
        h = MatMul (x, first)  r = Relu (h)
        q, s, z = DynamicQuantizeLinear (r)
        i = MatMulInteger (q, wq, z, wz)  c = Cast <to = 1> (i)  t = Mul (s, ws)  k = Mul (c, t)
        b = Add (k, bias)  p = Relu (b)
        q2, s2, z2 = DynamicQuantizeLinear (p)
        i2 = MatMulInteger (q2, vq, z2)  c2 = Cast <to = 1> (i2)  t2 = Mul (s2, vs)  y = Mul (c2, t2)
    }"""
    arrays = {
        "first": whole(-4, 4, 4, 8, kind="float32"),
        "wq": whole(-90, 90, 8, 6),
        "wz": whole(-5, 5, 6),
        "ws": np.float32(2.0 ** -np.arange(3, 9)),
        "bias": np.arange(6).astype("f"),
        "vq": whole(-90, 90, 6, 5),
        "vs": np.float32(0.25),
    }
    result = cut_half(model_of(text, arrays))
    sizes = sizes_of(result.compact)
    assert free_groups(result) == 8 + 6
    assert sizes["first"] == [4, 4] and sizes["wq"] == [4, 3] and sizes["wz"] == sizes["ws"] == [3]
    assert sizes["vq"] == [3, 5] and sizes["bias"] == [3]


INTEGER = """(uint8[N, 4, 6, 6] x) => (float[N, 3, 1, 1] y) {
    a = QLinearConv <pads = [1, 1, 1, 1]> (x, xs, xz, wq, ws, wz, as, az, bq)
    m = MaxPool <kernel_shape = [2, 2]> (a)
    g = QLinearConv <group = 8> (m, as, az, dq, ds, dz, gs, gz)
    y0 = QLinearConv (g, gs, gz, vq, vs, vz, ys, gz)
    p = DequantizeLinear (y0, ys, gz)
    y = GlobalMaxPool (p)
}"""


def test_convolutions_of_whole_numbers_are_cut() -> None:
    arrays = {
        "xs": np.float32(2**-4),
        "xz": np.uint8(120),
        "wq": whole(20, 230, 8, 4, 3, 3, kind="uint8"),
        "ws": np.float32(2.0 ** -np.random.default_rng(1).integers(5, 8, 8)),
        "wz": np.full(8, 125, "uint8"),
        "as": np.float32(2**-1),
        "az": np.uint8(90),
        "bq": whole(-1000, 1000, 8, kind="int32"),
        "dq": whole(-90, 90, 8, 1, 1, 1),
        "ds": np.float32(2.0 ** -np.random.default_rng(2).integers(4, 6, 8)),
        "dz": np.zeros(8, "int8"),
        "gs": np.float32(4),
        "ys": np.float32(32),
        "gz": np.uint8(100),
        "vq": whole(-90, 90, 3, 8, 1, 1),
        "vs": np.float32(2**-6),
        "vz": np.int8(0),
    }
    result = cut_half(model_of(INTEGER, arrays))
    sizes = sizes_of(result.compact)
    assert free_groups(result) == 8
    assert sizes["wq"] == [4, 4, 3, 3] and sizes["dq"] == [4, 1, 1, 1] and sizes["vq"] == [3, 4, 1, 1]
    assert sizes["ws"] == sizes["wz"] == sizes["bq"] == sizes["ds"] == sizes["dz"] == [4]


def test_products_of_whole_numbers_are_cut() -> None:
    text = """(uint8[N, 4] x) => (float[N, 3] y) {
        a = QLinearMatMul (x, xs, xz, wq, ws, wz, as, az)
        b = QLinearMatMul (a, as, az, vq, vs, vz, ys, az)
        y = DequantizeLinear (b, ys, az)
    }"""
    arrays = {
        "xs": np.float32(2**-4),
        "xz": np.uint8(120),
        "wq": whole(-90, 90, 4, 8),
        "ws": np.float32(2**-5),
        "wz": np.int8(3),
        "as": np.float32(1),
        "ys": np.float32(16),
        "az": np.uint8(90),
        "vq": whole(-90, 90, 8, 3),
        "vs": np.float32(2**-5),
        "vz": np.int8(0),
    }
    result = cut_half(model_of(text, arrays))
    assert free_groups(result) == 8
    assert sizes_of(result.compact)["wq"] == [4, 4] and sizes_of(result.compact)["vq"] == [4, 3]


def test_an_integer_convolution_whose_zero_point_does_not_fit_stays() -> None:
    text = """(float[N, 4, 6, 6] x) => (int32[N, 3, 6, 6] y) {
        c = Conv (x, first)  q, s, z = DynamicQuantizeLinear (c)  y = ConvInteger (q, wq)
    }"""
    arrays = {"first": np.ones((8, 4, 1, 1), "f"), "wq": whole(-9, 9, 3, 8, 1, 1)}
    result = analyze(model_of(text, arrays), mode="prune")
    assert result.channels.count == 0
    assert any(f.op_type == "ConvInteger" and "another zero point" in f.reason for f in result.frozen)
    fits = analyze(model_of(text.replace("(q, wq)", "(q, wq, z)"), arrays), mode="prune")
    assert fits.channels.count == 8


def test_a_structure_takes_its_channels_of_a_quantised_weight_along() -> None:
    """What is zeroed behind a Concat has a zero point of its own."""
    text = """(float[N, 4, 6, 6] x) => (float[N, 3, 6, 6] y) {
        a = Conv (x, wa)  c = Conv (x, wc)  k = Concat <axis = 1> (a, c)
        w = DequantizeLinear <axis = 0> (wq, ws, wz)
        d = Conv <group = 8> (k, w)  r = Relu (d)  y = Conv (r, end)
    }"""
    arrays = {
        "wa": normal(4, 4, 1, 1, seed=1),
        "wc": normal(4, 4, 1, 1, seed=2),
        "wq": whole(20, 230, 8, 1, 1, 1, kind="uint8"),
        "ws": np.float32(2.0 ** -np.random.default_rng(1).integers(4, 8, 8)),
        "wz": np.full(8, 120, "uint8"),
        "end": normal(3, 8, 1, 1),
    }
    model = model_of(text, arrays)
    space = analyze(model)
    assert [s.tensor for s in space.candidates] == ["a", "c"]
    assert {piece.initializer for s in space.candidates for piece in s.group.slices} == {"wa", "wc", "wq"}
    result = cut(model, Target(remove_groups=1), mode="erase", criterion="magnitude")
    found = result.verify()
    assert found.passed and found.moved and found.moved > 1e-3
    assert sizes_of(result.compact)["wq"] == [4, 1, 1, 1] and sizes_of(result.compact)["wz"] == [4]


@pytest.mark.parametrize("more", ["", ", wz"])
def test_rows_of_packed_bits_leave(more: str) -> None:
    text = """(float[N, 7, 32] x) => (float[N, 7, 5] y) {
        a = com.microsoft.MatMulNBits <N = 8, K = 32, bits = 4, block_size = 16> (x, wq, ws%s)
        r = Relu (a)  y = MatMul (r, last)
    }"""
    arrays = {
        "wq": whole(0, 255, 8, 2, 8, kind="uint8"),
        "ws": np.abs(normal(16)),
        "wz": whole(0, 255, 8, kind="uint8"),
        "last": normal(8, 5),
    }
    result = cut_half(model_of(text % more, arrays, microsoft=1))
    assert free_groups(result) == 8
    sizes = sizes_of(result.compact)
    assert sizes["wq"] == [4, 2, 8] and sizes["ws"] == [8] and sizes["last"] == [4, 5]
    assert attributes_of(result.compact, "MatMulNBits")[0]["N"] == 4


NETWORK = """(float[N, 3, 12, 12] x) => (float[N, 10] y) {
    a = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w1, b1)  r = Relu (a)
    b = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (r, w2, b2)  s = Relu (b)
    c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (s, w3, b1)  d = Add (c, r)  t = Relu (d)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t)
    e = Conv <group = 16, pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (p, dw, b1)  f = Relu (e)
    k = Concat <axis = 1> (f, p)
    l = Conv <kernel_shape = [1, 1]> (k, w4, b4)  m = LeakyRelu (l)
    g = GlobalAveragePool (m)  h = Flatten (g)  y = Gemm <transB = 1> (h, fc, bf)
}"""


class Calibration:
    """A few random images, as onnxruntime's quantiser asks for them."""

    def __init__(self) -> None:
        self._batches = iter([{"x": normal(4, 3, 12, 12, seed=n)} for n in range(3)])

    def get_next(self) -> dict[str, Array] | None:
        """The next batch."""
        return next(self._batches, None)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_what_the_runtime_has_quantised_is_cut_as_far_as_its_source(
    form: str, per_channel: bool, tmp_path: Path
) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    arrays = {
        "w1": normal(16, 3, 3, 3) / 5,
        "b1": normal(16) / 5,
        "w2": normal(24, 16, 3, 3) / 12,
        "b2": normal(24) / 5,
        "w3": normal(16, 24, 3, 3) / 14,
        "dw": normal(16, 1, 3, 3) / 3,
        "w4": normal(20, 32, 1, 1) / 6,
        "b4": normal(20),
        "fc": normal(10, 20) / 4,
        "bf": normal(10),
    }
    source = model_of(NETWORK, arrays, 13)
    onnx.save(source, str(tmp_path / "source.onnx"))
    with contextlib.redirect_stdout(None):
        quantization.quantize_static(
            str(tmp_path / "source.onnx"),
            str(tmp_path / "quantised.onnx"),
            Calibration(),
            quant_format=quantization.QuantFormat[form],
            per_channel=per_channel,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    result = cut_half(onnx.load(str(tmp_path / "quantised.onnx")))
    plain = analyze(source, mode="prune")
    assert free_groups(result) == plain.channels.count == 16 + 24 + 20
    assert result.space.params == plain.params and not result.space.unknown
    assert result.kept["params"] < 0.3
