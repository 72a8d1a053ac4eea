"""Operators as PyTorch code, on ONNX's own node tests: what is written gives what they expect, or is refused."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from onnx_asgnas.errors import ModelError, UnsupportedOperatorError
from onnx_asgnas.evaluation.difference import relative_difference
from onnx_asgnas.export.checking import load_network, outputs_of
from onnx_asgnas.export.registry import written_operators
from onnx_asgnas.export.write import write_unchecked
from onnx_asgnas.graph import TraceGraph
from tests.corpus.node_cases import NodeCase, node_cases

SAMPLED = 1 if os.environ.get("THOROUGH") else 8
"""One case in so many."""
OTHERWISE = ("training", "test_mod_float_edge", "test_shape_start_greater", "sequence", "test_identity_opt")
"""Training forms, which a normal form does not have; remainders of infinities; an empty list; what is no tensor."""


def _cases() -> list[NodeCase]:
    known = set(written_operators())
    fitting = [case for case in node_cases() if set(case.operators) <= known and not _is_otherwise(case)]
    return [case for case in fitting if crc32(case.name.encode()) % SAMPLED == 0]


def _is_otherwise(case: NodeCase) -> bool:
    arrays = all(isinstance(value, np.ndarray) for value in (*case.inputs.values(), *case.outputs))
    return any(part in case.name for part in OTHERWISE) or not arrays


def _tolerance(case: NodeCase) -> float:
    kinds = {np.asarray(value).dtype.name for value in (*case.outputs, *case.inputs.values())}
    return 2e-2 if "bfloat16" in kinds else 2e-3 if "float16" in kinds else 1e-5


def test_node_tests_give_what_they_expect_or_are_refused(tmp_path: Path) -> None:
    wrong, right = [], 0
    for case in _cases():
        code = tmp_path / "case.py"
        try:
            graph = TraceGraph.of(case.model)
            write_unchecked(graph, code, case.name)
        except (UnsupportedOperatorError, ModelError):
            continue
        got = outputs_of(load_network(code), {name: case.inputs[name] for name in graph.inputs}, graph.outputs)
        expected = dict(zip((value.name for value in case.model.graph.output), case.outputs, strict=True))
        for name in graph.outputs:
            pair = [np.asarray(each[name]) for each in (expected, got)]
            half = pair[0].dtype.name == "bfloat16"
            first, second = (each.astype(np.float32) if half else each for each in pair)
            if relative_difference(first, second) > _tolerance(case):
                wrong.append(case.name)
        right += 1
    assert not wrong
    assert right > 600 / SAMPLED


@pytest.mark.parametrize("op_type", ["Conv", "Gemm", "LayerNormalization", "ScatterND", "Resize", "Einsum"])
def test_the_usual_operators_are_written(op_type: str) -> None:
    assert op_type in written_operators()
