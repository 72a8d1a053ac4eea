"""Networks in onnxruntime sessions: tensors in and out without a copy, and errors that say what the network refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from torch.utils.dlpack import from_dlpack

from onnx_asgnas.errors import DataError, InputError, ModelError, PackageError
from onnx_asgnas.graph.packages import import_onnxruntime

QUIET = 4
"""Log nothing below fatal: what goes wrong is raised, and then said once."""


class OrtInference:
    """A network in inference form whose initializers in `held` are read from there, without a copy, at every call.

    Tensors are bound by their addresses, which every build of the runtime can do.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        inputs: Sequence[str],
        held: Mapping[str, torch.Tensor],
        threads: int | None = None,
    ) -> None:
        self._inputs = tuple(inputs)
        self._outputs = [value.name for value in model.graph.output]
        self._held = dict(held)
        self._session = open_session(model.SerializeToString(), threads)
        onnxruntime = import_onnxruntime()
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = QUIET
        binding = onnxruntime.capi._pybind_state
        self._value = binding.OrtValue
        self._device = memory_of(binding, "cpu")
        self._bound = binding.SessionIOBinding(self._session._sess)
        for name, tensor in self._held.items():
            self._bind(name, tensor)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The outputs, for contiguous inputs in order; raises DataError where the network refuses them."""
        with refusals(self._inputs, inputs):
            for name, tensor in zip(self._inputs, inputs, strict=True):
                self._bind(name, tensor)
            self._bound.clear_binding_outputs()  # what the last run gave is another's now
            for name in self._outputs:
                self._bound.bind_output(name, self._device)
            self._session._sess.run_with_iobinding(self._bound, self._options)
        return tuple(torch.from_numpy(np.asarray(value.numpy())) for value in self._bound.get_outputs())

    def _bind(self, name: str, tensor: torch.Tensor) -> None:
        dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        if tensor.numel():
            self._bound.bind_input(name, self._device, dtype.type, list(tensor.shape), tensor.data_ptr())
        else:  # it has no address
            empty = self._value.ortvalue_from_numpy(np.empty(tuple(tensor.shape), dtype), self._device)
            self._bound.bind_ortvalue_input(name, empty)


_PROVIDERS = {"cuda": "CUDAExecutionProvider"}
"""Beside the CPU's: what the runtime calls each of torch's devices."""


def providers_on(device: str) -> list[Any]:
    """The execution providers that run a network where torch's tensors of this device lie.

    Work on CUDA goes to torch's own stream, so that it stands in line with torch's. Raises InputError for a device that
    the runtime has not, PackageError where this build of it was made without.
    """
    where = torch.device(device)
    if where.type == "cpu":
        return ["CPUExecutionProvider"]
    if where.type not in _PROVIDERS:
        raise InputError(
            f"the ort engine trains on {' and '.join(('cpu', *_PROVIDERS))}, not on {where.type}",
            fix="Use engine torch.",
        )
    provider = _PROVIDERS[where.type]
    if provider not in import_onnxruntime().get_available_providers():
        raise PackageError(
            f"this build of onnxruntime has no {provider}", fix="Install one that has it, or use engine torch."
        )
    stream = torch.cuda.current_stream(where).cuda_stream
    options = {"device_id": str(where.index or 0), "user_compute_stream": str(stream)}
    return [(provider, options), "CPUExecutionProvider"]


def memory_of(binding: ModuleType, device: str) -> Any:
    """The memory of a device, as the runtime calls it."""
    where, kind = torch.device(device), binding.OrtDevice
    return kind(getattr(kind, where.type)(), kind.default_memory(), where.index or 0)


def open_session(model: bytes, threads: int | None, device: str = "cpu") -> Any:
    """A session on a device, with a thread for each core where `threads` is None; raises ModelError if refused."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = threads or 0
    # Threads that spin between two runs take the cores from torch: a loss of 0.5 ms then takes 20.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers_on(device))
    except InputError:
        raise
    except Exception as error:  # the runtime's errors have no common base
        raise ModelError(
            f"onnxruntime does not load the network: {reason_of(error)}",
            fix="Export the model with operators of the ONNX standard.",
        ) from None


def to_ort(binding: ModuleType, tensor: torch.Tensor) -> Any:
    """An OrtValue over the same memory."""
    tensor = packed(tensor.detach())
    if tensor.dtype == torch.bool:
        return binding.OrtValue.from_dlpack(tensor.view(torch.uint8).__dlpack__(), True)
    return binding.OrtValue.from_dlpack(tensor.__dlpack__(), False)


def packed(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in memory without gaps; the runtime looks at the strides even of one without elements."""
    return tensor.contiguous() if tensor.numel() else torch.empty_like(tensor, memory_format=torch.contiguous_format)


def feeds_of(binding: ModuleType, inputs: Sequence[torch.Tensor], fed: Sequence[Any]) -> Any:
    """The inputs of one run: tensors, then what every run is fed."""
    feeds = binding.OrtValueVector()
    feeds.reserve(len(inputs) + len(fed))
    for tensor in inputs:
        feeds.push_back(to_ort(binding, tensor))
    for value in fed:
        feeds.push_back(value)
    return feeds


def to_torch(values: Any) -> tuple[torch.Tensor, ...]:
    """The tensors of an OrtValueVector, in its own memory."""
    tensors = values.to_dlpacks(from_dlpack)
    for at in values.bool_tensor_indices():
        tensors[at] = tensors[at].view(torch.bool)
    return tuple(tensors)


@contextmanager
def refusals(names: Sequence[str], inputs: Sequence[torch.Tensor]) -> Iterator[None]:
    """Say which inputs the network refused, and at which operator, in place of the runtime's own error."""
    try:
        yield
    except Exception as error:
        if type(error).__module__ == "builtins" and not isinstance(error, RuntimeError):
            raise
        given = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in zip(names, inputs, strict=True))
        raise DataError(
            f"the network refuses its inputs ({given}): {reason_of(error)}",
            fix="Give inputs of the shape that the network was made for.",
            inputs={name: tuple(tensor.shape) for name, tensor in zip(names, inputs, strict=True)},
        ) from None


def reason_of(error: Exception) -> str:
    """What an onnxruntime error says, without its source paths and codes, and which node it is about."""
    text = str(error)
    running = re.search(r"running (\w+) node\. Name:'(?:\d+:\w+:)?([^']*)'", text)
    status = text.rsplit("Status Message:", 1)[-1].rsplit("] :", 1)[-1]
    status = re.sub(r"^\s*\d+ : [A-Z_]+ : ", "", status).strip().splitlines()[0]
    status = re.sub(r"^\S*\.(?:cc|h):\d+ .*?\) ", "", status)
    status = re.sub(r"\b\d+:(\w+):", r"\1 ", status)
    if running is None:
        return status
    node, of_gradient, _ = running[2].partition("_Grad/")  # the first half also runs what the gradient needs of shapes
    return f"{node!r}: {status}" if of_gradient else f"{running[1]} {node!r}: {status}"
