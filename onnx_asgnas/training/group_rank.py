"""The redundancy of all groups of a space: structures by one score, channels by another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_asgnas.config import Target
from onnx_asgnas.errors import InputError
from onnx_asgnas.space import SearchSpace
from onnx_asgnas.training.loss_probe import LossProbe
from onnx_asgnas.training.scores import RedundancyScore, Statistics

__all__ = ["GroupRank"]

FloatArray = npt.NDArray[np.float64]


class GroupRank:
    """Ranks the groups of a space: its `structures` first ones by `score`, the channel groups by `channel_score`.

    Channels are too many to measure the loss without each of them, and are never compared with structures, so each
    kind has a score of its own. A channel score that estimates the rise of the loss is a price: channels compare by it
    for each parameter, or multiply-accumulate, that leaves with them, whichever the target counts. `measures` says that
    the loss can be evaluated. Raises InputError for scores that the groups cannot have.
    """

    def __init__(
        self,
        space: SearchSpace,
        target: Target,
        *,
        score: str | Mapping[str, float],
        channel_score: str | Mapping[str, float],
        momentum: float,
        measures: bool,
    ) -> None:
        self.structures = len(space.candidates)
        self._channels = len(space.groups) - self.structures
        self._of_structures = RedundancyScore(score, momentum=momentum)
        self._of_channels = RedundancyScore(channel_score, momentum=momentum)
        self._gains = _gains(space, target) if self._channels and self._of_channels.is_estimate else None
        if self._of_channels.reads_loss:
            raise InputError(
                f"the channel score {self._of_channels} measures the loss without each of them, which takes too long",
                fix="Choose one that reads weights and gradients, as cosine or taylor1.",
            )
        if self.reads_loss and not measures:
            raise InputError(
                f"the score {self._of_structures} measures the loss, but there is no evaluate",
                fix='Pass evaluate, a function that gives the loss on a few batches, or another score, as "paper".',
            )

    @property
    def reads_statistics(self) -> bool:
        """Whether `sample` has to be called in the warm-up."""
        return bool(self._channels) or self._of_structures.reads_statistics

    @property
    def reads_loss(self) -> bool:
        """Whether a call needs a probe."""
        return bool(self.structures) and self._of_structures.reads_loss

    @property
    def is_price(self) -> bool:
        """Whether the structures' redundancy is minus a rise of the loss."""
        return self._of_structures.is_price

    def sample(self, statistics: Statistics) -> None:
        """Take one step's statistics of all groups into the averages."""
        if self.structures and self._of_structures.reads_statistics:
            self._of_structures.sample(statistics.among(slice(self.structures)))
        if self._channels:
            self._of_channels.sample(statistics.among(slice(self.structures, None)))

    def __call__(self, chosen: tuple[int, ...], probe: LossProbe | None) -> FloatArray:
        """Redundancy of every group, float64 [groups], given those chosen so far; `probe` holds the structures."""
        parts = []
        if self.structures:
            before = tuple(index for index in chosen if index < self.structures)
            parts.append(self._of_structures.rank(before, probe))
        if self._channels:
            parts.append(self._priced(self._of_channels.rank(())))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _priced(self, redundancy: FloatArray) -> FloatArray:
        return redundancy if self._gains is None else (redundancy - 1) / self._gains

    def state_dict(self) -> dict[str, Any]:
        """The averages so far."""
        return {"structures": self._of_structures.state_dict(), "channels": self._of_channels.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self._of_structures.load_state_dict(state["structures"])
        self._of_channels.load_state_dict(state["channels"])

    def __str__(self) -> str:
        scores = [str(self._of_structures)] * bool(self.structures) + [str(self._of_channels)] * bool(self._channels)
        return " and ".join(scores)


def _gains(space: SearchSpace, target: Target) -> FloatArray | None:
    """What leaves with each channel group alone, of what the target counts; None where it counts groups."""
    if target.keep_params is None and target.keep_macs is None:
        return None
    savings = space.parts.costs.savings(space.channels.number)
    kind = 0 if target.keep_params is not None else 1
    gains = np.array([savings.get(group, (0, 0))[kind] for group in range(space.channels.count)], np.float64)
    return np.maximum(gains, 1)
