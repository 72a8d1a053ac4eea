"""The facts of a run, or of pruning: what a report is made from, and the form in which programs read them."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx_asgnas.config import SearchConfig, Target
from onnx_asgnas.evaluation import Benchmark, Verification
from onnx_asgnas.report.channels import ChannelFate
from onnx_asgnas.report.fates import Fate, fates_of
from onnx_asgnas.report.operator_times import OperatorTime
from onnx_asgnas.space import SearchSpace

FORMAT = 1
"""Version of the JSON form."""


@dataclass(frozen=True, kw_only=True)
class NetworkReport(ABC):
    """What became of a network: what a page can show however the compact model was made.

    `space` is bound to its model. `chosen` gives, for the removal tensors of the groups at zero and in the order in
    which they were chosen, the redundancy that decided; `redundancy` gives that of the other candidates where known.
    `channels` says how wide each layer is that may lose some (in the modes prune and joint). `left` are the tensors
    that the operators of the compact model make, `operator_times` what each operator of the full and of the compact
    model takes. Of a training `history` has one mapping per epoch: `epoch` (from 1), `phase`, `loss` (mean over the
    epoch), `accuracy` (fraction from 0 to 1 of the test data; None without labels), `groups_at_zero`, `lr`, `seconds`
    (since the training began); `events` are those that the run kept, `seconds` the time that it took.
    """

    space: SearchSpace
    chosen: Mapping[str, float]
    comparison: Benchmark
    verification: Verification
    versions: Mapping[str, str] = field(default_factory=dict)
    redundancy: Mapping[str, float] = field(default_factory=dict)
    channels: Sequence[ChannelFate] = ()
    left: frozenset[str] = frozenset()
    operator_times: Sequence[Sequence[OperatorTime]] | None = None
    history: Sequence[Mapping[str, Any]] = ()
    events: Sequence[Mapping[str, Any]] = ()
    seconds: float | None = None

    @property
    @abstractmethod
    def told(self) -> str:
        """What was asked for, in one line."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Every option by name."""

    @property
    def name(self) -> str:
        """What the network is called, in its own file."""
        return (self.space.graph.model.graph.name if self.space.graph is not None else "") or "network"

    def fates(self) -> tuple[Fate, ...]:
        """What became of each removal structure, and why; raises SpaceError if the space has no model."""
        return fates_of(self.space, self.chosen, {**self.redundancy, **self.chosen})


@dataclass(frozen=True, kw_only=True)
class PruneReport(NetworkReport):
    """What became of a network by its weights alone, for a target and further options."""

    target: Target
    options: Mapping[str, Any]

    @property
    def told(self) -> str:
        """What was asked for, in one line."""
        return f"pruned without training · {self.space.mode}, {self.target}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every option by name."""
        return {"mode": self.space.mode, "target": str(self.target), **self.options}


@dataclass(frozen=True, kw_only=True)
class RunReport(NetworkReport):
    """Everything that a report tells of one run. `stages` is how its steps spent the time, in seconds, where known."""

    config: SearchConfig
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """What was asked for, in one line."""
        config = self.config
        return f"{config.data} · {config.mode}, {config.target} · {config.method} · seed {config.seed}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every option by name."""
        return dataclasses.asdict(self.config) | {"target": str(self.config.target)}

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
