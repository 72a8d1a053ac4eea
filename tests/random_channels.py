"""Random networks in which channels travel: shuffles, heads, gates, splits, groups, shared weights, shape arithmetic.

A network grows block by block on one trunk, images [N, C, H, W] or tokens [N, T, D]; every block comes in several
spellings. Weights are distinct random numbers scaled by what they sum over. A decision of 0 is the plainest choice, so
that Hypothesis shrinks towards few and plain operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.random_tokens import TokenBlocks
from tests.random_trunk import BATCH, SIDE, Tensor


def seeded_channel_network(seed: int, steps: int | None = None) -> onnx.ModelProto:
    """The network that a plain seed gives."""
    random = np.random.default_rng(seed)
    return ChannelNetwork(lambda n: int(random.integers(n)), seed).build(steps)


@st.composite
def channel_networks(draw: st.DrawFn, steps: int | None = None) -> onnx.ModelProto:
    """Random networks that shrink towards few and plain operators."""
    seed = draw(st.integers(0, 2**16))
    return ChannelNetwork(lambda n: draw(st.integers(0, n - 1)), seed).build(steps)


def feeds_of(model: onnx.ModelProto, seed: int = 0, batch: int = BATCH) -> dict[str, Any]:
    """Random inputs for such a network: open sizes are SIDE, the first one the batch."""
    random = np.random.default_rng(seed)
    found = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = [d.dim_value or (SIDE if at else batch) for at, d in enumerate(dims)]
        found[value.name] = random.standard_normal(shape).astype(np.float32)
    return found


class ChannelNetwork(TokenBlocks):
    """A trunk of image blocks, perhaps turned into tokens, and a head."""

    def build(self, steps: int | None = None) -> onnx.ModelProto:
        """One network: an input, blocks, an output."""
        open_batch = self.decide(3) < 2
        channels = 2 + self.decide(3)
        dims: list[int | str] = ["N" if open_batch else BATCH, channels]
        dims += ["H", "W"] if self.open_sides else [SIDE, SIDE]
        x = self.conv(Tensor("x", (BATCH, channels, SIDE, SIDE)), (4, 6, 8)[self.decide(3)])
        blocks = (
            self.residual,
            self.dense,
            self.bottleneck,
            self.shuffle,
            self.grouped,
            self.transposed,
            self.gated,
            self.group_norm,
            self.instance_norm,
            self.pixel_shuffle,
            self.padded,
            self.halves,
            self.shared,
            self.concat_elsewhere,
            self.layer_norm_of_images,
            self.global_response,
        )
        for _ in range(1 + self.decide(4) if steps is None else steps):
            x = blocks[self.decide(len(blocks))](x)
        if not self.open_sides and self.decide(2):
            x = self._tokens(x, steps)
        return self._model(dims, self.head(x))

    def _tokens(self, x: Tensor, steps: int | None) -> Tensor:
        batch, channels, height, width = x.shape
        y = self.transpose(self.reshape(x, [batch, channels, height * width], (0, 1)), 0, 2, 1)
        y = self.linear(y, (4, 6, 8)[self.decide(3)])
        blocks = (
            self.perceptron,
            self.attention,
            self.grouped_query_attention,
            self.attention_in_three_dimensions,
            self.linear_attention,
            self.token_mixer,
            self.tied_perceptron,
            self.norm_tokens,
        )
        for _ in range(1 + self.decide(3) if steps is None else steps):
            y = blocks[self.decide(len(blocks))](y)
        if self.decide(2):
            y = self.transpose(y, 0, 2, 1)
            return self.reshape(y, [batch, y.shape[1], height, width], (0, 1))
        return y

    # -- blocks ------------------------------------------------------------------------------------------------------

    def residual(self, x: Tensor) -> Tensor:
        y = self.conv(self.maybe(self.norm(self.conv(x, x.channels))), x.channels)
        return self.maybe(self.node("Add", [x, y] if self.decide(2) else [y, x], x.shape))

    def dense(self, x: Tensor) -> Tensor:
        """[x, f(x)] along channels, read by a convolution, perhaps behind a normalisation."""
        parts = [x, self.conv(self.maybe(x), 2 + self.decide(3))]
        if self.decide(2):
            parts.append(self.conv(x, 2))
        joined = self.concat(parts[:: -1 if self.decide(2) else 1], 1)
        return self.conv(self.maybe(self.norm(joined)), x.channels)

    def bottleneck(self, x: Tensor) -> Tensor:
        """Inverted residual: expand, depthwise (with a multiplier, or not), project."""
        y = self.maybe(self.norm(self.conv(x, 2 * x.channels)))
        y = self.maybe(self.conv(y, y.channels * (1 + self.decide(2)), groups=y.channels, kernel=3))
        return self._added(x, self.conv(y, x.channels))

    def shuffle(self, x: Tensor) -> Tensor:
        """Channel shuffle between two convolutions, plain or grouped."""
        groups = 2
        y = self.conv(x, 8, groups=2 if self.decide(2) and x.channels % 2 == 0 else 1)
        batch, channels, height, width = y.shape
        y = self.reshape(y, [batch, groups, channels // groups, height, width], moved={3: 2, 4: 3})
        y = self.reshape(self.transpose(y, 0, 2, 1, 3, 4), [batch, channels, height, width], moved={2: 3, 3: 4})
        y = self.conv(y, 8, groups=8, kernel=3) if self.decide(2) else y
        return self.conv(y, x.channels)

    def grouped(self, x: Tensor) -> Tensor:
        y = self.maybe(self.norm(self.conv(x, 8)))
        y = self.maybe(self.conv(y, 8, groups=(2, 4)[self.decide(2)], kernel=3))
        return self._added(x, self.conv(y, x.channels))

    def transposed(self, x: Tensor) -> Tensor:
        """Up by a transposed convolution, down by a pooling or a strided convolution."""
        batch, channels, height, width = x.shape
        groups = 2 if self.decide(2) and channels % 2 == 0 else 1
        weight = self.weight((channels, 6 // groups, 2, 2), channels)
        inputs: list[Tensor | str] = [x, weight, *([self.weight((6,))] if self.decide(2) else [])]
        y = self.node("ConvTranspose", inputs, [batch, 6, 2 * height, 2 * width], strides=[2, 2], group=groups)
        y = self.maybe(y)
        kind = ("MaxPool", "AveragePool")[self.decide(2)]
        y = self.node(kind, [y], [batch, 6, height, width], kernel_shape=[2, 2], strides=[2, 2])
        return self.conv(y, channels)

    def gated(self, x: Tensor) -> Tensor:
        """Squeeze and excitation on a wide tensor."""
        y = self.maybe(self.conv(x, 8))
        if self.decide(2):
            pooled = self.node("GlobalAveragePool", [y], [*y.shape[:2], 1, 1])
        else:
            pooled = self.mean(y, [2, 3], True)
        gate = self.conv(self.activation(self.conv(pooled, 4)), 8)
        gate = self.same(("Sigmoid", "HardSigmoid")[self.decide(2)], gate)
        return self._added(x, self.conv(self.same("Mul", y, gate), x.channels))

    def group_norm(self, x: Tensor) -> Tensor:
        """Group normalisation by a reshape and InstanceNormalization, or whole where the operator set has it."""
        groups, y = 2, self.conv(x, 8)
        batch, channels, height, width = y.shape
        if self.opset >= 21 and self.decide(2):
            y = self.same("GroupNormalization", y, self.weight((8,)), self.weight((8,)), num_groups=groups)
        else:
            rows = self.reshape(y, [batch, groups, channels // groups * height * width])
            ones, zeros = (self.constant(np.full(groups, v, np.float32)) for v in (1, 0))
            rows = self.same("InstanceNormalization", rows, ones, zeros)
            shape = self.node("Shape", [y], [4]) if self.open_sides or self.decide(2) else None
            y = self.node("Reshape", [rows, shape], y.shape) if shape else self.reshape(rows, y.shape)
            y = self.same("Mul", y, self.weight((8, 1, 1)))
            y = self.same("Add", y, self.weight((8, 1, 1)))
        return self.conv(self.maybe(y), x.channels)

    def instance_norm(self, x: Tensor) -> Tensor:
        y = self.conv(x, 6)
        y = self.same("InstanceNormalization", y, self.weight((6,)), self.weight((6,)))
        return self._added(x, self.conv(self.maybe(y), x.channels))

    def pixel_shuffle(self, x: Tensor) -> Tensor:
        """Channels into pixels, by DepthToSpace or by reshapes, and back by SpaceToDepth or a pooling."""
        batch, _, height, width = x.shape
        y = self.conv(x, 12)
        wide = [batch, 3, 2 * height, 2 * width]
        if not self.open_sides and self.decide(2):
            y = self.reshape(y, [batch, 3, 2, 2, height, width], moved={4: 2, 5: 3})
            y = self.reshape(self.transpose(y, 0, 1, 4, 2, 5, 3), wide)
        else:
            y = self.node("DepthToSpace", [y], wide, blocksize=2, mode=("CRD", "DCR")[self.decide(2)])
        y = self.maybe(y)
        if self.decide(2):
            y = self.node("SpaceToDepth", [y], [batch, 12, height, width], blocksize=2)
        else:
            y = self.node("AveragePool", [y], [batch, 3, height, width], kernel_shape=[2, 2], strides=[2, 2])
        return self.conv(y, x.channels)

    def padded(self, x: Tensor) -> Tensor:
        """A Pad around pixels, or of channels, before a convolution without padding."""
        batch, channels, height, width = x.shape
        y = self.conv(x, 6)
        if self.decide(3) == 2:
            pads = np.array([0, 1, 0, 0, 0, 2, 0, 0], np.int64)
            y = self.node("Pad", [y, self.constant(pads)], [batch, 9, height, width])
            return self.conv(y, channels)
        mode = ("constant", "reflect", "edge")[self.decide(3)]
        pads = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
        y = self.node("Pad", [y, self.constant(pads)], [batch, 6, height + 2, width + 2], mode=mode)
        weight = self.weight((channels, 6, 3, 3), 54)
        return self._added(x, self.node("Conv", [y, weight], x.shape))

    def halves(self, x: Tensor) -> Tensor:
        """Split along channels: one half goes on, the other is worked on; or a gated linear unit."""
        y = self.conv(x, 8)
        one, two = self.pieces(y, 1, 2)
        if self.decide(2):
            y = self.same("Mul", one, self.same("Sigmoid", two))
        else:
            y = self.concat([one, self.maybe(self.conv(two, 4, groups=(1, 4)[self.decide(2)], kernel=3))], 1)
        return self._added(x, self.conv(y, x.channels))

    def shared(self, x: Tensor) -> Tensor:
        """One kernel used twice, by convolutions in a row or side by side."""
        y = self.maybe(self.conv(x, 6))
        kernel = self.weight((6, 6, 1, 1), 6)
        first = self.node("Conv", [y, kernel], y.shape)
        second = self.node("Conv", [self.maybe(first) if self.decide(2) else y, kernel], y.shape)
        return self.conv(self.node("Add", [first, second], y.shape), x.channels)

    def concat_elsewhere(self, x: Tensor) -> Tensor:
        """Two tensors one above the other, halved again by a pooling."""
        batch, channels, height, width = x.shape
        joined = self.concat([self.conv(x, 6), self.maybe(self.conv(x, 6))], 2)
        sizes: dict[str, Any] = {"kernel_shape": [2, 1], "strides": [2, 1]}
        return self.conv(self.node("MaxPool", [joined], [batch, 6, height, width], **sizes), channels)

    def layer_norm_of_images(self, x: Tensor) -> Tensor:
        """ConvNeXt's block: depthwise, channels last, LayerNorm, perceptron, layer scale, and back."""
        y = self.conv(x, x.channels, groups=x.channels, kernel=3)
        y = self._normed(self.transpose(y, 0, 2, 3, 1))
        y = self.linear(self.activation(self.linear(y, 8)), x.channels)
        y = self.same("Mul", y, self.weight((x.channels,))) if self.decide(2) else y
        return self._added(x, self.transpose(y, 0, 3, 1, 2))

    def global_response(self, x: Tensor) -> Tensor:
        """A multiplication with the channel's own mean, and a PRelu with a slope for each channel."""
        y = self.conv(x, 6)
        y = self.same("PRelu", y, self.weight((6, 1, 1)))
        y = self.same("Mul", y, self.mean(y, [2, 3], True))
        return self._added(x, self.conv(y, x.channels))

    # -- parts -------------------------------------------------------------------------------------------------------

    def _added(self, x: Tensor, y: Tensor) -> Tensor:
        return self.node("Add", [x, y], x.shape) if self.decide(2) else y

    def concat(self, parts: list[Tensor], axis: int) -> Tensor:
        shape = [sum(p.shape[axis] for p in parts) if a == axis else n for a, n in enumerate(parts[0].shape)]
        return self.node("Concat", parts, shape, axis=axis)

    def conv(self, x: Tensor, channels: int, *, groups: int = 1, kernel: int = 1) -> Tensor:
        batch, inside, height, width = x.shape
        kernel = 3 if kernel == 3 or (height > 1 and self.decide(3) == 2) else 1
        weight = self.weight((channels, inside // groups, kernel, kernel), inside // groups * kernel**2)
        inputs: list[Tensor | str] = [x, weight, *([self.weight((channels,))] if self.decide(2) else [])]
        shape = [batch, channels, height, width]
        return self.node("Conv", inputs, shape, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, group=groups)

    def norm(self, x: Tensor) -> Tensor:
        if not self.decide(2):
            return x
        parts = [self.numbers.normal(1, 0.3, x.channels), self.numbers.normal(0, 0.5, x.channels)]
        parts += [self.numbers.normal(0, 0.5, x.channels), self.numbers.uniform(0.5, 2, x.channels)]
        return self.same("BatchNormalization", x, *(self.initializer(p.astype(np.float32)) for p in parts))

    def head(self, x: Tensor) -> Tensor:
        """An output: a classifier on pooled or flattened features, or features themselves."""
        kind = self.decide(4)
        if len(x.shape) == 3:
            return self.linear(self.mean(x, [1], False) if kind < 2 else x, 3)
        batch, channels, height, width = x.shape
        if kind == 1 and not self.open_sides:
            flat = [batch, channels * height * width]
            return self.linear(self.node("Flatten", [x], flat, axis=1) if self.decide(2) else self.reshape(x, flat), 3)
        if kind == 2:
            return self.conv(x, 2)
        pooled = self.node("GlobalAveragePool", [x], [batch, channels, 1, 1])
        return self.linear(self.node("Flatten", [pooled], [batch, channels], axis=1), 3)

    def _model(self, dims: list[int | str], output: Tensor) -> onnx.ModelProto:
        given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)]
        fixed = isinstance(dims[0], int) and isinstance(dims[-1], int)
        sizes: list[Any] = list(output.shape) if fixed else [None] * len(output.shape)
        result = [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, sizes)]
        graph = helper.make_graph(self.nodes, "random", given, result, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model
