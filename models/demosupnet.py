"""DemoSupNet, our completion of the ASGNAS paper's small demonstration network."""

from __future__ import annotations

import onnx

from onnx_asgnas.models.builder import NetworkBuilder, require
from onnx_asgnas.models.registry import register


@register("demosupnet")
def demosupnet(
    *, width: int = 16, in_channels: int = 1, classes: int = 10, size: int = 28, seed: int = 0
) -> onnx.ModelProto:
    """A network with one of each kind of choice, on `input` [N, in_channels, size, size]: `linear` [N, classes].

    The paper describes it in part: Conv1-BN1 fans out to Conv2-BN2, MaxPool-Conv3-BN3 and an AveragePool, a Concat
    joins them for Conv6, Conv7-BN7 is a link that must stay, Conv8-BN8 may leave. The rest is ours. Six structures can
    be erased:

    - `bn2` and `bn3`, two branches of the Concat (the third one holds the AveragePool and keeps the way open);
    - `bn5`, a residual pair Conv4-BN4-Conv5-BN5 on the pooled branch;
    - `bn8`, a residual Conv8-BN8;
    - `bn9` and `bn10`, a 3x3 and a 5x5 candidate for the same place, of which one must stay. So five can go.
    """
    require(width=width)
    net = NetworkBuilder("demosupnet", in_channels=in_channels, size=size, seed=seed)
    stem = net.chain(net.input, "conv1-bn1-relu1", channels=width)
    strided = net.chain(stem, "conv2-bn2", stride=2)
    pooled = net.chain(stem, "maxpool3-conv3-bn3")
    averaged = net.chain(stem, "avgpool4")
    averaged = net.add("add5", averaged, net.chain(averaged, "conv4-bn4-relu4-conv5-bn5"))
    joined = net.concat("concat6", strided, pooled, averaged)
    link = net.chain(joined, "conv6-bn6-relu6", channels=width, kernel=1)
    link = net.chain(link, "conv7-bn7-relu7")
    residual = net.chain(net.add("add8", link, net.chain(link, "conv8-bn8")), "relu8")
    small = net.chain(residual, "conv9-bn9", channels=2 * width, stride=2)
    large = net.chain(residual, "conv10-bn10", channels=2 * width, kernel=5, stride=2)
    candidates = net.chain(net.add("add10", small, large), "relu10")
    return net.classify(candidates, classes, names=("global_pool", "flatten", "linear"))
