"""Blocks of one form become one class, whose parameters are the numbers in which they differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from onnx_asgnas.export.blocks import Block
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
    Value,
    mapped,
    members,
    refs,
    walk,
)
from onnx_asgnas.export.naming import class_name, identifier, member_names


@dataclass(slots=True)
class ModuleClass:
    """A class: its parameters with the values they take, and one block as the pattern, with `Code` for parameters."""

    name: str
    path: tuple[str, ...]
    parameters: dict[str, list[Value]]
    members: list[tuple[str, Expression]]
    steps: list[Step]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kept: list[str] = field(default_factory=list)
    """Parameters that the forward pass reads."""
    uses: int = 1
    """How many blocks there are of it."""


@dataclass(slots=True)
class Program:
    """All classes, those that others use first, and the values of the whole network by their names in its state."""

    classes: list[ModuleClass]
    tensors: dict[str, Stored]


@dataclass(slots=True)
class _Form:
    """A block whose smaller blocks are calls by now."""

    block: Block
    steps: list[Step]
    members: list[Member]
    names: list[str]
    signature: str


def program_of(root: Block, reserved: Collection[str], name: str) -> Program:
    """The classes of a network; `reserved` are the attributes that every module has."""
    return _Builder(frozenset(reserved), name).build(root)


class _Builder:
    def __init__(self, reserved: frozenset[str], name: str) -> None:
        self._reserved = reserved
        self._name = name
        self._classes: list[ModuleClass] = []
        self._calls: dict[int, Step] = {}

    def build(self, root: Block) -> Program:
        levels: defaultdict[int, list[Block]] = defaultdict(list)
        _height(root, levels)
        for height in sorted(levels)[:-1]:
            self._add(levels[height])
        form = self._form(root)
        found = self._class([form], self._name)
        self._classes.append(found)
        tensors = {}
        for name, member in zip(form.names, form.members, strict=True):
            tensors.update(_prefixed(name, member))
        return Program(self._classes, tensors)

    def _add(self, blocks: list[Block]) -> None:
        """Make the classes of blocks of one height, and a call of each block."""
        alike: defaultdict[str, list[_Form]] = defaultdict(list)
        for block in blocks:
            form = self._form(block)
            chain = _chain(form)
            if chain is not None:
                self._calls[id(block)] = _call(block, *chain)
            else:
                alike[form.signature].append(form)
        for forms in alike.values():
            name = class_name(forms[0].block.path, {each.name for each in self._classes} | {self._name})
            made = self._class(forms, name)
            self._classes.append(made)
            for at, form in enumerate(forms):
                settings = tuple((name, Lit(values[at], name)) for name, values in made.parameters.items())
                tensors: dict[str, Stored] = {}
                for name, member in zip(form.names, form.members, strict=True):
                    tensors.update(_prefixed(name, member))
                self._calls[id(form.block)] = _call(form.block, Call(Code(made.name), (), settings), tensors)

    def _form(self, block: Block) -> _Form:
        steps = [self._calls[id(item)] if isinstance(item, Block) else item for item in block.items]
        device = next((Code("{}.device", (Ref(name),)) for name in block.inputs if name not in _host(steps)), None)
        if device is not None:
            steps = [_on(step, device) for step in steps]
        held = list(dict.fromkeys(member for step in steps for member in members(step.code)))
        names = member_names([member.path for member in held], block.path, self._reserved)
        return _Form(block, steps, held, names, _signature(block, steps, dict(zip(held, names, strict=True))))

    def _class(self, forms: list[_Form], name: str) -> ModuleClass:
        """One class for blocks of one form: literals that differ become parameters, equal ones the same."""
        first = forms[0]
        slots = [_literals(form) for form in forms]
        taken = set(first.names) | self._reserved
        columns: dict[tuple[Value, ...], str] = {}
        texts: list[Expression] = []
        for at, (owner, literal) in enumerate(slots[0]):
            values = tuple(form[at][1].value for form in slots)
            if len({(type(value), value) for value in values}) == 1:
                texts.append(literal)
                continue
            if values not in columns:
                hint = f"{owner}_{literal.hint}" if owner else literal.hint
                columns[values] = identifier(hint, taken | set(columns.values()))
            texts.append(Code(columns[values]))
        made = _with_parameters(first, texts)
        held, steps = made
        kept: list[str] = []
        steps = [_reading_own(step, set(columns.values()), kept) for step in steps]
        parameters = {parameter: list(values) for values, parameter in columns.items()}
        path, block = first.block.path, first.block
        return ModuleClass(name, path, parameters, held, steps, block.inputs, block.outputs, kept, len(forms))


def _height(block: Block, levels: dict[int, list[Block]]) -> int:
    height = 1 + max((_height(item, levels) for item in block.items if isinstance(item, Block)), default=0)
    levels[height].append(block)
    return height


def _host(steps: Sequence[Step]) -> set[str]:
    return {name for step in steps if step.host is not None for name in step.outputs}


def _on(step: Step, device: Code) -> Step:
    code = mapped(step.code, lambda part: device if isinstance(part, Device) else None)
    return Step(step.outputs, code, step.scope, step.module, step.data, step.host)


def _prefixed(name: str, member: Member) -> dict[str, Stored]:
    return {f"{name}.{key}" if key else name: stored for key, stored in member.tensors.items()}


def _call(block: Block, make: Expression, tensors: dict[str, Stored]) -> Step:
    own = Own(Member(block.path, make, tensors))
    data = block.inputs[0] if block.inputs else ""
    return Step(block.outputs, Call(own, tuple(map(Ref, block.inputs))), block.path, own, data)


def _chain(form: _Form) -> tuple[Expression, dict[str, Stored]] | None:
    """The Sequential that a block is, where its steps follow one another under numbers; None where they do not."""
    block, steps = form.block, form.steps
    if len(block.inputs) != 1 or len(block.outputs) != 1 or len(steps) < 2:
        return None
    data, makes, tensors = block.inputs[0], [], {}
    for at, step in enumerate(steps):
        module = step.module
        if module is None or len(step.outputs) != 1 or step.data != data or not _is_part(step, block.path):
            return None
        if set(refs(step.code)) != {data}:
            return None
        if isinstance(module, Own):
            makes.append(module.member.make)
            tensors.update(_prefixed(str(at), module.member))
        else:
            makes.append(module)
        data = step.outputs[0]
    return (Call(Code("nn.Sequential"), tuple(makes)), tensors) if data == block.outputs[0] else None


def _is_part(step: Step, path: tuple[str, ...]) -> bool:
    """Does the step stand under a number in the block, as the members of a Sequential do."""
    rest = step.scope[len(path) :]
    return not rest or rest[0].isdigit()


def _signature(block: Block, steps: Sequence[Step], names: dict[Member, str]) -> str:
    """The form of a block as text: all but its literals."""
    tensors: dict[str, int] = {name: at for at, name in enumerate(block.inputs)}

    def text(part: Expression) -> str:
        match part:
            case Ref():
                return f"%{tensors.setdefault(part.tensor, len(tensors))}"
            case Lit():
                return "?"
            case Own():
                return f"self.{names[part.member]}={text(part.member.make)}"
            case Device():
                return "device"
            case Code():
                return f"{part.text}[{','.join(map(text, part.arguments))}]"
            case Call():
                keywords = (f"{name}={text(value)}" for name, value in part.keywords)
                return f"{text(part.function)}({','.join([*map(text, part.arguments), *keywords])})"

    lines = []
    for step in steps:
        code = text(step.code)
        given = [tensors.setdefault(name, len(tensors)) for name in step.outputs]
        lines.append(f"{given}={code}")
    lines.append(f"{[tensors.get(name) for name in block.outputs]}/{len(block.inputs)}")
    return "\n".join(lines)


def _literals(form: _Form) -> list[tuple[str, Lit]]:
    """All literals of a block in the order of `_with_parameters`, with the members that they belong to."""
    found = []
    for name, member in zip(form.names, form.members, strict=True):
        instance = isinstance(member.make, Call) and not member.make.arguments
        owner = "" if instance and len(form.members) == 1 else name
        found += [(owner, part) for part in walk(member.make) if isinstance(part, Lit)]
    for step in form.steps:
        found += [("", part) for part in walk(step.code) if isinstance(part, Lit)]
    return found


def _with_parameters(form: _Form, texts: list[Expression]) -> tuple[list[tuple[str, Expression]], list[Step]]:
    """The members and steps with these expressions in the place of the literals."""
    rest = iter(texts)

    def put(part: Expression) -> Expression | None:
        return next(rest) if isinstance(part, Lit) else None

    held = [(name, mapped(member.make, put)) for name, member in zip(form.names, form.members, strict=True)]
    called = dict(zip(form.members, form.names, strict=True))
    steps = []
    for step in form.steps:
        code = mapped(step.code, put)
        code = mapped(code, _named(called))
        steps.append(Step(step.outputs, code, step.scope, None, step.data, step.host))
    return held, steps


def _named(called: dict[Member, str]) -> Callable[[Expression], Expression | None]:
    return lambda part: Code(f"self.{called[part.member]}") if isinstance(part, Own) else None


def _reading_own(step: Step, parameters: set[str], kept: list[str]) -> Step:
    """In the forward pass a parameter is an attribute of the module."""

    def own(part: Expression) -> Expression | None:
        if isinstance(part, Code) and not part.arguments and part.text in parameters:
            if part.text not in kept:
                kept.append(part.text)
            return Code(f"self.{part.text}")
        return None

    return Step(step.outputs, mapped(step.code, own), step.scope, None, step.data, step.host)
