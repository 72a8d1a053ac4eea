from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from onnx_asgnas.errors import RunDirectoryError
from onnx_asgnas.training.checkpoint import Checkpoints


def state(step: int) -> dict[str, object]:
    return {"step": step, "weights": torch.arange(10.0) + step}


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").newest() is None


def test_the_newest_comes_back_to_the_bit_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (9, 10, 100):
        checkpoints.save(step, state(step))
    assert [path.name for path in checkpoints.files()] == ["step-000000010.ckpt", "step-000000100.ckpt"]
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 100
    assert torch.equal(found["weights"], torch.arange(10.0) + 100)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_passed_over_and_said(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    path = checkpoints.files()[-1]
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data[: {"cut": len(data) // 2, "flip": len(data), "empty": 0}[damage]]))
    with caplog.at_level(logging.WARNING):
        found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 1
    assert "step-000000002.ckpt is damaged" in caplog.text


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1))
    checkpoints.files()[0].write_bytes(b"no")
    with pytest.raises(RunDirectoryError, match="every checkpoint"):
        checkpoints.newest()


def test_a_failed_write_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="No space left"):
        checkpoints.save(2, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.ckpt"]
