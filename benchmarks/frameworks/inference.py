"""One contender's inference in a process: `python -m benchmarks.frameworks.inference KIND NETWORK FILE WIDTH`.

FILE holds weights, or is an ONNX model. For each line of JSON on standard input, {"batch": N, "runs": R}, the process
answers with one: the seconds of R runs after one that does not count, and of the first such line also the outputs. It
has one core and one thread. Needs nothing of this package but the networks, so that any environment can run it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MARK = "answer: "
"""Before each answer: frameworks print too."""
Run = Callable[[], Any]
Load = Callable[[str, str, int], Callable[[Any], Run]]
"""Of network, file and width: what gives, of images [N, 1, 28, 28], a function that runs them."""


def images(batch: int) -> Any:
    """The same images in every process."""
    return np.random.default_rng(0).standard_normal((batch, 1, 28, 28)).astype(np.float32)


def _onnxruntime(network: str, file: str, width: int) -> Callable[[Any], Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()

    def ready(x: Any) -> Run:
        feeds = {value.name: x if value.shape[1] == 1 else _channels_last(x)}
        return lambda: session.run(None, feeds)[0]

    return ready


def _torch(compiled: bool) -> Load:
    def load(network: str, file: str, width: int) -> Callable[[Any], Run]:
        import torch

        from benchmarks.frameworks import torch_networks

        torch.set_num_threads(1)
        module = getattr(torch_networks, network)(file, width)
        called = torch.compile(module) if compiled else module

        def ready(x: Any) -> Run:
            tensor = torch.from_numpy(x)

            def run() -> Any:
                with torch.inference_mode():
                    return called(tensor)

            return run

        return ready

    return load


def _keras(how: str) -> Load:
    """`call` calls the model, `predict` does what `model.predict` does for a batch, `xla` compiles a tf.function."""

    def load(network: str, file: str, width: int) -> Callable[[Any], Run]:
        import keras

        backend = keras.backend.backend()
        if backend == "torch":
            import torch

            torch.set_num_threads(1)

        from benchmarks.frameworks import keras_networks

        model = getattr(keras_networks, network)(file, width)
        called = model
        if how == "xla":
            import tensorflow as tf

            called = tf.function(model, jit_compile=True)

        def ready(x: Any) -> Run:
            turned = _channels_last(x)
            if how == "predict":
                return lambda: model.predict_on_batch(turned)
            tensor = keras.ops.convert_to_tensor(turned)
            if backend != "torch":
                return lambda: called(tensor, training=False)

            def run() -> Any:
                with torch.inference_mode():
                    return model(tensor, training=False)

            return run

        return ready

    return load


def _flax(compiled: bool) -> Load:
    def load(network: str, file: str, width: int) -> Callable[[Any], Run]:
        import jax
        from flax import nnx

        from benchmarks.frameworks import flax_networks

        module = getattr(flax_networks, network)(file, width)
        definition, state = nnx.split(module)

        def forward(state: Any, x: Any) -> Any:
            return nnx.merge(definition, state)(x)

        function = jax.jit(forward) if compiled else lambda state, x: module(x)

        def ready(x: Any) -> Run:
            array = jax.device_put(_channels_last(x))
            return lambda: function(state, array).block_until_ready()

        return ready

    return load


def _channels_last(x: Any) -> Any:
    return x.reshape(len(x), 28, 28, 1)


KINDS: dict[str, Load] = {
    "onnxruntime": _onnxruntime,
    "torch-eager": _torch(compiled=False),
    "torch-compiled": _torch(compiled=True),
    "keras-call": _keras("call"),
    "keras-predict": _keras("predict"),
    "keras-xla": _keras("xla"),
    "flax-eager": _flax(compiled=False),
    "flax-compiled": _flax(compiled=True),
}


def main() -> None:
    """Answer until the input ends."""
    kind, network, file, width = sys.argv[1:]
    _take_one_core()
    with contextlib.redirect_stdout(sys.stderr):
        ready = KINDS[kind](network, file, int(width))
    prepared: dict[int, Run] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        batch = asked["batch"]
        with contextlib.redirect_stdout(sys.stderr):
            answer = {} if batch in prepared else {"outputs": np.asarray(_first(prepared, batch, ready)).tolist()}
            answer["seconds"] = _timed(prepared[batch], asked["runs"])
        print(MARK + json.dumps(answer), flush=True)


def _first(prepared: dict[int, Run], batch: int, ready: Callable[[Any], Run]) -> Any:
    """The outputs of the first run of a batch, in which much is compiled."""
    prepared[batch] = ready(images(batch))
    return prepared[batch]()


def _timed(run: Run, runs: int) -> list[float]:
    run()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return seconds


def _take_one_core() -> None:
    """Contenders run one after another, each on the same core: what other threads it has share that one too."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


if __name__ == "__main__":
    main()
