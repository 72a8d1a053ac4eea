"""What a run is told: frozen dataclasses that go to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from onnx_asgnas.errors import InputError, TargetError

if TYPE_CHECKING:
    from typing_extensions import Self

Mode = Literal["erase", "prune", "joint"]
Criterion = Literal["magnitude", "mean-magnitude", "random"]
Variant = Literal["sgd", "adam", "adamw"]
Autocast = Literal["bf16"]
Method = Literal["h2spg", "dhspg", "hesso"]

SCORE, CHANNEL_SCORE = "measured", "cosine"
"""How redundant a structure and a channel is, unless it is said otherwise."""
SELECT_AT, ZERO_AT = 0.1, 0.15
"""When the groups are chosen and when they are at zero, as fractions of a search, unless it is said otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """How much has to go; exactly one field is given.

    `remove_groups` is the paper's K: a whole number of minimal removal structures, or (below 1, as a float) their
    fraction. `keep_params` and `keep_macs` are the fraction of trainable parameters, or of multiply-accumulates, that
    may stay; `uniform` is the fraction of channels to take out of every free layer (no meaning in erase mode). The cost
    is that of the model that construct gives.

    Raises TargetError when not exactly one is given or a value is out of range.
    """

    remove_groups: float | int | None = None
    keep_params: float | None = None
    keep_macs: float | None = None
    uniform: float | None = None

    def __post_init__(self) -> None:
        given = {f.name: v for f in dataclasses.fields(self) if (v := getattr(self, f.name)) is not None}
        options = "remove_groups, keep_params, keep_macs and uniform"
        if len(given) != 1:
            raise TargetError(f"a target is exactly one of {options}; got {len(given)}", fix="Give one of them.")
        (name, value), *_ = given.items()
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TargetError(f"{name} is {value!r}", fix="Give a number.")
        if name == "remove_groups":
            fraction = isinstance(value, float) and 0 < value < 1
            if not (fraction or (float(value).is_integer() and value >= 1)):
                raise TargetError(
                    f"remove_groups is {value}", fix="Give a whole number of structures (4), or a fraction (0.5)."
                )
        elif not 0 < value < 1:
            raise TargetError(f"{name} is {value}", fix="Give a fraction between 0 and 1.")

    def __str__(self) -> str:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                return f"{field.name}={value:g}"
        return "no target"


def check_widths(mode: Mode, *, round_to: int, min_channels: int) -> None:
    """Raise InputError for numbers of channels that are none, or that mean nothing in a mode."""
    for name, value in (("round_to", round_to), ("min_channels", min_channels)):
        if value < 1 or value != int(value):
            raise InputError(f"{name} is {value!r}", fix="Give a whole number, 1 or more.")
        if mode == "erase" and value > 1:
            raise InputError(
                f"{name} is {value}, but mode erase removes whole structures and leaves their channels alone",
                fix="Use mode prune or joint.",
            )


def check_gates(mode: Mode, *, gates: bool) -> None:
    """Raise InputError for gates in a mode in which they do nothing."""
    if gates and mode == "prune":
        raise InputError(
            "gates make structures erasable, and mode prune removes channels only",
            fix="Use mode erase or joint, or leave gates out.",
        )


LEARNING_RATES: Mapping[str, float] = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3}
"""The learning rate of each optimiser, unless it is said otherwise."""

_LONGEST_HOLD = 0.5
"""The part of a search that is annealed at least, however late its groups are at zero."""

PRETRAINED = 1 / 3
"""The part of that learning rate that fits a start from trained weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """How outputs and gradients are computed.

    `engine` is "ort" (onnxruntime-training), "torch", or "auto": the first where it is installed, else the second.
    `device` is where weights and gradients lie ("cpu", "cuda:0", "mps"). `channels_last`, `autocast` ("bf16") and
    `compile` (torch.compile) are for the torch engine. `threads` is how many CPU threads it may use (None: all cores).
    """

    engine: str = "auto"
    device: str = "cpu"
    channels_last: bool = False
    autocast: Autocast | None = None
    compile: bool = False
    threads: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that a training is told, be it a search or plain; a run directory keeps it as config.json.

    `loss`, `metrics`, `distill` and `schedule` are texts as the command line takes them. `lr` is the highest learning
    rate, `min_lr` the lowest after `warmup_epochs`. The test data are evaluated after every `test_every`-th epoch, and
    after the last. `clip_grad_norm` is the longest that the gradient of all weights may be. `micro_batch` is how many
    samples are computed at a time, `checkpoint_every` how many seconds may be lost when the training is stopped.
    `pretrained` says that the weights are trained already, which changes what `of` takes for granted.
    """

    data: str
    loss: str = "cross_entropy"
    metrics: str = ""
    test_every: int = 1
    distill: str | None = None
    pretrained: bool = False
    epochs: int = 10
    batch_size: int = 32
    variant: Variant = "sgd"
    lr: float = LEARNING_RATES["sgd"]
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    clip_grad_norm: float | None = None
    micro_batch: int | None = None
    checkpoint_every: float = 60.0
    freeze: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    freeze_bn: bool = False
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"
    channels_last: bool = False
    autocast: Autocast | None = None
    compile: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 1, 10**6),
            ("test_every", 1, 10**6),
            ("batch_size", 1, 10**6),
            ("lr", 0, 1e6),
            ("momentum", 0, 1),
            ("weight_decay", 0, 1e6),
            ("min_lr", 0, 1e6),
            ("warmup_epochs", 0, 1e6),
            ("checkpoint_every", 0, 1e6),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}", fix=f"Give a value between {low} and {high:g}.")
        if self.warmup_epochs >= self.epochs:
            raise InputError(
                f"warmup_epochs is {self.warmup_epochs:g} and epochs is {self.epochs}",
                fix="Warm up for less than the whole training.",
            )
        if self.min_lr > self.lr:
            raise InputError(f"min_lr is {self.min_lr:g} and lr is {self.lr:g}", fix="Give a min_lr not above lr.")
        if self.clip_grad_norm is not None and not self.clip_grad_norm > 0:
            raise InputError(f"clip_grad_norm is {self.clip_grad_norm}", fix="Give a length above zero.")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise InputError(f"micro_batch is {self.micro_batch}", fix="Give a number of samples, 1 or more.")
        self._one_of("variant", Variant)
        if self.autocast is not None:
            self._one_of("autocast", Autocast)

    @property
    def engine_options(self) -> EngineOptions:
        """How outputs and gradients are computed, as one object."""
        return EngineOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(EngineOptions)})

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The configuration of what was given, and of defaults that fit it.

        The learning rate follows from the optimiser; with `pretrained` it is a third of that.
        """
        rate = LEARNING_RATES.get(given.get("variant", "sgd"), LEARNING_RATES["sgd"])
        return cls(**({"lr": rate * PRETRAINED if given.get("pretrained") else rate} | given))

    def to_json(self) -> str:
        """This configuration as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The configuration that `to_json` wrote; raises InputError on unknown fields, and on what is none."""
        try:
            values: dict[str, Any] = dict(json.loads(text))
            if "target" in (known := {field.name for field in dataclasses.fields(cls)}):
                values["target"] = Target(**values["target"])
            values["data"] = values["data"]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"this is no configuration: {error}", fix="Start a new run.") from None
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"unknown configuration fields: {', '.join(unknown)}", fix="Remove them.")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**(values | lists))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The configuration kept in a run directory's config.json; raises InputError where it cannot be read."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}", fix="Check the path.", path=str(path)) from None
        return cls.from_json(text)

    def _one_of(self, name: str, allowed: Any) -> None:
        if getattr(self, name) not in get_args(allowed):
            choices = ", ".join(get_args(allowed))
            raise InputError(f"{name} is {getattr(self, name)!r}", fix=f"Choose one of: {choices}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig(TrainConfig):
    """Everything that one search run is told.

    Fractions `select_at` and `zero_at` are of all optimiser steps: when the redundant structures are chosen, and when
    they are at zero. `score` (of structures) and `channel_score` are names in the score registry, or several with
    weights ("magnitude:1,cosine:1"). `round_to` and `min_channels` say how many channels layers keep. `gates` makes
    skip connections and poolings erasable (`add_gates`).
    """

    target: Target
    mode: Mode = "erase"
    gates: bool = False
    round_to: int = 1
    min_channels: int = 1
    method: Method = "h2spg"
    score: str = SCORE
    channel_score: str = CHANNEL_SCORE
    select_at: float = SELECT_AT
    zero_at: float = ZERO_AT
    epsilon: float = 0.0
    protect: tuple[str, ...] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        super(SearchConfig, self).__post_init__()
        if not 0 <= self.select_at < self.zero_at <= 1:
            raise InputError(
                f"select_at is {self.select_at} and zero_at is {self.zero_at}",
                fix="Give fractions of the training with 0 ≤ select_at < zero_at ≤ 1.",
            )
        self._one_of("mode", Mode)
        self._one_of("method", Method)
        if self.mode == "prune" and self.score != SCORE:
            raise InputError(
                f"score is {self.score!r}, which is for structures, and mode prune removes channels only",
                fix="Give it as channel_score.",
            )
        if self.mode == "erase" and self.channel_score != CHANNEL_SCORE:
            raise InputError(
                f"channel_score is {self.channel_score!r}, and mode erase removes no channels",
                fix="Give it as score, or use mode prune or joint.",
            )
        check_gates(self.mode, gates=self.gates)
        check_widths(self.mode, round_to=self.round_to, min_channels=self.min_channels)

    @classmethod
    def of(cls, **given: Any) -> Self:
        """As for any training; and the learning rate falls only from `zero_at` on, at the latest from the middle.

        What is annealed is then the network that stays, over a whole cosine.
        """
        config = super(SearchConfig, cls).of(**given)
        if "schedule" in given:
            return config
        rising = config.warmup_epochs / config.epochs
        hold = (min(config.zero_at, _LONGEST_HOLD) - rising) / (1 - rising)
        return dataclasses.replace(config, schedule=f"cosine?hold={max(0.0, hold):.4g}")
