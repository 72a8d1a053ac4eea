"""Networks in the manner of torchvision's, as both of torch's exporters write them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_asgnas.graph import normalise
from onnx_asgnas.space import analyze
from onnx_asgnas.surgery import construct
from tests.random_graphs import difference, outputs_of, valid_choice, zeroed
from tests.space.exported_networks import exported

TORCHSCRIPT = ("resnet", "densenet", "googlenet", "mobilenet", "unet")
DYNAMO = ("densenet", "mobilenet", "unet")
"""It takes seconds a network: those with the most shape arithmetic."""

ERASABLE = {"resnet": (8, 6), "densenet": (6, 6), "googlenet": (8, 6), "mobilenet": (3, 3), "unet": (3, 3)}
"""How many structures can be erased, and how many of them at once.

ResNet: six residual branches, and two downsampling convolutions, of which a block may lose only one. DenseNet: each
layer. GoogLeNet: four branches in each of two modules, of which one must stay. MobileNet: the blocks that are added.
U-Net: both ways up, and the residual refinement.
"""

PLAIN = {"Constant", "Shape", "Gather", "Slice", "Unsqueeze", "Cast", "CastLike", "Expand", "ConstantOfShape", "Range"}
"""What the normal form has folded away."""


@pytest.fixture(scope="module")
def export() -> Callable[[str, str], onnx.ModelProto]:
    made: dict[tuple[str, str], onnx.ModelProto] = {}

    def get(name: str, exporter: str) -> onnx.ModelProto:
        if (name, exporter) not in made:
            made[name, exporter] = exported(name, exporter)
        return made[name, exporter]

    return get


CASES = [(n, "torchscript") for n in TORCHSCRIPT] + [(n, "dynamo") for n in DYNAMO]


@pytest.mark.parametrize(("name", "exporter"), CASES)
def test_exported_networks(name: str, exporter: str, export: Callable[[str, str], onnx.ModelProto]) -> None:
    model = export(name, exporter)
    plain = normalise(model)
    assert not PLAIN & {node.op_type for node in plain.graph.node}
    assert normalise(plain).SerializeToString() == plain.SerializeToString()
    for batch in (1, 3):
        assert difference(outputs_of(model, batch), outputs_of(plain, batch)) == 0

    space = analyze(model)
    assert space.unknown == ()
    assert {s.reason for s in space.structures} == {""}
    assert (len(space.candidates), space.max_removable.structures) == ERASABLE[name]

    random = np.random.default_rng(0)
    for _ in range(4):
        chosen = valid_choice(space, lambda n: int(random.integers(n)))
        full = zeroed(plain, [space.groups[i] for i in chosen])
        compact = construct(full, space)
        assert len(compact.graph.node) < len(plain.graph.node)
        for batch in (1, 3):
            assert difference(outputs_of(full, batch), outputs_of(compact, batch)) <= 1e-5


def test_both_exporters_give_one_space(export: Callable[[str, str], onnx.ModelProto]) -> None:
    """Whatever the names, the same structures with the same costs."""
    for name in DYNAMO:
        spaces = [analyze(export(name, exporter)) for exporter in ("torchscript", "dynamo")]
        one, two = ([(s.params, s.macs, s.minimal, len(s.variables)) for s in space.structures] for space in spaces)
        assert one == two
        assert spaces[0].params == spaces[1].params


def test_parameters_keep_the_names_that_they_have_in_torch(export: Callable[[str, str], onnx.ModelProto]) -> None:
    space = analyze(export("densenet", "dynamo"))
    layer = [f"first.0.{name}" for name in ("norm1.weight", "norm1.bias", "conv1.weight", "norm2.weight")]
    assert set(space.candidates[0].variables) >= set(layer[2:])
    assert set(space.candidates[0].variables) <= {*layer, "first.0.norm2.bias", "first.0.conv2.weight"}
