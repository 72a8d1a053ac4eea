"""Gates: trainable scalars on operands of joints, named in the model's metadata.

A scalar factor is otherwise a constant (1/√d); that a gate trains is what the metadata say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import onnx

KEY = "onnx_asgnas.gates"


def gates_of(model: onnx.ModelProto) -> frozenset[str]:
    """The initializers that the model's metadata call gates."""
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), "[]")
    try:
        names = json.loads(text)
    except ValueError:
        return frozenset()
    return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()


def name_gates(model: onnx.ModelProto, names: Iterable[str]) -> None:
    """Say in the metadata that these initializers, and no others, are gates; in place."""
    listed = sorted(names)
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    for key, value in [*kept, *([(KEY, json.dumps(listed))] if listed else [])]:
        model.metadata_props.add(key=key, value=value)
