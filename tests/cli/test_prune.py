"""`prune`: files, tables, JSON, a curve, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import onnx_asgnas as nas
from onnx_asgnas.cli import main
from onnx_asgnas.errors import VerificationError
from onnx_asgnas.evaluation import Benchmark
from onnx_asgnas.evaluation.latency import Latency
from onnx_asgnas.graph import load_model, save_model
from tests.made_up import graph, images, network
from tests.report.test_space_page import data_in

QUICK = ["--seconds", "0"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command; gives its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("models"), width=8)


def test_a_model_becomes_smaller_and_is_the_same(command: Any, model: Path, tmp_path: Path) -> None:
    compact, zeroed = tmp_path / "compact.onnx", tmp_path / "zeroed.onnx"
    code, out, err = command(
        "prune", model, "--keep-macs", 0.5, "-o", compact, "--zeroed", zeroed, "--seconds", 0.05, "--json"
    )
    assert code == 0, err
    facts = json.loads(out)
    assert set(facts) >= {"full", "compact", "kept", "verified"}
    assert facts["verified"]["passed"]
    assert facts["verified"]["moved"] > 0.01
    assert 0.4 < facts["kept"]["macs"] <= 0.5
    assert facts["compact"]["latency_ms"]["median"] > 0
    assert facts["compact"]["bytes"] < facts["full"]["bytes"]
    assert nas.verify(zeroed, compact).passed
    code, out, _ = command("construct", zeroed, "-o", tmp_path / "again.onnx")
    assert code == 0
    assert (tmp_path / "again.onnx").read_bytes() == compact.read_bytes()


@pytest.mark.parametrize("mode", ["prune", "joint", "erase"])
def test_every_mode(command: Any, model: Path, tmp_path: Path, mode: str) -> None:
    code, out, err = command("prune", model, "--keep-params", 0.6, "--mode", mode, "-o", tmp_path / "c.onnx", *QUICK)
    assert code == 0, err
    assert "verified" in out
    assert str(tmp_path / "c.onnx") in " ".join(out.split())
    operators = len(load_model(tmp_path / "c.onnx").graph.node)
    full = len(load_model(model).graph.node)
    assert operators < full if mode != "prune" else operators == full


def test_widths_are_kept(command: Any, model: Path, tmp_path: Path) -> None:
    options = ["--uniform", 0.6, "--round-to", 2, "--min-channels", 4, "--criterion", "mean-magnitude"]
    code, _, err = command("prune", model, *options, "-o", tmp_path / "c.onnx", *QUICK)
    assert code == 0, err
    widths = {t.dims[0] for t in load_model(tmp_path / "c.onnx").graph.initializer if len(t.dims) == 4}
    assert min(widths) == 4
    assert all(width % 2 == 0 for width in widths)


def test_a_list_of_targets_gives_one_table_and_a_file_each(command: Any, model: Path, tmp_path: Path) -> None:
    output, picture = tmp_path / "c.onnx", tmp_path / "curve.svg"
    options = ["--keep-macs", "0.7,0.4", "-o", output, "--data", images(tmp_path), "--zeroed", tmp_path / "z.onnx"]
    code, out, err = command("prune", model, *options, "--curve", picture, "--seconds", 0.02, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert [point["target"] for point in facts["points"]] == [{"keep_macs": 0.7}, {"keep_macs": 0.4}]
    for point in facts["points"]:
        assert set(point) >= {"compact", "kept", "verified", "latency_ratio"}
        assert point["verified"]["passed"]
        assert point["kept"]["macs"] <= point["target"]["keep_macs"]
        assert Path(point["file"]).is_file()
        assert point["compact"]["accuracy"] is not None
    assert nas.verify(tmp_path / "z-0.4.onnx", tmp_path / "c-0.4.onnx").passed
    assert picture.read_text().startswith("<?xml")

    code, out, _ = command("prune", model, *options, *QUICK)
    assert code == 0
    assert "MACs kept" in out
    assert "█" in out
    assert "c-0.4.onnx" in "".join(out.split())


def test_a_page_shows_what_was_removed(command: Any, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options = ["--remove-groups", 2, "--mode", "erase", "-o", tmp_path / "c.onnx", "--html", page, *QUICK]
    code, out, _ = command("prune", model, *options)
    assert code == 0 and str(page) in out.replace("\n", "")
    run = data_in(page.read_text(encoding="utf-8"))["run"]
    assert run["told"] == "pruned without training · erase, remove_groups=2"
    assert "removed" in run["operators"] and len(run["zero"]) >= 1
    assert run["curves"]["norms"] is None and run["times"]["types"]
    code, _, err = command("prune", model, "--keep-macs", "0.7,0.4", "-o", tmp_path / "d.onnx", "--html", page, *QUICK)
    assert code == 2 and "one target" in err


def test_a_picture_without_matplotlib_says_what_to_install(
    command: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    options = ["--keep-macs", "0.7,0.4", "-o", tmp_path / "c.onnx", "--curve", tmp_path / "c.svg"]
    code, out, err = command("prune", model, *options)
    assert (code, out) == (2, "")
    assert "onnx-asgnas[bench]" in err
    assert not list(tmp_path.iterdir())


def test_a_failed_check_is_code_one_and_writes_nothing(
    command: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_model(network(tmp_path, width=8, seed=2))
    monkeypatch.setattr("onnx_asgnas.pruning._without", lambda space, graph, chosen: other)
    code, _, err = command("prune", model, "--keep-macs", 0.5, "-o", tmp_path / "c.onnx", *QUICK)
    assert code == 1
    assert "the compact model is not the full model" in err
    code, out, _ = command("prune", model, "--keep-macs", "0.5,0.6", "-o", tmp_path / "c.onnx", *QUICK)
    assert code == 1
    assert "FAILED" in out
    assert not list(tmp_path.glob("c*"))
    with pytest.raises(VerificationError):
        nas.prune(model, nas.Target(keep_macs=0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "a target is exactly one of"),
        (["--keep-macs", "0.5", "--uniform", "0.5"], "got --keep-macs and --uniform"),
        (["--keep-macs", "1.5"], "keep_macs is 1.5"),
        (["--keep-macs", "half"], "'half' is not a number"),
        (["--keep-macs", "0.5,0.5"], "given twice"),
        (["--keep-macs", "0.0001"], "at least 0.0"),
        (["--remove-groups", "100000"], "at most"),
        (["--keep-macs", "0.5", "--curve", "x.svg"], "a list of targets"),
        (["--uniform", "0.5", "--mode", "erase"], "erase mode removes whole structures"),
        (["--uniform", "0.5", "--mode", "joint"], "no common number counts"),
        (["--keep-macs", "0.5", "--mode", "all"], "none of: erase, prune, joint"),
        (["--keep-macs", "0.5", "--mode", "erase", "--round-to", "8"], "leaves their channels alone"),
        (["--keep-macs", "0.5", "--criterion", "size"], "none of: magnitude"),
        (["--uniform", "0.5", "--protect", "*"], "nothing to remove: no channel may leave"),
        (["--uniform", "0.5", "--protect", "head"], "nothing matches the pattern 'head'"),
    ],
)
def test_wrong_use_is_told(command: Any, model: Path, tmp_path: Path, options: list[str], message: str) -> None:
    code, out, err = command("prune", model, *options, "-o", tmp_path / "c.onnx")
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_a_model_without_channels(command: Any, tmp_path: Path) -> None:
    save_model(graph("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"), tmp_path / "relu.onnx")
    code, _, err = command("prune", tmp_path / "relu.onnx", "--keep-params", 0.5, "-o", tmp_path / "c.onnx")
    assert code == 2
    assert "nothing to remove" in err
    assert "analyze MODEL --mode prune --explain" in err


@pytest.mark.parametrize(("ratio", "round_to", "said"), [(1.1, 1, True), (0.5, 1, False), (1.1, 2, False)])
def test_a_word_on_widths_that_are_slow(
    command: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, round_to: int, said: bool
) -> None:
    measured = [Latency(median=time, p95=time, runs=9, ratio=time) for time in (1.0, ratio)]
    module = sys.modules[Benchmark.__module__]
    monkeypatch.setattr(module, "measure_latency", lambda graphs, **_: measured)
    code, out, err = command("prune", model, "--keep-macs", 0.5, "--round-to", round_to, "-o", tmp_path / "c.onnx")
    assert code == 0, err
    assert ("--round-to 8" in out) is said
