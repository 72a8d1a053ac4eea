"""Operators that move values: Reshape, Transpose, Concat, Split, Pad and their like."""

from __future__ import annotations

from onnx_asgnas.export.code import Call, Code, Expression, Lit, Step, call, index, infix, method, tuple_of
from onnx_asgnas.export.registry import writes
from onnx_asgnas.export.site import Site
from onnx_asgnas.export.torch_ops.lengths import is_computed, name_of


@writes("Reshape", since_version=5)
def reshape(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Reshape.html; a zero keeps the length at its place."""
    if is_computed(site):
        return _reshaped_lengths(site)
    known = site.numbers(1)
    if known is not None:
        return site.step(method(site[0], "reshape", *_shape(site, known)))
    if not site.is_host(1):
        raise site.refused("its shape is computed from values")
    return site.step(method(site[0], "reshape", site.lengths(1)))


def _shape(site: Site, known: list[int]) -> tuple[Expression, ...]:
    """The numbers of a known shape; one zero where nothing is -1 becomes -1, as people write it."""
    copied = [] if site.attribute("allowzero", 0) else [at for at, number in enumerate(known) if number == 0]
    if copied == [0] and -1 not in known and all(number > 0 for number in known[1:]):
        known, copied = [-1, *known[1:]], []
    return tuple(
        index(Code("{}.shape", (site[0],)), str(at)) if at in copied else Lit(number, f"size_{at}")
        for at, number in enumerate(known)
    )


def _reshaped_lengths(site: Site) -> Step:
    """A number becomes a list of one, a list of one a number; a list stays as it is."""
    known = site.numbers(1)
    if known == [] and site.host_rank(0) == 1:
        return site.step(index(name_of(site), "0"), rank=0)
    if known is not None and len(known) == 1:
        return site.step(tuple_of((name_of(site),)) if site.host_rank(0) == 0 else name_of(site), rank=1)
    return site.step(method(site[0], "reshape", site.lengths(1)))


@writes("Flatten")
def flatten(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Flatten.html"""
    rank, axis = site.rank(0), site.attribute("axis", 1)
    axis = axis + rank if axis < 0 else axis
    if axis == 1 and rank > 1:
        start = Lit(1, "start")
        return site.step(call("torch.flatten", site[0], start), module=call("nn.Flatten"))
    if axis in (0, rank):
        rows = 1 if axis == 0 else -1
        return site.step(method(site[0], "reshape", Lit(rows, "rows"), Lit(-rows, "columns")))
    return site.step(method(method(site[0], "flatten", Lit(0, "a"), Lit(axis - 1, "b")), "flatten", Lit(1, "c")))


@writes("Transpose")
def transpose(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Transpose.html; two axes that change places are written as such."""
    order = [int(axis) for axis in site.attribute("perm", range(site.rank(0))[::-1])]
    moved = [at for at, axis in enumerate(order) if at != axis]
    if not moved:
        return site.step(site[0])
    if len(moved) == 2:
        ends = [at if at < len(order) - 2 or len(order) < 3 else at - len(order) for at in moved]
        return site.step(method(site[0], "transpose", *(Lit(at, "axis") for at in ends)))
    return site.step(method(site[0], "permute", *(Lit(axis, "axis") for axis in order)))


@writes("Squeeze")
def squeeze(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Squeeze.html"""
    if is_computed(site):
        return site.step(index(name_of(site), "0"), rank=0)
    axes = site.axes()
    if axes is None:
        axes = [at for at, length in enumerate(site.shape(0) or ()) if length == 1]
    if len(axes) == 1:
        return site.step(method(site[0], "squeeze", Lit(axes[0], "axis")))
    return site.step(method(site[0], "squeeze", Lit(tuple(axes), "axes")))


@writes("Unsqueeze")
def unsqueeze(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Unsqueeze.html; axes count in the result."""
    axes = site.axes() or []
    if is_computed(site) and site.host_rank(0) == 0 and len(axes) == 1:
        return site.step(tuple_of((name_of(site),)), rank=1)
    if len(axes) == 1:
        return site.step(method(site[0], "unsqueeze", Lit(axes[0], "axis")))
    rank = site.rank(0) + len(axes)
    places = {axis % rank for axis in axes}
    return site.step(index(site[0], ", ".join("None" if at in places else ":" for at in range(rank))))


@writes("Concat")
def concat(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Concat.html"""
    count = range(len(site.node.input))
    if any(is_computed(site, at) for at in count) and all(site.is_host(at) for at in count):
        items = [item for at in count for item in _spread(site, at)]
        return site.step(tuple_of(tuple(items)), rank=1)
    axis = int(site.attribute("axis", 1))
    if len(site.node.input) == 1:
        return site.step(site[0])
    return site.step(call("torch.cat", tuple_of(tuple(site[at] for at in count)), Lit(axis, "axis")))


def _spread(site: Site, at: int) -> tuple[Expression, ...]:
    shape = site.shape(at)
    if is_computed(site, at) and (shape is None or shape[0] is None or shape[0] > 1):
        return (Code("*{}", (name_of(site, at),)),)
    return site.items(at)


@writes("Split")
def split(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Split.html"""
    axis = Lit(int(site.attribute("axis", 0)), "axis")
    sizes = site.attribute("split") or site.numbers(1)
    if sizes is not None:
        return site.step(call("torch.split", site[0], Lit(tuple(int(s) for s in sizes), "sizes"), axis))
    if site.has(1):
        raise site.refused("its sizes are computed")
    length, count = (site.shape(0) or ())[axis.value or 0], len(site.node.output)  # type: ignore[index]
    if length is None:
        return site.step(call("torch.chunk", site[0], Lit(count, "count"), axis))
    return site.step(call("torch.split", site[0], Lit(-(-length // count), "size"), axis))


@writes("Expand")
def expand(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Expand.html; lengths of one in the shape keep those of the tensor."""
    known, given = site.numbers(1), site.shape(0)
    if known is not None and given is not None and len(known) >= len(given):
        leading = len(known) - len(given)
        if all(a == b for a, b in zip(given, known[leading:], strict=True) if a != 1):
            return site.step(method(site[0], "expand", *(Lit(n, f"size_{at}") for at, n in enumerate(known))))
        kept = [-1 if n == 1 and at >= leading else n for at, n in enumerate(known)]
        if not leading and set(kept) == {-1}:
            return site.step(site[0])
        if all(a in (1, None) or n in (-1, a) for a, n in zip(given, kept[leading:], strict=True)):
            return site.step(method(site[0], "expand", *(Lit(n, f"size_{at}") for at, n in enumerate(kept))))
    shape = Code("{}.shape", (site[0],))
    return site.step(method(site[0], "expand", call("torch.broadcast_shapes", shape, site.lengths(1))))


@writes("Tile", since_version=6)
def tile(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Tile.html"""
    return site.step(method(site[0], "repeat", site.lengths(1, "repeats")))


@writes("Pad")
def pad(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Pad.html"""
    pads, rank = site.attribute("pads") or site.numbers(1), site.rank(0)
    if pads is None:
        raise site.refused("its pads are computed")
    axes = [axis % rank for axis in site.axes(3) or range(rank)] if site.version >= 18 else list(range(rank))
    amounts = {axis: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}
    order = [side for axis in reversed(range(rank)) for side in amounts.get(axis, (0, 0))]
    while len(order) > 2 and order[-2:] == [0, 0]:
        order = order[:-2]
    mode = site.attribute("mode", "constant")
    padding = Lit(tuple(order), "padding")
    if mode == "constant":
        value = site.operand(2) if site.has(2) else Lit(float(site.attribute("value", 0.0)), "fill")
        if isinstance(value, Lit) and value.value == 0:
            return site.step(call("F.pad", site[0], padding))
        if not isinstance(value, Lit):
            value = Call(Code("{}.item", (value,)), ())
        return site.step(call("F.pad", site[0], padding, value=value))
    modes = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if len(order) > 2 * (rank - 2):
        raise site.refused(f"it pads the batch or the channels in mode {mode}")
    return site.step(call("F.pad", site[0], padding, mode=Lit(modes[mode], "mode")))


@writes("DepthToSpace", "SpaceToDepth")
def depth_to_space(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__DepthToSpace.html"""
    size = Lit(int(site.attribute("blocksize")), "factor")
    if site.node.op_type == "DepthToSpace" and site.attribute("mode", "DCR") == "CRD":
        return site.step(call("F.pixel_shuffle", site[0], size), module=call("nn.PixelShuffle", size))
    block = int(site.attribute("blocksize"))
    if site.node.op_type == "SpaceToDepth" and site.attribute("mode", "DCR") != "DCR":
        raise site.refused("its mode is CRD")
    names = Code("{}.shape", (site[0],))
    n, c, h, w = (index(names, str(at)) for at in range(4))
    parts: tuple[Expression, ...]
    shape: tuple[Expression, ...]
    if site.node.op_type == "DepthToSpace":
        parts = (n, size, size, infix("//", c, Lit(block * block, "area")), h, w)
        order, shape = (0, 3, 4, 1, 5, 2), (n, Lit(-1, "c"), infix("*", h, size), infix("*", w, size))
    else:
        parts = (n, c, infix("//", h, size), size, infix("//", w, size), size)
        order, shape = (0, 3, 5, 1, 2, 4), (n, Lit(-1, "c"), infix("//", h, size), infix("//", w, size))
    moved = method(method(site[0], "reshape", *parts), "permute", *(Lit(axis, "axis") for axis in order))
    return site.step(method(moved, "reshape", *shape))


@writes("Trilu")
def trilu(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Trilu.html"""
    name = "torch.triu" if site.attribute("upper", 1) else "torch.tril"
    diagonal = site.numbers(1) if site.has(1) else [0]
    if diagonal is None:
        raise site.refused("its diagonal is computed")
    return site.step(call(name, site[0], Lit(diagonal[0], "diagonal")))


@writes("CumSum")
def cumsum(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__CumSum.html"""
    axis = site.numbers(1)
    if axis is None or site.attribute("exclusive", 0) or site.attribute("reverse", 0):
        raise site.refused("it is exclusive, reverse or along a computed axis")
    return site.step(call("torch.cumsum", site[0], Lit(axis[0], "axis")))
