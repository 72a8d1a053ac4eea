"""The project's own networks: every gradient against torch autograd, which interprets the ONNX nodes one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper

from onnx_asgnas.models import build
from onnx_asgnas.training.bridge import OnnxModule

Tensor = torch.Tensor

ERROR = 1e-4
"""Largest relative error of a parameter's gradient, in the norm."""
FLOOR = 1e-3
"""Where a parameter's share of the whole gradient's norm is below this, the error is measured against that share.

A bias that a later batch normalisation takes out again has a true gradient of zero (its share is 1e-17 in float64), and
in float32 what is left of it is rounding, of a relative size of one.
"""


class Interpreter:
    """Runs an ONNX graph in torch, in float64, batch normalisation in training form; it shares no code with ours."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.values: dict[str, Tensor] = {}
        for tensor in model.graph.initializer:
            value = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            self.values[tensor.name] = value.double() if value.is_floating_point() else value

    def run(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        values = {**self.values, **parameters, self.graph.input[0].name: x}
        for node in self.graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            inputs = [values[name] if name else None for name in node.input]
            values[node.output[0]] = OPERATORS[node.op_type](attributes, *inputs)
            if node.op_type == "BatchNormalization":
                self._update_statistics(node, attributes, values[node.input[0]].detach())
        return values[self.graph.output[0].name]

    def _update_statistics(self, node: onnx.NodeProto, attributes: dict[str, Any], x: Tensor) -> None:
        momentum = attributes.get("momentum", 0.9)
        flat = x.transpose(0, 1).flatten(1)
        for name, batch in zip(node.input[3:5], (flat.mean(1), flat.var(1, correction=0)), strict=True):
            self.values[name] = momentum * self.values[name] + (1 - momentum) * batch


def conv(a: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(padded(a, x), weight, bias, a.get("strides", 1), 0, a.get("dilations", 1), a.get("group", 1))


def padded(a: dict[str, Any], x: Tensor, value: float = 0.0) -> Tensor:
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    return F.pad(x, (left, right, top, bottom), value=value)


def max_pool(a: dict[str, Any], x: Tensor) -> Tensor:
    return F.max_pool2d(padded(a, x, -torch.inf), a["kernel_shape"], a["strides"])


def average_pool(a: dict[str, Any], x: Tensor) -> Tensor:
    def window_sums(values: Tensor) -> Tensor:
        return F.avg_pool2d(padded(a, values), a["kernel_shape"], a["strides"], divisor_override=1)

    if a.get("count_include_pad"):
        return window_sums(x) / float(torch.tensor(a["kernel_shape"]).prod())
    return window_sums(x) / window_sums(torch.ones_like(x))


def resize(
    a: dict[str, Any], x: Tensor, _: Tensor | None, scales: Tensor | None, sizes: Tensor | None = None
) -> Tensor:
    assert a["mode"] == b"nearest"
    shape = torch.tensor(x.shape)
    if scales is None:
        assert sizes is not None
        scales = sizes / shape
    for axis in (2, 3):
        old, scale = x.shape[axis], float(scales[axis])
        centre = 0.5 if a["coordinate_transformation_mode"] == b"half_pixel" else 0.0
        source = (torch.arange(round(old * scale), dtype=torch.float64) + centre) / scale - centre
        nearest = source.floor() if a.get("nearest_mode") == b"floor" else torch.ceil(source - 0.5)
        x = x.index_select(axis, nearest.long().clamp(0, old - 1))
    return x


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Conv": conv,
    "BatchNormalization": lambda a, x, s, b, m, v: F.batch_norm(x, None, None, s, b, True, 0.0, a.get("epsilon", 1e-5)),
    "Relu": lambda a, x: F.relu(x),
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "Resize": resize,
    "Add": lambda a, x, y: x + y,
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Flatten": lambda a, x: x.flatten(a.get("axis", 1)),
    "Gemm": lambda a, x, w, b: x @ (w.T if a.get("transB") else w) + b,
}


@pytest.mark.parametrize("name", ["stackedunets", "demosupnet"])
def test_gradients_of_every_parameter(name: str) -> None:
    model = build(name, width=8, seed=3)
    module = OnnxModule(model)
    twin = Interpreter(model)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):  # the second step also sees updated statistics
        x = torch.randn(16, 1, 28, 28, generator=generator)
        labels = torch.randint(0, 10, (16,), generator=generator)
        module.zero_grad()
        loss = F.cross_entropy(module(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        leaves = {n: p.detach().double().requires_grad_() for n, p in module.named_parameters()}
        wanted_loss = F.cross_entropy(twin.run(x.double(), leaves), labels)
        wanted = dict(zip(leaves, torch.autograd.grad(wanted_loss, list(leaves.values())), strict=True))
        assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-6)
        whole = float(torch.cat([g.flatten() for g in wanted.values()]).norm())
        errors = {}
        for n, parameter in module.named_parameters():
            assert parameter.grad is not None
            difference = float((parameter.grad.double() - wanted[n]).norm())
            errors[n] = difference / max(float(wanted[n].norm()), FLOOR * whole)
        worst = max(errors, key=lambda n: errors[n])
        assert errors[worst] <= ERROR, (worst, errors[worst])
        for n, statistic in module.named_buffers():
            torch.testing.assert_close(statistic.double(), twin.values[n], rtol=1e-6, atol=1e-6)
