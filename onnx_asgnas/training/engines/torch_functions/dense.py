"""Products with weights: matrices, convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from onnx_asgnas.training.engines.torch_functions.registry import Compute, Operator, Tensor, direct, function

direct({"MatMul": torch.matmul})


@function("Einsum")
def einsum(op: Operator) -> Compute:
    """A sum of products over indices."""
    equation = op.attribute("equation").replace(" ", "")
    return lambda *xs: torch.einsum(equation, *xs)


@function("Gemm")
def gemm(op: Operator) -> Compute:
    """A product and a sum, alpha · A B + beta · C, with A and B as they are or transposed."""
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    turn_a, turn_b = op.attribute("transA", 0), op.attribute("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = (a.t() if turn_a else a), (b.t() if turn_b else b)
        if c is None:
            return a @ b if alpha == 1 else alpha * (a @ b)
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return run


_CONVOLUTIONS = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}
_TRANSPOSED = {3: torch.conv_transpose1d, 4: torch.conv_transpose2d, 5: torch.conv_transpose3d}


class Window:
    """Where a kernel is put: strides, dilations, and the pads before and after each axis."""

    def __init__(self, op: Operator) -> None:
        self.auto = op.attribute("auto_pad", "NOTSET")
        self.strides: list[int] | None = op.attribute("strides")
        self.dilations: list[int] | None = op.attribute("dilations")
        pads: list[int] | None = op.attribute("pads") if self.auto == "NOTSET" else None
        self._pads = pads
        half = len(pads) // 2 if pads else 0
        self.symmetric = pads is None or pads[:half] == pads[half:]

    def pads(self, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
        """The pads of axes of these sizes: all those before, then all those after."""
        if self._pads is not None:
            return self._pads
        if not self.auto.startswith("SAME"):
            return [0] * (2 * len(sizes))
        totals = []
        strides, dilations = self.strides or [1] * len(sizes), self.dilations or [1] * len(sizes)
        for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            totals.append(max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0))
        before = [total // 2 if self.auto == "SAME_UPPER" else -(-total // 2) for total in totals]
        return before + [total - b for total, b in zip(totals, before, strict=True)]


def pad_list(pads: Sequence[int]) -> list[int]:
    """ONNX's pads, of all axes before and then after, as torch takes them: by axis, the last one first."""
    half = len(pads) // 2
    return [pads[at + side] for at in reversed(range(half)) for side in (0, half)]


@function("Conv")
def conv(op: Operator) -> Compute:
    """Convolution in 1 to 3 dimensions (https://onnx.ai/onnx/operators/onnx__Conv.html)."""
    window, group = Window(op), op.attribute("group", 1)
    strides, dilations = window.strides or 1, window.dilations or 1

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        compute = _CONVOLUTIONS[weight.dim()]
        pads = window.pads(x.shape[2:], weight.shape[2:])
        half = len(pads) // 2
        if pads[:half] == pads[half:]:
            return compute(x, weight, bias, strides, pads[:half], dilations, group)
        return compute(F.pad(x, pad_list(pads)), weight, bias, strides, 0, dilations, group)

    return run


@function("ConvTranspose")
def conv_transpose(op: Operator) -> Compute:
    """The transpose of a convolution (https://onnx.ai/onnx/operators/onnx__ConvTranspose.html)."""
    group, wanted = op.attribute("group", 1), op.attribute("output_shape")
    auto, given = op.attribute("auto_pad", "NOTSET"), op.attribute("pads")

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        n = weight.dim() - 2
        strides, dilations = op.attribute("strides") or [1] * n, op.attribute("dilations") or [1] * n
        extra = op.attribute("output_padding") or [0] * n
        full = [
            stride * (size - 1) + (kernel - 1) * dilation + 1 + more
            for size, kernel, stride, dilation, more in zip(
                x.shape[2:], weight.shape[2:], strides, dilations, extra, strict=True
            )
        ]
        sizes = wanted[-n:] if wanted else None
        if sizes is None and auto.startswith("SAME"):
            sizes = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        if sizes is None:
            pads = given if given and auto == "NOTSET" else [0] * (2 * n)
        else:
            totals = [a - b for a, b in zip(full, sizes, strict=True)]
            before = [total // 2 if auto == "SAME_UPPER" else total - total // 2 for total in totals]
            pads = before + [total - b for total, b in zip(totals, before, strict=True)]
        compute = _TRANSPOSED[weight.dim()]
        if pads[:n] == pads[n:] and min(pads) >= 0 and _fits(extra, strides, dilations):
            return compute(x, weight, bias, strides, pads[:n], extra, group, dilations)
        # All of it, with what the output padding adds, and then the pads cut off; a negative one adds zeros.
        whole = compute(x, weight, None, strides, 0, 0, group, dilations)
        cut = [e - p for e, p in zip([0] * n + extra, pads, strict=True)]
        whole = F.pad(whole, pad_list(cut))
        return whole if bias is None else whole + bias.reshape(-1, *[1] * n)

    return run


def _fits(extra: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> bool:
    """Does torch take this output padding."""
    return all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
