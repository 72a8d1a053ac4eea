"""Construct the compact model: drop what is exactly zero, and mend what that touched (the paper's third stage)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_asgnas.errors import ConstructError
from onnx_asgnas.graph import ModelSource, TraceGraph, remove_dead
from onnx_asgnas.graph.checks import with_own_domain, without_weights
from onnx_asgnas.graph.nodes import read_by
from onnx_asgnas.graph.runtime import random_inputs, run, session
from onnx_asgnas.operators import zero_of
from onnx_asgnas.operators.labelled import Kind
from onnx_asgnas.operators.labels import LabelBook
from onnx_asgnas.space import Group, RemovalState, SearchSpace, analyze
from onnx_asgnas.space.channel_selection import ChannelOrder, Widths
from onnx_asgnas.space.zeroing import zeroed
from onnx_asgnas.surgery.gate_folding import fold_gates
from onnx_asgnas.surgery.sizes import SizeSurgery, leaving

logger = logging.getLogger(__name__)

Kept: TypeAlias = "Mapping[str, Mapping[int, NDArray[np.int64]]]"
"""Indices that are left, by initializer and axis."""


def construct(
    source: ModelSource | TraceGraph, space: SearchSpace | None = None, *, fold: bool = True
) -> onnx.ModelProto:
    """The compact model of a trained one, which gives the same output in exact arithmetic.

    What is removed is read from the weights: the groups of the space that are exactly zero. Protected parts stay even
    at zero, and so does the last channel of a layer. With nothing at zero the result is the normal form of the source;
    on its own result it removes nothing. Without a `space` the model is analysed for both structures and channels.
    Where something is removed, gates that can move into a weight do; not with `fold` off, where every weight of the
    result is a part of the source's. Raises SpaceError for the space of another model.
    """
    graph = source if isinstance(source, TraceGraph) else TraceGraph.of(source)
    space = analyze(graph, mode="joint") if space is None else space.bind(graph)
    channels = None if space.mode == "erase" else space.channels.at_zero(graph)
    return remove(space, graph, zero_structures(space, graph), channels, fold=fold)


def remove(
    space: SearchSpace,
    graph: TraceGraph,
    structures: Sequence[int],
    channels: NDArray[np.bool_] | None = None,
    *,
    fold: bool = True,
) -> onnx.ModelProto:
    """The model without these structures and channel groups, whatever their weights are.

    It gives what the full model gives with them at zero. `structures` are places in the space's candidates, `channels`
    is a mask of its channel groups. What cannot leave with the others stays: a structure without which the network is
    cut through, and the last channel of a layer. `fold` as in `construct`.
    """
    return cut(space, graph, structures, channels, fold=fold).model


@dataclass(frozen=True, slots=True)
class Cut:
    """A model without some parts, and of each initializer that lost something: which indices of its axes are left."""

    model: onnx.ModelProto
    kept: Kept


def cut(
    space: SearchSpace,
    graph: TraceGraph,
    structures: Sequence[int],
    channels: NDArray[np.bool_] | None = None,
    *,
    fold: bool = True,
) -> Cut:
    """See `remove`; also says what is left of the initializers, which holds with `fold` off."""
    state, removed = _erase(space, structures)
    gone = space.labels_of(() if state is None else state.erased)
    chosen = list(structures)
    if channels is not None and channels.any():
        order = ChannelOrder(space.channels, channels.astype(np.float64), Widths(), gone)
        channels = order.first(len(order)) & channels
        gone |= space.channels.labels(channels)
        chosen += (np.flatnonzero(channels) + len(space.candidates)).tolist()
    if not removed and not gone.any():
        return Cut(graph.model, {})
    logger.info("removing %d structures and %d channel labels", len(removed), int(gone.sum()))
    surgery = _Surgery(graph, state, space.parts.coupling.book, gone, lambda: zeroed(space, graph, chosen))
    model = surgery.perform()
    if fold:
        fold_gates(model)
    _check(model)
    return Cut(model, surgery.kept())


def zero_structures(space: SearchSpace, graph: TraceGraph) -> tuple[int, ...]:
    """The candidates of the space whose group is exactly zero in the weights of this model."""
    away: dict[str, NDArray[np.bool_]] = {}

    def is_away(name: str) -> NDArray[np.bool_]:
        """Which elements of an initializer are not zero; a quantised one has its zero points."""
        if name not in away:
            away[name] = graph.array(name) != zero_of(graph, space.parts.rules, name)
        return away[name]

    return tuple(at for at, s in enumerate(space.candidates) if _is_zero(s.group, is_away))


def _is_zero(group: Group, is_away: Callable[[str], NDArray[np.bool_]]) -> bool:
    for piece in group.slices:
        away = is_away(piece.initializer)
        if (away if piece.axis is None else np.take(away, piece.indices, axis=piece.axis)).any():
            return False
    return bool(group.slices)


def _erase(space: SearchSpace, structures: Sequence[int]) -> tuple[RemovalState | None, list[int]]:
    """The network without these structures, as far as it stays valid, and those that were dropped."""
    if not structures:
        return None, []
    state = space.removal_state()
    removed = state.erase_all(structures)
    for index in structures:
        tensor = space.candidates[index].tensor
        if index not in removed and not state.is_gone(tensor):
            logger.warning("%s stays: without it the network would be cut through", tensor)
    return state, removed


@dataclass(slots=True)
class _Surgery:
    """One operation: from the trace graph, what is removed and which labels leave to a new model.

    `state` is None where no structure is removed; `zeroed` gives the full model with all that is removed at zero.
    """

    graph: TraceGraph
    state: RemovalState | None
    book: LabelBook
    gone: NDArray[np.bool_]
    zeroed: Callable[[], onnx.ModelProto]

    def perform(self) -> onnx.ModelProto:
        """Drop, bypass, fold, slice, resize, clean; the rest of the model stays as it was, to the byte."""
        work = gs.import_onnx(self.graph.outline())
        tensors = work.tensors()
        nodes = {node.name: node for node in work.nodes}
        self._drop_operands(nodes)
        changed = self._fold_constants(tensors)
        changed |= self._slice()
        sizes = SizeSurgery(self.graph, nodes, self.gone)
        changed |= sizes.perform(self.book.sizes)
        self._bypass(work, nodes)
        for added in (sizes.before, sizes.behind):
            work.nodes.extend(node for nodes_of_one in added.values() for node in nodes_of_one)
        work.cleanup()
        return self._assemble(work, changed, sizes)

    def _dropped(self) -> list[tuple[int, int]]:
        return [] if self.state is None else self.state.dropped_operands()

    def _is_gone(self, name: str) -> bool:
        return self.state is not None and self.state.is_gone(name)

    def _drop_operands(self, nodes: dict[str, gs.Node]) -> None:
        dropped: dict[int, set[int]] = {}
        for index, position in self._dropped():
            dropped.setdefault(index, set()).add(position)
        for index, positions in dropped.items():
            node = nodes[self.graph.nodes[index].name]
            node.inputs = [tensor for position, tensor in enumerate(node.inputs) if position not in positions]

    def _bypass(self, work: gs.Graph, nodes: dict[str, gs.Node]) -> None:
        """Lead what read a joint with one operand left to that operand; an output becomes an Identity."""
        outputs = {tensor.name for tensor in work.outputs} | self.graph.captured
        for index in sorted({index for index, _ in self._dropped()}):
            node = nodes[self.graph.nodes[index].name]
            if len(node.inputs) != 1:
                continue
            (operand,), (result,) = node.inputs, node.outputs
            if result.name in outputs:
                node.op, node.attrs = "Identity", {}
                continue
            for reader in list(result.outputs):
                reader.inputs = [operand if tensor is result else tensor for tensor in reader.inputs]
            node.outputs = []

    def _fold_constants(self, tensors: dict[str, gs.Tensor]) -> dict[str, NDArray[np.generic]]:
        """Replace what depended on an input before and no longer does by its value, one example of an open batch."""
        names = [] if self.state is None else self.state.constants_read()
        if not names:
            return {}
        model = self.zeroed()
        feeds = random_inputs(model, length=self.graph.open_length)
        values = run(session(model, outputs=names), feeds, names)
        self._cut_channels(values)
        for name in names:
            tensor = tensors[name]
            tensor.inputs = []
            tensor.to_constant(values[name])
        return values

    def _cut_channels(self, values: dict[str, NDArray[np.generic]]) -> None:
        """Take the channels that leave out of folded values."""
        for name in values:
            labelled = self.book.tensors.get(name)
            if labelled is not None:
                for axis in labelled.long:
                    values[name] = values[name].compress(~leaving(labelled.along(axis), self.gone), axis=axis)

    def kept(self) -> Kept:
        """Which indices are left of the initializers that stay and lose some, by axis."""
        result: dict[str, dict[int, NDArray[np.int64]]] = {}
        for axis in self.book.axes.values():
            lost = self.gone[axis.start : axis.start + axis.length]
            if axis.kind is not Kind.SOURCE and lost.any() and not self._is_gone(axis.owner):
                result.setdefault(axis.owner, {})[axis.axis] = np.flatnonzero(~lost)
        return result

    def _slice(self) -> dict[str, NDArray[np.generic]]:
        changed: dict[str, NDArray[np.generic]] = {}
        for name, axes in self.kept().items():
            values = self.graph.array(name)
            for axis, left in axes.items():
                values = values.take(left, axis=axis)
            changed[name] = np.ascontiguousarray(values)
        return changed

    def _assemble(self, work: gs.Graph, changed: dict[str, NDArray[np.generic]], sizes: SizeSurgery) -> onnx.ModelProto:
        """The source's own protos with what was changed: graph surgeon does not keep metadata and doc strings."""
        model = self.graph.frame()
        graph = model.graph
        kept = {node.name: node for node in work.nodes}
        for original in self.graph.nodes:
            if original.name in kept:
                graph.node.extend(_copied(copy) for copy in sizes.before.get(original.name, ()))
                graph.node.append(_rewired(original, kept[original.name]))
                for scaled in sizes.behind.get(original.name, ()):
                    graph.node[-1].output[0] = scaled.inputs[0].name
                    graph.node.append(_copied(scaled))
        read = {name for node in graph.node for name in read_by(node)} | {value.name for value in graph.output}
        for name in self.graph.initializers:
            if name in read and name not in changed:
                self.graph.copy_initializer(name, graph.initializer.add())
        graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in changed.items() if name in read)
        remove_dead(graph)
        if graph.value_info:
            del graph.value_info[:]
            graph.value_info.extend(onnx.shape_inference.infer_shapes(without_weights(model)).graph.value_info)
        return model


def _copied(copy: gs.Node) -> onnx.NodeProto:
    inputs, outputs = [t.name for t in copy.inputs], [t.name for t in copy.outputs]
    return onnx.helper.make_node(copy.op, inputs, outputs, name=copy.name, **copy.attrs)


def _rewired(original: onnx.NodeProto, kept: gs.Node) -> onnx.NodeProto:
    node = onnx.NodeProto()
    node.CopyFrom(original)
    node.op_type = kept.op
    del node.input[:]
    node.input.extend(tensor.name for tensor in kept.inputs)
    _set_attributes(node, kept.attrs)
    return node


def _set_attributes(node: onnx.NodeProto, attributes: dict[str, object]) -> None:
    """Take over what surgery changed: whole numbers and lists of them, and attributes that came or went."""
    for attribute in [a for a in node.attribute if a.name not in attributes]:
        node.attribute.remove(attribute)
    for attribute in node.attribute:
        value = attributes[attribute.name]
        if attribute.type == onnx.AttributeProto.INT and isinstance(value, int):
            attribute.i = value
        elif attribute.type == onnx.AttributeProto.INTS and list(attribute.ints) != value:
            attribute.ints[:] = value
    known = {attribute.name for attribute in node.attribute}
    node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in attributes.items() if k not in known)


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(with_own_domain(without_weights(model)), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConstructError(f"surgery gave an invalid model: {first}", fix="Please report this model.") from error
