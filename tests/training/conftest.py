"""Both engines, for every test of training that asks for them."""

from __future__ import annotations

import pytest

from onnx_asgnas.graph.packages import can_train
from onnx_asgnas.training import bridge


@pytest.fixture(params=["ort", "torch"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A test that uses it runs with both engines: `auto` is one, then the other."""
    chosen = str(request.param)
    if chosen == "ort" and not can_train():
        pytest.skip("needs onnxruntime-training: pip install onnx-asgnas[cpu]")
    real = bridge.resolve_engine
    monkeypatch.setattr(bridge, "resolve_engine", lambda name, device: chosen if name == "auto" else real(name, device))
    return chosen
