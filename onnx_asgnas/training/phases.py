"""The phases of an H2SPG run, and when each begins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from onnx_asgnas.errors import InputError

__all__ = ["Phase", "Schedule"]


class Phase(Enum):
    """Where a run stands after its last step."""

    WARM_UP = "warm-up"
    """Nothing is chosen yet: plain steps, redundancy is averaged."""
    HYBRID = "hybrid"
    """Some chosen group is not at zero yet."""
    CONVERGE = "converge"
    """Every chosen group is at zero, and stays."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When what happens, as counts of steps that come before it."""

    select: int
    """The groups are chosen at the start of the step after these; that step is the first of the hybrid phase."""
    shrink: int
    """From here on what is left of the chosen groups shrinks linearly."""
    zero: int
    """After these steps every chosen group is exactly zero."""

    @classmethod
    def from_fractions(cls, total_steps: int, *, select_at: float, zero_at: float, shrink: float) -> Schedule:
        """The schedule of a run of `total_steps`, `select_at` and `zero_at` being fractions of it.

        `shrink` is the fraction of the hybrid phase, at its end, in which groups shrink. The hybrid phase has at least
        one step, so in a very short run the selection comes earlier than asked for. Raises InputError for values that
        are not such fractions in this order.
        """
        if total_steps < 1:
            raise InputError(f"total_steps is {total_steps}", fix="Give the number of steps of the whole run.")
        if not 0 <= select_at < zero_at <= 1:
            raise InputError(
                f"select_at is {select_at} and zero_at is {zero_at}",
                fix="Give fractions of the training with 0 ≤ select_at < zero_at ≤ 1.",
            )
        if not 0 < shrink <= 1:
            raise InputError(f"shrink is {shrink}", fix="Give a fraction of the hybrid phase, above 0 and at most 1.")
        zero = max(1, round(zero_at * total_steps))
        select = min(round(select_at * total_steps), zero - 1)
        return cls(select=select, shrink=zero - max(1, round(shrink * (zero - select))), zero=zero)
