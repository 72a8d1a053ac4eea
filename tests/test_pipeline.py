from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_asgnas as nas
from onnx_asgnas import models
from onnx_asgnas.errors import (
    DataError,
    ModelError,
    NonFiniteError,
    RunDirectoryError,
    SpaceError,
    TargetError,
)
from onnx_asgnas.pipeline import train_plainly
from onnx_asgnas.training.loop import Event
from tests.made_up import graph, images, network

OPTIONS = {"epochs": 3, "batch_size": 16, "lr": 0.02, "zero_at": 0.5, "threads": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> nas.SearchResult:
    folder = tmp_path_factory.mktemp("whole")
    return nas.search(network(folder), images(folder), nas.Target(remove_groups=3), run_dir=folder / "run", **OPTIONS)


def test_a_run_directory_holds_every_stage(run: nas.SearchResult) -> None:
    assert sorted(path.name for path in run.run_dir.iterdir()) == [
        "checkpoints",
        "compact.onnx",
        "config.json",
        "events.jsonl",
        "report.json",
        "report.md",
        "source.onnx",
        "space.json",
        "trained.onnx",
        "training.json",
    ]


def test_the_compact_model_is_smaller_and_the_same(run: nas.SearchResult) -> None:
    facts = json.loads((run.run_dir / "report.json").read_text())
    assert facts["verified"]["passed"]
    assert facts["verified"]["max_relative_difference"] <= 1e-5
    assert facts["verified"]["moved"] > 0.01
    assert facts["full"]["accuracy"] == facts["compact"]["accuracy"]
    assert facts["kept"]["params"] == facts["compact"]["params"] / facts["full"]["params"] < 1
    space = nas.SearchSpace.read(run.run_dir / "space.json", run.run_dir / "source.onnx")
    chosen = [s.tensor for s in space.candidates if s.tensor in {c["tensor"] for c in facts["chosen"]}]
    assert 1 <= len(chosen) <= 3
    nodes = {node.name for node in run.compact.graph.node}
    for structure in space.candidates:
        if structure.tensor in chosen:
            assert nodes.isdisjoint(structure.region)


def test_events_tell_of_phases_and_epochs(run: nas.SearchResult) -> None:
    events = [json.loads(line) for line in (run.run_dir / "events.jsonl").read_text().splitlines()]
    assert [e["kind"] for e in events].count("epoch") == 3
    assert [e["phase"] for e in events if e["kind"] == "phase"] == ["hybrid", "converge"]
    assert events[-1]["groups_at_zero"] == events[-1]["groups_chosen"]


def test_resume_of_a_finished_run_changes_no_model(run: nas.SearchResult) -> None:
    before = (run.run_dir / "compact.onnx").read_bytes()
    again = nas.resume(run.run_dir)
    assert (run.run_dir / "compact.onnx").read_bytes() == before
    assert again.report.to_dict()["kept"] == run.report.to_dict()["kept"]


def test_ctrl_c_leaves_a_run_that_goes_on_to_the_same_bits(run: nas.SearchResult, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        nas.search(
            run.run_dir / "source.onnx",
            f"npz:{run.run_dir.parent / 'images.npz'}",
            nas.Target(remove_groups=3),
            run_dir=tmp_path / "run",
            on_event=interrupt,
            **OPTIONS,
        )
    assert not (tmp_path / "run" / "trained.onnx").exists()
    nas.resume(tmp_path / "run")
    for name in ("trained.onnx", "compact.onnx"):
        assert (tmp_path / "run" / name).read_bytes() == (run.run_dir / name).read_bytes()


def test_a_plain_run_trains_everything(tmp_path: Path) -> None:
    trained, history = train_plainly(
        models.build("demosupnet", width=2), images(tmp_path), run_dir=tmp_path / "run", **OPTIONS
    )
    assert [event.phase for event in history] == ["training"] * 3
    assert len(trained.graph.node) == len(nas.normalise(models.build("demosupnet", width=2)).graph.node)
    again, _ = train_plainly(models.build("demosupnet", width=2), images(tmp_path), run_dir=tmp_path / "run", **OPTIONS)
    assert again.SerializeToString() == trained.SerializeToString()


def _bad_labels(folder: Path) -> tuple[object, str, nas.Target]:
    return network(folder), images(folder, label=np.full(48, 10)), nas.Target(remove_groups=1)


def _bad_shape(folder: Path) -> tuple[object, str, nas.Target]:
    return network(folder, in_channels=3), images(folder), nas.Target(remove_groups=1)


def _nan_data(folder: Path) -> tuple[object, str, nas.Target]:
    pixels = np.zeros((48, 1, 28, 28), np.float32)
    pixels[7, 0, 3, 3] = np.nan
    return network(folder), images(folder, input=pixels), nas.Target(remove_groups=1)


def _too_much(folder: Path) -> tuple[object, str, nas.Target]:
    return network(folder), images(folder), nas.Target(remove_groups=6)


def _too_few_macs(folder: Path) -> tuple[object, str, nas.Target]:
    return network(folder), images(folder), nas.Target(keep_macs=0.001)


def _nothing_to_remove(folder: Path) -> tuple[object, str, nas.Target]:
    model = graph(
        "(float[N,1,28,28] input) => (float[N,10] y) <float[10,784] w = {" + ",".join(["0.1"] * 7840) + "}>"
        "{ f = Flatten(input) y = Gemm<transB=1>(f, w) }"
    )
    return model, images(folder), nas.Target(remove_groups=1)


def _no_weights(folder: Path) -> tuple[object, str, nas.Target]:
    model = graph("(float[N,1,28,28] input) => (float[N,784] y) { f = Flatten(input) y = Relu(f) }")
    return model, images(folder), nas.Target(remove_groups=1)


def _not_onnx(folder: Path) -> tuple[object, str, nas.Target]:
    path = folder / "note.onnx"
    path.write_text("this is no model")
    return path, images(folder), nas.Target(remove_groups=1)


def _cut_short(folder: Path) -> tuple[object, str, nas.Target]:
    path = network(folder)
    path.write_bytes(path.read_bytes()[:1000])
    return path, images(folder), nas.Target(remove_groups=1)


def _no_data(folder: Path) -> tuple[object, str, nas.Target]:
    return network(folder), f"npz:{folder / 'none.npz'}", nas.Target(remove_groups=1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (_bad_labels, DataError, "label"),
        (_bad_shape, DataError, "input"),
        (_nan_data, NonFiniteError, r"nan in .input. at index \[7, 0, 3, 3\]"),
        (_too_much, TargetError, "at most 5 of 6"),
        (_too_few_macs, TargetError, "at least 0."),
        (_nothing_to_remove, SpaceError, "nothing to remove"),
        (_no_weights, ModelError, "trainable"),
        (_not_onnx, ModelError, "not an ONNX file"),
        (_cut_short, ModelError, "cut short"),
        (_no_data, DataError, "none.npz"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing_behind(
    tmp_path: Path, make: object, error: type[Exception], message: str
) -> None:
    assert callable(make)
    model, data, target = make(tmp_path)
    with pytest.raises(error, match=message):
        nas.search(model, data, target, run_dir=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="is not empty"):
        nas.search(
            network(tmp_path), images(tmp_path), nas.Target(remove_groups=1), run_dir=tmp_path / "run", **OPTIONS
        )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    model, data = network(tmp_path), images(tmp_path)
    monkeypatch.setattr("tempfile.mkstemp", refuse)  # the tests may run as root, whom no mode bits stop
    with pytest.raises(RunDirectoryError, match="Permission denied"):
        nas.search(model, data, nas.Target(remove_groups=1), run_dir=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_none_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"config\.json, source\.onnx, space\.json is missing"):
        nas.resume(tmp_path)


def test_a_loss_that_becomes_nan_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).standard_normal((48, 1, 28, 28)).astype(np.float32)
    data = images(tmp_path, input=pixels * 1e30)
    with pytest.raises(NonFiniteError, match="at step"):
        nas.search(
            network(tmp_path), data, nas.Target(remove_groups=1), run_dir=tmp_path / "run", **{**OPTIONS, "lr": 1e6}
        )
    assert (tmp_path / "run" / "config.json").exists()
    for path in (tmp_path / "run").glob("*.onnx"):
        onnx.checker.check_model(onnx.load(path))


def test_dhspg_may_choose_what_cannot_go_and_says_so(tmp_path: Path) -> None:
    result = nas.search(
        network(tmp_path),
        images(tmp_path),
        nas.Target(remove_groups=6),
        run_dir=tmp_path / "run",
        method="dhspg",
        score="random",
        **OPTIONS,
    )
    assert result.report.to_dict()["verified"]["passed"]


def test_files_are_readable_by_others(run: nas.SearchResult) -> None:
    assert stat.S_IMODE((run.run_dir / "compact.onnx").stat().st_mode) & stat.S_IRUSR
