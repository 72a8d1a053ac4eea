"""Every entry of the registry against the operator itself, run on numbers.

Operators that channels do not pass have no numbers to compare: there every label that is put in has to stay.

A case is a node with its inputs. For every set of inputs put to zero: where the rule says that the outputs are zero,
they are; where an input is a pole, the outputs are not finite. Rules that claim too little are caught by `keeps`, the
sets of inputs whose zeros are known to give zero.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.errors import ModelError
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.runtime import run, session
from onnx_asgnas.operators import Entry, Rule, entries, register, rule_of, rules_of
from onnx_asgnas.operators.registry import Op
from onnx_asgnas.space.coupling import Coupling
from tests.operators.registry_cases import CASES, KEPT, WITHOUT_INPUTS, Array, Case, floats, model_of

READS_CONSTANTS = {
    "Resize",
    "Upsample",
    "Clip",
    "Max",
    "Min",
    "Pow",
    "Pad",
    "Div",
    "QuantizeLinear",
    "DequantizeLinear",
}
"""Operators whose rule has read the values of float constants: these are not put to zero."""
DEFINED_BY_THE_RUNTIME = {"LpNormalization", "DynamicQuantizeLinear"}
"""Operators that by the standard divide by zero, which onnxruntime does not."""


def test_every_entry_has_a_case() -> None:
    with_case = {(case.domain, case.op_type) for case in CASES}
    assert {(e.domain, e.op_type) for e in entries()} == with_case | {(e.domain, e.op_type) for e in KEPT} | {
        ("", name) for name in WITHOUT_INPUTS
    }


def test_every_operator_of_the_standard_is_registered() -> None:
    standard = {(s.domain, s.name) for s in onnx.defs.get_all_schemas_with_history()}
    assert standard == {(e.domain, e.op_type) for e in entries() if e.domain != "com.microsoft"} & standard
    assert not {key for key in standard if key not in {(e.domain, e.op_type) for e in entries()}}


@pytest.mark.parametrize("entry", KEPT, ids=lambda e: f"{e.domain}.{e.op_type}".strip("."))
def test_what_channels_do_not_pass_keeps_them_and_says_why(entry: Entry) -> None:
    """Each input in turn is labelled: a frozen one keeps its channels, and the reason names the operator."""
    count = _inputs_of(entry)
    for position in range(count):
        names = [f"in{p}" if p != position else "h" for p in range(count)]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Max", names, ["y"], name="node")]
        inputs = [helper.make_tensor_value_info(name, 1, (2, 4)) for name in ("x", *names) if name != "h"]
        weight = numpy_helper.from_array(floats(4, 6), "w")
        graph = helper.make_graph(nodes, "case", inputs, [onnx.ValueInfoProto(name="y")], [weight])
        opsets = [helper.make_opsetid("", onnx.defs.onnx_opset_version())]
        opsets += [helper.make_opsetid(entry.domain, 99)] if entry.domain else []
        traced = TraceGraph(helper.make_model(graph, opset_imports=opsets, ir_version=8))
        traced.nodes[1].op_type, traced.nodes[1].domain = entry.op_type, entry.domain  # as if its types fitted
        coupling = Coupling.of(traced, rules_of(traced))
        assert coupling.channel_groups() == (6, 0)
        assert any(entry.op_type in freeze.reason for freeze in coupling.book.freezes), coupling.book.freezes


def _inputs_of(entry: Entry) -> int:
    if not onnx.defs.has(entry.op_type, entry.domain):
        return 2
    schema = onnx.defs.get_schema(entry.op_type, entry.domain)
    return min(schema.max_input, 3)


def test_entries_are_listed_in_a_stable_order_and_name_their_page() -> None:
    keys = [(e.domain, e.op_type, e.since_version) for e in entries()]
    assert keys == sorted(set(keys))
    for entry in entries():
        assert _names_its_page(entry), entry


def _names_its_page(entry: Entry) -> bool:
    """In its docstring, or in that of its module, where one page has all."""
    page = "https://github.com/microsoft/onnxruntime" if entry.domain == "com.microsoft" else "https://onnx.ai/onnx"
    module = inspect.getmodule(entry.declare)
    docs = (entry.declare.__doc__ or "", (module and module.__doc__) or "")
    return any(page in doc for doc in docs) or any("https://onnx.ai/onnx" in doc for doc in docs)


def feeds_of(case: Case, zeros: Iterable[int]) -> dict[str, Array]:
    random = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for position, shape in case.data.items():
        if position in case.integers:
            value: Array = np.array(range(1, 3), np.int64).reshape(shape) if shape else np.int64(1 + 3 * position)
        elif position in case.bytes_ or position in case.ids:
            value = random.integers(1, 5, shape).astype(np.uint8 if position in case.bytes_ else np.int32)
        elif position in case.booleans:
            value = random.integers(0, 2, shape).astype(bool)
        else:
            value = (random.uniform(1.1, 2, shape) if case.positive else random.normal(size=shape)).astype(np.float32)
        feeds[f"in{position}"] = np.zeros_like(value) if position in zeros else np.asarray(value)
    return feeds


def outputs_with(case: Case, zeros: tuple[int, ...]) -> list[Array]:
    """What the node gives with these inputs at zero: by onnxruntime, or by the standard's reference."""
    model = model_of(case)
    for tensor in model.graph.initializer:
        if int(tensor.name.removeprefix("in")) in zeros:
            values = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    feeds = feeds_of(case, zeros)
    try:
        return list(run(session(model, threads=1), feeds).values())
    except ModelError:  # an operator set or a type that the runtime does not have
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(model).run(None, feeds))


def rule(case: Case) -> Rule:
    graph = TraceGraph(model_of(case))
    found = rule_of(graph, 0)
    assert found is not None
    return found


def floating_positions(case: Case) -> list[int]:
    """Inputs whose zeros are worth a try: data, and float parameters."""
    return sorted([*case.data, *(p for p, v in case.constants.items() if np.asarray(v).dtype == np.float32)])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_the_zero_rule_claims_is_true(case: Case) -> None:
    found = rule(case)
    count = max([*case.data, *case.constants]) + 1
    positions = floating_positions(case)
    scales = {p for p in case.constants if case.op_type in READS_CONSTANTS}
    for size in range(len(positions) + 1):
        for zeros in itertools.combinations(positions, size):
            if scales.intersection(zeros):
                continue  # these are constants whose value the rule has read
            flags = tuple(p in zeros or not (p in case.data or p in case.constants) for p in range(count))
            claims = found.zero(flags)
            if zeros in case.keeps:
                assert claims, f"the rule should say that zeros at {zeros} give zero"
            if claims and case.runs:
                assert all(not np.asarray(value).any() for value in outputs_with(case, zeros)), zeros


@pytest.mark.parametrize("case", [c for c in CASES if rule(c).poles], ids=str)
def test_a_pole_is_where_the_operator_is_not_finite(case: Case) -> None:
    for position in () if case.op_type in DEFINED_BY_THE_RUNTIME else rule(case).poles:
        values = outputs_with(case, (position,))
        if case.op_type == "Pow" and position == 0 and 1 in case.data:
            continue  # zero to a power that may be negative: only where it is
        assert not any(np.isfinite(np.asarray(value)).all() for value in values)


@pytest.mark.parametrize("case", [c for c in CASES if c.runs and not rule(c).poles and not c.booleans], ids=str)
def test_without_a_pole_zeros_give_finite_numbers(case: Case) -> None:
    if case.op_type in ("IsNaN", "IsInf", "Range"):
        return  # they tell of what is not finite, or refuse a step of zero
    for position in case.data:
        for value in outputs_with(case, (position,)):
            assert np.isfinite(np.asarray(value, np.float64)).all()


@pytest.mark.parametrize("case", [c for c in CASES if rule(c).joint is not None], ids=str)
def test_a_zero_operand_of_a_joint_may_be_dropped(case: Case) -> None:
    """A sum stays as it is; a Concat loses what the operand held."""
    joint = rule(case).joint
    assert joint is not None
    for position in joint.operands:
        whole = outputs_with(case, (position,))[0]
        left = [feeds_of(case, ())[f"in{p}"] for p in case.data if p != position]
        if joint.axis is None:
            assert np.allclose(whole, sum(np.broadcast_to(v, whole.shape) for v in left))
        else:
            start = sum(case.data[p][joint.axis] for p in case.data if p < position)
            held = np.arange(start, start + case.data[position][joint.axis])
            assert np.array_equal(np.delete(whole, held, axis=joint.axis), np.concatenate(left, axis=joint.axis))


def test_multiply_accumulates_are_those_of_the_definition() -> None:
    expected = {
        "Conv-17": 3 * 4 * 9 * 4 * 4,
        "Conv-17 group=2": 8 * 2 * 36,
        "ConvTranspose-17": 4 * 3 * 4 * 36,
        "Gemm-17 transB=1": 2 * 4 * 3,
    }
    found = {str(case): rule(case).macs for case in CASES if str(case) in expected}
    assert found == expected
    matmuls = [rule(case).macs for case in CASES if case.op_type == "MatMul"]
    assert matmuls == [2 * 5 * 4 * 3, 2 * 5 * 4 * 5]


def test_parameters_are_those_in_a_trainable_role() -> None:
    roles = {str(c): dict(rule(c).parameters) for c in CASES if rule(c).parameters and c.constants}
    assert roles["Conv-17"] == {1: "weight", 2: "bias"}
    assert roles["BatchNormalization-17"] == {1: "scale", 2: "bias"}
    assert "Div-17" not in roles and "Sub-17" not in roles and "Clip-17" not in roles


def test_the_newest_entry_that_is_not_too_new_counts() -> None:
    @register("OurOwn", domain="our.own")
    def first(op: Op) -> Rule:
        return Rule(labels=lambda flow: None, macs=1)

    @register("OurOwn", domain="our.own", since_version=3)
    def second(op: Op) -> Rule:
        return Rule(labels=lambda flow: None, macs=3)

    try:
        for version, macs in ((1, 1), (2, 1), (3, 3), (9, 3)):
            model = onnx.parser.parse_model(
                f"""<ir_version: 8, opset_import: ["" : 17, "our.own" : {version}]>
                agraph (float[N] x) => (float[N] y) {{ y = our.own.OurOwn (x) }}"""
            )
            (found,) = rules_of(TraceGraph(model))
            assert found is not None and found.macs == macs
    finally:
        from onnx_asgnas.operators import registry

        del registry._ENTRIES["our.own", "OurOwn"]


def test_the_standard_domain_has_two_names() -> None:
    model = model_of(Case("Relu", {0: (2,)}))
    model.graph.node[0].domain = "ai.onnx"
    assert rule_of(TraceGraph(model), 0) is not None


def test_concat_before_version_4_is_unknown() -> None:
    old = model_of(Case("Concat", {0: (2, 3), 1: (2, 3)}, attributes={"axis": 1}, opset=1))
    assert rules_of(TraceGraph(old)) == [None]
