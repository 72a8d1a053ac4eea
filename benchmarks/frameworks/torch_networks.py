"""ResNet-20 and StackedUnets as a PyTorch user writes them: modules over [N, C, H, W]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.frameworks import weights as stored


def conv3x3(inside: int, outside: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """A convolution over 3x3 pixels that keeps the size, divided by the stride and rounded up."""
    return nn.Conv2d(inside, outside, 3, stride, padding=1, bias=bias)


class BasicBlock(nn.Module):
    """Two convolutions around a residual, which a third one brings to another width."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inside, outside, stride)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = conv3x3(outside, outside)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample: nn.Module = nn.Identity()
        if inside != outside:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class ResNet20(nn.Module):
    """ResNet-20 for small images (He et al. 2016): three stages of three blocks, each stage twice as wide."""

    def __init__(self, width: int = 16, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, stride=1)
        self.layer2 = self._stage(width, 2 * width, stride=2)
        self.layer3 = self._stage(2 * width, 4 * width, stride=2)
        self.fc = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(inside: int, outside: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inside, outside, stride)
        return nn.Sequential(first, *(BasicBlock(outside, outside, 1) for _ in range(stored.BLOCKS - 1)))

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(image)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


class StackedUnets(nn.Module):
    """Two U-nets side by side, one that pools and one with strided convolutions; numbered as in the paper's figure."""

    def __init__(self, width: int = 8, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()

        def conv(stride: int = 1, *, bias: bool = True, inside: int = width) -> nn.Conv2d:
            return conv3x3(inside, width, stride, bias=bias)

        def norm() -> nn.BatchNorm2d:
            return nn.BatchNorm2d(width)

        self.conv0, self.bn1, self.conv3 = conv(bias=False, inside=in_channels), norm(), conv()
        self.conv5, self.conv7, self.bn9 = conv(), conv(), norm()
        self.conv11, self.conv12 = conv(), conv()
        self.conv14, self.conv15 = conv(), conv()
        self.conv26, self.conv27, self.bn28 = conv(), conv(bias=False), norm()
        self.conv36, self.bn38 = conv(), norm()

        self.conv39, self.bn40 = conv(bias=False, inside=in_channels), norm()
        self.conv42, self.conv43 = conv(2), conv()
        self.conv45, self.bn47, self.conv48, self.conv49 = conv(2), norm(), conv(), conv()
        self.conv50, self.conv51, self.conv52 = conv(2), conv(), conv()
        self.conv63, self.conv64, self.bn65 = conv(), conv(bias=False), norm()
        self.conv73, self.bn75 = conv(), norm()

        self.linear79 = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self._pooled(image) + self._strided(image)
        logits: Tensor = self.linear79(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits

    def _pooled(self, image: Tensor) -> Tensor:
        top = self.conv3(F.relu(self.bn1(self.conv0(image))))
        upper = self.bn9(F.relu(self.conv7(F.relu(self.conv5(halved(top))))))
        lower = self.conv12(self.conv11(halved(upper)))
        bottom = self.conv15(self.conv14(halved(lower)))
        rising = upsampled(bottom, lower) + lower
        rising = upsampled(rising, upper) + upper
        rising = F.relu(self.bn28(self.conv27(self.conv26(rising))))
        rising = F.relu(upsampled(rising, top) + top)
        result: Tensor = self.bn38(F.relu(self.conv36(rising)))
        return result

    def _strided(self, image: Tensor) -> Tensor:
        top = F.relu(self.bn40(self.conv39(image)))
        upper = F.relu(self.conv43(self.conv42(top)))
        lower = self.conv49(self.conv48(self.bn47(F.relu(self.conv45(upper)))))
        bottom = self.conv52(self.conv51(self.conv50(lower)))
        rising = upsampled(bottom, lower) + lower
        rising = upsampled(rising, upper) + upper
        rising = F.relu(self.bn65(self.conv64(self.conv63(rising))))
        rising = F.relu(upsampled(rising, top) + top)
        result: Tensor = self.bn75(F.relu(self.conv73(rising)))
        return result


def halved(x: Tensor) -> Tensor:
    """The largest of each 2x2 pixels; of an odd size the last row and column count too."""
    return F.max_pool2d(x, 2, ceil_mode=True)


def upsampled(x: Tensor, like: Tensor) -> Tensor:
    """The image with its pixels repeated up to the size of another one."""
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def resnet20(weights: str, width: int = 16) -> nn.Module:
    """The ResNet-20 with the weights of a file."""
    return _with_weights(ResNet20(width), weights)


def stackedunets(weights: str, width: int = 8) -> nn.Module:
    """StackedUnets with the weights of a file."""
    return _with_weights(StackedUnets(width), weights)


def _with_weights(module: nn.Module, path: str) -> nn.Module:
    found = {name: torch.from_numpy(values) for name, values in stored.load(path).items()}
    counters = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    module.load_state_dict(found | counters)
    return module.eval()
