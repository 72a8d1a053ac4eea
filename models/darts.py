"""DARTS supernets (Liu, Simonyan, Yang 2019): cells in which every edge carries all candidate operators."""

from __future__ import annotations

import math

import onnx

from onnx_asgnas.errors import ConversionError
from onnx_asgnas.models.builder import Activation, NetworkBuilder, require
from onnx_asgnas.models.registry import register

STEPS = 4
"""Intermediate nodes of a cell; each reads the two inputs of the cell and all nodes before it."""
OPERATORS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
_STEM_STRIDES = (1, 2, 4, 8)


@register("darts")
def darts(
    *,
    cells: int = 8,
    width: int = 24,
    in_channels: int = 3,
    classes: int = 10,
    size: int = 32,
    stem_stride: int = 0,
    seed: int = 0,
) -> onnx.ModelProto:
    """A stack of cells on `input` [N, in_channels, size, size] with all seven operators on all 14 edges of each.

    A cell reads the two before it, brought to its width by `pre0` and `pre1`. Its node 2, …, 5 is the sum of all
    operators of all its edges, which are named by their ends (`cell0.edge0_2.sep_conv_3x3`; 0 and 1 are the cell's
    inputs); its output is the Concat of the nodes. The cells at a third and two thirds of the depth halve the size and
    double the width. A skip connection that halves the size is a factorised reduction with weights; the other ones and
    the poolings are parameter-free.

    Operators are erased, not weighed. Instead of mixing weights each sum has a constant factor of 1/7, about what those
    of DARTS start from: poolings and skip connections pass on what they get, and without it every node would be
    several times as large as the one before.

    The stem divides the size by `stem_stride`: 1, 2, 4 or 8, or 0 for 1 below 64 pixels, 4 below 160, and 8 from there
    on (the paper's stem for ImageNet). At 24 channels and 8 cells on [N, 3, 32, 32] there are 4.08 M parameters and
    600 M multiply-accumulates; published for this depth are 4.05 M and 614 M.
    """
    require(cells=cells, width=width)
    net = NetworkBuilder("darts", in_channels=in_channels, size=size, seed=seed)
    before, last = _stem(net, width, _stem_stride(stem_stride, size))
    for index in range(cells):
        reduces = index in (cells // 3, 2 * cells // 3)
        width = 2 * width if reduces else width
        before, last = last, _cell(net, f"cell{index}", before, last, width, reduces=reduces)
    return net.classify(last, classes, names=("global_pool", "flatten", "linear"))


def _stem_stride(asked: int, size: int) -> int:
    if asked == 0:
        return 1 if size < 64 else 4 if size < 160 else 8
    if asked not in _STEM_STRIDES:
        raise ConversionError(
            f"stem_stride is {asked}",
            fix=f"Choose one of: 0, {', '.join(map(str, _STEM_STRIDES))}.",
            argument="stem_stride",
        )
    return asked


def _stem(net: NetworkBuilder, width: int, stride: int) -> tuple[Activation, Activation]:
    """What the first cell reads: the stem's output twice, or, where it divides by 8, the last two stages of it."""
    if stride == 1:
        stem = net.conv_bn("stem0", net.input, 3 * width)
        return stem, stem
    first = net.conv_bn("stem0", net.input, math.ceil(width / 2), stride=2)
    first = net.apply("Relu", "stem0.relu", first)
    second = net.conv_bn("stem1", first, width, stride=1 if stride == 2 else 2)
    if stride < 8:
        return second, second
    return second, net.conv_bn("stem2", net.apply("Relu", "stem2.relu", second), width, stride=2)


def _cell(
    net: NetworkBuilder, name: str, before: Activation, last: Activation, width: int, *, reduces: bool
) -> Activation:
    if before.size == last.size:
        first = _relu_conv_bn(net, f"{name}.pre0", before, width)
    else:
        first = _factorised_reduction(net, f"{name}.pre0", before, width)
    states = [first, _relu_conv_bn(net, f"{name}.pre1", last, width)]
    for node in range(2, 2 + STEPS):
        operands = [
            _candidate(net, f"{name}.edge{index}_{node}.{operator}", state, stride=2 if reduces and index < 2 else 1)
            for index, state in enumerate(states)
            for operator in OPERATORS
        ]
        total = net.add(f"{name}.node{node}.sum", *operands)
        states.append(net.scaled(f"{name}.node{node}", total, 1 / len(OPERATORS)))
    return net.concat(f"{name}.concat", *states[2:])


def _candidate(net: NetworkBuilder, name: str, data: Activation, *, stride: int) -> Activation:
    """One operator of an edge; a skip connection that keeps the size is the tensor itself."""
    operator = name.rpartition(".")[2]
    kernel = int(operator[-1]) if operator[-1].isdigit() else 1
    if operator == "skip_connect":
        return data if stride == 1 else _factorised_reduction(net, name, data, data.channels)
    if operator.endswith("pool_3x3"):
        return net.pool("MaxPool" if operator.startswith("max") else "AveragePool", name, data, stride=stride)
    if operator.startswith("dil"):
        return _separable(net, f"{name}.1", data, kernel=kernel, stride=stride, dilation=2)
    return _separable(net, f"{name}.2", _separable(net, f"{name}.1", data, kernel=kernel, stride=stride), kernel=kernel)


def _relu_conv_bn(net: NetworkBuilder, name: str, data: Activation, channels: int) -> Activation:
    return net.conv_bn(name, net.apply("Relu", f"{name}.relu", data), channels, kernel=1)


def _separable(
    net: NetworkBuilder, name: str, data: Activation, *, kernel: int, stride: int = 1, dilation: int = 1
) -> Activation:
    """Relu, a convolution of each channel by itself, one across channels, and a normalisation."""
    active = net.apply("Relu", f"{name}.relu", data)
    depthwise = net.conv(
        f"{name}.depthwise",
        active,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=data.channels,
        gain=1.0,
    )
    return net.conv_bn(name, depthwise, kernel=1)


def _factorised_reduction(net: NetworkBuilder, name: str, data: Activation, channels: int) -> Activation:
    """Half of the channels from the even pixels, the rest from the odd ones (of an odd size, with one of zeros)."""
    active = net.apply("Relu", f"{name}.relu", data)
    if min(channels, data.size) == 1:  # nothing to share out, or no odd pixel
        return net.batch_normalization(f"{name}.bn", net.conv(f"{name}.even", active, channels, kernel=1, stride=2))
    even = net.conv(f"{name}.even", active, math.ceil(channels / 2), kernel=1, stride=2)
    odd = net.conv(
        f"{name}.odd",
        net.shifted(f"{name}.shift", active),
        channels // 2,
        kernel=1,
        stride=2,
        pads=(0, data.size % 2),
    )
    return net.batch_normalization(f"{name}.bn", net.concat(f"{name}.join", even, odd))
