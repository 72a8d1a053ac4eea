"""A training step of each engine against PyTorch eager on the source module, paired, in one process.

ResNet-18 for images of 32x32, MobileNetV2 and a BERT of 6 layers (width 768, 12 heads; `encoder` is a smaller one),
written in torch.nn and exported; StackedUnets, whose source is ONNX, as the module that `export --to torch` writes.
Every round takes one step of each in turn, so that drift hits all alike; printed are medians in milliseconds and the
median of the ratios to eager.

    python benchmarks/engine_step.py --network resnet18 --batch 32 --steps 15 --threads 1
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

from onnx_asgnas.config import EngineOptions
from onnx_asgnas.converters import convert
from onnx_asgnas.export import export_torch
from onnx_asgnas.export.checking import load_network
from onnx_asgnas.training.bridge import OnnxModule


class Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside))
        self.second = nn.Sequential(nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside))
        self.short = nn.Sequential()
        if stride != 1 or inside != outside:
            self.short = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.short(x))


def resnet18() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inside = 64
    for at, outside in enumerate((64, 128, 256, 512)):
        layers += [Block(inside, outside, 1 if at == 0 else 2), Block(outside, outside, 1)]
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Inverted(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [nn.Conv2d(wide, outside, 1, bias=False), nn.BatchNorm2d(outside)]
        self.layers, self.residual = nn.Sequential(*layers), stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return x + out if self.residual else out


def mobilenet_v2() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    inside = 32
    for expansion, outside, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for at in range(count):
            layers.append(Inverted(inside, outside, stride if at == 0 else 1, expansion))
            inside = outside
    layers += [nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.heads = nn.Linear(width, width), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5), -1)
        return self.out((weights @ v).transpose(1, 2).reshape(x.shape))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.norm = Attention(width, heads), nn.LayerNorm(width)
        self.up, self.down, self.norm2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x + self.attention(x))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Encoder(nn.Module):
    def __init__(self, width: int = 256, heads: int = 4, layers: int = 6, words: int = 1000) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Parameter(torch.randn(64, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.head = nn.Linear(width, 10)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.layers(self.words(ids) + self.places)[:, 0])
        return out


def exported(net: nn.Module, x: torch.Tensor) -> onnx.ModelProto:
    """The network in ONNX, batch normalisation not folded away."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), (x,), file, dynamo=False, opset_version=20, do_constant_folding=False,
            input_names=["x"], dynamic_axes={"x": {0: "N"}},
        )  # fmt: skip
    net.train()
    return onnx.ModelProto.FromString(file.getvalue())


def written(model: onnx.ModelProto) -> nn.Module:
    """The network as the torch.nn.Module that the package writes of it."""
    with tempfile.TemporaryDirectory() as folder:
        net: nn.Module = load_network(export_torch(model, Path(folder)).code)
    return net.train()


def images(size: int, channels: int = 3) -> Callable[[int], torch.Tensor]:
    return lambda batch: torch.randn(batch, channels, size, size)


def words(known: int, length: int) -> Callable[[int], torch.Tensor]:
    return lambda batch: torch.randint(0, known, (batch, length))


NETWORKS: dict[str, tuple[Callable[[], nn.Module | onnx.ModelProto], Callable[[int], torch.Tensor]]] = {
    "resnet18": (resnet18, images(32)),
    "mobilenet_v2": (mobilenet_v2, images(224)),
    "stackedunets": (lambda: convert("models:stackedunets?width=8"), images(28, 1)),
    "bert": (lambda: Encoder(width=768, heads=12, words=30522), words(30522, 64)),
    "encoder": (Encoder, words(1000, 64)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engines", default="torch,ort", help="of torch, ort, torch-channels-last, torch-compile")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    make, sample = NETWORKS[arguments.network]
    source, x = make(), sample(arguments.batch)
    labels = torch.randint(0, 10, (arguments.batch,))
    net, model = (source, exported(source, x)) if isinstance(source, nn.Module) else (written(source), source)
    contestants: dict[str, nn.Module] = {"eager": net}
    for name in arguments.engines.split(","):
        engine, _, option = name.partition("-")
        options = {option.replace("-", "_"): True} if option else {}
        contestants[name] = OnnxModule(model, EngineOptions(engine=engine, threads=arguments.threads, **options))
    optimizers = {name: torch.optim.SGD(n.parameters(), lr=0.01, momentum=0.9) for name, n in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(3 + arguments.steps):
        for name, network in contestants.items():
            started = time.perf_counter()
            optimizers[name].zero_grad()
            F.cross_entropy(network(x), labels).backward()
            optimizers[name].step()
            times[name].append((time.perf_counter() - started) * 1e3)
    eager = np.array(times["eager"][3:])
    for name, values in times.items():
        mine = np.array(values[3:])
        print(f"{name:24}{np.median(mine):10.1f} ms{np.median(mine / eager):8.3f} times eager")


if __name__ == "__main__":
    main()
