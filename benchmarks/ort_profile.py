"""Which kernels of the training runtime a step spends its time in, forward and backward.

The session of the `ort` engine is profiled by onnxruntime itself; printed is each operator's share of all kernel time,
over the steps after the first ones, and what a step takes with the profiler on.

    python benchmarks/ort_profile.py "models:stackedunets?width=8" --batch 32
    python benchmarks/ort_profile.py resnet18.onnx --batch 16 --steps 10
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import torch

from onnx_asgnas.converters import convert
from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.engines import ort_session

_WARM_UP = 2
_SHOWN = 16
_IDS = 100


def main() -> None:
    """Train some steps, then read what the runtime wrote."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="what convert takes: models:…, or an ONNX file")
    parser.add_argument("--batch", type=int, default=32, help="for the open dimension that stands first")
    parser.add_argument("--length", type=int, default=64, help="for every other open dimension")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        sessions = _profiled(folder)
        module = OnnxModule(convert(options.source), engine="ort", threads=options.threads).train()
        feeds = _feeds(module.source, options.batch, options.length)
        seconds = []
        for _ in range(_WARM_UP + options.steps):
            start = time.perf_counter()
            outputs = module(**feeds)
            first = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
            first.float().square().mean().backward()
            seconds.append(time.perf_counter() - start)
        events = [event for session in sessions for event in json.loads(Path(session.end_profiling()).read_text())]
    _print(events, sorted(seconds[_WARM_UP:])[options.steps // 2])


def _profiled(folder: str) -> list[Any]:
    """Every session that the engine opens from now on is profiled; the list that is returned has them."""
    opened: list[Any] = []
    runtime = ort_session.import_onnxruntime()
    plain = runtime.InferenceSession

    def session(model: bytes, options: Any = None, **rest: Any) -> Any:
        if options is None:  # a probe of the lowering
            return plain(model, **rest)
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, str(len(opened)))
        opened.append(plain(model, options, **rest))
        return opened[-1]

    runtime.InferenceSession = session
    return opened


def _feeds(model: onnx.ModelProto, batch: int, length: int) -> dict[str, torch.Tensor]:
    feeds = {}
    for value in model.graph.input:
        dims = [d.dim_value or (length if axis else batch) for axis, d in enumerate(value.type.tensor_type.shape.dim)]
        floats = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        mask = "mask" in value.name
        feeds[value.name] = torch.randn(dims) if floats else torch.ones(dims, dtype=torch.int64)
        if not floats and not mask:
            feeds[value.name] = torch.randint(0, _IDS, dims)
    return feeds


def _print(events: list[dict[str, Any]], step: float) -> None:
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    runs = Counter(e["name"] for e in kernels)
    total: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in kernels:
        total[event["args"]["op_name"]] += event["dur"]
        calls[event["args"]["op_name"]] += 1
    steps = max(runs.values())
    whole = sum(total.values())
    print(f"{whole / steps / 1e3:.1f} ms of kernels in a step of {step * 1e3:.1f} ms (profiled)")
    print(f"{'operator':28} {'share':>6} {'ms a step':>10} {'nodes':>6}")
    for name, spent in total.most_common(_SHOWN):
        print(f"{name:28} {spent / whole:6.1%} {spent / steps / 1e3:10.2f} {calls[name] // steps:6}")


if __name__ == "__main__":
    main()
