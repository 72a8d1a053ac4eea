"""report.html: what it knows of a run, and that a browser shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.models import build
from onnx_asgnas.report import OperatorTime, RunReport, channel_fates, curves_of, operator_times, watched_groups
from onnx_asgnas.report.operator_times import by_type
from onnx_asgnas.report.run_page import run_data, run_page
from onnx_asgnas.space import SearchSpace, analyze
from tests.report.chromium import Page, installed
from tests.report.test_report import passed, report
from tests.report.test_space_page import HOSTILE, data_in, hostile_model

STEPS, EPOCHS = 40, 8


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return analyze(build("stackedunets", width=2))


def events(space: SearchSpace, zero: set[str]) -> list[dict[str, Any]]:
    """Those of a run of 40 steps that chooses at 10 and has its groups at zero at 20."""
    groups = [space.groups[at].name for at in watched_groups(space)]
    found: list[dict[str, Any]] = []
    for step in range(0, STEPS + 1, 2):
        epoch = max(1, -(-step * EPOCHS // STEPS))
        phase = "warm-up" if step < 10 else "hybrid" if step < 20 else "converge"
        common = {"step": step, "total_steps": STEPS, "epoch": epoch, "epochs": EPOCHS, "phase": phase, "lr": 0.1}
        if step in (10, 20):
            found.append({"kind": "phase", **common, "loss": 0.0})
        norms = [0.0 if name in zero and step >= 20 else 2.0 + at for at, name in enumerate(groups)]
        found.append({"kind": "sample", **common, "loss": 2 - step / STEPS, "norms": norms})
        if step and step % (STEPS // EPOCHS) == 0:
            found.append(
                {"kind": "epoch", **common, "loss": 2 - step / STEPS, "accuracy": step / 50, "test_loss": None}
            )
    return found


def run_of(space: SearchSpace, **facts: Any) -> RunReport:
    chosen = {"resize56": 0.5, "bn75": 0.25}
    times = [OperatorTime("conv0", "Conv", 9.0), OperatorTime("conv42", "Conv", 5.0)]
    values = {
        "chosen": chosen,
        "redundancy": {},
        "events": events(space, set(chosen)),
        "operator_times": [times, times[:1]],
    }
    return report(space, **(values | facts))


def test_operators_and_structures_have_their_fate(space: SearchSpace) -> None:
    data = run_data(run_of(space))
    states = dict(zip(data["operators"]["name"], data["run"]["operators"], strict=True))
    assert states["conv42"] == states["bn75"] == "removed" and states["conv0"] == states["input"] == "kept"
    fates = {s["tensor"]: fate for s, fate in zip(data["structures"], data["run"]["structures"], strict=True)}
    assert fates["bn75"] == {
        "state": "removed",
        "reason": "chosen",
        "redundancy": 0.25,
        "rank": 1,
        "chosen_at": {"step": 10, "epoch": 2.0},
        "zero_at": {"step": 20, "epoch": 4.0},
    }
    assert fates["bn38"]["state"] == "kept" and fates["bn38"]["chosen_at"] is None
    assert data["run"]["times"]["slowest"] == [["conv0", "Conv", 9.0, 9.0], ["conv42", "Conv", 5.0, None]]


def test_what_the_compact_model_has_not_is_removed(space: SearchSpace) -> None:
    assert space.graph is not None
    left = frozenset(name for node in space.graph.nodes for name in node.output if node.name != "add76")
    data = run_data(run_of(space, left=left))
    states = dict(zip(data["operators"]["name"], data["run"]["operators"], strict=True))
    assert states["add76"] == "removed"  # it is bypassed


def test_one_that_was_chosen_and_is_needed(space: SearchSpace) -> None:
    data = run_data(run_of(space, chosen={"bn38": 1.0, "bn75": 0.5}))
    assert sorted(s["state"] for s in data["run"]["structures"] if s["rank"] is not None) == ["needed", "removed"]


def test_layers_that_lost_channels() -> None:
    space = analyze(build("stackedunets", width=4), mode="prune")
    fates = channel_fates(space, build("stackedunets", width=4))
    first, *rest = fates
    data = run_data(run_of(space, chosen={}, channels=[replace(first, kept=1), *rest]))
    assert "narrower" in data["run"]["operators"]
    assert [kept for kept in data["run"]["families"] if kept is not None] == [1, *(fate.kept for fate in rest)]


def test_curves_of_a_run(space: SearchSpace) -> None:
    curves = curves_of(events(space, {"bn75"}), space)
    assert [(p["phase"], p["step"]) for p in curves["phases"]] == [("warm-up", 0), ("hybrid", 10), ("converge", 20)]
    assert curves["norms"]["step"] == list(range(0, STEPS + 1, 2))
    assert curves["norms"]["structures"] == len(space.candidates) == len(curves["norms"]["values"])
    assert curves["samples"]["loss"][0] is None
    common = {"kind": "sample", "epoch": 1, "epochs": 2, "total_steps": 8, "lr": 0.1, "phase": "hybrid"}
    means = ({"step": 2, "loss": 3.0}, {"step": 4, "loss": 2.0}, {"step": 6, "loss": 5.0, "epoch": 2})
    rows = [common | mean for mean in means]
    assert curves_of(rows, space)["samples"]["loss"] == [3.0, 1.0, 5.0]
    assert curves_of([], space)["norms"] is None


def test_groups_that_are_watched_of_many() -> None:
    space = analyze(build("stackedunets", width=8), mode="joint")
    watched = watched_groups(space)
    assert watched[: len(space.candidates)] == tuple(range(len(space.candidates)))
    assert len(watched) == len(space.candidates) + 60
    assert watched[-1] == len(space.groups) - 1


def test_every_operator_is_timed() -> None:
    graph = TraceGraph.of(build("stackedunets", width=2))
    found = operator_times([graph, graph], threads=1, seconds=0.0)
    assert found is not None
    names = {entry.name for entry in found[0]}
    assert names == {entry.name for entry in found[1]}
    assert names & {node.name for node in graph.nodes}
    assert all(entry.microseconds >= 0 for entry in found[0])
    types = by_type([OperatorTime("a", "Add", 1.0), OperatorTime("c", "Conv", 2.0), OperatorTime("d", "Conv", 3.0)])
    assert list(types.items()) == [("Conv", (2, 5.0)), ("Add", (1, 1.0))]


def test_the_page_needs_nothing_else_and_keeps_names_as_data(tmp_path: Path) -> None:
    space = analyze(hostile_model())
    page = run_page(run_of(space, chosen={}, events=[], verification=passed(reason=HOSTILE, passed=False)))
    assert HOSTILE not in page
    assert data_in(page)["run"]["passed"] is False
    assert "default-src 'none'" in page and len(page) < 3_000_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    binary = installed()
    if binary is None:
        pytest.skip("no Chromium to look at the page with (Debian: apt install chromium)")
    page = Page(binary, tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


def shown(browser: Page, report: RunReport, folder: Path) -> None:
    path = folder / "report.html"
    path.write_text(run_page(report), encoding="utf-8")
    browser.problems.clear()
    browser.open(path)


def test_the_browser_shows_the_run(browser: Page, space: SearchSpace, tmp_path: Path) -> None:
    shown(browser, run_of(space), tmp_path)
    assert browser.run("document.querySelectorAll('figure > svg').length") == 4
    count = "document.querySelectorAll('#chart-loss {}').length"
    keys, lines = count.format(".key .line"), count.format("> svg .line")
    assert browser.run(keys) == browser.run(lines) > 1
    assert browser.run("document.querySelectorAll('#chart-norms .line.chosen').length") == 2
    assert browser.run("document.querySelectorAll('#compared tbody tr').length") == 6
    assert browser.run("document.querySelector('#details h2').textContent") == "bn75"
    said = browser.run("document.getElementById('details').textContent")
    assert "step 10 (epoch 2.0)" in said and "number 2 of 2" in said and "✕ chosen" in said
    browser.run("Page.jump({ kind: 'operator', id: Network.operators.name.indexOf('conv42') })")
    assert "left with" in browser.run("document.getElementById('details').textContent")
    browser.run("document.querySelector('[data-tab=structures]').click()")
    head = "[...document.querySelectorAll('#structures th button')].find((b) => b.textContent === 'redundancy')"
    browser.run(f"{head}.click()")
    assert browser.run("document.querySelector('#structures tbody .link').textContent") == "resize56"
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.problems == []


def test_pointing_at_a_norm_names_it(browser: Page, space: SearchSpace, tmp_path: Path) -> None:
    shown(browser, run_of(space), tmp_path)
    height = browser.run("document.querySelector('#chart-norms .line.chosen path').getPointAtLength(0).y")
    place = "document.querySelector('#chart-norms svg')"
    corner = f"{place}.getBoundingClientRect()"
    move = f"{{ clientX: {corner}.left + 54, clientY: {corner}.top + {height} }}"
    browser.run(f"{place}.dispatchEvent(new PointerEvent('pointermove', {move}))")
    assert "(chosen): " in browser.run("document.querySelector('#chart-norms figcaption').textContent")
    assert browser.problems == []


def test_a_run_without_a_record_of_its_training(browser: Page, tmp_path: Path) -> None:
    shown(browser, run_of(analyze(hostile_model()), chosen={}, events=[], operator_times=None), tmp_path)
    assert browser.run("['training', 'norms', 'latency'].every((id) => document.getElementById(id).hidden)")
    assert browser.run("window.hacked === undefined")
    assert browser.problems == []
