"""Reductions, and what works along an axis: sums and means, Softmax, ArgMax."""

from __future__ import annotations

from onnx_asgnas.export.code import Code, Expression, Lit, Step, call, infix, method
from onnx_asgnas.export.registry import writes
from onnx_asgnas.export.site import Site

_METHODS = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "amax",
    "ReduceMin": "amin",
    "ReduceLogSumExp": "logsumexp",
}


def _axes(site: Site) -> tuple[int, ...]:
    """The axes that are reduced, all where none is given; empty where that means none."""
    axes = site.axes()
    if not axes:
        return () if site.attribute("noop_with_empty_axes", 0) else tuple(range(site.rank(0)))
    return tuple(axes)


def _reduced(site: Site, name: str, data: Expression) -> Expression:
    axes = _axes(site)
    if not axes:
        return data
    keep = Lit(True, "keepdim")
    where = Lit(axes[0] if len(axes) == 1 else axes, "axes")
    return method(data, name, where, **({"keepdim": keep} if site.attribute("keepdims", 1) else {}))


@writes(*_METHODS)
def reduction(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__ReduceMean.html and its like."""
    return site.step(_reduced(site, _METHODS[site.node.op_type], site[0]))


@writes("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum")
def norm(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__ReduceL2.html and its like, written out."""
    match site.node.op_type:
        case "ReduceL1":
            return site.step(_reduced(site, "sum", call("torch.abs", site[0])))
        case "ReduceLogSum":
            return site.step(call("torch.log", _reduced(site, "sum", site[0])))
        case name:
            squares = _reduced(site, "sum", infix("*", site[0], site[0]))
            return site.step(call("torch.sqrt", squares) if name == "ReduceL2" else squares)


@writes("ReduceProd")
def product(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__ReduceProd.html"""
    if len(_axes(site)) != 1:
        raise site.refused("it multiplies along several axes")
    return site.step(_reduced(site, "prod", site[0]))


@writes("Softmax", "LogSoftmax", since_version=13)
def softmax(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Softmax.html"""
    axis = Lit(int(site.attribute("axis", -1)), "axis")
    name, module = _SOFTMAX[site.node.op_type]
    return site.step(call(name, site[0], dim=axis), module=call(module, dim=axis))


@writes("Softmax", "LogSoftmax")
def old_softmax(site: Site) -> Step:
    """Before version 13 all axes from the given one on were one."""
    name, module = _SOFTMAX[site.node.op_type]
    axis, last = site.axis(0, default=1), Lit(-1, "axis")
    if axis == site.rank(0) - 1:
        return site.step(call(name, site[0], dim=last), module=call(module, dim=last))
    flat = call(name, method(site[0], "flatten", Lit(axis, "start")), dim=last)
    return site.step(method(flat, "reshape", Code("{}.shape", (site[0],))))


_SOFTMAX = {"Softmax": ("F.softmax", "nn.Softmax"), "LogSoftmax": ("F.log_softmax", "nn.LogSoftmax")}


@writes("ArgMax", "ArgMin")
def arg_max(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__ArgMax.html"""
    if site.attribute("select_last_index", 0):
        raise site.refused("it takes the last of equal values")
    name = "argmax" if site.node.op_type == "ArgMax" else "argmin"
    keep = {"keepdim": Lit(True, "keepdim")} if site.attribute("keepdims", 1) else {}
    return site.step(method(site[0], name, Lit(int(site.attribute("axis", 0)), "axis"), **keep))
