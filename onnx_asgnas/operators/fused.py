"""Fusions that onnxruntime's optimiser writes: each is seen as the operators that it stands for.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_asgnas.graph.shapes import elements
from onnx_asgnas.operators.dense import conv, gemm, product_of_matrices
from onnx_asgnas.operators.labelled import Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.meeting import broadcast
from onnx_asgnas.operators.norm import layer_normalization
from onnx_asgnas.operators.pointwise import add, zero_preserving
from onnx_asgnas.operators.recast import recast
from onnx_asgnas.operators.registry import Op, Rule, never, register

MICROSOFT = "com.microsoft"
_KEEPS_ZERO = frozenset({b"", b"Elu", b"HardSwish", b"LeakyRelu", b"Relu", b"Selu", b"Softsign", b"Tanh"})
"""Activations inside a fusion that give zero for zero."""


register("Gelu", "QuickGelu", domain=MICROSOFT)(zero_preserving)
register("LayerNormalization", "SimplifiedLayerNormalization")(layer_normalization)  # written before operator set 17


@register("FusedConv", domain=MICROSOFT)
def fused_conv(op: Op) -> Rule:
    """#com.microsoft.FusedConv: a Conv, another tensor of its shape added, an activation."""
    rule = recast(op, conv, "Conv", (0, 1, 2))
    keeps = _keeps_zero(op)

    def labels(flow: LabelFlow) -> None:
        rule.labels(flow)
        if op.has(3):
            _add_residual(flow, 3)
        _activate(flow, keeps)

    added = (3,) if op.has(3) else ()
    zero = rule.zero
    return replace(rule, labels=labels, zero=lambda z: keeps and zero(z) and all(z[p] for p in added))


@register("FusedGemm", domain=MICROSOFT)
def fused_gemm(op: Op) -> Rule:
    """#com.microsoft.FusedGemm: a Gemm and an activation."""
    rule = recast(op, gemm, "Gemm", (0, 1, 2))
    keeps, zero = _keeps_zero(op), rule.zero

    def labels(flow: LabelFlow) -> None:
        rule.labels(flow)
        _activate(flow, keeps)

    return replace(rule, labels=labels, zero=lambda z: keeps and zero(z))


def _keeps_zero(op: Op) -> bool:
    kind = op.attribute("activation", b"")
    if kind == b"Clip":
        low, high = op.attribute("activation_params", (1.0, 1.0))[:2]
        return bool(low <= 0 <= high)
    return kind in _KEEPS_ZERO


def _add_residual(flow: LabelFlow, position: int) -> None:
    """Tie the output's channels with those of what is added to them; zero where both are."""
    made, added = flow.book.tensors.pop(flow.node.output[0], None), flow.read(position)
    if made is None:
        flow.freeze(added.ids, f"{flow.node.op_type} adds them to channels that cannot leave")
        return
    channels = made.ids.reshape(-1)
    own = flow.channels(position, 1)
    flow.tie(channels, own.ids, f"{flow.node.op_type} adds channels that cannot leave")
    if (own.ids >= 0).all():
        flow.write_channels(channels, made.zero.reshape(-1) & own.zero, made.ids.ndim, 1)


def _activate(flow: LabelFlow, keeps: bool) -> None:
    """The output behind an activation: not zero any more, unless that keeps zero."""
    found = flow.book.tensors.get(flow.node.output[0])
    if found is not None and not keeps:
        flow.write(Labelled(found.ids, np.zeros_like(found.zero)))


@register("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(op: Op) -> Rule:
    """#com.microsoft.FusedMatMul: a MatMul of matrices that may be transposed first, times a number."""
    one, two = (bool(op.attribute(name, 0)) for name in ("transA", "transB"))
    batches = op.attribute("transBatchA", 0) or op.attribute("transBatchB", 0)
    left = op.size(0)

    def labels(flow: LabelFlow) -> None:
        if batches:
            flow.freeze_inputs(f"{op.node.op_type} turns batches")
        else:
            product_of_matrices(flow, turned=(one and len(op.size(0)) > 1, two and len(op.size(1)) > 1))

    return Rule(
        labels=labels,
        zero=any,
        parameters={position: "weight" for position in (0, 1) if op.is_weight(position)},
        macs=elements(op.output_size()) * left[-2 if one and len(left) > 1 else -1] if left and op.size(1) else 0,
    )


@register("GemmFastGelu", domain=MICROSOFT)
def gemm_fast_gelu(op: Op) -> Rule:
    """#com.microsoft.GemmFastGelu: a MatMul, a bias, Gelu."""
    left = op.size(0)
    bias = 2 if op.has(2) else None
    return Rule(
        labels=lambda flow: product_of_matrices(flow, bias=bias),
        zero=lambda zero: (zero[0] or zero[1]) and all(zero[2:]),
        parameters={1: "weight", 2: "bias"},
        macs=elements(op.output_size()) * left[-1] if left and op.size(1) else 0,
    )


@register("BiasGelu", "FastGelu", "BiasAdd", domain=MICROSOFT)
def biased(op: Op) -> Rule:
    """#com.microsoft.BiasGelu and its siblings: an Add, and Gelu, which keeps zero."""
    return recast(op, add, "Add", tuple(range(len(op.node.input))))


@register("SkipLayerNormalization", domain=MICROSOFT)
@register("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(op: Op) -> Rule:
    """#com.microsoft.SkipLayerNormalization: two tensors and a bias added, then normalised over the last axis.

    The fourth output is their sum.
    """
    simplified = op.node.op_type == "SkipSimplifiedLayerNormalization"
    shift, bias = (None, 3) if simplified else (3, 4)

    def labels(flow: LabelFlow) -> None:
        added = (0, 1) if not op.has(bias) else (0, 1, bias)
        broadcast(flow, added, all, trained=(bias,), kind=Kind.AFFINE)
        found = flow.book.tensors.pop(op.node.output[0], None)
        if found is None:
            return
        mixed = flow.mix(found, (found.ids.ndim - 1,), f"{op.node.op_type} normalises over this axis")
        flow.write(Labelled(mixed.ids, mixed.zero & (shift is None or not op.has(shift))))
        for output in (1, 2):
            flow.write(Labelled(mixed.ids, np.zeros_like(mixed.zero)), output)
        flow.write(mixed, 3)

    scale = {2: "scale", bias: "bias"}
    return Rule(labels=labels, zero=never, parameters=scale if shift is None else scale | {shift: "bias"})


@register("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(op: Op) -> Rule:
    """#com.microsoft.EmbedLayerNormalization: rows of two or three tables added, then normalised."""

    def labels(flow: LabelFlow) -> None:
        flow.freeze_inputs(f"{op.node.op_type} takes rows by them")
        for position in (2, 3, 4):
            if op.has(position) and flow.is_weight(position):
                made = flow.weight_axis(position, 1, Kind.PRODUCED)
                flow.freeze(made, f"{op.node.op_type} normalises over this axis")

    return Rule(
        labels=labels,
        parameters={2: "embedding", 3: "embedding", 4: "embedding", 5: "scale", 6: "bias"},
    )


@register(
    "BiasSoftmax",
    "BiasSplitGelu",
    "CropAndResize",
    "DecoderAttention",
    "DecoderMaskedMultiHeadAttention",
    "DecoderMaskedSelfAttention",
    "DynamicQuantizeLSTM",
    "GatedRelativePositionBias",
    "GroupNorm",
    "LongformerAttention",
    "MatMulBnb4",
    "MoE",
    "NhwcConv",
    "NhwcFusedConv",
    "NhwcMaxPool",
    "PackedAttention",
    "PackedMultiHeadAttention",
    "QAttention",
    "QEmbedLayerNormalization",
    "QLinearSoftmax",
    "QMoE",
    "QOrderedMatMul",
    "RelativePositionBias",
    "RemovePadding",
    "RestorePadding",
    "SkipGroupNorm",
    "SparseAttention",
    domain=MICROSOFT,
)
def not_taken_apart(op: Op) -> Rule:
    """What these read, and what makes it, stays."""
    return Rule(labels=lambda flow: flow.freeze_inputs(f"{op.node.op_type} is not taken apart"))
