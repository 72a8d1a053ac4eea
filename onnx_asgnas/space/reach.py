"""Validity in numbers, where a network picks positions of a tensor.

Bookkeeping tells of whole tensors on which inputs they depend. A vision transformer's tokens depend on the image, and
it reads the class token alone: without attention that one is a number. So where positions are picked, a selection is
tried: the network runs with the chosen structures at zero on two values of each input, and what each output reads of
the inputs in the full network it has to read still.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnx_asgnas.errors import ModelError
from onnx_asgnas.graph.inputs import made_up_inputs
from onnx_asgnas.graph.runtime import Arrays, run, session
from onnx_asgnas.space.zeroing import zeroed

if TYPE_CHECKING:
    from onnx_asgnas.space.search_space import SearchSpace

Pairs = frozenset[tuple[str, str]]
"""Outputs and inputs, of which the first changes with the second."""

_PICKS_POSITIONS = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split"})
_LOUD = 100.0
"""Where inputs of the usual size change nothing, as in a network whose signal fades, larger ones are tried."""


class Reach:
    """Which outputs of a space's network read which inputs, in full and without some structures."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def first_lost(self, chosen: Sequence[int]) -> int | None:
        """The place in `chosen` (candidates) at which an output has lost an input; None where none has.

        In a network that picks no positions nothing is run.
        """
        if not chosen or not self._picks_positions or self._holds(chosen):
            return None
        right, wrong = 0, len(chosen)  # so many of them are right, so many are wrong
        while wrong - right > 1:
            middle = (right + wrong) // 2
            if self._holds(chosen[:middle]):
                right = middle
            else:
                wrong = middle
        return right

    @cached_property
    def _picks_positions(self) -> bool:
        state, graph = self._space.removal_state(), self._space.parts.graph
        return any(node.op_type in _PICKS_POSITIONS and state.is_live(node.input[0]) for node in graph.nodes)

    @cached_property
    def _full(self) -> Pairs:
        try:
            return self._pairs(self._space.parts.graph.model)
        except ModelError:  # what does not run by itself, with a batch of its own say, is not tried
            return frozenset()

    def _holds(self, chosen: Sequence[int]) -> bool:
        if not self._full:
            return True
        return self._full <= self._pairs(zeroed(self._space, self._space.parts.graph, chosen))

    def _pairs(self, model: onnx.ModelProto) -> Pairs:
        graph = self._space.parts.graph
        active = session(model)
        one, other = (made_up_inputs(graph, seed=seed) for seed in (0, 1))
        found: set[tuple[str, str]] = set()
        for name in one:
            for loudness in (1.0, _LOUD):
                start = run(active, one | _scaled(one, name, loudness), graph.outputs)
                end = run(active, one | _scaled(other, name, loudness), graph.outputs)
                changed = {output for output in graph.outputs if not _equal(start[output], end[output])}
                found |= {(output, name) for output in changed}
                if changed == set(graph.outputs) or one[name].dtype.kind != "f":
                    break
        return frozenset(found)


def _scaled(inputs: Arrays, name: str, loudness: float) -> Arrays:
    values = inputs[name]
    return {name: (values * loudness).astype(values.dtype) if values.dtype.kind == "f" else values}


def _equal(one: Any, other: Any) -> bool:
    """Whether two results are the same; of sequences and maps that is not asked."""
    return isinstance(one, np.ndarray) and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
