"""ONNX's own node tests as training cases: what is asked for a gradient, and an independent answer to it.

The answer is a finite difference of onnx's reference evaluator in float64, along random directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.graph import normalise
from onnx_asgnas.graph.nodes import is_standard
from onnx_asgnas.training.engines import Engine
from onnx_asgnas.training.engines.ort_engine import OrtEngine
from onnx_asgnas.training.engines.torch_engine import TORCH, TorchEngine
from onnx_asgnas.training.lowering import ORT, TrainingGraph, lower
from onnx_asgnas.training.lowering.path import SMOOTH

FORWARD = 1e-5
"""Largest relative difference of outputs, in float32."""
GRADIENT = 1e-3
"""Largest relative difference of a directional derivative."""
_STEP = 1e-6
_WIDE_STEP = 3e-3
_SINGLE = {
    "AffineGrid",
    "CausalConvWithState",
    "Erf",
    "Gelu",
    "GroupNormalization",
    "LayerNormalization",
    "LinearAttention",
}
"""Operators that the reference evaluator computes in float32 whatever it is given: the difference is taken wider."""
_NARROW = {"Loop", "MeanVarianceNormalization"}
"""Operators that it does not compute in float64 at all."""
_NOISE = 0.02
_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class NodeCase:
    """A model of one node (or a function's body), in which whatever is no float activation is constant."""

    name: str
    op_type: str
    domain: str
    model: onnx.ModelProto
    feeds: Mapping[str, NDArray[Any]]
    expected: Sequence[NDArray[Any]]


def node_cases() -> Iterator[NodeCase]:
    """Those of ONNX's node tests that a float goes into and a float comes out of."""
    for case in _collected():
        made = _case(case)
        if made is not None:
            yield made


@cache
def _collected() -> Sequence[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its data are made with numbers that overflow on purpose
        return sorted(collect_testcases(None), key=lambda case: case.name)


def _case(case: Any) -> NodeCase | None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    if len(model.graph.node) != 1 or not case.data_sets:
        return None
    node = model.graph.node[0]
    given, expected = case.data_sets[0]
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    _in_single_precision(model)
    feeds: Arrays = {}
    fixed = _never_differentiated(node, model)
    inputs = list(model.graph.input)
    del model.graph.input[:]
    for value, array in zip(inputs, given, strict=False):
        if not isinstance(array, np.ndarray | np.generic):
            return None
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        if kinds[value.name] in _FLOATS and value.name not in fixed:
            model.graph.input.append(value)
            feeds[value.name] = array
        else:
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    if not feeds or not any(kinds[value.name] in _FLOATS for value in model.graph.output):
        return None
    if any(not isinstance(array, np.ndarray | np.generic) for array in expected):
        return None
    return NodeCase(case.name, node.op_type, "" if is_standard(node) else node.domain, model, feeds, expected)


def _in_single_precision(model: onnx.ModelProto) -> None:
    """Double precision as float32: the runtime's training kernels are few in double."""
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT


def _never_differentiated(node: onnx.NodeProto, model: onnx.ModelProto) -> set[str]:
    """The inputs that the standard says carry no gradient, and scales of quantisation."""
    version = next(o.version for o in model.opset_import if o.domain == node.domain)
    if not onnx.defs.has(node.op_type, version, node.domain):
        return set()
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    never = onnx.defs.OpSchema.DifferentiationCategory.NonDifferentiable
    last = len(schema.inputs) - 1
    fixed = set()
    for at, name in enumerate(node.input):
        formal = schema.inputs[min(at, last)]
        smooth = formal.differentiation_category != never or formal.name in SMOOTH.get(node.op_type, ())
        if not smooth or at in _FIXED.get(node.op_type, ()):
            fixed.add(name)
    return fixed


_FIXED: dict[str, tuple[int, ...]] = {
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "Clip": (1, 2),
    "BatchNormalization": (3, 4),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "RoiAlign": (1, 2),
    "Pad": (1, 2, 3),
    "DFT": (1, 2),
    "Range": (0, 1, 2),
}


@dataclass
class Answer:
    """What came of one case."""

    status: str
    detail: str = ""
    error: float = 0.0


def try_case(case: NodeCase, seed: int = 0) -> Answer:
    """Lower, run and differentiate a case on the ort engine, and compare."""
    model = normalise(case.model)
    graph = lower(model, [], wrt=tuple(value.name for value in model.graph.input), freeze_bn=True)
    if not graph.wrt:
        return Answer("no gradient", "no input that an output depends on differentiably")
    weights = {t.name: t for t in model.graph.initializer}
    held = {name: torch.from_numpy(numpy_helper.to_array(weights[name]).copy()) for name in graph.statistics}
    engine = OrtEngine(graph, held, threads=1)
    worst = 0.0
    rng = np.random.default_rng(seed)
    values = _off_kinks(case, rng)
    outputs, gradients, loss = _run(engine, graph, values, rng)
    reference = Reference(case.model)
    wanted = reference(values)
    for name, mine, other in zip(graph.outputs, outputs, wanted, strict=True):
        if mine.dtype.kind == "f":
            worst = _distance(mine, other)
            if not worst <= FORWARD:
                return Answer("forward", f"{name}: {worst:.1e}")
    for _ in range(2):
        direction = {n: rng.normal(size=v.shape) for n, v in values.items()}
        slope = reference.slope(values, direction, loss, graph.wrt)
        found = sum(float((gradients[n].astype(np.float64) * direction[n]).sum()) for n in graph.wrt)
        total = sum(float(np.abs(o * w).sum()) for o, w in zip(outputs, loss, strict=True) if w is not None)
        scale = max(abs(slope), 1e-2 * _size(gradients, direction, graph.wrt), 1e-2 * np.nan_to_num(total), 1e-6)
        worst = abs(found - slope) / scale
        if not worst <= GRADIENT:
            return Answer("gradient", f"{found:.6g} for {slope:.6g}", worst)
    return Answer("trains", "", worst)


def torch_agrees(case: NodeCase) -> Answer:
    """Do the gradients of the ort engine equal those of the torch engine in float64, which has other natives."""
    model = normalise(case.model)
    wrt = tuple(value.name for value in model.graph.input)
    weights = {t.name: t for t in model.graph.initializer}
    rng = np.random.default_rng(0)
    values = _off_kinks(case, rng)
    seed = rng.integers(2**31)
    found = []
    for dialect in (ORT, TORCH):
        graph = lower(model, [], wrt=wrt, freeze_bn=True, dialect=dialect)
        held = {name: torch.from_numpy(numpy_helper.to_array(weights[name]).copy()) for name in graph.statistics}
        to_double = partial(TorchEngine, floats=torch.float64)
        engine: Engine = OrtEngine(graph, held, threads=1) if dialect is ORT else to_double(graph, held)
        outputs, gradients, _ = _run(engine, graph, values, np.random.default_rng(seed))
        found.append((outputs, gradients))
    (mine, ours), (theirs, wanted) = found
    for one, other in zip(mine, theirs, strict=True):
        if one.dtype.kind == "f" and not _distance(one, other) <= FORWARD:
            return Answer("forward", f"{_distance(one, other):.1e}")
    norm = float(np.sqrt(sum(float(np.square(g).sum()) for g in wanted.values())))
    gaps = [ours[n].astype(np.float64) - g if n in ours else g for n, g in wanted.items()]
    apart = float(np.sqrt(sum(float(np.square(gap).sum()) for gap in gaps)))
    total = float(np.sqrt(sum(float(np.square(np.nan_to_num(o, posinf=0.0, neginf=0.0)).sum()) for o in theirs)))
    error = apart / max(norm, 1e-2 * total, 1e-6)
    return Answer("trains" if error <= GRADIENT else "gradient", f"{error:.1e}", error)


def _size(gradients: Arrays, direction: Arrays, names: Sequence[str]) -> float:
    """What the derivative would be if all its terms had one sign."""
    return sum(float(np.abs(gradients[n].astype(np.float64) * direction[n]).sum()) for n in names)


def _distance(mine: NDArray[Any], other: NDArray[Any]) -> float:
    if mine.shape != other.shape:
        return np.inf
    a, b = mine.astype(np.float64), other.astype(np.float64)
    a, b = (np.where(np.isinf(x), np.sign(x) * np.finfo(np.float64).max / 4, x) for x in (a, b))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    scale = max(float(np.abs(b[np.abs(b) < 1e300]).max(initial=0.0)), 1.0)
    return float(np.abs(np.where(same, 0, a - b)).max()) / scale


def _off_kinks(case: NodeCase, rng: np.random.Generator) -> Arrays:
    """The inputs in float64, shaken so that none sits where a derivative jumps, and kept within their range."""
    shaken = {}
    for name, value in case.feeds.items():
        wide = value.astype(np.float64)
        low, high = wide.min(initial=np.inf), wide.max(initial=-np.inf)
        moved = wide + _NOISE * rng.uniform(-1, 1, wide.shape) * max(
            float(np.abs(wide[np.isfinite(wide)]).max(initial=0)), 1e-3
        )
        if case.op_type in _DOMAIN:
            low, high = _DOMAIN[case.op_type]
            moved = np.clip(moved, low, high)
        elif low > 0:
            moved = np.maximum(moved, low * rng.uniform(0.85, 0.95, wide.shape))
        shaken[name] = np.where(np.isfinite(wide), moved, wide)
    return shaken


_DOMAIN = {
    "Acos": (-0.95, 0.95),
    "Asin": (-0.95, 0.95),
    "Atanh": (-0.95, 0.95),
    "Acosh": (1.05, 50.0),
    "LpNormalization": (0.01, 99.0),
}


def _run(
    engine: Engine, graph: TrainingGraph, values: Arrays, rng: np.random.Generator
) -> tuple[list[NDArray[Any]], Arrays, list[NDArray[Any] | None]]:
    feeds = [
        torch.from_numpy(np.ascontiguousarray(values[n]).reshape(values[n].shape).astype(_fed(graph, n)))
        for n in graph.inputs
    ]
    outputs, run = engine.forward(feeds)
    weights: list[NDArray[Any] | None] = [
        rng.normal(size=tuple(out.shape)) if moves else None
        for out, moves in zip(outputs, graph.differentiable, strict=True)
    ]
    seeds = [
        None if w is None else torch.from_numpy(np.asarray(w)).to(out.dtype).reshape(out.shape)
        for w, out in zip(weights, outputs, strict=True)
    ]
    found = run.backward(seeds)
    gradients = {name: gradient.numpy() for name, gradient in zip(graph.wrt, found, strict=True)}
    return [out.numpy() for out in outputs], gradients, weights


def _fed(graph: TrainingGraph, name: str) -> Any:
    kind = next(v.type.tensor_type.elem_type for v in graph.model.graph.input if v.name == name)
    return onnx.helper.tensor_dtype_to_np_dtype(kind)


class Reference:
    """onnx's reference evaluator in float64."""

    def __init__(self, model: onnx.ModelProto) -> None:
        wide = onnx.ModelProto()
        wide.CopyFrom(model)
        self._narrow = model.graph.node[0].op_type in _NARROW
        self._single = self._narrow or model.graph.node[0].op_type in _SINGLE
        for value in (*wide.graph.input, *wide.graph.output) if not self._narrow else ():
            if value.type.tensor_type.elem_type in _FLOATS:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        for tensor in wide.graph.initializer if not self._narrow else ():
            if tensor.data_type in _FLOATS and tensor.name not in _not_widened(wide):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
        self._evaluator = ReferenceEvaluator(wide)

    def __call__(self, values: Arrays) -> list[NDArray[Any]]:
        with np.errstate(all="ignore"):
            given = {n: v.astype(np.float32) if self._narrow else v for n, v in values.items()}
            return [np.asarray(out) for out in self._evaluator.run(None, given)]

    def slope(
        self, values: Arrays, direction: Arrays, weights: Sequence[NDArray[Any] | None], wrt: Sequence[str]
    ) -> float:
        """The derivative of the weighted sum of the outputs along a direction."""
        single = self._single

        def at(step: float) -> list[NDArray[Any]]:
            return self({n: v + step * direction[n] if n in wrt else v for n, v in values.items()})

        def difference(step: float) -> float:
            total = 0.0
            for up, down, weight in zip(at(step), at(-step), weights, strict=True):
                if weight is not None:
                    with np.errstate(invalid="ignore"):
                        change = np.nan_to_num(up.astype(np.float64) - down.astype(np.float64))
                    total += float((change * weight).sum()) / (2 * step)
            return total

        if not single:
            return difference(_STEP)
        return (4 * difference(_WIDE_STEP) - difference(2 * _WIDE_STEP)) / 3


def _not_widened(model: onnx.ModelProto) -> set[str]:
    """What an operator takes in float32 alone: the scales and regions of a Resize."""
    node = model.graph.node[0]
    return {name for at, name in enumerate(node.input) if node.op_type in ("Resize", "Upsample") and at > 0}
