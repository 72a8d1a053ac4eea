"""Export one network of the corpus by one exporter; export.py does all of them.

    python -m tools.corpus.export_one NAME {torchscript,dynamo} FILE

Prints one JSON object: what was written, and how much the outputs move with the inputs. BatchNormalization stays apart
from the convolutions; everything else is as the exporter does it when it is asked for nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tools.corpus.entry import Entry, Example
from tools.corpus.models import entry_of
from tools.corpus.weights import randomise

OPSETS = {"torchscript": 17, "dynamo": 20}
_LARGEST_FILE = 1_900_000_000


def main() -> None:
    """Export, and say what came out."""
    name, exporter, file = sys.argv[1:]
    print(json.dumps(export(entry_of(name), exporter, Path(file))))


def export(entry: Entry, exporter: str, file: Path) -> dict[str, Any]:
    """Write the network as ONNX; attention in the form that exports, the exporter's usual one first."""
    warnings.simplefilter("ignore")
    torch.backends.mha.set_fastpath_enabled(False)  # a fused operator that has no form in ONNX
    attention, *others = ("eager", "sdpa") if exporter == "torchscript" else ("sdpa", "eager")
    try:
        return _export(entry, exporter, attention, file)
    except Exception as problem:
        print(f"with {attention} attention: {type(problem).__name__}: {problem}", file=sys.stderr)
        if entry.family.startswith("torchvision"):  # which has no choice of attention
            raise
        return _export(entry, exporter, others[0], file)


def _export(entry: Entry, exporter: str, attention: str, file: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    module, example = entry.build(attention).eval(), entry.example()
    module.requires_grad_(False)
    randomise(module, dict(example.inputs), seed=len(entry.name))
    moved = _moved(module, example)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        {"torchscript": _torchscript, "dynamo": _dynamo}[exporter](module, example, Path(folder, "model.onnx"))
        _move(Path(folder, "model.onnx"), file)
    onnx.checker.check_model(str(file), full_check=True)
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "opset": next(o.version for o in onnx.load(file, load_external_data=False).opset_import if o.domain == ""),
        "attention": attention,
        "moved": moved,
        "inputs": {name: list(value.shape) for name, value in example.inputs.items()},
    }


def _move(source: Path, target: Path) -> None:
    """Bring the model to its place; weights that lie outside of it go to one file beside it."""
    if len(list(source.parent.iterdir())) == 1:
        source.replace(target)
        return
    beside = target.with_name(target.name + ".data")
    beside.unlink(missing_ok=True)
    onnx.save(onnx.load(source), target, save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name)


def _torchscript(module: nn.Module, example: Example, file: Path) -> None:
    training = torch.onnx.TrainingMode.PRESERVE if _has_batch_norm(module) else torch.onnx.TrainingMode.EVAL
    with torch.no_grad():
        torch.onnx.export(
            module,
            tuple(example.inputs.values()),
            str(file),
            input_names=list(example.inputs),
            output_names=_output_names(module, example),
            dynamic_axes={name: dict(axes) for name, axes in example.axes.items()},
            opset_version=OPSETS["torchscript"],
            training=training,
            do_constant_folding=training is torch.onnx.TrainingMode.EVAL,
            dynamo=False,
        )
    _check_open(file, example)


def _dynamo(module: nn.Module, example: Example, file: Path) -> None:
    dimensions = {symbol: torch.export.Dim(symbol) for axes in example.axes.values() for symbol in axes.values()}
    shapes = {n: {axis: dimensions[symbol] for axis, symbol in axes.items()} for n, axes in example.axes.items()}
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            (),
            kwargs=dict(example.inputs),
            dynamic_shapes=shapes,
            input_names=list(example.inputs),
            opset_version=OPSETS["dynamo"],
            optimize=not _has_batch_norm(module),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the exporter gave no model")
    if sum(p.nbytes for p in module.parameters()) > _LARGEST_FILE:
        program.save(str(file), external_data=True)
        return
    model = program.model_proto
    _forget_traces(model)
    onnx.save(model, file)


def _check_open(file: Path, example: Example) -> None:
    model = onnx.load(file, load_external_data=False)
    for value in model.graph.input:
        for axis, symbol in example.axes.get(value.name, {}).items():
            if not value.type.tensor_type.shape.dim[axis].dim_param:
                raise RuntimeError(f"axis {axis} ({symbol}) of input {value.name} was baked in")


def _forget_traces(model: onnx.ModelProto) -> None:
    """Without the notes on where in the sources of this machine each operator comes from."""
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        del node.metadata_props[:]
        node.ClearField("doc_string")


def _output_names(module: nn.Module, example: Example) -> list[str]:
    output = module(**example.inputs)
    return [f"output_{i}" for i, _ in enumerate(_leaves(output))]


def _leaves(output: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


def _moved(module: nn.Module, example: Example) -> float:
    """The largest relative change of an output when the inputs change; raises where outputs are not finite."""
    other = {
        name: value.roll(1, 0) if value.is_floating_point() and len(value) > 1 else value.roll(1, -1)
        for name, value in example.inputs.items()
    }
    with torch.no_grad():
        first, second = _leaves(module(**example.inputs)), _leaves(module(**other))
    if not all(bool(t.isfinite().all()) for t in first if t.is_floating_point()):
        raise RuntimeError("the outputs are not finite with random weights")
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a.is_floating_point() and a.numel()]
    changes = [float((a - b).abs().max() / a.abs().max()) for a, b in pairs if a.shape == b.shape]
    return max(changes, default=0.0)


if __name__ == "__main__":
    main()
