"""ONNX's own node tests: no crash on any of them, and between dense layers every cut is exact."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from zlib import crc32

import numpy as np
import pytest

from onnx_asgnas.config import Target
from onnx_asgnas.errors import AsgnasError
from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.pruning import Pruned, cut
from onnx_asgnas.space import analyze
from onnx_asgnas.surgery import construct
from tests.corpus.exactness import HALF_TOLERANCE, TOLERANCE, check, removing
from tests.corpus.listed import assert_listed, listed
from tests.corpus.node_cases import STYLES, NodeCase, Wrapped, all_wrapped, node_cases
from tests.corpus.running import NotRunError, Runner

THOROUGH = bool(os.environ.get("THOROUGH"))
"""All cases in every style, more random cuts, and every group by itself: minutes instead of seconds."""
SAMPLED = {
    "along 1, flat": 4,
    "along the last": 4,
    "along the last, flat": 2,
    "along 0, flat": 4,
    "the others fed": 3,
    "open batch": 3,
}
"""Of these styles, which find little that the others do not find, one case in so many, and what stands in a list."""
HALF = ("float16", "bfloat16", "FLOAT16", "BFLOAT16")


def test_there_are_as_many_as_the_package_ships() -> None:
    assert len(node_cases()) >= 1884


@pytest.mark.parametrize("part", range(4))
def test_as_they_are_nothing_crashes_and_nothing_changes(part: int) -> None:
    unknown: set[str] = set()
    for case in islice(node_cases(), part, None, 4):
        graph = TraceGraph.of(case.model)
        for mode in ("prune", "joint", "erase"):
            space = analyze(graph, mode=mode)
            assert construct(graph, space).SerializeToString() == graph.model.SerializeToString(), case.name
        unknown.update(space.unknown)
        for name in unknown & set(case.operators):
            assert name in listed("unknown operators"), f"{name} of {case.name} is not in the list"


def test_unknown_operators_stand_in_the_list() -> None:
    found = {name for case in node_cases() for name in analyze(case.model, mode="prune").unknown}
    assert_listed(found, "unknown operators")


@dataclass(slots=True)
class Sweep:
    """What one style found: problems and cases that nothing runs, by name; how many were cut and how many moved."""

    problems: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    free: set[str] = field(default_factory=set)
    cut: int = 0
    moved: int = 0

    def take(self, case: NodeCase, wrap: Wrapped) -> None:
        """Analyse a case and cut it."""
        try:
            space = analyze(wrap.model, mode="prune")
            if space.channels.count:
                self.free.update(case.operators)
                run = Runner()
                for seed in range(4 if THOROUGH else 1):
                    self._check(case, wrap, cut(space, Target(uniform=0.5), criterion="random", seed=seed), run)
                for group in range(space.channels.count) if THOROUGH else ():
                    self._check(case, wrap, removing(space, np.arange(space.channels.count) == group), run)
        except NotRunError as error:
            self.not_run[case.name] = str(error)
        except (AsgnasError, ValueError, IndexError, KeyError, TypeError, AssertionError) as error:
            self.problems[case.name] = f"{type(error).__name__}: {error}"

    def _check(self, case: NodeCase, wrap: Wrapped, result: Pruned, run: Runner) -> None:
        if result.groups:
            half = any(name in case.name for name in HALF)
            found = check(result, wrap.feeds, run, tolerance=HALF_TOLERANCE if half else TOLERANCE)
            self.cut += 1
            self.moved += found.moved > 0
            if found.problems:
                self.problems[case.name] = "; ".join(found.problems)


@cache
def sweep(style: str) -> Sweep:
    """All cases wrapped in one style."""
    found, every = Sweep(), 1 if THOROUGH else SAMPLED.get(style, 1)
    always = listed("open defects").keys() | listed("not run").keys()
    for case, wrap in all_wrapped(STYLES[style]):
        if crc32(case.name.encode()) % every == 0 or case.name in always:
            found.take(case, wrap)
    return found


@pytest.mark.parametrize("style", STYLES)
def test_between_dense_layers_every_cut_is_exact(style: str) -> None:
    found = sweep(style)
    known = listed("open defects")
    assert {name: why for name, why in found.problems.items() if name not in known} == {}
    assert {name: why for name, why in found.not_run.items() if name not in listed("not run")} == {}
    assert found.cut > 5
    assert found.moved > 0.9 * found.cut


def test_what_is_wrong_stands_in_the_list() -> None:
    assert_listed({name for style in STYLES for name in sweep(style).problems}, "open defects")


def test_what_nothing_runs_stands_in_the_list() -> None:
    assert_listed({name for style in STYLES for name in sweep(style).not_run}, "not run")


def test_operators_through_which_no_channel_leaves_stand_in_the_list() -> None:
    """A rule that came to freeze more than it did would still be exact: here it shows."""
    found = {name for style in STYLES for name in sweep(style).free}
    wrapped = {name for style in STYLES.values() for case, _ in all_wrapped(style) for name in case.operators}
    assert_listed(wrapped - found, "operators that keep all channels")
