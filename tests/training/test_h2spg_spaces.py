"""H2SPG on the search spaces of random networks, judged by what the trained weights compute."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from onnx_asgnas.config import Method, Target
from onnx_asgnas.space import SearchSpace, analyze
from onnx_asgnas.training.h2spg import H2SPG, Phase

CHANNELS = 3
NETWORKS = 1000


@dataclass(frozen=True)
class Network:
    """A random network: each step names its operator and the values that it reads; value 0 is the input.

    Values that nobody reads are added up to the output.
    """

    steps: tuple[tuple[str, tuple[int, ...]], ...]
    seed: int

    @property
    def sinks(self) -> list[int]:
        read = {value for _, operands in self.steps for value in operands}
        return [value for value in range(1, len(self.steps) + 1) if value not in read]

    def weights(self) -> dict[str, NDArray[np.float32]]:
        generator = np.random.default_rng(self.seed)
        weights = {}
        for number, (operator, operands) in enumerate(self.steps, start=1):
            if operator == "conv":
                inputs = CHANNELS * (2 if self._is_concat(operands[0]) else 1)
                weights[f"w{number}"] = generator.normal(size=(CHANNELS, inputs, 1, 1)).astype(np.float32)
                weights[f"b{number}"] = generator.normal(size=CHANNELS).astype(np.float32)
        return weights

    def _is_concat(self, value: int) -> bool:
        return value > 0 and self.steps[value - 1][0] == "concat"

    def to_onnx(self) -> onnx.ModelProto:
        nodes = []
        for number, (operator, operands) in enumerate(self.steps, start=1):
            inputs, output = [f"v{value}" for value in operands], [f"v{number}"]
            if operator == "conv":
                nodes.append(helper.make_node("Conv", [*inputs, f"w{number}", f"b{number}"], output, f"conv{number}"))
            elif operator == "concat":
                nodes.append(helper.make_node("Concat", inputs, output, f"concat{number}", axis=1))
            else:
                nodes.append(helper.make_node(operator.title(), inputs, output, f"{operator}{number}"))
        nodes.append(helper.make_node("Sum", [f"v{value}" for value in self.sinks], ["out"], "out"))
        shape = ["N", CHANNELS, 2, 2]
        graph = helper.make_graph(
            nodes,
            "random",
            [helper.make_tensor_value_info("v0", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, name) for name, value in self.weights().items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def depends_on_input(self, weights: dict[str, NDArray[np.float32]]) -> bool:
        """Whether two inputs give two outputs, at one pixel and with each Relu as the identity."""
        outputs = []
        for x in np.random.default_rng(0).normal(size=(2, CHANNELS)):
            values = [x]
            for number, (operator, operands) in enumerate(self.steps, start=1):
                read = [values[value] for value in operands]
                if operator == "conv":
                    values.append(weights[f"w{number}"][:, :, 0, 0] @ read[0] + weights[f"b{number}"])
                elif operator == "concat":
                    values.append(np.concatenate(read))
                else:
                    values.append(read[0] if operator == "relu" else read[0] + read[1])
            outputs.append(sum(values[value] for value in self.sinks))
        return not np.array_equal(*outputs)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    steps: list[tuple[str, tuple[int, ...]]] = [("conv", (0,))]
    plain = [1]  # values that have CHANNELS channels
    for _ in range(draw(st.integers(3, 12))):
        operator = draw(st.sampled_from(["conv", "conv", "conv", "relu", "add", "add", "concat"]))
        one, two = draw(st.sampled_from(plain[-3:])), draw(st.sampled_from(plain[-3:]))
        if operator in ("conv", "relu"):
            steps.append((operator, (one,)))
        elif one != two:
            steps.append((operator, (one, two)))
            if operator == "concat":
                steps.append(("conv", (len(steps),)))
        else:
            continue
        plain.append(len(steps))
    return Network(tuple(steps), draw(st.integers(0, 2**16)))


class Weights(nn.Module):
    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(value)))


def search(network: Network, space: SearchSpace, wanted: int, method: Method) -> tuple[H2SPG, bool]:
    """Run the optimiser on random gradients; gives it, and whether what the weights then compute is a valid network."""
    model = Weights(network.weights())
    optimizer = H2SPG(
        model,
        space,
        target=Target(remove_groups=wanted),
        total_steps=2,
        lr=1e-3,
        momentum=0.9,
        score="random",
        method=method,
        select_at=0.0,
        zero_at=0.5,
        seed=network.seed,
    )
    generator = torch.Generator().manual_seed(network.seed)
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return optimizer, network.depends_on_input({name: p.detach().numpy() for name, p in model.named_parameters()})


def test_no_network_is_ever_invalid_at_any_target_and_without_the_check_some_are() -> None:
    """In 1,000 random search spaces, for every K from 1 to the largest that is certified."""
    count: Counter[str] = Counter()

    @settings(max_examples=NETWORKS, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
    @given(networks())
    def search_all(network: Network) -> None:
        space = analyze(network.to_onnx())
        assume(space.max_removable.structures >= 1)
        count["spaces"] += 1
        for wanted in range(1, space.max_removable.structures + 1):
            optimizer, valid = search(network, space, wanted, "h2spg")
            assert optimizer.selection is not None
            assert optimizer.phase is Phase.CONVERGE
            assert optimizer.groups_at_zero == len(optimizer.selection.chosen)
            assert optimizer.selection.removed >= wanted
            assert optimizer.selection.valid
            assert valid
            count["searches"] += 1
            count["overshot"] += optimizer.selection.removed > wanted
        unchecked, valid = search(network, space, space.max_removable.structures, "dhspg")
        assert unchecked.selection is not None
        assert unchecked.selection.valid == valid
        count["invalid without the check"] += not valid

    search_all()
    assert count["invalid without the check"] > 0
