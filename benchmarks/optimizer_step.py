"""The cost of an H2SPG step against torch's own SGD step, on 11.7 M parameters in ResNet-18's shapes.

Every residual branch (conv, bn, relu, conv, bn) is a group, half of which goes. Both optimisers run a whole training,
step by step in turn in one process on the same made-up gradients, so that drift hits both alike, and only `step()` is
timed. Printed is each phase's median, and their mean weighted by the phases' lengths. `--groups channels` takes every
output channel of the branches' convolutions as a group instead. With `--model FILE` the parameters and the groups are
those of an ONNX model in mode prune, of which half the parameters go, and the choice is the real one (its one step is
left out of the median, and printed).

    python benchmarks/optimizer_step.py --steps 300
    python benchmarks/optimizer_step.py --steps 60 --model resnet50.onnx
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onnx_asgnas.config import Target
from onnx_asgnas.space import Group, SearchSpace, Selection, Slice, analyze
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.h2spg import H2SPG, Phase


def resnet18_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the parameters; those of the residual branches start with "branch"."""
    yield from (("stem.conv", (64, 3, 7, 7)), ("stem.scale", (64,)), ("stem.bias", (64,)))
    inputs, branch = 64, 0
    for width in (64, 128, 256, 512):
        for _ in range(2):
            for layer, channels in enumerate((inputs, width)):
                yield f"branch{branch}.conv{layer}", (width, channels, 3, 3)
                yield f"branch{branch}.scale{layer}", (width,)
                yield f"branch{branch}.bias{layer}", (width,)
            if inputs != width:
                yield f"shortcut{branch}.conv", (width, inputs, 1, 1)
                yield f"shortcut{branch}.scale", (width,)
                yield f"shortcut{branch}.bias", (width,)
            inputs, branch = width, branch + 1
    yield from (("head.weight", (1000, 512)), ("head.bias", (1000,)))


class Parameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.ParameterDict()
        for name, shape in resnet18_shapes():
            self.weights[name.replace(".", "/")] = nn.Parameter(torch.randn(shape, generator=generator))


def branches(model: Parameters) -> tuple[Group, ...]:
    names = [f"weights.{n}" for n in model.weights if n.startswith("branch")]
    parts: dict[str, list[Slice]] = {}
    for name in names:
        parts.setdefault(name.partition("/")[0], []).append(Slice(initializer=name))
    return tuple(Group(name=name, slices=tuple(slices)) for name, slices in parts.items())


def channels(model: Parameters) -> tuple[Group, ...]:
    groups = []
    for name, weight in model.weights.items():
        if name.startswith("branch") and "conv" in name:
            same = [f"weights.{name.replace('conv', kind)}" for kind in ("conv", "scale", "bias")]
            groups.extend(
                Group(name=f"{name}[{i}]", slices=tuple(Slice(initializer=n, axis=0, indices=(i,)) for n in same))
                for i in range(len(weight))
            )
    return tuple(groups)


class HalfOfAll:
    """A space without validity, which chooses the most redundant half at once."""

    def __init__(self, groups: tuple[Group, ...]) -> None:
        self.groups = self.candidates = groups

    def choose(
        self,
        rank: Callable[[tuple[int, ...]], NDArray[np.float64]],
        target: Target,
        *,
        hierarchy: bool = True,
        by_gain: bool = False,
        **widths: int,
    ) -> Selection:
        chosen = np.argsort(-rank(()), kind="stable")[: len(self.groups) // 2]
        return Selection(
            chosen=tuple(chosen.tolist()), removed=len(chosen), kept_params=0.5, kept_macs=0.5, valid=True, exact=True,
            dead=(),
        )  # fmt: skip


def made_up(kind: str) -> tuple[nn.Module, SearchSpace]:
    """ResNet-18's shapes, and a space over them."""
    model = Parameters()
    space: Any = HalfOfAll(branches(model) if kind == "branches" else channels(model))
    return model, space


def from_onnx(path: str) -> tuple[nn.Module, SearchSpace]:
    """The parameters of an ONNX model under their names, and its space in mode prune."""
    space = analyze(path, mode="prune")
    return OnnxModule(path), space


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def paired_steps(
    h2spg: H2SPG, sgd: torch.optim.Optimizer, models: tuple[nn.Module, nn.Module], steps: int
) -> NDArray[np.float64]:
    """Seconds of every step, [steps, 2], the two optimisers taking turns in going first."""
    noise = torch.randn(size(models[0])) * 1e-3
    seconds = np.empty((steps, 2))
    for step in range(steps):
        noise = noise.roll(1)
        for model in models:
            parts = noise.split([p.numel() for p in model.parameters()])
            for p, part in zip(model.parameters(), parts, strict=True):
                p.grad = part.view_as(p).clone()
        for place in (0, 1) if step % 2 else (1, 0):
            start = time.perf_counter()
            (h2spg, sgd)[place].step()
            seconds[step, place] = time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=300, help="steps of the whole run")
    parser.add_argument("--select-at", type=float, default=0.1)
    parser.add_argument("--zero-at", type=float, default=0.3)
    parser.add_argument("--score", default="hesso", help="a score that reads statistics")
    parser.add_argument("--model", help="an ONNX model whose channels are the groups")
    parser.add_argument("--groups", choices=("branches", "channels"), default="branches")
    parser.add_argument("--fused", action="store_true", help="H2SPG with torch's fused kernels (SGD stays foreach)")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    model, space = from_onnx(options.model) if options.model else made_up(options.groups)
    twin = copy.deepcopy(model)
    common = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 1e-4}
    h2spg = H2SPG(
        model,
        space,
        target=Target(keep_params=0.5),
        total_steps=options.steps,
        score=options.score,
        channel_score=options.score,
        select_at=options.select_at,
        zero_at=options.zero_at,
        fused=options.fused,
        **common,  # type: ignore[arg-type]
    )
    sgd = torch.optim.SGD(twin.parameters(), foreach=True, **common)  # type: ignore[arg-type]

    print(f"{size(model) / 1e6:.1f} M parameters, {len(space.groups)} groups, {torch.get_num_threads()} threads")
    times = paired_steps(h2spg, sgd, (model, twin), options.steps)
    lengths = np.diff([0, h2spg.schedule.select, h2spg.schedule.zero, options.steps])
    print(f"{'phase':10} {'steps':>6} {'H2SPG ms':>9} {'SGD ms':>9} {'ratio':>6}")
    total = np.zeros(2)
    for phase, length, part in zip(Phase, lengths, np.split(times, lengths.cumsum()[:-1]), strict=True):
        median = np.median(part, axis=0) * 1e3
        total += median * length
        print(f"{phase.value:10} {length:6} {median[0]:9.2f} {median[1]:9.2f} {median[0] / median[1]:6.2f}")
    print(f"the choice itself: {times[h2spg.schedule.select, 0] * 1e3:.0f} ms, once")
    mean = total / options.steps
    print(f"{'whole run':10} {options.steps:6} {mean[0]:9.2f} {mean[1]:9.2f} {mean[0] / mean[1]:6.2f}")


if __name__ == "__main__":
    main()
