"""`analyze` in the modes that remove channels: what it draws, and that it stays readable."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from onnx_asgnas import models
from onnx_asgnas.cli import main
from onnx_asgnas.graph import save_model
from tests.made_up import network


def drawn(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["analyze", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def chain(blocks: int) -> onnx.ModelProto:
    """Convolutions of 4 channels in a row, as many as asked for, the last of which is the output."""
    nodes, weights = [], []
    for at in range(blocks):
        name = f"block.{at}.conv.weight"
        nodes.append(helper.make_node("Conv", [f"x{at}", name], [f"x{at + 1}"], f"conv_{at}"))
        weights.append(helper.make_tensor(name, TensorProto.FLOAT, [4, 4, 1, 1], [0.5] * 16))
    shape = ["N", 4, 8, 8]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{blocks}", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_channels_are_drawn_by_layer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = drawn(capsys, network(tmp_path), "--mode", "prune")
    assert "channel groups may leave, in" in out
    assert "conv0" in out
    assert "structure " not in out
    out = drawn(capsys, network(tmp_path), "--mode", "joint")
    assert "minimal removal structures" in out
    assert "channel groups may leave" in out


def test_layers_that_are_alike_share_a_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    save_model(chain(30), path)
    out = drawn(capsys, path, "--mode", "prune", "--explain")
    rows = [line.split() for line in out.splitlines() if "block.*.conv" in line]
    assert [row[2] for row in rows] == ["29"]  # after a bar: the last one gives the output
    assert "graph output" in out


def test_protection_by_type_and_by_weight(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    save_model(chain(4), path)
    assert "12 of 16 channel groups may leave, in 3 of 4 layers" in drawn(capsys, path, "--mode", "prune")
    out = drawn(capsys, path, "--mode", "prune", "--protect", "block.1.*", "--explain")
    assert "8 of 16 channel groups may leave, in 2 of 4 layers" in out
    assert any(line.split()[:3] == ["protected", "│", "block.1.conv"] for line in out.splitlines())
    assert "protected: conv_1" in out
    assert "nothing can be removed" in drawn(capsys, path, "--mode", "prune", "--protect", "op:Conv")


def test_gates_make_skip_connections_erasable(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "unets.onnx"
    save_model(models.build("stackedunets", width=2), path)
    assert "6 minimal removal structures, 2 larger ones" in drawn(capsys, path)
    out = drawn(capsys, path, "--gates")
    assert "12 minimal removal structures, 2 larger ones" in out
    assert "bn9.to.add25" in out
    assert main(["analyze", str(path), "--gates", "--mode", "prune"]) == 2
    assert "mode prune removes channels only" in capsys.readouterr().err
