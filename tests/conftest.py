"""What all tests share: one thread for numerics, reproducible Hypothesis, and the folder of the checkout."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import onnx

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the graphs here are too small for more

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("suite", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The top folder of the source tree."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def parse() -> Callable[[str], onnx.ModelProto]:
    """Gives the model of a graph in ONNX text, of opset 17."""
    import onnx

    return lambda graph: onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {graph}')
