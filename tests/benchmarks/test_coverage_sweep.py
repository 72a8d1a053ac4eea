"""The sweep's own checks find every kind of wrong pair that they are there for."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.corpus_sweep import checks, report
from benchmarks.corpus_sweep.cases import Case, Results, cases_for
from benchmarks.corpus_sweep.feeds import feeds

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 3, 6, 6] x) => (float[N, 2, 6, 6] y) {
    h = Conv <kernel_shape = [1, 1]> (x, w1, b1)
    r = Relu (h)
    y = Conv <kernel_shape = [1, 1]> (r, w2)
}
"""
CHANNELS = 4


def model(gone: tuple[int, ...] = (), cut: tuple[int, ...] = ()) -> onnx.ModelProto:
    """Two convolutions, of which channels are at zero, or cut out."""
    random = np.random.default_rng(0)
    w1, b1 = random.normal(size=(CHANNELS, 3, 1, 1)), random.normal(size=CHANNELS)
    w2 = random.normal(size=(2, CHANNELS, 1, 1))
    w1[list(gone)], b1[list(gone)] = 0, 0
    stay = [i for i in range(CHANNELS) if i not in cut]
    made: onnx.ModelProto = onnx.parser.parse_model(TEXT)
    for name, value in (("w1", w1[stay]), ("b1", b1[stay]), ("w2", w2[:, stay])):
        made.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return made


def comparison(compact: onnx.ModelProto, zeroed: onnx.ModelProto | None = None) -> checks.Comparison:
    made, other = feeds(model(), {})
    runs = [checks.Runs(m, made, other, 1) for m in (model(), zeroed or model(gone=(1,)), compact)]
    return checks.compare(*runs)


def changed(source: onnx.ModelProto, name: str, function: object) -> onnx.ModelProto:
    """The model with another value in an initializer."""
    for tensor in source.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(function(numpy_helper.to_array(tensor)), name))  # type: ignore[operator]
    return source


def test_a_right_pair_passes() -> None:
    found = comparison(model(cut=(1,)))
    assert found.passed and not found.vacuous and found.worst <= 1e-6


def test_another_channel_cut_is_found() -> None:
    assert comparison(model(cut=(2,))).worst > 1e-2


def test_a_small_error_is_found() -> None:
    wrong = changed(model(cut=(1,)), "w2", lambda w: w * np.float32(1 + 1e-4))
    assert not comparison(wrong).passed


def test_nan_is_found() -> None:
    wrong = changed(model(cut=(1,)), "b1", lambda b: b * np.float32(np.nan))
    assert comparison(wrong).worst == math.inf


def test_nan_in_both_is_found() -> None:
    def poisoned(m: onnx.ModelProto) -> onnx.ModelProto:
        return changed(m, "b1", lambda b: b * np.float32(np.nan))

    assert comparison(poisoned(model(cut=(1,))), poisoned(model(gone=(1,)))).worst == math.inf


def test_a_removal_that_moves_nothing_is_vacuous() -> None:
    assert comparison(model(), model()).vacuous


def test_outputs_that_no_input_moves_are_vacuous() -> None:
    every = tuple(range(CHANNELS))
    assert comparison(model(gone=every), model(gone=every)).vacuous


def test_a_model_that_loses_next_to_nothing_is_frozen() -> None:
    assert checks.as_good_as_whole(33_816, 33_800) and not checks.as_good_as_whole(1000, 980)


def test_outputs_that_hardly_depend_on_the_inputs_say_nothing() -> None:
    assert checks.says_nothing(1.0, 6e-5) and checks.says_nothing(6e-5, 1.0) and not checks.says_nothing(1.0, 1e-3)


def test_two_sizes_of_an_open_dimension() -> None:
    made, other = feeds(model(), {"x": [2, 3, 6, 6]})
    assert [f["x"].shape[0] for f in made] == [1, 3]
    assert other["x"].shape == made[0]["x"].shape and not np.array_equal(other["x"], made[0]["x"])


def test_ids_masks_and_lengths() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (int64[N, T] input_ids, int64[N, T] attention_mask) => (float[N, T, 2] y) { y = Gather (table, input_ids) }
    """
    made = onnx.parser.parse_model(text)
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((200, 2), np.float32), "table"))
    (first, second), _ = feeds(made, {"input_ids": [2, 9], "attention_mask": [2, 9]})
    assert first["input_ids"].shape == (1, 9) and second["input_ids"].shape == (3, 4)
    assert first["attention_mask"].all() and first["input_ids"].max() < 200


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: g.output[0].type.tensor_type.shape.dim[0].Clear(), "output 'y' was"),
        (lambda g: setattr(g.input[0].type.tensor_type, "elem_type", onnx.TensorProto.DOUBLE), "input 'x' was"),
        (lambda g: setattr(g.output[0], "name", "z"), "output 'y' is gone"),
        (lambda g: setattr(g.output[0].type.tensor_type.shape.dim[0], "dim_value", 1), "output 'y' was"),
    ],
)
def test_a_changed_signature_is_found(change: object, says: str) -> None:
    assert checks.signature_changes(model(), model(cut=(1,))) == []
    wrong = model(cut=(1,))
    change(wrong.graph)  # type: ignore[operator]
    assert says in checks.signature_changes(model(), wrong)[0]


def test_a_zeroed_model_with_other_values_is_found() -> None:
    assert checks.zeroing_faults(model(), model(gone=(1,))) == []
    wrong = changed(model(gone=(1,)), "w2", lambda w: w + np.float32(1))
    assert "'w2'" in checks.zeroing_faults(model(), wrong)[0]


def test_what_became_smaller() -> None:
    assert checks.shrunk(model(gone=(1,)), model(cut=(1,))) == 2
    assert checks.shrunk(model(gone=(1,)), model(gone=(1,))) == 0
    assert checks.floats(model()) - checks.floats(model(cut=(1,))) == 3 + 1 + 2


def test_results_are_found_again(tmp_path) -> None:  # type: ignore[no-untyped-def]
    case = Case(mode="prune", fraction=0.5, criterion="random")
    record = {"hash": "a", "code": "1", "file": "m.onnx", "mode": "prune", "fraction": 0.5, "criterion": "random"}
    Results(tmp_path / "r.jsonl").add(record | {"status": "passed", "reason": ""})
    again = Results(tmp_path / "r.jsonl")
    assert again.find("a", "1", case) and not again.find("a", "2", case) and not again.find("b", "1", case)
    assert again.find("a", "2", case, older=True)


def test_large_models_have_one_case() -> None:
    assert len(cases_for(1_000_000, ("prune",))) == 6
    assert [str(case) for case in cases_for(40_000_000, ("prune",))] == ["prune 0.5 random"]


def test_the_worst_case_of_a_model_counts() -> None:
    common = {"file": "m.onnx", "code": "1", "mode": "prune", "criterion": "random", "reason": "because"}
    records = [common | {"fraction": 0.5, "status": s, "difference": 0.0} for s in ("passed", "failed")]
    assert report.worst(records) == "failed"
    about = {"model": "m", "family": "f", "exporter": "dynamo", "file": "m.onnx", "status": "exported", "reason": ""}
    about |= {"parameters": 1}
    missing = about | {"model": "n", "file": None, "status": "failed", "reason": "a|b"}
    page = report.document(records, [about, missing], "1", {"f": 7})
    assert "2 of the 18 cases planned" in page and "| f | 7 | 2 |" in page
    assert "| prune | f | dynamo | 2 | 1 | 1 |" in page and "a\\|b" in page
