"""Experiments: what their files say, that their runs are done once and go on, and the page that they give."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_asgnas import experiments, models
from onnx_asgnas.cli import main
from onnx_asgnas.cli.side_by_side import side_by_side
from onnx_asgnas.config import Target
from onnx_asgnas.errors import InputError
from onnx_asgnas.experiments.plots import draw_all
from onnx_asgnas.experiments.recipe import METHODS, Experiment, options_set
from onnx_asgnas.experiments.runner import Run, Runner, reinitialised
from onnx_asgnas.experiments.tables import page, standard_error
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.runs import data_for
from onnx_asgnas.space import analyze
from onnx_asgnas.specs import parse_spec
from onnx_asgnas.training.data import cifar, imagenet, stl10, svhn
from tests.training.data import publishers
from tests.training.data.publishers import pixels
from tests.training.data.test_publishers import know, md5

TINY = """
title = "Tiny"
model = "stackedunets?width=1&size=8"
data = "npz:{data}"
methods = ["plain", "h2spg", "scratch", "second"]
seconds = 1

[target]
remove_groups = 2

[options]
epochs = 2
batch_size = 16

[variants.second]
score = "random"
select_at = 0.2
zero_at = 0.5
remove_groups = 1

[sweeps.projection]
title = "Of the projection"
points = [{{ epsilon = 0.0 }}, {{ epsilon = 0.9 }}]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    labels = np.arange(80) % 10
    images = random.standard_normal((80, 1, 8, 8)).astype(np.float32) + labels[:, None, None, None].astype(np.float32)
    np.savez(tmp_path / "data.npz", input=images, label=labels)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(data=tmp_path / "data.npz"))
    return path


def runner_in(folder: Path) -> Runner:
    return Runner(folder=folder / "runs", results=folder / "results.jsonl", threads=1)


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_of_the_package_can_be_read(name: str) -> None:
    found = experiments.read(name)
    assert found.name == name
    assert found.title
    assert found.methods
    if name.startswith("paper/"):
        assert found.has_folder == ("fashion" not in name)
    else:
        assert found.seconds <= 1800
        spec = parse_spec(found.model, InputError)
        assert 2e6 < analyze(models.build(spec.name, **spec.arguments)).macs < 6e6  # what two cores train in minutes


def test_the_paper_s_settings_read_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On tiny files in the publishers' forms: model and data fit each other as they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    files = publishers.cifar_python(tmp_path, [pixels(4, 32)] * 6, [[0, 1, 2, 9]] * 6)
    know(monkeypatch, cifar, "PYTHON", files)
    parts = {
        f"{n}_32x32.mat": publishers.svhn(tmp_path, f"{n}_32x32.mat", pixels(4, 32), [0, 1, 2, 9])
        for n in ("train", "test")
    }
    know(monkeypatch, svhn, "RELEASE", parts)
    unlabelled = publishers.stl10(tmp_path, "train", pixels(4, 96), [0, 1, 2, 9])
    know(monkeypatch, stl10, "RELEASE", unlabelled | publishers.stl10(tmp_path, "test", pixels(2, 96), [3, 4]))
    train = publishers.tar_of({"n01.tar": publishers.tar_of({"n01_1.JPEG": publishers.encoded((9, 9, 9))})})
    test = publishers.tar_of({"ILSVRC2012_val_00000001.JPEG": publishers.encoded((9, 9, 9))})
    content = dict(zip(imagenet.ARCHIVES, (train, test, publishers.devkit(["n01"], [1])), strict=True))
    for file, data in publishers.written(tmp_path, content).items():
        monkeypatch.setitem(imagenet.ARCHIVES, file, md5(data))
    for name in experiments.names():
        found = experiments.read(name)
        if not found.has_folder:
            continue
        spec = parse_spec(found.model, InputError)
        narrow = {"width": 1} | ({"cells": 2} if spec.name == "darts" else {})  # what they read stays the same
        graph = TraceGraph.of(models.build(spec.name, **(spec.arguments | narrow)))
        dataset = data_for(graph, found.data_in(str(tmp_path)))
        inputs, _ = next(dataset.train.batches(2, shuffle=True))
        assert inputs["input"].shape[1:] == graph.size("input")[1:]  # type: ignore[index]
        with pytest.raises(InputError, match="Give it as --data-dir DIR"):
            found.data_in(None)


def test_runs_are_done_once_and_in_an_order_that_works(tiny: Path, tmp_path: Path) -> None:
    runner, found = runner_in(tmp_path), experiments.read(str(tiny))
    runs = runner.missing(found)
    assert [run.name for run in runs] == [
        "tiny-plain-0",
        "tiny-h2spg-0",
        "tiny-second-0",
        "tiny-epsilon=0.9-0",
        "tiny-scratch-0",
    ]
    assert runner.estimate(runs) == 5
    lines = {run.method: runner.do(run) for run in runs}
    assert runner.missing(found) == []
    assert list(runner.finished()) == [run.name for run in runs]
    assert lines["h2spg"]["verified"]["passed"]
    assert lines["h2spg"]["macs"] == lines["scratch"]["macs"] < lines["plain"]["macs"]
    assert len(lines["h2spg"]["chosen"]) > 0
    assert lines["h2spg"]["valid"] and lines["h2spg"]["valid_unchecked"] is None
    assert lines["second"]["valid"] and lines["second"]["valid_unchecked"] in (True, False)
    assert (lines["h2spg"]["target"], lines["second"]["target"]) == ("remove_groups=2", "remove_groups=1")
    assert lines["h2spg"]["latency_ms"]["full"]["p95"] > 0
    assert len(lines["h2spg"]["norms"]["groups"]) == len(lines["h2spg"]["norms"]["values"]) == 8
    assert lines["plain"]["wall"] >= lines["plain"]["seconds"]
    assert runner.estimate(runs) == sum(line["wall"] for line in lines.values())
    assert lines["second"]["config"]["score"] == "random"
    assert 0 <= lines["scratch"]["accuracy"] <= 1
    text = page([found], lines.values())
    assert "## Tiny" in text
    assert "Compact against zeroed full, 3 runs" in text
    assert "With the hierarchy 3 of 3 chosen sets are valid" in text
    assert "5 runs, which took " in text and "Latency of H2SPG: full " in text
    assert text.count("\n| ") == 2 + 5 + 3  # at a glance, by method, what is varied
    assert "| Tiny | " in text and "Of the projection:\n\n| epsilon | 0.0 | 0.9 |" in text


def test_points_of_a_sweep_that_are_runs_already() -> None:
    found = experiments.read("stackedunets-6k")
    ways = {name: [found.method_at(sweep, point) for point in sweep.points] for name, sweep in found.sweeps.items()}
    assert ways["epsilon"] == ["h2spg", "epsilon=0.5", "epsilon=0.9", "epsilon=0.95", "epsilon=0.99"]
    assert ways["groups"] == ["remove_groups=1", "remove_groups=2", "remove_groups=3", "h2spg", "remove_groups=5"]
    assert ways["scores"][:4] == ["h2spg", "paper", "score=hesso", "magnitude"] and ways["scores"][-1] == "random"
    assert ways["weights"][0] == "score=mean-magnitude" and ways["weights"][2] == "paper"
    assert len(set(found.all_methods)) == len(found.all_methods)
    assert found.target_of("remove_groups=5").remove_groups == 5
    assert found.target_of("joint").keep_macs == 0.5 and found.options_of("joint")["mode"] == "joint"
    assert found.options_of("select_at=0.4")["zero_at"] == 0.45
    assert "keep_macs" not in found.options_of("joint")


def test_a_line_of_another_target_or_network_is_not_this_run(tiny: Path, tmp_path: Path) -> None:
    runner, found = runner_in(tmp_path), experiments.read(str(tiny))
    line = {"name": "tiny-plain-0", "experiment": "tiny", "method": "plain", "seconds": 7.0, "model": found.model}
    of_target = ({}, 4), ({"target": "remove_groups=2"}, 4), ({"target": "keep_macs=0.5"}, 5)
    for differs, left in (*of_target, ({"model": "stackedunets?width=9"}, 5)):
        runner.results.write_text(json.dumps(line | differs) + "\n")
        assert len(runner.missing(found)) == left
    assert runner.estimate(runner.runs(found)) == 4 + 7


def test_a_run_with_other_options_is_made_anew_and_told(tiny: Path, tmp_path: Path) -> None:
    runner, found = runner_in(tmp_path), experiments.read(str(tiny))
    line = runner.do(Run(found, "plain", 0))
    assert found.changed_since(line) == {} and len(runner.missing(found)) == 4
    assert "another option" not in page([found], [line])
    line["config"] |= {"schedule": "cosine", "threads": 7}
    runner.results.write_text(json.dumps(line) + "\n")
    assert found.changed_since(line) == {"schedule": "cosine"} and len(runner.missing(found)) == 5
    assert "1 of these runs had another option then (schedule cosine)" in page([found], [line])
    config = runner.place(Run(found, "plain", 0)).config
    config.write_text(config.read_text().replace("cosine?hold=0.15", "cosine"))
    with pytest.raises(InputError, match=r"was begun with another option \(schedule cosine\)\nRemove "):
        runner.do(Run(found, "plain", 0))


def test_a_folder_begun_with_another_network_target_or_data_is_told(tiny: Path, tmp_path: Path) -> None:
    runner, found = runner_in(tmp_path), experiments.read(str(tiny))
    gated = replace(found, options={**found.options, "gates": True})
    lines = [runner.do(Run(gated, "h2spg", 0))]
    assert not gated.changed_since(lines[0])
    runner.do(Run(gated, "h2spg", 0))  # the same again is no other network
    for changed, told in (
        ({"target": Target(remove_groups=1)}, r"another option \(target remove_groups=2\)"),
        ({"data": "npz:other.npz"}, r"another option \(data npz:.*data\.npz\)"),
        ({"model": "stackedunets?width=2&size=8"}, "another network"),
    ):
        with pytest.raises(InputError, match=f"was begun with {told}"):
            runner.do(Run(replace(gated, **changed), "h2spg", 0))


def test_the_folder_of_the_images_is_no_part_of_what_a_run_is(tiny: Path) -> None:
    found = replace(experiments.read(str(tiny)), data="cifar10?augment=crop", has_folder=True)
    config = options_set(asdict(found.config_of("plain")))
    line = {"method": "plain", "model": found.model}
    for data, other in (
        ("cifar10:~/images?augment=crop", {}),
        ("cifar10:~/images?augment=flip", {"data": "cifar10?augment=flip"}),
    ):
        assert found.changed_since(line | {"config": config | {"data": data}}) == other
    own = replace(found, data="npz:a.npz", has_folder=False)
    assert own.changed_since(line | {"config": config | {"data": "npz:b.npz"}}) == {"data": "npz:b.npz"}


def test_a_plain_training_has_the_learning_rate_of_the_searches(tiny: Path) -> None:
    found = experiments.read(str(tiny))
    assert {found.config_of(m).schedule for m in ("plain", "h2spg", "scratch")} == {"cosine?hold=0.15"}
    assert found.config_of("second").schedule == "cosine?hold=0.5"
    assert "zero_at" not in found.options_of("plain")


def test_what_two_experiments_vary_stands_side_by_side(tiny: Path) -> None:
    one = experiments.read(str(tiny))
    other = replace(one, name="other", title="Other")
    accuracy = {("tiny", "h2spg"): 0.7, ("tiny", "epsilon=0.9"): 0.8, ("other", "h2spg"): 0.9}
    facts = {"params": 10, "macs": 100, "seconds": 1.0}
    lines = [
        {"name": f"{e}-{m}-0", "experiment": e, "method": m, "seed": 0, "accuracy": right, **facts}
        for (e, m), right in accuracy.items()
    ]
    last = {**lines[-1], "name": "other-epsilon=0.9-0", "method": "epsilon=0.9", "accuracy": 0.85}
    text = page([one, other], [*lines, last])
    table = text.partition("## Of the projection, side by side\n\n")[2].splitlines()
    assert table[0] == "| epsilon | Tiny | Other | mean |"
    assert table[2:5] == [
        "| 0.9 | 80.00 | 85.00 | 82.50 |",
        "| **0.0**, the default | 70.00 | 90.00 | 80.00 |",
        "",
    ]
    assert "0.9 | 80.00 |" not in page([one, other], lines)  # where one has not got it yet


def test_a_full_network_that_is_trained_alike_elsewhere_is_compared_with(tiny: Path) -> None:
    one = experiments.read(str(tiny))
    gated = replace(one, name="gated", title="Gated", methods=("h2spg",), options={**one.options, "gates": True})
    longer = replace(gated, name="longer", title="Longer", options={**gated.options, "epochs": 3})
    facts = {"params": 10, "macs": 100, "seconds": 1.0, "accuracy": 0.9, "seed": 0, "method": "h2spg"}
    lines = [{"name": f"{e}-h2spg-0", "experiment": e, **facts, "macs": 30} for e in ("gated", "longer")]
    lines.append({"name": "tiny-plain-0", "experiment": "tiny", **facts, "method": "plain", "accuracy": 0.95})
    text = page([one, gated, longer], lines)
    assert "| Gated | 30 % | 95.00 | **90.00** |" in text
    assert "| Longer | – | – | **90.00** |" in text


def test_more_seeds_are_for_the_methods_named(tiny: Path, tmp_path: Path) -> None:
    text = tiny.read_text() + "\n[more_seeds]\nh2spg = 3\nscratch = 3\n"
    tiny.write_text(text)
    found = experiments.read(str(tiny))
    runs = [(run.method, run.seed) for run in runner_in(tmp_path).runs(found)]
    of_all = [(method, 0) for method in ("plain", "h2spg", "second", "epsilon=0.9", "scratch")]
    assert runs == [*of_all, ("h2spg", 1), ("scratch", 1), ("h2spg", 2), ("scratch", 2)]

    facts = {"experiment": "tiny", "params": 10, "macs": 100, "seconds": 1.0}
    right = {"plain": (0.9,), "h2spg": (0.8, 0.7, 0.6), "scratch": (0.7, 0.65, 0.55), "epsilon=0.9": (0.75,)}
    lines = [
        {"name": f"tiny-{m}-{seed}", "method": m, "seed": seed, "accuracy": value, **facts}
        for m, values in right.items()
        for seed, value in enumerate(values)
    ]
    shown = page([found], lines)
    assert "| **70.00 ± 5.77 (3)** | – | – | 63.33 ± 4.41 (3) |" in shown
    assert "| **H2SPG** | 3 | 70.00 ± 5.77 |" in shown
    assert "seed by seed: -10.00 against plain, +6.67 ± 1.67 against scratch." in shown
    assert "| test accuracy | 80.00 | 75.00 |" in shown, "a sweep compares the same seeds"

    tiny.write_text(text.replace("scratch = 3", '"epsilon=0.9" = 3'))
    shown = page([experiments.read(str(tiny))], lines)
    assert "| test accuracy | 70.00 ± 5.77 (3) | 75.00 |" in shown, "but where several points have more seeds"

    tiny.write_text(text.replace("scratch = 3", "nope = 3"))
    with pytest.raises(InputError, match="there is no method 'nope'"):
        experiments.read(str(tiny))


def test_pictures_of_results_are_the_same_each_time(tiny: Path, tmp_path: Path) -> None:
    found = experiments.read(str(tiny))
    norms = {
        "groups": ["bn38", "bn75"],
        "step": [0, 5, 10],
        "total": 10,
        "phases": [{"phase": "warm-up", "step": 0}, {"phase": "converge", "step": 5}],
        "values": [[1.0, 0.5, 2.0], [1.0, 0.0, 0.0]],
    }
    lines = [
        {
            "name": f"tiny-{method}-{seed}",
            "experiment": "tiny",
            "method": method,
            "seed": seed,
            "accuracy": 0.5 + 0.01 * at + 0.02 * seed,
            "params": 100 + at,
            "macs": 1000 + at,
            "seconds": 1.0,
            "chosen": ["bn75"],
            "norms": norms,
        }
        for at, method in enumerate(found.all_methods)
        for seed in (0, 1)
    ]
    folders = tmp_path / "a", tmp_path / "b"
    drawn = [draw_all([found], lines, folder) for folder in folders]
    names = sorted(path.name for path in folders[0].iterdir())
    assert [name for name in names if name.startswith("tiny")] == [
        "tiny-network.svg",
        "tiny-norms.svg",
        "tiny-projection.svg",
    ]
    assert len(drawn[0][""]) == 1 and next(p.title for p in drawn[0]["tiny"]) == "Of the projection"
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
        assert (folders[0] / name).stat().st_size < 60_000


def test_a_run_that_was_begun_goes_on(tiny: Path, tmp_path: Path) -> None:
    found = experiments.read(str(tiny))
    whole = runner_in(tmp_path / "one").do(Run(found, "h2spg", 0))
    runner = runner_in(tmp_path / "two")

    def stop(event: object) -> None:
        if getattr(event, "kind", "") == "epoch":
            raise KeyboardInterrupt

    for method in ("h2spg", "plain"):
        with pytest.raises(KeyboardInterrupt):
            runner.do(Run(found, method, 0), stop)
        assert not runner.finished()
        line = runner.do(Run(found, method, 0))
        runner.results.unlink()
        if method == "h2spg":
            assert (line["accuracy"], line["chosen"]) == (whole["accuracy"], whole["chosen"])


def test_on_the_command_line(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["experiment", str(tiny), "-o", str(tmp_path / "runs"), "--threads", "1"]
    assert main([*common, "--estimate"]) == 0
    assert "Tiny: 5 of 5 runs, about 5.0 s" in capsys.readouterr().out
    assert main([*common, "--only", "*-plain-*", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["runs"]
    assert line["name"] == "tiny-plain-0"
    assert main([*common, "--only", "*-plain-*"]) == 0
    assert "nothing to do: each of these runs has a line in" in capsys.readouterr().out
    assert main(["results", str(tmp_path / "runs" / "results.jsonl"), "--experiment", str(tiny)]) == 0
    assert "full network, trained plainly" in capsys.readouterr().out
    assert main(["experiment", str(tiny), "-o", str(tmp_path / "other"), "--only", "*scratch*"]) == 2
    assert "tiny-scratch-0 needs the network that tiny-h2spg-0 finds" in capsys.readouterr().err
    assert main(["experiment", str(tiny), "--only", "nope"]) == 2
    assert "no run is called 'nope'\nThey are called like tiny-plain-0" in capsys.readouterr().err
    page = tmp_path / "page.md"
    told = ["results", str(tmp_path / "runs" / "results.jsonl"), "--experiment", str(tiny), "-o", str(page)]
    assert main(told) == 0
    (picture,) = (tmp_path / "page").iterdir()
    assert f"](page/{picture.name})" in page.read_text()
    assert main(["experiment", "all", "-o", str(tmp_path / "all"), "--estimate", "--json", "--jobs", "2"]) == 0
    planned = json.loads(capsys.readouterr().out.partition("\n{")[2].join(("{", "")))
    assert planned["seconds"] < 4.5 * 3600, "hours of a machine of two cores, a run on each"
    assert main(["experiment"]) == 0
    assert "stackedunets-6k" in capsys.readouterr().out


def test_several_runs_at_once(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["experiment", str(tiny), "-o", str(tmp_path / "runs"), "--jobs", "2"]
    assert main([*common, "--estimate"]) == 0
    assert "Tiny: 5 of 5 runs, about 2.5 s with 2 at a time" in capsys.readouterr().out
    assert main([*common, "--only", "*-h2spg-*"]) == 0
    assert main(common) == 0
    told = capsys.readouterr().out.splitlines()
    done = [line.partition(":")[0] for line in told if " parameters, " in line]
    assert sorted(done) == sorted(run.name for run in runner_in(tmp_path).runs(experiments.read(str(tiny))))
    alone = runner_in(tmp_path / "alone").do(Run(experiments.read(str(tiny)), "h2spg", 0))
    found = runner_in(tmp_path / "runs").finished()
    assert found["tiny-h2spg-0"]["accuracy"] == alone["accuracy"]
    assert "at zero" in (tmp_path / "runs" / "tiny-second-0.log").read_text()

    broken = tmp_path / "broken.toml"
    broken.write_text(tiny.read_text().replace("npz:", "npz:no"))
    assert main(["experiment", str(broken), "-o", str(tmp_path / "other"), "-j", "3", "--json"]) == 2
    said = capsys.readouterr().err
    assert "-0 failed: " in said and "-0.log says more; the same command goes on." in said


def test_a_run_that_needs_another_waits_for_it(tiny: Path, tmp_path: Path) -> None:
    found = experiments.read(str(tiny))
    runs = [Run(found, method, 0) for method in ("scratch", "h2spg")]
    names = [line["name"] for line in side_by_side(runs, runner_in(tmp_path), str(tiny), 2)]
    assert names == ["tiny-h2spg-0", "tiny-scratch-0"]


def test_options_of_a_method() -> None:
    def of(mode: str, method: str) -> dict[str, object]:
        found = experiments.read("regnet-6k")
        return Experiment(
            **{f: getattr(found, f) for f in ("name", "title", "model", "data", "target")}, options={"mode": mode}
        ).options_of(method)

    assert of("erase", "random") == {"mode": "erase", "score": "random"}
    assert of("joint", "random") == {"mode": "joint", "score": "random", "channel_score": "random"}
    assert of("prune", "random") == {"mode": "prune", "channel_score": "random"}
    assert of("joint", "h2spg") == {"mode": "joint"}
    assert set(METHODS) >= {"plain", "h2spg", "scratch", "random", "magnitude", "hesso", "dhspg"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"plain", ', '"plane", '), "there is no method 'plane'"),
        (("seconds = 1", "more_seeds = 1"), "has no attribute 'items'"),
        (("seconds = 1", "seeds = []"), "seeds is (), and no list"),
        (("seconds = 1", "seeds = 3"), "seeds is 3, and no list"),
        (("seconds = 1", "more_seeds.h2spg = 0"), "more_seeds of h2spg are 0"),
        (("seconds = 1", "more_seeds.h2 = 3"), "there is no method 'h2'"),
        (("epochs", "epoch"), "there is no option 'epoch'"),
        (("remove_groups", "remove"), "unexpected keyword argument 'remove'"),
        (("title", "heading"), "unexpected keyword argument 'heading'"),
        (("[target]", "[target"), "Expected ']'"),
        (("{ epsilon = 0.9 }", "{ zero_at = 0.9 }"), "do not begin with the same option"),
        (("epsilon = 0.9 }", "epsilon = 0.9, wrong = 1 }"), "there is no option 'wrong'"),
    ],
)
def test_files_that_say_something_else_are_refused(change: tuple[str, str], message: str, tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace(*change))
    with pytest.raises(InputError) as caught:
        experiments.read(str(tiny))
    assert message in str(caught.value)


def test_names_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no experiment 'nope'\nChoose one of: "):
        experiments.read("nope")
    with pytest.raises(InputError, match="cannot be read"):
        experiments.read(str(tmp_path / "nope.toml"))
    for line in ("no JSON", "[1]", '{"name": "a"}'):
        (tmp_path / "results.jsonl").write_text(f"{line}\n")
        with pytest.raises(InputError, match="holds no results"):
            runner_in(tmp_path).finished()


def test_new_weights_are_like_those_of_a_new_network() -> None:
    model = models.build("stackedunets", width=16)
    other = reinitialised(model, 5)
    onnx.checker.check_model(other)
    old, new = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (model, other))
    assert old.keys() == new.keys()
    for name, values in new.items():
        if values.ndim == 4:
            assert not np.array_equal(values, old[name])
            assert np.std(values) == pytest.approx(np.sqrt(2 / np.prod(values.shape[1:])), rel=0.25)
        elif not name.endswith("scales"):
            assert np.array_equal(values, old[name]) or name == "linear79.weight"


def test_the_standard_error_of_one_value_is_not_known() -> None:
    assert np.isnan(standard_error([1.0]))
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)
