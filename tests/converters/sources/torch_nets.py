"""Modules for the tests of the PyTorch converter; the tests run in this folder."""

from __future__ import annotations

import threading

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class ResNet(nn.Module):
    """Residuals, a Concat, adaptive pooling and flatten; BatchNormalization with statistics of its own."""

    def __init__(self, width: int = 4, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, width, 3, 1, 1)
        self.bn = nn.BatchNorm2d(width)
        self.block = Block(width, 2 * width, 2)
        self.pool = nn.MaxPool2d(2)
        self.side = nn.Conv2d(width, width, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * width, 10))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 1.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(image)))
        return self.head(torch.cat([self.block(x), self.pool(self.side(x))], dim=1))


class TwoInputs(nn.Module):
    """Two inputs of one open length, an optional one between them, tied weights, a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(5, 6)
        self.head = nn.Linear(6, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(
        self, ids: torch.Tensor, scale: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        x = self.embedding(ids)
        if mask is not None:
            x = x * mask[..., None]
        return {"logits": self.head(x), "hidden": x}


class Fused(nn.Module):
    """One argument, a dict: an image, and a mask of its places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.body = nn.Conv2d(12, 12, 3, padding=1, stride=2)
        self.head = nn.Linear(12, 5)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = torch.relu(self.stem(batch["image"])) * batch["mask"][:, None]
        return {"scores": self.head(torch.relu(self.body(x)).mean((2, 3)))}


class Pair(nn.Module):
    """A tuple of an image and a vector, whose lengths are open."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv1d(4, 10, 3, padding=1)
        self.other = nn.Linear(6, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.head(torch.relu(self.one(pair[0]).mean(2) + self.other(pair[1])))


class Recurrent(nn.Module):
    """An LSTM in both directions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(16, 12, bidirectional=True, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(sequence)[0])


def encoder() -> nn.Module:
    """The transformer encoder that torch brings."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 3) @ torch.ones(3, 1)


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Unsupported(nn.Module):
    """A decomposition that ONNX has no operator for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.qr(x)[0]


class Hanging(nn.Module):
    """What never ends."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        threading.Event().wait()
        return x


def broken() -> nn.Module:
    raise RuntimeError("no such weights")


def no_module() -> int:
    return 3


linear = nn.Linear(3, 2)
number = 3
