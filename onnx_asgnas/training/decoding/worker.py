"""A worker process: `python -m onnx_asgnas.training.decoding.worker` reads jobs and writes answers, pickled.

It is no `multiprocessing` worker, which would either copy a process with running threads or run the user's own script
once more.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys

from onnx_asgnas.training.decoding.decode import decode


def main() -> None:
    """Answer jobs until the other side closes the pipe; Ctrl-C is for the process that asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            pickle.dump(decode(pickle.load(source)), sink, protocol=5)
            sink.flush()


if __name__ == "__main__":
    main()
