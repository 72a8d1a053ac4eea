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
from onnx_asgnas.finetuning import finetune, resume_finetune
from onnx_asgnas.training.events import Event
from tests.made_up import graph, images, network

PLAIN = {"epochs": 3, "batch_size": 16, "lr": 0.02, "threads": 1}
OPTIONS = {**PLAIN, "zero_at": 0.5}


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
        "report.html",
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
    result = finetune(models.build("demosupnet", width=2), images(tmp_path), run_dir=tmp_path / "run", **PLAIN)
    assert [event.phase for event in result.history] == ["training"] * 3
    assert len(result.model.graph.node) == len(nas.normalise(models.build("demosupnet", width=2)).graph.node)
    assert result.before is not None
    assert result.after is not None
    assert result.after.loss < result.before.loss
    again = resume_finetune(tmp_path / "run")
    assert again.model.SerializeToString() == result.model.SerializeToString()
    assert again.before == result.before


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


@pytest.fixture(scope="module", params=["prune", "joint"])
def narrow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> nas.SearchResult:
    folder = tmp_path_factory.mktemp(request.param)
    return nas.search(
        network(folder, width=4),
        images(folder),
        nas.Target(keep_macs=0.5),
        run_dir=folder / "run",
        mode=request.param,
        round_to=2,
        **OPTIONS,
    )


def test_channels_leave_in_training(narrow: nas.SearchResult) -> None:
    facts = json.loads((narrow.run_dir / "report.json").read_text())
    assert facts["verified"]["passed"]
    assert facts["verified"]["moved"] > 0.01
    assert facts["kept"]["macs"] <= 0.5
    assert facts["full"]["accuracy"] == facts["compact"]["accuracy"]
    assert any(0 < layer["kept"] < layer["width"] for layer in facts["channels"])
    assert all(layer["kept"] % 2 == 0 for layer in facts["channels"])
    widths = {t.name: t.dims[0] for t in narrow.compact.graph.initializer if len(t.dims) == 4}
    full = {t.name: t.dims[0] for t in onnx.load(narrow.run_dir / "source.onnx").graph.initializer}
    assert any(width < full[name] for name, width in widths.items())


def test_what_training_chose_is_told_by_layer(narrow: nas.SearchResult) -> None:
    facts = json.loads((narrow.run_dir / "training.json").read_text())
    mode = narrow.report.config.mode
    last = facts["history"][-1]
    assert sum(facts["channels"].values()) + len(facts["chosen"]) == last["groups_chosen"] == last["groups_at_zero"]
    assert set(facts["channels"]) <= {fate.layer for fate in narrow.report.channels}
    assert bool(facts["redundancy"]) == (mode == "joint")
    text = (narrow.run_dir / "report.md").read_text()
    assert "channels stay, of the layers that may lose some" in text
    assert ("minimal removal structures are gone" in text) == (mode == "joint")


def test_a_narrow_run_goes_on_to_the_same_bits(narrow: nas.SearchResult, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        nas.search(
            narrow.run_dir / "source.onnx",
            f"npz:{narrow.run_dir.parent / 'images.npz'}",
            nas.Target(keep_macs=0.5),
            run_dir=tmp_path / "run",
            mode=narrow.report.config.mode,
            round_to=2,
            on_event=interrupt,
            **OPTIONS,
        )
    nas.resume(tmp_path / "run")
    for name in ("trained.onnx", "compact.onnx"):
        assert (tmp_path / "run" / name).read_bytes() == (narrow.run_dir / name).read_bytes()


def test_uniform_takes_channels_out_of_every_layer(tmp_path: Path) -> None:
    result = nas.search(
        network(tmp_path, "demosupnet", width=4),
        images(tmp_path),
        nas.Target(uniform=0.5),
        run_dir=tmp_path / "run",
        mode="prune",
        min_channels=2,
        channel_score="magnitude",
        **OPTIONS,
    )
    assert {layer.kept / layer.width for layer in result.report.channels} == {0.5}
    assert result.report.verification.passed


def test_weights_that_do_not_train_keep_their_channels(tmp_path: Path) -> None:
    result = nas.search(
        network(tmp_path, width=4),
        images(tmp_path),
        nas.Target(keep_params=0.7),
        run_dir=tmp_path / "run",
        mode="prune",
        freeze=("conv0.weight", "bn9.*"),
        **OPTIONS,
    )
    source, trained = (onnx.load(tmp_path / "run" / name) for name in ("source.onnx", "trained.onnx"))
    before, after = ({t.name: t for t in model.graph.initializer} for model in (source, trained))
    frozen = [name for name in before if name == "conv0.weight" or name in ("bn9.weight", "bn9.bias")]
    assert len(frozen) == 3
    assert all(before[name].raw_data == after[name].raw_data for name in frozen)
    assert result.report.verification.passed
    with pytest.raises(SpaceError, match="no channels may leave whose weights train"):
        nas.search(
            network(tmp_path, width=4),
            images(tmp_path),
            nas.Target(keep_params=0.7),
            run_dir=tmp_path / "none",
            mode="prune",
            freeze=("conv*", "bn*"),
            **OPTIONS,
        )


def test_targets_that_no_channels_reach(tmp_path: Path) -> None:
    for mode, target, message in (
        ("prune", nas.Target(keep_macs=0.0001), "at least 0."),
        ("prune", nas.Target(remove_groups=100_000), "at most"),
        ("joint", nas.Target(uniform=0.5), "no common number counts"),
    ):
        with pytest.raises(TargetError, match=message):
            nas.search(network(tmp_path), images(tmp_path), target, run_dir=tmp_path / "run", mode=mode, **OPTIONS)
    assert not (tmp_path / "run").exists()
