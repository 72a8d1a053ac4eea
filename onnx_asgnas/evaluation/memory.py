"""Peak memory of one run, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from onnx_asgnas.errors import ModelError
from onnx_asgnas.graph import ModelSource, TraceGraph, save_model
from onnx_asgnas.graph.inputs import made_up_inputs

# VmHWM and not ru_maxrss: the latter survives an exec, and would be that of the parent.
_CHILD = """
import json, sys
import numpy, onnxruntime

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

model, arrays, threads = sys.argv[1:]
inputs = dict(numpy.load(arrays))
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = int(threads)
before = status("VmRSS")
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
session.run(None, inputs)
session.run(None, inputs)
print(json.dumps(max(status("VmHWM") - before, 0)))
"""


def peak_memory(
    model: ModelSource | TraceGraph, *, batch: int = 1, threads: int | None = None, seed: int = 0
) -> int | None:
    """Bytes that loading a model in onnxruntime and running it twice adds to a process at its peak.

    None where the system does not tell it (it is read from /proc). It starts a process, which takes a few seconds, and
    knows pages only, so that figures under a megabyte say little. Raises ModelError where the model does not run.
    """
    if not Path("/proc/self/status").exists():
        return None
    graph = model if isinstance(model, TraceGraph) else TraceGraph.of(model)
    with tempfile.TemporaryDirectory() as folder:
        path, arrays = Path(folder) / "model.onnx", Path(folder) / "inputs.npz"
        save_model(graph.model, path)
        np.savez(arrays, **made_up_inputs(graph, batch, seed))  # type: ignore[arg-type]
        command = [sys.executable, "-c", _CHILD, str(path), str(arrays), str(threads or 0)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ModelError(f"the model does not run: {last[0][:300]}", fix="onnx-asgnas doctor checks the runtime.")
    return int(json.loads(done.stdout))
