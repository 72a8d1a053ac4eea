"""Recurrent networks: what they read leaves by column, what they remember by unit, in all gates and both directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import numpy_helper

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.shapes import elements
from onnx_asgnas.operators.labelled import Ids, Kind, Labelled
from onnx_asgnas.operators.labels import LabelFlow
from onnx_asgnas.operators.registry import Op, Rule, register

_KEEP_ZERO = frozenset({"Elu", "LeakyRelu", "Relu", "ScaledTanh", "Softsign", "Tanh"})
"""Activations that give zero for zero, whatever their parameters."""
_NOT_ZERO = "a unit does not stay at zero"


@dataclass(frozen=True, slots=True)
class _Cell:
    """A kind of cell: how many gates it has, and which of its activations the value of a unit goes through.

    With all weights of a unit at zero an LSTM has C = f C' + i g(0) and H = o h(C), a GRU H = (1 - z) g(0) + z H', an
    RNN H = f(0): from a state of zero on the unit is exactly zero if these activations keep zero.
    """

    gates: int
    activations: tuple[str, ...]
    values: tuple[int, ...]
    states: tuple[int, ...]


_CELLS = {
    "LSTM": _Cell(4, ("Sigmoid", "Tanh", "Tanh"), (1, 2), (5, 6)),
    "GRU": _Cell(3, ("Sigmoid", "Tanh"), (1,), (5,)),
    "RNN": _Cell(1, ("Tanh",), (0,), (5,)),
}


@register("LSTM", "GRU", "RNN")
def recurrent(op: Op) -> Rule:
    """https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html and onnx__RNN.html

    A unit leaves in every gate, as a row and as a column of the recurrence, where it starts from a state of zero.
    """
    cell = _CELLS[op.node.op_type]
    data, weight = op.size(0), op.size(1)
    keeps = _keeps_zero(op, cell)
    learned = {p: "bias" for p in cell.states if _is_learned(op, p)}

    def labels(flow: LabelFlow) -> None:
        if len(weight) != 3 or not all(flow.is_weight(p) for p in (1, 2, 3, 7) if op.has(p)):
            flow.freeze_inputs(f"the weights of this {op.node.op_type} are computed")
            return
        columns = _read_channels(flow)
        units = _tie_gates(flow, op, cell.gates)
        if not keeps:
            flow.freeze(units, f"{_NOT_ZERO} under the activations of this {op.node.op_type}")
        for position in cell.states:
            if op.has(position):
                _start_from_zero(flow, position, units)
        if op.attribute("hidden_size"):
            flow.size_attribute("hidden_size", units.reshape(-1, 1))
        flow.count_macs(units, np.concatenate([columns, units]))
        for output, rank in enumerate((4, 3, 3)):
            if output < len(op.node.output):
                flow.write(Labelled.of(units.reshape((1,) * (rank - 1) + (-1,)), True), output)

    steps = data[1 if op.attribute("layout", 0) else 0] if len(data) == 3 else 0
    hidden = weight[1] // cell.gates if len(weight) == 3 else 0
    return Rule(
        labels=labels,
        zero=lambda zero: keeps and all(zero[p] for p in (1, 2, 3, *cell.states) if p < len(zero)),
        parameters={1: "weight", 2: "weight", 3: "bias", **({7: "peephole"} if op.has(7) else {}), **learned},
        macs=steps * (elements(weight) + elements(weight[:2]) * hidden) if hidden else 0,
    )


def _keeps_zero(op: Op, cell: _Cell) -> bool:
    """Do the activations that a unit's value goes through give zero for zero, in every direction."""
    given = [name.decode() for name in op.attribute("activations", ())] or list(cell.activations)
    count = len(cell.activations)
    return all(name in _KEEP_ZERO for at, name in enumerate(given) if at % count in cell.values)


def _is_learned(op: Op, position: int) -> bool:
    name = op.node.input[position] if op.has(position) else ""
    return name in op.graph.initializers and bool(op.graph.array(name).any())


def _read_channels(flow: LabelFlow) -> Ids:
    """Cut the columns of the input weight with the channels that they read; gives a label for each, -1 for none."""
    channels = flow.channels(0, 2)
    if not (channels.ids >= 0).any():
        return channels.ids
    columns = flow.weight_axis(1, 2, Kind.CUT)
    flow.contract(channels, columns)
    return columns


def _tie_gates(flow: LabelFlow, op: Op, gates: int) -> Ids:
    """The labels of the units: their rows in all gates, their biases and peepholes, and what reads them back.

    The columns of the recurrence count as what makes a unit, since there is exactly one for each.
    """
    units = flow.weight_axis(2, 2, Kind.PRODUCED)
    reason = f"the weights of this {op.node.op_type} do not have its shape"
    for position in (1, 2, 3, 7):
        if not op.has(position):
            continue
        own = flow.weight_axis(position, 1, Kind.CUT if position == 7 else Kind.AFFINE)
        if len(own) % len(units):
            flow.freeze(own, reason)
            flow.freeze(units, reason)
            continue
        table = own.reshape(-1, len(units))
        flow.tie(np.broadcast_to(units, table.shape), table, reason)
    return units


def _start_from_zero(flow: LabelFlow, position: int, units: Ids) -> None:
    """Cut an initial state along its units, where these start from zero or from a number that can be put to zero."""
    name, graph, book = flow.node.input[position], flow.book.graph, flow.book
    found = flow.read(position)
    reason = f"{_NOT_ZERO} from a state that is not"
    if found.any:
        state = flow.channels(position, 2)
        flow.tie(units, state.ids, reason)
        flow.freeze(units[~state.zero], reason)
    elif name in graph.initializers:
        flow.tie(units, flow.weight_axis(position, 2, Kind.AFFINE), reason)
    else:
        path = _zeros_behind(graph, name)
        known = [book.tensors[tensor] for tensor in path if tensor in book.tensors]
        if known:  # the zeros of another layer, of which this one's are a part
            flow.tie(units, known[0].ids.reshape(-1), reason)
        elif not path or not _shrink_zeros(flow, path[-1], units):
            flow.freeze(units, reason)
            return
        for tensor in path:
            book.tensors.setdefault(tensor, Labelled.of(units.reshape(1, 1, -1), True))


def _shrink_zeros(flow: LabelFlow, name: str, units: Ids) -> bool:
    """Note that the shape by which zeros are made has the number of units as its last entry; False if computed."""
    maker = flow.book.graph.producer[name]
    shape = len(flow.book.graph.nodes[maker].input) - 1
    return flow.size_slot(shape, 2, units.reshape(-1, 1), node=maker)


def _zeros_behind(graph: TraceGraph, name: str) -> list[str]:
    """The tensors on the way back to zeros that are made by shape, if nothing but initial states is made of these."""
    path = [name]
    while True:
        maker = graph.producer.get(path[-1], -1)
        node = graph.nodes[maker] if maker >= 0 else None
        if node is None:
            return []
        if node.op_type in ("ConstantOfShape", "Expand"):
            break
        if node.op_type != "Identity" and not _slices_first_axis(graph, maker):
            return []
        path.append(node.input[0])
    only_states = all(_is_state(graph, tensor, reader) for tensor in path for reader in graph.consumers[tensor])
    return path if only_states and _is_zero_fill(graph, maker) else []


def _slices_first_axis(graph: TraceGraph, index: int) -> bool:
    node = graph.nodes[index]
    axes = graph.constant(node.input[3]) if node.op_type == "Slice" and len(node.input) > 3 else None
    given = [a.i for a in node.attribute if a.name == "axis"] if node.op_type == "Split" else axes
    return given is not None and [int(axis) for axis in given or [0]] == [0]


def _is_state(graph: TraceGraph, tensor: str, reader: int) -> bool:
    """Does a node read a tensor as an initial state, or hand on nothing but a part of it to such."""
    node = graph.nodes[reader]
    if node.op_type in _CELLS:
        return all(p in _CELLS[node.op_type].states for p, name in enumerate(node.input) if name == tensor)
    if graph.is_output(tensor) or not (node.op_type == "Identity" or _slices_first_axis(graph, reader)):
        return False
    return all(
        _is_state(graph, output, further) and not graph.is_output(output)
        for output in node.output
        for further in graph.consumers.get(output, ())
    )


def _is_zero_fill(graph: TraceGraph, index: int) -> bool:
    """Is it a ConstantOfShape of zeros, or zeros of size 1 along the last axis expanded to three axes."""
    node = graph.nodes[index]
    if node.op_type == "Expand":
        name = node.input[0]
        tensor = graph.initializers.get(name)
        fits = tensor is not None and (not tensor.dims or tensor.dims[-1] == 1)
        return fits and not graph.array(name).any() and graph.size(node.input[1]) == (3,)
    return not any(a.name == "value" and numpy_helper.to_array(a.t).any() for a in node.attribute)
