"""The space as a whole: JSON, binding to a model, protected and unknown parts, reasons, costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from hypothesis import given, settings

from onnx_asgnas.config import Mode
from onnx_asgnas.errors import InputError, ModelError, SpaceError, UnsupportedOperatorError
from onnx_asgnas.graph import TraceGraph, save_model
from onnx_asgnas.models import build
from onnx_asgnas.space import SearchSpace, analyze
from tests.random_graphs import networks


@pytest.fixture(scope="module")
def unets() -> onnx.ModelProto:
    return build("stackedunets", width=4)


@settings(max_examples=20)
@given(networks())
def test_json_goes_both_ways(model: onnx.ModelProto) -> None:
    space = analyze(model)
    again = SearchSpace.from_json(space.to_json(), model)
    assert again == space
    assert again.to_json() == space.to_json()
    assert (again.candidates, again.groups) == (space.candidates, space.groups)


def test_json_is_plain_and_carries_a_reason_for_what_stays() -> None:
    values = json.loads(analyze(build("demosupnet", width=4)).to_json())
    stays = {s["tensor"]: s["reason"] for s in values["structures"] if not s["erasable"]}
    assert list(stays) == ["add5"]
    assert "is used outside of it too" in stays["add5"]
    assert set(values["max_removable"]) == {"structures", "params", "macs"}


def test_a_space_from_json_needs_its_model(unets: onnx.ModelProto) -> None:
    space = SearchSpace.from_json(analyze(unets).to_json())
    with pytest.raises(SpaceError, match="has no model"):
        space.removal_state()
    assert space.bind(unets).removal_state().valid


def test_a_space_binds_to_other_weights_but_to_no_other_model(unets: onnx.ModelProto) -> None:
    space = analyze(unets)
    assert space.bind(build("stackedunets", width=4, seed=1)) == space
    for other in (build("stackedunets", width=5), build("demosupnet", width=4)):
        with pytest.raises(SpaceError, match="made from another model"):
            space.bind(other)


def test_a_space_is_read_from_a_file(unets: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(analyze(unets).to_json(), encoding="utf-8")
    save_model(unets, tmp_path / "model.onnx")
    assert SearchSpace.read(tmp_path / "space.json", tmp_path / "model.onnx") == analyze(unets)
    with pytest.raises(SpaceError, match="cannot be read"):
        SearchSpace.read(tmp_path / "nowhere.json")
    with pytest.raises(SpaceError, match="cannot be read"):
        SearchSpace.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "1", '{"format": 1}', '{"format": 1, "mode": "erase"}', "\0"])
def test_what_is_no_space_is_refused(text: str) -> None:
    with pytest.raises(SpaceError):
        SearchSpace.from_json(text)


def test_another_version_is_refused(unets: onnx.ModelProto) -> None:
    values = json.loads(analyze(unets).to_json())
    with pytest.raises(SpaceError, match="another version"):
        SearchSpace.from_json(json.dumps({**values, "format": 0}))


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("conv14", {"resize56", "resize61", "resize70", "bn75"}),
        ("resize61", {"resize19", "resize24", "resize33", "bn38", "resize56"}),
        ("conv4?", {"resize19", "resize24", "resize33", "bn38", "resize56"}),
        ("*", set()),
    ],
)
def test_a_protected_operator_stays_with_all_that_would_take_it_along(
    unets: onnx.ModelProto, pattern: str, left: set[str]
) -> None:
    space = analyze(unets, protect=[pattern])
    assert {s.tensor for s in space.candidates} == left
    assert {s.reason for s in space.structures if not s.erasable} <= {f"protected by '{pattern}'"}
    assert SearchSpace.from_json(space.to_json(), unets) == space


def test_a_pattern_that_matches_nothing_is_refused(unets: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match=r"nothing matches the pattern 'nothing\*'"):
        analyze(unets, protect=["conv14", "nothing*"])


def custom(text: str, inputs: str = "float[N, 4, 6, 6] x") -> onnx.ModelProto:
    """A model with weights w1, w2 [4, 4, 1, 1] and operators of a domain that nobody knows."""
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "our.own" : 1]>
        agraph ({inputs}) => (float[N, 4, 6, 6] y)
        <float[4, 4, 1, 1] w1 = {{1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}},
         float[4, 4, 1, 1] w2 = {{1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,8}}> {{ {text} }}"""
    )


def test_an_unknown_operator_is_named_and_strict_refuses_it() -> None:
    model = custom("a = Conv (x, w1)  b = our.own.Twist (a)  c = Conv (x, w2)  y = Add (b, c)")
    space = analyze(model)
    assert space.unknown == ("Twist",)
    assert [s.tensor for s in space.candidates] == []
    assert "unknown operator Twist" in next(s.reason for s in space.structures if s.tensor == "b")
    with pytest.raises(UnsupportedOperatorError, match="Twist"):
        analyze(model, strict=True)


def test_an_unknown_operator_upstream_may_go_with_its_branch() -> None:
    model = custom("a = our.own.Twist (x)  b = Relu (a)  c = Conv (x, w2)  d = Conv (c, w1)  y = Add (d, x)")
    assert [s.tensor for s in analyze(model).candidates] == ["d"]


@pytest.mark.parametrize(
    "text",
    [
        "y = Transpose <perm = [0, 1, 3, 2]> (u)",
        "y = Conv (u, w1)",
        "v = our.own.Twist (w1)  y = Conv (u, v)",
        "v = our.own.Twist (w1)  y = ConvTranspose (u, v)",
        "v = our.own.Twist (w1)  y = Conv <group = 2> (u, v)",
        "v = our.own.Twist (w1)  y = MatMul (u, v)",
        "v = our.own.Twist (w1)  y = Gemm (u, v)",
        "y = Concat <axis = 1> (u, x)",
        "y = Add (u, x)",
        "y = PRelu (u, w1)",
        "y = GlobalAveragePool (u)",
        "y = ReduceMean <axes = [1]> (u)",
        "y = Flatten (u)",
        "y = Softmax (u)",
        "r, i = MaxPool <kernel_shape = [1, 1]> (u)  y = Add (r, x)",
        "y = Pad (u, p)  ",
        "t = Shape (u)  y = Reshape (u, t)",
        "y = Resize (u, , , s)",
        "y = BatchNormalization (u, v4, v4, v4, v4)",
        "y = InstanceNormalization (u, v4, v4)",
        "y = LRN <size = 1> (u)",
        "y = Clip (u, , )",
        "y = Split (u)",
        "y = Div (x, u)",
        "y = Where (u, x, x)",
        "y = Squeeze (u)",
        'y = Einsum <equation = "ijkl->ijkl"> (u)',
    ],
)
def test_tensors_of_unknown_shape_never_crash_the_analysis(text: str) -> None:
    """Behind an unknown operator nothing is known of a tensor, not even its rank."""
    model = custom(f"u = our.own.Twist (x)  {text}", "float[N, 4, 6, 6] x, int64[8] p, int64[4] s, float[4] v4")
    space = analyze(model)
    assert space.candidates == ()


def test_the_modes_differ_in_what_may_leave(unets: onnx.ModelProto) -> None:
    spaces = {mode: analyze(unets, mode=mode) for mode in get_args(Mode)}
    structures = {mode: len(space.candidates) for mode, space in spaces.items()}
    channels = {mode: len(space.groups) - structures[mode] for mode, space in spaces.items()}
    assert structures == {"erase": 8, "prune": 0, "joint": 8}
    assert channels["erase"] == 0
    assert channels["prune"] == spaces["prune"].channels.count > 0
    assert channels["joint"] == spaces["joint"].channels.count > 0


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError):
        analyze(b"no model")


def test_an_initializer_that_is_an_output_or_read_elsewhere_is_no_variable() -> None:
    shared = custom(
        "a = Conv (x, w1)  b = Conv (x, w2)  s = Add (a, b)  f = Flatten (w1)  r = ReduceSum (f)  y = Add (s, r)"
    )
    assert [s.tensor for s in analyze(shared).candidates] == ["b"]
    given = custom("a = Conv (x, w1)  b = Conv (x, w2)  y = Add (a, b)")
    given.graph.output.append(onnx.helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [4, 4, 1, 1]))
    assert [s.tensor for s in analyze(given).candidates] == ["b"]


def test_structures_cost_what_their_region_costs(unets: onnx.ModelProto) -> None:
    space = analyze(unets)
    graph = TraceGraph.of(unets)
    for structure in space.structures:
        owners = set(structure.region)
        names = [n for n in graph.initializers if n.rpartition(".")[0] in owners and n.endswith(("weight", "bias"))]
        assert structure.params == sum(int(np.prod(graph.initializers[name].dims)) for name in names)


def test_a_concat_of_branches_is_larger_than_each_although_both_reach_behind_the_next_one() -> None:
    """The inner Concat's group holds the scale and bias of all its channels, a branch's those of its own."""
    model = custom(
        """a = Conv (x, w1)  b = Conv (x, w2)  k = Concat <axis = 1> (a, b)  l = Concat <axis = 1> (k, x)
        n = BatchNormalization (l, s12, s12b, m12, v12)  y = Conv (n, w12)"""
    )
    for name, shape in {"s12": 12, "s12b": 12, "m12": 12, "v12": 12, "w12": (4, 12, 1, 1)}.items():
        values = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    minimal = {s.tensor: s.minimal for s in analyze(model).candidates}
    assert minimal == {"a": True, "b": True, "k": False}
