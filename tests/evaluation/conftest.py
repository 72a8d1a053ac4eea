from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_asgnas.config import Target
from onnx_asgnas.models import build
from onnx_asgnas.space import Group, SearchSpace, analyze
from onnx_asgnas.surgery import construct


@dataclass(frozen=True)
class Pruned:
    """A network with random weights, the same with some groups at zero, and its compact form."""

    original: onnx.ModelProto
    full: onnx.ModelProto
    compact: onnx.ModelProto
    space: SearchSpace


Change = Callable[[np.ndarray], np.ndarray]
Edit = Callable[[onnx.ModelProto, str, Change], onnx.ModelProto]


@pytest.fixture(scope="session")
def edit() -> Edit:
    """Gives a copy of a model in which one initializer is changed."""

    def change(model: onnx.ModelProto, name: str, how: Change) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        (tensor,) = [t for t in copy.graph.initializer if t.name == name]
        tensor.CopyFrom(numpy_helper.from_array(how(numpy_helper.to_array(tensor)), name))
        return copy

    return change


def randomise(model: onnx.ModelProto) -> None:
    """Every weight and statistic a number of its own, so that no difference hides behind a zero or a one."""
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and not tensor.name.endswith("scales"):
            noise = 0.2 * random.standard_normal(values.shape)
            values = np.abs(noise) + 0.5 if "running_var" in tensor.name else noise + values
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))


def zero(model: onnx.ModelProto, groups: list[Group]) -> None:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for piece in (piece for group in groups for piece in group.slices):
        values = numpy_helper.to_array(tensors[piece.initializer]).copy()
        values[(...,) if piece.axis is None else (slice(None),) * piece.axis + (list(piece.indices),)] = 0
        tensors[piece.initializer].CopyFrom(numpy_helper.from_array(values, piece.initializer))


@pytest.fixture(scope="session", params=["stackedunets", "demosupnet"])
def pruned(request: pytest.FixtureRequest) -> Pruned:
    """Half of the structures of a network of the paper gone."""
    original = build(request.param, width=8)
    randomise(original)
    space = analyze(original)
    selection = space.choose(lambda chosen: np.arange(len(space.candidates), dtype=float), Target(remove_groups=0.5))
    full = onnx.ModelProto()
    full.CopyFrom(original)
    zero(full, [space.groups[at] for at in selection.chosen])
    return Pruned(original, full, construct(full, space), space)
