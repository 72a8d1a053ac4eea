"""Our rules for shapes and small values give what onnx's own inference and reference evaluator give."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.graph import arithmetic, shape_rules
from onnx_asgnas.graph.facts import ABSENT, FactTable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the expected values of some cases divide by zero on purpose
    from onnx.backend.test.case.node import collect_testcases

TABLE = FactTable()


@cache
def node_cases() -> dict[str, list[object]]:
    """The node tests of the ONNX package that are about one operator with a rule, by operator."""
    found: dict[str, list[object]] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            nodes = case.model.graph.node
            if len(nodes) == 1 and ("", nodes[0].op_type) in shape_rules.RULES:
                found.setdefault(nodes[0].op_type, []).append(case)
    return found


def call_of(node: onnx.NodeProto, version: int, inputs: dict[str, object]) -> shape_rules.Call | None:
    """The call of a node with these values; None where an input is no tensor."""
    facts = []
    for name in node.input:
        value = inputs.get(name)
        if name and not isinstance(value, np.ndarray | np.generic):
            return None
        facts.append(TABLE.of_value(np.asarray(value)) if name else ABSENT)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return shape_rules.Call(node.op_type, version, tuple(facts), attributes, len(node.output))


def in_numpy(value: object) -> object:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def inferred(node: onnx.NodeProto, version: int, inputs: dict[str, np.ndarray]) -> list[tuple[int, tuple[int, ...]]]:
    types = {name: helper.make_tensor_type_proto(TABLE.of_value(v).kind, v.shape) for name, v in inputs.items()}
    found = onnx.shape_inference.infer_node_outputs(
        onnx.defs.get_schema(node.op_type, version),
        node,
        types,
        {name: numpy_helper.from_array(value, name) for name, value in inputs.items()},
        opset_imports=[helper.make_opsetid("", version)],
        ir_version=10,
    )
    return [
        (t.elem_type, tuple(d.dim_value for d in t.shape.dim))
        for t in (found[name].tensor_type for name in node.output if name)
    ]


STANDARD = sorted(op_type for domain, op_type in shape_rules.RULES if not domain)
WITHOUT_CASES = {"GlobalLpPool", "SimplifiedLayerNormalization"}


@pytest.mark.parametrize("op_type", STANDARD)
def test_rules_agree_with_the_cases_of_onnx(op_type: str) -> None:
    cases = node_cases().get(op_type, [])
    assert cases or op_type in WITHOUT_CASES
    applied = 0
    for case in cases:
        (node,) = case.model.graph.node  # type: ignore[attr-defined]
        version = next(o.version for o in case.model.opset_import if o.domain == "")  # type: ignore[attr-defined]
        for inputs, outputs in case.data_sets:  # type: ignore[attr-defined]
            names = [v.name for v in case.model.graph.input]  # type: ignore[attr-defined]
            inputs, outputs = [in_numpy(value) for value in inputs], [in_numpy(value) for value in outputs]
            call = call_of(node, version, dict(zip(names, inputs, strict=True)))
            found = None if call is None else shape_rules.RULES["", op_type](call)
            if found is None and call is not None:  # there are rules for the first output alone
                call, outputs = replace(call, outputs=1), outputs[:1]
                found = shape_rules.RULES["", op_type](call)
            if call is None or found is None:
                continue
            applied += 1
            expected = [(TABLE.of_value(np.asarray(v)).kind, np.asarray(v).shape) for v in outputs]
            assert found == expected, case.name  # type: ignore[attr-defined]
            check_value(call, inputs, outputs, case.name)  # type: ignore[attr-defined]
    assert applied or not cases


def check_value(call: shape_rules.Call, inputs: list[np.ndarray], outputs: list[np.ndarray], name: str) -> None:
    if len(outputs) != 1 or any(fact.value is None for fact in call.inputs):
        return
    expected = np.asarray(outputs[0])
    with np.errstate(all="ignore"):
        kind = TABLE.of_value(expected).kind
        got = arithmetic.evaluate(call, [f.value for f in call.inputs if f.value is not None], kind, expected.shape)
    if got is not None:
        assert got.dtype == expected.dtype and got.shape == expected.shape, name
        assert np.array_equal(got, expected, equal_nan=expected.dtype.kind == "f"), name


SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


def integers(draw: st.DrawFn, shape: tuple[int, ...], low: int = -5, high: int = 5) -> np.ndarray:
    values = draw(st.lists(st.integers(low, high), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    return np.array(values, np.int64).reshape(shape)


ARITHMETIC = """Slice Gather Concat Reshape Expand Tile Unsqueeze Squeeze Transpose Add Mul Div Mod Where Range
ReduceProd MatMul Split Pad""".split()  # noqa: SIM905


@st.composite
def calls(draw: st.DrawFn) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    """A node of shape arithmetic with whole numbers as inputs, not always a valid one."""
    op_type = draw(st.sampled_from(ARITHMETIC))
    x = integers(draw, draw(SHAPES))
    rank = x.ndim
    axis = draw(st.integers(-rank - 1, rank))
    outputs, attributes = ["y"], {}
    match op_type:
        case "Slice":
            n = draw(st.integers(0, max(rank, 1)))
            axes = np.array(draw(st.permutations(range(rank)))[:n], np.int64)
            ends = [np.iinfo(np.int64).min, np.iinfo(np.int64).max, *range(-6, 7)]
            pick = [np.array([draw(st.sampled_from(ends)) for _ in axes], np.int64) for _ in range(2)]
            steps = np.array([draw(st.sampled_from([-2, -1, 1, 2])) for _ in axes], np.int64)
            inputs = [x, *pick, axes, steps]
        case "Gather":
            inputs, attributes = [x, integers(draw, draw(SHAPES), -2, 1)], {"axis": axis}
        case "Concat":
            other = list(x.shape)
            if 0 <= axis < rank:
                other[axis] = draw(st.integers(0, 3))
            inputs, attributes = [x, integers(draw, tuple(other))], {"axis": axis}
        case "Reshape" | "Expand":
            inputs = [x, integers(draw, (draw(st.integers(0, 4)),), -1 if op_type == "Reshape" else 1, 4)]
        case "Tile":
            inputs = [x, integers(draw, (rank,), 0, 2)]
        case "Unsqueeze" | "Squeeze":
            inputs = [x, integers(draw, (draw(st.integers(1, 2)),), -3, 3)]
        case "Transpose":
            inputs, attributes = [x], {"perm": draw(st.permutations(range(rank)))} if rank else {}
        case "Range":
            inputs = [integers(draw, (), -6, 6) for _ in range(3)]
        case "ReduceProd":
            inputs = [x, np.array([axis], np.int64)]
            attributes = {"keepdims": draw(st.integers(0, 1))}
        case "Where":
            inputs = [np.asarray(integers(draw, draw(SHAPES)) > 0), x, integers(draw, draw(SHAPES))]
        case "Split":
            inputs, attributes, outputs = [x], {"axis": axis}, ["y", "z"]
            attributes["num_outputs"] = 2
        case "Pad":
            inputs = [x, integers(draw, (2 * rank,), -1, 2)]
        case _:
            inputs = [x, integers(draw, draw(SHAPES))]
    names = [f"i{at}" for at in range(len(inputs))]
    return helper.make_node(op_type, names, outputs, **attributes), dict(zip(names, inputs, strict=True))


@settings(max_examples=400)
@given(calls())
def test_rules_agree_with_onnx_on_random_arithmetic(drawn: tuple[onnx.NodeProto, dict[str, np.ndarray]]) -> None:
    node, inputs = drawn
    call = call_of(node, 18, inputs)
    assert call is not None
    found = shape_rules.RULES["", node.op_type](call)
    if found is None:
        return
    assert found == inferred(node, 18, inputs)
    if len(found) > 1:
        return
    with np.errstate(all="ignore"):
        got = arithmetic.evaluate(call, list(inputs.values()), *found[0])
    if got is not None:
        assert (TABLE.of_value(got).kind, got.shape) == found[0]
        if node.op_type == "Div":  # onnx's reference rounds down; runtimes round towards zero, as C does
            expected = np.trunc(np.true_divide(inputs["i0"], inputs["i1"])).astype(np.int64)
        else:
            (expected,) = ReferenceEvaluator(node, opsets={"": 18}).run(None, inputs)
        assert np.array_equal(got, expected)
