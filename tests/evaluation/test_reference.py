"""The network in float64, by the standard's reference."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from onnx_asgnas.evaluation.reference import outputs_in_double


@pytest.mark.parametrize("kernel", ["64, 64", "6, 6"])
def test_a_window_larger_than_the_image_is_its_mean(kernel: str) -> None:
    """With a kernel of 2,560 pixels, as EfficientNet's, the reference alone would ask for 125 GB."""
    text = '<ir_version: 8, opset_import: ["" : 18]> g (float[N,2,6,6] x) => (float[N,2,1,1] y) { y = AveragePool'
    model = parser.parse_model(f"{text} <kernel_shape = [{kernel}], strides = [{kernel}], ceil_mode = 1> (x) }}")
    x = np.random.default_rng(0).standard_normal((3, 2, 6, 6)).astype(np.float32)
    found = outputs_in_double(model, {"x": x})["y"]
    assert found.dtype == np.float64
    assert np.allclose(found, x.astype(np.float64).mean((2, 3), keepdims=True), rtol=1e-12)


def test_smaller_windows_are_those_of_the_standard() -> None:
    text = '<ir_version: 8, opset_import: ["" : 18]> g (float[1,1,4,4] x) => (float[1,1,4,4] y) { y = AveragePool'
    model = parser.parse_model(f"{text} <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x) }}")
    found = outputs_in_double(model, {"x": np.ones((1, 1, 4, 4), np.float32)})["y"]
    assert np.array_equal(found, np.ones((1, 1, 4, 4)))
