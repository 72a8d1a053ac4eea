"""One-shot architecture search and structured compression for any ONNX model (ASGNAS, H2SPG).

The names are loaded when they are first used, so that importing this package needs neither torch nor onnxruntime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_asgnas.config import SearchConfig, Target
    from onnx_asgnas.converters import convert
    from onnx_asgnas.errors import AsgnasError
    from onnx_asgnas.evaluation import benchmark, verify
    from onnx_asgnas.finetuning import finetune
    from onnx_asgnas.graph import load_model, normalise
    from onnx_asgnas.pipeline import SearchResult, resume, search
    from onnx_asgnas.pruning import prune
    from onnx_asgnas.space import SearchSpace, analyze
    from onnx_asgnas.space.gates import add_gates
    from onnx_asgnas.surgery import construct
    from onnx_asgnas.training.bridge import OnnxModule
    from onnx_asgnas.training.h2spg import H2SPG

_HOMES = {
    "AsgnasError": "errors",
    "H2SPG": "training.h2spg",
    "OnnxModule": "training.bridge",
    "SearchConfig": "config",
    "SearchResult": "pipeline",
    "SearchSpace": "space",
    "Target": "config",
    "add_gates": "space.gates",
    "analyze": "space",
    "benchmark": "evaluation",
    "construct": "surgery",
    "convert": "converters",
    "finetune": "finetuning",
    "load_model": "graph",
    "normalise": "graph",
    "prune": "pruning",
    "resume": "pipeline",
    "search": "pipeline",
    "verify": "evaluation",
}

__all__ = [
    "H2SPG",
    "AsgnasError",
    "OnnxModule",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "Target",
    "add_gates",
    "analyze",
    "benchmark",
    "construct",
    "convert",
    "finetune",
    "load_model",
    "normalise",
    "prune",
    "resume",
    "search",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
