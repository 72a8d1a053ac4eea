"""Operators that pick values: Gather, Slice, ScatterND and their like."""

from __future__ import annotations

import numpy as np

from onnx_asgnas.export.code import Code, Expression, Lit, Step, Stored, call, index, infix, method, tuple_of
from onnx_asgnas.export.registry import writes
from onnx_asgnas.export.site import Site
from onnx_asgnas.export.torch_ops.lengths import is_computed, name_of

_END = 2**31 - 1
"""From here on, an end of a slice stands for the end of the axis."""


@writes("Gather")
def gather(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Gather.html"""
    axis, places = site.attribute("axis", 0), site.numbers(1)
    if is_computed(site) and places is not None and site.array(1) is not None:
        return _lengths(site, places, np.ndim(site.array(1)))  # type: ignore[arg-type]
    axis %= site.rank(0)
    table = site.array(0)
    if axis == 0 and table is not None and table.ndim == 2 and table.dtype.kind == "f" and site.is_whole(1):
        if site.is_own(0) and site.node.input[1] in site.graph.activations:
            sizes = (Lit(int(table.shape[0]), "rows"), Lit(int(table.shape[1]), "features"))
            tensors = {"weight": Stored(site.node.input[0])}
            return site.layer(call("nn.Embedding", *sizes), tensors, site[1], named=0)
        return site.step(call("F.embedding", site[1], site[0]))
    places_text = ", ".join([":"] * axis + ["{}"])
    if places is not None and site.rank(1) == 0:
        return site.step(index(site[0], places_text, Lit(places[0], "place")))
    if is_computed(site, 1) and site.host_rank(1) == 0:
        return site.step(index(site[0], places_text, name_of(site, 1)))
    return site.step(index(site[0], places_text, site[1]))


def _lengths(site: Site, places: list[int], rank: int) -> Step:
    if rank == 0:
        return site.step(index(name_of(site), "{}", Lit(places[0], "axis")), rank=0)
    items = tuple(index(name_of(site), "{}", Lit(at, "axis")) for at in places)
    return site.step(tuple_of(items), rank=1)


@writes("Slice", since_version=10)
def slices(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Slice.html"""
    starts, ends = site.numbers(1), site.numbers(2)
    steps = site.numbers(4) if site.has(4) else None
    if is_computed(site):
        if starts is None or ends is None or (steps or [1]) != [1]:
            raise site.refused("it takes a computed part of a list of lengths")
        return site.step(index(name_of(site), _part(starts[0], ends[0])), rank=1)
    count = (site.shape(1) or (None,))[0]
    axes = site.numbers(3) if site.has(3) else None if count is None else list(range(count))
    if axes is None or (site.has(4) and steps is None):
        raise site.refused("its axes or steps are computed")
    return _parts(site, [axis % site.rank(0) for axis in axes], steps or [1] * len(axes))


@writes("Slice")
def first_slices(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Slice.html in its first form, with attributes."""
    starts, ends = site.attribute("starts"), site.attribute("ends")
    axes = [axis % site.rank(0) for axis in site.attribute("axes", range(len(starts)))]
    texts = {axis: _part(start, end) for axis, start, end in zip(axes, starts, ends, strict=True)}
    return site.step(index(site[0], ", ".join(texts.get(at, ":") for at in range(max(axes) + 1))))


def _parts(site: Site, axes: list[int], steps: list[int]) -> Step:
    texts, arguments = [], []
    backwards = []
    for axis in range(max(axes) + 1):
        if axis not in axes:
            texts.append(":")
            continue
        at = axes.index(axis)
        if steps[at] < 0:
            starts, ends = site.numbers(1), site.numbers(2)
            if steps[at] != -1 or starts is None or ends is None or starts[at] != -1 or ends[at] > -_END:
                raise site.refused("it takes a part of an axis backwards")
            texts.append(":")
            backwards.append(axis)
            continue
        start, end = _bound(site, 1, at), _bound(site, 2, at)
        text = f"{'{}' if start else ''}:{'{}' if end else ''}"
        texts.append(text + (f":{steps[at]}" if steps[at] != 1 else ""))
        arguments += [bound for bound in (start, end) if bound]
    whole = all(text == ":" for text in texts)
    taken = site[0] if whole else index(site[0], ", ".join(texts), *arguments)
    return site.step(call("torch.flip", taken, Lit(tuple(backwards), "axes")) if backwards else taken)


def _bound(site: Site, at: int, place: int) -> Expression | None:
    """The start (input 1) or end (input 2) of a slice; None where it is that of the axis."""
    known = site.numbers(at)
    if known is not None:
        number = known[place]
        skipped = number == 0 if at == 1 else number >= _END
        return None if skipped else Lit(number, "start" if at == 1 else "end")
    if site.is_host(at):
        if site.host_rank(at) == 0:
            return name_of(site, at)
        return site.items(at)[place]
    return call("int", index(site[at], str(place)))


def _part(start: int, end: int) -> str:
    return f"{start or ''}:{'' if end >= _END else end}"


@writes("GatherElements")
def gather_elements(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__GatherElements.html; places may count from the end."""
    axis = site.axis()
    return site.step(call("torch.gather", site[0], Lit(axis, "axis"), _from_the_front(site, axis)))


def _from_the_front(site: Site, axis: int) -> Expression:
    """The places along an axis at input 1, those counted from the end made positive, as torch.gather wants them."""
    known = site.array(1)
    if known is not None and (known >= 0).all():
        return site[1]
    return infix("%", site[1], index(Code("{}.shape", (site[0],)), str(axis)))


def _unbound(site: Site) -> Expression:
    """The places of a GatherND or a ScatterND as a tuple of a tensor for each axis."""
    return call("tuple", method(site[1], "unbind", Lit(-1, "axis")))


@writes("GatherND")
def gather_nd(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__GatherND.html"""
    if site.attribute("batch_dims", 0):
        raise site.refused("it has batch_dims")
    return site.step(index(site[0], "{}", _unbound(site)))


@writes("ScatterND")
def scatter_nd(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__ScatterND.html"""
    reduction = site.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise site.refused(f"its reduction is {reduction}")
    data = site[0]
    if reduction == "add":
        return site.step(method(data, "index_put", _unbound(site), site[2], accumulate=Lit(True, "accumulate")))
    return site.step(method(data, "index_put", _unbound(site), site[2]))


@writes("ScatterElements", "Scatter")
def scatter_elements(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__ScatterElements.html"""
    reduction = site.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise site.refused(f"its reduction is {reduction}")
    name, axis = "scatter" if reduction == "none" else "scatter_add", site.axis()
    return site.step(method(site[0], name, Lit(axis, "axis"), _from_the_front(site, axis), site[2]))


@writes("TopK", since_version=10)
def top_k(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__TopK.html"""
    count = site.numbers(1)
    if count is None:
        raise site.refused("its k is computed")
    axis, largest = int(site.attribute("axis", -1)), bool(site.attribute("largest", 1))
    return site.step(call("torch.topk", site[0], Lit(count[0], "k"), Lit(axis, "axis"), Lit(largest, "largest")))
