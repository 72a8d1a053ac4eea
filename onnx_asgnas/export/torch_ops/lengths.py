"""Shape arithmetic: lengths are Python numbers and tuples of them, so that open dimensions stay open."""

from __future__ import annotations

from onnx import TensorProto, numpy_helper

from onnx_asgnas.export.code import Call, Code, Device, Expression, Lit, Ref, Step, call, infix, tuple_of
from onnx_asgnas.export.registry import writes
from onnx_asgnas.export.site import Site, dtype

_OPERATORS = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "//"}


def arithmetic_of_lengths(site: Site) -> Step | None:
    """Arithmetic on two lengths, one of them computed; None where it is on tensors."""
    operator = _OPERATORS.get(site.node.op_type)
    computed = any(name in site.host for name in site.node.input)
    if operator is None or not computed or not (site.is_host(0) and site.is_host(1)):
        return None
    ranks = site.host_rank(0), site.host_rank(1)
    if max(ranks) == 0:
        return site.step(infix(operator, site.lengths(0), site.lengths(1)), rank=0)
    left, right = site.items(0), site.items(1)
    count = max(len(left), len(right))
    pairs = zip(_repeated(left, count), _repeated(right, count), strict=True)
    return site.step(tuple_of(tuple(infix(operator, a, b) for a, b in pairs)), rank=1)


def _repeated(items: tuple[Expression, ...], count: int) -> tuple[Expression, ...]:
    return items * count if len(items) == 1 else items


@writes("Shape")
def shape(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Shape.html"""
    start, end = site.attribute("start", 0), site.attribute("end")
    whole = Code("{}.shape", (site[0],))
    if not start and end is None:
        return site.step(whole, rank=1)
    return site.step(Code(f"{{}}[{start or ''}:{'' if end is None else end}]", (whole,)), rank=1)


@writes("Size")
def size(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Size.html"""
    return site.step(Code("{}.numel()", (site[0],)), rank=0)


@writes("Range")
def arange(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Range.html"""
    bounds = [_number(site, at) for at in range(3)]
    if isinstance(bounds[2], Lit) and bounds[2].value == 1:
        bounds = bounds[:2]
        if isinstance(bounds[0], Lit) and bounds[0].value == 0:
            bounds = bounds[1:]
    kind = site.graph.dtype(site.node.output[0])
    keywords: dict[str, Expression] = {"device": Device()}
    if kind != TensorProto.INT64:
        keywords["dtype"] = dtype(kind)
    return site.step(call("torch.arange", *bounds, **keywords))


def _number(site: Site, at: int) -> Expression:
    if site.is_host(at) and site.host_rank(at) == 0:
        return site.lengths(at)
    return site.number(at) or Call(Code("{}.item", (site[at],)), ())


@writes("ConstantOfShape")
def constant_of_shape(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html"""
    given = site.attribute("value")
    value = 0.0 if given is None else numpy_helper.to_array(given).reshape(-1)[0].item()
    kind = dtype(TensorProto.FLOAT if given is None else given.data_type)
    return site.step(call("torch.full", site.lengths(0), Lit(value, "fill"), dtype=kind, device=Device()))


@writes("Constant")
def constant(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Constant.html: those that are given out as they are."""
    given = site.attribute("value")
    if given is None or numpy_helper.to_array(given).size > 16:
        raise site.refused("it is given out as it is")
    values = numpy_helper.to_array(given)
    literal = values.item() if values.ndim == 0 else tuple(values.reshape(-1).tolist())
    made = call("torch.tensor", Lit(literal, "value"), dtype=dtype(given.data_type), device=Device())
    if values.ndim > 1:
        made = Call(Code("{}.reshape", (made,)), (Lit(tuple(values.shape), "shape"),))
    return site.step(made)


def is_computed(site: Site, at: int = 0) -> bool:
    """Is the input a computed length or lengths."""
    return site.has(at) and site.node.input[at] in site.host


def name_of(site: Site, at: int = 0) -> Ref:
    """The input as it is called."""
    return Ref(site.node.input[at])
