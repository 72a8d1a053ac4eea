"""Removals against their definition, worked out anew for each set, and against the numbers that the network gives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_asgnas.graph import TraceGraph
from onnx_asgnas.graph.runtime import random_inputs, run, session
from onnx_asgnas.operators import Rule, rules_of
from onnx_asgnas.space import RemovalState, SearchSpace, analyze
from tests.random_graphs import networks, zeroed


@dataclass
class FromScratch:
    """What is left of a network, by the definition, for one set of dropped tensors."""

    graph: TraceGraph
    rules: list[Rule | None]
    dropped: frozenset[str]
    became_zero: set[str] = field(default_factory=set)
    depends: dict[str, frozenset[str]] = field(default_factory=dict)
    users: Counter[str] = field(default_factory=Counter)
    computed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        graph = self.graph
        full_zero, full_depends = self.values(frozenset())
        zero, self.depends = self.values(self.dropped)
        self.became_zero = {name for name in zero if zero[name] and not full_zero[name]}
        wanted = set(graph.outputs)
        for index in reversed(range(len(graph.nodes))):
            node = graph.nodes[index]
            (name,) = node.output
            became_constant = not self.depends[name] and (bool(full_depends[name]) or name in self.dropped)
            if name not in wanted or became_constant or self.is_empty(index):
                continue
            self.computed.add(index)
            for position, name in enumerate(node.input):
                if name and not self.is_dropped(index, position):
                    self.users[name] += 1
                    wanted.add(name)

    def values(self, dropped: frozenset[str]) -> tuple[dict[str, bool], dict[str, frozenset[str]]]:
        """Is a tensor zero, and on which inputs does it depend by value."""
        graph = self.graph
        zero: dict[str, bool] = {}
        depends = {name: frozenset([name]) for name in graph.inputs}
        for node, rule in zip(graph.nodes, self.rules, strict=True):
            assert rule is not None
            flags = tuple(not name or zero.get(name, False) for name in node.input)
            above = frozenset().union(*(depends.get(name, frozenset()) for name in node.input))
            (name,) = node.output
            zero[name] = name in dropped or rule.zero(flags)
            depends[name] = frozenset() if zero[name] or rule.shape_only else above
        return zero, depends

    def is_empty(self, node: int) -> bool:
        """Does a joint drop all that it joins."""
        rule = self.rules[node]
        joint = rule.joint if rule is not None else None
        return joint is not None and all(self.is_dropped(node, position) for position in joint.operands)

    def is_dropped(self, node: int, position: int) -> bool:
        """Does a joint drop an operand: one that is zero since something was erased."""
        rule = self.rules[node]
        joint = rule.joint if rule is not None else None
        return (
            joint is not None
            and position in joint.operands
            and self.graph.nodes[node].input[position] in self.became_zero
        )

    def seen(self, space: SearchSpace) -> dict[str, object]:
        """What can be asked of a RemovalState, by the same names."""
        graph = self.graph
        gone = {t for t in (*graph.producer, *graph.initializers) if not graph.is_output(t) and not self.users[t]}
        return {
            "gone": gone,
            "removed": sum(s.tensor in gone for s in space.candidates if s.minimal),
            "dropped": sorted(
                (n, p) for n in self.computed for p, _ in enumerate(graph.nodes[n].input) if self.is_dropped(n, p)
            ),
        }


def seen(state: RemovalState, graph: TraceGraph) -> dict[str, object]:
    return {
        "gone": {t for t in (*graph.producer, *graph.initializers) if state.is_gone(t)},
        "removed": state.removed,
        "dropped": sorted(state.dropped_operands()),
    }


def everything(state: RemovalState, graph: TraceGraph) -> tuple[object, ...]:
    """All that a state says, to compare before and after."""
    return (seen(state, graph), state.valid, state.cost(), state.dead_initializers(), state.constants_read())


@settings(max_examples=60)
@given(networks(), st.randoms(use_true_random=False))
def test_removals_one_after_another_are_those_from_scratch(model: onnx.ModelProto, random: Random) -> None:
    graph = TraceGraph.of(model)
    space, rules = analyze(graph), rules_of(graph)
    state, erased = space.removal_state(), []
    for _ in range(12 if space.candidates else 0):
        if erased and random.random() < 0.4:
            erased.pop()
            state.undo()
        elif left := [i for i in range(len(space.candidates)) if i not in erased]:
            erased.append(random.choice(left))
            state.erase(erased[-1])
        dropped = frozenset(space.candidates[i].tensor for i in erased)
        assert seen(state, graph) == FromScratch(graph, rules, dropped).seen(space)


@settings(max_examples=60)
@given(networks(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter_and_undo_restores(model: onnx.ModelProto, random: Random) -> None:
    graph = TraceGraph.of(model)
    space = analyze(graph)
    chosen = [i for i in range(len(space.candidates)) if random.random() < 0.5]
    state = space.removal_state()
    start = everything(state, graph)
    trail = []
    for index in chosen:
        trail.append(everything(state, graph))
        state.erase(index)
    end = everything(state, graph)
    for before in reversed(trail):
        state.undo()
        assert everything(state, graph) == before
    assert everything(state, graph) == start
    random.shuffle(chosen)
    for index in chosen:
        state.erase(index)
    assert everything(state, graph) == end


def moves(model: onnx.ModelProto) -> set[tuple[str, str]]:
    """The (output, input) pairs of which the one changes with the other, by trying it."""
    runner = session(model, threads=1)
    found = set()
    for seed in range(3):
        inputs = random_inputs(model, batch=1, seed=seed)
        before = run(runner, inputs)
        for name, value in inputs.items():
            noise = np.random.default_rng(seed).normal(0, 3, value.shape).astype(np.float32)
            after = run(runner, {**inputs, name: value + noise})
            found |= {(output, name) for output in after if not np.array_equal(before[output], after[output])}
    return found


def leaky(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with LeakyRelu for Relu: zero stays zero too, but no unit is dead, whatever the weights are."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        if node.op_type == "Relu":
            node.op_type = "LeakyRelu"
    return result


@settings(max_examples=25)
@given(networks().map(leaky), st.randoms(use_true_random=False))
def test_dependence_by_value_is_what_the_numbers_show(model: onnx.ModelProto, random: Random) -> None:
    """With a set of groups at zero an output moves with an input exactly if it depends on it by the definition."""
    graph = TraceGraph.of(model)
    space, rules = analyze(graph), rules_of(graph)
    chosen = [i for i in range(len(space.candidates)) if random.random() < 0.5]
    state = space.removal_state()
    for index in chosen:
        state.erase(index)
    network = FromScratch(graph, rules, frozenset(space.candidates[i].tensor for i in chosen))
    pairs = {(output, name) for output in graph.outputs for name in network.depends[output]}
    assert moves(zeroed(graph.model, [space.groups[i] for i in chosen])) == pairs
    whole = FromScratch(graph, rules, frozenset())
    connected = all(network.depends[output] == whole.depends[output] for output in graph.outputs)
    assert connected or not state.valid


def state_of(text: str, *erase: str, **options: object) -> RemovalState:
    space = analyze(onnx.parser.parse_model(HEAD + text), **options)  # type: ignore[arg-type]
    state = space.removal_state()
    names = [s.tensor for s in space.candidates]
    for tensor in erase:
        state.erase(names.index(tensor))
    return state


HEAD = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y)
<float[4, 4, 1, 1] w1 = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}, float[4, 4, 1, 1] w2 = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,8},
 float[4, 4, 1, 1] w3 = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,9}, float[4, 4, 1, 1] w4 = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,3},
 float[4] b3 = {1, 2, 3, 4}>
"""

LOCKED = """{
    b = Conv (x, w1)  p = Conv (x, w2)  q = Conv (x, w4)
    s = Add (p, q)    a = Conv (s, w3, b3)
    y = Add (a, b)
}"""
"""The design's example of greedy locking itself out: if b goes first, a must live, and with it p or q."""


def test_an_output_that_depends_on_nothing_is_not_valid() -> None:
    assert state_of(LOCKED, "b").valid
    assert state_of(LOCKED, "b", "p").valid
    assert not state_of(LOCKED, "b", "p", "q").valid
    assert not state_of(LOCKED, "a", "b").valid


def test_a_bias_that_is_left_is_folded_where_it_does_not_cost_more() -> None:
    """With p and q gone, a is a constant [1, 4, 6, 6] in place of 36 parameters: larger, so not valid here."""
    state = state_of(LOCKED, "p", "q")
    assert state.constants_read() == ["a"]
    assert state.cost().params == 16 + 4 * 6 * 6
    assert not state.valid


def test_zero_times_infinity_is_not_zero() -> None:
    """At zero, log gives minus infinity, and the product with zero is no number: nothing may be removed."""
    text = "{ a = Conv (x, w1)  l = Log (a)  u = Mul (a, l)  b = Conv (x, w2)  y = Add (u, b) }"
    space = analyze(onnx.parser.parse_model(HEAD + text))
    reasons = {s.tensor: s.reason for s in space.structures}
    assert "Log" in reasons["u"] and "not finite" in reasons["u"]
    assert reasons["b"] == ""


@pytest.mark.parametrize("operator", ["Log", "Reciprocal"])
def test_a_sum_that_becomes_zero_before_a_pole_is_not_valid(operator: str) -> None:
    text = f"""{{
        p = Conv (x, w1)  q = Conv (x, w2)  s = Add (p, q)  l = {operator} (s)  u = Mul (s, l)
        b = Conv (x, w3)  y = Add (u, b)
    }}"""
    assert state_of(text, "p").valid
    assert not state_of(text, "p", "q").valid


def test_what_is_protected_stays_even_where_two_removals_meet() -> None:
    """Since p feeds a and b, each may go, but both would take p along."""
    text = "{ p = Conv (x, w1)  a = Conv (p, w2)  b = Conv (p, w3)  c = Conv (x, w4)  y = Sum (a, b, c) }"
    assert state_of(text, "a", "b").valid
    assert state_of(text, "a", protect=["p"]).valid
    assert not state_of(text, "a", "b", protect=["p"]).valid
