"""The networks of the comparison: the torch module, and the ONNX files that both of torch's exporters make of it.

Module and files hold the same weights (tools/corpus: random, no two alike), so that both sides read one network.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from tools.corpus.export import export
from tools.corpus.models import entry_of
from tools.corpus.weights import randomise

TIMED = ("resnet50", "densenet121", "vit_b_16", "regnet_x_400mf", "mobilenet_v2")
ALL = (*TIMED, "swin_t", "convnext_tiny")
EXPORTERS = ("torchscript", "dynamo")
_LIMIT = 900.0
"""Seconds for one export."""
_OPSET = 17


def file_of(name: str, exporter: str, folder: Path) -> Path:
    """The network as ONNX; exported if the folder does not have it. Raises RuntimeError where that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{exporter}.onnx"
    if not path.exists():
        (folder / "logs").mkdir(exist_ok=True)
        record = export(entry_of(name), exporter, folder, _LIMIT)
        if record["status"] != "exported":
            raise RuntimeError(f"{name} does not export by {exporter}: {record['reason']}")
    return path


def module_of(name: str) -> tuple[nn.Module, Tensor]:
    """The network in torch with the weights of its files, ready for inference, and one image, [1, 3, H, W]."""
    torch.manual_seed(0)
    entry = entry_of(name)
    module, example = entry.build("eager").eval(), entry.example()
    randomise(module, dict(example.inputs), seed=len(entry.name))
    (images,) = example.inputs.values()
    return module, images[:1].clone()


def export_module(module: nn.Module, image: Tensor, path: Path) -> onnx.ModelProto:
    """The module as ONNX as it stands, the batch open, normalisations apart from the convolutions."""
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
    modes = torch.onnx.TrainingMode
    torch.backends.mha.set_fastpath_enabled(False)  # a fused operator that has no form in ONNX
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (image,),
            str(path),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}},
            opset_version=_OPSET,
            training=modes.PRESERVE if norms else modes.EVAL,
            do_constant_folding=not norms,
            dynamo=False,
        )
    return onnx.load(path)
