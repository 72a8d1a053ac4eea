"""StackedUnets, the two-column network of the ASGNAS paper."""

from __future__ import annotations

import onnx

from onnx_asgnas.models.builder import Activation, NetworkBuilder, require
from onnx_asgnas.models.registry import register


@register("stackedunets")
def stackedunets(
    *, width: int = 16, in_channels: int = 1, classes: int = 10, size: int = 28, seed: int = 0
) -> onnx.ModelProto:
    """Two U-nets side by side on `input` [N, in_channels, size, size], added and classified: `linear79` [N, classes].

    Operators are numbered as in the paper's figure (`conv0`, `bn1`, … `add76`), and each output tensor bears its
    operator's name. The first U-net pools where the second one has strided convolutions.

    The paper does not publish widths. Here every convolution gives `width` channels: the figure adds a level's output
    to the level above without a convolution between (add20 → resize24 → add25), so levels cannot differ there. At 64 on
    [N, 3, 32, 32] that is 0.78 M parameters and 207 M multiply-accumulates; published are 0.80 M and 184 M.

    Three halvings round up (28, 14, 7, 4), and each Resize repeats pixels to exactly the size that its Add wants, by
    scales, so that the batch stays dynamic: 7/4, 2, 2 for 28, and 2 throughout where `size` is a multiple of 8.
    """
    require(width=width)
    net = NetworkBuilder("stackedunets", in_channels=in_channels, size=size, seed=seed)
    first = _pooled_unet(net, width)
    second = _strided_unet(net, width)
    total = net.add("add76", first, second)
    return net.classify(total, classes, names=("global_pool77", "flatten78", "linear79"))


def _pooled_unet(net: NetworkBuilder, width: int) -> Activation:
    top = net.chain(net.input, "conv0-bn1-relu2-conv3", channels=width)
    upper = net.chain(top, "pool4-conv5-relu6-conv7-relu8-bn9")
    lower = net.chain(upper, "pool10-conv11-conv12")
    bottom = net.chain(lower, "pool13-conv14-conv15-resize19", resize_to=lower)
    rising = net.chain(net.add("add20", bottom, lower), "resize24", resize_to=upper)
    rising = net.chain(net.add("add25", rising, upper), "conv26-conv27-bn28-relu29-resize33", resize_to=top)
    return net.chain(net.add("add34", rising, top), "relu35-conv36-relu37-bn38")


def _strided_unet(net: NetworkBuilder, width: int) -> Activation:
    top = net.chain(net.input, "conv39-bn40-relu41", channels=width)
    upper = net.chain(top, "conv42-conv43-relu44", stride=2)
    lower = net.chain(upper, "conv45-relu46-bn47-conv48-conv49", stride=2)
    bottom = net.chain(lower, "conv50-conv51-conv52-resize56", stride=2, resize_to=lower)
    rising = net.chain(net.add("add57", bottom, lower), "resize61", resize_to=upper)
    rising = net.chain(net.add("add62", rising, upper), "conv63-conv64-bn65-relu66-resize70", resize_to=top)
    return net.chain(net.add("add71", rising, top), "relu72-conv73-relu74-bn75")
