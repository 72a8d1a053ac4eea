"""Small networks of each kind from both of torch's exporters: cuts are exact, and as deep as one would expect."""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from onnx_asgnas.config import Target
from onnx_asgnas.pruning import cut
from onnx_asgnas.space import analyze
from tests.corpus.exactness import TOLERANCE, check
from tests.corpus.running import Runner
from tests.corpus.small_networks import IMAGES, TEXTS, TOKENS, WORDS
from tests.space.exported_networks import NETWORKS

DYNAMO = ("vit", "gpt", "llama", "unet with group norm")
"""It takes seconds a network: those with the most shape arithmetic."""
FREE = {
    "resnet": 108,
    "densenet": 90,
    "googlenet": 56,
    "mobilenet": 118,
    "unet": 56,
    "shufflenet": 32,
    "convnext": 96,
    "unet with group norm": 21,
    "vit": 56,
    "swin": 28,
    "mixer": 34,
    "gpt": 56,
    "llama": 42,
    "bert": 28,
    "conformer": 12,
    "lstm": 38,
}
"""How many channel groups may leave.

Convolutional networks: every channel but the classes. A residual stream under LayerNorm stays, so of the others it is
heads and hidden units: ViT and GPT have two blocks of 4 + 24, Swin and BERT one, Llama 2 key-value heads (with those
that read them) + 24, and the 16 of its stream, which an RMSNorm lets go. ConvNeXt: two blocks of 48. Mixer: 10 over the
tokens, 24 over the channels. The U-Net with GroupNorm loses whole groups (2 + 3), the channels of the way up and those
before the last layer (8 + 8). Conformer: the 12 pairs of its gated unit. LSTM: 16 of the embedding, 12 hidden units, 10
behind them.
"""


@cache
def exported(name: str, exporter: str) -> onnx.ModelProto:
    """A network with every parameter and statistic random and distinct, by one of the exporters, the batch open."""
    torch.manual_seed(0)
    network = (NETWORKS | IMAGES | TEXTS)[name]().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3
            parameter.copy_(torch.randn_like(parameter) * scale + (parameter.dim() == 1) * 0.5)
        for key, buffer in network.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(0, 0.5)
            elif key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    example = torch.randn(2, 3, 16, 16) if name not in TEXTS else torch.randint(0, WORDS, (2, TOKENS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn of their own deprecated parts
        if exporter == "dynamo":
            batch = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(network, (example,), dynamo=True, dynamic_shapes=batch, verbose=False)
            assert program is not None
            return program.model_proto
        file, axes = io.BytesIO(), {"x": {0: "batch"}, "y": {0: "batch"}}
        names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
        torch.onnx.export(network, (example,), file, dynamo=False, opset_version=17, **names)
        return onnx.load_from_string(file.getvalue())


def feeds_for(model: onnx.ModelProto, batch: int) -> dict[str, Any]:
    random = np.random.default_rng(batch)
    (value,) = model.graph.input
    if value.type.tensor_type.elem_type == onnx.TensorProto.INT64:
        return {value.name: random.integers(0, WORDS, (batch, TOKENS))}
    return {value.name: random.standard_normal((batch, 3, 16, 16)).astype(np.float32)}


CASES = [(name, "torchscript") for name in (*NETWORKS, *IMAGES, *TEXTS)] + [(name, "dynamo") for name in DYNAMO]


@pytest.mark.parametrize(("name", "exporter"), CASES)
def test_cuts_are_exact_and_deep(name: str, exporter: str) -> None:
    model = exported(name, exporter)
    space = analyze(model, mode="prune")
    assert space.channels.count == FREE[name]
    feeds = [feeds_for(model, batch) for batch in (1, 3)]
    for seed, fraction in enumerate((0.25, 0.5, 0.75)):
        found = check(cut(space, Target(uniform=fraction), criterion="random", seed=seed), feeds, Runner())
        assert found.problems == ()
        assert found.moved > 100 * TOLERANCE


@pytest.mark.parametrize("name", FREE)
def test_structures_and_channels_leave_together(name: str) -> None:
    model = exported(name, "torchscript")
    space = analyze(model, mode="joint")
    result = cut(space, Target(keep_params=0.8), criterion="random")
    assert check(result, [feeds_for(model, 2)], Runner()).problems == ()
