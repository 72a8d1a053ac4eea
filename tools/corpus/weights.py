"""Weights that no two of which are equal, and with which a network neither explodes nor dies.

Initial values of a framework hide errors: a removed channel whose scale is 1, whose bias is 0 and whose variance is 1
like all others cannot be told from its neighbour, exporters merge tensors that are equal, and heads and layer scales
that start at zero make every check of an output vacuous.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_NORMS = ("norm", "bn", "ln_", ".ln", "gamma", "layer_scale", "ls1", "ls2", "scale", "gain")
_CALIBRATED_DIMENSIONS = 2
_LEAST_VARIANCE = 1e-3


def randomise(module: nn.Module, inputs: dict[str, Tensor], seed: int) -> None:
    """Give every floating parameter and statistic distinct random values, in place.

    In the order of a forward pass weights of dense layers are then scaled so that each layer's output has a standard
    deviation of about one, and statistics moved near those of what is normalised by them: else the constant part of the
    activations grows from layer to layer until the outputs hardly depend on the inputs.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.is_floating_point():
                parameter.copy_(_values(name, parameter, random))
        for name, statistic in _statistics(module):
            statistic.copy_(_around(statistic, random, 1.0 if name == "running_var" else 0.0))
        _calibrate(module, inputs, random)


def _statistics(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for inner in module.modules():
        for name in ("running_mean", "running_var"):
            value = getattr(inner, name, None)
            if isinstance(value, Tensor):
                yield name, value


def _values(name: str, parameter: Tensor, random: torch.Generator) -> Tensor:
    last = name.rsplit(".", 1)[-1]
    if parameter.dim() >= _CALIBRATED_DIMENSIONS and last not in ("gamma", "beta", "layer_scale"):
        fan_in = max(1, parameter[0].numel())
        return torch.randn(parameter.shape, generator=random) / fan_in**0.5
    if last != "bias" and last != "beta" and (last == "weight" or any(part in name.lower() for part in _NORMS)):
        return _around(parameter, random, 1.0)
    return _around(parameter, random, 0.0)


def _around(tensor: Tensor, random: torch.Generator, middle: float) -> Tensor:
    """Values between 0.5 and 1.5 around one, between -0.2 and 0.2 around zero."""
    spread = 0.5 if middle else 0.2
    return middle + spread * (2 * torch.rand(tensor.shape, generator=random) - 1)


def _calibrate(module: nn.Module, inputs: dict[str, Tensor], random: torch.Generator) -> None:
    done: set[int] = set()
    queries = {id(m.q): m.key_value_proj_dim**0.5 for m in module.modules() if type(m).__name__ == "T5Attention"}
    # T5 leaves out attention's 1/√d: queries of usual size would saturate every softmax, which is noise in float32

    def scale(layer: nn.Module, _: Any, output: Any) -> Any:
        weight = layer.weight
        if not isinstance(weight, Tensor) or id(weight) in done or not isinstance(output, Tensor):
            return None
        done.add(id(weight))
        deviation = float(output.float().std())
        if not deviation > 0:
            return None
        factor = float(0.8 + 0.4 * torch.rand((), generator=random)) / deviation / queries.get(id(layer), 1.0)
        for parameter in (weight, getattr(layer, "bias", None)):
            if isinstance(parameter, Tensor):
                parameter.mul_(factor)
        return output * factor

    def centre(norm: nn.Module, arguments: Any) -> None:
        (values,) = arguments
        if id(norm) in done or norm.running_mean is None:
            return
        done.add(id(norm))
        axes = [axis for axis in range(values.dim()) if axis != 1]
        variance, mean = torch.var_mean(values.float(), axes)
        norm.running_var.mul_(variance.clamp_min(_LEAST_VARIANCE))
        norm.running_mean.mul_(variance.sqrt()).add_(mean)

    hooks = [m.register_forward_hook(scale) for m in module.modules() if _is_dense(m)]
    hooks += [
        m.register_forward_pre_hook(centre)
        for m in module.modules()
        if isinstance(getattr(m, "running_mean", None), Tensor)
    ]
    try:
        module(**inputs)
    finally:
        for hook in hooks:
            hook.remove()


def _is_dense(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and weight.dim() >= _CALIBRATED_DIMENSIONS and not isinstance(module, nn.Embedding)
