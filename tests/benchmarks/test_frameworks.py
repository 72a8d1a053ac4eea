"""The comparison of frameworks: networks from one file of weights, groups by common names, records, page, command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import onnx_asgnas
from benchmarks.frameworks import groups, inference, page, plots, records, torch_networks, weights
from benchmarks.frameworks.contenders import CONTROL, NETWORKS, Files
from benchmarks.frameworks.latency import RUNTIME, Contender
from benchmarks.frameworks.losses import ITSELF, RATES
from onnx_asgnas import models
from onnx_asgnas.cli import main
from onnx_asgnas.converters import convert
from onnx_asgnas.converters.agreement import run_onnx
from onnx_asgnas.converters.naming import rename
from onnx_asgnas.space import analyze

CHECKOUT = Path(__file__).parents[2]
WIDTH = 2

CHANNELS_FIRST = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[N,1,6,6] x) => (float[N,2,6,6] y) {
  h = Conv<pads=[1,1,1,1]>(x, a)
  r = Relu(h)
  y = Conv<pads=[1,1,1,1]>(r, b)
}
"""
CHANNELS_LAST = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[N,6,6,1] x) => (float[N,6,6,2] y) {
  t = Transpose<perm=[0,3,1,2]>(x)
  ka = Transpose<perm=[3,2,0,1]>(a)
  h = Conv<pads=[1,1,1,1]>(t, ka)
  l = Transpose<perm=[0,2,3,1]>(h)
  r = Relu(l)
  kb = Transpose<perm=[3,2,0,1]>(b)
  f = Transpose<perm=[0,3,1,2]>(r)
  c = Conv<pads=[1,1,1,1]>(f, kb)
  y = Transpose<perm=[0,2,3,1]>(c)
}
"""


@pytest.fixture(scope="module")
def unets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a narrow StackedUnets whose normalisations do something."""
    fresh = weights.stackedunets(width=WIDTH, seed=1)
    return weights.save(weights.shaken(fresh), tmp_path_factory.mktemp("weights") / "unets.npz")


def own_model(file: Path) -> onnx.ModelProto:
    """This package's own StackedUnets with the weights of a file."""
    model = models.build("stackedunets", width=WIDTH)
    found = weights.load(file)
    for tensor in model.graph.initializer:
        if tensor.name in found:
            tensor.CopyFrom(numpy_helper.from_array(found[tensor.name], tensor.name))
    return model


def outputs_of(module: torch.nn.Module, images: Any) -> Any:
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()


class TestNetworks:
    def test_stackedunets_is_the_one_of_this_package(self, unets: Path) -> None:
        images = inference.images(3)
        (expected,) = run_onnx(own_model(unets), {"input": images})
        got = outputs_of(torch_networks.stackedunets(str(unets), WIDTH), images)
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * np.abs(expected).max())

    def test_resnet20_takes_all_weights_and_no_others(self, tmp_path: Path) -> None:
        fresh = weights.resnet20(width=WIDTH, seed=0)
        module = torch_networks.resnet20(str(weights.save(fresh, tmp_path / "w.npz")), WIDTH)
        assert {n for n in module.state_dict() if not n.endswith("tracked")} == set(fresh)
        assert sum(isinstance(m, torch.nn.Conv2d) for m in module.modules()) == 21  # 19 and two that project
        assert outputs_of(module, inference.images(2)).shape == (2, 10)

    def test_weights_follow_from_the_seed(self) -> None:
        one, again, other = (weights.resnet20(width=WIDTH, seed=seed) for seed in (0, 0, 1))
        assert all(np.array_equal(one[name], again[name]) for name in one)
        assert not np.array_equal(one["fc.weight"], other["fc.weight"])

    def test_kernels_are_turned_for_channels_last(self) -> None:
        kernel = np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7)
        turned = weights.channels_last(kernel)
        assert turned.shape == (5, 7, 3, 2)
        assert turned[4, 6, 2, 1] == kernel[1, 2, 4, 6]


class TestGroups:
    @pytest.mark.parametrize(
        ("name", "common"),
        [
            ("layer1.0.bn1.weight", "layer1.0.bn1.weight"),
            ("layer1_0_conv1/kernel", "layer1.0.conv1.weight"),
            ("bn1/gamma", "bn1.weight"),
            ("bn1/beta", "bn1.bias"),
            ("layer2.0.downsample.layers.1.scale", "layer2.0.downsample.1.weight"),
            ("fc.kernel", "fc.weight"),
        ],
    )
    def test_names_of_all_frameworks(self, name: str, common: str) -> None:
        assert groups.common_name(name) == common

    def test_a_layout_changes_no_group(self) -> None:
        random = np.random.default_rng(0)
        common = {
            "a.weight": random.standard_normal((4, 1, 3, 3)).astype(np.float32),
            "b.weight": random.standard_normal((2, 4, 3, 3)).astype(np.float32),
        }
        found = []
        for text, last in ((CHANNELS_FIRST, False), (CHANNELS_LAST, True)):
            model = onnx.parser.parse_model(text)
            for name, values in common.items():
                turned = np.ascontiguousarray(weights.channels_last(values)) if last else values
                model.graph.initializer.append(numpy_helper.from_array(turned, name[0]))
            rename(model.graph, {name: f"{name}/kernel" if last else f"{name}.weight" for name in "ab"})
            found.append(groups.channel_groups(analyze(model, mode="prune"), common))
        assert found[0] == found[1] == [frozenset({("a.weight", 0, at)}) for at in range(4)]
        assert groups.fingerprint(found[0]) == groups.fingerprint(found[1][::-1])
        assert groups.fingerprint(found[0]) != groups.fingerprint(found[1][:3])

    def test_pytorchs_export_has_those_of_this_package(self, unets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(CHECKOUT)
        source = f"torch:benchmarks.frameworks.torch_networks:stackedunets?weights={unets}&width={WIDTH}"
        exported, own = convert(source, inputs=["image:float32[N,1,28,28]"]), own_model(unets)
        common = weights.load(unets)
        erase = [groups.structures(analyze(model, mode="erase")) for model in (exported, own)]
        assert erase[0] == erase[1]
        assert sum(minimal for _, minimal, _, _ in erase[0]) == 6
        prune = [groups.channel_groups(analyze(model, mode="prune"), common) for model in (exported, own)]
        assert set(prune[0]) == set(prune[1])
        by_kernels = groups.kernels_of(analyze(exported, mode="prune"), common)
        assert len(set(by_kernels)) == len(prune[0])


class TestMeasuring:
    def test_the_control_differs_in_one_number(self, tmp_path: Path) -> None:
        files = Files(tmp_path)
        place = tmp_path / "models" / "resnet20-PyTorch-0.onnx"
        place.parent.mkdir()
        model = own_model_of_one_kernel()
        onnx.save(model, place)
        moved = onnx.load(files.control(NETWORKS["resnet20"], 0))
        before, after = (numpy_helper.to_array(m.graph.initializer[0]) for m in (model, moved))
        assert np.flatnonzero(before != after).tolist() == [0]
        assert after.flat[0] == np.nextafter(before.flat[0], np.float32(np.inf))

    def test_the_last_record_of_a_key_counts(self, tmp_path: Path) -> None:
        file = tmp_path / "records.jsonl"
        for accuracy in (0.5, 0.7):
            records.keep({"kind": "search", "network": "resnet20", "framework": "Flax", "seed": 1, "a": accuracy}, file)
        records.keep({"kind": "losses", "network": "resnet20"}, file)
        assert [record.get("a") for record in records.read(file)] == [0.7, None]
        assert set(records.read(file)[0]["around"]) >= {"commit", "versions", "load"}

    def test_a_contender_answers_from_its_own_process(self, tmp_path: Path) -> None:
        from benchmarks.frameworks.latency import _start

        path = tmp_path / "model.onnx"
        model = models.build("demosupnet", width=1)
        onnx.save(model, path)
        with _start("onnxruntime", None, "", NETWORKS["stackedunets"], path) as contender:
            first, second = contender.ask(2, 0), contender.ask(2, 3)
        (expected,) = run_onnx(model, {"input": inference.images(2)})
        np.testing.assert_allclose(first["outputs"], expected, rtol=1e-4, atol=1e-5)
        assert [len(each["seconds"]) for each in (first, second)] == [0, 3]
        assert "outputs" not in second

    def test_one_that_ends_says_why(self, tmp_path: Path) -> None:
        from benchmarks.frameworks.latency import _start

        contender: Contender = _start("onnxruntime", None, "", NETWORKS["stackedunets"], tmp_path / "missing.onnx")
        with pytest.raises(RuntimeError, match=r"a contender ended: .*missing.onnx"), contender:
            contender.ask(1, 1)


def own_model_of_one_kernel() -> onnx.ModelProto:
    model: onnx.ModelProto = onnx.parser.parse_model(CHANNELS_FIRST)
    for name, shape in (("a", (4, 1, 3, 3)), ("b", (2, 4, 3, 3))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    return model


def conversion(framework: str, channels: str = "1") -> dict[str, Any]:
    return {
        "kind": "conversion", "network": "stackedunets", "framework": framework, "exporter": "e", "seconds": 2.0,
        "processor": 1.5, "differs": 3e-7, "operators": 90, "normal": 70, "types": {"Conv": 23, "Add": 7},
        "structures": {
            "erasable": 8, "minimal": 6, "hash": "0",
            "kept": {"'bn1.bias' is used outside of it too": 1, "'bn9.bias' is used outside of it too": 2},
        },
        "channels": {"free": 128, "total": 138, "hash": channels},
        "pruned": {"params": 0.27, "macs": 0.26, "difference": 1e-7},
    }  # fmt: skip


def other_records() -> list[dict[str, Any]]:
    curves = {"PyTorch": [2.0, 1.0], "Keras": [2.0, 1.0002], CONTROL: [2.0, 1.01], ITSELF: [2.0, 0.98]}
    one = {"milliseconds": 1.5, "p95": 2.0, "ratio": 3.0, "rounds": 9}
    contenders = {RUNTIME: one | {"ratio": 1.0}, "eager": one}
    chosen = {"chosen": 69, "only_one": 2, "differs": 1e-4}
    found: list[dict[str, Any]] = [
        {
            "kind": "losses",
            "network": "resnet20",
            "losses": {str(rate): curves for rate in RATES},
            "step": {name: {"milliseconds": 20.0, "ratio": 1.1} for name in ("PyTorch", ITSELF)},
        },
        {"kind": "choice", "network": "resnet20", "range": 0.75, "contenders": {"PyTorch": chosen}},
        {
            "kind": "latency",
            "network": "resnet20",
            "framework": "Flax",
            "threads": 1,
            "batches": {"1": contenders, "32": contenders},
        },
    ]
    for framework, accuracies in (("PyTorch", (0.8, 0.82)), ("Flax", (0.83, 0.85)), (CONTROL, (0.81, 0.82))):
        for seed, accuracy in enumerate(accuracies):
            facts = {"params": 3000, "macs": 2e6, "bytes": 12000, "latency_ratio": 0.5, "difference": 0.0}
            key = {"kind": "search", "network": "resnet20", "framework": framework, "seed": seed}
            found.append(key | facts | {"accuracy": accuracy})
    return found


class TestPage:
    def test_every_kind_has_its_section(self) -> None:
        text = page.document([conversion("PyTorch"), conversion("Keras"), *other_records()])
        for line in (
            "| StackedUnets, Keras | e | 2.0 | 1.5 | 3e-07 | 90 | 70 | 8, 6 minimal | 128 of 138 | 27.0 % | 26.0 % |",
            "- StackedUnets: structures the same, channels the same in PyTorch and Keras.",
            "3 more tensors that only a sum reads cannot be erased: a weight of theirs is used outside of it too.",
            "- StackedUnets, PyTorch: 23 Conv, 7 Add.",
            f"| ResNet-20 | {RATES[0]} | 2.0e-04 | 1.0e-02 | 2.0e-02 |",
            "Frameworks apart at the low rate: ResNet-20 2.0e-04 (asked for: 0.001).",
            "| ResNet-20 | 20.0 (1.10) | 20.0 (1.10) |",
            "| ResNet-20, PyTorch | 69 | 67 of 69 | 1e-04 | 0.75 |",
            "| Flax: eager | 1.500 (3.00) | 1.500 (3.00) |",
            "| ResNet-20, Flax | 84.00 ± 1.41 | 2 | 3,000 | 2.00 M | 12 KB | 0.50 | 0e+00 |",
            "frameworks' means are 3.00 points apart (asked for: 1.0), PyTorch's and its control's 0.50.",
        ):
            assert line in text

    def test_groups_that_differ_are_said_loudly(self) -> None:
        text = page.document([conversion("PyTorch"), conversion("Flax", channels="2")])
        assert "structures the same, channels **not the same** in PyTorch and Flax" in text

    def test_pictures_are_the_same_to_the_bit(self, tmp_path: Path) -> None:
        drawn = plots.draw(other_records(), tmp_path)
        assert set(drawn) == {"losses", "latency", "search"}
        first = {name: (tmp_path / name).read_bytes() for name in drawn.values()}
        plots.draw(other_records(), tmp_path)
        assert first == {name: (tmp_path / name).read_bytes() for name in drawn.values()}
        assert max(map(len, first.values())) < 60_000


class TestCommand:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["benchmark"], "Give FULL, or --frameworks"),
            (["benchmark", "net.onnx", "--frameworks"], "Leave the models out"),
        ],
    )
    def test_bad_use(self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err

    def test_it_needs_a_checkout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(onnx_asgnas, "__file__", str(tmp_path / "onnx_asgnas" / "__init__.py"))
        assert main(["benchmark", "--frameworks"]) == 2
        assert "Clone the repository" in capsys.readouterr().err

    @pytest.mark.skipif(os.name == "nt", reason="the script is a stand-in for a shell")
    def test_it_runs_the_script_and_passes_its_exit_code_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "benchmarks").mkdir()
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs" / "frameworks.jsonl").write_text('{"kind": "losses"}\n')
        script = tmp_path / "benchmarks" / "frameworks.py"
        script.write_text("print('measuring')")
        monkeypatch.setattr(onnx_asgnas, "__file__", str(tmp_path / "onnx_asgnas" / "__init__.py"))
        assert main(["benchmark", "--frameworks", "--json"]) == 0
        out, err = capfd.readouterr()
        assert '"kind": "losses"' in out and "measuring" in err
        script.write_text("raise SystemExit(2)")
        assert main(["benchmark", "--frameworks"]) == 2
