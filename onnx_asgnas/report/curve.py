"""Several compact models of one network: how size, speed and accuracy fall, as a table and as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_asgnas.config import Target
from onnx_asgnas.evaluation import Benchmark, Verification
from onnx_asgnas.report import numbers
from onnx_asgnas.report.pictures import axes_of, new_figure, save_figure

_BAR = 10
"""Width of a full bar, in characters."""
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One compact model for each target, all measured beside the full one.

    `comparison` has the full model first and then that of each target, `files` is where these lie. One that is not the
    same as the full model is not written.
    """

    targets: tuple[Target, ...]
    files: tuple[Path, ...]
    comparison: Benchmark
    verifications: tuple[Verification, ...]

    @property
    def passed(self) -> bool:
        """Whether every one of them gives what the full model gives."""
        return all(verification.passed for verification in self.verifications)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `full`, and under `points` what a single target gives, with the target and the file."""
        points = []
        compact = self.comparison.models[1:]
        for target, file, facts, found in zip(self.targets, self.files, compact, self.verifications, strict=True):
            points.append(
                {
                    "target": {k: v for k, v in dataclasses.asdict(target).items() if v is not None},
                    "file": str(file) if found.passed else None,
                    "compact": facts.to_dict(),
                    "kept": self.comparison.kept_by(facts).to_dict(),
                    "latency_ratio": None if facts.latency_ms is None else facts.latency_ms.ratio,
                    "verified": found.to_dict(),
                }
            )
        return {"full": self.comparison.full.to_dict(), "points": points}

    def rows(self) -> list[tuple[str, ...]]:
        """The header, the full model, and a row for each target; what nobody measured has no column.

        "Moved" is how far the removal moved the output of the full model, "off by" the difference that the check found.
        The last column has a bar: the latency that is left, or multiply-accumulates where latency was not measured.
        """
        full = self.comparison.full
        (name,) = (f.name for f in dataclasses.fields(Target) if getattr(self.targets[0], f.name) is not None)
        timed = full.latency_ms is not None
        share = "latency kept" if timed else "MACs kept"
        names = ("params", "MACs", "file", "latency", "accuracy", "moved", "off by", share)
        table: list[tuple[str, ...]] = [(name.replace("_", " "), *names)]
        latency = full.latency_ms.median if full.latency_ms is not None else None
        table.append(
            (
                "full",
                numbers.count(full.params),
                numbers.count(full.macs),
                numbers.size(full.bytes),
                numbers.milliseconds(latency),
                numbers.percent(full.accuracy),
                "",
                "",
                f"{bar(1)} {numbers.percent(1)}",
            )
        )
        table += [self._row(at) for at in range(len(self.targets))]
        return _without_empty([4] * (not timed) + [5] * (full.accuracy is None), table)

    def _row(self, at: int) -> tuple[str, ...]:
        facts, found = self.comparison.models[at + 1], self.verifications[at]
        kept, latency = self.comparison.kept_by(facts), facts.latency_ms
        share = kept.macs if latency is None else latency.ratio
        return (
            next(f"{v:g}" for v in dataclasses.asdict(self.targets[at]).values() if v is not None),
            numbers.percent(kept.params),
            numbers.percent(kept.macs),
            numbers.size(facts.bytes),
            numbers.milliseconds(None if latency is None else latency.median),
            numbers.percent(facts.accuracy),
            numbers.DASH if found.moved is None else f"{found.moved:.1e}",
            f"{found.max_relative_difference:.1e}" if found.passed else "FAILED",
            f"{bar(share)} {numbers.percent(share)}",
        )

    def draw(self, path: Path) -> None:
        """Draw parameters, latency and accuracy over multiply-accumulates, as the kind of picture that the name tells.

        Raises PackageError without matplotlib, OutputError where the file cannot be written.
        """
        models = sorted(self.comparison.models, key=lambda facts: facts.macs)
        kept = [self.comparison.kept_by(facts) for facts in models]
        macs = [100 * k.macs for k in kept]
        lines = {"parameters": [100 * k.params for k in kept]}
        if self.comparison.full.latency_ms is not None:
            lines["latency"] = [100 * m.latency_ms.ratio for m in models if m.latency_ms is not None]
        if self.comparison.full.accuracy is not None:
            lines["accuracy (absolute)"] = [100 * m.accuracy for m in models if m.accuracy is not None]
        figure = new_figure(6, 4)
        axes = axes_of(figure)
        for name, values in lines.items():
            axes.plot(macs, values, marker="o", label=name)
        axes.set(xlabel="multiply-accumulates kept, %", ylabel="kept, %", xlim=(0, 105), ylim=(0, None))
        axes.legend()
        save_figure(figure, path)


def require_matplotlib() -> None:
    """Raise PackageError where a curve could not be drawn."""
    new_figure(1, 1)


def bar(share: float) -> str:
    """A share from 0 to 1 as a bar of ten characters, to an eighth of one; more than 1 is a full bar."""
    eighths = round(min(max(share, 0.0), 1.0) * _BAR * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(_BAR)


def _without_empty(columns: Sequence[int], table: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [tuple(cell for at, cell in enumerate(row) if at not in columns) for row in table]
