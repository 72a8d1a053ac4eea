"""An ONNX network as a torch module: torch's losses, optimisers and schedulers train it, onnxruntime computes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch.autograd.function import once_differentiable

from onnx_asgnas.config import EngineOptions
from onnx_asgnas.errors import InputError, ModelError, TrainingError
from onnx_asgnas.graph import ModelSource, TraceGraph
from onnx_asgnas.operators import trainable_parameters
from onnx_asgnas.training.engines import Engine, create_engine, dialect_of, refuse_torch_options, resolve_engine
from onnx_asgnas.training.engines.ort_session import OrtInference
from onnx_asgnas.training.inputs import InputSpec, bind_inputs, input_specs
from onnx_asgnas.training.lowering import (
    TrainingGraph,
    batch_norm_statistics,
    feed_from_outside,
    in_float32,
    loadable,
    lower,
)
from onnx_asgnas.training.scopes import Scope, mount

Outputs: TypeAlias = "torch.Tensor | tuple[torch.Tensor, ...]"


class OnnxModule(Scope):
    """A network in ONNX as a `torch.nn.Module` whose forward pass is differentiable.

    `model` is a path, bytes, a ModelProto or a TraceGraph. `named_parameters()` gives the float weights under their
    ONNX names, `named_buffers()` the running means and variances of batch normalisations. All parameters are views of
    `flat`, one float32 vector in the order of `parameters()`.

    In `train()` mode batch normalisation uses the batch's statistics and updates the running ones in place as ONNX
    says: running = momentum * running + (1 - momentum) * batch, with the population variance (torch takes the sample
    variance, which is larger by n / (n - 1) for n values per channel). `freeze_bn` keeps it in inference form. In
    `eval()` mode the network runs in an inference session that reads the same weights, and nothing is updated.
    Gradients can be had in both modes.

    `freeze` and `train` are name patterns (`*`, `?`, `[...]`): parameters that start without `requires_grad`, and
    float constants that become parameters too. `requires_grad_()` works at any time: what needs no gradient is left
    out of the backward graph from the next forward on.

    `engine` is the name of what computes outputs and gradients (`ort`, `torch`, or `auto`), or all of its options;
    `device` and `threads` stand for those of its fields. `to(device)` moves the module where its engine is torch, and
    inputs are taken from any device. Off the CPU the engine also evaluates.

    A network in half precision is trained in float32: its parameters are float32 masters, its inputs may be given in
    either type, and `to_onnx()` gives the types of the source. So is one whose weights are float64, which then is
    computed in float32 throughout.

    Copies (`copy.deepcopy`, `pickle`) have weights, statistics, options and mode of their own, but neither gradients
    nor hooks. Raises ModelError for a model that cannot train, UnsupportedOperatorError for an operator without a
    gradient, InputError for an unknown engine or a pattern that matches nothing.
    """

    def __init__(
        self,
        model: ModelSource | TraceGraph,
        engine: str | EngineOptions = "auto",
        *,
        freeze: Iterable[str] = (),
        train: Iterable[str] = (),
        freeze_bn: bool = False,
        device: str | torch.device | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        self._options = _options(engine, device, threads)
        graph = model if isinstance(model, TraceGraph) else TraceGraph.of(model)
        statistics = batch_norm_statistics(graph.model)
        names = _parameters(graph, statistics, tuple(train))
        frozen = _matching(names, tuple(freeze), "freeze")
        _refuse_nothing_to_train(names, frozen)
        self._source = graph.model
        self._freeze_bn = freeze_bn
        self._specs: tuple[InputSpec, ...] = input_specs(graph.model)
        self._run_in = _types_run_in(graph.model, names)
        self._engines: dict[tuple[tuple[str, ...], bool], Engine] = {}
        self._inference: OrtInference | None = None
        self._mount(graph, names, statistics, frozen)
        lowered = self._lower(tuple(name for name in self._held_parameters if name not in frozen), freeze_bn)
        if not lowered.wrt:
            raise ModelError(
                "no trainable weight reaches an output of the model by a differentiable path",
                fix="Check that the model's outputs are its predictions, and not class numbers or boxes.",
            )

    @property
    def source(self) -> onnx.ModelProto:
        """The network in normal form, with the weights that it came with. Not to be changed."""
        return self._source

    @property
    def flat(self) -> torch.Tensor:
        """All parameters as one contiguous float32 vector of shape [n]; they are views of it."""
        return self._flat

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and where outputs are given."""
        return self._flat.device

    @property
    def engine(self) -> str:
        """The name of the engine that computes gradients: `ort` or `torch`."""
        return self._options.engine

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of what `forward` takes, in order."""
        return tuple(spec.name for spec in self._specs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of what `forward` gives, in order."""
        return tuple(value.name for value in self._source.graph.output)

    def forward(self, /, *args: torch.Tensor, **kwargs: torch.Tensor) -> Outputs:
        """The network's output, or a tuple where it has several; inputs are given in order or by their ONNX names.

        Raises DataError for inputs that the network refuses: it names them, and what is expected.
        """
        bound = bind_inputs(self._specs, args, kwargs)
        inputs = [x.to(self.device, dtype) for x, dtype in zip(bound, self._run_in, strict=True)]
        self._reattach()
        outputs: tuple[torch.Tensor, ...]
        trained = {name: p for name, p in self._held_parameters.items() if p.requires_grad}
        if torch.is_grad_enabled():
            sought = [spec.name for spec, x in zip(self._specs, inputs, strict=True) if x.requires_grad]
            function: Any = _Train if self.training else _Evaluate
            outputs = function.apply(self, (*sought, *trained), *inputs, *trained.values())
        elif self.training:
            outputs, _ = self._engine(tuple(trained), self._freeze_bn).forward(inputs)
        else:
            outputs = self._evaluate(inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def to_onnx(self) -> onnx.ModelProto:
        """The network in normal form with today's weights and statistics; it shares no memory with this module."""
        result = onnx.ModelProto()
        result.CopyFrom(self._source)
        held = self._held()
        for tensor in result.graph.initializer:
            if tensor.name in held:
                kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
                value = held[tensor.name].detach().cpu().numpy().astype(kind, copy=False)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        return result

    def __repr__(self) -> str:
        inputs, outputs = ", ".join(map(str, self._specs)), ", ".join(self.output_names)
        return f"OnnxModule({self._source.graph.name}: {inputs} -> {outputs}; {self._flat.numel()} parameters)"

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Copy parameters and statistics in, as torch does; `assign` would break up `flat` and is refused."""
        if assign:
            raise InputError(
                "load_state_dict(assign=True) would take the parameters out of `flat`", fix="Leave it out."
            )
        return super().load_state_dict(state_dict, strict=strict)

    def __reduce__(self) -> tuple[Any, ...]:
        options = (self._options, self._freeze_bn, tuple(self._held_parameters))
        return _restore, (self._source.SerializeToString(), options, *_state(self))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> OnnxModule:
        """What to(), half(), cuda() and the like call: the vector moves as a whole, and stays float32."""
        moved = fn(self._flat)
        if moved.dtype != torch.float32:
            raise InputError(
                f"an ONNX network is trained in float32, not in {moved.dtype}",
                fix='Leave the module as it is; EngineOptions(autocast="bf16") computes in bfloat16.',
            )
        if moved.device != self._flat.device:
            options = dataclasses.replace(self._options, device=str(moved.device))
            if self._options.engine == "ort":
                refuse_torch_options(options)
            self._options = options
            self._move(moved)
        self._forget_engines()
        return self

    def _move(self, flat: torch.Tensor) -> None:
        """Let parameters, gradients and statistics be where this copy of the vector is."""
        self._flat, start = flat, 0
        for name, parameter in self._held_parameters.items():
            shape = self._views[name].shape
            view = flat[start : start + shape.numel()].view(shape)
            gradient, parameter.grad = parameter.grad, None
            if torch._has_compatible_shallow_copy_type(parameter, view):
                parameter.data = view
            else:  # as torch does: another kind of memory needs another tensor inside of the same object
                swapped = torch.nn.Parameter(view, parameter.requires_grad)
                torch.utils.swap_tensors(parameter, swapped)  # type: ignore[no-untyped-call]
            self._views[name] = view
            parameter.grad = None if gradient is None else gradient.to(flat.device)
            start += view.numel()
        for name, statistic in self._held_statistics.items():
            entries, key = self._slots[name]
            self._held_statistics[name] = entries[key] = statistic.to(flat.device)

    def _mount(
        self, graph: TraceGraph, names: Sequence[str], statistics: Sequence[str], frozen: Collection[str]
    ) -> None:
        """Register parameters and statistics under their names; the vector follows the order that torch gives them."""
        taken = frozenset((*names, *statistics))
        self._held_statistics = {name: torch.from_numpy(graph.array(name).astype(np.float32)) for name in statistics}
        self._slots = {name: mount(self, name, tensor, taken) for name, tensor in self._held_statistics.items()}
        for name in names:
            empty = torch.empty(0, device=self._options.device)
            parameter = torch.nn.Parameter(empty, requires_grad=name not in frozen)
            self._slots[name] = mount(self, name, parameter, taken)
        self._held_parameters = dict(self.named_parameters())
        values = {name: graph.array(name) for name in self._held_parameters}
        self._flat = torch.empty(sum(value.size for value in values.values()))
        start, self._views = 0, dict[str, torch.Tensor]()
        for name, value in values.items():
            view = self._flat[start : start + value.size].view(value.shape)
            view.copy_(torch.from_numpy(value.astype(np.float32)))
            self._views[name] = view
            start += value.size
        self._move(self._flat.to(self._options.device))

    def _held(self) -> dict[str, torch.Tensor]:
        return {**self._held_parameters, **self._held_statistics}

    def _reattach(self) -> None:
        """Bring back what was put in the place of our tensors; the engines read those, and only those.

        `vector_to_parameters` sets the `.data` of a parameter to other memory, and assigning to a buffer replaces it:
        the values are taken over. Another Parameter in the place of one cannot be, since optimisers hold the old one.
        """
        for name, parameter in self._held_parameters.items():
            entries, key = self._slots[name]
            if entries[key] is not parameter:
                raise TrainingError(
                    f"parameter {name!r} was replaced by another object, which the ONNX network does not read",
                    fix="Copy values into the parameter instead, under torch.no_grad().",
                    parameter=name,
                )
            view = self._views[name]
            if parameter.data_ptr() != view.data_ptr():
                view.copy_(parameter.detach())
                parameter.data = view
        for name, statistic in self._held_statistics.items():
            entries, key = self._slots[name]
            if entries[key] is not statistic:
                statistic.copy_(entries[key])
                entries[key] = statistic

    def _lower(self, wrt: tuple[str, ...], freeze_bn: bool) -> TrainingGraph:
        names = tuple(self._held_parameters)
        return lower(self._source, names, wrt=wrt, freeze_bn=freeze_bn, dialect=dialect_of(self._options.engine))

    def _engine(self, wrt: tuple[str, ...], freeze_bn: bool) -> Engine:
        """The engine for these gradients, made when it is first needed; one without any is not to be had."""
        wrt = wrt or tuple(self._held_parameters)
        if (wrt, freeze_bn) not in self._engines:
            held = {name: tensor.detach() for name, tensor in self._held().items()}
            graph = self._lower(wrt, freeze_bn)
            self._engines[wrt, freeze_bn] = create_engine(graph, held, self._options)
        return self._engines[wrt, freeze_bn]

    def _evaluate(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if self.device.type != "cpu":
            return self._engine(tuple(self._held_parameters), True).forward(inputs)[0]
        if self._inference is None:
            held = {name: tensor.detach() for name, tensor in self._held().items()}
            model = loadable(in_float32(feed_from_outside(self._source, tuple(held)), tuple(self._held_parameters)))
            self._inference = OrtInference(model, self.input_names, held, threads=self._options.threads)
        return self._inference(inputs)

    def _forget_engines(self) -> None:
        self._engines.clear()
        self._inference = None


class _Train(torch.autograd.Function):
    """Forward and backward by the engine."""

    @staticmethod
    def forward(ctx: Any, module: OnnxModule, wrt: tuple[str, ...], *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        engine = module._engine(wrt, module._freeze_bn)
        outputs, run = engine.forward(tensors[: len(engine.graph.inputs)])
        ctx.run, ctx.wrt = run, engine.graph.wrt
        fixed = [out for out, moves in zip(outputs, engine.graph.differentiable, strict=True) if not moves]
        return _remember(ctx, module, wrt, tensors, outputs, fixed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        _ = ctx.saved_tensors  # torch raises here if a weight or an input was changed in place since
        return _in_order(ctx, ctx.wrt, ctx.run.backward(gradients))


class _Evaluate(torch.autograd.Function):
    """Forward at inference speed; who asks for a gradient pays for a run of the engine on the same inputs."""

    @staticmethod
    def forward(ctx: Any, module: OnnxModule, wrt: tuple[str, ...], *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = module._evaluate(tensors[: len(module.input_names)])
        ctx.module, ctx.wrt = module, wrt
        return _remember(ctx, module, wrt, tensors, outputs, [out for out in outputs if not out.is_floating_point()])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        inputs = ctx.saved_tensors[: len(ctx.module.input_names)]
        engine = ctx.module._engine(ctx.wrt, True)
        return _in_order(ctx, engine.graph.wrt, engine.forward(inputs)[1].backward(gradients))


def _remember(
    ctx: Any,
    module: OnnxModule,
    wrt: tuple[str, ...],
    tensors: Sequence[torch.Tensor],
    outputs: tuple[torch.Tensor, ...],
    fixed: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, ...]:
    """Note what backward needs; of `tensors`, the inputs come first and then the parameters that are in `wrt`."""
    ctx.names = (*module.input_names, *(name for name in wrt if name not in module.input_names))
    ctx.save_for_backward(*tensors)
    ctx.mark_non_differentiable(*fixed)
    ctx.set_materialize_grads(False)
    return outputs


def _in_order(ctx: Any, names: Sequence[str], gradients: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    found = dict(zip(names, gradients, strict=True))
    return (None, None, *(found.get(name) for name in ctx.names))


def _parameters(graph: TraceGraph, statistics: Sequence[str], train: Sequence[str]) -> tuple[str, ...]:
    """What trains by its role, and the float constants that the user named."""
    by_role = trainable_parameters(graph)
    constants = [
        name
        for name, tensor in graph.initializers.items()
        if tensor.data_type in _FLOATS and name not in by_role and name not in statistics
    ]
    named = _matching((*by_role, *constants), train, "train")
    return tuple(dict.fromkeys((*by_role, *(name for name in constants if name in named))))


def _matching(names: Sequence[str], patterns: Sequence[str], option: str) -> frozenset[str]:
    """The names that a pattern matches; raises InputError for a pattern that matches none."""
    found: set[str] = set()
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise InputError(
                f"{option} pattern {pattern!r} matches none of the model's {len(names)} float weights",
                fix=f"Their names are like {', '.join(names[:3])}." if names else "The model has none.",
                pattern=pattern,
            )
        found.update(matched)
    return frozenset(found)


_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def _options(engine: str | EngineOptions, device: str | torch.device | None, threads: int | None) -> EngineOptions:
    """All options, `auto` resolved; raises InputError for a name that is none, or what the ort engine has not."""
    options = EngineOptions(engine=engine) if isinstance(engine, str) else engine
    options = dataclasses.replace(
        options,
        device=options.device if device is None else str(device),
        threads=options.threads if threads is None else threads,
    )
    options = dataclasses.replace(options, engine=resolve_engine(options.engine, options.device))
    if options.engine == "ort":
        refuse_torch_options(options)
    return options


def _types_run_in(model: onnx.ModelProto, parameters: Sequence[str]) -> tuple[torch.dtype, ...]:
    """The types that the inputs are computed in: float32 where the model says half precision."""
    turned = in_float32(feed_from_outside(model, parameters), parameters)
    inputs = [value for value in turned.graph.input if value.name not in set(parameters)]
    probe = onnx.ModelProto()
    probe.graph.input.extend(inputs)
    return tuple(spec.dtype for spec in input_specs(probe))


def _refuse_nothing_to_train(names: Sequence[str], frozen: Collection[str]) -> None:
    if not names:
        raise ModelError(
            "the model has no trainable float weights",
            fix="If it is quantised, train the float model. Constants train when named (train=[...], --train PATTERN).",
        )
    if len(frozen) == len(names):
        raise ModelError("freeze matches every weight; there is nothing to train", fix="Freeze fewer.")


def _state(module: OnnxModule) -> tuple[Any, ...]:
    statistics = [tensor.clone() for tensor in module._held_statistics.values()]
    trained = [p.requires_grad for p in module.parameters()]
    return module.flat.clone(), statistics, trained, module.training


def _restore(
    source: bytes,
    options: tuple[EngineOptions, bool, tuple[str, ...]],
    flat: torch.Tensor,
    statistics: Sequence[torch.Tensor],
    trained: Sequence[bool],
    training: bool,
) -> OnnxModule:
    """The module that `__reduce__` took apart."""
    engine, freeze_bn, names = options
    model = onnx.ModelProto.FromString(source)
    module = OnnxModule(TraceGraph(model), engine, train=map(_literal, names), freeze_bn=freeze_bn)
    with torch.no_grad():
        module.flat.copy_(flat)
        for mine, given in zip(module._held_statistics.values(), statistics, strict=True):
            mine.copy_(given)
    for parameter, flag in zip(module.parameters(), trained, strict=True):
        parameter.requires_grad_(flag)
    return module.train(training)


def _literal(name: str) -> str:
    """A pattern that matches this name only."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
