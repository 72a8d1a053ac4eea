"""From the nodes of a network to steps: one line of PyTorch for each node, or for several that are one layer."""

from __future__ import annotations

from dataclasses import replace

import onnx_asgnas.export.torch_ops  # noqa: F401  (fills the registry)
from onnx_asgnas.errors import UnsupportedOperatorError
from onnx_asgnas.export.code import (
    Call,
    Code,
    Device,
    Expression,
    Lit,
    Member,
    Own,
    Ref,
    Step,
    Stored,
    call,
    mapped,
    refs,
    tuple_of,
)
from onnx_asgnas.export.dtypes import torch_dtype
from onnx_asgnas.export.fusion import fused_activations
from onnx_asgnas.export.registry import writer_of
from onnx_asgnas.export.scopes import Scope, scopes_of
from onnx_asgnas.export.site import Site
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import rules_of

_FLOAT32 = 1
_AS_TENSOR = " as a tensor"


def steps_of(graph: TraceGraph) -> list[Step]:
    """The forward pass, weights that are read by themselves included.

    Raises UnsupportedOperatorError with the names of all operators that cannot be written.
    """
    _refuse_unknown(graph)
    scopes = scopes_of(graph)
    fused = fused_activations(graph, scopes)
    host: dict[str, int] = {}
    done: set[int] = set()
    steps: list[Step] = []
    for index in range(len(graph.nodes)):
        if index in fused:
            step = fused[index]
            if step is not None:
                steps.append(step)
            continue
        if index in done:
            continue
        site = Site(graph, index, scopes[index], host)
        writer = writer_of(site)
        assert writer is not None
        step = writer(site)
        done |= site.absorbed
        steps.append(step)
        if step.host is not None:
            host.update(dict.fromkeys(step.outputs, step.host))
    steps = _without_aliases([*steps, *_lengths_given(graph, host)], graph)
    return _with_joints_outside([*_weights(graph, steps), *_growing(steps)])


def _growing(steps: list[Step]) -> list[Step]:
    """Joining what was joined before and some more takes up the former, as the features of a dense block grow."""
    joined: dict[tuple[str, ...], str] = {}
    result = []
    for step in steps:
        operands = _operands_of_cat(step)
        for end in range(len(operands) - 1, 2, -1):  # at least two, behind the axis
            if operands[:end] in joined:
                parts = (joined[operands[:end]], *operands[end:])
                step = replace(step, code=_cat_of(step, parts))
                break
        if operands:
            joined[operands] = step.outputs[0]
        result.append(step)
    return result


def _operands_of_cat(step: Step) -> tuple[str, ...]:
    """What a step joins, behind the axis that it does so along; () for any other step."""
    if not isinstance(step.code, Call) or not _is_cat(step):
        return ()
    values, axis = step.code.arguments
    plain = isinstance(values, Code) and all(isinstance(each, Ref) for each in values.arguments)
    return (str(axis), *refs(values)) if plain else ()


def _cat_of(step: Step, names: tuple[str, ...]) -> Expression:
    assert isinstance(step.code, Call)
    return replace(step.code, arguments=(tuple_of(tuple(map(Ref, names))), *step.code.arguments[1:]))


def _without_aliases(steps: list[Step], graph: TraceGraph) -> list[Step]:
    """A second name of a value is the first one, so that no block gives back what it was given."""
    first: dict[str, Expression] = {}
    kept = []
    for step in steps:
        code = mapped(step.code, lambda part: first.get(part.tensor) if isinstance(part, Ref) else None)
        data = first.get(step.data)
        step = replace(step, code=code, data=data.tensor if isinstance(data, Ref) else step.data)
        if isinstance(code, Ref) and not graph.is_output(step.outputs[0]):
            first[step.outputs[0]] = code
        else:
            kept.append(step)
    return kept


def outputs_of(graph: TraceGraph, steps: list[Step]) -> tuple[str, ...]:
    """What the network gives: lengths as tensors."""
    made = {name for step in steps for name in step.outputs}
    return tuple(name + _AS_TENSOR if name + _AS_TENSOR in made else name for name in graph.outputs)


def _lengths_given(graph: TraceGraph, host: dict[str, int]) -> list[Step]:
    return [
        Step((name + _AS_TENSOR,), call("torch.tensor", Ref(name), device=Device()))
        for name in dict.fromkeys(graph.outputs)
        if name in host
    ]


def _with_joints_outside(steps: list[Step]) -> list[Step]:
    """Joining what blocks gave is no part of the block that reads it: dense layers then are of one form."""
    scope_of = {name: step.scope for step in steps for name in step.outputs}
    return [replace(step, scope=_scope_of_joint(step, scope_of)) if _is_cat(step) else step for step in steps]


def _is_cat(step: Step) -> bool:
    return isinstance(step.code, Call) and step.code.function == Code("torch.cat")


def _scope_of_joint(step: Step, scope_of: dict[str, Scope]) -> Scope:
    """The smallest block around it in which one of its operands is made."""
    makers = [scope_of.get(name, ()) for name in refs(step.code)]
    scope = step.scope
    while scope and not any(maker[: len(scope)] == scope for maker in makers):
        scope = scope[:-1]
    return scope


def _refuse_unknown(graph: TraceGraph) -> None:
    for name in graph.inputs:
        torch_dtype(graph.dtype(name))
    unknown: dict[str, str] = {}
    for index in range(len(graph.nodes)):
        site = Site(graph, index, (), {})
        if writer_of(site) is None:
            unknown.setdefault(site.node.op_type, site.node.name)
    if unknown:
        names = ", ".join(f"{op_type} ({name!r})" for op_type, name in unknown.items())
        raise UnsupportedOperatorError(
            f"no PyTorch code can be written for: {names}",
            fix="Run the network in onnxruntime, or train it as an OnnxModule.",
            op_type=next(iter(unknown)),
            op_types=tuple(unknown),
        )


def _weights(graph: TraceGraph, steps: list[Step]) -> list[Step]:
    """A step for each initializer that code reads by its name, which is a parameter or a buffer."""
    readers: dict[str, list[Scope]] = {}
    for step in steps:
        for name in refs(step.code):
            if name in graph.initializers:
                readers.setdefault(name, []).append(step.scope)
    for name in graph.outputs:
        if name in graph.initializers:
            readers.setdefault(name, []).append(())
    trained = _trained(graph)
    return [_weight(graph, name, _common(scopes), name in trained) for name, scopes in readers.items()]


def _weight(graph: TraceGraph, name: str, scope: Scope, trained: bool) -> Step:
    tensor = graph.initializers[name]
    sizes = tuple(Lit(int(n), "size") for n in tensor.dims)
    shape: tuple[Expression, ...] = sizes or (Lit((), "shape"),)
    kind = torch_dtype(tensor.data_type)
    settings: dict[str, Expression] = {} if tensor.data_type == _FLOAT32 else {"dtype": Code(f"torch.{kind}")}
    make = call("nn.Parameter" if trained else "nn.Buffer", call("torch.empty", *shape, **settings))
    parts = tuple(name.replace("/", ".").strip(".").split("."))
    return Step((name,), Own(Member(parts, make, {"": Stored(name)})), scope)


def _trained(graph: TraceGraph) -> set[str]:
    """The initializers that stand where an operator's parameters do."""
    found = set()
    for node, rule in zip(graph.nodes, rules_of(graph), strict=True):
        for at in rule.parameters if rule is not None else ():
            if at < len(node.input) and node.input[at] in graph.initializers:
                name = node.input[at]
                if torch_dtype(graph.initializers[name].data_type).startswith(("float", "bfloat")):
                    found.add(name)
    return found


def _common(scopes: list[Scope]) -> Scope:
    first, last = min(scopes), max(scopes)
    length = next(
        (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    return first[:length]
