"""SuperResNet, the ASGNAS paper's stack of super-residual blocks (of the ZenNAS family, Lin et al. 2021)."""

from __future__ import annotations

import onnx

from onnx_asgnas.errors import ConversionError
from onnx_asgnas.models.builder import Activation, NetworkBuilder, require
from onnx_asgnas.models.registry import register

KERNELS = (3, 5, 7)
_STAGES = ((2, 1), (4, 2), (8, 2), (8, 2))
"""Width, in multiples of the stem's, and stride of each stage."""


@register("superresnet")
def superresnet(
    *, depth: int = 18, width: int = 8, in_channels: int = 3, classes: int = 10, size: int = 32, seed: int = 0
) -> onnx.ModelProto:
    """Residual blocks of two places, each with parallel 3x3, 5x5 and 7x7 convolutions, on `input`: `linear`.

    `depth` counts layers: the stem, two for each block, and the head; 18 is the paper's setting for 1 M parameters,
    20 the one for 2 M. Widths are `width` (stem), 2, 4, 8 and 8 times as much in the four stages, 16 times in the head:
    8-16-32-64-64-128 in the paper. Blocks are shared out evenly, the last stages get what is left over.

    In each place the candidates `stage0.block0.first.k3`, `.k5`, `.k7` (and `second`) end in a normalisation of their
    own, are added, and one of them is about what should be left: that is the choice that SuperResK{3,5,7}K{3,5,7}
    blocks offer. All of `second` may go too, and `first` with them: the residual is left, and the block skipped.
    """
    require(width=width)
    if depth < 2 + 2 * len(_STAGES) or depth % 2:
        raise ConversionError(f"depth is {depth}", fix="Give an even number from 10 on.", argument="depth")
    net = NetworkBuilder("superresnet", in_channels=in_channels, size=size, seed=seed)
    data = net.apply("Relu", "stem.relu", net.conv_bn("stem", net.input, width))
    for stage, (multiple, stride) in enumerate(_STAGES):
        for block in range(_blocks(depth)[stage]):
            scope = f"stage{stage}.block{block}"
            data = _block(net, scope, data, multiple * width, stride=1 if block else stride)
    data = net.apply("Relu", "head.relu", net.conv_bn("head", data, 16 * width, kernel=1))
    return net.classify(data, classes, names=("global_pool", "flatten", "linear"))


def _blocks(depth: int) -> list[int]:
    """How many blocks each stage has."""
    each, more = divmod((depth - 2) // 2, len(_STAGES))
    return [each + (stage >= len(_STAGES) - more) for stage in range(len(_STAGES))]


def _block(net: NetworkBuilder, scope: str, data: Activation, channels: int, *, stride: int) -> Activation:
    inner = _candidates(net, f"{scope}.first", data, channels, stride=stride)
    inner = net.apply("Relu", f"{scope}.first.relu", inner)
    residual = data
    if stride > 1 or data.channels != channels:
        residual = net.conv_bn(f"{scope}.shortcut", data, channels, kernel=1, stride=stride)
    total = net.add(f"{scope}.add", residual, _candidates(net, f"{scope}.second", inner, channels))
    return net.apply("Relu", f"{scope}.relu", total)


def _candidates(net: NetworkBuilder, scope: str, data: Activation, channels: int, *, stride: int = 1) -> Activation:
    """The sum of the parallel convolutions of one place."""
    return net.add(
        f"{scope}.sum",
        *(net.conv_bn(f"{scope}.k{kernel}", data, channels, kernel=kernel, stride=stride) for kernel in KERNELS),
    )
