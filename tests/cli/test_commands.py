from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_asgnas.cli import main
from onnx_asgnas.config import TrainConfig
from onnx_asgnas.graph import load_model, save_model
from tests.made_up import images, network

STARTED = ["search", "{model}", "--data", "fashion-mnist-mini", "--remove-groups", "1", "-o", "{folder}/r"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command; gives its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    arguments = [
        "search",
        str(network(folder)),
        "--data",
        images(folder),
        "--remove-groups",
        "3",
        "-o",
        str(folder / "run"),
    ]
    assert main([*arguments, "--epochs", "2", "--batch-size", "16", "--lr", "0.02", "--threads", "1", "--json"]) == 0
    return folder / "run"


def test_help_teaches_a_first_run(command: Any) -> None:
    code, out, _ = command("--help")
    assert code == 0
    for word in (
        "convert",
        "analyze",
        "prune",
        "search",
        "construct",
        "verify",
        "benchmark",
        "doctor",
        "fashion-mnist-mini",
    ):
        assert word in out


@pytest.mark.parametrize(
    "name", ["convert", "analyze", "prune", "search", "finetune", "construct", "verify", "benchmark", "doctor"]
)
def test_every_command_has_help(command: Any, name: str) -> None:
    code, out, _ = command(name, "--help")
    assert code == 0
    assert "--json" in out


def test_convert_writes_a_model_and_tells_its_size(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "unets.onnx"
    code, out, _ = command("convert", "models:stackedunets?width=2", "-o", path)
    assert code == 0
    assert "62 operators, 892 parameters" in out
    assert load_model(path).graph.node[0].name == "conv0"
    code, out, _ = command("convert", path, "-o", tmp_path / "again.onnx", "--json")
    assert json.loads(out)["params"] == 892


def test_analyze_prints_the_contract(command: Any, tmp_path: Path) -> None:
    code, out, err = command("analyze", network(tmp_path), "--json", "-o", tmp_path / "space.json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert json.loads((tmp_path / "space.json").read_text()) == facts
    assert set(facts["structures"][0]) >= {
        "tensor",
        "segment",
        "region",
        "parent",
        "minimal",
        "erasable",
        "reason",
        "params",
        "macs",
    }
    assert facts["max_removable"]["structures"] == 5
    assert set(facts["channel_groups"]) == {"total", "free"}
    assert set(facts["frozen"][0]) == {"node", "op_type", "reason", "channels"}


def test_analyze_draws_and_explains(command: Any, tmp_path: Path) -> None:
    code, out, _ = command("analyze", network(tmp_path, "demosupnet"), "--explain", "--protect", "bn8")
    assert code == 0
    assert "5 minimal removal structures" in out
    assert "protected by 'bn8'" in out
    assert "What keeps channels" in out


def test_search_prints_one_object_and_writes_a_run(searched: Path, command: Any) -> None:
    code, out, err = command("search", searched, "--resume", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["verified"]["passed"]
    assert facts["full"]["latency_ms"]["median"] > 0
    assert 0 < facts["kept"]["params"] < 1
    code, out, _ = command("search", searched, "--resume")
    assert code == 0
    assert "multiply-accumulates" in out
    assert str(searched / "compact.onnx") in out


def test_construct_verify_and_benchmark_agree(searched: Path, command: Any, tmp_path: Path) -> None:
    trained, compact = searched / "trained.onnx", tmp_path / "compact.onnx"
    code, out, _ = command("construct", trained, "--space", searched / "space.json", "-o", compact, "--json")
    assert code == 0
    kept = json.loads(out)["kept"]
    assert compact.read_bytes() == (searched / "compact.onnx").read_bytes()
    code, out, _ = command("construct", trained, "-o", compact)
    assert code == 0
    assert "verified" in out

    code, out, _ = command("verify", trained, compact, "--json")
    assert code == 0
    assert json.loads(out)["worst_output"] == "linear79"
    np.savez(tmp_path / "inputs.npz", input=np.ones((2, 1, 28, 28), np.float32))
    code, out, _ = command("verify", trained, compact, "--inputs", f"npz:{tmp_path / 'inputs.npz'}")
    assert code == 0
    assert "verified" in out

    data = f"npz:{searched.parent / 'images.npz'}"
    code, out, _ = command("benchmark", trained, compact, "--data", data, "--seconds", "0.05", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["kept"] == kept
    assert facts["full"]["accuracy"] == facts["compact"]["accuracy"]
    code, out, _ = command("benchmark", trained, "--seconds", "0.05")
    assert code == 0


def test_verify_fails_with_code_one_and_names_the_tensor(searched: Path, command: Any, tmp_path: Path) -> None:
    model = load_model(searched / "compact.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "linear79.bias":
            tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) + 1).tobytes()
    save_model(model, tmp_path / "tampered.onnx")
    code, out, _ = command("verify", searched / "trained.onnx", tmp_path / "tampered.onnx")
    assert code == 1
    assert "NOT the same" in out
    assert "linear79" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["analyze", "none.onnx"], "none.onnx does not exist"),
        (["analyze", "models:demosupnet"], "onnx-asgnas convert models:demosupnet -o MODEL.onnx makes a file of it"),
        (["analyze", "{model}", "--mode", "sideways"], "none of: erase, prune, joint"),
        (["analyze", "{model}", "--protect", "op:Gem"], "nothing matches the pattern 'op:Gem'"),
        (["convert", "models:nonet", "-o", "{folder}/x.onnx"], "nonet"),
        (["convert", "noframework:x", "-o", "{folder}/x.onnx"], "no converter"),
        (["search", "{model}"], "--output"),
        (["search", "{model}", "-o", "{folder}/run"], "--data"),
        (["search", "{model}", "--data", "fashion-mnist-mini", "-o", "{folder}/run"], "a target is exactly one"),
        (["search", "{model}", "--data", "nodata", "--remove-groups", "1", "-o", "{folder}/run"], "no data source"),
        (
            ["search", "{model}", "--data", "fashion-mnist-mini", "--remove-groups", "many", "-o", "{folder}/run"],
            "is not a number",
        ),
        ([*STARTED, "--round-to", "2"], "round_to is 2, but mode erase removes whole structures"),
        (
            ["search", "{model}", "--data", "fashion-mnist-mini", "--keep-macs", "0.5,0.6", "-o", "{folder}/r"],
            "one target",
        ),
        (
            [*STARTED, "--engine", "abacus"],
            "no engine 'abacus'",
        ),
        (
            [*STARTED, "--variant", "lbfgs"],
            "variant is 'lbfgs'",
        ),
        (["search", "{folder}", "--resume"], "is not a run directory"),
        (["verify", "{model}", "{model}", "--inputs", "npz:none.npz"], "none.npz cannot be read"),
        (["verify", "{model}", "{model}", "--inputs", "csv:x"], "inputs cannot be read"),
        (["construct", "{model}", "--space", "none.json", "-o", "{folder}/x.onnx"], "none.json cannot be read"),
    ],
)
def test_wrong_use_is_two_lines_and_code_two(command: Any, tmp_path: Path, arguments: list[str], message: str) -> None:
    model = network(tmp_path)
    filled = [argument.format(model=model, folder=tmp_path) for argument in arguments]
    code, out, err = command(*filled)
    assert code == 2
    assert out == ""
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == [model.name]


def test_debug_shows_where_it_happened(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="does not exist"):
        main(["analyze", str(tmp_path / "none.onnx"), "--debug"])


def test_doctor_is_content_here(command: Any) -> None:
    code, out, _ = command("doctor", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["problems"] == []
    assert facts["engines"] == ["ort", "torch"]
    assert facts["auto"] == {"engine": "ort", "reason": "onnxruntime-training is installed"}
    code, out, _ = command("doctor")
    assert "auto is ort" in out
    assert "no problem found" in out


def test_doctor_finds_two_runtimes_and_says_how_to_mend_it(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def version(name: str) -> str:
        return {"onnxruntime": "1.25.0", "onnxruntime-training-cpu": "1.19.2"}.get(name) or real(name)

    real = metadata.version
    monkeypatch.setattr(metadata, "version", version)
    code, out, _ = command("doctor")
    assert code == 1
    assert "onnxruntime-training-cpu and onnxruntime are installed together" in out
    assert "pip uninstall -y onnxruntime-training-cpu onnxruntime" in " ".join(out.split())


def test_finetune_trains_a_model_and_goes_on(command: Any, tmp_path: Path) -> None:
    data = images(tmp_path)
    arguments = ["finetune", network(tmp_path), "--data", data, "-o", tmp_path / "run", "--metrics", "top1,top5"]
    code, out, err = command(*arguments, "--epochs", "2", "--batch-size", "16", "--lr", "0.02", "--threads", "1")
    assert code == 0, err
    for word in ("before", "after", "top1", "top5", "%", str(tmp_path / "run" / "trained.onnx")):
        assert word in out
    trained = (tmp_path / "run" / "trained.onnx").read_bytes()
    code, out, _ = command("finetune", tmp_path / "run", "--resume", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["config"]["lr"] == 0.02
    assert facts["history"][-1]["loss"] < facts["history"][0]["loss"]
    assert facts["after"] == json.loads((tmp_path / "run" / "report.json").read_text())["after"]
    assert facts["history"][-1]["metrics"] == facts["after"]["metrics"]
    assert (tmp_path / "run" / "trained.onnx").read_bytes() == trained
    code, out, err = command(*arguments)
    assert code == 2
    assert "is not empty" in err
    assert "onnx-asgnas finetune" in err


def test_what_the_user_says_wins_over_the_defaults_for_trained_weights() -> None:
    assert TrainConfig.of(data="d", pretrained=True, lr=0.3).lr == 0.3
    assert TrainConfig.of(data="d", pretrained=True).lr == pytest.approx(0.05 / 3)
    assert TrainConfig.of(data="d", pretrained=True, variant="adam").lr == pytest.approx(0.001 / 3)
    assert TrainConfig.of(data="d", variant="adamw").lr == pytest.approx(0.001)
