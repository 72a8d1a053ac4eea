"""What must hold of every cut of every model: the compact model is the zeroed full model, only smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_asgnas.pruning import Pruned
from onnx_asgnas.space import SearchSpace, Selection, analyze, zeroed
from onnx_asgnas.space.channel_selection import ChannelOrder, Widths
from onnx_asgnas.surgery import construct
from tests.corpus.running import NotRunError, Values, distance

TOLERANCE = 1e-5
"""In float32, relative to the largest value of an output."""
HALF_TOLERANCE = 5e-3

Run = Callable[[onnx.ModelProto, Iterable[Values]], list[list[Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What one cut was found to be: the largest difference, how far it moved an output, and what is wrong with it."""

    difference: float
    moved: float
    problems: tuple[str, ...]


def check(cut: Pruned, feeds: Iterable[Values], run: Run, *, tolerance: float = TOLERANCE) -> Check:
    """Compare a cut's two models on some inputs, and look at what it says of itself."""
    assert cut.space.graph is not None
    source = cut.space.graph.model
    problems = list(_of_form(cut, source))
    feeds = list(feeds)
    before, full = run(source, feeds), run(cut.zeroed, feeds)
    try:
        difference = distance(full, run(cut.compact, feeds))
    except NotRunError as error:
        difference = np.inf
        problems.append(f"compact does not run: {error}")
    if not difference <= tolerance:
        problems.append(f"compact differs from zeroed by {difference:.1e}")
    return Check(difference=difference, moved=distance(full, before), problems=tuple(problems))


def removing(space: SearchSpace, wanted: NDArray[np.bool_]) -> Pruned:
    """The cut of these channel groups, less those that have to stay so that something of each tensor does."""
    channels, graph = space.channels, space.parts.graph
    nothing = np.zeros(space.parts.coupling.book.count, bool)
    order = ChannelOrder(channels, wanted.astype(np.float64), Widths(), nothing)
    chosen = order.first(len(order)) & wanted
    places = tuple((len(space.candidates) + np.flatnonzero(chosen)).tolist())
    cost = space.parts.costs.cost(channels.labels(chosen))
    kept = {"params": cost.params / max(space.params, 1), "macs": cost.macs / max(space.macs, 1)}
    selection = Selection(
        chosen=places,
        removed=0,
        kept_params=kept["params"],
        kept_macs=kept["macs"],
        valid=True,
        exact=True,
        dead=(),
    )
    compact = construct(zeroed(space, graph, places), space)
    return Pruned(space=space, selection=selection, compact=compact, kept=kept, groups=len(places))


def _of_form(cut: Pruned, source: onnx.ModelProto) -> Iterable[str]:
    """What is wrong with a compact model without running it."""
    onnx.checker.check_model(cut.compact, full_check=True)
    if signature(cut.compact) != signature(source):
        yield "inputs or outputs have changed"
    if construct(cut.zeroed, cut.space).SerializeToString() != cut.compact.SerializeToString():
        yield "construct on the zeroed model gives another one"
    if construct(cut.compact).SerializeToString() != cut.compact.SerializeToString():
        yield "construct on the result removes more"
    left = analyze(cut.compact, mode=cut.space.mode)
    lone = sum(int(np.prod(tensor.dims, dtype=np.int64)) == 1 for tensor in cut.compact.graph.initializer)
    yield from _of_cost("parameters", cut.kept["params"], cut.space.params, left.params, lone)
    yield from _of_cost("multiply-accumulates", cut.kept["macs"], cut.space.macs, left.macs)
    if cut.groups and elements(cut.compact) >= elements(source):
        yield "nothing has become smaller"


def _of_cost(what: str, kept: float, full: int, real: int, lone: int = 0) -> Iterable[str]:
    """A bias of which one number is left counts as a constant when it is met anew: so much may be less."""
    if not 0 <= round(kept * full) - real <= lone:
        yield f"{round(kept * full)} {what} foretold, {real} counted"


def signature(model: onnx.ModelProto) -> list[bytes]:
    """Names, types and shapes of what goes in and comes out."""
    return [value.SerializeToString(deterministic=True) for value in (*model.graph.input, *model.graph.output)]


def elements(model: onnx.ModelProto) -> int:
    """The numbers in all initializers."""
    return sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in model.graph.initializer)
