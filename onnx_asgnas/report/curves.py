"""How a run went, as curves: loss, learning rate and the norms of groups over the steps, with the phases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from onnx_asgnas.space import SearchSpace

_MOST_STRUCTURES, _MOST_CHANNELS = 150, 60
"""Norms of so many groups are kept: of more, some that are evenly spread."""

Event = Mapping[str, Any]


def watched_groups(space: SearchSpace) -> tuple[int, ...]:
    """The groups of a space whose norms a run keeps, by their place among its groups: structures, then channels."""
    structures = len(space.candidates)
    channels = 0 if space.mode == "erase" else space.channels.count
    return (
        *_spread(0, 0 if space.mode == "prune" else structures, _MOST_STRUCTURES),
        *_spread(structures, channels, _MOST_CHANNELS),
    )


def curves_of(events: Iterable[Event], space: SearchSpace) -> dict[str, Any]:
    """The events of a run as columns: `samples`, `epochs`, where `phases` begin, and `norms` of groups by name.

    The loss of a sample is the mean since the sample before, within an epoch.
    """
    listed = list(events)
    samples = [event for event in listed if event["kind"] == "sample"]
    epochs = [event for event in listed if event["kind"] == "epoch"]
    return {
        "total_steps": listed[-1]["total_steps"] if listed else 0,
        "total_epochs": listed[-1]["epochs"] if listed else 0,
        "samples": {"step": [s["step"] for s in samples], "lr": [s["lr"] for s in samples], "loss": _losses(samples)},
        "epochs": {name: [event.get(name) for event in epochs] for name in ("step", "loss", "accuracy", "test_loss")},
        "phases": _phases(listed),
        "norms": _norms(samples, space),
    }


def _spread(start: int, count: int, most: int) -> tuple[int, ...]:
    if count <= most:
        return tuple(range(start, start + count))
    return tuple(start + round(at * (count - 1) / (most - 1)) for at in range(most))


def _phases(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Name and first step of each phase."""
    found = [{"phase": events[0]["phase"], "step": 0}] if events else []
    return found + [{"phase": e["phase"], "step": e["step"]} for e in events if e["kind"] == "phase"]


def _losses(samples: Sequence[Event]) -> list[float | None]:
    """The mean loss between samples; None for the first, before any step."""
    found: list[float | None] = []
    before: tuple[int, int, float] = (0, 0, 0.0)
    for sample in samples:
        steps = sample["total_steps"] // sample["epochs"]
        done = sample["step"] - (sample["epoch"] - 1) * steps
        sum_so_far = sample["loss"] * done
        epoch, earlier, sum_before = before
        if epoch != sample["epoch"]:
            earlier, sum_before = 0, 0.0
        found.append((sum_so_far - sum_before) / (done - earlier) if done > earlier else None)
        before = sample["epoch"], done, sum_so_far
    return found


def _norms(samples: Sequence[Event], space: SearchSpace) -> dict[str, Any] | None:
    rows = [(s["step"], s["norms"]) for s in samples if s.get("norms")]
    watched = watched_groups(space)
    if not rows or any(len(norms) != len(watched) for _, norms in rows):
        return None
    values = np.array([norms for _, norms in rows]).T.tolist()
    groups = space.groups
    return {
        "step": [step for step, _ in rows],
        "groups": [groups[at].name for at in watched],
        "structures": sum(at < len(space.candidates) for at in watched),
        "values": values,
    }
