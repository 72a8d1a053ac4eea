"""H2SPG: the hierarchical half-space projected gradient method, as a torch optimiser.

Minimises the loss subject to a target of zero groups whose removal leaves a valid network (ASGNAS, arXiv 2305.18030,
Algorithm 3): plain steps while redundancy is averaged; then the groups are chosen; then the chosen ones are pushed
towards zero and projected onto it, while the others train on; then training goes on with the zeros fixed.

Three methods share the phases. `h2spg` is the paper's. `dhspg` is H2SPG without the check that the network stays
valid. `hesso` brings the chosen groups to zero by its progressive schedule instead of the projection.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from onnx_asgnas.config import CHANNEL_SCORE, SCORE, SELECT_AT, ZERO_AT, Method, Target, Variant
from onnx_asgnas.errors import InputError, NonFiniteError, SpaceError
from onnx_asgnas.space import SearchSpace, Selection
from onnx_asgnas.training.group_rank import GroupRank
from onnx_asgnas.training.groups import GroupAtoms, ZeroPart
from onnx_asgnas.training.loss_probe import LossProbe
from onnx_asgnas.training.narrowing import Narrowed
from onnx_asgnas.training.phases import Phase, Schedule
from onnx_asgnas.training.scores import Statistics

__all__ = ["H2SPG", "Penalty", "Phase", "Schedule", "half_space_penalty"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Penalty:
    """The authors' constants for the weight λ of λ‖x_g‖: λ is in [base, cap · base]."""

    base: float
    amplify: float
    cap: float


_PENALTIES: Mapping[Variant, Penalty] = MappingProxyType(
    {"sgd": Penalty(1e-3, 2, 10), "adam": Penalty(1e-2, 20, 1e3), "adamw": Penalty(1e-2, 20, 1e3)}
)


def half_space_penalty(penalty: Penalty, *, norm: Tensor, inner: Tensor, gradient_norm: Tensor) -> Tensor:
    """λ per group, from ‖x‖, ⟨x, ∇f⟩ and ‖∇f‖.

    Where ⟨x, ∇f⟩ < 0 the loss pulls the group away from the origin. λ is then raised above the least value λ_lo =
    -⟨x, ∇f⟩ / ‖x‖ that still shrinks the group, and kept below λ_up = -‖∇f‖² ‖x‖ / ⟨x, ∇f⟩, from which on the step no
    longer lowers the loss.
    """
    low = -inner / norm
    high = -gradient_norm.square() * norm / inner
    raised = (penalty.amplify * low).clamp(penalty.base, penalty.base * penalty.cap)
    raised = torch.where(raised >= high, (low + high) / 2, raised)
    return torch.where(inner < 0, raised, penalty.base)


class H2SPG(torch.optim.Optimizer):
    """Trains `model` so that a target of the groups of `space` is exactly zero, and the others are trained.

    Every variable takes the step of torch's own SGD, Adam or AdamW (`variant`); state and parameter groups have their
    names, so learning-rate schedulers work as they do there. `momentum` and `nesterov` belong to "sgd", `betas` and
    `eps` to the others. `fused=True` takes torch's fused kernels, which on a CPU need half the time and differ in the
    last bits.

    The run has `total_steps` steps. After the fraction `select_at` of them `space.choose` picks the redundant groups,
    structures by `score` and channels by `channel_score` (see `onnx_asgnas.training.scores`; their moving averages have
    the momentum `score_momentum`). A score that measures the loss, which channels are too many for, calls `evaluate`:
    it gives the loss on a few batches, forward only, with the model's weights as they then stand. Where several
    processes train, `agree` gives each the redundancy that the first one found. Of a layer's channels a multiple of
    `round_to` stays, and at least `min_channels`.

    From then on a redundant group x takes the trial step x̂ = x - α d - α λ x/‖x‖, and becomes zero for good, its
    momentum too, when ⟨x̂, x⟩ < `epsilon` ‖x‖². In the last part, `shrink`, of the phase what is left is scaled to zero
    linearly, so that at the fraction `zero_at` the target is met. Zero groups are then skipped, and so is what is dead
    without them. A schedule of the learning rate had better begin to fall there, as that of `search` does. A parameter
    without a gradient takes no plain step, but goes to zero with its group.

    Raises InputError for options that do not fit together, SpaceError when `space` does not belong to `model`, and
    TargetError, at once, when the target cannot be reached.
    """

    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace,
        *,
        target: Target,
        total_steps: int,
        variant: Variant = "sgd",
        lr: float = 0.05,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        fused: bool = False,
        method: Method = "h2spg",
        hierarchy: bool | None = None,
        score: str | Mapping[str, float] = SCORE,
        channel_score: str | Mapping[str, float] = CHANNEL_SCORE,
        score_momentum: float = 0.9,
        evaluate: Callable[[], float] | None = None,
        agree: Callable[[FloatArray], FloatArray] = lambda redundancy: redundancy,
        select_at: float = SELECT_AT,
        zero_at: float = ZERO_AT,
        shrink: float = 0.5,
        epsilon: float = 0.0,
        round_to: int = 1,
        min_channels: int = 1,
        seed: int = 0,
    ) -> None:
        if method not in ("h2spg", "dhspg", "hesso"):
            raise InputError(f"method is {method!r}", fix="Choose one of: h2spg, dhspg, hesso.")
        if not 0 <= epsilon < 1:
            raise InputError(f"epsilon is {epsilon}", fix="Give a value from 0 to below 1.")
        self.schedule = Schedule.from_fractions(
            total_steps, select_at=select_at, zero_at=zero_at, shrink=1.0 if method == "hesso" else shrink
        )
        self._rank = GroupRank(
            space,
            target,
            score=score,
            channel_score=channel_score,
            momentum=score_momentum,
            measures=evaluate is not None,
        )
        self._model = model
        self._space = space
        self._method = method
        self._hierarchy = method != "dhspg" if hierarchy is None else hierarchy
        self._evaluate = evaluate
        self._agree = agree
        self._narrowed: Narrowed | None = None
        self._epsilon = epsilon
        self._penalty = _PENALTIES[variant] if variant in _PENALTIES else Penalty(0, 0, 0)
        self._seed = seed

        self._named = dict(model.named_parameters())
        self._atoms = GroupAtoms(space.groups, self._named)
        self._choose: Callable[..., Selection] = partial(
            space.choose,
            target=target,
            hierarchy=self._hierarchy,
            by_gain=self._rank.is_price,
            round_to=round_to,
            min_channels=min_channels,
        )
        self._choose(lambda chosen: np.zeros(len(space.groups)))

        self._steps = 0
        self._selection: Selection | None = None
        self._redundancy: FloatArray | None = None
        self._redundant = GroupAtoms((), self._named)  # the chosen groups alone
        self._zero = torch.zeros(0, dtype=torch.bool)  # which of them are at zero
        self._zero_parts: list[ZeroPart] = []
        self._skipped: frozenset[int] = frozenset()  # parameters that take no step, by id
        self._groups_at_zero = 0

        self._plain = _plain_optimiser(
            list(self._named.values()),
            variant,
            sgd={"momentum": momentum, "nesterov": nesterov},
            adam={"betas": betas, "eps": eps},
            lr=lr,
            weight_decay=weight_decay,
            foreach=not fused,
            fused=fused,
        )
        super().__init__(list(self._named.values()), self._plain.defaults)
        self._plain.state = self.state

    @property
    def phase(self) -> Phase:
        """Where the run stands after the last step."""
        if self._selection is None:
            return Phase.WARM_UP
        return Phase.HYBRID if self._groups_at_zero < len(self._selection.chosen) else Phase.CONVERGE

    @property
    def selection(self) -> Selection | None:
        """What is removed; None in the warm-up."""
        return self._selection

    @property
    def redundancy(self) -> FloatArray | None:
        """Redundancy of every group when it was last compared, [groups]; None in the warm-up."""
        return self._redundancy

    @property
    def groups_at_zero(self) -> int:
        """How many of the chosen groups are at zero."""
        return self._groups_at_zero

    def group_norms(self) -> FloatArray:
        """‖x_g‖₂ of every group of the space, [groups]."""
        with torch.no_grad():
            return cast(FloatArray, self._atoms.norm_squared(self._atoms.parameters).sqrt().cpu().numpy())

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; gives the loss of `closure`, which evaluates the model anew, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._selection is None:
            if self._rank.reads_statistics:
                parameters = self._atoms.parameters
                self._rank.sample(Statistics(self._atoms, parameters, _gradients(parameters), self._seed))
            if self._steps >= self.schedule.select:
                self._select()
        if self._narrowed is not None:
            self._plain_step()
            self._narrowed.fill(self._plain.state)
        elif self.phase is Phase.HYBRID:
            self._hybrid_step()
        else:
            self._plain_step()
        for part in self._zero_parts:
            if part.axis is not None and self._narrowed is None:  # a tensor that is all zero was skipped
                self._fill(part)
        self._steps += 1
        return loss

    def narrow(self, narrowed: Narrowed) -> None:
        """Take the steps on a compact network from now on, whose weights are parts of the model's.

        It goes on where the whole one stood. The model's own weights then stay as they are, until
        `Narrowed.write_back`. Only in the last phase, where what is not in the compact network trains no more.
        """
        if self.phase is not Phase.CONVERGE:
            raise InputError("there are groups that are not at zero yet", fix="Narrow in the last phase.")
        self._narrowed = narrowed
        narrowed.hold_at_zero(self._zero_parts)
        self._plain.state = narrowed.state(self.state)
        self.state = defaultdict(dict)

    def widen(self) -> None:
        """Take the steps on the model again, whose weights are up to date."""
        if self._narrowed is not None:
            self.state = self._plain.state = self._narrowed.whole_state(self._plain.state)
            self._narrowed = None

    def _plain_step(self) -> None:
        """Torch's own step on all but what is skipped, or on what the compact network has."""
        skipped, narrowed = self._skipped, self._narrowed
        self._plain.param_groups = [
            {**group, "params": wanted if narrowed is None else narrowed.parameters(wanted)}
            for group in self.param_groups
            for wanted in ([p for p in group["params"] if id(p) not in skipped],)
        ]
        self._plain.step()

    def _select(self) -> None:
        """Choose the redundant groups; each one's redundancy is kept as it was when it was last compared."""
        probe = None
        if self._evaluate is not None and self._rank.reads_loss:
            structures = self._space.groups[: self._rank.structures]
            probe = LossProbe(self._model, GroupAtoms(structures, self._named), self._evaluate)
        redundancy = np.zeros(self._atoms.n_groups)

        def rank(chosen: tuple[int, ...]) -> FloatArray:
            values = self._agree(self._rank(chosen, probe))
            if not np.isfinite(values).all():
                raise NonFiniteError(
                    f"the redundancy score {self._rank} is not finite at step {self._steps}",
                    fix="Lower the learning rate, or look for NaN in the data.",
                    step=self._steps,
                )
            left = np.setdiff1d(np.arange(len(values)), chosen)
            redundancy[left] = values[left]
            return values

        selection = self._choose(rank)
        self._redundancy = redundancy
        self._begin_hybrid(selection, torch.zeros(len(selection.chosen), dtype=torch.bool))

    def _begin_hybrid(self, selection: Selection, zero: Tensor) -> None:
        """Go on with a selection, of which these groups, bool [chosen], are at zero already."""
        self._selection = selection
        self._redundant = GroupAtoms([self._space.groups[i] for i in selection.chosen], self._named)
        self._set_zero(zero.to(self._redundant.sizes.device))

    def _hybrid_step(self) -> None:
        """A plain step of everything, then the penalty, the projection and the shrinking of what is redundant."""
        atoms = self._redundant
        live = [None if id(p) in self._skipped else p for p in atoms.parameters]
        left = self.schedule.zero - self._steps
        zero = self._zero
        if self._method == "hesso":
            self._plain_step()
        else:
            before = [None if p is None else p.clone() for p in live]
            norm_squared = atoms.norm_squared(before)
            pull = self._pull(live, norm_squared.sqrt())
            self._plain_step()
            for p, old, weight in zip(live, before, atoms.spread(pull), strict=True):
                if p is not None and old is not None:
                    p.addcmul_(old, weight, value=-1)
            zero = zero | (norm_squared == 0) | (atoms.inner(live, before) < self._epsilon * norm_squared)
        if left <= 1:
            zero = torch.ones_like(zero)
        elif self._steps >= self.schedule.shrink:
            for p, held in zip(live, atoms.spread(torch.ones_like(atoms.sizes)), strict=True):
                if p is not None:
                    p.mul_(1 - held.clamp(max=1) / left)
        if not torch.equal(zero, self._zero):
            self._set_zero(zero)

    def _pull(self, weights: list[Tensor | None], norm: Tensor) -> Tensor:
        """α λ / ‖x‖ of every chosen group; 0 where it is zero."""
        gradients = _gradients(weights)
        weight = half_space_penalty(
            self._penalty,
            norm=norm,
            inner=self._redundant.inner(weights, gradients),
            gradient_norm=self._redundant.norm_squared(gradients).sqrt(),
        )
        return torch.where(norm > 0, self.param_groups[0]["lr"] * weight / norm, 0.0)

    @torch.no_grad()
    def _set_zero(self, zero: Tensor) -> None:
        """Bring these of the chosen groups to zero, for good; those within their union are there then too."""
        self._zero = self._redundant.inside(zero)
        self._groups_at_zero = int(self._zero.sum())
        self._zero_parts = self._redundant.zero_parts(zero)
        for part in self._zero_parts:
            self._fill(part)
        skipped = {id(part.parameter) for part in self._zero_parts if part.axis is None}
        if self._selection is not None and self.phase is Phase.CONVERGE:
            skipped.update(id(self._named[name]) for name in self._selection.dead if name in self._named)
        self._skipped = frozenset(skipped)

    def _fill(self, part: ZeroPart) -> None:
        """Make a part of a parameter zero, and of its momentum or moments."""
        parameter = part.parameter
        part.fill(parameter)
        for value in self.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                part.fill(value)

    def state_dict(self) -> dict[str, Any]:
        """Torch's state of the variant, and under "h2spg" what the phases need; all of it plain data and tensors.

        It is that of the whole model, also where the steps are taken on a compact one.
        """
        if self._narrowed is not None:
            self.state = self._narrowed.whole_state(self._plain.state)
        state = super().state_dict()
        if self._narrowed is not None:
            self.state = defaultdict(dict)
        state["h2spg"] = {
            "groups": [group.name for group in self._space.groups],
            "steps": self._steps,
            "schedule": dataclasses.asdict(self.schedule),
            "seed": self._seed,
            "score": self._rank.state_dict(),
            "selection": None if self._selection is None else dataclasses.asdict(self._selection),
            "redundancy": None if self._redundancy is None else torch.from_numpy(self._redundancy),
            "zero": self._zero,
        }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on, to the same bits, from what `state_dict()` gave; the model's weights are loaded on their own.

        Raises InputError when it is the state of another optimiser, SpaceError when of another search space.
        """
        if "h2spg" not in state_dict:
            raise InputError("this is not the state of an H2SPG optimiser", fix="Load a state that H2SPG saved.")
        own = state_dict["h2spg"]
        if own["groups"] != [group.name for group in self._space.groups]:
            raise SpaceError("the state belongs to another search space", fix="Use the space that it was saved with.")
        super().load_state_dict(state_dict)
        self._narrowed = None
        self._plain.state = self.state
        self._steps = own["steps"]
        self.schedule = Schedule(**own["schedule"])
        self._seed = own["seed"]
        self._rank.load_state_dict(own["score"])
        self._redundancy = None if own["redundancy"] is None else own["redundancy"].numpy().copy()
        if own["selection"] is None:
            self._selection = None
            self._redundant = GroupAtoms((), self._named)
            self._set_zero(own["zero"])
        else:
            self._begin_hybrid(Selection(**own["selection"]), own["zero"])


def _gradients(parameters: list[Tensor] | list[Tensor | None]) -> list[Tensor | None]:
    return [None if p is None else p.grad for p in parameters]


def _plain_optimiser(
    parameters: list[nn.Parameter], variant: Variant, *, sgd: dict[str, Any], adam: dict[str, Any], **common: Any
) -> torch.optim.Optimizer:
    if variant == "sgd":
        return torch.optim.SGD(parameters, **sgd, **common)
    if variant == "adam":
        return torch.optim.Adam(parameters, **adam, **common)
    if variant == "adamw":
        return torch.optim.AdamW(parameters, **adam, **common)
    raise InputError(f"variant is {variant!r}", fix="Choose one of: sgd, adam, adamw.")
