"""Gradients by onnxruntime-training, without its torch wrapper.

onnxruntime builds one graph that computes outputs and, after a YieldOp, gradients; a TrainingAgent runs its two halves.
Tensors cross by DLPack and are never copied on the way in. The runtime's peculiarities end in this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import onnx
import torch
from onnx import helper
from torch.utils.dlpack import from_dlpack

from onnx_asgnas.errors import TrainingError, UnsupportedOperatorError
from onnx_asgnas.graph.packages import import_training_runtime
from onnx_asgnas.training.engines import ort_session
from onnx_asgnas.training.engines.ort_gradients import DETACHING, register_gradients
from onnx_asgnas.training.lowering import TrainingGraph

_Shape: TypeAlias = "tuple[torch.Size, torch.dtype]"


class OrtEngine:
    """An Engine (see the Protocol) by onnxruntime-training, on the CPU or where the tensors of `held` lie.

    Raises PackageError where onnxruntime is missing or does not train, and UnsupportedOperatorError where it cannot
    build the gradient.
    """

    def __init__(
        self,
        graph: TrainingGraph,
        held: Mapping[str, torch.Tensor],
        *,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self._binding = import_training_runtime()
        register_gradients(self._binding)
        self.graph = graph
        fed = (*graph.parameters, *graph.statistics)
        model, names = _fit(graph.model)
        wrt = [names[name] for name in graph.wrt]
        builder = self._build(model, [names[name] for name in fed], wrt)
        info = builder.get_graph_info()
        not_asked = set(info.output_grad_indices_non_differentiable)
        self._with_gradient = [at for at in range(len(graph.outputs)) if at not in not_asked]
        of_inputs = dict(info.user_input_grad_names)
        of_parameters = dict(zip(info.initializer_names_to_train, info.initializer_grad_names_to_train, strict=True))
        gradients = [of_parameters.get(name) or of_inputs[name] for name in wrt]
        memory = ort_session.memory_of(self._binding, device)
        self._device = device
        self._session = ort_session.open_session(builder.get_gradient_model(), threads, device)
        self._agent = self._binding.TrainingAgent(
            self._session._sess,
            [names[name] for name in (*graph.inputs, *fed)],
            [memory] * len(graph.outputs),
            gradients,
            [memory] * len(gradients),
            0,
        )
        self._fed = [ort_session.to_ort(self._binding, held[name]) for name in fed]

    def forward(self, inputs: Sequence[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], OrtRun]:
        """Run forward; see the Protocol."""
        feeds = ort_session.feeds_of(self._binding, inputs, self._fed)
        fetches = self._binding.OrtValueVector()
        state = self._binding.PartialGraphExecutionState()
        with ort_session.refusals(self.graph.inputs, inputs):
            self._agent.run_forward(feeds, fetches, state, None)
        # The backward half may reuse the memory of what the forward half gave, hence the copies.
        outputs = tuple(output.clone() for output in ort_session.to_torch(fetches))
        return outputs, OrtRun(self, state, [(output.shape, output.dtype) for output in outputs])

    def backward(
        self, state: Any, outputs: Sequence[_Shape], gradients: Sequence[torch.Tensor | None]
    ) -> tuple[torch.Tensor, ...]:
        """Run the second half of a forward run; to be called through its OrtRun."""
        feeds = self._binding.OrtValueVector()
        for at in self._with_gradient:
            given, (shape, dtype) = gradients[at], outputs[at]
            gradient = (
                torch.zeros(shape, dtype=dtype, device=self._device) if given is None else ort_session.packed(given)
            )
            feeds.push_back(gradient.__dlpack__(), False)
        fetches = self._binding.OrtValueVector()
        self._agent.run_backward(feeds, fetches, state)
        return tuple(fetches.to_dlpacks(from_dlpack))

    def _build(self, model: onnx.ModelProto, fed: list[str], wrt: list[str]) -> Any:
        binding = self._binding
        configuration = binding.OrtModuleGraphBuilderConfiguration()
        configuration.initializer_names = fed
        configuration.initializer_names_to_train = [name for name in wrt if name in set(fed)]
        configuration.input_names_require_grad = [name for name in wrt if name not in set(fed)]
        configuration.build_gradient_graph = True
        configuration.loglevel = binding.Severity(ort_session.QUIET)
        builder = binding.OrtModuleGraphBuilder()
        try:
            builder.initialize(model.SerializeToString(), configuration)
            builder.build(binding.TrainingGraphTransformerConfiguration())
        except RuntimeError as error:
            raise UnsupportedOperatorError(
                f"onnxruntime-training cannot build the gradient of this network: {ort_session.reason_of(error)}",
                fix="Freeze the parameters before that operator (freeze=[...], --freeze PATTERN), or export the model "
                "with other operators.",
            ) from None
        return builder


class OrtRun:
    """A forward run of an OrtEngine that waits for its backward run.

    It keeps the shapes of the outputs and not the outputs, which lead back to it through autograd.
    """

    def __init__(self, engine: OrtEngine, state: Any, outputs: Sequence[_Shape]) -> None:
        self._engine = engine
        self._state = state
        self._outputs = outputs

    def backward(self, gradients: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
        """The gradients of `graph.wrt`; see the Protocol."""
        if self._state is None:
            raise TrainingError(
                "backward was already run for this forward run, and its activations are gone",
                fix="Run forward again; retain_graph has no effect on an ONNX network.",
            )
        state, self._state = self._state, None
        return self._engine.backward(state, self._outputs, gradients)


def _fit(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A copy that the graph builder takes, and what each graph input is called in it.

    The builder names gradients `<tensor>_grad`, so no tensor may be called that, and it cannot add up the gradients of
    a graph input that one node reads twice. Two more things go wrong silently, and a Reshape to the same shape, which
    copies nothing, stands in their way: a batch normalisation right before the end updates no statistics, since the
    runtime never works in place in a node that the YieldOp alone reads; and several Slices or Gathers of one tensor
    are fused into a Split, whose gradient is garbage unless every part has one.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    made = {name for node in graph.node for name in node.output if name}
    ends = [*graph.input, *graph.output, *graph.initializer]
    names = _fresh_names({*made, *(end.name for end in ends)})
    for end in ends:
        end.name = names[end.name]
    given = {value.name for value in graph.output}
    inner = {name: f"{names[name]}:inner" for name in made if names[name] in given}
    fed = {value.name for value in graph.input}
    nodes: list[onnx.NodeProto] = []
    for at, node in enumerate(graph.node):
        node.name = f"{at}:{node.op_type}:{node.name}"
        if node.op_type == "Detach":
            node.op_type, node.domain = DETACHING, ""
        node.input[:] = [inner.get(name) or names.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name) or names.get(name, name) for name in node.output]
        for name, count in Counter(node.input).items():
            if count > 1 and name in fed:
                again = f"{node.name}:{name}"
                node.input[list(node.input).index(name)] = again
                nodes.append(helper.make_node("Identity", [name], [again], name=f"{again}:Identity"))
        if node.op_type in ("Slice", "Gather"):
            nodes += _same_shape(node.input[0], f"{node.name}:data")
            node.input[0] = f"{node.name}:data"
        nodes.append(node)
    for name, inside in inner.items():
        nodes += _same_shape(inside, names[name])
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
    return result, names


def _same_shape(tensor: str, result: str) -> list[onnx.NodeProto]:
    """Nodes that give a tensor another name, and that no optimisation removes."""
    shape = helper.make_node("Shape", [tensor], [f"{result}:shape"], name=f"{result}:Shape")
    return [shape, helper.make_node("Reshape", [tensor, f"{result}:shape"], [result], name=f"{result}:Reshape")]


def _fresh_names(tensors: set[str]) -> dict[str, str]:
    """A name for each tensor: its own, unless that is one that the builder gives to gradients."""
    names = {}
    for name in sorted(tensors):
        names[name] = name
        while names[name].endswith("_grad") or (names[name] != name and names[name] in tensors):
            names[name] += "_tensor"
    return names
