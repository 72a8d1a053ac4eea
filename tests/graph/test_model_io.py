"""Reading and writing models: whatever the file, a model or a ModelError with the next step."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_asgnas.errors import ModelError, OutputError
from onnx_asgnas.graph import TraceGraph, load_model, model_io, runtime, save_model, write_atomically
from onnx_asgnas.graph.model_io import has_external_data
from onnx_asgnas.graph.runtime import random_inputs, run, session
from onnx_asgnas.models import build


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return build("demosupnet", width=2)


@pytest.fixture
def with_external_data(model: onnx.ModelProto, tmp_path: Path) -> Path:
    """A model file whose weights lie in another one."""
    path = tmp_path / "model.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save_model(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_path_text_bytes_and_proto_give_the_same(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_model(model, path)
    for source in (path, str(path), path.read_bytes(), model):
        assert load_model(source) == model


def test_a_given_proto_is_copied(model: onnx.ModelProto) -> None:
    loaded = load_model(model)
    loaded.graph.node[0].name = "changed"
    assert model.graph.node[0].name != "changed"


def test_a_file_cut_short_at_any_place_is_refused_or_whole(model: onnx.ModelProto, tmp_path: Path) -> None:
    data = model.SerializeToString()
    path = tmp_path / "short.onnx"
    places = [*range(0, 200), *range(200, len(data), max(1, len(data) // 200)), len(data) - 1]
    refused = 0
    for place in places:
        path.write_bytes(data[:place])
        try:
            loaded = load_model(path)
        except ModelError as error:
            refused += 1
            assert str(path) in error.message
            assert error.fix
        else:  # only what stands behind the graph and the operator set may be missing
            assert loaded.graph == model.graph
    assert refused >= len(places) - 60


@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_never_give_another_error(model: onnx.ModelProto, data: st.DataObject) -> None:
    raw = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        load_model(bytes(raw))
    except ModelError as error:
        assert error.message and error.fix


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x89PNG\r\n", b"{}", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_onnx_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="ONNX") as caught:
        load_model(path)
    assert caught.value.path == str(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        load_model(tmp_path / "nowhere.onnx")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        load_model(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.graph.node[0].input.__setitem__(0, "nowhere"), "nowhere"),
        (lambda m: m.graph.node.append(m.graph.node[0]), "single static assignment"),
        (lambda m: m.graph.node[1].__setattr__("op_type", "Foo"), "Foo"),
        (lambda m: m.graph.ClearField("name"), "name"),
        (lambda m: m.graph.initializer[0].dims.append(7), "initializer|Tensor|size"),
    ],
)
def test_an_invalid_graph_says_what_is_wrong(model: onnx.ModelProto, change: object, message: str) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    change(broken)  # type: ignore[operator]
    with pytest.raises(ModelError, match=message) as caught:
        load_model(broken)
    assert "not a valid ONNX model" in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


def test_external_data_is_read_from_beside_the_model(model: onnx.ModelProto, with_external_data: Path) -> None:
    loaded = load_model(with_external_data)
    for one, two in zip(loaded.graph.initializer, model.graph.initializer, strict=True):
        assert np.array_equal(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(two))
        assert not one.external_data


def test_missing_external_data_is_named(with_external_data: Path) -> None:
    (with_external_data.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"missing: weights\.bin") as caught:
        load_model(with_external_data)
    assert str(with_external_data.parent) in caught.value.fix


def test_external_data_needs_a_path(with_external_data: Path) -> None:
    with pytest.raises(ModelError, match=r"other files \(weights\.bin\)"):
        load_model(with_external_data.read_bytes())
    with pytest.raises(ModelError, match=r"other files \(weights\.bin\)"):
        load_model(onnx.load(with_external_data, load_external_data=False))


def test_external_data_cut_short_is_refused(with_external_data: Path) -> None:
    weights = with_external_data.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(ModelError):
        load_model(with_external_data)


def test_external_data_outside_of_the_folder_is_refused(with_external_data: Path) -> None:
    model = onnx.load(with_external_data, load_external_data=False)
    outside = with_external_data.parent.parent / "outside.bin"
    outside.write_bytes(b"\0" * 10_000)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../outside.bin"
    with_external_data.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError):
        load_model(with_external_data)


def test_saving_replaces_a_file_whole_and_leaves_nothing_else(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "folder" / "model.onnx"
    for _ in range(2):
        save_model(model, path)
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(("number", "fix"), [(errno.ENOSPC, "Free some space"), (errno.EIO, "another path")])
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fix: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(number, "it failed")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="it failed") as caught:
        write_atomically(path, b"new")
    assert fix in caught.value.fix
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(model, tmp_path / "file" / "model.onnx")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(model, tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_external_data_stays_on_disk_until_it_is_read(model: onnx.ModelProto, with_external_data: Path) -> None:
    graph = TraceGraph.of(with_external_data)
    expected = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert graph.initializers.keys() >= {"conv2.weight"} and graph.initializers.keys() <= expected.keys()
    for name, tensor in graph.initializers.items():
        assert tensor.external_data and not tensor.raw_data
        assert np.array_equal(graph.array(name), expected[name])
        assert graph.array(name).dtype == expected[name].dtype
    weight = next(name for name in graph.initializers if graph.array(name).ndim == 4)
    assert not graph.array(weight).flags.writeable
    assert graph.model == TraceGraph.of(model).model
    assert not any(t.external_data for t in graph.model.graph.initializer)


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16", "INT4", "UINT4", "INT8", "BOOL", "DOUBLE", "FLOAT8E4M3FN"])
def test_external_data_of_every_kind(kind: str, tmp_path: Path) -> None:
    number = onnx.TensorProto.DataType.Value(kind)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(number)
    values = np.random.default_rng(0).integers(0, 2, (3, 7)).astype(dtype)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [value("y", number, [3, 7])],
        [onnx.numpy_helper.from_array(values, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert np.array_equal(TraceGraph.of(tmp_path / "m.onnx").array("w"), values)
    assert np.array_equal(onnx.numpy_helper.to_array(load_model(tmp_path / "m.onnx").graph.initializer[0]), values)


def test_saving_with_external_data_keeps_the_old_until_the_new_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (build("demosupnet", width=width) for width in (16, 17))
    path = tmp_path / "model.onnx"
    save_model(first, path, external_data=True)
    assert has_external_data(path) and len(list(tmp_path.iterdir())) == 2
    assert path.stat().st_size < first.ByteSize() / 2
    assert load_model(path) == first
    onnx.checker.check_model(path, full_check=True)
    assert run_whole(onnx.load(path)) == run_whole(first)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail_on(path))
        with pytest.raises(OutputError):
            save_model(second, path, external_data=True)
    assert load_model(path) == first
    save_model(second, path, external_data=True)
    assert load_model(path) == second
    assert len(list(tmp_path.iterdir())) == 2
    save_model(first, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"] and not has_external_data(path)


def fail_on(path: Path) -> Callable[[str, Path], None]:
    replace = os.replace

    def replace_or_fail(source: str, target: Path) -> None:
        if target == path:
            raise OSError(errno.EIO, "it failed")
        replace(source, target)

    return replace_or_fail


def run_whole(model: onnx.ModelProto) -> dict[str, list[float]]:
    return {name: value.tolist() for name, value in run(session(model), random_inputs(model)).items()}


def test_what_one_message_cannot_hold_is_saved_and_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("demosupnet", width=16)
    expected = run_whole(model)
    extra = model.graph.node[0].output[0]
    inner = run(session(model, outputs=[extra]), random_inputs(model), [extra])[extra]
    for module in (model_io, runtime):
        monkeypatch.setattr(module, "LIMIT", 1000)
    monkeypatch.setattr(runtime, "_LARGE", 64)
    assert run_whole(model) == expected
    assert np.array_equal(run(session(model, outputs=[extra]), random_inputs(model), [extra])[extra], inner)
    save_model(model, tmp_path / "model.onnx")
    assert has_external_data(tmp_path / "model.onnx")
    assert load_model(tmp_path / "model.onnx") == model
