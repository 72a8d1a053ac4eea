"""The file of events holds each event once, however often a run stops."""

from __future__ import annotations

import json
from pathlib import Path

from onnx_asgnas.training.events import Event, EventLog


def event(kind: str, step: int) -> Event:
    return Event(kind=kind, step=step, total_steps=9, epoch=1, epochs=1, phase="training", loss=0.5)


def lines(path: Path) -> list[tuple[str, int]]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(entry["kind"], entry["step"]) for entry in found]


def test_steps_are_passed_on_and_not_kept(tmp_path: Path) -> None:
    heard: list[Event] = []
    log = EventLog(tmp_path / "events.jsonl", heard.append)
    sent = [event("start", 0), event("step", 1), event("phase", 2), event("epoch", 3)]
    for one in sent:
        log(one)
    assert heard == sent
    assert lines(tmp_path / "events.jsonl") == [("phase", 2), ("epoch", 3)]


def test_what_came_after_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for one in (event("start", 0), event("phase", 2), event("epoch", 3), event("epoch", 6)):
        log(one)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "epo')  # the process was killed here
    again = EventLog(path)
    again(event("start", 4))
    assert lines(path) == [("phase", 2), ("epoch", 3)]
    again(event("epoch", 6))
    assert lines(path) == [("phase", 2), ("epoch", 3), ("epoch", 6)]
