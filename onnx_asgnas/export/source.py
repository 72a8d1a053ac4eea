"""The file that an export writes: its head, a class for each form of block, and the function that loads it."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from onnx_asgnas.export.classes import ModuleClass, Program
from onnx_asgnas.export.code import Call, Code, Expression, Ref, Step, Value, mapped, tuple_of
from onnx_asgnas.export.inlining import inlined
from onnx_asgnas.export.layout import WIDTH, laid_out, signature, text_of
from onnx_asgnas.export.naming import identifier, safe_text
from onnx_asgnas.export.variables import Kind, input_names, variable_names
from onnx_asgnas.graph import TraceGraph

_TYPES = {"tensor": "torch.Tensor", "mask": "torch.Tensor", "length": "int", "shape": "tuple[int, ...]"}


class SourceFile:
    """Writes a program; `steps` are all steps of the network, which say what is no tensor."""

    def __init__(self, graph: TraceGraph, program: Program, steps: Sequence[Step]) -> None:
        self._graph = graph
        self._program = program
        self._host = {name: step.host for step in steps for name in step.outputs if step.host is not None}

    def text(self, title: str) -> str:
        """The whole file."""
        bodies = [self._class(each, last=each is self._program.classes[-1]) for each in self._program.classes]
        lines = [line for body in bodies for line in ["", "", *body]]
        functional = any("F." in line for line in lines)
        head = [f'"""{line}' if at == 0 else line for at, line in enumerate(self._head(title))]
        imports = [
            "from pathlib import Path",
            "",
            "import torch",
            *(["import torch.nn.functional as F"] if functional else []),
            "from safetensors.torch import load_file",
            "from torch import nn",
            "",
            'WEIGHTS = Path(__file__).with_suffix(".safetensors")',
        ]
        name = self._program.classes[-1].name
        load = [
            f"def load(weights: Path = WEIGHTS) -> {name}:",
            '    """The network with its weights, ready for inference."""',
            f"    network = {name}()",
            "    network.load_state_dict(load_file(weights), assign=True)",
            "    return network.eval()",
        ]
        return "\n".join([*head, "", *imports, *lines, "", "", *load, ""])

    def _head(self, title: str) -> list[str]:
        names = [*zip(self._graph.inputs, self._input_names().values(), strict=True)]
        inputs = [f"    {variable}: {self._described(name)}" for name, variable in names]
        outputs = [f"    {self._described(name)} ({safe_text(name)})" for name in self._graph.outputs]
        return [f"The network of {safe_text(title)}.", "", "Inputs:", *inputs, "Outputs:", *outputs, '"""']

    def _described(self, name: str) -> str:
        kind = TensorProto.DataType.Name(self._graph.dtype(name) or TensorProto.FLOAT).lower()
        shape = self._graph.shape(name)
        return kind if shape is None else f"{kind}[{', '.join('?' if n is None else str(n) for n in shape)}]"

    def _input_names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for name in self._graph.inputs:
            names[name] = identifier(name, set(names.values()), "x")
        return names

    def _kind(self, name: str) -> str:
        if name in self._host:
            return "shape" if self._host[name] else "length"
        return "mask" if self._graph.dtype(name) == TensorProto.BOOL else "tensor"

    def _class(self, found: ModuleClass, last: bool) -> list[str]:
        place = "The whole network." if last else f"The block {safe_text('.'.join(found.path))}, and those of its form."
        if not last and found.uses == 1:
            place = f"The block {safe_text('.'.join(found.path))}."
        lines = [f"class {found.name}(nn.Module):", f'    """{place}"""', ""]
        if found.members or found.kept:
            lines += [*self._init(found), ""]
        return [*lines, *self._forward(found, last)]

    def _init(self, found: ModuleClass) -> list[str]:
        parameters = [f"{name}: {_annotation(values)}" for name, values in found.parameters.items()]
        lines = signature("__init__", ["self", *parameters], "None", 4)
        lines.append("        super().__init__()")
        lines += [f"        self.{name} = {name}" for name in found.kept]
        for name, make in found.members:
            lines += laid_out(make, 8, f"self.{name} = ")
        return lines

    def _forward(self, found: ModuleClass, last: bool) -> list[str]:
        steps = inlined(found.steps, found.outputs)
        kind: Kind = self._kind
        inputs = self._input_names() if last else input_names(found.inputs, kind)
        reads, gives, names = variable_names(inputs, steps, found.outputs, kind, frozenset({"F", "nn", "torch"}))
        types = [_TYPES[kind(name)] for name in found.outputs]
        result = types[0] if len(types) == 1 else f"tuple[{', '.join(types)}]"
        if len(types) > 3:
            result = f"tuple[{' | '.join(dict.fromkeys(types))}, ...]"
        parameters = [f"{variable}: {_TYPES[kind(name)]}" for name, variable in inputs.items()]
        lines = signature("forward", ["self", *parameters], result, 4)
        returned: Expression = Code(names[found.outputs[0]])
        if len(found.outputs) > 1:
            returned = tuple_of(tuple(Code(names[name]) for name in found.outputs))
            if len(text_of(returned)) < 70:
                returned = Code(text_of(returned)[1:-1])
        for at, (step, read, given) in enumerate(zip(steps, reads, gives, strict=True)):
            code = mapped(step.code, lambda part, read=read: _named(part, read))  # type: ignore[misc]
            if at == len(steps) - 1 and step.outputs == tuple(found.outputs) and len(given) == 1:
                return [*lines, *laid_out(code, 8, "return ")]
            target = f"({given[0]},)" if len(given) == 1 and _gives_a_tuple(step) else ", ".join(given)
            lines += _assigned(target, given, code)
        return [*lines, *laid_out(returned, 8, "return ")]


def _assigned(target: str, given: Sequence[str], code: Expression) -> list[str]:
    """An assignment; names that are too many for a line have one each."""
    lines = laid_out(code, 8, f"{target} = ")
    if len(given) == 1 or len(lines[0]) <= WIDTH:
        return lines
    return ["        (", *(f"            {name}," for name in given), *laid_out(code, 8, ") = ")]


def _named(part: Expression, read: dict[str, str]) -> Expression | None:
    return Code(read[part.tensor]) if isinstance(part, Ref) else None


def _gives_a_tuple(step: Step) -> bool:
    """Is it a call that gives a tuple even of one: of torch.split and torch.chunk."""
    function = step.code.function if isinstance(step.code, Call) else None
    return isinstance(function, Code) and function.text in ("torch.split", "torch.chunk", "torch.topk")


def _annotation(values: Sequence[Value]) -> str:
    kinds = dict.fromkeys("tuple[int, ...]" if isinstance(v, tuple) else type(v).__name__ for v in values)
    return " | ".join("None" if kind == "NoneType" else kind for kind in kinds)
