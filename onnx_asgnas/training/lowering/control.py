"""Branches and loops whose course is known: what they do is written out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_asgnas.training.lowering.registry import rewrite
from onnx_asgnas.training.lowering.site import Site, Value

_MOST_STEPS = 512
"""Steps up to which a loop is written out."""


@rewrite("If")
def rewrite_if(site: Site) -> list[Value]:
    """The branch that a constant condition takes; a gradient through another ends the runtime's process."""
    condition = site.input(0).constant
    if condition is None:
        raise site.refusal("its condition is computed by the network")
    return site.graph.inline_graph(site, site.attribute("then_branch" if condition.item() else "else_branch"), [])


@rewrite("Scan")
def rewrite_scan(site: Site) -> list[Value]:
    """A Scan over a known length: one copy of its body for each step."""
    body, count = site.attribute("body"), site.attribute("num_scan_inputs")
    given = site.inputs()
    states, sequences = given[:-count], given[-count:]
    axes = site.attribute("scan_input_axes", [0] * count)
    backward = site.attribute("scan_input_directions", [0] * count)
    steps = sequences[0].fixed_size(axes[0], "unrolling")
    _refuse_many(site, steps)
    made: list[list[Value]] = [[] for _ in range(len(body.output) - len(states))]
    for step in range(steps):
        parts = []
        for x, axis, back in zip(sequences, axes, backward, strict=True):
            at = steps - 1 - step if back else step
            parts.append(x.slice(axis, at, at + 1).squeeze(axis))
        results = site.graph.inline_graph(site, body, [*states, *parts])
        states = results[: len(states)]
        for collected, result in zip(made, results[len(states) :], strict=True):
            collected.append(result)
    backward = site.attribute("scan_output_directions", [0] * len(made))
    along = site.attribute("scan_output_axes", [0] * len(made))
    outputs = [
        _stacked(values[::-1] if back else values, axis)
        for values, back, axis in zip(made, backward, along, strict=True)
    ]
    return [*states, *outputs]


@rewrite("Loop")
def rewrite_loop(site: Site) -> list[Value]:
    """A Loop of a known number of steps that no condition ends: one copy of its body for each step."""
    body, states = site.attribute("body"), site.inputs()[2:]
    if not site.has(0):
        raise site.refusal("its number of steps is not given")
    steps = int(np.ravel(site.fixed(0, "number of steps"))[0])
    _refuse_many(site, steps)
    going = site.input(1) if site.has(1) else site.constant(np.array(True))
    made: list[list[Value]] = [[] for _ in range(len(body.output) - 1 - len(states))]
    for step in range(steps):
        if going.constant is None or not going.constant.item():
            raise site.refusal("its condition is computed by the network, or false")
        going, *results = site.graph.inline_graph(site, body, [site.constant(np.array(step)), going, *states])
        states = results[: len(states)]
        for collected, result in zip(made, results[len(states) :], strict=True):
            collected.append(result)
    if not steps:
        raise site.refusal("it takes no step")
    return [*states, *(_stacked(values, 0) for values in made)]


def _refuse_many(site: Site, steps: int) -> None:
    if steps > _MOST_STEPS:
        raise site.refusal(f"{steps} steps are not written out")


def _stacked(values: Sequence[Value], axis: int) -> Value:
    return values[0].site.concat([value.unsqueeze(axis) for value in values], axis)
