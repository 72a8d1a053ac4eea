"""A whole search with each engine: it ends in the same structures, and a resumed one in the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_asgnas as nas
from onnx_asgnas.graph.packages import can_train
from tests.made_up import images, network

OPTIONS = {"epochs": 2, "batch_size": 16, "lr": 0.02, "threads": 1, "zero_at": 0.5}


def weights(folder: Path) -> dict[str, object]:
    model = onnx.load(folder / "trained.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.skipif(not can_train(), reason="needs onnxruntime-training: pip install onnx-asgnas[cpu]")
def test_both_engines_end_in_the_same_network(tmp_path: Path) -> None:
    results = {}
    for engine in ("ort", "torch"):
        folder = tmp_path / engine
        target = nas.Target(remove_groups=3)
        nas.search(network(tmp_path), images(tmp_path), target, run_dir=folder, engine=engine, **OPTIONS)
        results[engine] = (json.loads((folder / "report.json").read_text()), weights(folder))
    (ort, by_ort), (torch, by_torch) = results["ort"], results["torch"]
    assert torch["verified"]["passed"]
    assert torch["kept"] == ort["kept"]
    assert by_ort.keys() == by_torch.keys()
    for name, value in by_ort.items():
        mine = np.asarray(by_torch[name], np.float64)
        np.testing.assert_allclose(mine, value, rtol=1e-2, atol=1e-3, err_msg=name)
        assert bool(np.any(value)) == bool(np.any(mine)), name


def test_two_runs_of_the_torch_engine_give_the_same_bits(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        target = nas.Target(remove_groups=3)
        nas.search(network(tmp_path), images(tmp_path), target, run_dir=tmp_path / name, engine="torch", **OPTIONS)
        found.append(weights(tmp_path / name))
    for name, value in found[0].items():
        assert np.array_equal(np.asarray(value), np.asarray(found[1][name])), name
