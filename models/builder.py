"""A small builder for convolutional networks, so that a network's code reads like its drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.errors import ConversionError

OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Activation:
    """A tensor of shape [N, channels, size, size] and its name, which is also that of the node that gives it."""

    name: str
    channels: int
    size: int


class NetworkBuilder:
    """Collects nodes and seeded weights, then gives a checked ONNX model.

    Nodes are named by the caller, and a node's output tensor bears the node's name; dots in a name say where in the
    network it is (`stage1.block0.conv1`). Weights are `<node>.weight`, `<node>.bias`, and for BatchNormalization
    `.running_mean` and `.running_var` too. Convolutions and the linear layer draw He-normal weights (He et al. 2015,
    fan in; variance 2/fan where a ReLU or a normalisation follows, else 1/fan) from one generator, in the order of the
    calls; biases are zero and BatchNormalization starts as the identity.
    """

    def __init__(self, name: str, *, in_channels: int, size: int, seed: int) -> None:
        require(in_channels=in_channels, size=size)
        require(0, seed=seed)
        self._name = name
        self._generator = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._values: list[onnx.ValueInfoProto] = []
        self.input = Activation("input", in_channels, size)

    def chain(
        self,
        start: Activation,
        names: str,
        *,
        channels: int | None = None,
        kernel: int = 3,
        stride: int = 1,
        resize_to: Activation | None = None,
    ) -> Activation:
        """Add a chain of operators, written as its names: `"pool4-conv5-relu6"`.

        The letters of a name choose the operator: conv, bn, relu, maxpool (or pool), avgpool, resize. Convolutions give
        `channels` channels (as many as come in where it is None) and keep the size, but for the first, which divides it
        by `stride`, rounding up; poolings halve it, rounding up. A resize repeats pixels up to the size of `resize_to`.
        """
        steps = names.split("-")
        current = start
        for step, following in zip(steps, [*steps[1:], ""], strict=True):
            operator = _operator(step)
            if operator == "conv":
                behind = _operator(following)
                current = self.conv(
                    step,
                    current,
                    channels,
                    kernel=kernel,
                    stride=stride,
                    bias=behind != "bn",  # the normalisation would take it away again
                    gain=2.0 if behind in ("relu", "bn") else 1.0,
                )
                stride = 1
            elif operator == "bn":
                current = self.batch_normalization(step, current)
            elif operator == "relu":
                current = self.apply("Relu", step, current)
            elif operator in ("pool", "maxpool"):
                current = self._halve("MaxPool", step, current)
            elif operator == "avgpool":
                current = self._halve("AveragePool", step, current)
            elif operator == "resize" and resize_to is not None:
                current = self._resize(step, current, resize_to.size)
            else:
                raise ValueError(f"{step!r} in {names!r} is no operator of this builder")
        return current

    def conv(
        self,
        name: str,
        data: Activation,
        channels: int | None = None,
        *,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        gain: float = 2.0,
        pads: tuple[int, int] | None = None,
    ) -> Activation:
        """A convolution to `channels` (None: as many as come in) whose weights have the variance gain/fan.

        It keeps the size, divided by `stride` and rounded up; other `pads`, (before, after), give another size.
        """
        channels = data.channels if channels is None else channels
        before, after = (dilation * (kernel // 2),) * 2 if pads is None else pads
        fan_in = data.channels // groups * kernel * kernel
        weight = self._normal((channels, data.channels // groups, kernel, kernel), variance=gain / fan_in)
        operands = [self._initializer(f"{name}.weight", weight)]
        if bias:
            operands.append(self._initializer(f"{name}.bias", np.zeros(channels)))
        geometry: dict[str, Any] = {
            "kernel_shape": [kernel] * 2,
            "pads": [before, before, after, after],
            "strides": [stride] * 2,
        }
        if dilation > 1:
            geometry["dilations"] = [dilation] * 2
        if groups > 1:
            geometry["group"] = groups
        size = (data.size + before + after - dilation * (kernel - 1) - 1) // stride + 1
        return self._add_node("Conv", name, [data], operands, channels=channels, size=size, attributes=geometry)

    def batch_normalization(self, name: str, data: Activation) -> Activation:
        """A BatchNormalization that starts as the identity."""
        start = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        operands = [self._initializer(f"{name}.{role}", np.full(data.channels, value)) for role, value in start.items()]
        return self._add_node(
            "BatchNormalization", name, [data], operands, attributes={"epsilon": 1e-5, "momentum": 0.9}
        )

    def conv_bn(self, scope: str, data: Activation, channels: int | None = None, **options: Any) -> Activation:
        """A convolution and its normalisation, `<scope>.conv` and `<scope>.bn`; the options are those of `conv`."""
        return self.batch_normalization(f"{scope}.bn", self.conv(f"{scope}.conv", data, channels, **options))

    def apply(self, op_type: str, name: str, *operands: Activation) -> Activation:
        """An operator without weights and attributes (Relu, Sigmoid, Mul) whose result is like its first operand."""
        return self._add_node(op_type, name, list(operands))

    def scaled(self, name: str, data: Activation, factor: float) -> Activation:
        """A tensor times a constant, `<name>.factor`, which does not train."""
        return self._add_node("Mul", name, [data], [self._initializer(f"{name}.factor", np.array(factor))])

    def pool(self, op_type: str, name: str, data: Activation, *, stride: int = 1) -> Activation:
        """A MaxPool or AveragePool over 3x3 pixels, of which those outside of the image do not count."""
        geometry = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4}
        return self._add_node(op_type, name, [data], size=-(-data.size // stride), attributes=geometry)

    def global_pool(self, name: str, data: Activation) -> Activation:
        """The mean of each channel, [N, C, 1, 1]."""
        return self._add_node("GlobalAveragePool", name, [data], size=1)

    def shifted(self, name: str, data: Activation) -> Activation:
        """The image without its first row and column, by a Slice."""
        operands = [
            self._integers(f"{name}.{role}", values)
            for role, values in {"starts": [1, 1], "ends": [data.size] * 2, "axes": [2, 3]}.items()
        ]
        return self._add_node("Slice", name, [data], operands, size=data.size - 1)

    def add(self, name: str, *operands: Activation) -> Activation:
        """The sum of tensors of one shape: a chain of Adds, `<name>` the last and `<name>_1`, `_2`, … before it."""
        total = operands[0]
        for at, operand in enumerate(operands[1:], 1):
            total = self._add_node("Add", name if at == len(operands) - 1 else f"{name}_{at}", [total, operand])
        return total

    def concat(self, name: str, *operands: Activation) -> Activation:
        """The operands one behind another along the channels."""
        channels = sum(operand.channels for operand in operands)
        return self._add_node("Concat", name, list(operands), channels=channels, attributes={"axis": 1})

    def classify(self, features: Activation, classes: int, *, names: tuple[str, str, str]) -> onnx.ModelProto:
        """End in a global average pool, a flatten and a linear layer (named in this order), and give the model."""
        require(2, classes=classes)
        pool, flatten, linear = names
        pooled = self.global_pool(pool, features)
        flat = self._add_node("Flatten", flatten, [pooled], attributes={"axis": 1})
        self._values.pop()  # its shape [N, C] is inferred; what is kept here is [N, C, H, W]
        weight = self._normal((classes, features.channels), variance=1 / features.channels)
        operands = [
            self._initializer(f"{linear}.weight", weight),
            self._initializer(f"{linear}.bias", np.zeros(classes)),
        ]
        self._add_node("Gemm", linear, [flat], operands, attributes={"transB": 1})
        return self._model(helper.make_tensor_value_info(linear, TensorProto.FLOAT, ["N", classes]))

    def _halve(self, op_type: str, name: str, data: Activation) -> Activation:
        odd = data.size % 2  # one more row and column at the end, so that none is left out
        geometry = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, odd, odd]}
        return self._add_node(op_type, name, [data], size=(data.size + 1) // 2, attributes=geometry)

    def _resize(self, name: str, data: Activation, size: int) -> Activation:
        """Nearest by scales: explicit sizes would hold the batch too, which is dynamic."""
        scale = np.float32(size / data.size)
        while int(data.size * float(scale)) < size:  # 5/3 in float32 is a little less, and would round down
            scale = np.nextafter(scale, np.float32(np.inf))
        scales = self._initializer(f"{name}.scales", np.array([1, 1, scale, scale]))
        modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self._add_node("Resize", name, [data], ["", scales], size=size, attributes=modes)

    def _normal(self, shape: tuple[int, ...], *, variance: float) -> NDArray[np.float64]:
        return self._generator.normal(scale=np.sqrt(variance), size=shape)

    def _initializer(self, name: str, value: NDArray[np.float64]) -> str:
        self._initializers.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def _integers(self, name: str, values: list[int]) -> str:
        self._initializers.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _add_node(
        self,
        op_type: str,
        name: str,
        data: list[Activation],
        operands: list[str] | None = None,
        *,
        channels: int | None = None,
        size: int | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> Activation:
        inputs = [*(activation.name for activation in data), *(operands or [])]
        self._nodes.append(helper.make_node(op_type, inputs, [name], name=name, **(attributes or {})))
        first = data[0]
        result = Activation(name, channels or first.channels, size or first.size)
        self._values.append(_value_info(result))
        return result

    def _model(self, output: onnx.ValueInfoProto) -> onnx.ModelProto:
        values = self._values[:-1]  # the last one is the output
        inputs = [_value_info(self.input)]
        graph = helper.make_graph(self._nodes, self._name, inputs, [output], self._initializers, value_info=values)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="onnx-asgnas")
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model


def _value_info(activation: Activation) -> onnx.ValueInfoProto:
    """Said for every activation: inference loses the open batch at a Resize by scales."""
    shape: list[str | int | None] = ["N", activation.channels, activation.size, activation.size]
    return helper.make_tensor_value_info(activation.name, TensorProto.FLOAT, shape)


def require(minimum: int = 1, /, **values: int) -> None:
    """Raise ConversionError for the first of the named values that is below `minimum`."""
    for name, value in values.items():
        if value < minimum:
            raise ConversionError(f"{name} is {value}", fix=f"Give at least {minimum}.", argument=name)


def _operator(step: str) -> str:
    return step.rstrip("0123456789")
