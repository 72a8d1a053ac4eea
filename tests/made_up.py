"""Small inputs for the tests of whole runs: a network, a data file, bad models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import parser

from onnx_asgnas import models
from onnx_asgnas.graph import save_model


def network(folder: Path, name: str = "stackedunets", **options: int) -> Path:
    """A small seeded network as a file."""
    path = folder / f"{name}.onnx"
    save_model(models.build(name, **{"width": 2, "seed": 1, **options}), path)
    return path


def images(folder: Path, count: int = 48, classes: int = 10, **arrays: object) -> str:
    """An npz file of images whose brightness tells their label, as a --data text."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, count)
    pixels = random.standard_normal((count, 1, 28, 28)) + labels[:, None, None, None]
    content = {"input": pixels.astype(np.float32), "label": labels.astype(np.int64)}
    content |= {"input_test": content["input"][:16], "label_test": content["label"][:16], **arrays}
    path = folder / "images.npz"
    np.savez(path, **content)
    return f"npz:{path}"


def graph(text: str) -> onnx.ModelProto:
    """A model from ONNX text, without its header."""
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')
