"""Is the compact model the same function, and what was gained: verification, cost, latency, memory, accuracy."""

from onnx_asgnas.evaluation.accuracy import accuracy, measured
from onnx_asgnas.evaluation.benchmark import Benchmark, Kept, ModelFacts, benchmark
from onnx_asgnas.evaluation.latency import Latency, measure_latency
from onnx_asgnas.evaluation.memory import peak_memory
from onnx_asgnas.evaluation.profile import Profile, profile
from onnx_asgnas.evaluation.verification import Verification
from onnx_asgnas.evaluation.verify import verify

__all__ = [
    "Benchmark",
    "Kept",
    "Latency",
    "ModelFacts",
    "Profile",
    "Verification",
    "accuracy",
    "benchmark",
    "measure_latency",
    "measured",
    "peak_memory",
    "profile",
    "verify",
]
