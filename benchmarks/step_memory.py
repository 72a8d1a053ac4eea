"""Peak memory of a training step above what lies in memory before it: PyTorch eager, the engines, micro-batches.

Each measurement is a process of its own. The network is a ResNet-18 for small images; the step is torch's SGD with
momentum. Linux only: the peak is VmHWM, reset before the step.

    python benchmarks/step_memory.py --batch 128
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

CASES = ("eager", "ort", "ort micro", "torch", "torch micro")


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(leaving)
        same = stride == 1 and entering == leaving
        self.short = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))
        )
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, entering, H, W] to [N, leaving, H / stride, W / stride]."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.short(x))


def resnet18() -> nn.Module:
    """ResNet-18 in the form for images of 32 by 32."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    width = 64
    for leaving, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers.append(Block(width, leaving, stride))
        width = leaving
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def in_onnx(module: nn.Module) -> bytes:
    """The module as an ONNX model."""
    from onnx_asgnas.training.bridge import OnnxModule  # noqa: F401  (before torch's exporter, which imports onnx)

    file = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        (torch.zeros(2, 3, 32, 32),),
        file,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "N"}},
    )
    return file.getvalue()


def memory(what: str) -> float:
    """A line of this process's status, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {what}")


def measure(case: str, batch: int) -> dict[str, float]:
    """Peak of two steps above what was in memory before, in MB."""
    from onnx_asgnas.training.bridge import OnnxModule
    from onnx_asgnas.training.events import Timing
    from onnx_asgnas.training.gradients import Parts
    from onnx_asgnas.training.losses import objective

    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    engine, _, micro = case.partition(" ")
    network = resnet18()
    module = network.train() if engine == "eager" else OnnxModule(in_onnx(network), engine, threads=1).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    parts = Parts(micro_batch=batch // 4 if micro else None)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(2):
        if isinstance(module, OnnxModule):
            parts.gradients(module, objective("cross_entropy"), ({"x": x}, labels), Timing())
        else:
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x), labels).backward()
        optimizer.step()
    weights = sum(p.numel() for p in module.parameters()) * 4 / 2**20
    return {"peak": memory("VmHWM") - before, "weights": weights}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--case", choices=CASES, help="measure one, and print it as JSON")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.batch)))
        return
    eager = None
    for case in arguments.cases:
        command = [sys.executable, __file__, "--case", case, "--batch", str(arguments.batch)]
        found = subprocess.run(command, check=False, capture_output=True, text=True)
        if found.returncode:
            print(f"{case:12} fails: {(found.stderr.strip().splitlines() or ['?'])[-1]}")
            continue
        peak = json.loads(found.stdout.splitlines()[-1])
        eager = eager or peak["peak"]
        own = 2 * peak["weights"]  # gradients and momentum, which no micro-batch makes smaller
        print(
            f"{case:12} {peak['peak']:7.0f} MB, {peak['peak'] / eager:.2f} of eager; "
            f"without gradients and momentum {peak['peak'] - own:7.0f} MB"
        )


if __name__ == "__main__":
    main()
