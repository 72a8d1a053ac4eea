"""What `convert` says of sources that it cannot convert: exit code 2, two lines at most, and no model is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_asgnas.cli import main
from onnx_asgnas.converters import environments

X = "x:float32[N,3]"


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> object:
    """Convert in the folder of the sources; gives what was said, with `{folder}` for one of broken files."""
    monkeypatch.chdir(Path(__file__).parent / "sources")
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "environments"))
    for name in ("net.pt", "net.pt2"):
        (tmp_path / name).write_text("no network")

    def run(source: str, *options: str) -> str:
        output = tmp_path / "out" / "net.onnx"
        code = main(["convert", source.format(folder=tmp_path), "-o", str(output), *options])
        captured = capfd.readouterr()
        assert code == 2
        assert captured.out == ""
        assert len(captured.err.strip().splitlines()) <= 2
        assert not output.exists()
        return captured.err

    return run


@pytest.mark.parametrize(
    ("source", "inputs", "message"),
    [
        ("torch:torch_nets:Absent", [X], "has no 'Absent'"),
        ("torch:torch_nets:ResNet?depth=3", [X], "has no argument 'depth'\nIt takes: width=4, seed=0."),
        ("torch:torch_nets:Unsupported", [X], "aten.linalg_qr"),
        ("torch:torch_nets:TwoInputs", ["scale:float32[N,3]"], "missing 1 required positional argument: 'ids'"),
        ("torch:torch_nets:ResNet", [], 'Add --input "x:float32[N,3,32,32]"'),
        ("torch:torch_nets:Noisy", [X], "differs from its source by"),
        ("torch:{folder}/net.pt", [X], "is a pickle: loading it runs whatever code is in it\nIf you trust"),
        ("torch:{folder}/net.pt2", [], "net.pt2: File is not a zip file"),
        ("torch:{folder}/absent.pt2", [], "does not exist"),
        ("paddle:{folder}", [], "paddle: needs paddle and paddle2onnx, which are not installed here\nRun: onnx-asgnas"),
    ],
)
def test_it_is_said_in_two_lines(said: object, source: str, inputs: list[str], message: str) -> None:
    assert callable(said)
    text = said(source, *(part for each in inputs for part in ("--input", each)))
    assert message in text


def test_a_conversion_that_hangs_is_stopped(said: object) -> None:
    assert callable(said)
    text = said("torch:torch_nets:Hanging", "--input", X, "--time-limit", "1")
    assert "the conversion is not done after 1 seconds, and was stopped" in text
