"""The trace graph: operators and the tensors that flow between them, indexed for analysis."""

from __future__ import annotations

import copy
import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import onnx

from onnx_asgnas.graph.checks import frame_of
from onnx_asgnas.graph.gates import gates_of
from onnx_asgnas.graph.model_io import ModelSource, open_model
from onnx_asgnas.graph.nodes import read_by
from onnx_asgnas.graph.normalise import NormalForm, normal_form
from onnx_asgnas.graph.shapes import Shape, ShapeInference, shapes_of
from onnx_asgnas.graph.weights import Weights


@contextmanager
def uncollected() -> Iterator[None]:
    """Let Python's cycle collector rest: many objects are made, none is garbage, and each pass would visit them all."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class TraceGraph:
    """A read-only index over a model in normal form.

    `nodes` are in topological order and a node is named by its index in it. `consumers` lists a node once for each time
    it reads the tensor. `inputs` are what a user feeds, `outputs` what the model gives. `shapes` have None for an open
    dimension and at unknown rank no entry; `sizes` are numbers throughout, with a batch of one.
    """

    def __init__(self, model: onnx.ModelProto, shapes: ShapeInference | None = None) -> None:
        if shapes is None:
            shapes = shapes_of(model)
        initializers = {t.name: t for t in model.graph.initializer}
        nodes = list(model.graph.node)
        reads = [read_by(node) for node in nodes]
        frame = frame_of(model)
        frame.functions.extend(model.functions)
        self._index(NormalForm(frame, nodes, reads, initializers, Weights(), shapes))
        self.__dict__["model"] = model

    def _index(self, form: NormalForm) -> None:
        self._form = form
        self._shapes = form.shapes
        self.nodes: list[onnx.NodeProto] = form.nodes
        self.initializers: dict[str, onnx.TensorProto] = form.initializers
        self.reads: list[list[str]] = form.reads
        self.name: str = form.frame.graph.name
        self.inputs: tuple[str, ...] = tuple(v.name for v in form.frame.graph.input if v.name not in self.initializers)
        self.outputs: tuple[str, ...] = tuple(v.name for v in form.frame.graph.output)
        self.opsets: dict[str, int] = {o.domain or "": o.version for o in form.frame.opset_import}
        self.producer: dict[str, int] = {}
        consumers: defaultdict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.producer[name] = index
            for name in self.reads[index]:
                consumers[name].append(index)
        self.consumers: dict[str, list[int]] = dict(consumers)
        self._known: dict[str, tuple[Shape | None, tuple[int, ...] | None, tuple[int, ...] | None]] = {}

    @classmethod
    def of(cls, source: ModelSource) -> TraceGraph:
        """Load, normalise and index a model; raises ModelError as `load_model` does.

        Weights are not copied: those of external data stay in their files until `array` or `model` asks for them, and
        a ModelProto's must not be changed while the graph is in use.
        """
        graph = cls.__new__(cls)
        with uncollected():
            opened = open_model(source)
            graph._index(normal_form(opened.proto, opened.weights))
        return graph

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The normal form as a whole, with all weights in memory; made when it is first asked for."""
        return self._form.model()

    def outline(self) -> onnx.ModelProto:
        """The normal form as a model of its own, in which large initializers are graph inputs."""
        return self._form.outline()

    def frame(self) -> onnx.ModelProto:
        """A copy of the normal form without nodes and initializers."""
        frame = onnx.ModelProto()
        frame.CopyFrom(self._form.frame)
        return frame

    def copy_initializer(self, name: str, target: onnx.TensorProto) -> None:
        """Write an initializer with its data into another, empty one."""
        self._form.weights.into(target, self.initializers[name], name)

    @cached_property
    def gates(self) -> frozenset[str]:
        """The scalars that gate an operand of a joint, and train."""
        return gates_of(self._form.frame)

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
            found = self._known[name] = (self._shapes.shape(name), *self._shapes.sizes(name))
        return found

    @property
    def open_length(self) -> int:
        """What an open dimension that is not the batch is in `sizes`: 64, or what the network needs instead."""
        return self._shapes.lengths[0]

    def dtype(self, name: str) -> int:
        """The ONNX element type of a tensor; UNDEFINED (0) where unknown."""
        return self._shapes.dtype(name)

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an integer or boolean initializer, or of another small constant; None for anything else."""
        return self._shapes.constant(name)

    def array(self, name: str) -> np.ndarray:
        """The values of an initializer; those of external data are mapped into memory, read-only."""
        return self._form.weights.array(self.initializers[name])

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
