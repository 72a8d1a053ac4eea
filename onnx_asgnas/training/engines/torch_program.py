"""A training graph as a list of torch calls, made once and run many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.graph.nodes import is_standard, read_by
from onnx_asgnas.training.engines.torch_functions import Compute, Function, Operator, function_of
from onnx_asgnas.training.lowering import GradientPath

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """One call: where its inputs are (-1: none), where its outputs go, and what nobody reads after it."""

    compute: Compute
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]
    node: onnx.NodeProto


_Call: TypeAlias = "tuple[Compute, list[int], list[int], onnx.NodeProto]"


class Program:
    """A graph, run node by node; of what is read no more only autograd keeps what it needs.

    `floats` is what float32 stands for. Numbers that are shapes stay on the CPU, so that a device is never waited for.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        wrt: Collection[str],
        *,
        device: torch.device,
        floats: torch.dtype = torch.float32,
    ) -> None:
        self._device, self._floats = device, floats
        graph = model.graph
        self._arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._slots: dict[str, int] = {"": -1}
        self.inputs = [self._slot(value.name) for value in graph.input]
        differentiated = {node.name for node in GradientPath(model, wrt).nodes}
        host: set[str] = set()
        layers = _linear_layers(graph, self._arrays)
        taken = {product.output[0] for product in layers.values()}
        calls: list[_Call] = []
        for node in graph.node:
            if node.output[0] in layers:
                product = layers[node.output[0]]
                bias = next(name for name in node.input if name != product.output[0])
                ends = [self._slot(name) for name in (*product.input, bias)]
                calls.append((_linear, ends, [self._slot(node.output[0])], node))
            elif node.output[0] not in taken:
                calls.append(self._call(node, node.name in differentiated, host, model))
        self._constants: dict[int, Tensor] = {}
        self.outputs = [self._slot(value.name) for value in graph.output]
        self._steps = self._with_ends(calls)
        self._constants = self._held_constants(host)

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, for all graph inputs in order."""
        values: list[Any] = [None] * len(self._slots)
        for slot, tensor in self._constants.items():
            values[slot] = tensor
        for slot, tensor in zip(self.inputs, given, strict=True):
            values[slot] = tensor
        for step in self._steps:
            try:
                result = step.compute(*[values[slot] for slot in step.inputs])
            except (RuntimeError, IndexError, ValueError) as error:
                raise StepError(step.node, error) from error
            if isinstance(result, Tensor):
                values[step.outputs[0]] = result
            else:
                for slot, part in zip(step.outputs, result, strict=False):
                    if slot >= 0:
                        values[slot] = part
            for slot in step.dead:
                values[slot] = None
        return [values[slot] for slot in self.outputs]

    def _slot(self, name: str) -> int:
        # Slot -1 is the last one of the list, and always None: an input or output that is left out.
        return self._slots.setdefault(name, len(self._slots) - 1)

    def _call(self, node: onnx.NodeProto, differentiated: bool, host: set[str], model: onnx.ModelProto) -> _Call:
        found = function_of(node)
        if found is None:
            if differentiated:
                raise UnsupportedOperatorError(
                    f"the torch engine has no function for {node.op_type} {node.name!r}",
                    fix="Freeze what lies before it (freeze=[...], --freeze PATTERN), or use engine ort.",
                    op_type=node.op_type,
                    node=node.name,
                )
            compute, reads = _by_reference(node, model, self._device, self._floats), read_by(node)
            return compute, [self._slot(name) for name in reads], [self._slot(name) for name in node.output], node
        compute = found.build(Operator(node, self._arrays, floats=self._floats, device=self._device))
        if self._device.type != "cpu":
            compute = self._placed(node, found, compute, host)
        return compute, [self._slot(name) for name in node.input], [self._slot(name) for name in node.output], node

    def _placed(self, node: onnx.NodeProto, function: Function, compute: Compute, host: set[str]) -> Compute:
        """The same call, with what was computed on the CPU brought to the device, unless it stays among shapes."""
        at_home = {
            name for name in node.input if name in host or (name in self._arrays and self._arrays[name].ndim < 2)
        }
        names = {name for name in node.input if name}
        integers = all(name in host or self._arrays[name].dtype.kind in "iub" for name in names & at_home)
        if node.op_type in ("Shape", "Size") or (function.of_host and names and names <= at_home and integers):
            host.update(node.output)
            return compute
        moved = [at for at, name in enumerate(node.input) if name in host and at not in function.host]
        if not moved:
            return compute
        device = self._device

        def run(*given: Tensor | None) -> Tensor | Sequence[Tensor | None]:
            placed = list(given)
            for at in moved:
                tensor = placed[at]
                placed[at] = None if tensor is None else tensor.to(device, non_blocking=True)
            return compute(*placed)

        return run

    def _with_ends(self, calls: Sequence[_Call]) -> list[Step]:
        """The calls as steps, each with the values that it is the last to read."""
        kept = {*self.outputs, *self.inputs, *(self._slot(name) for name in self._arrays), -1}
        steps: list[Step] = []
        for compute, inputs, outputs, node in reversed(calls):
            dead = [slot for slot in dict.fromkeys((*inputs, *outputs)) if slot not in kept]
            kept.update(dead)
            steps.append(Step(compute, tuple(inputs), tuple(outputs), tuple(dead), node))
        return steps[::-1]

    def _held_constants(self, host: set[str]) -> dict[int, Tensor]:
        """The initializers: small integers that only shapes are made of on the CPU, all others on the device."""
        on_device = {name: False for name in self._arrays}
        for step in self._steps:
            function = function_of(step.node)
            for at, name in enumerate(step.node.input):
                if name in on_device and not (function and at in function.host):
                    on_device[name] |= step.node.output[0] not in host
        constants = {}
        for name, array in self._arrays.items():
            if not _is_numeric(array):
                continue
            tensor = torch.from_numpy(np.array(array))
            dtype = self._floats if tensor.dtype == torch.float32 else tensor.dtype
            constants[self._slot(name)] = tensor.to(self._device if on_device[name] else "cpu", dtype)
        return constants


class StepError(Exception):
    """A node that torch could not compute; the reason is its cause."""

    def __init__(self, node: onnx.NodeProto, error: Exception) -> None:
        reason = str(error).strip().splitlines()
        self.reason = f"{node.op_type} {node.name!r}: {reason[0] if reason else type(error).__name__}"
        super().__init__(self.reason)


def _is_numeric(array: Any) -> bool:
    return bool(array.dtype.kind in "fiubc" and array.dtype.itemsize)


def _linear_layers(graph: onnx.GraphProto, arrays: Mapping[str, Any]) -> dict[str, onnx.NodeProto]:
    """The products that only the sum with a bias reads, by what that sum gives: torch has both in one kernel."""
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    shapes |= {name: list(array.shape) for name, array in arrays.items()}
    reads = Counter(name for node in graph.node for name in read_by(node))
    reads.update(value.name for value in graph.output)
    products = {n.output[0]: n for n in graph.node if n.op_type == "MatMul" and is_standard(n)}
    found = {}
    for node in graph.node:
        if node.op_type != "Add" or not is_standard(node):
            continue
        for name, bias in (node.input, node.input[::-1]):
            weight = shapes.get(products[name].input[1], []) if name in products and reads[name] == 1 else []
            if len(weight) == 2 and weight[1] > 0 and shapes.get(bias) == [weight[1]]:
                found[node.output[0]] = products[name]
                break
    return found


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight.t(), bias)


def _by_reference(node: onnx.NodeProto, model: onnx.ModelProto, device: torch.device, floats: torch.dtype) -> Compute:
    """An operator through which no gradient flows, by the standard's own evaluation in numpy."""
    reads = [*dict.fromkeys(read_by(node))]
    ends = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "node", [onnx.ValueInfoProto(name=name) for name in reads], ends)
    opsets = [*model.opset_import]
    alone = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    names, given = [value.name for value in ends], read_by(node)
    try:
        evaluator = ReferenceEvaluator(alone)
    except Exception as error:  # the evaluator's errors for what it does not know have no common base
        raise UnsupportedOperatorError(
            f"nothing here computes {node.op_type} {node.name!r}: {error}",
            fix="Export the model with operators of the ONNX standard.",
            op_type=node.op_type,
            node=node.name,
        ) from None

    def run(*tensors: Tensor | None) -> list[Tensor | None]:
        feeds = {n: t.detach().cpu().numpy() for n, t in zip(given, tensors, strict=False) if t is not None}
        made = dict(zip(names, evaluator.run(names, feeds), strict=True))
        return [_from_numpy(made[name], device, floats) if name else None for name in node.output]

    return run


def _from_numpy(value: Any, device: torch.device, floats: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(np.array(value))
    return tensor.to(device, floats if tensor.dtype == torch.float32 else tensor.dtype)
