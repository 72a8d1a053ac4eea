"""Operators that contract an axis with a weight: Conv, ConvTranspose, Gemm, MatMul, Einsum."""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase

import numpy as np

from onnx_asgnas.graph.shapes import elements
from onnx_asgnas.operators.contraction import Side, contract
from onnx_asgnas.operators.labelled import Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.registry import Op, Rule, register


def _product_and_bias(zero: tuple[bool, ...]) -> bool:
    return (zero[0] or zero[1]) and all(zero[2:])


@register("Conv", "ConvTranspose")
def conv(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Conv.html and onnx__ConvTranspose.html

    The groups of a grouped one have as many channels each: the same index leaves in every group, or, where a group has
    one channel only (depthwise), whole groups.
    """
    weight, data, output = op.size(1), op.size(0), op.output_size()
    turned = op.node.op_type == "ConvTranspose"
    group = op.attribute("group", 1)

    def labels(flow: LabelFlow) -> None:
        if not flow.is_weight(1) or len(weight) < 2:
            flow.freeze_inputs(f"the weight of this {op.node.op_type} is computed")
            return
        channels = flow.channels(0, 1)
        if group > 1 and flow.size(0) is None:
            flow.freeze_inputs(f"{op.node.op_type} in groups of a tensor of unknown shape")
            return
        if group == 1:
            columns = channels.ids[:0]
            if channels.any:
                columns = flow.weight_axis(1, 0 if turned else 1, Kind.CUT)
                flow.contract(channels, columns)
            rows = flow.weight_axis(1, 1 if turned else 0, Kind.PRODUCED)
            flow.count_macs(columns, rows)
        elif turned:
            columns, rows = _grouped_transpose(flow, channels, group, weight[1])
        else:
            columns, rows = _grouped(flow, channels, group, weight[0] // group, weight[1])
        if op.has(2):
            kind = Kind.PRODUCED if group == 1 or weight[1] > 1 else Kind.AFFINE
            flow.tie(rows, flow.weight_axis(2, 0, kind), "the bias is computed")
        flow.write_channels(rows, True, len(weight), 1)

    spatial = data[2:] if turned else output[2:]
    return Rule(
        labels=labels,
        zero=_product_and_bias,
        parameters={1: "weight", 2: "bias"},
        macs=elements(weight) * elements(spatial) if weight and data and output else 0,
    )


def _grouped(flow: LabelFlow, channels: Labelled, group: int, made: int, read: int) -> tuple[Ids, Ids]:
    """The columns and rows of a grouped Conv that reads `read` channels a group and makes `made`."""
    if made == 1 or read == 1:
        rows = flow.weight_axis(1, 0, Kind.AFFINE if read == 1 else Kind.PRODUCED)
        _whole_groups(flow, channels, rows, group)
        flow.count_macs(rows)
        return rows[:0], rows
    columns = _same_in_every_group(flow, channels, group, 1)
    rows = flow.weight_axis(1, 0, Kind.PRODUCED)
    table = rows.reshape(group, made)
    flow.tie(np.broadcast_to(table[:1], table.shape), table, "a grouped Conv makes as many channels in each group")
    flow.count_macs(columns, rows)
    return columns, rows


def _grouped_transpose(flow: LabelFlow, channels: Labelled, group: int, made: int) -> tuple[Ids, Ids]:
    """The rows and, by group, the columns of a grouped ConvTranspose, whose weight is [C, M/group, …]."""
    columns = flow.weight_axis(1, 0, Kind.CUT)
    if made == 1:
        flow.tie(channels.ids, columns, "reads channels that cannot leave")
        table = columns.reshape(group, -1)
        flow.tie(np.broadcast_to(table[:, :1], table.shape), table, "the channels of a group leave together")
        flow.book.mark(columns, Kind.AFFINE)
        flow.size_attribute("group", table)
        flow.count_macs(columns)
        return columns, table[:, 0].copy()
    flow.contract(channels, columns)
    table = columns.reshape(group, -1)
    flow.tie(np.broadcast_to(table[:1], table.shape), table, "a grouped ConvTranspose reads as many in each group")
    rows = flow.weight_axis(1, 1, Kind.PRODUCED)
    flow.count_macs(columns, rows)
    return columns, np.tile(rows, group)


def _whole_groups(flow: LabelFlow, channels: Labelled, rows: Ids, group: int) -> None:
    """What a group reads and makes leaves together, and `group` follows."""
    before, after = channels.ids.reshape(group, -1), rows.reshape(group, -1)
    reason = "a grouped Conv of channels that stay"
    flow.tie(np.broadcast_to(before[:, :1], after.shape), after, reason)
    if before.shape[1] > 1:
        flow.tie(np.broadcast_to(before[:, :1], before.shape), before, reason)
    flow.size_attribute("group", before)


def _same_in_every_group(flow: LabelFlow, channels: Labelled, group: int, axis: int) -> Ids:
    """The columns of a weight that every group of channels is read by: an index leaves in all groups."""
    if not channels.any:
        return channels.ids[:0]
    columns = flow.weight_axis(1, axis, Kind.CUT)
    table = channels.map(lambda array: array.reshape(group, -1))
    flow.contract(table, np.broadcast_to(columns, table.ids.shape))
    return columns


@register("Gemm")
def gemm(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Gemm.html"""
    one = Side(0, "km" if op.attribute("transA", 0) else "mk")
    two = Side(1, "nk" if op.attribute("transB", 0) else "kn")
    return Rule(
        labels=lambda flow: contract(flow, one, two, "mn", bias=2 if op.has(2) else None),
        zero=_product_and_bias,
        parameters={position: "weight" for position in (0, 1) if op.is_weight(position)} | {2: "bias"},
        macs=elements(op.size(0)) * (op.output_size() or (0,))[-1],
    )


@register("MatMul")
def matmul(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__MatMul.html"""
    left, right = op.size(0), op.size(1)
    return Rule(
        labels=lambda flow: product_of_matrices(flow),
        zero=any,
        parameters={position: "weight" for position in (0, 1) if op.is_weight(position)},
        macs=elements(op.output_size()) * left[-1] if left and right else 0,
    )


def product_of_matrices(
    flow: LabelFlow,
    positions: tuple[int, int] = (0, 1),
    bias: int | None = None,
    turned: tuple[bool, bool] = (False, False),
) -> None:
    """The labels of a MatMul of two inputs, batches broadcast, and what is added behind it.

    `turned` tells of each whether its last two axes are swapped first.
    """
    one, two = (flow.size(position) for position in positions)
    if not one or not two:
        flow.freeze_inputs("the shape of an operand is unknown, or a scalar")
        return
    rank = max(len(one), len(two)) - 2
    names = ascii_lowercase[:rank] if rank > 0 else ""
    lone = iter(ascii_uppercase)
    sides, batches = [], []
    matrices = ("xy" if turned[0] else "yx", "zx" if turned[1] else "xz")
    for position, size, matrix in zip(positions, (one, two), matrices, strict=True):
        own = matrix if len(size) > 1 else "x"
        lead = size[: len(size) - 2] if len(size) > 2 else ()
        letters = names[len(names) - len(lead) :] if lead else ""
        letters = "".join(x if n > 1 else next(lone) for x, n in zip(letters, lead, strict=True))
        sides.append(Side(position, letters + own))
        batches.append(letters.rjust(rank) if rank > 0 else "")
    output = "".join(
        a if a.islower() else b if b.islower() else (a.strip() or b) for a, b in zip(*batches, strict=True)
    )
    output += ("y" if len(one) > 1 else "") + ("z" if len(two) > 1 else "")
    contract(flow, sides[0], sides[1], output, bias)


@register("Einsum")
def einsum(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__Einsum.html"""
    equation = op.attribute("equation").decode().replace(" ", "")
    terms, _, output = equation.partition("->")
    letters = terms.split(",")
    plain = "->" in equation and "." not in equation and all(len(set(term)) == len(term) for term in (*letters, output))
    sizes = {x: n for at, term in enumerate(letters) if plain for x, n in zip(term, op.size(at), strict=False)}

    def labels(flow: LabelFlow) -> None:
        if plain and len(letters) == 2:
            contract(flow, Side(0, letters[0]), Side(1, letters[1]), output)
        else:
            flow.freeze_inputs("this form of Einsum is not taken apart")

    return Rule(
        labels=labels,
        zero=any,
        parameters={at: "weight" for at in range(len(letters)) if op.is_weight(at)},
        macs=elements(tuple(sizes.values())) if len(letters) > 1 else 0,
    )
