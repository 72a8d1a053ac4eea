"""A Hugging Face model from a local folder with config.json and safetensors: `hf:FOLDER[?task=causal-lm]`.

Nothing is downloaded. A folder with a configuration only gives random weights, and says so.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_asgnas.converters.export import Export, Source
from onnx_asgnas.converters.factories import refuse_pickle
from onnx_asgnas.converters.failing import first_line
from onnx_asgnas.converters.inputs import InputSpec
from onnx_asgnas.converters.torch_export import export_module
from onnx_asgnas.errors import ConversionError
from onnx_asgnas.specs import parse_spec

if TYPE_CHECKING:
    import torch

_TASKS = {
    "feature-extraction": "AutoModel",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "image-classification": "AutoModelForImageClassification",
    "semantic-segmentation": "AutoModelForSemanticSegmentation",
    "object-detection": "AutoModelForObjectDetection",
    "audio-classification": "AutoModelForAudioClassification",
}


def convert(source: Source) -> Export:
    """Export the model in a folder; its architecture is the one that config.json names, or that of `task`.

    Without --input it reads what the model's main input is: ids and a mask, pixels, or a waveform. Raises
    ConversionError for a folder without a configuration, a pickle of weights without --trust, and code of the folder's
    own, which needs --trust too.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    spec = parse_spec(source.body, ConversionError)
    folder = Path(spec.name)
    if not (folder / "config.json").is_file():
        raise ConversionError(f"{folder} has no config.json", fix="Give a folder that save_pretrained has written.")
    task = spec.arguments.get("task")
    if task is not None and task not in _TASKS:
        raise ConversionError(f"{task!r} is no task", fix=f"Choose one of: {', '.join(_TASKS)}.")
    module, notes = _load(folder, task, source.trust)
    inputs = source.inputs or _inputs_of(module)
    for config in {id(c): c for each in module.modules() if (c := getattr(each, "config", None)) is not None}.values():
        for name in ("use_cache", "return_dict"):  # an encoder and a decoder have configurations of their own
            if hasattr(config, name):
                setattr(config, name, name == "return_dict")
    export = export_module(module, inputs)
    return Export(
        model=export.model,
        exporter=export.exporter,
        samples=export.samples,
        parameters=export.parameters,
        normalisations=export.normalisations,
        notes=(*notes, *export.notes),
    )


def _load(folder: Path, task: str | None, trust: bool) -> tuple[Any, tuple[str, ...]]:
    import transformers

    has_weights = any(folder.glob("*.safetensors"))
    pickled = any(folder.glob("pytorch_model*.bin"))
    if pickled and not has_weights and not trust:
        raise refuse_pickle(str(folder / "pytorch_model.bin"), "Or save it as safetensors.")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
        kind = _class_of(config, task)
        options: dict[str, Any] = {"attn_implementation": "eager"}
        if has_weights or pickled:
            options |= {"config": config, "local_files_only": True, "use_safetensors": has_weights}
            return kind.from_pretrained(folder, **options).float().eval(), ()
        built = kind.from_config(config, **options) if kind.__name__.startswith("Auto") else kind(config)
        return built.float().eval(), ("the folder holds no weights: they are random",)
    except (OSError, ValueError, KeyError, ImportError, TypeError) as problem:
        raise ConversionError(
            f"transformers cannot load {folder}: {first_line(problem)}",
            fix="Code of its own in the folder needs --trust; another task may be what it is made for.",
        ) from problem


def _class_of(config: Any, task: str | None) -> Any:
    import transformers

    if task is not None:
        return getattr(transformers, _TASKS[task])
    names = config.architectures or ()
    found = next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)
    return found if found is not None else transformers.AutoModel


def _inputs_of(module: torch.nn.Module) -> tuple[InputSpec, ...]:
    """What the model reads, by its main input and configuration."""
    config: Any = module.config
    main = str(getattr(module, "main_input_name", "input_ids"))
    if main == "pixel_values":
        size = getattr(config, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
        return (_input(main, "float32", "N", int(getattr(config, "num_channels", 3)), height, width),)
    if main in ("input_values", "input_features"):
        bins = getattr(config, "num_mel_bins", None)
        frames = 2 * int(getattr(config, "max_source_positions", 8))
        shape: tuple[int | str, ...] = ("N", bins, frames) if bins else ("N", 16000)
        return (_input(main, "float32", *shape),)
    takes = inspect.signature(module.forward).parameters
    names = ["input_ids", *(("attention_mask",) if "attention_mask" in takes else ())]
    if getattr(config, "is_encoder_decoder", False):
        return (*(_input(n, "int64", "N", "T") for n in names), _input("decoder_input_ids", "int64", "N", "S"))
    return tuple(_input(name, "int64", "N", "T") for name in names)


def _input(name: str, dtype: str, *shape: int | str) -> InputSpec:
    return InputSpec(name=name, dtype=dtype, shape=shape)
