from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_asgnas.cli import main
from onnx_asgnas.errors import SpaceError
from onnx_asgnas.models import build
from onnx_asgnas.report.page import SCRIPTS
from onnx_asgnas.report.space_data import INPUT, OUTPUT, space_data
from onnx_asgnas.report.space_page import space_page
from onnx_asgnas.space import SearchSpace, analyze
from tests.made_up import graph, network
from tests.report.chromium import Page, installed

HOSTILE = "</script><img src=x onerror='window.hacked=1'><!-- \u2028 &lt; %%DATA%%"


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return analyze(build("stackedunets", width=8))


@pytest.fixture(scope="module")
def data(space: SearchSpace) -> dict[str, Any]:
    return space_data(space, "stackedunets.onnx")


def data_in(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def give_weights(model: onnx.ModelProto, *names: str) -> None:
    """Weights of 4x4 by these names."""
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    model.graph.initializer.extend(numpy_helper.from_array(values + at, name) for at, name in enumerate(names))


def hostile_model() -> onnx.ModelProto:
    """A residual network in which every name would end a script or open a tag."""

    def name(what: str) -> str:
        return f"{what}{HOSTILE}"

    weights = [numpy_helper.from_array(np.ones((4, 4), np.float32), name(w)) for w in ("v", "w")]
    nodes = [
        helper.make_node("MatMul", [name("x"), name("v")], [name("a")], name=name("first")),
        helper.make_node("MatMul", [name("a"), name("w")], [name("b")], name=name("second")),
        helper.make_node("Add", [name("a"), name("b")], [name("y")], name=name("add")),
    ]
    ends = [helper.make_tensor_value_info(name(e), TensorProto.FLOAT, ["N", 4]) for e in ("x", "y")]
    body = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def residual_network(blocks: int) -> onnx.ModelProto:
    """Blocks of five operators: Gemm, Relu, Gemm, Add, Relu."""
    nodes, weights, tensor = [], [], "x"
    for at in range(blocks):
        weights += [numpy_helper.from_array(np.full((2, 2), at, np.float32), f"block{at}.{w}") for w in "vw"]
        steps = [
            ("Gemm", [tensor, f"block{at}.v"]),
            ("Relu", [f"block{at}/0"]),
            ("Gemm", [f"block{at}/1", f"block{at}.w"]),
            ("Add", [tensor, f"block{at}/2"]),
            ("Relu", [f"block{at}/3"]),
        ]
        nodes += [helper.make_node(op, i, [f"block{at}/{n}"], f"/block{at}/{op}{n}") for n, (op, i) in enumerate(steps)]
        tensor = f"block{at}/4"
    ends = [helper.make_tensor_value_info(e, TensorProto.FLOAT, ["N", 2]) for e in ("x", tensor)]
    body = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_every_operator_input_and_output_is_there(space: SearchSpace, data: dict[str, Any]) -> None:
    assert space.graph is not None
    names, types = data["operators"]["name"], data["operators"]["type"]
    assert names == ["input", *(node.name for node in space.graph.nodes), *space.graph.outputs]
    assert types == [INPUT, *(node.op_type for node in space.graph.nodes), OUTPUT]


def test_costs_of_operators_sum_up_to_those_of_the_network(space: SearchSpace, data: dict[str, Any]) -> None:
    assert sum(data["operators"]["params"]) == data["params"] == space.params
    assert sum(data["operators"]["macs"]) == data["macs"] == space.macs


def test_edges_carry_the_tensors_that_are_read(space: SearchSpace, data: dict[str, Any]) -> None:
    assert space.graph is not None
    names, tensors = data["operators"]["name"], data["tensors"]
    edges = [data["edges"][at : at + 3] for at in range(0, len(data["edges"]), 3)]
    assert all(tensors["maker"][tensor] == source < target for source, target, tensor in edges)
    reads = {(names[target], tensors["name"][tensor]) for _, target, tensor in edges}
    first = space.graph.nodes[0]
    assert (first.name, "input") in reads
    assert tensors["shape"][0] == "? × 1 × 28 × 28"


def test_structures_have_all_that_the_space_knows(space: SearchSpace, data: dict[str, Any]) -> None:
    for s, shown in zip(space.structures, data["structures"], strict=True):
        assert (shown["tensor"], shown["erasable"], shown["minimal"]) == (s.tensor, s.erasable, s.minimal)
        assert (shown["params"], shown["macs"], shown["operators"]) == (s.params, s.macs, len(s.region))
        assert tuple(shown["variables"]) == s.variables
        parent = shown["parent"]
        assert (data["structures"][parent]["tensor"] if parent >= 0 else None) == s.parent
        assert {data["operators"]["name"][at] for at in shown["segment"]} == set(s.segment)


def test_operators_lie_in_their_innermost_structure(space: SearchSpace, data: dict[str, Any]) -> None:
    regions = {s.tensor: s.region for s in space.structures}
    for name, at in zip(data["operators"]["name"], data["operators"]["structure"], strict=True):
        around = [tensor for tensor, region in regions.items() if name in region]
        innermost = min(around, key=lambda tensor: len(regions[tensor]), default=None)
        assert (data["structures"][at]["tensor"] if at >= 0 else None) == innermost


def test_families_have_their_members_and_reasons(space: SearchSpace, data: dict[str, Any]) -> None:
    families = space.channel_families()
    assert families
    for family, shown in zip(families, data["families"], strict=True):
        assert (shown["name"], shown["groups"], shown["free"]) == (family.name, family.groups, family.free)
        assert tuple(shown["reasons"]) == family.reasons
        for member, (initializer, axis, kind, nodes) in zip(family.members, shown["members"], strict=True):
            assert (initializer, axis, kind) == (member.initializer, member.axis, member.kind)
            assert {data["operators"]["name"][at] for at in nodes} == set(member.nodes)


def test_every_reason_is_in_the_page() -> None:
    model = graph("""
        (float[N, 4] x) => (float[N, 4] y)
        {
            a = MatMul(x, v)
            b = MatMul(a, w)
            c = Sigmoid(b)
            d = Add(a, c)
            e = MatMul(d, u)
            s = Softmax(e)
            y = Add(e, s)
        }
    """)
    give_weights(model, "v", "w", "u")
    for at, node in enumerate(model.graph.node):
        node.name = f"n{at}"
    space = analyze(model, protect=["n1"])
    shown = data_in(space_page(space, "m"))
    assert [s["reason"] for s in shown["structures"]] == [s.reason for s in space.structures]
    assert any(s.reason for s in space.structures)
    assert [(f["reason"], f["channels"]) for f in shown["frozen"]] == [(f.reason, f.channels) for f in space.frozen]
    assert [f["reasons"] for f in shown["families"]] == [list(f.reasons) for f in space.channel_families()]
    assert [shown["operators"]["name"][at] for at in shown["protected"]] == ["n1"]


def test_unknown_operators_are_told() -> None:
    model = graph("(float[N, 4] x) => (float[N, 4] y) { a = MatMul(x, w) y = custom.Odd(a) }")
    give_weights(model, "w")
    model.opset_import.append(helper.make_opsetid("custom", 1))
    shown = space_data(analyze(model), "m")
    assert shown["unknown"] == ["Odd"]
    assert "custom.Odd" in shown["operators"]["type"]


def test_hostile_names_stay_data(tmp_path: Path) -> None:
    page = space_page(analyze(hostile_model()), HOSTILE)
    shown = data_in(page)
    assert shown["model"] == HOSTILE
    assert f"first{HOSTILE}" in shown["operators"]["name"]
    assert HOSTILE not in page
    assert page.count("</script>") == len(SCRIPTS["space"]) + 5
    assert "<img src=x" not in page


def test_the_page_needs_nothing_else(space: SearchSpace) -> None:
    page = space_page(space, "m")
    assert not re.search(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="', page)
    assert "default-src 'none'" in page
    assert len(page) < 3_000_000
    assert "Eclipse Public License - v 2.0" in page
    assert "The Cytoscape Consortium" in page


def test_a_space_without_its_model_is_refused(space: SearchSpace) -> None:
    with pytest.raises(SpaceError, match="no model"):
        space_page(replace(space, graph=None), "m")


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "space.html"
    assert main(["analyze", str(network(tmp_path)), "--html", str(page)]) == 0
    assert data_in(page.read_text(encoding="utf-8"))["model"] == "stackedunets.onnx"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    binary = installed()
    if binary is None:
        pytest.skip("no Chromium to look at the page with (Debian: apt install chromium)")
    page = Page(binary, tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


def shown_in(browser: Page, space: SearchSpace, folder: Path, name: str = "model.onnx") -> None:
    path = folder / "space.html"
    path.write_text(space_page(space, name), encoding="utf-8")
    browser.problems.clear()
    browser.open(path)


TITLE = "document.querySelector('#details h2').textContent"
DRAWN = "Drawing.cy.nodes().filter('.chosen').map((n) => n.data('label'))"
UNFOLD = "Page.setOpen(Network.data.boxes.map((_, at) => Network.count + at)).then(() => Page.visible().leaves.length)"


def test_the_browser_draws_folds_and_unfolds(browser: Page, space: SearchSpace, tmp_path: Path) -> None:
    shown_in(browser, space, tmp_path)
    operators = browser.run("Network.count")
    assert browser.run(UNFOLD) == operators
    assert browser.run("Drawing.cy.nodes().filter((n) => !n.hasClass('open')).length") == operators
    assert browser.run("Page.setOpen([]).then(() => Page.visible().leaves.length)") < operators
    boxes = "Drawing.cy.nodes('.folded.structure').map((n) => n.data('number'))"
    outer = browser.run(f"{boxes}[0]")
    assert browser.run(f"Page.toggle({outer}).then(() => Page.isOpen({outer}))")
    assert browser.run("Drawing.cy.edges().every((e) => isFinite(e.sourceEndpoint().x))")
    assert browser.problems == []


def test_the_keyboard_searches_and_walks(browser: Page, space: SearchSpace, tmp_path: Path) -> None:
    shown_in(browser, space, tmp_path)
    browser.run("Page.setOpen([])")
    browser.press("/")
    browser.write("conv42")
    browser.press("Enter")
    browser.wait_for(f"String({DRAWN}).includes('conv42')")
    assert browser.run(TITLE) == "conv42"
    browser.press("ArrowDown")
    assert browser.run(TITLE) == "Conv · Relu"
    browser.press("ArrowUp")
    assert browser.run(TITLE) == "conv42"
    browser.press("Escape")
    assert browser.run(f"{DRAWN}.length") == 0
    assert browser.problems == []


def test_tables_sort_and_rows_lead_to_what_they_name(browser: Page, space: SearchSpace, tmp_path: Path) -> None:
    shown_in(browser, space, tmp_path)
    browser.run("document.querySelector('[data-tab=structures]').click()")
    head = "[...document.querySelectorAll('#structures th button')].find((b) => b.textContent === 'parameters')"
    browser.run(f"{head}.click()")
    largest = max(space.structures, key=lambda s: s.params)
    assert browser.run("document.querySelector('#structures tbody tr .link').textContent") == largest.tensor
    browser.run("document.querySelector('#structures tbody tr .link').click()")
    assert browser.run(TITLE) == largest.tensor
    family = space.channel_families()[0]
    browser.run("document.querySelector('[data-tab=families]').click()")
    browser.run("document.querySelector('#families tbody tr .link').click()")
    assert browser.run(TITLE) == family.name
    assert browser.run("Drawing.cy.nodes('.marked').length") > 0
    assert browser.problems == []


def test_hostile_names_are_text_in_the_browser(browser: Page, tmp_path: Path) -> None:
    shown_in(browser, analyze(hostile_model()), tmp_path, HOSTILE)
    assert browser.run("document.getElementById('model').textContent") == HOSTILE
    browser.run("Page.jump({ kind: 'operator', id: 1 })")
    for tab in ("structures", "families", "keeps"):
        browser.run(f"document.querySelector('[data-tab={tab}]').click()")
    browser.press("/")
    browser.write("first")
    assert browser.run("[window.hacked, document.images.length]") == [None, 1]
    assert browser.problems == []


def test_five_thousand_operators_fold_to_what_can_be_read(browser: Page, tmp_path: Path) -> None:
    shown_in(browser, analyze(residual_network(1000)), tmp_path)
    assert browser.run("Network.size[Network.root]") == 5000
    assert 1 < browser.run("Page.visible().leaves.length") <= 110
    browser.press("/")
    browser.write("/block777/Add3")
    browser.press("Enter")
    browser.wait_for(f"String({DRAWN}).includes('/block777/Add3'.slice(1))")
    assert browser.run(TITLE) == "/block777/Add3"
    assert browser.run("Page.visible().leaves.length") <= 420
    assert browser.problems == []
