"""A graph in the making: nodes taken over, rewritten or replaced by definitions, until an engine takes all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.graph.nodes import is_standard, read_by, subgraphs
from onnx_asgnas.graph.shapes import ShapeInference
from onnx_asgnas.training.lowering.bodies import Body, body_of, is_known
from onnx_asgnas.training.lowering.dialect import Dialect
from onnx_asgnas.training.lowering.lifting import lifted
from onnx_asgnas.training.lowering.path import differentiable_ends
from onnx_asgnas.training.lowering.registry import MICROSOFT, PRIVATE, REWRITES, Rewrite
from onnx_asgnas.training.lowering.site import Site, Value

_MAY_CARRY = frozenset(
    {TensorProto.UNDEFINED, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)
"""Types of tensors that a gradient may flow through; of unknown type it may."""
_EVERYWHERE = frozenset({"CastLike", "Constant"})
"""Operators that are rewritten off the path too: the runtime looks for a gradient of CastLike in its second input."""
_DEEPEST = 40
"""How deep replacements may nest before one is taken to go in circles."""


class Rewriting:
    """Nodes in topological order, constants, and the shapes of all tensors, for one operator set.

    `reached` are the tensors that depend differentiably on what gradients are asked for. `origin` is the node of the
    source that is being replaced; `stuck` the nodes of the result that no engine can take, by name, with their origin.
    """

    def __init__(self, model: onnx.ModelProto, shapes: ShapeInference, dialect: Dialect, wrt: Iterable[str]) -> None:
        self.shapes = shapes
        self.opset = shapes.version
        self.reached = set(wrt)
        self.origin: onnx.NodeProto | None = None
        self.stuck: dict[str, onnx.NodeProto] = {}
        self._dialect = dialect
        self._frame = model
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._by_value: dict[object, str] = {}
        self._given = {tensor.name: tensor for tensor in model.graph.initializer}
        self._renamed: dict[str, str] = {}
        self._depth = 0
        self._version = self.opset
        self._inner: set[str] = set()
        """Tensors that the innermost replacements made, and that may be called otherwise."""
        self._taken = {name for node in model.graph.node for name in (*node.input, *node.output, node.name)}
        self._taken |= {value.name for value in (*model.graph.input, *model.graph.output)} | self._given.keys()

    def add(self, node: onnx.NodeProto, version: int, *, differentiated: bool) -> None:
        """Take a node of the source over, which is written in operator set `version`."""
        self.origin, self._version = node, version
        for part in lifted(node, version, self.opset, self._rank, self.name):
            if differentiated or part.op_type in _EVERYWHERE or not is_known(part, self.opset):
                self.place(part)
            else:
                self.keep(part)
        self.origin = None

    def add_as(self, node: onnx.NodeProto, version: int, rule: Rewrite) -> None:
        """Take a node of the source over by this rewrite, whether a gradient flows through it or not."""
        self.origin, self._version = node, version
        for part in lifted(node, version, self.opset, self._rank, self.name):
            self.rewrite(part, rule)
        self.origin = None

    @property
    def has_training_kernels(self) -> bool:
        """Does the engine have the runtime's recurrent layers for training."""
        return self._dialect.native(helper.make_node("LSTMTraining", [], [], domain=MICROSOFT))

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, None for what is given from outside."""
        inner = {outer: made for made, outer in self._renamed.items()}
        while name in inner:
            name = inner[name]
        return next((node for node in reversed(self._nodes) if name in node.output), None)

    def is_float(self, name: str) -> bool:
        """May the type of a tensor hold a gradient."""
        return self.shapes.dtype(name) in _MAY_CARRY

    def is_native(self, node: onnx.NodeProto) -> bool:
        """Does the engine differentiate this node as it stands."""
        return self._dialect.native(node)

    def place(self, node: onnx.NodeProto) -> None:
        """Add a node in a form that can be differentiated, where a gradient flows through it."""
        if node.op_type == "Constant" and is_standard(node):
            self._take_constant(node)
            return
        sources, _ = differentiable_ends(node, self.opset)
        left_alone = self.reached.isdisjoint(sources) and node.op_type not in _EVERYWHERE
        if is_known(node, self.opset) and (left_alone or self._dialect.native(node)):
            self.keep(node)
            return
        rule = REWRITES.get(("" if is_standard(node) else node.domain, node.op_type))
        if rule is not None:
            self.rewrite(node, rule)
            return
        body = body_of(node, self.shapes, self.opset, self._version)
        if body is None:
            if not is_known(node, self.opset):
                raise self._too_new(node)
            self.stuck[node.name] = self.origin or node
            self.keep(node)
        else:
            self._expand(node, body)

    def keep(self, node: onnx.NodeProto) -> None:
        """Add a node as it stands."""
        self._infer(node)
        sources, targets = differentiable_ends(node, self.opset)
        if not self.reached.isdisjoint(sources):
            # whole numbers that stand for others carry a gradient too, and so does what is made of them
            coded = node.op_type == "QuantizeLinear" or any(
                name in self.reached and self.shapes.dtype(name) not in _MAY_CARRY for name in sources
            )
            self.reached.update(n for n in targets if coded or self.shapes.dtype(n) in _MAY_CARRY)
        self._nodes.append(node)
        if self._depth:
            self._inner.update(name for name in node.output if name)

    def rewrite(self, node: onnx.NodeProto, rule: Rewrite) -> None:
        """Write a node in other operators."""
        self._infer(node)
        self._descend(node)
        made = rule(Site(self, node))
        values: Sequence[Value | None] = [made] if isinstance(made, Value) else made
        for name, value in zip(node.output, values, strict=False):
            if name and value is not None:
                self._name(value.name, name)
        self._depth -= 1

    def constant(self, value: NDArray[Any]) -> str:
        """The name of a constant tensor; equal ones are one."""
        key = (value.dtype.str, value.shape, value.tobytes()) if value.size <= 64 else object()
        if key not in self._by_value:
            self._by_value[key] = self._add_constant(self.name("constant"), value)
        return self._by_value[key]

    def constant_of(self, name: str) -> NDArray[Any] | None:
        """The value of a tensor that is a constant, None for any other."""
        if name in self._constants:
            return self._constants[name]
        if name in self._given:
            return numpy_helper.to_array(self._given[name])
        return self.shapes.constant(name)

    def detached(self, value: Value) -> Value:
        """The same value, through which no gradient flows."""
        if value.name not in self.reached:
            return value
        name = self.name(f"{value.name}/Detach")
        self.shapes.step(helper.make_node("Identity", [value.name], [name]))
        self._inner.add(name)
        self._nodes.append(helper.make_node("Detach", [value.name], [name], name=name, domain=PRIVATE))
        return Value(value.site, name)

    def name(self, stem: str) -> str:
        """A name that nothing in the graph has."""
        name, count = stem, 1
        while name in self._taken:
            name, count = f"{stem}_{count}", count + 1
        self._taken.add(name)
        return name

    def finish(self) -> onnx.ModelProto:
        """The graph as a model: inputs and outputs are those of the source."""
        result = onnx.ModelProto()
        result.CopyFrom(self._frame)
        del result.graph.node[:], result.graph.value_info[:]
        for entry in result.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = self.opset
        for node in self._nodes:
            node.input[:] = [self._final(name) for name in node.input]
            node.output[:] = [self._final(name) for name in node.output]
        nodes, read = _needed(self._nodes, [value.name for value in result.graph.output])
        result.graph.node.extend(nodes)
        kept = [tensor for tensor in result.graph.initializer if tensor.name in read]
        del result.graph.initializer[:]
        result.graph.initializer.extend(kept)
        made = {name: value for name, value in self._constants.items() if name in read}
        result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in made.items())
        present = {entry.domain for entry in result.opset_import}
        others = {node.domain for node in result.graph.node if not is_standard(node)} - present
        result.opset_import.extend(helper.make_opsetid(domain, 1) for domain in sorted(others))
        return result

    def inline_graph(self, site: Site, graph: onnx.GraphProto, inputs: Sequence[Value]) -> list[Value]:
        """Place the nodes of a branch or a body where the node stands that has it, and give what it gives."""
        known = {tensor.name: self.constant(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
        known |= {formal.name: value.name for formal, value in zip(graph.input, inputs, strict=True)}
        known = self.inline(graph.node, known, self._version, site.node.name)
        return [Value(site, known.get(value.name, value.name)) for value in graph.output]

    def inline(
        self, nodes: Iterable[onnx.NodeProto], names: Mapping[str, str], version: int, stem: str
    ) -> dict[str, str]:
        """Place copies of nodes written in operator set `version`; gives the new names of what they make."""
        known = dict(names)
        outer, self._version = self._version, version
        for node in nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = self.name(f"{stem}/{node.name or node.op_type}")
            copy.input[:] = [known.get(name, name) for name in node.input]
            for graph in subgraphs(copy):
                _rename_captured(graph, known)
            known.update({name: self.name(f"{stem}/{name}") for name in node.output if name and name not in known})
            copy.output[:] = [known.get(name, "") for name in node.output]
            for part in lifted(copy, version, self.opset, self._rank, self.name):
                self.place(part)
        self._version = outer
        return known

    def _expand(self, node: onnx.NodeProto, body: Body) -> None:
        """Put the definition of an operator in its place."""
        self._infer(node)
        self._descend(node)
        inner = {formal: self.name(f"{node.name}/{formal}") for formal in body.outputs[: len(node.output)]}
        self.inline(body.nodes, {**dict(zip(body.inputs, body.given, strict=True)), **inner}, body.version, node.name)
        for formal, name in zip(body.outputs, node.output, strict=False):
            if name:
                self._name(inner[formal], name)
        self._depth -= 1

    def _name(self, made: str, wanted: str) -> None:
        """Let what was made be the tensor that the graph knows under its own name."""
        if self._depth > 1:
            self._inner.add(wanted)
        alias = helper.make_node("Identity", [made], [wanted], name=self.name(f"{wanted}/Identity"))
        if made not in self._inner:
            self.keep(alias)
            return
        self._infer(alias)
        self._inner.discard(made)
        self._renamed[made] = wanted
        if made in self.reached:
            self.reached.add(wanted)

    def _final(self, name: str) -> str:
        while name in self._renamed:
            name = self._renamed[name]
        return name

    def _infer(self, node: onnx.NodeProto) -> None:
        """Make the shapes of what a node gives known, where they are not."""
        unknown = any(name and self.shapes.shape(name) is None for name in node.output)
        if unknown and is_known(node, self.opset):
            self.shapes.step(node)

    def _descend(self, node: onnx.NodeProto) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Site(self, node).refusal("its replacements lead back to themselves")

    def _rank(self, name: str) -> int | None:
        shape = self.shapes.shape(name)
        return None if shape is None else len(shape)

    def _take_constant(self, node: onnx.NodeProto) -> None:
        """A Constant of a definition becomes an initializer of its name."""
        values: Any = ReferenceEvaluator(node).run(None, {})
        self._add_constant(node.output[0], np.asarray(values[0]))

    def _add_constant(self, name: str, value: NDArray[Any]) -> str:
        self._constants[name] = value
        self.shapes.add_constant(name, value)
        return name

    def _too_new(self, node: onnx.NodeProto) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(
            f"{node.op_type} {node.name!r} has no form in opset {self.opset}, the newest that the runtime loads",
            fix=f"Export the model with opset {self.opset} or older.",
            op_type=node.op_type,
            node=(self.origin or node).name,
        )


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that the outputs need, whole (some must have outputs that nobody reads), and all that is read."""
    read, kept = set(outputs), []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(read_by(node))
    return kept[::-1], read


def _rename_captured(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Let a subgraph read what stands outside under these new names, in place."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own.update(name for node in graph.node for name in node.output)
    outer = {name: new for name, new in names.items() if name not in own}
    for node in graph.node:
        node.input[:] = [outer.get(name, name) for name in node.input]
        for inner in subgraphs(node):
            _rename_captured(inner, outer)
    for value in graph.output:
        value.name = outer.get(value.name, value.name)
