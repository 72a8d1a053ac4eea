"""Construct the compact model: drop what is exactly zero, and mend what that touched (the paper's third stage)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_asgnas.errors import ConstructError
from onnx_asgnas.graph import ModelSource, TraceGraph, remove_dead
from onnx_asgnas.graph.runtime import random_inputs, run, session
from onnx_asgnas.operators import rules_of
from onnx_asgnas.space import Group, RemovalState, SearchSpace, Structure, analyze
from onnx_asgnas.space.coupling import Coupling

logger = logging.getLogger(__name__)


def construct(source: ModelSource | TraceGraph, space: SearchSpace | None = None) -> onnx.ModelProto:
    """The compact model of a trained one, which gives the same output in exact arithmetic.

    What is removed is read from the weights: the groups of the space that are exactly zero. Protected structures stay
    even at zero. With nothing at zero the result is the normal form of the source; on its own result it removes
    nothing. Without a `space` the model is analysed first. Raises SpaceError for the space of another model.
    """
    graph = source if isinstance(source, TraceGraph) else TraceGraph.of(source)
    space = analyze(graph) if space is None else space.bind(graph)
    state, removed = _remove(space, graph)
    if not removed:
        return graph.model
    logger.info("removing %s", ", ".join(s.tensor for s in removed))
    model = _Surgery(graph, state, removed).perform()
    _check(model)
    return model


def zero_structures(space: SearchSpace, graph: TraceGraph) -> tuple[int, ...]:
    """The candidates of the space whose group is exactly zero in the weights of this model."""
    whole: dict[str, bool] = {}
    return tuple(at for at, group in enumerate(space.groups) if _is_zero(group, graph, whole))


def _is_zero(group: Group, graph: TraceGraph, whole: dict[str, bool]) -> bool:
    for piece in group.slices:
        name = piece.initializer
        if piece.axis is None:
            if name not in whole:
                whole[name] = not graph.array(name).any()
            if not whole[name]:
                return False
        elif np.take(graph.array(name), piece.indices, axis=piece.axis).any():
            return False
    return bool(group.slices)


def _remove(space: SearchSpace, graph: TraceGraph) -> tuple[RemovalState, list[Structure]]:
    """Erase what is at zero: all of it if that is valid, else the largest structures first, as far as that goes."""
    candidates = space.candidates
    order = sorted(zero_structures(space, graph), key=lambda i: (-len(candidates[i].region), i))
    state = space.removal_state()
    removed = []
    for index in order:
        if not state.is_gone(candidates[index].tensor):
            state.erase(index)
            removed.append(index)
    if not state.valid:
        for _ in removed:
            state.undo()
        removed = [i for i in order if not state.is_gone(candidates[i].tensor) and state.take(i)]
        for index in order:
            if not state.is_gone(candidates[index].tensor):
                tensor = candidates[index].tensor
                logger.warning("%s is at zero, but stays: without it the network would be cut through", tensor)
    return state, [candidates[index] for index in removed]


@dataclass(slots=True)
class _Surgery:
    """One operation: from the trace graph and what is removed to a new model."""

    graph: TraceGraph
    state: RemovalState
    removed: Sequence[Structure]

    def perform(self) -> onnx.ModelProto:
        """Drop, bypass, fold, slice, resize, clean; the rest of the model stays as it was, to the byte."""
        work = gs.import_onnx(self.graph.model)
        tensors = work.tensors()
        nodes = {node.name: node for node in work.nodes}
        self._drop_operands(nodes)
        changed = self._fold_constants(tensors)
        changed |= self._slice(tensors)
        changed |= self._shrink(nodes)
        self._bypass(work, nodes)
        work.cleanup()
        return self._assemble(work, changed)

    def _drop_operands(self, nodes: dict[str, gs.Node]) -> None:
        dropped: dict[int, set[int]] = {}
        for index, position in self.state.dropped_operands():
            dropped.setdefault(index, set()).add(position)
        for index, positions in dropped.items():
            node = nodes[self.graph.nodes[index].name]
            node.inputs = [tensor for position, tensor in enumerate(node.inputs) if position not in positions]

    def _bypass(self, work: gs.Graph, nodes: dict[str, gs.Node]) -> None:
        """Lead what read a joint with one operand left to that operand; an output becomes an Identity."""
        outputs = {tensor.name for tensor in work.outputs} | self.graph.captured
        for index in sorted({index for index, _ in self.state.dropped_operands()}):
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
        names = self.state.constants_read()
        if not names:
            return {}
        feeds = random_inputs(self.graph.model)
        values = run(session(self.graph.model, outputs=names), feeds, names)
        self._cut_channels(values)
        for name in names:
            tensor = tensors[name]
            tensor.inputs = []
            tensor.to_constant(values[name])
        return values

    def _cut_channels(self, values: dict[str, NDArray[np.generic]]) -> None:
        """Take the channels that leave out of folded values."""
        pieces = [p for s in self.removed for p in s.zeroed + s.cut if p.axis is not None]
        if not pieces:
            return
        coupling = Coupling(self.graph, rules_of(self.graph))
        gone = coupling.closure(
            np.concatenate([coupling.labels_at(p.initializer, p.axis or 0, p.indices) for p in pieces])
        )
        for name in values:
            labelled = coupling.book.tensors.get(name)
            for axis, count in enumerate(labelled.ids.shape if labelled is not None else ()):
                if labelled is not None and count > 1:
                    leaving = np.isin(labelled.ids.reshape(-1), gone)
                    values[name] = np.delete(values[name], np.flatnonzero(leaving), axis=axis)

    def _slice(self, tensors: dict[str, gs.Tensor]) -> dict[str, NDArray[np.generic]]:
        cuts: dict[str, dict[int, set[int]]] = {}
        for structure in self.removed:
            for piece in structure.zeroed + structure.cut:
                if piece.axis is not None and not self.state.is_gone(piece.initializer):
                    cuts.setdefault(piece.initializer, {}).setdefault(piece.axis, set()).update(piece.indices)
        changed = {}
        for name, axes in cuts.items():
            values = self.graph.array(name)
            for axis, indices in axes.items():
                values = np.delete(values, sorted(indices), axis=axis)
            changed[name] = tensors[name].values = np.ascontiguousarray(values)
        return changed

    def _shrink(self, nodes: dict[str, gs.Node]) -> dict[str, NDArray[np.generic]]:
        """Lengths that follow a cut. A constant may have other readers, so the shorter one is a new one."""
        changed: dict[str, NDArray[np.generic]] = {}
        for structure in self.removed:
            for shrink in structure.shrinks:
                node = nodes[shrink.node]
                if shrink.attribute:
                    node.attrs[shrink.attribute] -= shrink.by
                    continue
                name = f"{shrink.node}.input{shrink.input}"
                values = np.array(changed.get(name, self._original(shrink.node, shrink.input)))
                values[shrink.position] -= shrink.by
                changed[name] = values
                node.inputs[shrink.input] = gs.Constant(name, values)
        return changed

    def _original(self, node: str, position: int) -> NDArray[np.generic]:
        proto = next(n for n in self.graph.nodes if n.name == node)
        return self.graph.array(proto.input[position])

    def _assemble(self, work: gs.Graph, changed: dict[str, NDArray[np.generic]]) -> onnx.ModelProto:
        """The source's own protos with what was changed: graph surgeon does not keep metadata and doc strings."""
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        originals = {node.name: node for node in self.graph.nodes}
        kept = {node.name: node for node in work.nodes}
        del model.graph.node[:]
        for name, original in originals.items():
            if name not in kept:
                continue
            node = model.graph.node.add()
            node.CopyFrom(original)
            node.op_type = kept[name].op
            del node.input[:]
            node.input.extend(tensor.name for tensor in kept[name].inputs)
            _set_attributes(node, kept[name].attrs)
        for name, values in changed.items():
            for tensor in [t for t in model.graph.initializer if t.name == name]:
                model.graph.initializer.remove(tensor)
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        remove_dead(model.graph)
        had_value_info = len(model.graph.value_info) > 0
        del model.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(model) if had_value_info else model


def _set_attributes(node: onnx.NodeProto, attributes: dict[str, object]) -> None:
    """Take over what surgery changed: whole numbers, and attributes that went."""
    gone = [a for a in node.attribute if a.name not in attributes]
    for attribute in gone:
        node.attribute.remove(attribute)
    for attribute in node.attribute:
        value = attributes[attribute.name]
        if attribute.type == onnx.AttributeProto.INT and isinstance(value, int):
            attribute.i = value


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConstructError(f"surgery gave an invalid model: {first}", fix="Please report this model.") from error
