"""The nine models that ship with onnx, cut at several fractions: exact, smaller, still the models that they were."""

from __future__ import annotations

import os
from itertools import product

import numpy as np
import pytest

from onnx_asgnas.config import Criterion, Target
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.runtime import random_inputs
from onnx_asgnas.pruning import cut
from onnx_asgnas.space import analyze
from onnx_asgnas.surgery import construct
from tests.corpus.exactness import TOLERANCE, check, elements, signature
from tests.corpus.light import NAMES, light_model
from tests.corpus.running import Runner, distance

THOROUGH = bool(os.environ.get("THOROUGH"))
"""Every fraction by every criterion for every model: minutes instead of seconds."""
LARGE = ("bvlc_alexnet", "vgg19", "zfnet512")
"""60 to 143 million parameters."""
RANDOM: Criterion = "random"
MAGNITUDE: Criterion = "magnitude"
CUTS = tuple(product((0.25, 0.5, 0.75), (RANDOM, MAGNITUDE)))
FREE = {
    "bvlc_alexnet": (8704, 0),
    "densenet121": (10240, 58),
    "inception_v1": (7024, 36),
    "inception_v2": (9952, 36),
    "resnet50": (11456, 20),
    "shufflenet": (247, 13),
    "squeezenet": (2944, 16),
    "vgg19": (13696, 0),
    "zfnet512": (6656, 0),
}
"""How many channel groups and how many structures may leave."""


def cuts_of(name: str) -> tuple[tuple[float, Criterion], ...]:
    """All cuts, or one of them so that the six smaller models together have each."""
    return CUTS if THOROUGH else (CUTS[sorted(set(NAMES) - set(LARGE)).index(name)],)


def test_all_nine_are_there() -> None:
    assert sorted(FREE) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_may_leave(name: str) -> None:
    graph = TraceGraph.of(light_model(name))
    spaces = {mode: analyze(graph, mode=mode) for mode in ("prune", "joint", "erase")}
    assert all(space.unknown == () for space in spaces.values())
    assert (spaces["prune"].channels.count, len(spaces["erase"].candidates)) == FREE[name]
    assert spaces["joint"].candidates == spaces["erase"].candidates
    for space in spaces.values():
        assert construct(graph, space) is graph.model


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(LARGE)))
def test_cuts_are_exact(name: str) -> None:
    space = analyze(light_model(name), mode="prune")
    feeds = [random_inputs(space.parts.graph.model)]
    for fraction, criterion in cuts_of(name):
        result = cut(space, Target(uniform=fraction), criterion=criterion)
        run = Runner()
        found = check(result, feeds, run)
        assert found.problems == ()
        assert found.moved > 100 * TOLERANCE
        ((output,),) = run(result.compact, feeds)
        assert np.unique(output).size > output.size / 2


@pytest.mark.parametrize("name", LARGE if THOROUGH else LARGE[:1])
def test_cuts_of_large_models_are_exact(name: str) -> None:
    """Three quarters by random choice; of three models that are alike the quick suite runs one."""
    space = analyze(light_model(name), mode="prune")
    source = space.parts.graph.model
    result = cut(space, Target(uniform=0.75), criterion="random")
    assert signature(result.compact) == signature(source)
    assert elements(result.compact) < 0.2 * elements(source)
    run, feeds = Runner(), [random_inputs(source)]
    assert distance(run(result.zeroed, feeds), run(result.compact, feeds)) <= TOLERANCE


@pytest.mark.parametrize("name", ["densenet121", "inception_v1", "resnet50", "shufflenet", "squeezenet"])
def test_structures_and_channels_leave_together(name: str) -> None:
    space = analyze(light_model(name), mode="joint")
    result = cut(space, Target(keep_macs=0.6), criterion="random")
    found = check(result, [random_inputs(space.parts.graph.model)], Runner())
    assert found.problems == ()
    assert any(place < len(space.candidates) for place in result.selection.chosen)
