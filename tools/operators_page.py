"""Write docs/operators.md from the registry, or check that it is what the registry says.

    python -m tools.operators_page [--check]

What an operator does with channels is found by trying: each axis of its inputs in turn is labelled, in the examples
that the tests of the registry run.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.operators import Entry, Rule, entries, rule_of, rules_of
from onnx_asgnas.space.coupling import Coupling
from onnx_asgnas.training.engines.torch_functions import TABLE
from onnx_asgnas.training.lowering.dialect import ORT_OPERATORS
from onnx_asgnas.training.lowering.path import QUANTISING, differentiable_ends
from onnx_asgnas.training.lowering.registry import REWRITES
from tests.operators.registry_cases import CASES, KEPT, Case, model_of

TARGET = Path(__file__).parents[1] / "docs" / "operators.md"
_HEAD = """# Operators

Made by `python -m tools.operators_page` from the operator registry; do not edit. {count} operators, {domains} domains.
An operator that is not in this list keeps all channels that it touches, and reports name it.

- **Channels**: what becomes of channels that lie along an axis (counted from the front) of the first input, tried on an
  example. They *pass* to the output, are *summed* over (columns of a weight leave with them), or *stay*, because the
  operator mixes them, is not finite at zero, or is not taken apart. Where inputs are several, all have channels there.
  *No channels*: in the example it works on whole numbers or truth values.
- **Trains**: the inputs that train, by role. Whatever else is a float constant does not.
- **Zero**: the inputs that make the outputs zero when they are; of a quantised tensor zero is its zero point.
- **ort**, **torch**: how a gradient gets through it on either engine: the engine differentiates the operator *itself*
  (in some forms or in all), it is *rewritten* in operators that the engine has, replaced by the *definition* that the
  standard gives, or there is *no* way. Empty: it carries no gradient (whole numbers, truth values, random numbers).

"""
_COLUMNS = ("Operator", "Since", "Channels", "Trains", "Zero", "ort", "torch")
_ORDER = ("pass", "summed", "stay")


def page() -> str:
    """The text of the page."""
    listed = entries()
    domains = sorted({entry.domain for entry in listed})
    parts = [_HEAD.format(count=len({(e.domain, e.op_type) for e in listed}), domains=len(domains))]
    for domain in domains:
        rows = [_row(entry) for entry in listed if entry.domain == domain]
        widths = [max(len(cell) for cell in column) for column in zip(_COLUMNS, *rows, strict=True)]
        parts.append(f"## {domain or 'ai.onnx'}\n\n")
        for row in (_COLUMNS, tuple("-" * width for width in widths), *rows):
            parts.append("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |\n")
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


def _row(entry: Entry) -> tuple[str, ...]:
    name, since = f"`{entry.op_type}`", str(entry.since_version)
    examples = [] if entry in KEPT else [case for case in CASES if _is_of(case, entry)] or _of_its_type(entry)
    gradients = tuple(_gradient(entry, engine) for engine in ("ort", "torch"))
    if not examples:
        return name, since, "stay", "", "never", *gradients
    rules = [_rule(case) for case in examples]
    roles = sorted({(p, role) for rule in rules for p, role in rule.parameters.items()})
    return (
        name,
        since,
        _channels(examples),
        ", ".join(f"{role} ({_input(entry, p)})" for p, role in roles),
        "; ".join(dict.fromkeys(_zero(entry, case, rule) for case, rule in zip(examples, rules, strict=True))),
        *gradients,
    )


def _gradient(entry: Entry, engine: str) -> str:
    """How a gradient gets through an operator: by itself, rewritten, by its definition, or not at all."""
    key = entry.domain, entry.op_type
    if not _carries_a_gradient(entry):
        return ""
    if key in TABLE if engine == "torch" else key in {("", op_type) for op_type in ORT_OPERATORS}:
        return "itself"
    if entry.op_type in QUANTISING - {"QuantizeLinear", "DequantizeLinear"}:
        return "no"
    if key in REWRITES or entry.op_type in _SUCCEEDED:
        return "rewritten"
    return "definition" if not entry.domain and _has_definition(entry.op_type) else "no"


def _carries_a_gradient(entry: Entry) -> bool:
    """Is there a float input and a float output that the standard or we differentiate."""
    if entry.op_type in _WITHOUT or entry.domain.startswith("ai.onnx."):
        return False
    if entry.domain:
        return True
    newest = onnx.defs.onnx_opset_version()
    if not onnx.defs.has(entry.op_type, newest):
        return True
    count = len(onnx.defs.get_schema(entry.op_type, newest).inputs)
    names = [f"x{at}" for at in range(count)]
    sources, targets = differentiable_ends(helper.make_node(entry.op_type, names, ["y"]), newest)
    return bool(sources and targets)


def _has_definition(op_type: str) -> bool:
    newest = onnx.defs.onnx_opset_version()
    schema = onnx.defs.get_schema(op_type, newest)
    return bool(schema.has_function or schema.has_context_dependent_function)


_SUCCEEDED = {"Scatter", "Upsample"}
"""Operators that newer operator sets have under another name."""

_WITHOUT = {
    "Bernoulli",
    "ConstantOfShape",
    "EyeLike",
    "ImageDecoder",
    "MelWeightMatrix",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Range",
    "RemovePadding",
    "RestorePadding",
    "TfIdfVectorizer",
    "Unique",
}
"""Operators that a gradient has no business in, whatever the types of their ends."""


def _of_its_type(entry: Entry) -> list[Case]:
    return [case for case in CASES if (case.domain, case.op_type) == (entry.domain, entry.op_type)]


def _is_of(case: Case, entry: Entry) -> bool:
    same = [e for e in entries() if (e.domain, e.op_type) == (case.domain, case.op_type)]
    version = case.opset if not case.domain else 1
    fitting = [e for e in same if e.since_version <= version]
    return bool(fitting) and fitting[-1] is entry


def _rule(case: Case) -> Rule:
    found = rule_of(TraceGraph(model_of(case)), 0)
    assert found is not None
    return found


def _zero(entry: Entry, case: Case, rule: Rule) -> str:
    """The smallest sets of inputs that make the outputs zero."""
    positions = sorted([*case.data, *case.constants])
    count = max(positions, default=-1) + 1
    smallest: list[tuple[int, ...]] = []
    for size in range(len(positions) + 1):
        for zeros in itertools.combinations(positions, size):
            absent = (p not in case.data and p not in case.constants for p in range(count))
            flags = tuple(p in zeros or gone for p, gone in zip(range(count), absent, strict=True))
            if not any(set(known) <= set(zeros) for known in smallest) and count and rule.zero(flags):
                smallest.append(zeros)
    if () in smallest:
        return "always"
    return " or ".join(" and ".join(_input(entry, p) for p in zeros) for zeros in smallest) or "never"


def _input(entry: Entry, position: int) -> str:
    """The name of an input in the standard, its place for the runtime's own operators."""
    if entry.domain == "com.microsoft" or not onnx.defs.has(entry.op_type, entry.domain):
        return f"input {position}"
    inputs = onnx.defs.get_schema(entry.op_type, entry.domain).inputs
    if inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic or position >= len(inputs):
        return f"input {position}"
    return str(inputs[position].name)


def _channels(examples: Sequence[Case]) -> str:
    """What becomes of channels along each axis, at its best in any of the examples of the highest rank."""
    rank = max((len(case.data[0]) for case in examples if 0 in case.data), default=0)
    found: dict[int, str] = {}
    for case in examples:
        if len(case.data.get(0, ())) == rank:
            for axis in range(rank):
                fate = _fate(case, axis - rank)
                if fate:
                    found[axis] = min(found.get(axis, "stay"), fate, key=_ORDER.index)
    words = []
    for fate in _ORDER:
        axes = [axis for axis, known in found.items() if known == fate]
        if axes:
            words.append(fate if len(axes) == len(found) else f"{fate} on {', '.join(map(str, axes))}")
    return "; ".join(words) or "no channels"


def _fate(case: Case, axis: int) -> str | None:
    """What becomes of channels along this axis (from the end); None where the example has one index there."""
    labelled = [p for p, shape in case.data.items() if len(shape) >= -axis and shape[axis] > 1 and _carries(case, p)]
    if 0 not in labelled:
        return None
    model = model_of(case)
    for position in labelled:
        _make(model, case, position, axis)
    traced = TraceGraph(model)
    coupling = Coupling.of(traced, rules_of(traced), sources=False)
    first = coupling
    while first.before is not None:
        first = first.before
    labels = first.book.axes["made0", 1].labels
    freezes = first.freezes_among(labels)
    if any(freeze.node >= 0 for freeze in freezes):
        return "stay"
    return "pass" if freezes else "summed"


def _carries(case: Case, position: int) -> bool:
    return position not in (*case.integers, *case.booleans, *case.ids)


def _make(model: onnx.ModelProto, case: Case, position: int, axis: int) -> None:
    """Let a MatMul make an input of the node, so that it has channels along this axis."""
    shape = list(case.data[position])
    rank, length, name = len(shape), shape[axis], f"in{position}"
    order = list(range(rank))
    order.insert(rank + axis, order.pop())
    read = [*shape[: rank + axis], *shape[rank + axis + 1 :], 3]
    nodes = [helper.make_node("MatMul", [f"x{position}", f"made{position}"], [f"h{position}"])]
    last = name if position not in case.bytes_ else f"f{position}"
    nodes.append(helper.make_node("Transpose", [f"h{position}"], [last], perm=order))
    if position in case.bytes_:
        nodes.append(helper.make_node("QuantizeLinear", [last, "scale", "zero"], [name]))
        values = {"scale": np.float32(1), "zero": np.uint8(0 if case.op_type == "ConvInteger" else 3)}
        given = {tensor.name for tensor in model.graph.initializer}
        model.graph.initializer.extend(
            numpy_helper.from_array(np.asarray(v), n) for n, v in values.items() if n not in given
        )
    whole = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(whole)
    kept = [value for value in model.graph.input if value.name != name]
    del model.graph.input[:]
    model.graph.input.extend([*kept, helper.make_tensor_value_info(f"x{position}", TensorProto.FLOAT, read)])
    weight = np.ones((3, length), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, f"made{position}"))


def main(arguments: Iterable[str] | None = None) -> int:
    """Write the page; with --check tell whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where it is out of date")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.check:
        return int(TARGET.read_text(encoding="utf-8") != page())
    TARGET.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
