"""Lengths and element types of what onnxruntime's own operators give (domain com.microsoft).

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md; onnx's inference does not know them. The
fusions that have the shape of a standard operator are in `shape_rules`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx

from onnx_asgnas.graph.shape_rules import RULES as STANDARD
from onnx_asgnas.graph.shape_rules import Call, Outputs, Rule

RULES: dict[tuple[str, str], Rule] = {}
"""By domain and operator."""

_FLOAT, _INT32, _UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.UINT8


def _rule(*op_types: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update({("com.microsoft", op_type): function for op_type in op_types})
        return function

    return register


@_rule("BiasAdd", "RotaryEmbedding")
def _same(call: Call) -> Outputs | None:
    return [(call.kind, call.shape())]


@_rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip(call: Call) -> Outputs | None:
    """The result, mean and deviation, and the sum in front of them."""
    shape = call.shape()
    statistics = (_FLOAT, (*shape[:-1], 1))
    return [(call.kind, shape), statistics, statistics, (call.kind, shape)][: call.outputs]


def _simplified(call: Call) -> Outputs | None:
    """The result and the deviation; the runtime writes this one into the standard's domain."""
    return [(call.kind, call.shape()), (_FLOAT, (*call.shape()[:-1], 1))][: call.outputs]


RULES["", "SimplifiedLayerNormalization"] = _simplified


@_rule("EmbedLayerNormalization")
def _embed(call: Call) -> Outputs | None:
    batch, length = call.shape(0)
    hidden = (batch, length, call.shape(2)[1])
    kind = call.inputs[2].kind
    return [(kind, hidden), (_INT32, (batch,)), (kind, hidden)][: call.outputs]


@_rule("MultiHeadAttention")
def _multi_head_attention(call: Call) -> Outputs | None:
    if call.outputs > 1:
        return None  # the lengths of a cache depend on its past
    query, count = call.shape(0), call.attributes["num_heads"]
    if len(query) == 5:
        return [(call.kind, (*query[:2], count * query[4]))]
    if call.has(2):
        value = call.shape(2)
        return [(call.kind, (*query[:2], value[2] if len(value) == 3 else value[1] * value[3]))]
    return [(call.kind, query)]


@_rule("Attention")
def _attention(call: Call) -> Outputs | None:
    if call.outputs > 1:
        return None
    sizes = call.attributes.get("qkv_hidden_sizes")
    width = sizes[2] if sizes else call.shape(1)[1] // 3
    return [(call.kind, (*call.shape()[:2], width))]


@_rule("GroupQueryAttention")
def _group_query_attention(call: Call) -> Outputs | None:
    query, queries, keys = call.shape(0), call.attributes["num_heads"], call.attributes["kv_num_heads"]
    wide = query[2] if call.has(1) else query[2] // (queries + 2 * keys) * queries
    if call.outputs == 1:
        return [(call.kind, (*query[:2], wide))]
    total = call.inputs[6].value if call.has(6) else None
    past = call.shape(3)[2] if call.has(3) else 0
    length = max(past, int(total.reshape(-1)[0])) if total is not None else query[1] if not past else None
    if length is None or call.outputs > 3:
        return None
    cache = (call.kind, (query[0], keys, length, wide // queries))
    return [(call.kind, (*query[:2], wide)), cache, cache]


@_rule("DequantizeLinear")
def _dequantise(call: Call) -> Outputs | None:
    return [(call.inputs[1].kind, call.shape())]


@_rule("QuantizeLinear")
def _quantise(call: Call) -> Outputs | None:
    return [(call.inputs[2].kind if call.has(2) else _UINT8, call.shape())]


@_rule("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax")
def _quantised_same(call: Call) -> Outputs | None:
    return [(call.kind, call.shape())]


@_rule("QLinearAdd", "QLinearMul")
def _quantised_pair(call: Call) -> Outputs | None:
    return STANDARD["", "Add"](replace(call, inputs=(call.inputs[0], call.inputs[3])))


@_rule("QLinearConcat")
def _quantised_concat(call: Call) -> Outputs | None:
    return STANDARD["", "Concat"](replace(call, inputs=call.inputs[2::3]))


@_rule("QGemm")
def _quantised_gemm(call: Call) -> Outputs | None:
    found = STANDARD["", "Gemm"](replace(call, inputs=(call.inputs[0], call.inputs[3])))
    return found if found is None or call.has(8) else [(_FLOAT, found[0][1])]


@_rule("QLinearGlobalAveragePool", "QLinearAveragePool")
def _quantised_pool(call: Call) -> Outputs | None:
    standard = STANDARD["", call.op_type.removeprefix("QLinear")]
    return None if call.attributes.get("channels_last") else standard(replace(call, inputs=call.inputs[:1]))


@_rule("DynamicQuantizeMatMul", "MatMulIntegerToFloat")
def _product(call: Call) -> Outputs | None:
    found = STANDARD["", "MatMul"](call)
    return None if found is None else [(_FLOAT, found[0][1])]


@_rule("MatMulNBits")
def _packed_product(call: Call) -> Outputs | None:
    return [(call.kind, (*call.shape()[:-1], call.attributes["N"]))]
