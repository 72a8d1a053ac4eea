"""What is compared: the networks, the frameworks that they are written in, and where their files lie."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frameworks import weights
from benchmarks.peers.records import CHECKOUT
from onnx_asgnas.config import Mode, Target

RECORDS = CHECKOUT / "docs" / "frameworks.jsonl"
WORK = CHECKOUT / "runs" / "frameworks"
"""Where weights, models and runs lie unless another folder is given."""
IMAGE = "image"
DATA = "fashion-mnist?train=6000"
SEEDS = (0, 1, 2)
CONTROL = "PyTorch, one weight moved"
"""What rounding does: the first framework's model with a single number changed by as little as there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Framework:
    """A framework: how its networks are named as a source, and whose interpreter runs them.

    `module` holds a function for each network; `environment` is one of `onnx-asgnas env` (None: this one).
    """

    name: str
    scheme: str
    module: str
    channels_last: bool
    environment: str | None = None

    def source(self, network: str, file: Path, width: int) -> str:
        """The network with the weights of a file, as `convert` takes it."""
        return f"{self.scheme}:benchmarks.frameworks.{self.module}:{network}?weights={file}&width={width}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """What must be said of the input; Keras knows it."""
        shape = "N,28,28,1" if self.channels_last else "N,1,28,28"
        return () if self.scheme == "keras" else (f"{IMAGE}:float32[{shape}]",)

    @property
    def python(self) -> Path:
        """The interpreter that has the framework; raises ConversionError, with the command, where there is none."""
        from onnx_asgnas.converters import environments

        if self.environment is None:
            return Path(sys.executable)
        return environments.require(self.environment, f"{self.name}: needs its packages").python

    def batch(self, images: Any) -> Any:
        """Images [N, 1, 28, 28] as its networks read them."""
        return images.reshape(len(images), 28, 28, 1) if self.channels_last else images


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A network: its weights by width and seed, and the search that it goes through."""

    name: str
    title: str
    fresh: Callable[..., weights.Weights]
    width: int
    mode: Mode
    target: Target
    epochs: int


FRAMEWORKS = {
    framework.name: framework
    for framework in (
        Framework(name="PyTorch", scheme="torch", module="torch_networks", channels_last=False),
        Framework(name="Keras", scheme="keras", module="keras_networks", channels_last=True, environment="keras"),
        Framework(name="Flax", scheme="jax", module="flax_networks", channels_last=True, environment="jax"),
    )
}
NETWORKS = {
    network.name: network
    for network in (
        Network(
            name="resnet20",
            title="ResNet-20",
            fresh=weights.resnet20,
            width=8,
            mode="prune",
            target=Target(keep_macs=0.5),
            epochs=4,
        ),
        Network(
            name="stackedunets",
            title="StackedUnets",
            fresh=weights.stackedunets,
            width=8,
            mode="erase",
            target=Target(remove_groups=0.5),
            epochs=8,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one comparison, made where they are missing."""

    folder: Path

    def weights(self, network: Network, seed: int) -> Path:
        """The network's weights by seed."""
        path = self.folder / "weights" / f"{network.name}-{seed}.npz"
        return path if path.exists() else weights.save(network.fresh(width=network.width, seed=seed), path)

    def model(self, network: Network, framework: Framework, seed: int) -> Path:
        """The converted network; converted now where it is missing."""
        import onnx

        from onnx_asgnas.converters import convert

        path = self.folder / "models" / f"{network.name}-{framework.name}-{seed}.onnx"
        if not path.exists():
            source = framework.source(network.name, self.weights(network, seed), network.width)
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save(convert(source, inputs=framework.inputs), path)
        return path

    def control(self, network: Network, seed: int) -> Path:
        """PyTorch's network with one number in one weight moved to the next one that float32 has."""
        import onnx
        from onnx import numpy_helper

        model = self.model(network, FRAMEWORKS["PyTorch"], seed)
        path = model.with_name(f"{network.name}-control-{seed}.onnx")
        if not path.exists():
            moved = onnx.load(model)
            kernel = next(t for t in moved.graph.initializer if len(t.dims) == 4)
            values = numpy_helper.to_array(kernel).copy()
            values.flat[0] = np.nextafter(values.flat[0], np.float32(np.inf))
            kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
            onnx.save(moved, path)
        return path

    def contenders(self, network: Network, frameworks: Sequence[str], seed: int) -> dict[str, tuple[Path, Path]]:
        """Model and data of each framework, and of the control."""
        found = {
            name: (self.model(network, FRAMEWORKS[name], seed), self.data(FRAMEWORKS[name])) for name in frameworks
        }
        return found | {CONTROL: (self.control(network, seed), self.data(FRAMEWORKS["PyTorch"]))}

    def data(self, framework: Framework, text: str = DATA) -> Path:
        """The images in the framework's layout, in the same order for all."""
        path = self.folder / f"images-{'nhwc' if framework.channels_last else 'nchw'}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **{name: framework.batch(a) if a.ndim == 4 else a for name, a in _arrays(text).items()})
        return path


def _arrays(text: str) -> dict[str, Any]:
    """Training and test images [N, 1, 28, 28] and labels, named as `npz:` reads them."""
    from onnx_asgnas.training.data import ArraySplit, ModelInput, open_data

    read = ModelInput(name=IMAGE, shape=(None, 1, 28, 28), dtype=np.dtype(np.float32))
    found = open_data(text, inputs=[read], classes=10)
    arrays = {}
    for suffix, split in (("", found.train), ("_test", found.test)):
        assert isinstance(split, ArraySplit) and not isinstance(split.targets, dict)
        arrays[f"{IMAGE}{suffix}"] = split.inputs[IMAGE].numpy()
        arrays[f"label{suffix}"] = split.targets.numpy()
    return arrays
