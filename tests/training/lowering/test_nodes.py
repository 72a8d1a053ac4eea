"""Every operator that carries activations, over ONNX's own node tests: forward, and gradients by the ort engine.

A few cases of each operator run by default; all of them (a minute) with ONNX_ASGNAS_ALL_NODE_CASES=1. What does not
train stands in unsupported.json with the reason, and in no other place: the list must be exact.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from onnx_asgnas.errors import AsgnasError
from tests.training.lowering.node_cases import Answer, NodeCase, node_cases, torch_agrees, try_case

LISTED = json.loads((Path(__file__).parent / "unsupported.json").read_text(encoding="utf-8"))
SMALL = 2000
"""Elements up to which a case is quick in onnx's reference evaluator."""


@cache
def cases() -> Sequence[NodeCase]:
    by_operator = defaultdict(list)
    for case in node_cases():
        if case.name not in LISTED["not compared"] and case.op_type not in LISTED["not compared"]:
            by_operator[case.domain, case.op_type].append(case)
    if os.environ.get("ONNX_ASGNAS_ALL_NODE_CASES"):
        return [case for found in by_operator.values() for case in found]
    return [case for found in by_operator.values() for case in _two_of(found)]


def _two_of(found: Sequence[NodeCase]) -> Sequence[NodeCase]:
    """The smallest case of an operator, and the last by name of those that are small."""
    first, *others = sorted(found, key=lambda case: sum(value.size for value in case.feeds.values()))
    small = [case for case in others if sum(value.size for value in case.feeds.values()) <= SMALL]
    return [first, *sorted(small, key=lambda case: case.name)[-1:]]


def is_listed(case: NodeCase) -> bool:
    return any(case.op_type in LISTED[part] for part in ("not differentiable", "operators")) or (
        case.name in LISTED["cases"]
    )


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_operator_trains(case: NodeCase) -> None:
    try:
        answer = try_case(case)
    except AsgnasError as error:
        answer = Answer("refused", str(error))
    assert (answer.status != "trains") == is_listed(case), (answer.status, answer.detail)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_engines_agree(case: NodeCase) -> None:
    """The torch engine in float64 computes another training graph, with more operators as they are."""
    if is_listed(case):
        return
    answer = torch_agrees(case)
    assert answer.status == "trains", answer.detail


def test_nearly_all_differentiable_operators_train() -> None:
    operators = {case.op_type for case in node_cases()} - LISTED["not differentiable"].keys()
    assert len(operators) > 110
    assert len(operators & LISTED["operators"].keys()) <= 0.05 * len(operators)


def test_list_names_only_what_there_is() -> None:
    known = {case.name for case in node_cases()} | {case.op_type for case in node_cases()}
    assert {name for part in LISTED.values() for name in part} <= known
