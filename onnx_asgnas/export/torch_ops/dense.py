"""Products of matrices: Linear layers, MatMul, Gemm, Einsum."""

from __future__ import annotations

from dataclasses import replace

from onnx_asgnas.export.code import Code, Expression, Lit, Step, Stored, call, infix
from onnx_asgnas.export.registry import writes
from onnx_asgnas.export.site import Site


@writes("MatMul")
def matmul(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__MatMul.html; with a weight, and a bias added behind it, it is a Linear."""
    weight = site.array(1)
    if not (weight is not None and weight.ndim == 2 and weight.dtype.kind == "f" and site.is_own(1)):
        return site.step(infix("@", site[0], site[1]))
    bias, result = _bias_behind(site, int(weight.shape[1]))
    tensors = {"weight": Stored(site.node.input[1], transposed=True)}
    sizes = (Lit(int(weight.shape[0]), "in"), Lit(int(weight.shape[1]), "out"))
    if not bias:
        return site.layer(call("nn.Linear", *sizes, bias=Lit(False, "bias")), tensors, site[0])
    tensors["bias"] = Stored(bias)
    return replace(site.layer(call("nn.Linear", *sizes), tensors, site[0], named=bias), outputs=(result,))


def _bias_behind(site: Site, features: int) -> tuple[str, str]:
    """The bias that the one reader of this product adds, and what that reader gives; two "" where there is none."""
    reader = site.sole_reader()
    if reader is None or site.graph.nodes[reader].op_type != "Add":
        return "", ""
    add = site.graph.nodes[reader]
    bias = next((name for name in add.input if name != site.node.output[0]), "")
    tensor = site.graph.initializers.get(bias)
    if tensor is None or tuple(tensor.dims) != (features,) or len(site.graph.consumers[bias]) != 1:
        return "", ""
    site.absorbed.add(reader)
    return bias, add.output[0]


@writes("Gemm", since_version=7)
def gemm(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Gemm.html"""
    alpha, beta = site.attribute("alpha", 1.0), site.attribute("beta", 1.0)
    weight = site.array(1)
    plain = alpha == 1.0 and (beta == 1.0 or not site.has(2)) and not site.attribute("transA", 0)
    if plain and weight is not None and site.is_own(1) and _is_bias(site):
        return _linear(site, turned=not site.attribute("transB", 0))
    left, right = site[0], site[1]
    if site.attribute("transA", 0):
        left = Code("{}.T", (left,))
    if site.attribute("transB", 0):
        right = Code("{}.T", (right,))
    product: Expression = infix("@", left, right)
    if alpha != 1.0:
        product = infix("*", Lit(alpha, "alpha"), product)
    if site.has(2):
        added = site[2] if beta == 1.0 else infix("*", Lit(beta, "beta"), site[2])
        product = infix("+", product, added)
    return site.step(product)


def _is_bias(site: Site) -> bool:
    """Is what is added a vector over the columns that nothing else reads, or nothing at all."""
    if not site.has(2):
        return True
    shape, weight = site.shape(2), site.shape(1)
    if weight is None or not site.is_own(2):
        return False
    return shape == (weight[0] if site.attribute("transB", 0) else weight[1],)


def _linear(site: Site, turned: bool) -> Step:
    rows, columns = (int(n) for n in site.shape(1) or () if n is not None)
    sizes = (rows, columns) if turned else (columns, rows)
    tensors = {"weight": Stored(site.node.input[1], transposed=turned)}
    settings: dict[str, Expression] = {}
    if site.has(2):
        tensors["bias"] = Stored(site.node.input[2])
    else:
        settings["bias"] = Lit(False, "bias")
    make = call("nn.Linear", Lit(sizes[0], "in"), Lit(sizes[1], "out"), **settings)
    return site.layer(make, tensors, site[0])


@writes("Einsum")
def einsum(site: Site) -> Step:
    """https://onnx.ai/onnx/operators/onnx__Einsum.html"""
    equation = str(site.attribute("equation")).replace(" ", "")
    return site.step(call("torch.einsum", Lit(equation, "equation"), *(site[at] for at in range(len(site.node.input)))))
