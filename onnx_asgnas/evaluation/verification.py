"""The result of a verification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_asgnas.errors import VerificationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What a comparison of a full and a compact model found.

    `max_relative_difference` is that of `worst_output` (the output that is furthest beyond, or nearest to, what is
    allowed), infinite where the two cannot be compared; `tolerance` is what that output was allowed, and `outputs` has
    the difference of every output. `moved` says how far the removal moved an output of the original full model, at
    most; None where no original was given. Where the check failed, `reason` is a sentence, and `first_tensor` the first
    tensor in the full model's order that both models have and that differs. `runs` names the inputs that were tried,
    `remarks` what a reader should know before trusting a pass.
    """

    passed: bool
    max_relative_difference: float
    tolerance: float
    moved: float | None
    worst_output: str
    first_tensor: str | None
    reason: str
    outputs: Mapping[str, float]
    runs: tuple[str, ...]
    remarks: tuple[str, ...]

    def require(self) -> Verification:
        """This verification if it passed; else raises VerificationError with the output, the figure and the tensor."""
        if self.passed:
            return self
        raise VerificationError(
            f"the compact model is not the full model: {self.explanation}",
            fix="Was it made from this very model? If so, please report both.",
            output=self.worst_output,
            difference=self.max_relative_difference,
            tolerance=self.tolerance,
            tensor=self.first_tensor,
        )

    @property
    def explanation(self) -> str:
        """Why the check failed, and where the difference begins; "" where it passed."""
        return self.reason + (f"; the first tensor that differs is '{self.first_tensor}'" if self.first_tensor else "")

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the figures (null where not finite), and of a failure the reason and the first tensor too."""
        found = {
            "max_relative_difference": _finite(self.max_relative_difference),
            "moved": _finite(self.moved),
            "passed": self.passed,
            "worst_output": self.worst_output,
        }
        return found if self.passed else found | {"first_tensor": self.first_tensor, "reason": self.reason}

    def __str__(self) -> str:
        if not self.passed:
            return f"failed: {self.explanation}"
        return (
            f"passed: the largest relative difference is {self.max_relative_difference:.1e}, "
            f"and {self.tolerance:.0e} is allowed"
        )


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None
