"""Which structures to remove for a target: greedy by redundancy, with a way to the target always kept open."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_asgnas.config import Target
from onnx_asgnas.errors import TargetError
from onnx_asgnas.space.cost import Cost
from onnx_asgnas.space.structures import Structure
from onnx_asgnas.space.validity import RemovalState

Redundancy = NDArray[np.float64]
Rank = Callable[[tuple[int, ...]], Redundancy]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The candidates to drive to zero, and what the network is then.

    `chosen` are places in the space's candidates in the order they were taken, `removed` counts the minimal structures
    gone (chosen, or dead with another), `kept_params` and `kept_macs` are fractions of the full model, `exact` says
    that the target is met without overshooting it by more than the last choice, `dead` are parameters that nothing
    reads any more, `valid` can be False only where validity was not asked for.
    """

    chosen: tuple[int, ...]
    removed: int
    kept_params: float
    kept_macs: float
    valid: bool
    exact: bool
    dead: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Largest:
    """The most that a valid set was found to remove, of each kind by itself."""

    structures: int
    params: int
    macs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Goal:
    """How far a state has to go: `amount` of it counts what is removed, `exactly` forbids to overshoot.

    `needed` is a whole number of structures, parameters or multiply-accumulates, `asked` what the user wrote.
    """

    kind: str
    needed: int
    full: Cost
    asked: float = 0

    def amount(self, state: RemovalState) -> float:
        if self.kind == "structures":
            return state.removed
        cost = state.cost()
        return self.full.params - cost.params if self.kind == "params" else self.full.macs - cost.macs

    def reached(self, state: RemovalState) -> bool:
        return self.amount(state) >= self.needed

    @property
    def exactly(self) -> bool:
        return self.kind == "structures"


def largest(state: RemovalState, candidates: Sequence[Structure], full: Cost) -> Largest:
    """The most that can be removed at once, as greedy valid sets certify it: a lower bound."""
    best = {"structures": 0.0, "params": 0.0, "macs": 0.0}
    for order in _orders(candidates, range(len(candidates))):
        taken = _take_all(state, candidates, order)
        for kind in best:
            best[kind] = max(best[kind], _Goal(kind=kind, needed=0, full=full).amount(state))
        _undo(state, len(taken))
    return Largest(**{kind: int(amount) for kind, amount in best.items()})


def choose(
    state: RemovalState,
    candidates: Sequence[Structure],
    full: Cost,
    rank: Rank,
    target: Target,
    *,
    hierarchy: bool = True,
    by_gain: bool = False,
) -> Selection:
    """Take candidates by redundancy until the target is met; see SearchSpace.choose."""
    goal = _goal(target, candidates, full)
    if hierarchy:
        chosen = _choose_valid(state, candidates, goal, rank, by_gain)
    else:
        chosen = _choose_blindly(state, candidates, goal, rank)
    if hierarchy and not goal.exactly:
        chosen = _without_needless(state, chosen, goal)
    cost = state.cost()
    amount = goal.amount(state)
    selection = Selection(
        chosen=tuple(chosen),
        removed=state.removed,
        kept_params=cost.params / max(full.params, 1),
        kept_macs=cost.macs / max(full.macs, 1),
        valid=state.valid,
        exact=amount == goal.needed if goal.exactly else amount >= goal.needed,
        dead=state.dead_initializers(),
    )
    _undo(state, len(chosen))
    return selection


def _goal(target: Target, candidates: Sequence[Structure], full: Cost) -> _Goal:
    if target.uniform is not None:
        raise TargetError(
            "uniform takes channels out of every layer, and erase mode removes whole structures",
            fix="Use remove_groups, keep_params or keep_macs.",
        )
    if target.remove_groups is not None:
        total = sum(c.minimal for c in candidates)
        fraction = isinstance(target.remove_groups, float) and target.remove_groups < 1
        needed = max(1, round(target.remove_groups * total)) if fraction else int(target.remove_groups)
        return _Goal(kind="structures", needed=needed, full=full, asked=needed)
    if target.keep_params is not None:
        return _Goal(
            kind="params", needed=_to_remove(full.params, target.keep_params), full=full, asked=target.keep_params
        )
    assert target.keep_macs is not None
    return _Goal(kind="macs", needed=_to_remove(full.macs, target.keep_macs), full=full, asked=target.keep_macs)


def _to_remove(full: int, keep: float) -> int:
    """How much must go so that at most this fraction stays; a number that is a hair off by rounding counts as met."""
    return full - math.floor(full * keep + 1e-6)


def _choose_valid(
    state: RemovalState, candidates: Sequence[Structure], goal: _Goal, rank: Rank, by_gain: bool
) -> list[int]:
    """Greedy by redundancy; where that locks itself out, again with a witness.

    A witness is a set that reaches the target and holds all that is taken so far. A candidate of the witness may always
    be taken, another only when a new witness with it is found, so the target is reached whatever the scores are.
    """
    own, witness = _first_witness(state, candidates, goal)
    limit = _reach(state, witness, goal) if goal.exactly else np.inf

    def fits(index: int) -> bool:
        if not state.take(index):
            return False
        within = goal.amount(state) <= limit
        state.undo()
        return within

    def keeps_a_witness(index: int) -> bool:
        nonlocal witness
        found = _witness_with(state, candidates, goal, own, index, witness, limit)
        witness = witness if found is None else found
        return found is not None

    for admits in (fits, keeps_a_witness):
        taken = _take_by_rank(state, candidates, goal, own, rank, admits, by_gain)
        if goal.reached(state):
            return taken
        _undo(state, len(taken))
    raise _too_much(state, candidates, goal)  # not reached: members of a witness are never refused


def _take_by_rank(
    state: RemovalState,
    candidates: Sequence[Structure],
    goal: _Goal,
    own: Sequence[int],
    rank: Rank,
    admits: Callable[[int], bool],
    by_gain: bool,
) -> list[int]:
    """Take the most redundant candidate that is admitted, until the target is reached or none is left."""
    taken: list[int] = []
    left = set(own)
    while not goal.reached(state):
        redundancy = np.asarray(rank(tuple(taken)), dtype=np.float64)
        if by_gain:
            redundancy = _per_gain(state, candidates, goal, left, redundancy)
        for index in sorted(left, key=lambda i: (-redundancy[i], i)):
            left.discard(index)
            if not state.is_gone(candidates[index].tensor) and admits(index):
                state.erase(index)
                taken.append(index)
                break
        else:
            break
    return taken


def _per_gain(
    state: RemovalState, candidates: Sequence[Structure], goal: _Goal, left: Iterable[int], redundancy: Redundancy
) -> Redundancy:
    """Redundancy below zero is a price: here it is that for each unit on the way to the target, and not beyond it."""
    result: Redundancy = np.array(redundancy, dtype=np.float64)
    before = goal.amount(state)
    for index in left:
        if redundancy[index] < 0 and not state.is_gone(candidates[index].tensor) and state.take(index):
            gain = min(goal.amount(state), goal.needed) - before
            result[index] = redundancy[index] / gain if gain > 0 else -np.inf
            state.undo()
    return result


def _first_witness(
    state: RemovalState, candidates: Sequence[Structure], goal: _Goal
) -> tuple[list[int], frozenset[int]]:
    """The candidates to choose from, and a set of them that reaches the target; TargetError where none is found.

    A number of structures is reached exactly if it can be, and with minimal structures only if it can be; what cannot
    be reached exactly is overshot as little as can be found.
    """
    every = list(range(len(candidates)))
    minimal = [i for i in every if candidates[i].minimal]
    for limit in (goal.needed, np.inf) if goal.exactly else (np.inf,):
        for own in (minimal, every) if goal.exactly else (every,):
            witness = _complete(state, candidates, goal, own, limit)
            if witness is not None:
                return own, witness
    raise _too_much(state, candidates, goal)


def _witness_with(
    state: RemovalState,
    candidates: Sequence[Structure],
    goal: _Goal,
    own: Sequence[int],
    index: int,
    witness: frozenset[int],
    limit: float,
) -> frozenset[int] | None:
    """A set that reaches the target, holds what is taken and this candidate; None where none is found."""
    if not state.take(index):
        return None
    try:
        if goal.amount(state) > limit:
            return None
        if index in witness:
            return witness
        rest = _complete(state, candidates, goal, own, limit)
        return None if rest is None else rest | {index}
    finally:
        state.undo()


def _complete(
    state: RemovalState, candidates: Sequence[Structure], goal: _Goal, own: Sequence[int], limit: float
) -> frozenset[int] | None:
    """A set of further candidates with which the target is reached; None where the greedy orders find none.

    Of several sets the one that overshoots a number of structures the least.
    """
    best: tuple[float, frozenset[int]] | None = None
    for order in _orders(candidates, own):
        taken = _take_until(state, candidates, order, goal, limit)
        amount = goal.amount(state)
        _undo(state, len(taken))
        if amount >= goal.needed and (best is None or amount < best[0]):
            best = amount, frozenset(taken)
        if best is not None and (not goal.exactly or best[0] == goal.needed):
            break
    return None if best is None else best[1]


def _orders(candidates: Sequence[Structure], own: Iterable[int]) -> tuple[list[int], ...]:
    """Greedy orders worth a try: small regions first (they count one by one), then large regions and gains.

    The largest removals that are certified come from these orders too, so that each of them can be had.
    """
    small = sorted(own, key=lambda i: (len(candidates[i].region), i))
    return (
        small,
        sorted(small, key=lambda i: -len(candidates[i].region)),
        sorted(small, key=lambda i: -candidates[i].params),
        sorted(small, key=lambda i: -candidates[i].macs),
    )


def _take_until(
    state: RemovalState, candidates: Sequence[Structure], order: Iterable[int], goal: _Goal, limit: float
) -> list[int]:
    """Take in this order what is valid and within the limit, until the target is reached."""
    taken: list[int] = []
    for index in order:
        if goal.reached(state):
            break
        if state.is_gone(candidates[index].tensor):
            continue
        if not state.take(index):
            continue
        if goal.amount(state) <= limit:
            taken.append(index)
        else:
            state.undo()
    return taken


def _choose_blindly(state: RemovalState, candidates: Sequence[Structure], goal: _Goal, rank: Rank) -> list[int]:
    """DHSPG: the most redundant ones, whatever they leave behind."""
    own = [i for i, c in enumerate(candidates) if c.minimal] if goal.exactly else list(range(len(candidates)))
    taken: list[int] = []
    while len(taken) < len(own):
        if len(taken) >= goal.needed if goal.exactly else goal.reached(state):
            break
        redundancy = np.asarray(rank(tuple(taken)), dtype=np.float64)
        index = min((i for i in own if i not in taken), key=lambda i: (-redundancy[i], i))
        state.erase(index)
        taken.append(index)
    return taken


def _without_needless(state: RemovalState, chosen: list[int], goal: _Goal) -> list[int]:
    """Give back what the target is met without, the last taken first, so that it is overshot as little as possible."""
    at = len(chosen)
    while at > 0 and len(chosen) > 1:
        at -= 1
        later = chosen[at + 1 :]
        _undo(state, len(later) + 1)
        for index in later:
            state.erase(index)
        if state.valid and goal.reached(state):
            chosen = chosen[:at] + later
            at = len(chosen)  # what was needed before may not be any more
            continue
        _undo(state, len(later))
        for index in chosen[at:]:
            state.erase(index)
    return chosen


def _reach(state: RemovalState, witness: frozenset[int], goal: _Goal) -> float:
    for index in sorted(witness):
        state.erase(index)
    amount = goal.amount(state)
    _undo(state, len(witness))
    return amount


def _take_all(state: RemovalState, candidates: Sequence[Structure], order: Iterable[int]) -> list[int]:
    taken = []
    for index in order:
        if not state.is_gone(candidates[index].tensor) and state.take(index):
            taken.append(index)
    return taken


def _undo(state: RemovalState, count: int) -> None:
    for _ in range(count):
        state.undo()


def _too_much(state: RemovalState, candidates: Sequence[Structure], goal: _Goal) -> TargetError:
    best = largest(state, candidates, goal.full)
    if not candidates:
        return TargetError("this model has nothing to remove", fix="onnx-asgnas analyze MODEL --explain says why.")
    if goal.exactly:
        total = sum(c.minimal for c in candidates)
        return TargetError(
            f"{goal.needed:g} structures cannot be removed: at most {best.structures} of {total} can go together",
            fix=f"Ask for {best.structures} or fewer.",
            largest=best.structures,
        )
    full, most = (goal.full.params, best.params) if goal.kind == "params" else (goal.full.macs, best.macs)
    least = 1 - most / max(full, 1)
    name = "parameters" if goal.kind == "params" else "multiply-accumulates"
    return TargetError(
        f"{goal.asked:.4g} of the {name} cannot be kept: at least {least:.4g} must stay",
        fix=f"Keep {min(least + 5e-5, 1):.4f} or more.",
        largest=most,
    )
