"""The facts of a run: what the pipeline hands over, and the form in which programs read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx_asgnas.config import SearchConfig
from onnx_asgnas.evaluation import Benchmark, Verification
from onnx_asgnas.report.channels import ChannelFate
from onnx_asgnas.report.fates import Fate, fates_of
from onnx_asgnas.report.operator_times import OperatorTime
from onnx_asgnas.space import SearchSpace

FORMAT = 1
"""Version of the JSON form."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything that a report tells of one run.

    `space` is bound to its model. `chosen` gives, for the removal tensors of the groups at zero and in the order in
    which they were chosen, the redundancy that decided; `redundancy` gives that of the other candidates where known.
    `history` has one mapping per epoch: `epoch` (from 1), `phase`, `loss` (mean over the epoch), `accuracy` (fraction
    from 0 to 1 of the test data; None without labels), `groups_at_zero`, `lr`, `seconds` (since the training began).
    `channels` says how wide each layer is that may lose some (in the modes prune and joint).
    `seconds` is the time that training took, `stages` how its steps spent it, in seconds, where known. `events` are
    those that the run kept, `left` the tensors that the operators of the compact model make, `operator_times` what
    each operator of the full and of the compact model takes.
    """

    config: SearchConfig
    space: SearchSpace
    chosen: Mapping[str, float]
    history: Sequence[Mapping[str, Any]]
    comparison: Benchmark
    verification: Verification
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)
    redundancy: Mapping[str, float] = field(default_factory=dict)
    channels: Sequence[ChannelFate] = ()
    stages: Mapping[str, float] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    left: frozenset[str] = frozenset()
    operator_times: Sequence[Sequence[OperatorTime]] | None = None

    @property
    def name(self) -> str:
        """What the network is called, in its own file."""
        return (self.space.graph.model.graph.name if self.space.graph is not None else "") or "network"

    def fates(self) -> tuple[Fate, ...]:
        """What became of each removal structure, and why; raises SpaceError if the space has no model."""
        return fates_of(self.space, self.chosen, {**self.redundancy, **self.chosen})

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the comparison on top (`full`, `compact`, `kept`, `verified`), then the run that led to it."""
        space = self.space
        return {
            **self.comparison.to_dict(),
            "verified": self.verification.to_dict(),
            "format": FORMAT,
            "name": self.name,
            "structures": [fate.to_dict() for fate in self.fates()],
            "channels": [fate.to_dict() for fate in self.channels],
            "chosen": [{"tensor": tensor, "redundancy": score} for tensor, score in self.chosen.items()],
            "max_removable": dataclasses.asdict(space.max_removable),
            "unknown_operators": list(space.unknown),
            "history": [dict(epoch) for epoch in self.history],
            "config": dataclasses.asdict(self.config),
            "seed": self.config.seed,
            "seconds": self.seconds,
            "stages": dict(self.stages),
            "versions": dict(self.versions),
        }
