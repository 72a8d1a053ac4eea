"""Shapes of every tensor, and the values of shape arithmetic, at several bindings of the open dimensions.

What comes out equal at all bindings does not depend on an open dimension: a shape entry is then a number, a value of
shape arithmetic is then a constant. A network may refuse the odd sizes of the third binding; where it does, the first
two decide.

Blocks repeat, so what a node gives is remembered by its operator, attributes and facts of its inputs. The usual
operators have rules here (`shape_rules`, `arithmetic`); onnx's inference and reference evaluator do the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.graph import arithmetic, contrib_shapes, shape_rules
from onnx_asgnas.graph.bindings import LONGER, SHORTER, USUAL, OpenDimensions
from onnx_asgnas.graph.facts import ABSENT, SMALL, UNKNOWN, Array, Fact, FactTable, elements
from onnx_asgnas.graph.nodes import has_subgraph, is_standard, read_by

__all__ = ["Shape", "ShapeInference", "at_lengths_that_fit", "elements", "shapes_of"]

logger = logging.getLogger(__name__)

Shape = tuple["int | None", ...]
Facts = tuple[Fact, ...]
"""Of one tensor at each binding, or of several tensors at one."""

_Made = TypeVar("_Made")

_SCALES = 8
"""Float initializers up to this size (the scales of a Resize) are shown to shape inference, but never evaluated."""
_READS_SCALES = frozenset({"Resize", "Upsample", "Range", "AffineGrid"})
_MEET = frozenset({"Add", "Div", "Mul", "Sub", "Where"})
"""Operators whose operands are of lengths that fit together, once open lengths are right."""
_NEVER_EVALUATED = frozenset(
    {
        "Bernoulli",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Multinomial",
        "QuantizeLinear",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_SHAPE_DATA = frozenset(
    {
        onnx.TensorProto.INT64,
        onnx.TensorProto.INT32,
        onnx.TensorProto.BOOL,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT8,
    }
)


class ShapeInference:
    """Node-by-node inference in topological order, at all bindings at once.

    Weights stay out of it: float initializers are known by type only, so a parameter is never mistaken for a constant.
    The exception are `constants`, which the source wrote as such: scales of a Resize, or the bias that is not there.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        constants: Collection[str] = (),
        initializers: Mapping[str, onnx.TensorProto] | None = None,
        read: Callable[[onnx.TensorProto], Array] = numpy_helper.to_array,
        lengths: tuple[int, int] = USUAL,
    ) -> None:
        if initializers is None:
            initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._opsets: dict[str, int] = {o.domain or "": o.version for o in model.opset_import}
        self._opsets[""] = self._opsets.pop("ai.onnx", self._opsets.get("", 1))
        self._imports = list(model.opset_import)
        self._ir_version = model.ir_version
        self._table = FactTable()
        self._facts: dict[str, Facts] = {}
        self._by_node: dict[object, tuple[Facts, ...]] = {}
        self._by_binding: dict[object, Facts] = {}
        self._scales: dict[str, onnx.TensorProto] = {}
        self._small: dict[tuple[int, tuple[int, ...], bytes], Fact] = {}
        self._read = read
        inputs = [value for value in model.graph.input if value.name not in initializers]
        self.lengths = lengths
        """What open lengths are at the first two bindings."""
        self._misfit = False
        self._open = OpenDimensions(inputs, lengths)
        self._unknown, self._absent = self._everywhere(UNKNOWN), self._everywhere(ABSENT)
        self._stated = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
        for name, tensor in initializers.items():
            self.add_initializer(tensor, name)
            if name in constants and elements(tuple(tensor.dims)) <= SMALL:
                self.add_constant(name, read(tensor))
        for tensor in model.graph.sparse_initializer:
            self._facts[tensor.values.name] = self._everywhere(
                self._table.of(tensor.values.data_type, tuple(tensor.dims))
            )
        for value in inputs:
            self._facts[value.name] = self._of_input(value)
        self._table.has_empty = False  # what the model itself says is empty is so at every length

    def add_initializer(self, tensor: onnx.TensorProto, name: str = "") -> None:
        """Make an initializer known: its type, and its value where it is small and no float."""
        name, dims = name or tensor.name, tuple(tensor.dims)
        count = elements(dims)
        kind = tensor.data_type
        if kind in _SHAPE_DATA and count <= SMALL:
            key = (kind, dims, tensor.raw_data)  # exporters write the same few constants again and again
            known = self._small.get(key) if key[2] else None
            fact = known or self._table.of_value(self._read(tensor))
            self._small[key] = fact
        else:
            fact = self._table.of(kind, dims)
        if kind == onnx.TensorProto.FLOAT and count <= _SCALES:
            self._scales[name] = tensor
        self._facts[name] = self._everywhere(fact)

    def add_constant(self, name: str, value: NDArray[np.generic]) -> None:
        """Make a tensor known by value at all bindings."""
        self._facts[name] = self._everywhere(self._table.of_value(value))

    @property
    def other_lengths(self) -> tuple[tuple[int, int], ...]:
        """What the open lengths should rather be: longer where a tensor is empty, shorter where operands do not fit."""
        if self._open.bindings == 1 or not (self._table.has_empty or self._misfit):
            return ()
        return LONGER if self._table.has_empty else SHORTER

    @property
    def version(self) -> int:
        """The operator set of the standard that the model is written in."""
        return self._opsets[""]

    def knows(self, name: str) -> bool:
        """Has this tensor been seen."""
        return name in self._facts

    def step(self, node: onnx.NodeProto) -> bool:
        """Infer the outputs of one node whose inputs have been seen; gives whether one may be known by value."""
        inputs = tuple([self._facts.get(name, self._unknown) if name else self._absent for name in node.input])
        if node.op_type in _READS_SCALES:
            inputs = tuple(map(self._with_scales, node.input, inputs))
        names = list(node.output)
        if has_subgraph(node):
            outputs = self._infer_with_subgraphs(node)
        else:
            signature = (node.op_type, node.domain, len(names), *[a.SerializeToString() for a in node.attribute])
            key = (signature, inputs)
            found = self._by_node.get(key)
            if found is None:
                given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
                at_each = [self._at_binding(node, signature, facts, given) for facts in zip(*inputs, strict=True)]
                if not inputs:
                    at_each = [self._at_binding(node, signature, (), given)] * self._open.bindings
                found = self._by_node[key] = tuple(zip(*at_each, strict=True))
                if node.op_type in _MEET and self._do_not_meet(at_each[:2], inputs):
                    self._misfit = True
            outputs = found
        valued = False
        for name, facts in zip(names, outputs, strict=True):
            if name:
                first = facts[0]
                self._facts[name] = facts if first.kind and first.dims is not None else self._stated_of(name, facts)
                valued = valued or first.value is not None
        return valued

    def _do_not_meet(self, outputs: Sequence[Facts], inputs: tuple[Facts, ...]) -> bool:
        """Are all operands known at one of the first two bindings, and what they give together is not."""
        return any(
            not found[0].kind and all(operand[at].complete for operand in inputs) for at, found in enumerate(outputs)
        )

    def release(self) -> None:
        """Forget what only further steps would need."""
        self._by_node.clear()
        self._by_binding.clear()
        self._small.clear()

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """The value of a tensor where it is known and the same at all bindings."""
        facts = self._facts.get(name)
        if facts is None or facts[0].value is None:
            return None
        same = all(fact is facts[0] for fact in facts[:2]) and (facts[-1] is facts[0] or facts[-1].value is None)
        return facts[0].value if same else None

    def value(self, name: str) -> NDArray[np.generic] | None:
        """The value of a tensor at the first binding."""
        facts = self._facts.get(name)
        return None if facts is None else facts[0].value

    def varying(self, name: str) -> NDArray[np.bool_] | None:
        """Which entries of a known tensor depend on an open dimension; None where it is unknown, or its shape does."""
        values = [fact.value for fact in self._facts.get(name, self._unknown)]
        first, second = values[0], values[min(1, len(values) - 1)]
        if first is None or second is None or first.shape != second.shape:
            return None
        probe = first if values[-1] is None else values[-1]
        return (first != second) | (first != probe) if probe.shape == first.shape else None

    def copies(self, name: str, position: int, tensor: str, axis: int) -> bool:
        """Is this entry of a known tensor the length of that axis, whatever the open dimensions are."""
        known = zip(self._facts.get(name, self._unknown), self._facts.get(tensor, self._unknown), strict=True)
        for at, (fact, other) in enumerate(known):
            shape = other.shape
            if fact.value is None or shape is None:
                if at < 2:
                    return False
            elif axis >= len(shape) or fact.value[position] != shape[axis]:
                return False
        return True

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor, None for a dimension that differs between the bindings; None at unknown rank."""
        facts = self._facts.get(name)
        if facts is None:
            return None
        if len(facts) == 1 or facts[0] is facts[1] is facts[2]:
            return facts[0].shape
        shapes = [fact.shape for fact in facts]
        first, second, third = shapes
        if first is None or second is None or len(first) != len(second):
            return None
        if third is None or len(third) != len(first):
            third = first
        return tuple([a if a == b == c else None for a, b, c in zip(first, second, third, strict=True)])

    def sizes(self, name: str) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """The shapes of a tensor at the first two bindings."""
        facts = self._facts.get(name, self._unknown)
        return facts[0].shape, facts[min(1, len(facts) - 1)].shape

    def dtype(self, name: str) -> int:
        """The ONNX element type of a tensor, UNDEFINED (0) where unknown."""
        return self._facts.get(name, self._unknown)[0].kind

    def _everywhere(self, fact: Fact) -> Facts:
        return (fact,) * self._open.bindings

    def _of_input(self, value: onnx.ValueInfoProto) -> Facts:
        if not value.type.HasField("tensor_type"):
            return self._everywhere(self._table.of_type(value.type))
        kind = value.type.tensor_type.elem_type
        return tuple(self._table.of(kind, self._open.dims(value, at)) for at in range(self._open.bindings))

    def _stated_of(self, name: str, facts: Facts) -> Facts:
        """What the model itself says of a tensor that inference does not know."""
        if facts[0].other is None and name in self._stated:
            return self._of_input(self._stated[name])
        return facts

    def _with_scales(self, name: str, facts: Facts) -> Facts:
        if name not in self._scales:
            return facts
        return self._everywhere(self._table.of_value(self._read(self._scales[name]), hint=True))

    def _at_binding(self, node: onnx.NodeProto, signature: object, facts: Facts, attributes: dict[str, Any]) -> Facts:
        key = (signature, facts)
        found = self._by_binding.get(key)
        if found is None:
            found = self._by_binding[key] = self._compute(node, facts, attributes)
        return found

    def _compute(self, node: onnx.NodeProto, facts: Facts, attributes: dict[str, Any]) -> Facts:
        """The facts of the outputs: by our rules where they hold, else by onnx's; with values where they are small."""
        version = self._opsets.get("" if is_standard(node) else node.domain, 1)
        call = shape_rules.Call(node.op_type, version, facts, attributes, len(node.output))
        outputs = self._by_rule(node, call)
        if outputs is None:
            outputs = self._by_onnx(node, facts)
        if not is_standard(node):
            return outputs
        if node.op_type in ("Shape", "Size") and facts[0].shape is not None:
            return (self._table.of_value(arithmetic.lengths(call)),)
        return self._with_values(node, call, outputs)

    def _by_rule(self, node: onnx.NodeProto, call: shape_rules.Call) -> Facts | None:
        key = ("" if is_standard(node) else node.domain, node.op_type)
        rule = contrib_shapes.RULES.get(key) or shape_rules.RULES.get(key)
        if rule is None or (is_standard(node) and call.version < shape_rules.OLDEST):
            return None
        if not call.inputs or not all(fact.complete or fact is ABSENT for fact in call.inputs):
            return None
        found = rule(call)
        if found is None or len(found) != call.outputs:
            return None
        return tuple([self._table.of(kind, dims) for kind, dims in found])

    def _by_onnx(self, node: onnx.NodeProto, facts: Facts) -> Facts:
        domain = "" if is_standard(node) else node.domain
        known = {name: fact for name, fact in zip(node.input, facts, strict=True) if name}
        types = {name: kind for name, fact in known.items() if (kind := fact.type_proto()) is not None}
        values = {name: value for name, fact in known.items() if (value := fact.tensor_proto(name)) is not None}
        try:
            inferred = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain),
                node,
                types,
                values,
                opset_imports=self._imports,
                ir_version=self._ir_version,
            )
        except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, RuntimeError, KeyError):
            inferred = {}  # not in the standard, or fed by something unknown: the outputs stay unknown
        return tuple(self._table.of_type(inferred[name]) if name in inferred else UNKNOWN for name in node.output)

    def _with_values(self, node: onnx.NodeProto, call: shape_rules.Call, outputs: Facts) -> Facts:
        """The outputs with their values where all inputs have one, and all outputs are small or of unknown size."""
        if node.op_type in _NEVER_EVALUATED or not call.inputs:
            return outputs
        values = [fact.value for fact in call.inputs if fact is not ABSENT]
        given = [value for value in values if value is not None]
        if node.op_type == "CastLike":
            given = given[:1] if call.inputs[0].value is not None else []
        elif len(given) < len(values):
            return outputs
        if not given or any(elements(fact.shape or (0,)) > SMALL for fact in outputs):
            return outputs
        if len(given) == len(call.inputs) or node.op_type == "CastLike":
            computed = self._by_arithmetic(call, given, outputs)
            if computed is not None:
                return (self._table.of_value(computed),)
        return self._by_reference(node, call, outputs)

    def _by_arithmetic(self, call: shape_rules.Call, values: list[Array], outputs: Facts) -> Array | None:
        if len(outputs) != 1 or not outputs[0].complete or call.version < shape_rules.OLDEST:
            return None
        with np.errstate(all="ignore"):
            return arithmetic.evaluate(call, values, outputs[0].kind, outputs[0].shape or ())

    def _by_reference(self, node: onnx.NodeProto, call: shape_rules.Call, outputs: Facts) -> Facts:
        feeds = {name: fact.value for name, fact in zip(node.input, call.inputs, strict=True) if name}
        try:
            with np.errstate(all="ignore"):
                results = list(ReferenceEvaluator(node, opsets=self._opsets).run(None, feeds))
        except Exception as error:  # whatever the reference raises for what it does not have: no value is known
            logger.debug("%s '%s' is not evaluated: %s", node.op_type, node.name, error)
            return outputs
        computed = [
            self._table.of_value(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else fact
            for value, fact in zip(results, outputs, strict=False)
        ]
        return (*computed, *outputs[len(computed) :])

    def _infer_with_subgraphs(self, node: onnx.NodeProto) -> tuple[Facts, ...]:
        """If, Loop and Scan see what their subgraphs capture: inferred as a model of that one node."""
        names = list(dict.fromkeys(read_by(node)))
        at_each = []
        for binding in range(self._open.bindings):
            facts = {name: self._facts[name][binding] for name in names if name in self._facts}
            at_each.append(self._as_model(node, facts))
        return tuple(zip(*at_each, strict=True)) if len(node.output) else ()

    def _as_model(self, node: onnx.NodeProto, facts: Mapping[str, Fact]) -> Facts:
        graph = onnx.GraphProto(name="one", node=[node])
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
        for name, fact in facts.items():
            value = fact.tensor_proto(name)
            if value is not None:
                graph.initializer.append(value)
            else:
                graph.input.append(onnx.ValueInfoProto(name=name, type=fact.type_proto()))
        model = onnx.ModelProto(ir_version=max(self._ir_version, 4), graph=graph, opset_import=self._imports)
        try:
            outputs = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return (UNKNOWN,) * len(node.output)
        found = {value.name: self._table.of_type(value.type) for value in outputs}
        return tuple(found.get(name, UNKNOWN) for name in node.output)


def shapes_of(model: onnx.ModelProto, known: Mapping[str, Array] | None = None) -> ShapeInference:
    """The shapes of all tensors of a model with its nodes in order; `known` are more values that are constant."""

    def inferred(lengths: tuple[int, int]) -> ShapeInference:
        shapes = ShapeInference(model, lengths=lengths)
        for name, value in (known or {}).items():
            shapes.add_constant(name, value)
        for node in model.graph.node:
            shapes.step(node)
        shapes.release()
        return shapes

    return at_lengths_that_fit(inferred, lambda shapes: shapes)


def at_lengths_that_fit(made: Callable[[tuple[int, int]], _Made], shapes: Callable[[_Made], ShapeInference]) -> _Made:
    """What is made at the usual open lengths, or at others where those leave a tensor empty or operands do not fit.

    What is so at all of them is taken to be so at every length.
    """
    usual = made(USUAL)
    for lengths in shapes(usual).other_lengths:
        found = made(lengths)
        if not shapes(found).other_lengths:
            return found
    return usual
