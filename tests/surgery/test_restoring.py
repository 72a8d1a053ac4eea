"""The model before its groups went to zero."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

import onnx_asgnas as nas
from onnx_asgnas import models
from onnx_asgnas.config import Mode
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.pruning import cut
from onnx_asgnas.surgery.restoring import restored


@pytest.mark.parametrize("mode", ["erase", "prune", "joint"])
def test_the_source_comes_back(mode: Mode) -> None:
    source = TraceGraph.of(models.build("stackedunets", width=4, seed=3))
    found = cut(source, nas.Target(keep_params=0.6), mode=mode)
    structures = {found.space.candidates[i].tensor for i in found.selection.chosen if i < len(found.space.candidates)}
    zeroed = TraceGraph.of(found.zeroed)
    back = {
        t.name: numpy_helper.to_array(t) for t in restored(found.space, zeroed, source, structures).graph.initializer
    }
    assert any(not np.array_equal(zeroed.array(name), back[name]) for name in back)
    for name, values in back.items():
        np.testing.assert_array_equal(values, source.array(name))
