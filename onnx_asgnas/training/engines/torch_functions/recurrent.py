"""Recurrent layers, by torch's own: the forms of ONNX's that it has."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch

from onnx_asgnas.training.engines.torch_functions.registry import (
    Compute,
    Operator,
    Tensor,
    attribute_of,
    function,
    given,
)

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Which of ONNX's gates stands where in torch's order: i o f c as i f c o, z r h as r z n."""
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def _other_form(node: onnx.NodeProto) -> bool:
    """Is it one that torch has not: other activations, clipping, lengths, peepholes, a reset before the product."""
    named = attribute_of(node, "activations")
    directions = 2 if attribute_of(node, "direction", "forward") == "bidirectional" else 1
    names = [name.decode().lower() for name in named or []]
    usual = [name.lower() for name in _ACTIVATIONS[node.op_type] * directions]
    if node.op_type == "RNN" and names == ["relu"] * directions:
        usual = names
    return (
        bool(names and names != usual)
        or attribute_of(node, "clip") is not None
        or bool(attribute_of(node, "input_forget", 0))
        or (node.op_type == "GRU" and not attribute_of(node, "linear_before_reset", 0))
        or given(node, 4)
        or given(node, 7)
    )


@function("LSTM", "GRU", "RNN", unless=_other_form)
def recurrent(op: Operator) -> Compute:
    """A layer over a sequence, in one or both directions (https://onnx.ai/onnx/operators/onnx__LSTM.html)."""
    direction, batch_first = op.attribute("direction", "forward"), bool(op.attribute("layout", 0))
    kind, both, backwards = op.node.op_type, direction == "bidirectional", direction == "reverse"
    relu = kind == "RNN" and any(name.lower() == b"relu" for name in op.attribute("activations", []))

    def run(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, *rest: Tensor | None) -> list[Tensor]:
        _, h, c = [*rest, *[None] * (3 - len(rest))][:3]
        if batch_first:
            x = x.transpose(0, 1)
            h, c = (None if state is None else state.transpose(0, 1) for state in (h, c))
        states = [
            x.new_zeros(w.shape[0], x.shape[1], r.shape[-1]) if state is None else state
            for state in ([h, c] if kind == "LSTM" else [h])
        ]
        flat = _weights(kind, w, r, b)
        x = x.flip(0) if backwards else x
        options = (b is not None, 1, 0.0, False, both, False)
        if kind == "LSTM":
            y, *last = torch.lstm(x, states, flat, *options)
        else:
            layer = torch.gru if kind == "GRU" else torch.rnn_relu if relu else torch.rnn_tanh
            y, *last = layer(x, states[0], flat, *options)
        y = y.flip(0) if backwards else y
        y = y.reshape(*y.shape[:2], w.shape[0], -1)
        y = y.transpose(0, 1) if batch_first else y.transpose(1, 2)
        return [y, *(state.transpose(0, 1) if batch_first else state for state in last)]

    return run


def _weights(kind: str, w: Tensor, r: Tensor, b: Tensor | None) -> list[Tensor]:
    """The weights and biases of all directions as torch takes them."""
    order = _GATES[kind]
    result = []
    for direction in range(w.shape[0]):
        parts = [w[direction], r[direction]]
        if b is not None:
            parts += b[direction].chunk(2)
        result += [_in_order(part, order) for part in parts]
    return result


def _in_order(part: Tensor, order: Sequence[int]) -> Tensor:
    if len(order) == 1:
        return part
    gates = part.chunk(len(order))
    return torch.cat([gates[gate] for gate in order])
