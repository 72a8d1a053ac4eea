"""Gradients by torch: the training graph as torch functions under autograd, on any device that torch has.

It is the oracle of the other engine too: in float64, and with no kernel in common.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import onnx
import torch

from onnx_asgnas.config import EngineOptions
from onnx_asgnas.errors import DataError, TrainingError
from onnx_asgnas.training.engines.torch_functions import function_of
from onnx_asgnas.training.engines.torch_program import Program, StepError
from onnx_asgnas.training.lowering import Dialect, TrainingGraph

logger = logging.getLogger(__name__)


def _is_native(node: onnx.NodeProto) -> bool:
    return function_of(node) is not None


TORCH = Dialect(name="torch", native=_is_native)
"""What has a torch function."""


class TorchEngine:
    """An Engine (see the Protocol) by torch functions under autograd.

    `floats` is what the network's float32 is computed in; with float64, gradients are exact to some 1e-12, and the
    tensors of `held` are read through a copy. Raises UnsupportedOperatorError for an operator that has no function.
    """

    def __init__(
        self,
        graph: TrainingGraph,
        held: Mapping[str, torch.Tensor],
        options: EngineOptions | None = None,
        *,
        floats: torch.dtype = torch.float32,
    ) -> None:
        self.graph = graph
        self._options = options or EngineOptions(engine="torch")
        self._device = torch.device(self._options.device)
        self._floats = floats
        self._fed = [held[name] for name in (*graph.parameters, *graph.statistics)]
        names = (*graph.inputs, *graph.parameters, *graph.statistics)
        self._leaves = [names.index(name) for name in graph.wrt]
        program = Program(graph.model, graph.wrt, device=self._device, floats=floats)
        self._program: Any = program
        self._compiled: Any = torch.compile(program) if self._options.compile else None

    def forward(self, inputs: Sequence[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], TorchRun]:
        """Run forward; see the Protocol."""
        given = [self._taken(x) for x in inputs] + [self._read(tensor) for tensor in self._fed]
        leaves = []
        for at in self._leaves:
            given[at] = given[at].detach().requires_grad_()
            leaves.append(given[at])
        with torch.enable_grad(), self._autocast():
            results = self._run(given)
        outputs = tuple(self._given_out(result, given, at, results) for at, result in enumerate(results))
        return outputs, TorchRun(results, leaves, self.graph.differentiable)

    def _run(self, given: list[torch.Tensor]) -> list[torch.Tensor]:
        try:
            if self._compiled is not None:
                return self._run_compiled(given)
            results: list[torch.Tensor] = self._program(given)
            return results
        except StepError as error:
            raise self._refusal(given, error.reason) from None

    def _run_compiled(self, given: list[torch.Tensor]) -> list[torch.Tensor]:
        """The compiled program; where torch cannot compile it, the program as it is from then on, with a warning."""
        try:
            results: list[torch.Tensor] = self._compiled(given)
            return results
        except StepError:
            raise
        except Exception as error:  # dynamo's and inductor's errors have no common base
            reason = str(error).strip().splitlines()
            logger.warning("torch.compile fails, the network runs uncompiled: %s", reason[0] if reason else error)
            self._compiled = None
            plain: list[torch.Tensor] = self._program(given)
            return plain

    def _autocast(self) -> Any:
        if self._options.autocast is None:
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)

    def _taken(self, x: torch.Tensor) -> torch.Tensor:
        x = self._read(x)
        if self._options.channels_last and x.dim() == 4 and x.is_floating_point():
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def _read(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor from outside as the program reads it: itself, but for another device or precision."""
        return tensor.to(self._device, self._floats if tensor.dtype == torch.float32 else tensor.dtype)

    def _given_out(
        self, result: torch.Tensor, given: Sequence[torch.Tensor], at: int, results: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """An output in memory of its own, without the way back."""
        result = result.detach()
        if result.dtype in (torch.bfloat16, torch.float16) and self._options.autocast:
            return result.to(self._floats)
        others = (*given, *results[:at])
        memory = result.untyped_storage().data_ptr()
        shared = any(memory == other.untyped_storage().data_ptr() for other in others)
        return result.clone() if shared else result.contiguous()

    def _refusal(self, given: Sequence[torch.Tensor], reason: str) -> DataError:
        names = self.graph.inputs
        shapes = {name: tuple(tensor.shape) for name, tensor in zip(names, given, strict=False)}
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        return DataError(
            f"the network refuses its inputs ({listed}): {reason}",
            fix="Give inputs of the shape that the network was made for.",
            inputs=shapes,
        )


class TorchRun:
    """A forward run of a TorchEngine that waits for its backward run."""

    def __init__(
        self, results: Sequence[torch.Tensor], leaves: Sequence[torch.Tensor], differentiable: Sequence[bool]
    ) -> None:
        self._results: Sequence[torch.Tensor] | None = results
        self._leaves = leaves
        self._differentiable = differentiable

    def backward(self, gradients: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
        """The gradients of `graph.wrt`; see the Protocol."""
        if self._results is None:
            raise TrainingError(
                "backward was already run for this forward run, and its activations are gone",
                fix="Run forward again; retain_graph has no effect on an ONNX network.",
            )
        results, self._results = self._results, None
        ends, given = [], []
        for result, gradient, moves in zip(results, gradients, self._differentiable, strict=True):
            if moves and gradient is not None and result.requires_grad:
                ends.append(result)
                given.append(gradient.to(result.device, result.dtype))
        if not ends:
            return tuple(torch.zeros_like(leaf) for leaf in self._leaves)
        found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(ends, list(self._leaves), given, allow_unused=True)
        return tuple(
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(self._leaves, found, strict=True)
        )
