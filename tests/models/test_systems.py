"""The four systems of the paper: published sizes, structures, exact removal in every mode, and a step of training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from onnx_asgnas import models
from onnx_asgnas.config import Mode, Target
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.models.darts import OPERATORS
from onnx_asgnas.models.regnet import DESIGNS
from onnx_asgnas.pruning import cut
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.training.bridge import OnnxModule

SMALL = {
    "superresnet": "superresnet?width=2&depth=10&size=16",
    "regnetx": "regnetx?width=4&depth=5&candidates=3&size=16",
    "regnety": "regnety?width=4&depth=4&candidates=2&size=16",
    "darts": "darts?width=2&cells=3&size=12",
}
EDGES = 14


def randomised(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """With random normalisations too, so that no check passes because something is one or zero."""
    random = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 1 and not tensor.name.endswith(".scales"):
            drawn = np.abs(random.normal(1, 0.3, values.shape)) + 0.1
            tensor.CopyFrom(numpy_helper.from_array(drawn.astype(np.float32), tensor.name))
    return model


def erasable(space: SearchSpace) -> list[str]:
    return [structure.tensor for structure in space.structures if structure.erasable]


@pytest.mark.parametrize(
    ("source", "params", "macs"),
    [  # parameters as torchvision and timm count them for the same four
        ("regnetx?flops=200&classes=1000&size=224", 2_684_792, 199_039_872),
        ("regnetx?flops=400&classes=1000&size=224", 5_495_976, 413_812_608),
        ("regnety?flops=200&classes=1000&size=224", 3_162_996, 199_514_080),
        ("regnety?flops=400&classes=1000&size=224", 4_344_144, 401_842_848),
        ("darts", 4_083_058, 600_002_304),  # published: 4.05 M, 614 M
        ("superresnet", 2_942_930, 251_028_736),
        ("superresnet?depth=20", 3_623_634, 261_907_712),
    ],
)
def test_size(source: str, params: int, macs: int) -> None:
    space = analyze(models.parse(source))
    assert (space.params, space.macs) == (params, macs)


def test_the_designs_of_regnet_scale() -> None:
    design = DESIGNS["x400"].scaled(8, 6)
    assert (design.widths, design.group_width) == ((8, 16, 40, 96), 8)
    assert sum(design.depths) == 6
    assert min(design.depths) == 1
    assert DESIGNS["x400"].scaled(0, 0) == DESIGNS["x400"]
    for blocks in range(4, 40):
        assert sum(DESIGNS["x200"].scaled(0, blocks).depths) == blocks


@pytest.mark.parametrize("depth", [18, 20])
def test_super_residual_blocks_can_lose_every_candidate(depth: int) -> None:
    space = analyze(models.build("superresnet", depth=depth))
    blocks = (depth - 2) // 2
    candidates = [name for name in erasable(space) if ".first.k" in name or ".second.k" in name]
    assert len(candidates) == 6 * blocks
    shortcuts = [name for name in erasable(space) if ".shortcut." in name]
    assert len(shortcuts) == 4  # of the blocks that change the width
    assert space.max_removable.structures == 6 * blocks  # a way through every block stays


def test_a_regnet_without_candidates_has_its_residuals() -> None:
    space = analyze(models.build("regnetx", width=4, depth=5))
    assert Counter(name.split(".")[2] for name in erasable(space)) == {"k3": 5, "shortcut": 4}
    supernet = analyze(models.build("regnetx", width=4, depth=5, candidates=3))
    assert Counter(name.split(".")[2] for name in erasable(supernet)) == {"k3": 5, "k5": 5, "k7": 5, "shortcut": 4}


def test_darts_has_every_operator_on_every_edge() -> None:
    model = models.parse(SMALL["darts"])
    space = analyze(model)
    found = Counter(name.split(".")[2] for name in erasable(space))
    weighted = [name for name in OPERATORS if "conv" in name]
    reductions, each = 2, 8
    assert found.pop("skip_connect") == reductions * each  # the others are the tensor itself
    assert found == dict.fromkeys(weighted, 3 * EDGES)
    pools = Counter(node.op_type for node in model.graph.node if node.op_type.endswith("Pool"))
    assert pools == {"MaxPool": 3 * EDGES, "AveragePool": 3 * EDGES, "GlobalAveragePool": 1}


@pytest.mark.parametrize("size", [28, 32, 96, 224])
def test_darts_has_a_stem_for_every_size(size: int) -> None:
    space = analyze(models.build("darts", cells=3, width=2, size=size))
    assert space.graph is not None
    features = space.graph.size("cell0.concat")
    assert features is not None
    assert features[2] in (24, 28, 32)


def test_darts_of_fourteen_cells_reduces_twice() -> None:
    graph = analyze(models.build("darts", cells=14, width=2, size=32)).graph
    assert graph is not None
    sizes = [graph.size(f"cell{cell}.concat") for cell in range(14)]
    assert [size[1:3] for size in sizes if size] == [(8, 32)] * 4 + [(16, 16)] * 5 + [(32, 8)] * 5


@pytest.mark.parametrize("source", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize(
    ("mode", "target"),
    [("erase", Target(remove_groups=0.6)), ("prune", Target(uniform=0.5)), ("joint", Target(keep_macs=0.4))],
)
def test_every_mode_is_exact(source: str, mode: Mode, target: Target) -> None:
    result = cut(randomised(models.parse(source)), target, mode=mode, criterion="random", seed=1)
    assert result.groups > 0
    verification = result.verify()
    verification.require()
    assert verification.moved is not None
    assert verification.moved > 1e-3
    assert analyze(result.compact).macs == round(result.kept["macs"] * result.space.macs)


@pytest.mark.parametrize("source", SMALL.values(), ids=SMALL)
def test_every_network_trains(source: str) -> None:
    module = OnnxModule(models.parse(source), threads=1).train()
    torch.manual_seed(0)
    images, labels = torch.randn(16, 3, *([12 if "darts" in source else 16] * 2)), torch.arange(16) % 4
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        output = module(images)
        assert isinstance(output, torch.Tensor)
        loss = torch.nn.functional.cross_entropy(output, labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in module.parameters())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("darts?stem_stride=3", "stem_stride is 3\nChoose one of: 0, 1, 2, 4, 8."),
        ("superresnet?depth=19", "depth is 19\nGive an even number from 10 on."),
        ("superresnet?depth=8", "depth is 8"),
        ("regnetx?flops=800", "flops is 800\nChoose one of: 200, 400."),
        ("regnety?candidates=4", "candidates is 4\nGive 1, 2 or 3."),
        ("regnety?depth=3", "depth is 3\nGive at least 4, or 0."),
        ("regnety?width=-1", "width is -1\nGive at least 0."),
    ],
)
def test_wrong_arguments_are_refused(source: str, message: str) -> None:
    with pytest.raises(ConversionError) as caught:
        models.parse(source)
    assert message in str(caught.value)
