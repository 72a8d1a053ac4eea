"""Published architectures by name: `torchvision:resnet50`, `timm:convnext_tiny?num_classes=10`; random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx_asgnas.converters.export import Export, Source
from onnx_asgnas.converters.inputs import InputSpec
from onnx_asgnas.converters.torch_export import export_module
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.specs import parse_spec

if TYPE_CHECKING:
    import torch

_CLASSIFIER_SIZE = 224


def torchvision(source: Source) -> Export:
    """A model of torchvision by its name; without --input it reads images of 224 × 224 (Inception: 299).

    `?weights=DEFAULT` is passed on, and then downloads them. Raises ConversionError for names that it does not have.
    """
    from torchvision import models

    spec = parse_spec(source.body, ConversionError)
    if spec.name not in models.list_models():
        raise _unknown("torchvision", spec.name, models.list_models())
    module = _built("torchvision", spec.name, lambda: models.get_model(spec.name, **spec.arguments))
    size = 299 if spec.name == "inception_v3" else _CLASSIFIER_SIZE
    return _export(module, source, (3, size, size))


def timm(source: Source) -> Export:
    """A model of timm by its name, without pretrained weights unless `?pretrained=true` asks for them.

    Without --input it reads images of its own size. Raises ConversionError for names that it does not have.
    """
    import timm as collection

    spec = parse_spec(source.body, ConversionError)
    if not collection.is_model(spec.name):
        raise _unknown("timm", spec.name, collection.list_models())
    module = _built(
        "timm", spec.name, lambda: collection.create_model(spec.name, **({"exportable": True} | dict(spec.arguments)))
    )
    return _export(module, source, tuple(collection.data.resolve_model_data_config(module)["input_size"]))


def _built(scheme: str, name: str, build: Any) -> torch.nn.Module:
    try:
        module: torch.nn.Module = build()
    except Exception as problem:  # the collection's own
        raise ConversionError(
            f"{scheme}:{name} cannot be built: {type(problem).__name__}: {problem}",
            fix=f"Its arguments are those that {scheme} takes for it.",
        ) from problem
    return module.eval()


def _export(module: torch.nn.Module, source: Source, image: tuple[int, ...]) -> Export:
    inputs = source.inputs or (InputSpec(name=_first_argument(module), dtype="float32", shape=("N", *image)),)
    return export_module(module, inputs)


def _first_argument(module: torch.nn.Module) -> str:
    import inspect

    return next(iter(inspect.signature(module.forward).parameters))


def _unknown(scheme: str, name: str, known: list[str]) -> ConversionError:
    import difflib

    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    fix = f"Did you mean {', '.join(near)}?" if near else f"It has {len(known)} models, as {', '.join(known[:5])}."
    return ConversionError(f"{scheme} has no model {name!r}", fix=fix)
