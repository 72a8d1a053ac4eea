"""The engine under the bridge: its Protocol, its care for what else lives in the process, and the runtime's traps."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser

from onnx_asgnas.config import EngineOptions
from onnx_asgnas.errors import InputError, PackageError, TrainingError, UnsupportedOperatorError
from onnx_asgnas.graph import normalise, packages
from onnx_asgnas.training.engines import (
    Engine,
    create_engine,
    dialect_of,
    engine_names,
    ort_session,
    resolve_engine,
)
from onnx_asgnas.training.lowering import TrainingGraph, lower

WITHOUT_ORT = "needs onnxruntime-training: pip install onnx-asgnas[cpu]"
LINEAR = "g (float[N,2] x) => (float[N,2] y) { y = MatMul(x, W) }"
needs_ort = pytest.mark.skipif(not packages.can_train(), reason=WITHOUT_ORT)


@pytest.fixture(params=["ort", "torch"])
def engine_name(request: pytest.FixtureRequest) -> str:
    if request.param == "ort" and not packages.can_train():
        pytest.skip(WITHOUT_ORT)
    return str(request.param)


def graph_of(text: str, weights: dict[str, object], wrt: list[str] | None = None, engine: str = "ort") -> TrainingGraph:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    return lower(normalise(model), list(weights), wrt=wrt, dialect=dialect_of(engine))


def test_engine_gives_outputs_and_the_gradients_that_were_asked_for(engine_name: str) -> None:
    graph = graph_of(
        "g (float[N,3] x) => (float[N,2] y) { h = MatMul(x, W) y = Add(h, b) }",
        {"W": np.ones((3, 2)), "b": np.zeros(2)},
        wrt=["x", "W"],
        engine=engine_name,
    )
    held = {"W": torch.ones(3, 2), "b": torch.zeros(2)}
    engine: Engine = create_engine(graph, held, EngineOptions(engine=engine_name, threads=1))
    assert engine.graph is graph
    x = torch.tensor([[1.0, 2, 3]])
    (y,), run = engine.forward([x])
    assert torch.equal(y, torch.full((1, 2), 6.0))
    of_x, of_w = run.backward([torch.tensor([[1.0, 10]])])
    assert torch.equal(of_x, torch.full((1, 3), 11.0))
    assert torch.equal(of_w, torch.tensor([[1.0, 10], [2, 20], [3, 30]]))
    with pytest.raises(TrainingError, match="already run"):
        run.backward([None])
    held["b"].fill_(5)  # read in place
    assert torch.equal(engine.forward([x])[0][0], torch.full((1, 2), 11.0))


def test_several_runs_wait_at_the_same_time(engine_name: str) -> None:
    graph = graph_of(
        "g (float[N,1] x) => (float[N,1] y) { h = Mul(x, x) y = MatMul(h, W) }", {"W": [[1.0]]}, None, engine_name
    )
    engine = create_engine(graph, {"W": torch.ones(1, 1)}, EngineOptions(engine=engine_name))
    runs = [engine.forward([torch.tensor([[float(value)]])])[1] for value in (1, 2, 3)]
    for value, run in zip((3, 2, 1), reversed(runs), strict=True):
        assert run.backward([torch.ones(1, 1)])[0].item() == value**2


def test_gradient_of_an_output_that_nobody_gave_is_zero(engine_name: str) -> None:
    graph = graph_of(
        "g (float[N,1] x) => (float[N,1] y, float[N,1] z) { y = MatMul(x, W) z = Exp(y) }",
        {"W": [[1.0]]},
        None,
        engine_name,
    )
    engine = create_engine(graph, {"W": torch.ones(1, 1)}, EngineOptions(engine=engine_name))
    _, run = engine.forward([torch.ones(2, 1)])
    assert run.backward([torch.ones(2, 1), None])[0].item() == 2


@needs_ort
def test_names_of_engines() -> None:
    assert engine_names() == ("auto", "ort", "torch")
    assert resolve_engine("auto") == "ort"
    assert resolve_engine("auto", "cuda") == "torch"
    with pytest.raises(InputError, match="Choose one of: auto, ort, torch"):
        resolve_engine("gpu")


@needs_ort
def test_auto_is_torch_where_the_runtime_only_infers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(packages.import_onnxruntime().capi._pybind_state, "TrainingAgent")
    with caplog.at_level("INFO", "onnx_asgnas"):
        assert resolve_engine("auto") == "torch"
    assert "onnxruntime-training is not installed" in caplog.text


@pytest.mark.parametrize("options", [{"device": "mps"}, {"autocast": "bf16"}, {"channels_last": True}])
def test_options_that_only_torch_has(options: dict[str, object]) -> None:
    graph = graph_of("g (float[N,1] x) => (float[N,1] y) { y = MatMul(x, W) }", {"W": [[1.0]]})
    with pytest.raises(InputError, match="Use engine torch"):
        create_engine(graph, {"W": torch.ones(1, 1)}, EngineOptions(engine="ort", **options))  # type: ignore[arg-type]


@needs_ort
def test_a_device_that_the_runtime_cannot_use_is_an_error_at_once() -> None:
    with pytest.raises(InputError, match=r"trains on cpu and cuda, not on mps\nUse engine torch"):
        ort_session.providers_on("mps")
    if "CUDAExecutionProvider" not in packages.import_onnxruntime().get_available_providers():
        with pytest.raises(PackageError, match="no CUDAExecutionProvider"):
            create_engine(graph_of(LINEAR, {"W": np.ones((2, 2))}), {}, EngineOptions(engine="ort", device="cuda"))


def test_cuda_takes_its_own_device_and_the_stream_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = packages.import_onnxruntime()
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=7 + device.index))
    cuda = ("CUDAExecutionProvider", {"device_id": "1", "user_compute_stream": "8"})
    assert ort_session.providers_on("cuda:1") == [cuda, "CPUExecutionProvider"]
    assert ort_session.providers_on("cpu") == ["CPUExecutionProvider"]


@needs_ort
def test_memory_of_a_device() -> None:
    binding = packages.import_training_runtime()
    for device, kind, index in (("cpu", binding.OrtDevice.cpu(), 0), ("cuda:1", binding.OrtDevice.cuda(), 1)):
        memory = ort_session.memory_of(binding, device)
        assert (memory.device_type(), memory.device_id()) == (kind, index)


def test_what_the_runtime_cannot_build_is_an_error_without_its_paths() -> None:
    graph = graph_of("g (float[N,3] x) => (float[N,2] y) { y = MatMul(x, W) }", {"W": np.ones((3, 2))})
    broken = onnx.ModelProto()
    broken.CopyFrom(graph.model)
    broken.graph.node[0].op_type = "Det"
    del broken.graph.node[0].input[1:]
    bad = TrainingGraph(
        model=broken,
        inputs=graph.inputs,
        parameters=("W",),
        statistics=(),
        wrt=("W",),
        outputs=("y",),
        differentiable=(True,),
    )
    with pytest.raises(UnsupportedOperatorError, match="cannot build the gradient") as caught:
        create_engine(bad, {"W": torch.ones(3, 2)}, EngineOptions(engine="ort"))
    assert "onnxruntime_src" not in str(caught.value)


@needs_ort
def test_importing_the_runtime_leaves_torch_as_it_was() -> None:
    script = """
import torch, torch.utils.checkpoint
before = torch.manual_seed, torch.cuda.manual_seed, torch.utils.checkpoint.checkpoint
from onnx_asgnas.graph.packages import can_train, import_onnxruntime
assert can_train()
assert import_onnxruntime().__name__ == "onnxruntime"
assert before == (torch.manual_seed, torch.cuda.manual_seed, torch.utils.checkpoint.checkpoint)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_ort
def test_two_packages_that_overwrite_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    with pytest.raises(PackageError, match="overwrite each other's files") as caught:
        packages.import_onnxruntime()
    assert "pip install onnxruntime-training-cpu" in caught.value.fix
    assert not packages.can_train()


@needs_ort
def test_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(PackageError, match=r"pip install (--force-reinstall )?onnxruntime-training-cpu"):
        packages.import_training_runtime()


@needs_ort
def test_runtime_that_only_infers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(packages.import_onnxruntime().capi._pybind_state, "TrainingAgent")
    assert not packages.can_train()
    with pytest.raises(PackageError, match="does not train"):
        packages.import_training_runtime()


def missing(name: str) -> None:
    raise ImportError(f"No module named {name!r}")
