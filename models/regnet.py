"""RegNet X and Y (Radosavovic et al. 2020), and supernets of them with parallel candidate bottlenecks."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx_asgnas.errors import ConversionError
from onnx_asgnas.models.builder import Activation, NetworkBuilder, require
from onnx_asgnas.models.registry import register

STEM_WIDTH = 32
SQUEEZE = 0.25
"""Width of the squeeze in a squeeze-and-excitation, of what the block reads."""
_MOST_CANDIDATES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """The stages of one network of the family: widths, numbers of blocks, and channels in a group."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    group_width: int

    def scaled(self, width: int, depth: int) -> Design:
        """The design with a first stage of this width, and this many blocks; 0 leaves either as published."""
        widths, depths, group_width = self.widths, self.depths, self.group_width
        if width:
            group_width = min(group_width, width)
            widths = tuple(_multiple(w * width / self.widths[0], group_width) for w in self.widths)
        if depth:
            depths = _shares(self.depths, depth)
        return Design(widths=widths, depths=depths, group_width=group_width)


DESIGNS = {
    "x200": Design(widths=(24, 56, 152, 368), depths=(1, 1, 4, 7), group_width=8),
    "x400": Design(widths=(32, 64, 160, 400), depths=(1, 2, 7, 12), group_width=16),
    "y200": Design(widths=(24, 56, 152, 368), depths=(1, 1, 4, 7), group_width=8),
    "y400": Design(widths=(48, 104, 208, 440), depths=(1, 3, 6, 6), group_width=8),
}
"""The published stages (tables 13 and 14 of the paper's appendix), by family and millions of MACs on 224 pixels."""


@register("regnetx")
def regnetx(
    *,
    flops: int = 200,
    candidates: int = 1,
    width: int = 0,
    depth: int = 0,
    in_channels: int = 3,
    classes: int = 10,
    size: int = 32,
    stem_stride: int = 0,
    seed: int = 0,
) -> onnx.ModelProto:
    """RegNetX-200MF (`flops=200`) or -400MF on `input` [N, in_channels, size, size]: `linear` [N, classes].

    With `candidates` 2 or 3 it is a supernet: every block adds parallel bottlenecks whose grouped convolutions have
    3x3, 5x5 and 7x7 pixels (`stage0.block0.k3`, …). `width` is that of the first stage, of which the others are
    multiples as published; `depth` the number of blocks, shared out over the stages as published; 0 is the published
    one. The stem divides the size by `stem_stride`, where it is 0 by 2 from 64 pixels on as published, else by 1.
    """
    return _regnet("x", flops, candidates, width, depth, in_channels, classes, size, stem_stride, seed)


@register("regnety")
def regnety(
    *,
    flops: int = 200,
    candidates: int = 1,
    width: int = 0,
    depth: int = 0,
    in_channels: int = 3,
    classes: int = 10,
    size: int = 32,
    stem_stride: int = 0,
    seed: int = 0,
) -> onnx.ModelProto:
    """RegNetY-200MF or -400MF: as RegNetX, with squeeze-and-excitation in every bottleneck."""
    return _regnet("y", flops, candidates, width, depth, in_channels, classes, size, stem_stride, seed)


def _regnet(
    family: str,
    flops: int,
    candidates: int,
    width: int,
    depth: int,
    in_channels: int,
    classes: int,
    size: int,
    stem_stride: int,
    seed: int,
) -> onnx.ModelProto:
    require(0, width=width, depth=depth, stem_stride=stem_stride)
    design = _design(family, flops).scaled(width, depth)
    if not 1 <= candidates <= _MOST_CANDIDATES:
        raise ConversionError(f"candidates is {candidates}", fix="Give 1, 2 or 3.", argument="candidates")
    net = NetworkBuilder(f"regnet{family}", in_channels=in_channels, size=size, seed=seed)
    stem_width = STEM_WIDTH if not width else min(STEM_WIDTH, width)
    stride = stem_stride or (2 if size >= 64 else 1)
    data = net.apply("Relu", "stem.relu", net.conv_bn("stem", net.input, stem_width, stride=stride))
    for stage, (channels, blocks) in enumerate(zip(design.widths, design.depths, strict=True)):
        for block in range(blocks):
            data = _block(
                net,
                f"stage{stage}.block{block}",
                data,
                channels,
                stride=1 if block else 2,
                group_width=design.group_width,
                kernels=tuple(3 + 2 * at for at in range(candidates)),
                squeezes=family == "y",
            )
    return net.classify(data, classes, names=("global_pool", "flatten", "linear"))


def _design(family: str, flops: int) -> Design:
    published = sorted(int(name[1:]) for name in DESIGNS if name[0] == family)
    if flops not in published:
        raise ConversionError(
            f"flops is {flops}", fix=f"Choose one of: {', '.join(map(str, published))}.", argument="flops"
        )
    return DESIGNS[f"{family}{flops}"]


def _block(
    net: NetworkBuilder,
    scope: str,
    data: Activation,
    channels: int,
    *,
    stride: int,
    group_width: int,
    kernels: tuple[int, ...],
    squeezes: bool,
) -> Activation:
    """The shortcut and the candidate bottlenecks, added."""
    shortcut = data
    if stride > 1 or data.channels != channels:
        shortcut = net.conv_bn(f"{scope}.shortcut", data, channels, kernel=1, stride=stride)
    bottlenecks = []
    for kernel in kernels:
        name = f"{scope}.k{kernel}"
        inner = net.apply("Relu", f"{name}.relu1", net.conv_bn(f"{name}.1", data, channels, kernel=1))
        groups = channels // min(group_width, channels)
        inner = net.conv_bn(f"{name}.2", inner, kernel=kernel, stride=stride, groups=groups)
        inner = net.apply("Relu", f"{name}.relu2", inner)
        if squeezes:
            inner = _excited(net, f"{name}.se", inner, max(1, round(SQUEEZE * data.channels)))
        bottlenecks.append(net.conv_bn(f"{name}.3", inner, kernel=1))
    return net.apply("Relu", f"{scope}.relu", net.add(f"{scope}.add", shortcut, *bottlenecks))


def _excited(net: NetworkBuilder, name: str, data: Activation, squeezed: int) -> Activation:
    """Squeeze-and-excitation (Hu et al. 2018): every channel times a factor that the means of all channels give."""
    gate = net.conv(f"{name}.squeeze", net.global_pool(f"{name}.pool", data), squeezed, kernel=1, bias=True)
    gate = net.apply("Relu", f"{name}.relu", gate)
    gate = net.conv(f"{name}.excite", gate, data.channels, kernel=1, bias=True, gain=1.0)
    return net.apply("Mul", f"{name}.mul", data, net.apply("Sigmoid", f"{name}.sigmoid", gate))


def _multiple(width: float, of: int) -> int:
    """The nearest multiple, at least one."""
    return max(1, round(width / of)) * of


def _shares(depths: tuple[int, ...], total: int) -> tuple[int, ...]:
    """So many blocks, shared out in proportion, at least one to a stage; what rounding leaves goes to the last ones."""
    if total < len(depths):
        raise ConversionError(f"depth is {total}", fix=f"Give at least {len(depths)}, or 0.", argument="depth")
    found = [max(1, int(total * depth / sum(depths))) for depth in depths]
    at = len(found) - 1
    while sum(found) != total:
        step = 1 if sum(found) < total else -1
        found[at] = max(1, found[at] + step)
        at = at - 1 if at else len(found) - 1
    return tuple(found)
