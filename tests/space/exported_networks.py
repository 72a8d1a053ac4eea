"""Small networks in the manner of well-known ones, written in PyTorch and exported by its own exporters.

They follow torchvision's code for each family, at a few channels and 16x16 pixels, so that what an exporter makes of
such code is tested and not what we would write in ONNX.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 16


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class ResNet(nn.Module):
    """Three stages of two basic blocks, the first block of a stage with a strided 1x1 convolution beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 1, 1)
        )
        widths = [(8, 8, 1), (8, 8, 1), (8, 12, 2), (12, 12, 1), (12, 16, 2), (16, 16, 1)]
        self.layers = nn.Sequential(*(BasicBlock(*width) for width in widths))
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.layers(self.stem(x))), 1))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(inputs, 8, 1, bias=False)
        self.conv2 = nn.Conv2d(8, growth, 3, padding=1, bias=False)
        self.drop = nn.Dropout(0.2)

    def forward(self, features: list[Tensor]) -> Tensor:
        bottleneck = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.drop(self.conv2(F.relu(self.norm2(bottleneck))))


class DenseNet(nn.Module):
    """Two dense blocks of three layers, each reading all features before it, and a transition between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.first = nn.ModuleList(DenseLayer(8 + 4 * i, 4) for i in range(3))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1, bias=False), nn.AvgPool2d(2, 2)
        )
        self.second = nn.ModuleList(DenseLayer(10 + 4 * i, 4) for i in range(3))
        self.norm = nn.BatchNorm2d(22)
        self.classifier = nn.Linear(22, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.first:
            features.append(layer(features))
        features = [self.transition(torch.cat(features, 1))]
        for layer in self.second:
            features.append(layer(features))
        x = F.relu(self.norm(torch.cat(features, 1)))
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class ConvNorm(nn.Sequential):
    def __init__(self, inputs: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(inputs, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels, eps=0.001), nn.ReLU6() if groups > 1 else nn.ReLU())


class Inception(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = ConvNorm(inputs, 4, 1)
        self.branch2 = nn.Sequential(ConvNorm(inputs, 4, 1), ConvNorm(4, 6, 3))
        self.branch3 = nn.Sequential(ConvNorm(inputs, 2, 1), ConvNorm(2, 4, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), ConvNorm(inputs, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """Two Inception modules with a pooling between them, and a classifier after dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8, 3)
        self.first, self.second = Inception(8), Inception(18)
        self.fc = nn.Linear(18 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.first(self.stem(x)), 3, stride=2, ceil_mode=True)
        x = F.avg_pool2d(self.second(x), 2)
        return self.fc(F.dropout(torch.flatten(x, 1), training=self.training))


class InvertedResidual(nn.Module):
    """MobileNetV2 and V3: expand, depthwise, squeeze and excite, project; added where the shape stays."""

    def __init__(self, inputs: int, channels: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        hidden = inputs * 3
        self.adds = stride == 1 and inputs == channels
        self.expand = ConvNorm(inputs, hidden, 1)
        self.depthwise = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.fc1, self.fc2 = nn.Conv2d(hidden, 4, 1), nn.Conv2d(4, hidden, 1)
        self.squeeze = squeeze
        self.project = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        if self.squeeze:
            scale = F.adaptive_avg_pool2d(y, 1)
            y = F.hardsigmoid(self.fc2(F.relu(self.fc1(scale)))) * y
        y = self.project(y)
        return x + y if self.adds else y


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.Hardswish())
        blocks = [(6, 6, 1, True), (6, 8, 2, False), (8, 8, 1, False), (8, 8, 1, True)]
        self.blocks = nn.Sequential(*(InvertedResidual(*block) for block in blocks))
        self.classifier = nn.Sequential(nn.Linear(8, 12), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.stem(x)).mean([2, 3]))


class UNet(nn.Module):
    """Two levels down, one up by a transposed convolution and one by interpolation; skips are joined, one is added."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = ConvNorm(3, 6, 3), ConvNorm(6, 8, 3)
        self.bottom = nn.Sequential(ConvNorm(8, 8, 3), ConvNorm(8, 8, 3))
        self.up2 = nn.ConvTranspose2d(8, 8, 2, 2)
        self.merge2 = ConvNorm(16, 6, 3)
        self.merge1 = ConvNorm(12, 6, 3)
        self.refine = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 6, 3, padding=1))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        low = self.bottom(F.max_pool2d(two, 2))
        up = self.merge2(torch.cat([self.up2(low), two], 1))
        up = F.interpolate(up, scale_factor=2, mode="nearest")
        up = self.merge1(torch.cat([up, one], 1))
        return self.head(up + self.refine(up))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": ResNet,
    "densenet": DenseNet,
    "googlenet": GoogLeNet,
    "mobilenet": MobileNet,
    "unet": UNet,
}


def exported(name: str, exporter: str) -> onnx.ModelProto:
    """One of the networks with every parameter and statistic random, exported by `dynamo` or `torchscript`."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3 + 0.5)
        for key, buffer in network.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(0, 0.5)
            elif key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    example = torch.randn(2, 3, SIZE, SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn of their own deprecated parts
        if exporter == "dynamo":
            batch = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(
                network, (example,), dynamo=True, optimize=False, dynamic_shapes=batch, verbose=False
            )
            assert program is not None
            return program.model_proto
        file = io.BytesIO()
        torch.onnx.export(
            network,
            (example,),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        return onnx.load_from_string(file.getvalue())
