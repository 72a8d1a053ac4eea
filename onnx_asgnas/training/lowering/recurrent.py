"""Recurrent layers: the runtime's training kernels where they fit, else one step after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_asgnas.training.lowering.layout import reversed_along
from onnx_asgnas.training.lowering.registry import MICROSOFT, rewrite
from onnx_asgnas.training.lowering.site import Site, Value

Activation = Callable[[Value], Value]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One direction of a recurrent layer: x is [T, N, I], weights [gates H, I] and [gates H, H], states [N, H]."""

    site: Site
    x: Value
    weight: Value
    recurrence: Value
    bias: Value | None
    lengths: Value | None
    states: Sequence[Value]
    peephole: Value | None
    hidden: int
    activations: Sequence[Activation]

    @property
    def steps(self) -> int:
        """How many steps are written out."""
        return self.x.fixed_size(0, "unrolling")


@rewrite("LSTM")
def rewrite_lstm(site: Site) -> list[Value | None]:
    """LSTM: gates in the order input, output, forget, cell."""
    if _kernel_fits(site, peephole=7):
        return _by_kernel(site, "LSTMTraining", 5, states=2)
    if site.attribute("input_forget", 0):
        raise site.refusal("input_forget is not handled")
    return _in_both_directions(site, 2, ("Sigmoid", "Tanh", "Tanh"), peephole=7, step=_lstm_step)


@rewrite("GRU")
def rewrite_gru(site: Site) -> list[Value | None]:
    """GRU: gates in the order update, reset, hidden."""
    if _kernel_fits(site, peephole=None) and site.attribute("linear_before_reset", 0):
        return _by_kernel(site, "GRUTraining", 3, states=1)
    return _in_both_directions(site, 1, ("Sigmoid", "Tanh"), peephole=None, step=_gru_step)


@rewrite("RNN")
def rewrite_rnn(site: Site) -> list[Value | None]:
    """RNN: one gate."""
    return _in_both_directions(site, 1, ("Tanh",), peephole=None, step=_rnn_step)


def _kernel_fits(site: Site, peephole: int | None) -> bool:
    """Can the runtime's training kernel do it: activations as usual, full sequences, no peepholes."""
    usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}[site.node.op_type]
    directions = 2 if site.attribute("direction", "forward") == "bidirectional" else 1
    named = [name.decode() for name in site.attribute("activations", [])] or usual * directions
    return (
        named == usual * directions
        and not site.attribute("clip", 0.0)
        and not site.attribute("input_forget", 0)
        and not _has_short_sequences(site)
        and not (peephole is not None and site.has(peephole))
        and site.graph.has_training_kernels
    )


def _has_short_sequences(site: Site) -> bool:
    """Are lengths given that are not known to be the whole length."""
    if not site.has(4):
        return False
    lengths, steps = site.input(4).constant, _time_first(site).shape[0]
    return lengths is None or steps is None or bool((lengths != steps).any())


def _time_first(site: Site) -> Value:
    x = site.input(0)
    return x.transpose(1, 0, 2) if site.attribute("layout", 0) else x


def _directions(site: Site) -> list[bool]:
    """For each direction whether it goes backward."""
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    return ways[site.attribute("direction", "forward")]


def _part(value: Value, at: int, axis: int = 0) -> Value:
    """One entry of an axis, which goes away."""
    return value.slice(axis, at, at + 1).squeeze(axis)


def _by_kernel(site: Site, kernel: str, outputs: int, states: int) -> list[Value | None]:
    """The runtime's kernel, one direction after the other; its states have an axis of directions."""
    x, batch_first = _time_first(site), bool(site.attribute("layout", 0))
    directions = _directions(site)
    made: list[list[Value]] = []
    for at, backward in enumerate(directions):
        own = [site.input(p).slice(0, at, at + 1) if site.has(p) else None for p in (1, 2, 3)]
        first = []
        for position in range(5, 5 + states):
            given = site.input(position) if site.has(position) else None
            if given is not None and batch_first:
                given = given.transpose(1, 0, 2)
            if given is None:
                given = site.filled(0.0, [len(directions), x.dim(1), site.attribute("hidden_size")], x)
            first.append(given.slice(0, at, at + 1))
        if own[2] is None:
            width = site.input(1).fixed_size(1, "bias")
            own[2] = site.filled(0.0, [1, 2 * width], x)
        sequence = reversed_along(x, 0) if backward else x
        options: dict[str, Any] = {"hidden_size": site.attribute("hidden_size")}
        if kernel == "GRUTraining":
            options["linear_before_reset"] = 1
        result = site.ops(kernel, outputs, sequence, *own, None, *first, domain=MICROSOFT, **options)
        steps = reversed_along(result[0], 0, x.dim(0)) if backward else result[0]
        made.append([steps, *result[1 : 1 + states]])
    joined = [site.concat(list(parts), 1 if not at else 0) for at, parts in enumerate(zip(*made, strict=True))]
    return _laid_out(site, joined[0], joined[1:])


def _laid_out(site: Site, steps: Value, states: Sequence[Value]) -> list[Value | None]:
    """[T, D, N, H] and [D, N, H], or with the batch first where `layout` says so."""
    if not site.attribute("layout", 0):
        return [steps, *states]
    return [steps.transpose(2, 0, 1, 3), *(state.transpose(1, 0, 2) for state in states)]


Step = Callable[[Layer, Value, Sequence[Value]], Sequence[Value]]


def _in_both_directions(
    site: Site, states: int, usual: Sequence[str], *, peephole: int | None, step: Step
) -> list[Value | None]:
    """Each direction written out step by step."""
    x, hidden = _time_first(site), site.attribute("hidden_size")
    directions = _directions(site)
    hidden = hidden or site.input(2).fixed_size(2, "states")
    named = [name.decode() for name in site.attribute("activations", [])] or list(usual) * len(directions)
    lengths = site.input(4) if _has_short_sequences(site) else None
    made = []
    for at, backward in enumerate(directions):
        first = []
        for position in range(5, 5 + states):
            if site.has(position):
                first.append(_part(site.input(position), at, 1 if site.attribute("layout", 0) else 0))
            else:
                first.append(site.filled(0.0, [x.dim(1), hidden], x))
        layer = Layer(
            site=site,
            x=x,
            weight=_part(site.input(1), at),
            recurrence=_part(site.input(2), at),
            bias=_part(site.input(3), at) if site.has(3) else None,
            lengths=lengths,
            states=first,
            peephole=_part(site.input(peephole), at) if peephole is not None and site.has(peephole) else None,
            hidden=hidden,
            activations=_activations(site, named, at * len(usual), len(usual)),
        )
        made.append(_unrolled(layer, backward, step))
    steps = site.concat([part[0] for part in made], 1)
    last = [site.concat([part[1][at].unsqueeze(0) for part in made], 0) for at in range(states)]
    return _laid_out(site, steps, last)


def _unrolled(layer: Layer, backward: bool, step: Step) -> tuple[Value, Sequence[Value]]:
    """All steps of one direction: [T, 1, N, H] and the last states. Beyond its length a sequence gives zeros."""
    site, states = layer.site, list(layer.states)
    order = range(layer.steps)
    given: dict[int, Value] = {}
    for at in reversed(order) if backward else order:
        found = list(step(layer, _part(layer.x, at), states))
        if layer.lengths is None:
            states, given[at] = found, found[0]
            continue
        running = (layer.lengths > site.constant(np.array(at, layer.lengths.dtype))).unsqueeze(1)
        states = [site.where(running, new, old) for new, old in zip(found, states, strict=True)]
        given[at] = site.where(running, found[0], 0.0)
    return site.concat([given[at].unsqueeze(0, 1) for at in order], 0), states


def _gates(layer: Layer, x: Value, h: Value, count: int) -> list[Value]:
    """The sum x W^T + h R^T and the two biases, for each gate."""
    total = x @ layer.weight.swap(0, 1) + h @ layer.recurrence.swap(0, 1)
    if layer.bias is not None:
        one, other = layer.bias.split(0, [count * layer.hidden] * 2)
        total = total + one + other
    return [_clipped(layer, gate) for gate in total.split(1, [layer.hidden] * count)]


def _clipped(layer: Layer, x: Value) -> Value:
    limit = layer.site.attribute("clip", 0.0)
    if not limit:
        return x
    return layer.site.op("Clip", x, layer.site.number(-limit, x), layer.site.number(limit, x))


def _lstm_step(layer: Layer, x: Value, states: Sequence[Value]) -> Sequence[Value]:
    h, c = states
    f, g, last = layer.activations
    enter, leave, forget, cell = _gates(layer, x, h, 4)
    if layer.peephole is not None:
        to_enter, to_leave, to_forget = layer.peephole.split(0, [layer.hidden] * 3)
        enter, forget = enter + to_enter * c, forget + to_forget * c
    c = f(forget) * c + f(enter) * g(cell)
    if layer.peephole is not None:
        leave = leave + to_leave * c
    return f(leave) * last(c), c


def _gru_step(layer: Layer, x: Value, states: Sequence[Value]) -> Sequence[Value]:
    (h,) = states
    f, g = layer.activations
    size = [layer.hidden] * 3
    w, r = (layer.weight.split(0, size), layer.recurrence.split(0, size))
    wb: Sequence[Value | None] = [None] * 3
    rb: Sequence[Value | None] = [None] * 3
    if layer.bias is not None:
        wb, rb = (part.split(0, size) for part in layer.bias.split(0, [3 * layer.hidden] * 2))

    def affine(y: Value, matrix: Value, bias: Value | None) -> Value:
        product = y @ matrix.swap(0, 1)
        return product if bias is None else product + bias

    update, reset = (f(_clipped(layer, affine(x, w[at], wb[at]) + affine(h, r[at], rb[at]))) for at in (0, 1))
    if layer.site.attribute("linear_before_reset", 0):
        inner = affine(x, w[2], wb[2]) + reset * affine(h, r[2], rb[2])
    else:
        inner = affine(x, w[2], wb[2]) + affine(reset * h, r[2], rb[2])
    new = g(_clipped(layer, inner))
    return ((1.0 - update) * new + update * h,)


def _rnn_step(layer: Layer, x: Value, states: Sequence[Value]) -> Sequence[Value]:
    (gate,) = _gates(layer, x, states[0], 1)
    return (layer.activations[0](gate),)


def _activations(site: Site, names: Sequence[str], start: int, count: int) -> list[Activation]:
    """The activation functions of one direction, with their alphas and betas in the order in which they need some."""
    alphas, betas = list(site.attribute("activation_alpha", [])), list(site.attribute("activation_beta", []))
    made = []
    for name in names:
        alpha, beta = _DEFAULTS.get(name, (None, None))
        alpha = alphas.pop(0) if alpha is not None and alphas else alpha
        beta = betas.pop(0) if beta is not None and betas else beta
        made.append(_activation(name, alpha, beta))
    return made[start : start + count]


_DEFAULTS: dict[str, tuple[float | None, float | None]] = {
    "Affine": (1.0, 0.0),
    "Elu": (1.0, None),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01, None),
    "ScaledTanh": (1.0, 1.0),
    "ThresholdedRelu": (1.0, None),
}


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    if name == "Affine":
        return lambda x: x * (alpha or 0.0) + (beta or 0.0)
    if name == "ScaledTanh":
        return lambda x: (x * (beta or 0.0)).tanh() * (alpha or 0.0)
    return lambda x: x.site.op(name, x, alpha=alpha, beta=beta)
