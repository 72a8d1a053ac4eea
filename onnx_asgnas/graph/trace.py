"""The trace graph: operators and the tensors that flow between them, indexed for analysis."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import onnx

from onnx_asgnas.graph.model_io import ModelSource, load_model
from onnx_asgnas.graph.normalise import normalise_with_shapes, read_by
from onnx_asgnas.graph.shapes import Shape, ShapeInference


class TraceGraph:
    """A read-only index over a model in normal form.

    `nodes` are in topological order and a node is named by its index in it. `consumers` lists a node once for each time
    it reads the tensor. `inputs` are what a user feeds, `outputs` what the model gives. `shapes` have None for an open
    dimension and at unknown rank no entry; `sizes` are numbers throughout, with a batch of one.
    """

    def __init__(self, model: onnx.ModelProto, shapes: ShapeInference | None = None) -> None:
        if shapes is None:
            shapes = ShapeInference(model)
            for node in model.graph.node:
                shapes.step(node)
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.reads: list[list[str]] = [read_by(node) for node in self.nodes]
        self.initializers: dict[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        self.inputs: tuple[str, ...] = tuple(v.name for v in model.graph.input if v.name not in self.initializers)
        self.outputs: tuple[str, ...] = tuple(v.name for v in model.graph.output)
        self.opsets: dict[str, int] = {o.domain or "": o.version for o in model.opset_import}
        self.producer: dict[str, int] = {}
        consumers: defaultdict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.producer[name] = index
            for name in self.reads[index]:
                consumers[name].append(index)
        self.consumers: dict[str, list[int]] = dict(consumers)
        self._shapes = shapes
        self._known: dict[str, tuple[Shape | None, tuple[int, ...] | None, tuple[int, ...] | None]] = {}

    @classmethod
    def of(cls, source: ModelSource) -> TraceGraph:
        """Load, normalise and index a model; raises ModelError as `load_model` does."""
        return cls(*normalise_with_shapes(load_model(source)))

    @cached_property
    def activations(self) -> frozenset[str]:
        """The tensors that a path leads to from a graph input."""
        found = set(self.inputs)
        for node, reads in zip(self.nodes, self.reads, strict=True):
            if not found.isdisjoint(reads):
                found.update(name for name in node.output if name)
        return frozenset(found)

    def with_constants(self, names: Iterable[str]) -> TraceGraph:
        """The same graph, seen as it is when these activations depend on no input any more."""
        view = copy.copy(self)
        view.__dict__["activations"] = self.activations.difference(names)
        return view

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor, None for an open dimension; None where the rank is unknown."""
        return self._shapes_of(name)[0]

    def size(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor with every open dimension bound, the batch to one."""
        return self._shapes_of(name)[1]

    def sizes(self, name: str) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """The shapes of a tensor at the two bindings of the open dimensions."""
        return self._shapes_of(name)[1:]

    def _shapes_of(self, name: str) -> tuple[Shape | None, tuple[int, ...] | None, tuple[int, ...] | None]:
        found = self._known.get(name)
        if found is None:
            first, second = self._shapes.bindings
            found = self._known[name] = self._shapes.shape(name), first.shape(name), second.shape(name)
        return found

    def dtype(self, name: str) -> int:
        """The ONNX element type of a tensor; UNDEFINED (0) where unknown."""
        kind = self._shapes.bindings[0].types.get(name)
        return kind.tensor_type.elem_type if kind is not None else 0

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an integer or boolean initializer, or of another small constant; None for anything else."""
        return self._shapes.constant(name)

    def array(self, name: str) -> np.ndarray:
        """The values of an initializer."""
        return onnx.numpy_helper.to_array(self.initializers[name])

    def is_output(self, name: str) -> bool:
        """Does the model give this tensor."""
        return name in self._output_set

    @cached_property
    def _output_set(self) -> frozenset[str]:
        return frozenset(self.outputs)

    @cached_property
    def captured(self) -> frozenset[str]:
        """The tensors that a subgraph (of If, Loop, Scan) reads from outside."""
        return frozenset(
            name
            for node, reads in zip(self.nodes, self.reads, strict=True)
            if len(reads) > sum(bool(name) for name in node.input)
            for name in reads
            if name not in node.input
        )
