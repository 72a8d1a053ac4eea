"""Runs files in the newest onnxruntime; started by the sweep with the Python of an environment that has it.

    python newest_runtime.py

Reads one JSON object a line, {"model": FILE, "feeds": NPZ, "expected": NPZ or FILE}, and answers each with one:
{"version", "difference"}, or {"version", "error"}. It imports nothing of the package.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import onnxruntime


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        answer: dict[str, Any] = {"version": onnxruntime.__version__}
        try:
            answer["difference"] = difference(**json.loads(line))
        except Exception as error:  # whatever onnxruntime raises is the answer
            answer["error"] = f"{type(error).__name__}: {error}"[:500]
        print(json.dumps(answer), flush=True)


def difference(model: str, feeds: str, expected: str) -> float:
    """The largest difference relative to the largest output; `expected` are the outputs, or a model that gives them."""
    with np.load(feeds) as fed:
        got = _outputs(model, fed)
        wanted = np.load(expected) if expected.endswith(".npz") else _outputs(expected, fed)
    return max(_apart(wanted[name], got[name]) for name in got)


def _outputs(model: str, feeds: Any) -> dict[str, Any]:
    """Load and run with all optimisations, as in deployment."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    fed = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, fed), strict=True))


def _apart(wanted: np.ndarray, got: np.ndarray) -> float:  # type: ignore[type-arg]
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        raise ValueError(f"an output is {got.dtype}{list(got.shape)}, not {wanted.dtype}{list(wanted.shape)}")
    if wanted.dtype.kind not in "fc":
        return float(not np.array_equal(wanted, got))
    if np.isnan(got).any():
        raise ValueError("an output is NaN")
    first, second = wanted.astype(np.float64), got.astype(np.float64)
    apart = np.abs(first - second).max(initial=0.0)
    return float(apart / max(np.abs(first).max(initial=0.0), 1e-30)) if apart else 0.0


if __name__ == "__main__":
    main()
