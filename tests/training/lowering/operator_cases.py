"""A case for operators and forms of operators: what they are in ONNX, and what they are in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper, parser

Tensor = torch.Tensor
IMAGE = (3, 6, 6)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`body` gives y from h, of shape [N, *shape]; `reference` does so in torch, given h and the weights by name.

    h is x * w, so that a gradient comes both from what an operator is fed and from the weights that it holds.
    """

    body: str
    reference: Callable[..., Tensor]
    shape: tuple[int, ...] = (4, 5)
    weights: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    positive: bool = False
    opset: int = 17
    open_size: bool = False

    def model(self) -> onnx.ModelProto:
        rank = len(self.shape)
        sizes = ",".join(["N", *("DHWL"[i] if self.open_size and i else str(s) for i, s in enumerate(self.shape))])
        example = self.reference(torch.ones(2, *self.shape), **{k: torch.ones(v) for k, v in self.weights.items()})
        result = ",".join(f"d{axis}" for axis in range(example.dim()))
        text = f"""<ir_version: 8, opset_import: ["" : {self.opset}]>
            g (float[{sizes}] x) => (float[{result}] y) {{ h = Mul(x, w) {self.body} }}"""
        model = parser.parse_model(text)
        generator = np.random.default_rng(0)
        arrays = {"w": generator.uniform(0.5, 1.5, (1, self.shape[0], *[1] * (rank - 1)))}
        arrays |= {name: generator.normal(size=shape) * 0.5 for name, shape in self.weights.items()}
        for name, array in arrays.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        for name, value in self.constants.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return model


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def f32(value: object) -> np.ndarray:
    return np.array(value, np.float32)


def interpolate(**options: Any) -> Callable[[Tensor], Tensor]:
    return lambda h: F.interpolate(h, **options)


def scales(*values: float) -> dict[str, np.ndarray]:
    return {"s": f32([1, 1, *values])}


def _grid_sample(mode: str, padding: str, aligned: bool) -> Callable[..., Tensor]:
    name = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)

    def sample(h: Tensor, W: Tensor) -> Tensor:
        grid = 1.3 * torch.tanh(0.1 * h.flatten(1) @ W).reshape(-1, 4, 2, 2)
        return F.grid_sample(h, grid, mode=name, padding_mode=padding, align_corners=aligned)

    return sample


def _deform_conv(h: Tensor, V: Tensor, c: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """One bilinear sample of the whole image for each of the four places of a 2x2 kernel."""
    offsets = torch.tanh(F.conv2d(h, V, c, padding=1)).unflatten(1, (4, 2))
    size = h.shape[-1]
    rows, columns = torch.meshgrid(*(torch.arange(size + 1, dtype=h.dtype),) * 2, indexing="ij")
    total = b.reshape(-1, 1, 1)
    for at in range(4):
        y = rows + at // 2 - 1 + offsets[:, at, 0]
        x = columns + at % 2 - 1 + offsets[:, at, 1]
        grid = torch.stack([x, y], -1) * 2 / (size - 1) - 1
        sampled = F.grid_sample(h, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        total = total + torch.einsum("nchw,oc->nohw", sampled, W[:, :, at // 2, at % 2])
    return total


NEAREST = 'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"'

CASES = {
    # dialect: pointwise
    "Abs": Case(body="y = Abs(h)", reference=torch.abs),
    "Add": Case(body="y = Add(h, b)", reference=lambda h, b: h + b, weights={"b": (5,)}),
    "Add twice the same": Case(
        body="d = Add(b, b) y = Mul(h, d)", reference=lambda h, b: h * (b + b), weights={"b": (5,)}
    ),
    "Sub": Case(body="y = Sub(b, h)", reference=lambda h, b: b - h, weights={"b": (4, 1)}),
    "Mul": Case(body="y = Mul(h, b)", reference=lambda h, b: h * b, weights={"b": (4, 5)}),
    "Mul with itself": Case(body="y = Mul(h, h)", reference=lambda h: h * h),
    "Div": Case(body="y = Div(b, h)", reference=lambda h, b: b / h, weights={"b": (5,)}, positive=True),
    "Neg": Case(body="y = Neg(h)", reference=torch.neg),
    "Exp": Case(body="y = Exp(h)", reference=torch.exp),
    "Log": Case(body="y = Log(h)", reference=torch.log, positive=True),
    "Sqrt": Case(body="y = Sqrt(h)", reference=torch.sqrt, positive=True),
    "Reciprocal": Case(body="y = Reciprocal(h)", reference=torch.reciprocal, positive=True),
    "Pow": Case(body="y = Pow(h, two)", reference=lambda h: h**2, constants={"two": f32(2)}),
    "Pow integer": Case(body="y = Pow(h, three)", reference=lambda h: h**3, constants={"three": np.array(3, np.int64)}),
    "Erf": Case(body="y = Erf(h)", reference=torch.erf),
    "Sin": Case(body="y = Sin(h)", reference=torch.sin),
    "Cos": Case(body="y = Cos(h)", reference=torch.cos),
    "Tanh": Case(body="y = Tanh(h)", reference=torch.tanh),
    "Relu": Case(body="y = Relu(h)", reference=torch.relu),
    "LeakyRelu": Case(body="y = LeakyRelu<alpha=0.2>(h)", reference=lambda h: F.leaky_relu(h, 0.2)),
    "Sigmoid": Case(body="y = Sigmoid(h)", reference=torch.sigmoid),
    "Clip": Case(
        body="y = Clip(h, lo, hi)", reference=lambda h: h.clamp(-0.3, 0.4), constants={"lo": f32(-0.3), "hi": f32(0.4)}
    ),
    "Clip from below": Case(body="y = Clip(h, lo)", reference=lambda h: h.clamp(min=-0.3), constants={"lo": f32(-0.3)}),
    "Max": Case(body="y = Max(h, b)", reference=lambda h, b: torch.maximum(h, b), weights={"b": (4, 5)}),
    "Max of three": Case(
        body="y = Max(h, b, c)",
        reference=lambda h, b, c: torch.maximum(torch.maximum(h, b), c),
        weights={"b": (4, 5), "c": (5,)},
    ),
    "Min": Case(body="y = Min(h, b)", reference=lambda h, b: torch.minimum(h, b), weights={"b": (4, 5)}),
    "Where": Case(
        body="m = Greater(h, zero) y = Where(m, h, b)",
        reference=lambda h, b: torch.where(h > 0, h, b),
        weights={"b": (4, 5)},
        constants={"zero": f32(0)},
    ),
    "Identity": Case(body="y = Identity(h)", reference=lambda h: h),
    "Cast": Case(body="d = Cast<to=11>(h) e = Exp(d) y = Cast<to=1>(e)", reference=torch.exp),
    "Gelu": Case(body="y = Gelu(h)", reference=F.gelu, opset=20),
    # dialect: dense
    "Gemm": Case(
        body="y = Gemm<transB=1, alpha=0.5>(h, W, b)",
        reference=lambda h, W, b: 0.5 * h @ W.T + b,
        shape=(5,),
        weights={"W": (7, 5), "b": (7,)},
    ),
    "MatMul": Case(body="y = MatMul(h, W)", reference=lambda h, W: h @ W, weights={"W": (5, 3)}),
    "MatMul of two": Case(
        body="t = Transpose<perm=[0, 2, 1]>(h) y = MatMul(h, t)", reference=lambda h: h @ h.transpose(1, 2)
    ),
    "Conv": Case(
        body="y = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(h, W, b)",
        reference=lambda h, W, b: F.conv2d(h, W, b, stride=2, padding=1),
        shape=IMAGE,
        weights={"W": (5, 3, 3, 3), "b": (5,)},
    ),
    "Conv grouped and dilated": Case(
        body="y = Conv<group=3, dilations=[2, 2]>(h, W)",
        reference=lambda h, W: F.conv2d(h, W, groups=3, dilation=2),
        shape=IMAGE,
        weights={"W": (6, 1, 2, 2)},
    ),
    "Conv of one dimension": Case(
        body="y = Conv<pads=[1, 1]>(h, W)", reference=lambda h, W: F.conv1d(h, W, padding=1), weights={"W": (3, 4, 3)}
    ),
    "Conv of three dimensions": Case(
        body="y = Conv(h, W)", reference=lambda h, W: F.conv3d(h, W), shape=(2, 4, 4, 4), weights={"W": (3, 2, 2, 2, 2)}
    ),
    "Conv same upper": Case(
        body='y = Conv<auto_pad="SAME_UPPER", strides=[2, 2]>(h, W)',
        reference=lambda h, W: F.conv2d(F.pad(h, (0, 1, 0, 1)), W, stride=2),
        shape=IMAGE,
        weights={"W": (4, 3, 3, 3)},
    ),
    "Conv same lower, open size": Case(
        body='y = Conv<auto_pad="SAME_LOWER">(h, W)',
        reference=lambda h, W: F.conv2d(F.pad(h, (1, 0, 1, 0)), W),
        shape=IMAGE,
        weights={"W": (4, 3, 2, 2)},
        open_size=True,
    ),
    "Conv valid": Case(
        body='y = Conv<auto_pad="VALID">(h, W)',
        reference=lambda h, W: F.conv2d(h, W),
        shape=IMAGE,
        weights={"W": (4, 3, 3, 3)},
    ),
    # dialect: layout
    "Concat": Case(body="y = Concat<axis=1>(h, h)", reference=lambda h: torch.cat([h, h], 1)),
    "Concat of a weight": Case(
        body="r = Relu(h) e = Expand(W, s) m = Mul(r, e) y = Concat<axis=2>(m, r)",
        reference=lambda h, W: torch.cat([torch.relu(h) * W, torch.relu(h)], 2),
        weights={"W": (4, 1)},
        constants={"s": ints(1, 4, 5)},
    ),
    "Expand": Case(
        body="u = Unsqueeze(h, a) y = Expand(u, s)",
        reference=lambda h: h.unsqueeze(2).expand(-1, 4, 3, 5),
        constants={"a": ints(2), "s": ints(1, 4, 3, 5)},
    ),
    "Flatten": Case(body="y = Flatten(h)", reference=lambda h: h.flatten(1)),
    "Reshape": Case(
        body="y = Reshape(h, s)", reference=lambda h: h.reshape(-1, 2, 10), constants={"s": ints(-1, 2, 10)}
    ),
    "Reshape that takes the batch in": Case(
        body="r = Reshape(h, s) e = Exp(r) y = Reshape(e, t)",
        reference=lambda h: torch.exp(h).reshape(-1, 10, 2),
        constants={"s": ints(-1, 5), "t": ints(-1, 10, 2)},
    ),
    "Flatten that takes the batch in": Case(
        body="f = Flatten<axis=2>(h) y = MatMul(f, W)",
        reference=lambda h, W: h.flatten(0, 1) @ W,
        weights={"W": (5, 3)},
    ),
    "Slice": Case(
        body="y = Slice(h, a, b, axes, steps)",
        reference=lambda h: h[:, 1:4:2],
        constants={"a": ints(1), "b": ints(4), "axes": ints(1), "steps": ints(2)},
    ),
    "Squeeze": Case(
        body="u = Slice(h, a, b, axes) y = Squeeze(u, axes)",
        reference=lambda h: h[:, 2],
        constants={"a": ints(2), "b": ints(3), "axes": ints(1)},
    ),
    "Unsqueeze": Case(body="y = Unsqueeze(h, a)", reference=lambda h: h.unsqueeze(1), constants={"a": ints(1)}),
    "Tile": Case(body="y = Tile(h, r)", reference=lambda h: h.repeat(1, 2, 3), constants={"r": ints(1, 2, 3)}),
    "Transpose": Case(body="y = Transpose<perm=[0, 2, 1]>(h)", reference=lambda h: h.transpose(1, 2)),
    "Transpose without perm": Case(body="y = Transpose(h)", reference=lambda h: h.permute(2, 1, 0)),
    "Gather": Case(
        body="y = Gather<axis=1>(h, i)", reference=lambda h: h[:, [2, 0, 2]], constants={"i": ints(2, 0, 2)}
    ),
    "Gather of an embedding": Case(
        body="m = Greater(h, zero) i = Cast<to=7>(m) y = Gather(E, i)",
        reference=lambda h, E: E[(h > 0).long()],
        weights={"E": (2, 3)},
        constants={"zero": f32(0)},
    ),
    "GatherElements": Case(
        body="_, i = TopK<axis=2>(h, k) y = GatherElements<axis=2>(h, i)",
        reference=lambda h: h.topk(2, dim=2).values,
        constants={"k": ints(2)},
    ),
    "GatherND": Case(
        body="t = Transpose<perm=[1, 2, 0]>(h) y = GatherND(t, i)",
        reference=lambda h: h.permute(1, 2, 0)[[0, 3], [1, 4]],
        constants={"i": np.array([[0, 1], [3, 4]], np.int64)},
    ),
    "ScatterND": Case(
        body="t = Transpose<perm=[1, 0, 2]>(h) u = Slice(t, a, b, a) y = ScatterND(t, i, u)",
        reference=lambda h: torch.cat([h[:, :3], h[:, :1]], 1).transpose(0, 1),
        constants={"i": np.array([[3]], np.int64), "a": ints(0), "b": ints(1)},
    ),
    "ScatterElements": Case(
        body="z = Mul(h, zero) _, i = TopK<axis=2>(h, k) r = Relu(h) u = GatherElements<axis=2>(r, i) "
        "y = ScatterElements<axis=2>(z, i, u)",
        reference=lambda h: torch.zeros_like(h).scatter(
            2, h.topk(2, dim=2).indices, torch.relu(h.topk(2, dim=2).values)
        ),
        constants={"zero": f32(0), "k": ints(2)},
    ),
    "TopK": Case(
        body="y, _ = TopK<axis=2>(h, k)", reference=lambda h: h.topk(2, dim=2).values, constants={"k": ints(2)}
    ),
    "Pad": Case(
        body="y = Pad(h, p)", reference=lambda h: F.pad(h, (2, 0, 0, 1)), constants={"p": ints(0, 0, 2, 0, 1, 0)}
    ),
    "Pad some axes": Case(
        body="y = Pad(h, p, v, a)",
        reference=lambda h: F.pad(h, (1, 2), value=0.5),
        constants={"p": ints(1, 2), "v": f32(0.5), "a": ints(-1)},
        opset=18,
    ),
    "Pad reflected": Case(
        body='y = Pad<mode="reflect">(h, p)',
        reference=lambda h: F.pad(h, (2, 1, 1, 2), mode="reflect"),
        shape=IMAGE,
        constants={"p": ints(0, 0, 1, 2, 0, 0, 2, 1)},
    ),
    "Pad with the edge": Case(
        body='y = Pad<mode="edge">(h, p)',
        reference=lambda h: F.pad(h, (2, 1), mode="replicate"),
        constants={"p": ints(0, 0, 2, 0, 0, 1)},
    ),
    "Split": Case(
        body="a, b = Split<axis=1>(h, s) y = Mul(a, a)", reference=lambda h: h[:, :1] ** 2, constants={"s": ints(1, 3)}
    ),
    "Slices, one of them without a gradient": Case(
        body="a = Slice(h, p, q, q) b = Slice(h, q, r, q) s = Sign(b) t = ReduceSum<keepdims=1>(s, q) y = Mul(a, t)",
        reference=lambda h: h[:, :1] * torch.sign(h[:, 1:]).sum(1, keepdim=True),
        constants={"p": ints(0), "q": ints(1), "r": ints(4)},
    ),
    "Gathers, one of them without a gradient": Case(
        body="a = Gather<axis=1>(h, p) b = Gather<axis=1>(h, q) s = Sign(b) y = Mul(a, s)",
        reference=lambda h: h[:, 0] * torch.sign(h[:, 1]),
        constants={"p": np.array(0, np.int64), "q": np.array(1, np.int64)},
        shape=(2, 5),
    ),
    "Floor, Ceil and Round": Case(
        body="a = Floor(h) b = Ceil(h) c = Round(h) s = Sub(h, a) t = Sub(b, h) u = Mul(c, h) v = Mul(s, t) "
        "y = Add(u, v)",
        reference=lambda h: h.detach().round() * h + (h - h.detach().floor()) * (h.detach().ceil() - h),
    ),
    "Split into equal parts": Case(
        body="a, b = Split<axis=1>(h) y = Mul(a, b)", reference=lambda h: h[:, :2] * h[:, 2:]
    ),
    # dialect: reductions
    "ReduceMean": Case(body="y = ReduceMean<axes=[2], keepdims=0>(h)", reference=lambda h: h.mean(2)),
    "ReduceMean by input": Case(
        body="y = ReduceMean(h, a)",
        reference=lambda h: h.mean((1, 2), keepdim=True),
        constants={"a": ints(1, 2)},
        opset=18,
    ),
    "ReduceSum": Case(body="y = ReduceSum<keepdims=0>(h, a)", reference=lambda h: h.sum(1), constants={"a": ints(1)}),
    "Softmax": Case(body="y = Softmax<axis=1>(h)", reference=lambda h: h.softmax(1)),
    "LogSoftmax": Case(body="y = LogSoftmax(h)", reference=lambda h: h.log_softmax(-1)),
    # dialect: spatial
    "GlobalAveragePool": Case(
        body="y = GlobalAveragePool(h)", reference=lambda h: h.mean((2, 3), keepdim=True), shape=IMAGE
    ),
    "GlobalMaxPool": Case(body="y = GlobalMaxPool(h)", reference=lambda h: h.amax((2, 3), keepdim=True), shape=IMAGE),
    "MaxPool": Case(
        body="y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(h)",
        reference=lambda h: F.max_pool2d(h, 3, 2, 1),
        shape=IMAGE,
    ),
    "MaxPool rounding up": Case(
        body="y = MaxPool<kernel_shape=[4, 4], strides=[3, 3], ceil_mode=1>(h)",
        reference=lambda h: F.max_pool2d(h, 4, 3, ceil_mode=True),
        shape=IMAGE,
    ),
    "MaxPool same": Case(
        body='y = MaxPool<kernel_shape=[2, 2], auto_pad="SAME_UPPER">(h)',
        reference=lambda h: F.max_pool2d(F.pad(h, (0, 1, 0, 1), value=-torch.inf), 2, 1),
        shape=IMAGE,
    ),
    "AveragePool": Case(
        body="y = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(h)",
        reference=lambda h: F.avg_pool2d(h, 2),
        shape=IMAGE,
    ),
    "AveragePool without its pads": Case(
        body="y = AveragePool<kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 1, 1]>(h)",
        reference=lambda h: F.avg_pool2d(h, (3, 2), (2, 1), 1, count_include_pad=False),
        shape=IMAGE,
    ),
    "AveragePool rounding up": Case(
        body="y = AveragePool<kernel_shape=[4, 4], strides=[3, 3], ceil_mode=1>(h)",
        reference=lambda h: F.avg_pool2d(h, 4, 3, ceil_mode=True, count_include_pad=False),
        shape=IMAGE,
        opset=19,
    ),
    "AveragePool with its pads": Case(
        body="y = AveragePool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1>(h)",
        reference=lambda h: F.avg_pool2d(h, 3, 2, 1),
        shape=IMAGE,
    ),
    "AveragePool dilated": Case(
        body="y = AveragePool<kernel_shape=[2, 2], dilations=[2, 3]>(h)",
        reference=lambda h: (h[..., :-2, :-3] + h[..., :-2, 3:] + h[..., 2:, :-3] + h[..., 2:, 3:]) / 4,
        shape=IMAGE,
        opset=19,
    ),
    "AveragePool of one dimension": Case(
        body="y = AveragePool<kernel_shape=[3]>(h)", reference=lambda h: F.avg_pool1d(h, 3, 1)
    ),
    "AveragePool same": Case(
        body='y = AveragePool<kernel_shape=[2, 2], auto_pad="SAME_UPPER", strides=[2, 2]>(h)',
        reference=lambda h: F.avg_pool2d(h, 2),
        shape=IMAGE,
    ),
    "AveragePool of open size": Case(
        body="y = AveragePool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1>(h)",
        reference=lambda h: F.avg_pool2d(h, 3, 2, 1),
        shape=IMAGE,
        open_size=True,
    ),
    "Resize nearest": Case(
        body=f"y = Resize<{NEAREST}>(h, , s)",
        reference=interpolate(scale_factor=(2, 3)),
        shape=IMAGE,
        constants=scales(2, 3),
    ),
    "Resize nearest to a size": Case(
        body=f"y = Resize<{NEAREST}, axes=[2, 3]>(h, , , s)",
        reference=interpolate(size=(9, 4)),
        shape=IMAGE,
        constants={"s": ints(9, 4)},
        opset=18,
    ),
    "Resize nearest of open size": Case(
        body=f"y = Resize<{NEAREST}>(h, , s)",
        reference=interpolate(scale_factor=2),
        shape=IMAGE,
        constants=scales(2, 2),
        open_size=True,
    ),
    "Resize linear": Case(
        body='y = Resize<mode="linear">(h, , s)',
        reference=interpolate(scale_factor=2, mode="bilinear"),
        shape=IMAGE,
        constants=scales(2, 2),
    ),
    "Resize linear with aligned corners": Case(
        body='y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(h, , s)',
        reference=interpolate(scale_factor=(1.5, 2), mode="bilinear", align_corners=True),
        shape=IMAGE,
        constants=scales(1.5, 2),
    ),
    "Resize linear in three dimensions": Case(
        body='y = Resize<mode="linear">(h, , s)',
        reference=interpolate(scale_factor=2, mode="trilinear"),
        shape=(2, 3, 3, 4),
        constants=scales(2, 2, 2),
    ),
    "Resize cubic": Case(
        body='y = Resize<mode="cubic">(h, , s)',
        reference=interpolate(scale_factor=2, mode="bicubic"),
        shape=IMAGE,
        constants=scales(2, 2),
    ),
    # lowered by a rewrite
    "Sum": Case(body="y = Sum(h, b, h)", reference=lambda h, b: h + b + h, weights={"b": (5,)}),
    "Sum of one": Case(body="y = Sum(h)", reference=lambda h: h),
    "Mean": Case(body="y = Mean(h, b, h)", reference=lambda h, b: (h + b + h) / 3, weights={"b": (5,)}),
    "Dropout": Case(body="y = Dropout(h)", reference=lambda h: h),
    # lowered to the standard's own definition
    "HardSigmoid": Case(
        body="y = HardSigmoid<alpha=0.2, beta=0.4>(h)", reference=lambda h: (0.2 * h + 0.4).clamp(0, 1)
    ),
    "HardSwish": Case(body="y = HardSwish(h)", reference=F.hardswish),
    "Elu": Case(body="y = Elu<alpha=0.7>(h)", reference=lambda h: F.elu(h, 0.7)),
    "Selu": Case(body="y = Selu(h)", reference=F.selu),
    "Softplus": Case(body="y = Softplus(h)", reference=F.softplus, opset=18),
    "Softsign": Case(body="y = Softsign(h)", reference=F.softsign, opset=18),
    "PRelu": Case(body="y = PRelu(h, b)", reference=lambda h, b: torch.where(h < 0, h * b, h), weights={"b": (4, 1)}),
    "Mish": Case(body="y = Mish(h)", reference=F.mish, opset=18),
    "Gelu by tanh": Case(
        body='y = Gelu<approximate="tanh">(h)', reference=lambda h: F.gelu(h, approximate="tanh"), opset=20
    ),
    "LayerNormalization": Case(
        body="e = Exp(h) y = LayerNormalization(e, g, b)",
        reference=lambda h, g, b: F.layer_norm(torch.exp(h), (5,), g, b),
        weights={"g": (5,), "b": (5,)},
    ),
    "LayerNormalization without a bias": Case(
        body="e = Exp(h) y = LayerNormalization<axis=1>(e, g)",
        reference=lambda h, g: F.layer_norm(torch.exp(h), (4, 5), g),
        weights={"g": (4, 5)},
    ),
    "layer normalisation in parts": Case(
        body="m = ReduceMean<axes=[-1]>(h) d = Sub(h, m) q = Pow(d, two) v = ReduceMean<axes=[-1]>(q) e = Add(v, eps) "
        "s = Sqrt(e) n = Div(d, s) k = Mul(n, g) y = Add(k, b)",
        reference=lambda h, g, b: F.layer_norm(h, (5,), g, b, 0.1),
        weights={"g": (5,), "b": (5,)},
        constants={"two": f32(2), "eps": f32(0.1)},
    ),
    "gelu in parts": Case(
        body="d = Div(h, root) e = Erf(d) p = Add(e, one) m = Mul(h, p) y = Mul(m, half)",
        reference=F.gelu,
        constants={"root": f32(2**0.5), "one": f32(1), "half": f32(0.5)},
    ),
    "GroupNormalization": Case(
        body="y = GroupNormalization<num_groups=2>(h, g, b)",
        reference=lambda h, g, b: F.group_norm(h, 2, g, b),
        weights={"g": (4,), "b": (4,)},
        opset=21,
    ),
    "ReduceL1": Case(
        body="y = ReduceL1(h, a)", reference=lambda h: h.abs().sum(1, keepdim=True), constants={"a": ints(1)}, opset=18
    ),
    "ReduceL2": Case(
        body="y = ReduceL2(h, a)",
        reference=lambda h: h.square().sum(1, keepdim=True).sqrt(),
        constants={"a": ints(1)},
        opset=18,
    ),
    "Trilu": Case(body="y = Trilu<upper=0>(h)", reference=torch.tril, opset=18),
    "GlobalLpPool": Case(
        body="y = GlobalLpPool<p=3>(h)",
        reference=lambda h: h.abs().pow(3).sum((2, 3), keepdim=True).pow(1 / 3),
        shape=IMAGE,
        opset=18,
    ),
    "OneHot": Case(
        body="m = Greater(h, zero) i = Cast<to=7>(m) o = OneHot(i, two, E) y = Mul(o, one)",
        reference=lambda h, E: torch.where(F.one_hot((h > 0).long(), 2) > 0, E[1], E[0]),
        weights={"E": (2,)},
        constants={"zero": f32(0), "two": np.array(2, np.int64), "one": f32(1)},
        opset=18,
    ),
    "CastLike": Case(
        body="c = CastLike(h, d) e = Exp(c) y = CastLike(e, h)",
        reference=torch.exp,
        constants={"d": np.array(1.0)},
        opset=18,
    ),
    "Clip by two tensors": Case(
        body="t = ReduceMean(h) l = Sub(t, half) y = Max(h, l)",
        reference=lambda h: torch.maximum(h, h.mean() - 0.5),
        constants={"half": f32(0.5)},
    ),
    "Where of operands that are broadcast": Case(
        body="m = Greater(h, zero) y = Where(m, b, c)",
        reference=lambda h, b, c: torch.where(h > 0, b, c),
        weights={"b": (5,), "c": (4, 1)},
        constants={"zero": f32(0)},
    ),
    "Elu far from zero": Case(
        body="k = Mul(h, large) e = Elu(k) s = Selu(k) c = Celu(k) p = Softplus(k) m = Mish(k) a = Sum(e, s, c, p, m) "
        "y = Mul(a, small)",
        reference=lambda h: 1e-3 * sum(f(1000 * h) for f in (F.elu, F.selu, F.celu, F.softplus, F.mish)),
        constants={"large": f32(1000), "small": f32(1e-3)},
        opset=18,
    ),
    "MaxPool with places column by column": Case(
        body="y, i = MaxPool<kernel_shape=[2, 2], strides=[2, 2], storage_order=1>(h) z = Cast<to=1>(i)",
        reference=lambda h: F.max_pool2d(h, 2),
        shape=IMAGE,
    ),
    "MaxPool of open size": Case(
        body="y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(h)",
        reference=lambda h: F.max_pool2d(h, 3, 2, 1),
        shape=IMAGE,
        open_size=True,
    ),
    "MaxPool behind a Gather, which hides its size from the runtime": Case(
        body='p = Pad<mode="edge">(h, b) y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(p)',
        reference=lambda h: F.max_pool2d(F.pad(h, (1, 0, 0, 1), mode="replicate"), 2),
        shape=IMAGE,
        constants={"b": ints(0, 0, 0, 1, 0, 0, 1, 0)},
    ),
    "Resize linear of open size": Case(
        body='y = Resize<mode="linear">(h, , s)',
        reference=interpolate(scale_factor=2, mode="bilinear"),
        shape=IMAGE,
        constants=scales(2, 2),
        open_size=True,
    ),
    "Resize to the size of another": Case(
        body="g = Shape(h) a = Slice(g, zero, two) b = Slice(g, two, four) t = Mul(b, two) n = Concat<axis=0>(a, t) "
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(h, , , n)',
        reference=interpolate(scale_factor=2, mode="bilinear", align_corners=True, recompute_scale_factor=True),
        shape=IMAGE,
        constants={"zero": ints(0), "two": ints(2), "four": ints(4)},
        open_size=True,
    ),
    "AveragePool of open size that rounds up": Case(
        body="y = AveragePool<kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1>(h)",
        reference=lambda h: F.avg_pool2d(h, 3, 2, ceil_mode=True, count_include_pad=False),
        shape=IMAGE,
        open_size=True,
        opset=19,
    ),
    "Pad reflected of open size": Case(
        body='y = Pad<mode="reflect">(h, p)',
        reference=lambda h: F.pad(h, (2, 1, 1, 2), mode="reflect"),
        shape=IMAGE,
        constants={"p": ints(0, 0, 1, 2, 0, 0, 2, 1)},
        open_size=True,
    ),
    "GlobalMaxPool of open size": Case(
        body="y = GlobalMaxPool(h)", reference=lambda h: h.amax((2, 3), keepdim=True), shape=IMAGE, open_size=True
    ),
    "ConvTranspose": Case(
        body="y = ConvTranspose<group=3, strides=[2, 3], pads=[1, 0, 1, 0], output_padding=[1, 0], dilations=[1, 2]>"
        "(h, W, b)",
        reference=lambda h, W, b: F.conv_transpose2d(h, W, b, (2, 3), (1, 0), (1, 0), 3, (1, 2)),
        shape=IMAGE,
        weights={"W": (3, 2, 3, 2), "b": (6,)},
    ),
    "ConvTranspose of open size": Case(
        body="y = ConvTranspose<strides=[2, 2]>(h, W)",
        reference=lambda h, W: F.conv_transpose2d(h, W, stride=2),
        shape=IMAGE,
        weights={"W": (3, 4, 2, 2)},
        open_size=True,
    ),
    "ConvTranspose of one dimension": Case(
        body="y = ConvTranspose<strides=[3]>(h, W)",
        reference=lambda h, W: F.conv_transpose1d(h, W, stride=3),
        weights={"W": (4, 2, 4)},
    ),
    "ConvTranspose of three dimensions": Case(
        body="y = ConvTranspose<strides=[2, 2, 2], pads=[2, 2, 2, 2, 2, 2]>(h, W)",
        reference=lambda h, W: F.conv_transpose3d(h, W, stride=2, padding=2),
        shape=(2, 3, 3, 3),
        weights={"W": (2, 3, 2, 2, 2)},
    ),
    **{
        f"GridSample {mode} {padding} {aligned}": Case(
            body="f = Reshape(h, flat) g = MatMul(f, W) s = Mul(g, tenth) t = Tanh(s) p = Mul(t, wide) "
            f'q = Reshape(p, points) y = GridSample<mode="{mode}", padding_mode="{padding}", align_corners={aligned}>'
            "(h, q)",
            reference=_grid_sample(mode, padding, bool(aligned)),
            shape=IMAGE,
            weights={"W": (108, 16)},
            constants={"flat": ints(-1, 108), "points": ints(-1, 4, 2, 2), "wide": f32(1.3), "tenth": f32(0.1)},
            opset=20,
        )
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for aligned in (0, 1)
    },
    "DeformConv": Case(
        body="o = Conv<pads=[1, 1, 1, 1]>(h, V, c) t = Tanh(o) y = DeformConv<pads=[1, 1, 1, 1]>(h, W, t, b)",
        reference=_deform_conv,
        shape=IMAGE,
        weights={"V": (8, 3, 2, 2), "c": (8,), "W": (4, 3, 2, 2), "b": (4,)},
        opset=19,
    ),
    "Swish of opset 24": Case(body="y = Swish(h)", reference=F.silu, opset=24),
    "Relu of opset 22": Case(body="y = Relu(h)", reference=torch.relu, opset=22),
}
