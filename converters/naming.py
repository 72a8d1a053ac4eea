"""The source's names for parameters, where an exporter has given its own.

An initializer is the parameter whose values it holds, in any shape and order (frameworks lay out kernels in different
ways, and exporters join the axes of heads). Parameters that hold equal values, as scales of one in a network that was
never trained, are told apart by what the same operator reads: the bias beside `conv1.weight` is `conv1.bias`. A kernel
into which an exporter has folded a normalisation is the parameter up to a factor for each channel.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_asgnas.converters.export import Array

_MATRIX = 2
_SAME = 1e-5
"""Of the rounding that folding a normalisation into a kernel in float32 leaves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What became of the parameters' names: `kept` came with the exporter, `renamed` maps its names to the source's.

    `scaled` are those of the renamed that the initializer holds up to a factor for each channel; `lost` are parameters
    that no initializer holds alone: folded, computed, or equal to others.
    """

    kept: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    scaled: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def name_parameters(model: onnx.ModelProto, parameters: Mapping[str, Array]) -> Names:
    """Give initializers their parameters' names, in place; a name that another tensor has is left alone."""
    graph = model.graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    kept = [name for name, values in parameters.items() if name in arrays and arrays[name].size == values.size]
    open_names = {name: values for name, values in parameters.items() if name not in kept}
    candidates = {name: array for name, array in arrays.items() if name not in kept and array.size}
    groups = _equal_ones(open_names, candidates)
    renamed: dict[str, str] = {}
    for wanted, found in groups:
        if len(wanted) == len(found) == 1:
            renamed[found[0]] = wanted[0]
    _by_neighbours(graph, groups, renamed, set(kept))
    given = set(renamed.values())
    scaled = _scaled_ones(
        {name: values for name, values in open_names.items() if name not in given},
        {name: values for name, values in candidates.items() if name not in renamed},
    )
    renamed |= scaled
    taken = {name for node in graph.node for name in (*node.input, *node.output)} - renamed.keys()
    renamed = {old: new for old, new in renamed.items() if new not in taken}
    rename(graph, renamed)
    lost = tuple(name for name in open_names if name not in set(renamed.values()))
    held = tuple(new for old, new in scaled.items() if old in renamed)
    return Names(kept=tuple(kept), renamed=renamed, scaled=held, lost=lost)


def name_by_twin(model: onnx.ModelProto, twin: onnx.ModelProto, parameters: Mapping[str, Array]) -> None:
    """Give initializers their parameters' names, in place, by a second export of the same network.

    In the twin no two parameters are equal, so that its initializers can be told apart; where they lie, those of the
    model lie too. Does nothing where the exporter has written the two differently.
    """
    if _structure(model.graph) != _structure(twin.graph):
        return
    arrays = {t.name: numpy_helper.to_array(t) for t in twin.graph.initializer}
    groups = _equal_ones(parameters, arrays)
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    found = {theirs[0]: ours[0] for ours, theirs in groups if len(ours) == len(theirs) == 1}
    rename(model.graph, {old: new for old, new in found.items() if new not in taken})


def _structure(graph: onnx.GraphProto) -> object:
    weights = [(t.name, tuple(t.dims)) for t in graph.initializer]
    return weights, [(n.op_type, tuple(n.input), tuple(n.output)) for n in graph.node]


def _equal_ones(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> list[tuple[list[str], list[str]]]:
    """Parameters and initializers with the same values in any order; sorting is put off until size and ends agree."""
    by_ends: dict[object, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, arrays in enumerate((wanted, found)):
        for name, array in arrays.items():
            if array.size and array.dtype.kind == "f":
                by_ends[array.size, float(array.min()), float(array.max())][side].append(name)
    groups: list[tuple[list[str], list[str]]] = []
    for ours, theirs in by_ends.values():
        if not (ours and theirs):
            continue
        by_values: dict[bytes, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for side, names in enumerate((ours, theirs)):
            for name in names:
                array = (wanted, found)[side][name]
                by_values[np.sort(array.astype(np.float64).reshape(-1)).tobytes()][side].append(name)
        groups += [group for group in by_values.values() if group[0] and group[1]]
    return groups


def _scaled_ones(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, str]:
    """From initializers to the parameter that each is, up to a factor for each place of an axis and to its layout."""
    by_size: dict[int, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, arrays in enumerate((wanted, found)):
        for name, array in arrays.items():
            if array.ndim >= _MATRIX and array.dtype.kind == "f":
                by_size[array.size][side].append(name)
    pairs = [
        (theirs, ours)
        for names, others in by_size.values()
        for theirs in others
        for ours in names
        if _is_scaled(wanted[ours], found[theirs])
    ]
    return {
        theirs: ours
        for theirs, ours in pairs
        if sum(ours in pair for pair in pairs) == sum(theirs in pair for pair in pairs) == 1
    }


def _is_scaled(one: Array, other: Array) -> bool:
    rows = list(_rows(other))
    return any(
        mine.shape == theirs.shape and np.allclose(mine, theirs, rtol=_SAME, atol=_SAME)
        for mine in _rows(one)
        for theirs in rows
    )


def _rows(array: Array) -> Iterator[Array]:
    """For each axis, of each place along it the sizes of the values, sorted and without their common factor."""
    for axis, length in enumerate(array.shape):
        if 1 < length < array.size:
            rows = np.sort(np.abs(np.moveaxis(array, axis, 0).reshape(length, -1).astype(np.float64)), axis=1)
            yield rows / np.maximum(rows[:, -1:], np.finfo(np.float32).tiny)


def _by_neighbours(
    graph: onnx.GraphProto,
    groups: Sequence[tuple[list[str], list[str]]],
    renamed: dict[str, str],
    kept: set[str],
) -> None:
    """Tell equal parameters apart by the layer that the tensors around an initializer belong to."""
    layers = _layers_around(graph, renamed, kept)
    for wanted, found in groups:
        if len(wanted) == len(found) == 1:
            continue
        free = list(wanted)
        for name in found:
            fitting = [each for each in free if _layer(each) in layers.get(name, ())]
            if len(fitting) == 1:
                renamed[name] = fitting[0]
                free.remove(fitting[0])


def _layers_around(graph: onnx.GraphProto, renamed: Mapping[str, str], kept: set[str]) -> dict[str, set[str]]:
    """For each initializer the layers of the named parameters that its reader, or that reader's sources, read."""
    names = dict(renamed) | {name: name for name in kept}
    producers = {output: node for node in graph.node for output in node.output}
    weights = {t.name for t in graph.initializer}
    found: dict[str, set[str]] = defaultdict(set)
    for node in graph.node:
        behind = [producers[name] for name in node.input if name in producers]
        read = [*node.input, *(name for each in behind for name in each.input)]
        layers = {_layer(names[name]) for name in read if name in names}
        for name in node.input:
            if name in weights:
                found[name] |= layers
    return found


def _layer(parameter: str) -> str:
    return re.sub(r"[./]?[^./]*$", "", parameter)


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give initializers other names, in place, and in all that reads them, subgraphs too."""
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for value in (*graph.value_info, *graph.input):
        value.name = names.get(value.name, value.name)
    graphs = [graph]
    while graphs:
        for node in graphs.pop().node:
            for at, name in enumerate(node.input):
                if name in names:
                    node.input[at] = names[name]
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else [*attribute.graphs]
