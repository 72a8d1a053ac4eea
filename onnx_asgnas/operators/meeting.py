"""Where labels meet: operands that are broadcast against each other.

An activation carries one array of labels. Where that is not enough (labels of two operands on different axes), what
lies along the inner axes is mixed and only the outermost keeps its labels: heads leave rather than parts of all heads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators.labelled import Bits, Ids, Kind, Labelled, spread
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.registry import ZeroRule
from onnx_asgnas.operators.slots import Counts

_TABULATED = 4
"""Up to so many operands a rule is worked out for all that they can be."""
_BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Where", "Max", "Min", "Sum", "And", "Or", "Equal"})


@dataclass(frozen=True, slots=True)
class Operand:
    """Labels with as many axes as the result of a broadcast, and the operand's own sizes along them."""

    labels: Labelled
    size: tuple[int, ...]


def broadcast(
    flow: LabelFlow,
    positions: Sequence[int],
    zero_rule: ZeroRule,
    *,
    trained: Collection[int] = (),
    kind: Kind = Kind.CUT,
) -> None:
    """An elementwise operator: labels at the same place are tied, and a weight is cut where an activation's are.

    `zero_rule` says when the output is zero. `trained` are the positions of weights that train, `kind` how their slices
    leave; other weights are only cut. What the labels meet that has none (a mask, a rotary table) mixes them along that
    axis.
    """
    if any(attribute.name == "broadcast" and attribute.i for attribute in flow.node.attribute):
        flow.freeze_inputs(f"{flow.node.op_type} broadcasts as before operator set 7")
        return
    labelled = any(flow.node.input[p] in flow.book.tensors for p in positions)
    if not labelled and not any(flow.is_weight(p) for p in trained):
        return
    sizes = [flow.size(p) for p in positions]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        flow.freeze_inputs("the shape of an operand is unknown")
        return
    rank = max(len(size) for size in known)
    full = [(1,) * (rank - len(size)) + size for size in known]
    operands = [None if flow.is_weight(p) else _operand(flow, p, size) for p, size in zip(positions, full, strict=True)]
    operands = [
        o if o is None else _without_repeats(flow, p, o, operands) for p, o in zip(positions, operands, strict=True)
    ]
    result = reduce(lambda one, two: meet(flow, one, two), [o for o in operands if o is not None])
    bits = [None if operand is None else operand.labels.zero for operand in operands]
    for place, position in enumerate(positions):
        if operands[place] is None:
            role = kind if position in trained else None
            result, bits[place] = _with_weight(flow, position, full[place], result, role)
    if result.labels.any:
        shape = result.labels.ids.shape
        zero = combine([_fitted(b, shape) for b in bits if b is not None], zero_rule)
        flow.write(Labelled(result.labels.ids, zero, result.labels.vector))


def combine(bits: Sequence[Bits], rule: ZeroRule) -> Bits:
    """A rule for one place, at every place of arrays of one shape."""
    if rule is all or rule is any:
        joined: Bits = np.logical_and.reduce(bits) if rule is all else np.logical_or.reduce(bits)
        return joined
    code = np.zeros(bits[0].shape, np.int64)
    for bit, array in enumerate(bits):
        code |= array.astype(np.int64) << bit
    values = range(1 << len(bits)) if len(bits) <= _TABULATED else np.unique(code).tolist()
    found = {value: rule(tuple([bool(value >> b & 1) for b in range(len(bits))])) for value in values}
    if len(bits) <= _TABULATED:
        return np.array([*found.values()], bool)[code]
    result = np.zeros(code.shape, bool)
    for value, zero in found.items():
        result[code == value] = zero
    return result


def _fitted(bits: Bits, shape: tuple[int, ...]) -> Bits:
    """Bits of an operand at the places of the result; where axes were mixed, all of them count."""
    if bits.shape == shape:
        return bits
    long = tuple(axis for axis, n in enumerate(bits.shape) if n > 1 and shape[axis] == 1)
    if long:
        bits = np.logical_and.reduce(bits, axis=long, keepdims=True)
    fits = all(n in (1, whole) for n, whole in zip(bits.shape, shape, strict=True))
    return np.broadcast_to(bits if fits else np.zeros((1,) * len(shape), bool), shape)


def _operand(flow: LabelFlow, position: int, size: tuple[int, ...]) -> Operand:
    found = flow.read(position)
    lead = (1,) * (len(size) - found.ids.ndim)
    return Operand(found.map(lambda array: array.reshape(lead + array.shape)) if lead else found, size)


def _without_repeats(flow: LabelFlow, position: int, operand: Operand, others: Sequence[Operand | None]) -> Operand:
    """An operand of equal values along an axis on which others are labelled counts as of size 1 there.

    Once channels leave it is of size 1, and broadcast (`Counts.BROADCAST`).
    """
    if operand.labels.any:
        return operand
    size = list(operand.size)
    for axis, n in enumerate(size):
        meets = [o for o in others if o is not None and o is not operand and o.labels.ids.shape[axis] > 1]
        if n == 1 or not meets:
            continue
        makers = _repeated_by(flow.book.graph, flow.node.input[position], axis - len(size), flow.index)
        labels = meets[0].labels.along(axis)
        if makers and all(flow.size_slot(p, at, labels, Counts.BROADCAST, node) for node, p, at in makers):
            size[axis] = 1
    return replace(operand, size=tuple(size))


def _repeated_by(graph: TraceGraph, name: str, axis: int, reader: int) -> list[tuple[int, int, int]] | None:
    """Where it says how often the values of a tensor repeat along an axis (from the end): (node, input, entry) each.

    None where they are not all equal, or where something reads them that does not broadcast them against others.
    """
    length = (graph.size(name) or (0,))[axis]
    found: list[tuple[int, int, int]] = []
    stack = [(name, reader)]
    while stack:
        tensor, path = stack.pop()
        maker = graph.producer.get(tensor, -1)
        covered = all(
            index == path or _covers_elsewhere(graph, index, tensor, axis, length) for index in graph.consumers[tensor]
        )
        if maker < 0 or graph.is_output(tensor) or not covered:
            return None
        node = graph.nodes[maker]
        source = graph.size(node.input[0]) if node.input else None
        if node.op_type in _BROADCASTING or node.op_type in ("Cast", "Not"):
            sizes = [(other, graph.size(other)) for other in node.input]
            if any(size is None for _, size in sizes):
                return None
            stack += [(other, maker) for other, size in sizes if size and len(size) >= -axis and size[axis] > 1]
        elif node.op_type == "ConstantOfShape" or (
            node.op_type == "Expand" and source is not None and (len(source) < -axis or source[axis] == 1)
        ):
            found.append((maker, len(node.input) - 1, axis + len(graph.size(tensor) or ())))
        else:
            return None
    return found


def _covers_elsewhere(graph: TraceGraph, node: int, tensor: str, axis: int, length: int) -> bool:
    """Does a node broadcast this tensor against another operand that is as long along the axis."""
    reader = graph.nodes[node]
    others = [graph.size(other) or () for other in reader.input if other and other != tensor]
    return reader.op_type in _BROADCASTING and any(len(o) >= -axis and o[axis] == length for o in others)


def meet(flow: LabelFlow, one: Operand, two: Operand) -> Operand:
    """Tie two operands place by place; along an axis where only one of them is labelled, that one is mixed."""
    reason = f"{flow.node.op_type} with an operand whose channels cannot leave"
    if one.labels.vector is not None and two.labels.vector is not None and one.labels.ids.shape == two.labels.ids.shape:
        flow.tie(one.labels.vector, two.labels.vector, reason)
        size = tuple(map(max, one.size, two.size))
        return Operand(Labelled(one.labels.ids, one.labels.zero & two.labels.zero, one.labels.vector), size)
    for axis in range(len(one.size)):
        a, b = one.labels.ids.shape[axis] > 1, two.labels.ids.shape[axis] > 1
        if a and not b and two.size[axis] > 1:
            one = replace(one, labels=_mixed(flow, one.labels, axis, two.labels, reason))
        elif b and not a and one.size[axis] > 1:
            two = replace(two, labels=_mixed(flow, two.labels, axis, one.labels, reason))
    size = tuple(max(a, b) for a, b in zip(one.size, two.size, strict=True))
    if any(a != b and 1 not in (a, b) for a, b in zip(one.labels.ids.shape, two.labels.ids.shape, strict=True)):
        for operand in (one, two):  # lengths that are equal for one input only
            flow.freeze(operand.labels.ids, reason)
        one, two = (replace(o, labels=Labelled.none(len(o.size))) for o in (one, two))
    shape = np.broadcast_shapes(one.labels.ids.shape, two.labels.ids.shape)
    first, second = (spread(o.labels.ids, shape) for o in (one, two))
    zero = spread(one.labels.zero, shape) & spread(two.labels.zero, shape)
    if one.labels.any and two.labels.any:
        both = (first >= 0) & (second >= 0)
        flow.book.ties.append((first[both], second[both]))
        for own, other, operand in ((first, second, two), (second, first, one)):
            if _covers(operand, shape):
                flow.freeze(own[(own >= 0) & (other < 0)], reason)
    return Operand(Labelled(np.where(first >= 0, first, second), zero), size)


def _mixed(flow: LabelFlow, found: Labelled, axis: int, other: Labelled, reason: str) -> Labelled:
    flow.book.conflict |= other.any
    return flow.mix(found, (axis,), reason)


def _covers(operand: Operand, shape: tuple[int, ...]) -> bool:
    """Has the operand data of its own along some axis on which the labels vary."""
    return any(n > 1 and operand.size[axis] > 1 for axis, n in enumerate(shape))


def _with_weight(
    flow: LabelFlow, position: int, size: tuple[int, ...], result: Operand, kind: Kind | None
) -> tuple[Operand, Bits]:
    """The result with a weight beside it, and whether the weight is zero there; `kind` is None where it does not train.

    It is cut along the outermost axis on which the labels vary; where the labels lie elsewhere in it, they are mixed.
    Where the activations have size 1 and no labels, the labels of a weight that trains go on.
    """
    labels, rank = result.labels, len(size)
    larger = tuple(max(a, b) for a, b in zip(result.size, size, strict=True))
    zero = np.full((1,) * rank, _is_zero_scalar(flow, position, size))
    if not labels.any:
        free = [axis for axis, n in enumerate(size) if n > 1 and result.size[axis] == 1]
        if not free or kind is None:
            return replace(result, size=larger), zero
        own = _along(flow.weight_axis(position, free[0] - rank, Kind.PRODUCED), free[0], rank)
        return Operand(Labelled.of(own, False), larger), own >= 0
    within = [axis for axis in labels.long if size[axis] > 1]
    keep, reason = labels.long[0], f"{flow.node.op_type} with a weight that has no such axis"
    if within:
        labels = flow.mix(labels, labels.long[1:] if keep in within else within, reason)
    if keep in within and labels.any:
        vector = flow.weight_axis(position, keep - rank, kind or Kind.CUT)
        own = _along(vector, keep, rank)
        whole = labels.vector is not None and len(vector) == len(labels.vector)
        one, two = (labels.vector, vector) if whole else (labels.ids, own)
        flow.tie(one, two, f"{flow.node.op_type} with an operand whose channels cannot leave")  # type: ignore[arg-type]
        zero = (own >= 0) & (kind is not None and kind is not Kind.CUT)
    return Operand(labels, larger), zero


def _is_zero_scalar(flow: LabelFlow, position: int, size: tuple[int, ...]) -> bool:
    name, graph = flow.node.input[position], flow.book.graph
    return all(n == 1 for n in size) and name in graph.initializers and not graph.array(name).any()


def _along(ids: Ids, axis: int, rank: int) -> Ids:
    shape = [1] * rank
    shape[axis] = len(ids)
    return ids.reshape(shape)
