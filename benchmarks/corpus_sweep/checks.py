"""What the sweep checks of a compact model, with onnx, onnxruntime and numpy, and nothing of the package's own verify.

differences     do compact and zeroed full model give the same, at two sizes of every open dimension
signature       are inputs and outputs the same: names, types and (symbolic) shapes
zeroing         is the zeroed model the source with some weights at zero and no other weight changed
shrunk          which weights of dense layers became smaller
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_asgnas.evaluation.reference import outputs_in_double

Arrays = Mapping[str, NDArray[Any]]
TOLERANCE = 1e-5
HALF_TOLERANCE = 5e-3
UNMOVED = 1e-4
MOST_KEPT = 0.99
_MATRIX = 2
_CUT_SHORT = 8


def open_session(model: onnx.ModelProto | Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """The model in onnxruntime, operator by operator as it stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, feeds: Arrays) -> dict[str, NDArray[Any]]:
    """All outputs by name."""
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(names, {n: a for n, a in feeds.items() if n in wanted}), strict=True))


def relative_difference(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """Largest absolute difference over largest absolute value; infinite for NaN, another shape, another integer."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return math.inf
    if expected.dtype.kind not in "fc":
        return 0.0 if np.array_equal(expected, got) else math.inf
    first, second = expected.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        same = np.array_equal(first, second)  # infinities at the same places; never NaN
        return 0.0 if same else math.inf
    difference, scale = np.abs(first - second).max(initial=0.0), np.abs(first).max(initial=0.0)
    if difference == 0.0:
        return 0.0
    return float(difference / scale) if scale > 0.0 else math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How compact and zeroed model compare on all feeds.

    `worst` is the largest relative difference and `output` where it is; `moved` is how far the removal moved the
    source's outputs, `varied` how far other inputs move the zeroed model's: where either is nearly 0, that compact and
    zeroed model agree says nothing.
    """

    worst: float
    output: str
    moved: float
    varied: float
    half: bool

    @property
    def passed(self) -> bool:
        """Is the difference within what the precision allows."""
        return self.worst <= (HALF_TOLERANCE if self.half else TOLERANCE)

    @property
    def vacuous(self) -> bool:
        """Does a zero difference say nothing here."""
        return says_nothing(self.moved, self.varied)


def says_nothing(moved: float, varied: float) -> bool:
    """Do the removal or other inputs move the outputs so little that agreement says nothing."""
    return min(moved, varied) < UNMOVED


def as_good_as_whole(floats: int, kept: int) -> bool:
    """Is so little gone that the dense layers count as frozen, though a few channels left."""
    return kept > MOST_KEPT * floats


class Runs:
    """The outputs of one model on every feed; `others` are those on the first feed's shapes with other values."""

    def __init__(self, model: onnx.ModelProto | Path, feeds: Sequence[Arrays], other: Arrays | None, threads: int):
        session = open_session(model, threads)
        self.outputs = [run(session, feed) for feed in feeds]
        self.other = None if other is None else run(session, other)


def compare(source: Runs, zeroed: Runs, compact: Runs) -> Comparison:
    """Compare all outputs of all feeds."""
    found: list[tuple[float, str]] = []
    moved: list[float] = []
    for start, expected, got in zip(source.outputs, zeroed.outputs, compact.outputs, strict=True):
        if expected.keys() != got.keys():
            return Comparison(worst=math.inf, output="(other outputs)", moved=0.0, varied=0.0, half=False)
        found += [(relative_difference(expected[name], got[name]), name) for name in expected]
        moved += [relative_difference(start[name], got[name]) for name in start if name in got]
    assert zeroed.other is not None
    varied = [relative_difference(value, zeroed.other[name]) for name, value in zeroed.outputs[0].items()]
    worst, output = max(found, default=(math.inf, "(no output)"))
    half = any(value.dtype == np.float16 for value in zeroed.outputs[0].values())
    return Comparison(worst=worst, output=output, moved=max(moved), varied=max(varied), half=half)


def weight_bytes(model: onnx.ModelProto) -> int:
    """How much the weights take; protobuf cannot say how large a model over 2 GB is."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def difference_in_double(zeroed: onnx.ModelProto, compact: onnx.ModelProto, feeds: Sequence[Arrays]) -> float:
    """The largest relative difference of any output with both models in float64, by ONNX's own reference."""
    pairs = [(outputs_in_double(zeroed, feed), outputs_in_double(compact, feed)) for feed in feeds]
    return max(relative_difference(expected[name], got[name]) for expected, got in pairs for name in expected)


def compare_signal_in_double(
    zeroed: onnx.ModelProto, compact: onnx.ModelProto, feed: Arrays, other: Arrays
) -> tuple[float, float]:
    """How far compact and zeroed model differ in terms of what other inputs change, and how much that is, in float64.

    Both are relative, and infinite and 0 for a network that other inputs do not move.
    """
    one, got, moved = (outputs_in_double(m, f) for m, f in ((zeroed, feed), (compact, feed), (zeroed, other)))
    found: list[tuple[float, float]] = []
    for name, expected in one.items():
        signal = np.abs(expected - moved[name]).max(initial=0.0) if expected.dtype.kind == "f" else 0.0
        if signal > 0.0 and got[name].shape == expected.shape:
            found.append((float(np.abs(expected - got[name]).max() / signal), float(signal / np.abs(expected).max())))
    return max((apart for apart, _ in found), default=math.inf), max((share for _, share in found), default=0.0)


def compare_inside(
    zeroed: onnx.ModelProto, compact: onnx.ModelProto, feed: Arrays, other: Arrays, threads: int
) -> tuple[float, int]:
    """How far the norms of inner tensors differ, relative, and of how many tensors other inputs change the norm.

    What a channel group at zero gives is zero, so a tensor has the same norm with and without it, whatever its shape.
    """
    theirs = {name for node in compact.graph.node for name in node.output}
    names = [name for node in zeroed.graph.node for name in node.output if name in theirs]
    full, small = (
        open_session(_with_outputs(zeroed, names), threads),
        open_session(_with_outputs(compact, names), threads),
    )
    one, got, moved = _norms(run(full, feed)), _norms(run(small, feed)), _norms(run(full, other))
    scale = {name: max(norm, np.finfo(np.float32).tiny) for name, norm in one.items()}
    apart = max((abs(one[n] - got[n]) / scale[n] for n in one if n in got), default=math.inf)
    return apart, int(sum(abs(one[n] - moved[n]) / scale[n] > UNMOVED for n in one if n in got))


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    wider.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    return wider


def _norms(tensors: Arrays) -> dict[str, float]:
    return {n: float(np.linalg.norm(a.astype(np.float64))) for n, a in tensors.items() if a.dtype.kind == "f"}


def signature_changes(source: onnx.ModelProto, compact: onnx.ModelProto) -> list[str]:
    """Inputs and outputs whose name, type or shape is another one."""
    changes: list[str] = []
    for kind in ("input", "output"):
        before, after = _signature(source, kind), _signature(compact, kind)
        changes += [f"{kind} '{name}' is gone" for name in before if name not in after]
        changes += [f"{kind} '{name}' is new" for name in after if name not in before]
        changes += [
            f"{kind} '{name}' was {before[name]}, is {after[name]}"
            for name in before
            if name in after and before[name] != after[name]
        ]
        if not changes and list(before) != list(after):
            changes.append(f"the {kind}s are in another order")
    return changes


def _signature(model: onnx.ModelProto, kind: str) -> dict[str, str]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return {v.name: _type(v.type) for v in getattr(model.graph, kind) if kind == "output" or v.name not in weights}


def _type(value: onnx.TypeProto) -> str:
    if not value.HasField("tensor_type"):
        return str(value)
    tensor = value.tensor_type
    name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    if not tensor.HasField("shape"):
        return name
    sizes = [d.dim_param or "?" if not d.HasField("dim_value") else str(d.dim_value) for d in tensor.shape.dim]
    return f"{name}[{', '.join(sizes)}]"


def zeroing_faults(source: onnx.ModelProto, zeroed: onnx.ModelProto) -> list[str]:
    """Weights of both models that differ otherwise than by zeros in the zeroed one."""
    before = {tensor.name: tensor for tensor in source.graph.initializer}
    faults: list[str] = []
    for tensor in zeroed.graph.initializer:
        original = before.get(tensor.name)
        if original is None or original == tensor or original.dims != tensor.dims:
            continue
        first, second = numpy_helper.to_array(original), numpy_helper.to_array(tensor)
        if first.dtype != second.dtype or np.any((first != second) & (second != 0)):
            faults.append(f"'{tensor.name}' has other values than zeros in place of the source's")
    return faults[:_CUT_SHORT]


def weight_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """The number of values of each floating initializer of two or more dimensions."""
    return {t.name: math.prod(t.dims) for t in model.graph.initializer if len(t.dims) >= _MATRIX and _is_float(t)}


def shrunk(zeroed: onnx.ModelProto, compact: onnx.ModelProto) -> int:
    """How many weights of dense layers have become smaller, or are gone."""
    after = weight_sizes(compact)
    return sum(after.get(name, 0) < size for name, size in weight_sizes(zeroed).items())


def floats(model: onnx.ModelProto) -> int:
    """The number of values in all floating initializers and Constants: parameters, counted without any analysis."""
    return sum(math.prod(tensor.dims) for tensor in _tensors(model) if _is_float(tensor))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from (a.t for a in node.attribute if a.HasField("t"))


def _is_float(tensor: onnx.TensorProto) -> bool:
    kinds = onnx.TensorProto
    return tensor.data_type in (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE, kinds.BFLOAT16)
