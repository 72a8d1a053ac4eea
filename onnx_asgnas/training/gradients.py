"""The gradients of one batch, which may be computed in parts: micro-batches, and several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from onnx_asgnas.training.bridge import OnnxModule
from onnx_asgnas.training.data import Batch, samples_in
from onnx_asgnas.training.distributed import ALONE, Processes, rows_of
from onnx_asgnas.training.events import Timing
from onnx_asgnas.training.losses import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """How a batch is computed.

    Each of the `processes` takes a part of the rows, and computes it `micro_batch` rows at a time (None: all at once),
    so that no more activations than theirs are in memory. The gradients are those of the whole batch, since the losses
    are sums divided by the counts of the whole (see `Objective`). Batch normalisation sees what is computed at a time,
    and so differs: its running statistics move once for each part, and processes take the mean of theirs.
    """

    micro_batch: int | None = None
    processes: Processes = ALONE

    def gradients(
        self, module: OnnxModule, loss: Objective, batch: Batch, timing: Timing, *, stop: bool = False
    ) -> tuple[float, bool]:
        """Leave a batch's gradients in the module's parameters; its loss, and whether any process wants to `stop`."""
        counts = loss.counts(*batch)
        module.zero_grad(set_to_none=True)
        total = 0.0
        for inputs, targets in self._micro_batches(self.processes.part(batch)):
            t0 = time.perf_counter()
            share = loss.share(module(**inputs), inputs, targets, counts)
            t1 = time.perf_counter()
            total += float(share.detach())
            if math.isfinite(total):
                share.backward()  # type: ignore[no-untyped-call]
            else:  # the training ends here, and the runtime's MaxPoolGrad writes out of bounds where its window was NaN
                _without_gradients(module)
            timing.forward += t1 - t0
            timing.backward += time.perf_counter() - t1
        return self._exchanged(module, total, timing, stop) if self.processes.several else (total, stop)

    def _micro_batches(self, batch: Batch) -> Iterator[Batch]:
        rows = samples_in(*batch)
        size = self.micro_batch or rows
        for start in range(0, rows, max(size, 1)):
            yield rows_of(batch, start, min(start + size, rows)) if size < rows else batch

    def _exchanged(self, module: OnnxModule, total: float, timing: Timing, stop: bool) -> tuple[float, bool]:
        """Add up gradients, loss and the wish to stop over all processes, and take the mean of running statistics."""
        asked = time.perf_counter()
        trained = [p for p in module.parameters() if p.grad is not None]
        statistics = [b for b in module.buffers() if b.is_floating_point()]
        said = module.flat.new_tensor([total, float(stop)])
        gradients = [p.grad for p in trained if p.grad is not None]
        sums = self.processes.add([said, *gradients, *statistics])
        for parameter, gradient in zip(trained, sums[1 : 1 + len(trained)], strict=True):
            parameter.grad = gradient
        with torch.no_grad():
            for statistic, added in zip(statistics, sums[1 + len(trained) :], strict=True):
                statistic.copy_(added / self.processes.count)
        timing.exchange += time.perf_counter() - asked
        return float(sums[0][0]), bool(sums[0][1] > 0)


def _without_gradients(module: OnnxModule) -> None:
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
