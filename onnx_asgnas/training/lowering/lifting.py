"""Nodes of older operator sets in the form that they have in opset 18, and of newer ones in that of opset 21.

Operators changed their form in few ways: attributes became inputs, others were dropped, a few got another meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_asgnas.errors import ModelError
from onnx_asgnas.graph.nodes import has_subgraph, is_standard

OLDEST_OPSET, NEWEST_OPSET = 18, 21
"""The operator sets that training graphs are written in."""

_Lift: TypeAlias = "Callable[[Lifting], None]"


def lifted(
    node: onnx.NodeProto, version: int, target: int, rank: Callable[[str], int | None], name: Callable[[str], str]
) -> list[onnx.NodeProto]:
    """A node of operator set `version` as nodes of `target`; its own name and outputs stay.

    `rank` tells that of a tensor, None where it is not known, and `name` a new name like another. Raises ModelError for
    the few forms that have no successor.
    """
    if not is_standard(node) or version == target:
        return [node]
    lifting = Lifting(node, version, rank, name)
    if version < OLDEST_OPSET:
        lifting.raise_()
    elif version > NEWEST_OPSET:
        lifting.drop(*_NEWER_ATTRIBUTES.get(node.op_type, ()))
    if has_subgraph(node):
        lifting.lift_subgraphs(target)
    return [*lifting.before, lifting.node, *lifting.after]


_NEWER_ATTRIBUTES = {
    "Cast": ("round_mode",),
    "CastLike": ("round_mode",),
    "DequantizeLinear": ("output_dtype",),
    "QuantizeLinear": ("precision",),
    "Range": ("stash_type",),
}
"""What newer operator sets added, and float32 has no use for."""


class Lifting:
    """One node on its way into another operator set."""

    def __init__(
        self, node: onnx.NodeProto, version: int, rank: Callable[[str], int | None], name: Callable[[str], str]
    ) -> None:
        self.node = onnx.NodeProto()
        self.node.CopyFrom(node)
        self.version = version
        self.rank = rank
        self.name = name
        self.before: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []

    def raise_(self) -> None:
        """Bring the node to opset 18."""
        for until, lift in _LIFTS.get(self.node.op_type, ()):
            if self.version < until:
                lift(self)
        self.drop("consumed_inputs", "is_test")
        if self.version < 7 and self.attribute("broadcast"):
            self._broadcast()

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        found = next((a for a in self.node.attribute if a.name == name), None)
        return default if found is None else helper.get_attribute_value(found)

    def drop(self, *names: str) -> None:
        """Leave these attributes out."""
        kept = [a for a in self.node.attribute if a.name not in names]
        if len(kept) < len(self.node.attribute):
            del self.node.attribute[:]
            self.node.attribute.extend(kept)

    def set(self, **attributes: Any) -> None:
        """Give it these attributes."""
        self.drop(*attributes)
        self.node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())

    def feed(self, position: int, value: NDArray[Any]) -> None:
        """Give it a constant as an input."""
        while len(self.node.input) <= position:
            self.node.input.append("")
        made = self.name(f"{self.node.name}/constant")
        tensor = numpy_helper.from_array(value, made)
        self.before.append(helper.make_node("Constant", [], [made], name=made, value=tensor))
        self.node.input[position] = made

    def lift_subgraphs(self, target: int) -> None:
        """Bring bodies and branches along."""
        for attribute in self.node.attribute:
            for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                nodes = [
                    part
                    for node in graph.node
                    for part in lifted(node, self.version, target, lambda _: None, self.name)
                ]
                copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
                del graph.node[:]
                graph.node.extend(copies)

    def known_rank(self, position: int) -> int:
        """The rank of an input; raises ModelError where it is not known."""
        rank = self.rank(self.node.input[position])
        if rank is None:
            raise ModelError(
                f"{self.node.op_type} {self.node.name!r} of opset {self.version} cannot be raised to {OLDEST_OPSET}, "
                f"which training needs: the rank of {self.node.input[position]!r} is not known",
                fix=f"Export the model with opset {OLDEST_OPSET} to {NEWEST_OPSET}.",
                opset=self.version,
            )
        return rank

    def _broadcast(self) -> None:
        """The second operand lies along `axis` of the first: before opset 7 that was said, not read off the shapes."""
        axis = self.attribute("axis")
        self.drop("broadcast", "axis")
        if axis is None:
            return
        rank, inner = self.known_rank(0), self.known_rank(1)
        trailing = rank - (axis % rank) - inner
        if trailing > 0:
            wide = self.name(f"{self.node.name}/operand")
            operand = self.node.input[1]
            self.feed(1, np.arange(inner, inner + trailing))
            axes = self.node.input[1]
            self.before.append(helper.make_node("Unsqueeze", [operand, axes], [wide], name=wide))
            self.node.input[1] = wide


def _attributes_to_inputs(**positions: int) -> _Lift:
    """Attributes that became inputs, whole numbers as int64 and others as float32."""

    def lift(node: Lifting) -> None:
        for name, position in positions.items():
            value = node.attribute(name)
            if value is not None:
                kind = np.float32 if np.asarray(value).dtype.kind == "f" else np.int64
                node.feed(position, np.asarray(value, kind))
        node.drop(*positions)

    return lift


def _dropped(*names: str) -> _Lift:
    return lambda node: node.drop(*names)


def _pad(node: Lifting) -> None:
    pads = node.attribute("pads", node.attribute("paddings"))
    value = np.array(node.attribute("value", 0.0), np.float32)
    node.drop("pads", "paddings", "value")
    node.feed(1, np.array(pads, np.int64))
    if value:
        node.feed(2, value)


def _split(node: Lifting) -> None:
    if len(node.node.input) < 2 or not node.node.input[1]:
        node.set(num_outputs=len(node.node.output))


def _topk(node: Lifting) -> None:
    k = node.attribute("k")
    node.drop("k")
    node.feed(1, np.array([k], np.int64))


def _slice(node: Lifting) -> None:
    starts = node.attribute("starts")
    axes = node.attribute("axes", list(range(len(starts))))
    for position, value in enumerate((starts, node.attribute("ends"), axes), 1):
        node.feed(position, np.array(value, np.int64))
    node.drop("starts", "ends", "axes")


def _dropout(node: Lifting) -> None:
    """Off, as it is in normal form: its ratio means nothing."""
    node.drop("ratio")
    del node.node.input[1:]


def _upsample(node: Lifting) -> None:
    """Upsample is a Resize that takes the nearest value before, or interpolates between corners at zero."""
    scales = node.attribute("scales")
    if scales is None and len(node.node.input) < 2:
        scales = [1.0, 1.0, node.attribute("height_scale"), node.attribute("width_scale")]
    if scales is not None:
        node.feed(2, np.array(scales, np.float32))
    else:
        node.node.input[:] = [node.node.input[0], "", node.node.input[1]]
    mode = node.attribute("mode", b"nearest")
    del node.node.attribute[:]
    node.node.op_type = "Resize"
    _resized(node, {b"bilinear": b"linear"}.get(mode, mode))


def _resize(node: Lifting) -> None:
    node.node.input[:] = [node.node.input[0], "", node.node.input[1]]
    _resized(node, node.attribute("mode", b"nearest"))


def _resized(node: Lifting, mode: bytes) -> None:
    node.set(mode=mode, coordinate_transformation_mode="asymmetric")
    if mode == b"nearest":
        node.set(nearest_mode="floor")


def _softmax(node: Lifting) -> None:
    """Before opset 13 all axes from `axis` on were one."""
    axis, rank = node.attribute("axis", 1), node.rank(node.node.input[0])
    if rank is not None and axis in (-1, rank - 1):
        node.set(axis=-1)
        return
    source, result, stem = node.node.input[0], node.node.output[0], node.node.name
    shape, flat, done = (node.name(f"{stem}/{part}") for part in ("shape", "flat", "result"))
    node.before.append(helper.make_node("Shape", [source], [shape], name=shape))
    node.before.append(helper.make_node("Flatten", [source], [flat], name=flat, axis=axis))
    node.after.append(helper.make_node("Reshape", [done, shape], [result], name=node.name(f"{stem}/Reshape")))
    node.node.input[0], node.node.output[0] = flat, done
    node.set(axis=1)


def _prelu(node: Lifting) -> None:
    """Before opset 7 a slope for each channel needed no axes behind it."""
    if node.rank(node.node.input[1]) == 1:
        node.set(broadcast=1, axis=1)


def _scatter(node: Lifting) -> None:
    node.node.op_type = "ScatterElements"


def _cast(node: Lifting) -> None:
    name = node.attribute("to")
    if isinstance(name, bytes):
        node.set(to=onnx.TensorProto.DataType.Value(name.decode().upper()))


def _batch_normalization(node: Lifting) -> None:
    node.drop("spatial")
    del node.node.output[1:]


def _roi_align(node: Lifting) -> None:
    node.set(coordinate_transformation_mode="output_half_pixel")


def _scan(node: Lifting) -> None:
    raise ModelError(
        f"Scan {node.node.name!r} of opset 8 cannot be raised to {OLDEST_OPSET}, which training needs",
        fix=f"Export the model with opset {OLDEST_OPSET} to {NEWEST_OPSET}.",
        opset=node.version,
    )


_AXES = ((18, _attributes_to_inputs(axes=1)),)
_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod SumSquare"

_LIFTS: dict[str, Sequence[tuple[int, _Lift]]] = {
    **{f"Reduce{kind}": _AXES for kind in _REDUCTIONS.split()},
    **dict.fromkeys(("ReduceSum", "Squeeze", "Unsqueeze"), ((13, _attributes_to_inputs(axes=1)),)),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), ((13, _softmax),)),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), ((7, _dropped("output_sequence")),)),
    "BatchNormalization": ((14, _batch_normalization),),
    "Cast": ((6, _cast),),
    "Clip": ((11, _attributes_to_inputs(min=1, max=2)),),
    "Dropout": ((12, _dropout),),
    "Gemm": ((7, _dropped("broadcast")),),
    "PRelu": ((7, _prelu),),
    "Pad": ((11, _pad),),
    "Reshape": ((5, _attributes_to_inputs(shape=1)),),
    "Resize": ((11, _resize),),
    "RoiAlign": ((16, _roi_align),),
    "Scan": ((9, _scan),),
    "Scatter": ((19, _scatter),),
    "Slice": ((10, _slice),),
    "Split": ((13, _attributes_to_inputs(split=1)), (18, _split)),
    "TopK": ((10, _topk),),
    "Upsample": ((10, _upsample),),
}
"""By operator: up to which operator set a form was in use (that one not included), and what became of it."""
