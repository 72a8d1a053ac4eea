from __future__ import annotations

import copy
import io
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from onnx_asgnas.config import Target
from onnx_asgnas.errors import InputError, NonFiniteError, SpaceError, TargetError
from onnx_asgnas.space import Group, Selection, Slice
from onnx_asgnas.training.h2spg import H2SPG, Penalty, Phase, Schedule, half_space_penalty

VARIANTS = ("sgd", "adam", "adamw")


# Spaces and problems -------------------------------------------------------------------------------------------------


def part(initializer: str, axis: int | None = None, indices: tuple[int, ...] = ()) -> Slice:
    return Slice(initializer=initializer, axis=axis, indices=indices)


def group(name: str, *slices: Slice) -> Group:
    return Group(name=name, slices=slices)


@dataclass
class FlatSpace:
    """A search space by enumeration: the greedy choice of K groups such that `valid` holds of all that are chosen."""

    groups: tuple[Group, ...]
    valid: Callable[[frozenset[int]], bool] = lambda removed: True
    dead: tuple[str, ...] = ()
    asked: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def candidates(self) -> tuple[Group, ...]:
        return self.groups

    def choose(
        self,
        rank: Callable[[tuple[int, ...]], np.ndarray],
        target: Target,
        *,
        hierarchy: bool = True,
        by_gain: bool = False,
        **widths: int,
    ) -> Selection:
        wanted = int(target.remove_groups or 0)
        if wanted > len(self.groups):
            raise TargetError(f"at most {len(self.groups)} groups can go")
        chosen: tuple[int, ...] = ()
        while len(chosen) < wanted:
            values = rank(chosen)
            self.asked.append(chosen)
            order = [i for i in np.argsort(-values, kind="stable").tolist() if i not in chosen]
            fits = (i for i in order if not hierarchy or self.valid(frozenset((*chosen, i))))
            chosen = (*chosen, next(fits))
        return Selection(
            chosen=chosen,
            removed=len(chosen),
            kept_params=1.0,
            kept_macs=1.0,
            valid=self.valid(frozenset(chosen)),
            exact=True,
            dead=self.dead if chosen else (),
        )


class EmptySpace(FlatSpace):
    """Chooses nothing whatever the target is."""

    def choose(
        self,
        rank: Callable[[tuple[int, ...]], np.ndarray],
        target: Target,
        *,
        hierarchy: bool = True,
        by_gain: bool = False,
        **widths: int,
    ) -> Selection:
        return super().choose(rank, Target(keep_params=0.5), hierarchy=hierarchy)


class LeastSquares(nn.Module):
    """½‖A x - y‖² / n over x in blocks of four, whose solution is zero in all blocks but `kept`."""

    def __init__(self, n_groups: int = 6, kept: tuple[int, ...] = (1, 4), seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.blocks = nn.ParameterList(torch.randn(4, generator=generator) for _ in range(n_groups))
        self.a = torch.linalg.qr(torch.randn(60, 4 * n_groups, generator=generator))[0] * math.sqrt(60)
        self.a += 0.05 * torch.randn(self.a.shape, generator=generator)
        solution = torch.zeros(n_groups, 4)
        solution[list(kept)] = torch.randn(len(kept), 4, generator=generator).sign() * 2
        self.y = self.a @ solution.flatten() + 0.01 * torch.randn(60, generator=generator)
        self.redundant = tuple(g for g in range(n_groups) if g not in kept)

    def forward(self) -> Tensor:
        return 0.5 * (self.a @ torch.cat(list(self.blocks)) - self.y).square().mean()

    @torch.no_grad()
    def evaluate(self) -> float:
        return float(self())

    def space(self) -> FlatSpace:
        return FlatSpace(tuple(group(f"g{i}", part(f"blocks.{i}")) for i in range(len(self.blocks))))

    def solution_without(self, chosen: tuple[int, ...]) -> Tensor:
        kept = [i for i in range(len(self.blocks)) if i not in chosen]
        columns = torch.cat([torch.arange(4 * i, 4 * i + 4) for i in kept])
        solution = torch.zeros(4 * len(self.blocks))
        solution[columns] = torch.linalg.lstsq(self.a[:, columns], self.y[:, None]).solution[:, 0]
        return solution


class Layers(nn.Module):
    """Tensors of all kinds under a smooth loss that a step does not solve."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = {"conv": (6, 4, 3, 3), "bias": (6,), "linear": (5, 6), "free": (7,), "upstream": (3, 2)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))
            self.register_buffer(f"{name}_minimum", torch.randn(shape, generator=generator))

    def forward(self) -> Tensor:
        terms = [(p - self.get_buffer(f"{n}_minimum")).square().sum() for n, p in self.named_parameters()]
        return torch.stack(terms).sum() + 0.1 * torch.cat([p.flatten() for p in self.parameters()]).sum().sin()

    @torch.no_grad()
    def evaluate(self) -> float:
        return float(self())

    def space(self) -> FlatSpace:
        rows = [group(f"row{i}", part("conv", 0, (i,)), part("bias", 0, (i,))) for i in range(4)]
        columns = [group(f"column{i}", part("linear", 1, (2 * i, 2 * i + 1))) for i in range(3)]
        nested = group("all rows", part("conv"), part("bias"), part("linear", 0, (1, 3)))
        return FlatSpace((*rows, *columns, nested))


def run(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()


def values(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same_bits(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(
        torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))
        for a, b in zip(left, right, strict=True)
    )


def same_state(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_state(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same_state, left, right))
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    return bool(left == right)


def plain(model: nn.Module, variant: str, *, fused: bool = False, **options: Any) -> torch.optim.Optimizer:
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[variant]
    return kind(model.parameters(), foreach=not fused, fused=fused, **options)


# Closed-form problems ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["h2spg", "dhspg", "hesso"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("score", ["paper", "hesso", "magnitude", "taylor1", "measured"])
def test_the_known_zero_groups_are_found_and_the_rest_is_solved(variant: str, score: str, method: str) -> None:
    model = LeastSquares()
    optimizer = H2SPG(
        model,
        model.space(),
        target=Target(remove_groups=4),
        total_steps=400,
        variant=variant,
        method=method,
        lr=0.1,
        momentum=0.5,
        score=score,
        evaluate=model.evaluate,
        select_at=0.2,
        zero_at=0.4,
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        run(model, optimizer, 1)
        scheduler.step()
    assert optimizer.selection is not None
    if score not in ("taylor1", "hesso"):  # at the optimum their gradients vanish for all groups
        assert sorted(optimizer.selection.chosen) == list(model.redundant)
    assert optimizer.phase is Phase.CONVERGE
    expected = model.solution_without(optimizer.selection.chosen)
    torch.testing.assert_close(torch.cat(values(model)), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("epsilon", [0.0, 0.9])
@pytest.mark.parametrize("method", ["h2spg", "hesso"])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 5, 6])
def test_every_target_is_met_exactly_and_in_time(wanted: int, method: str, epsilon: float) -> None:
    model = LeastSquares(seed=wanted)
    optimizer = H2SPG(
        model,
        model.space(),
        target=Target(remove_groups=wanted),
        total_steps=100,
        lr=0.05,
        momentum=0.9,
        weight_decay=1e-2,
        score="random",
        method=method,
        epsilon=epsilon,
        seed=wanted,
    )
    for step in range(1, 101):
        run(model, optimizer, 1)
        zeros = [float(p.detach().abs().max()) == 0.0 for p in model.blocks]
        assert sum(zeros) == optimizer.groups_at_zero == int((optimizer.group_norms() == 0).sum())
        if step <= 10:
            assert (optimizer.phase, optimizer.selection) == (Phase.WARM_UP, None)
        elif step >= 30:
            assert optimizer.phase is Phase.CONVERGE
            assert optimizer.groups_at_zero == wanted
    assert not any(p.signbit().any() for p in model.blocks if (p == 0).all())


def test_measured_chooses_cumulatively_through_the_space() -> None:
    model = LeastSquares()
    space = model.space()
    optimizer = H2SPG(
        model, space, target=Target(remove_groups=2), total_steps=10, lr=0.05, evaluate=model.evaluate, select_at=0.0
    )
    space.asked.clear()
    run(model, optimizer, 1)
    assert optimizer.selection is not None
    assert optimizer.redundancy is not None
    first, second = optimizer.selection.chosen
    assert space.asked == [(), (first,)]
    model = LeastSquares()
    with torch.no_grad():
        full = model.evaluate()
        model.blocks[first].zero_()
        without_first = model.evaluate()
        model.blocks[second].zero_()
        without_both = model.evaluate()
    assert optimizer.redundancy[first] == pytest.approx(full - without_first, rel=1e-5)
    assert optimizer.redundancy[second] == pytest.approx(without_first - without_both, rel=1e-5)


# The phases against their definition ---------------------------------------------------------------------------------


def reference_hybrid_step(
    model: Layers,
    optimizer: H2SPG,
    stepped: Layers,
    *,
    lr: float,
    epsilon: float,
    penalty: Penalty,
    zero: dict[int, bool],
) -> dict[str, Tensor]:
    """The weights after one hybrid step, group by group with masks: `stepped` is the model after the plain step."""
    groups = model.space().groups
    assert optimizer.selection is not None
    masks = {i: {n: torch.zeros_like(p) for n, p in model.named_parameters()} for i in optimizer.selection.chosen}
    for i, held in masks.items():
        for piece in groups[i].slices:
            if piece.axis is None:
                held[piece.initializer].fill_(1)
            else:
                held[piece.initializer].index_fill_(piece.axis, torch.tensor(piece.indices), 1)
    x = {n: p.detach().double() for n, p in model.named_parameters()}
    g = {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}
    trial = {n: p.detach().double() for n, p in stepped.named_parameters()}

    def over(i: int, left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
        return sum(float((left[n] * right[n] * masks[i][n]).sum()) for n in x)

    for i in masks:
        norm, inner, square = math.sqrt(over(i, x, x)), over(i, x, g), over(i, g, g)
        if norm == 0:
            continue
        weight = penalty.base
        if inner < 0:
            low, high = -inner / norm, -square * norm / inner
            weight = min(max(penalty.amplify * low, penalty.base), penalty.base * penalty.cap)
            if weight >= high:
                weight = (low + high) / 2
        for n in x:
            trial[n] = trial[n] - lr * weight * masks[i][n] * x[n] / norm
    for i in masks:
        zero[i] = zero.get(i, False) or over(i, x, x) == 0 or over(i, trial, x) < epsilon * over(i, x, x)
    for i, flag in zero.items():
        if flag:
            trial = {n: t * (1 - masks[i][n]) for n, t in trial.items()}
    return trial


CONSTANTS = {"sgd": Penalty(1e-3, 2, 10), "adam": Penalty(1e-2, 20, 1e3), "adamw": Penalty(1e-2, 20, 1e3)}


@pytest.mark.parametrize("epsilon", [0.0, 0.95])
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_projection_follows_the_half_space_inequality(variant: str, epsilon: float) -> None:
    """Trial step, λ, test and projection of overlapping groups and slices, recomputed without atoms."""
    model = Layers()
    with torch.no_grad():  # rows whose way to the minimum leads through the origin
        model.conv_minimum[:2] = -model.conv[:2]
        model.bias_minimum[:2] = -model.bias[:2]
    lr = 0.2 if variant == "sgd" else 0.3
    options: dict[str, Any] = {"lr": lr, "weight_decay": 0.01}
    options |= {"momentum": 0.5} if variant == "sgd" else {}
    optimizer = H2SPG(
        model,
        model.space(),
        target=Target(remove_groups=7),
        total_steps=100,
        variant=variant,
        score="random",
        select_at=0.01,
        zero_at=0.9,
        shrink=0.01,
        epsilon=epsilon,
        seed=3,
        **options,
    )
    run(model, optimizer, 1)
    zero: dict[int, bool] = {}
    counts = []
    for _ in range(60):
        optimizer.zero_grad()
        model().backward()
        before, twin = copy.deepcopy(model), copy.deepcopy(model)
        reference = plain(twin, variant, **options)
        reference.load_state_dict(copy.deepcopy({k: v for k, v in optimizer.state_dict().items() if k != "h2spg"}))
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert p.grad is not None
            q.grad, before.get_parameter(next(n for n, v in model.named_parameters() if v is p)).grad = p.grad, p.grad
        reference.step()
        optimizer.step()
        expected = reference_hybrid_step(
            before, optimizer, twin, lr=lr, epsilon=epsilon, penalty=CONSTANTS[variant], zero=zero
        )
        for n, p in model.named_parameters():
            torch.testing.assert_close(p.detach().double(), expected[n], rtol=1e-5, atol=2e-6)
        assert optimizer.groups_at_zero >= sum(zero.values())
        counts.append(optimizer.groups_at_zero)
    assert counts[-1] > 0


def test_the_penalty_weight_by_hand() -> None:
    """Rows: downhill towards the origin; raised; capped; between the bounds where the raised one is too large."""
    penalty = Penalty(base=0.1, amplify=2, cap=10)
    norm = torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    inner = torch.tensor([0.5, -0.6, -0.9, -0.4], dtype=torch.float64)
    gradient_norm = torch.tensor([1.0, 1.0, 3.0, 0.5], dtype=torch.float64)
    weights = half_space_penalty(penalty, norm=norm, inner=inner, gradient_norm=gradient_norm)
    expected = [0.1, 0.6, 1.0, (0.4 + 0.625) / 2]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("variant", VARIANTS)
def test_variables_that_are_not_redundant_take_torchs_own_step(variant: str) -> None:
    """In a separable problem the kept ones, rows beside redundant rows too, are torch's to the bit in every phase."""

    class Separable(Layers):
        def forward(self) -> Tensor:
            return torch.stack(
                [(p - self.get_buffer(f"{n}_minimum")).square().sum() for n, p in self.named_parameters()]
            ).sum()

    model, twin = Separable(), Separable()
    optimizer = H2SPG(
        model,
        FlatSpace(model.space().groups[:3]),
        target=Target(remove_groups=3),
        total_steps=60,
        variant=variant,
        lr=0.05,
        weight_decay=0.01,
        score="magnitude",
    )
    reference = plain(twin, variant, lr=0.05, weight_decay=0.01)
    for _ in range(60):
        run(model, optimizer, 1)
        run(twin, reference, 1)
        kept = [(m[3:] if n in ("conv", "bias") else m) for n, m in model.named_parameters()]
        expected = [(t[3:] if n in ("conv", "bias") else t) for n, t in twin.named_parameters()]
        assert same_bits([k.detach() for k in kept], [e.detach() for e in expected])
    assert optimizer.groups_at_zero == 3


def test_hesso_shrinks_by_its_schedule() -> None:
    """The schedule p ← (p - α ∇f)(T - t - 1)/(T - t) is linear in t where there is no gradient."""
    model = LeastSquares(n_groups=2, kept=(1,))
    start = values(model)[0]
    optimizer = H2SPG(
        model,
        model.space(),
        target=Target(remove_groups=1),
        total_steps=10,
        lr=0.1,
        method="hesso",
        score="magnitude",
        select_at=0.2,
        zero_at=0.7,
    )
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with torch.no_grad():
        model.blocks[1].mul_(10)
    seen = []
    for _ in range(10):
        optimizer.step()
        seen.append(float((model.blocks[0].detach() / start).mean()))
    assert seen == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("method", ["h2spg", "hesso"])
def test_what_the_projection_leaves_shrinks_linearly(method: str) -> None:
    model = LeastSquares(n_groups=2, kept=(1,))
    optimizer = H2SPG(
        model,
        model.space(),
        target=Target(remove_groups=1),
        total_steps=100,
        lr=1e-9,
        score="magnitude",
        select_at=0.1,
        zero_at=0.5,
        shrink=0.25,
        method=method,
    )
    with torch.no_grad():
        model.blocks[1].mul_(10)
    norms = []
    for _ in range(50):
        run(model, optimizer, 1)
        norms.append(optimizer.group_norms()[0])
    first = 40 if method == "h2spg" else 10
    np.testing.assert_allclose(norms[:first], norms[0], rtol=1e-5)
    np.testing.assert_allclose(norms[first:], norms[0] * np.linspace(1, 0, 51 - first)[1:], rtol=1e-5)


@pytest.mark.parametrize(
    ("total", "select_at", "zero_at", "shrink", "expected"),
    [
        (100, 0.1, 0.3, 0.5, (10, 20, 30)),
        (100, 0.0, 1.0, 1.0, (0, 0, 100)),
        (1, 0.1, 0.3, 0.5, (0, 0, 1)),
        (3, 0.9, 1.0, 0.1, (2, 2, 3)),
        (1000, 0.2, 0.5, 0.001, (200, 499, 500)),
    ],
)
def test_the_schedule(total: int, select_at: float, zero_at: float, shrink: float, expected: tuple[int, ...]) -> None:
    schedule = Schedule.from_fractions(total, select_at=select_at, zero_at=zero_at, shrink=shrink)
    assert (schedule.select, schedule.shrink, schedule.zero) == expected


# Torch's own steps ---------------------------------------------------------------------------------------------------

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9, "weight_decay": 1e-2}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}),
    ("adam", {"betas": (0.8, 0.99), "weight_decay": 1e-2}),
    ("adamw", {"eps": 1e-6, "weight_decay": 1e-2}),
]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("variant", "options"), OPTIONS)
def test_with_nothing_chosen_it_is_torchs_optimiser_to_the_bit(
    variant: str, options: dict[str, Any], fused: bool
) -> None:
    model, twin = Layers(), Layers()
    optimizer = H2SPG(
        model,
        EmptySpace(model.space().groups),
        target=Target(keep_params=0.5),
        total_steps=40,
        variant=variant,
        lr=0.01,
        score="hesso",
        fused=fused,
        **options,
    )
    reference = plain(twin, variant, lr=0.01, fused=fused, **options)
    for m, o in ((model, optimizer), (twin, reference)):
        scheduler = torch.optim.lr_scheduler.OneCycleLR(o, 0.05, 40)
        for _ in range(40):
            run(m, o, 1)
            scheduler.step()
    assert same_bits(values(model), values(twin))
    assert optimizer.phase is Phase.CONVERGE
    assert optimizer.groups_at_zero == 0
    mine = optimizer.state_dict()
    mine.pop("h2spg")
    assert same_state(mine, reference.state_dict())


def test_the_warm_up_is_torchs_optimiser_to_the_bit() -> None:
    model, twin = Layers(), Layers()
    optimizer = H2SPG(
        model,
        model.space(),
        target=Target(remove_groups=3),
        total_steps=40,
        lr=0.1,
        score="paper",
        select_at=0.5,
        zero_at=0.7,
    )
    run(model, optimizer, 20)
    assert optimizer.phase is Phase.WARM_UP
    run(twin, plain(twin, "sgd", lr=0.1), 20)
    assert same_bits(values(model), values(twin))


def test_the_learning_rate_of_each_step_counts_in_the_penalty() -> None:
    model = Layers()
    optimizer = H2SPG(
        model,
        model.space(),
        target=Target(remove_groups=3),
        total_steps=40,
        lr=0.1,
        score="magnitude",
        select_at=0.0,
        zero_at=1.0,
        shrink=0.1,
    )
    optimizer.param_groups[0]["lr"] = 0.0
    before = values(model)
    run(model, optimizer, 5)
    assert optimizer.phase is Phase.HYBRID
    assert same_bits(values(model), before)


def test_a_closure_is_evaluated_with_gradients_and_its_loss_is_given() -> None:
    model, twin = Layers(), Layers()
    optimizer, other = (
        H2SPG(m, m.space(), target=Target(remove_groups=3), total_steps=20, lr=0.1, score="paper")
        for m in (model, twin)
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model()
        assert isinstance(loss, Tensor)
        loss.backward()
        return loss

    for _ in range(20):
        expected = twin.evaluate()
        run(twin, other, 1)
        assert float(optimizer.step(closure).detach()) == expected  # type: ignore[arg-type,attr-defined]
    assert same_bits(values(model), values(twin))


def test_another_parameter_group_takes_plain_steps() -> None:
    model, extra = Layers(), nn.Parameter(torch.ones(3))
    optimizer = H2SPG(model, model.space(), target=Target(remove_groups=3), total_steps=20, lr=0.1, score="paper")
    optimizer.add_param_group({"params": [extra], "lr": 0.5})
    for _ in range(20):
        extra.grad = torch.ones(3)
        optimizer.step()
    torch.testing.assert_close(extra.detach(), torch.full((3,), 1 - 20 * 0.5))


# Zero stays zero -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_zero_groups_stay_zero_and_lose_their_momentum(variant: str) -> None:
    model = Layers()
    space = FlatSpace(model.space().groups[:5])
    options = {"momentum": 0.9} if variant == "sgd" else {}
    optimizer = H2SPG(
        model,
        space,
        target=Target(remove_groups=5),
        total_steps=30,
        variant=variant,
        lr=0.05,
        weight_decay=0.1,
        score="random",
        **options,
    )
    run(model, optimizer, 9)
    for step in range(20):
        run(model, optimizer, 1)
        held = {"conv": model.conv[:4], "bias": model.bias[:4], "linear": model.linear[:, :2]}
        if step:
            assert all((value == 0).all() and not value.signbit().any() for value in held.values())
            for name in held:
                parameter = model.get_parameter(name)
                for state in optimizer.state[parameter].values():
                    if state.shape == parameter.shape:
                        zero = state[:, :2] if name == "linear" else state[:4]
                        rest = state[:, 2:] if name == "linear" else state[4:]
                        assert (zero == 0).all()
                        assert (rest != 0).all()
    assert (model.conv[4:] != 0).all()


def test_a_gradient_that_is_not_finite_never_gets_into_zero_groups() -> None:
    model = Layers()
    space = FlatSpace(model.space().groups[:5])
    optimizer = H2SPG(
        model, space, target=Target(remove_groups=5), total_steps=20, lr=0.1, momentum=0.9, score="random"
    )
    run(model, optimizer, 10)
    for p in model.parameters():
        p.grad = torch.full_like(p, math.nan)
    optimizer.step()
    for zero in (model.conv[:4], model.bias[:4], model.linear[:, :2]):
        assert (zero == 0).all()
    assert model.conv[4:].isnan().all()
    assert optimizer.groups_at_zero == 5


def test_nan_does_not_get_into_the_zero_part_of_a_group_that_is_not_at_zero_yet() -> None:
    model = Layers()
    groups = model.space().groups
    optimizer = H2SPG(
        model,
        FlatSpace((groups[0], groups[-1])),
        target=Target(remove_groups=2),
        total_steps=20,
        zero_at=0.3,
        lr=0.1,
        score="random",
    )
    run(model, optimizer, 2)
    with torch.no_grad():
        model.conv[0].zero_()
        model.bias[0].zero_()
    optimizer.param_groups[0]["lr"] = 0.0
    run(model, optimizer, 1)
    assert optimizer.groups_at_zero == 1
    for p in model.parameters():
        p.grad = torch.full_like(p, math.nan)
    optimizer.step()
    assert optimizer.groups_at_zero == 1
    assert (model.conv[0] == 0).all()
    assert model.conv[1:].isnan().all()


def test_a_score_that_is_not_finite_is_an_error() -> None:
    model = Layers()
    optimizer = H2SPG(
        model, model.space(), target=Target(remove_groups=2), total_steps=20, lr=0.1, zero_at=0.3, score="paper"
    )
    for p in model.parameters():
        p.grad = torch.full_like(p, math.nan)
    with pytest.raises(NonFiniteError, match="not finite at step"):
        for _ in range(20):
            optimizer.step()


def test_parameters_without_a_gradient_go_to_zero_with_their_group() -> None:
    model, twin = Layers(), Layers()
    optimizer = H2SPG(model, model.space(), target=Target(remove_groups=8), total_steps=20, lr=0.1, score="hesso")
    for _ in range(20):
        optimizer.zero_grad()
        model.free.square().sum().backward()
        optimizer.step()
    assert optimizer.groups_at_zero == 8
    assert (model.conv == 0).all()
    assert same_bits([model.upstream.detach()], [twin.upstream.detach()])
    assert (model.free != twin.free).all()


def test_what_is_dead_is_trained_no_more() -> None:
    model = Layers()
    space = FlatSpace(model.space().groups, dead=("upstream", "a buffer of the graph"))
    optimizer = H2SPG(
        model,
        space,
        target=Target(remove_groups=2),
        total_steps=100,
        zero_at=0.3,
        lr=0.01,
        momentum=0.9,
        weight_decay=0.1,
        score="magnitude",
    )
    moved = []
    for _ in range(100):
        before = model.upstream.detach().clone()
        run(model, optimizer, 1)
        moved.append(not torch.equal(model.upstream, before))
    assert all(moved[:20])
    assert not any(moved[30:])


def test_a_group_inside_the_union_of_others_is_at_zero_with_them() -> None:
    model = Layers()
    groups = model.space().groups
    both = group("first two rows", part("conv", 0, (0, 1)), part("bias", 0, (0, 1)))
    optimizer = H2SPG(
        model,
        FlatSpace((groups[0], groups[1], both)),
        target=Target(remove_groups=3),
        total_steps=20,
        lr=0.1,
        score="random",
    )
    with torch.no_grad():
        for p in (model.conv[:2], model.bias[:2]):
            p.zero_()
    optimizer.param_groups[0]["lr"] = 0.0
    run(model, optimizer, 3)
    assert optimizer.groups_at_zero == 3


# Validity ------------------------------------------------------------------------------------------------------------


def branches_stay(n_joints: int, width: int) -> Callable[[frozenset[int]], bool]:
    """A chain of joints of `width` branches each: every joint must keep one."""
    return lambda removed: all(
        any(joint * width + branch not in removed for branch in range(width)) for joint in range(n_joints)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(2, 3), st.data())
def test_hierarchical_selection_is_valid_at_every_target_and_without_it_is_not(
    joints: int, width: int, data: st.DataObject
) -> None:
    valid = branches_stay(joints, width)
    wanted = data.draw(st.integers(1, joints * (width - 1)))
    model = LeastSquares(n_groups=joints * width, kept=())
    space = FlatSpace(model.space().groups, valid=valid)
    with torch.no_grad():  # the branches of the first joint are the most redundant ones
        for branch in range(width):
            model.blocks[branch].mul_(1e-3)
    outcome = {}
    for method in ("h2spg", "hesso", "dhspg"):
        twin = copy.deepcopy(model)
        optimizer = H2SPG(
            twin,
            space,
            target=Target(remove_groups=wanted),
            total_steps=6,
            lr=1e-3,
            score="magnitude",
            method=method,
            select_at=0.3,
            zero_at=0.9,
        )  # type: ignore[arg-type]
        run(twin, optimizer, 6)
        assert optimizer.selection is not None
        zero = frozenset(i for i, p in enumerate(twin.blocks) if (p == 0).all())
        assert zero == frozenset(optimizer.selection.chosen)
        assert len(zero) == wanted
        outcome[method] = valid(zero)
        assert optimizer.selection.valid == valid(zero)
    assert outcome["h2spg"]
    assert outcome["hesso"]
    assert outcome["dhspg"] == (wanted < width)


def test_the_hierarchy_can_be_switched_by_itself() -> None:
    model = LeastSquares(n_groups=4, kept=())
    space = FlatSpace(model.space().groups, valid=lambda removed: not removed)
    optimizer = H2SPG(
        model,
        space,
        target=Target(remove_groups=2),
        total_steps=4,
        lr=0.1,
        score="random",
        method="hesso",
        hierarchy=False,
    )
    run(model, optimizer, 4)
    assert optimizer.selection is not None
    assert not optimizer.selection.valid


# Saving and loading --------------------------------------------------------------------------------------------------

SPLITS = {
    "before the first step": 0,
    "warm-up": 4,
    "before the selection": 8,
    "hybrid": 11,
    "shrinking": 17,
    "at zero": 20,
    "converge": 30,
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize(
    ("variant", "method", "score"),
    [
        ("sgd", "h2spg", "measured:1,paper:1"),
        ("adam", "h2spg", "hesso"),
        ("adamw", "dhspg", "random"),
        ("sgd", "hesso", "paper"),
    ],
)
def test_a_split_run_is_the_uninterrupted_run_to_the_bit(variant: str, method: str, score: str, split: int) -> None:
    def start() -> tuple[Layers, H2SPG, torch.optim.lr_scheduler.LRScheduler]:
        model = Layers()
        options = {"momentum": 0.9} if variant == "sgd" else {}
        optimizer = H2SPG(
            model,
            model.space(),
            target=Target(remove_groups=4),
            total_steps=40,
            variant=variant,
            method=method,
            lr=0.03,
            weight_decay=1e-2,
            score=score,
            evaluate=model.evaluate,
            seed=5,
            select_at=0.2,
            zero_at=0.5,
            epsilon=0.5,
            **options,
        )  # type: ignore[arg-type]
        return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)

    def go_on(model: Layers, optimizer: H2SPG, scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> None:
        for _ in range(steps):
            run(model, optimizer, 1)
            scheduler.step()

    whole = start()
    go_on(*whole, 40)
    first = start()
    go_on(*first, split)
    file = io.BytesIO()
    torch.save([kept.state_dict() for kept in first], file)
    second = start()
    if split % 2:
        go_on(*second, 25)  # what it did before must not matter
    file.seek(0)
    for resumed, state in zip(second, torch.load(file, weights_only=True), strict=True):
        resumed.load_state_dict(state)
    go_on(*second, 40 - split)
    assert same_bits(values(whole[0]), values(second[0]))
    assert whole[1].selection == second[1].selection
    assert same_state(whole[1].state_dict(), second[1].state_dict())


def test_states_of_others_are_refused() -> None:
    model = Layers()
    optimizer = H2SPG(
        model, model.space(), target=Target(remove_groups=2), total_steps=20, lr=0.1, zero_at=0.3, score="paper"
    )
    with pytest.raises(InputError, match="not the state of an H2SPG"):
        optimizer.load_state_dict(plain(model, "sgd", lr=0.1).state_dict())
    other = H2SPG(
        model,
        FlatSpace(model.space().groups[1:]),
        target=Target(remove_groups=2),
        total_steps=20,
        lr=0.1,
        score="paper",
    )
    with pytest.raises(SpaceError, match="another search space"):
        optimizer.load_state_dict(other.state_dict())


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"score": "measured"}, InputError, "evaluate"),
        ({"score": "magnitude:1,measured:1"}, InputError, "evaluate"),
        ({"score": "best"}, InputError, "no score 'best'"),
        ({"method": "oto"}, InputError, "method is 'oto'"),
        ({"variant": "lion"}, InputError, "variant is 'lion'"),
        ({"epsilon": 1.0}, InputError, "epsilon is 1.0"),
        ({"total_steps": 0}, InputError, "total_steps is 0"),
        ({"select_at": 0.5, "zero_at": 0.5}, InputError, "select_at is 0.5"),
        ({"shrink": 0.0}, InputError, "shrink is 0.0"),
        ({"score_momentum": 1.0}, InputError, "score_momentum is 1.0"),
        ({"target": Target(remove_groups=9)}, TargetError, "at most 8"),
    ],
)
def test_options_that_are_refused_at_once(options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = Layers()
    with pytest.raises(error, match=message):
        H2SPG(model, model.space(), **{"target": Target(remove_groups=2), "total_steps": 9, "score": "paper"} | options)


def test_a_space_of_another_model_is_refused() -> None:
    with pytest.raises(SpaceError, match="not a parameter"):
        H2SPG(Layers(), LeastSquares().space(), target=Target(remove_groups=2), total_steps=9, score="paper")


# No loop over groups -------------------------------------------------------------------------------------------------


class CountOperations(TorchDispatchMode):
    """Counts the torch operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_step_runs_as_many_operators_for_5000_groups_as_for_two() -> None:
    def operators(n_groups: int) -> list[int]:
        torch.manual_seed(0)
        model = nn.Linear(4, 10_000)
        rows = np.array_split(np.arange(10_000), n_groups)
        groups = tuple(
            group(f"g{i}", part("weight", 0, tuple(r.tolist())), part("bias", 0, tuple(r.tolist())))
            for i, r in enumerate(rows)
        )

        @dataclass
        class Half(FlatSpace):
            def choose(self, rank: Any, target: Target, **options: Any) -> Selection:
                chosen = tuple(np.argsort(-rank(()))[: len(self.groups) // 2].tolist())
                return Selection(
                    chosen=chosen, removed=len(chosen), kept_params=0.5, kept_macs=0.5, valid=True, exact=True, dead=()
                )

        optimizer = H2SPG(
            model,
            Half(groups),
            target=Target(keep_params=0.5),
            total_steps=12,
            score="hesso",
            lr=1e-4,
            momentum=0.9,
            weight_decay=1e-4,
            select_at=0.3,
            zero_at=0.7,
        )
        counts = []
        for _ in range(12):
            for p in model.parameters():
                p.grad = torch.full_like(p, 0.1)
            with CountOperations() as operations:
                optimizer.step()
            counts.append(operations.count)
        assert optimizer.groups_at_zero == n_groups // 2
        return counts

    assert operators(2) == operators(5000)
    assert all(a > 0 for a in itertools.chain(operators(2)))
