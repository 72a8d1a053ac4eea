from __future__ import annotations

import logging
import resource
from pathlib import Path

import pytest
import torch

from onnx_asgnas.errors import OutputError, RunDirectoryError
from onnx_asgnas.training.checkpoint import Checkpoints


def state(step: int) -> dict[str, object]:
    return {"step": step, "weights": torch.arange(10.0) + step}


def steps(checkpoints: Checkpoints) -> list[int]:
    return [int(path.name.split("-")[1]) for path in checkpoints.files()]


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").newest() is None


def test_the_newest_comes_back_to_the_bit_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (9, 10, 100):
        checkpoints.save(step, state(step))
    assert steps(checkpoints) == [10, 100]
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 100
    assert torch.equal(found["weights"], torch.arange(10.0) + 100)


def test_the_same_step_again_is_one_file(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for _ in range(3):
        checkpoints.save(7, state(7))
    assert steps(checkpoints) == [7]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_passed_over_and_said(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1))
    checkpoints.save(4, state(4))
    path = checkpoints.files()[-1]
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data[: {"cut": len(data) // 2, "flip": len(data), "empty": 0}[damage]]))
    with caplog.at_level(logging.WARNING):
        found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 1
    assert f"{path.name} is damaged" in caplog.text
    checkpoints.save(3, state(3))  # the run that went on from step 1
    assert steps(checkpoints) == [1, 3]


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
    with pytest.raises(OutputError, match=r"step 2 cannot be written.*No space left"):
        checkpoints.save(2, state(2))
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in checkpoints.files()]
    assert steps(checkpoints) == [1]


@pytest.mark.parametrize("room", [100, 5_000, 300_000, 1_999_000])
def test_a_full_disk_leaves_the_one_before(tmp_path: Path, room: int) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OutputError, match="step 2 cannot be written"):
            checkpoints.save(2, {"weights": torch.zeros(500_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_cleaned_up(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / ".unfinished").write_bytes(b"half")
    checkpoints.save(1, state(1))
    assert len(list(tmp_path.iterdir())) == 1
