"""The networks' weights by common names, which are those of PyTorch's state_dict: one .npz for all frameworks.

Kernels are [O, I, H, W] and matrices [O, I], as PyTorch and ONNX have them; `channels_last` turns them for the others.
Needs nothing but numpy, so that it runs in each framework's environment.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]

STATISTICS = ("running_mean", "running_var")
STAGES = 3
BLOCKS = 3
"""Of a ResNet-20: 3 stages of 3 blocks of 2 convolutions, the stem and the classifier (He et al. 2016, section 4.2)."""


def resnet20(*, width: int = 16, in_channels: int = 1, classes: int = 10, seed: int = 0) -> Weights:
    """Fresh weights of a ResNet-20: He-normal kernels (fan in), normalisations as the identity, zero bias."""
    random = np.random.default_rng(seed)
    found: Weights = {}

    def conv_norm(conv: str, norm: str, inside: int, outside: int, size: int) -> None:
        scale = np.sqrt(2 / (inside * size * size))
        found[f"{conv}.weight"] = random.normal(0, scale, (outside, inside, size, size)).astype(np.float32)
        for role, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            found[f"{norm}.{role}"] = np.full(outside, value, np.float32)

    conv_norm("conv1", "bn1", in_channels, width, 3)
    inside = width
    for stage in range(STAGES):
        outside = width << stage
        for block in range(BLOCKS):
            scope = f"layer{stage + 1}.{block}"
            conv_norm(f"{scope}.conv1", f"{scope}.bn1", inside, outside, 3)
            conv_norm(f"{scope}.conv2", f"{scope}.bn2", outside, outside, 3)
            if inside != outside:
                conv_norm(f"{scope}.downsample.0", f"{scope}.downsample.1", inside, outside, 1)
            inside = outside
    found["fc.weight"] = random.normal(0, np.sqrt(1 / inside), (classes, inside)).astype(np.float32)
    found["fc.bias"] = np.zeros(classes, np.float32)
    return found


def stackedunets(*, width: int = 8, seed: int = 0) -> Weights:
    """The weights with which the network of that name in this package begins."""
    from onnx import numpy_helper

    from onnx_asgnas import models

    graph = models.build("stackedunets", width=width, seed=seed).graph
    return {t.name: numpy_helper.to_array(t).copy() for t in graph.initializer if not t.name.startswith("resize")}


def shaken(weights: Weights, seed: int = 0) -> Weights:
    """The same network with other normalisations: untrained ones do nothing, and hide what is wrong with them."""
    random = np.random.default_rng(seed)
    return {
        name: (values + random.uniform(0.05, 0.3, values.shape)).astype(np.float32) if values.ndim == 1 else values
        for name, values in weights.items()
    }


def save(weights: Weights, path: Path) -> Path:
    """Write them where `load` finds them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **weights)  # type: ignore[arg-type]
    return path


def load(path: str | Path) -> Weights:
    """The weights of a file by name."""
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def channels_last(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A kernel as [H, W, I, O], a matrix as [I, O], anything else as it is."""
    return np.transpose(values, (2, 3, 1, 0)) if values.ndim == 4 else values.T if values.ndim == 2 else values
