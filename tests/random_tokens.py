"""Blocks on tokens [N, T, D]: perceptrons, normalisations, and attention in the spellings that exporters write."""

from __future__ import annotations

import numpy as np

from tests.random_trunk import Tensor, Trunk


class TokenBlocks(Trunk):
    """Each takes tokens and gives tokens of the same shape."""

    def perceptron(self, x: Tensor) -> Tensor:
        """One hidden layer, plain or gated (SwiGLU: two layers, or one that is split), in a residual branch."""
        hidden, kind, y = 4 + 2 * self.decide(3), self.decide(3), self.maybe_normed(x)
        if kind == 0:
            inner = self.activation(self.linear(y, hidden))
        else:
            if kind == 1:
                gate, value = self.linear(y, hidden), self.linear(y, hidden)
            else:
                gate, value = self.pieces(self.linear(y, 2 * hidden), -1, 2)
            inner = self.same("Mul", self.activation(gate), value)
        return self.residual_tokens(x, self.linear(inner, x.channels))

    def tied_perceptron(self, x: Tensor) -> Tensor:
        """Down and up by one weight and its transpose."""
        weight = self.initializer(self.normal((x.channels, 6), x.channels))
        hidden = self.node("MatMul", [x, weight], [*x.shape[:-1], 6])
        back = self.node("Transpose", [weight], (6, x.channels), perm=[1, 0])
        up = self.node("MatMul", [self.activation(hidden), back], x.shape)
        return self.residual_tokens(x, up)

    def attention(self, x: Tensor) -> Tensor:
        """Multi-head attention over four-dimensional heads, from separate or packed projections."""
        heads, depth, y = (2, 3, 4)[self.decide(3)], 2 + 2 * self.decide(2), self.maybe_normed(x)
        if self.decide(2):
            query, key, value = self._packed(y, heads, depth)
        else:
            query, key, value = (self._heads(self.linear(y, heads * depth), heads, depth) for _ in range(3))
        mixed = self._attend(query, key, value, depth)
        batch, tokens = x.shape[:2]
        merged = self.reshape(self.transpose(mixed, 0, 2, 1, 3), [batch, tokens, heads * depth], (0, 1))
        return self.residual_tokens(x, self.linear(merged, x.channels))

    def grouped_query_attention(self, x: Tensor) -> Tensor:
        """Two heads of keys and values, each read by several heads of queries after Unsqueeze, Expand and Reshape."""
        shared, times, depth, y = 2, 2 + self.decide(2), 2 + 2 * self.decide(2), self.maybe_normed(x)
        heads = shared * times
        query = self._heads(self.linear(y, heads * depth), heads, depth)
        key, value = (self._repeated(self._heads(self.linear(y, shared * depth), shared, depth), times) for _ in "kv")
        mixed = self._attend(query, key, value, depth)
        batch, tokens = x.shape[:2]
        merged = self.reshape(self.transpose(mixed, 0, 2, 1, 3), [batch, tokens, heads * depth], (0, 1))
        return self.residual_tokens(x, self.linear(merged, x.channels))

    def attention_in_three_dimensions(self, x: Tensor) -> Tensor:
        """Batch and heads in one axis, as torch's own multi-head attention is exported."""
        heads, depth = 2 + self.decide(2), 2
        batch, tokens, _ = x.shape
        parts = [self.linear(x, heads * depth) for _ in range(3)]
        rows = [self.transpose(part, 1, 0, 2) for part in parts]
        flat = [self.node("Reshape", [r, self.constant(np.array([tokens, -1, depth], np.int64))],
                          [tokens, batch * heads, depth]) for r in rows]  # fmt: skip
        query, key, value = (self.transpose(f, 1, 0, 2) for f in flat)
        scores = self.node("MatMul", [query, self.transpose(key, 0, 2, 1)], [batch * heads, tokens, tokens])
        scores = self.same("Softmax", self.same("Mul", scores, self.constant(np.float32(depth**-0.5))), axis=-1)
        mixed = self.node("MatMul", [scores, value], [batch * heads, tokens, depth])
        back = self.transpose(mixed, 1, 0, 2)
        target = self.constant(np.array([tokens, -1, heads * depth], np.int64))
        merged = self.transpose(self.node("Reshape", [back, target], [tokens, batch, heads * depth]), 1, 0, 2)
        return self.residual_tokens(x, self.linear(merged, x.channels))

    def linear_attention(self, x: Tensor) -> Tensor:
        """Keys and values are contracted over the tokens first."""
        heads, depth = 2, 3
        query, key, value = (self._heads(self.linear(x, heads * depth), heads, depth) for _ in range(3))
        batch, tokens = x.shape[:2]
        context = self.node(
            "MatMul",
            [self.transpose(self.same("Softmax", key, axis=2), 0, 1, 3, 2), value],
            [batch, heads, depth, depth],
        )
        mixed = self.node("MatMul", [self.same("Relu", query), context], [batch, heads, tokens, depth])
        merged = self.reshape(self.transpose(mixed, 0, 2, 1, 3), [batch, tokens, heads * depth], (0, 1))
        return self.residual_tokens(x, self.linear(merged, x.channels))

    def token_mixer(self, x: Tensor) -> Tensor:
        """A perceptron over the tokens, between two transpositions."""
        turned = self.transpose(x, 0, 2, 1)
        hidden = self.activation(self.linear(turned, 5))
        return self.residual_tokens(x, self.transpose(self.linear(hidden, x.shape[1]), 0, 2, 1))

    def norm_tokens(self, x: Tensor) -> Tensor:
        return self._normed(x)

    # -- parts -------------------------------------------------------------------------------------------------------

    def residual_tokens(self, x: Tensor, y: Tensor) -> Tensor:
        if self.decide(4) == 3:
            return y
        return self.node("Add", [x, y] if self.decide(2) else [y, x], x.shape)

    def maybe_normed(self, x: Tensor) -> Tensor:
        return self._normed(x) if self.decide(2) else x

    def _normed(self, x: Tensor) -> Tensor:
        """LayerNormalization whole or taken apart, or RMS normalisation taken apart."""
        kind, width = self.decide(3), x.shape[-1:]
        if kind == 0 and self.opset >= 17:
            return self.same("LayerNormalization", x, self.weight(width), self.weight(width), axis=-1)
        if kind < 2:
            x = self.node("Sub", [x, self.mean(x, [-1], True)], x.shape)
        square = self.same("Pow", x, self.constant(np.float32(2))) if self.decide(2) else self.same("Mul", x, x)
        scale = self.same("Sqrt", self.same("Add", self.mean(square, [-1], True), self.constant(np.float32(1e-5))))
        y = self.node("Div", [x, scale], x.shape)
        if kind == 2 and self.decide(2):
            y = self.node("Mul", [x, self.same("Reciprocal", scale)], x.shape)
        y = self.same("Mul", y, self.weight(width))
        return y if kind == 2 else self.same("Add", y, self.weight(width))

    def _heads(self, x: Tensor, heads: int, depth: int) -> Tensor:
        batch, tokens, _ = x.shape
        y = self.transpose(self.reshape(x, [batch, tokens, heads, depth], (0, 1)), 0, 2, 1, 3)
        if depth % 2 == 0 and self.decide(4) == 3:
            y = self._rotated(y)
        return self.same("Mul", y, self.constant(np.float32(0.7))) if self.decide(6) == 5 else y

    def _rotated(self, x: Tensor) -> Tensor:
        """Rotary positions: x cos + [-second half, first half] sin, by tables [1, 1, T, D]."""
        first, second = self.pieces(x, -1, 2)
        turned = self.node("Concat", [self.same("Neg", second), first], x.shape, axis=3)
        angles = self.numbers.uniform(0, 3, (1, 1, x.shape[2], x.shape[3])).astype(np.float32)
        pair = [
            self.same("Mul", x, self.constant(np.cos(angles))),
            self.same("Mul", turned, self.constant(np.sin(angles))),
        ]
        return self.node("Add", pair, x.shape)

    def _packed(self, x: Tensor, heads: int, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """One projection to queries, keys and values: [3, heads, depth] gathered or split, or [heads, 3, depth]."""
        batch, tokens, _ = x.shape
        packed = self.linear(x, 3 * heads * depth)
        kind = self.decide(3)
        if kind == 0:
            query, key, value = (self._heads(part, heads, depth) for part in self.pieces(packed, -1, 3))
            return query, key, value
        if kind == 1:
            y = self.reshape(packed, [batch, tokens, 3, heads, depth], (0, 1))
            y = self.transpose(y, 2, 0, 3, 1, 4)
            shape = [batch, heads, tokens, depth]
            query, key, value = (self.node("Gather", [y, self.constant(np.int64(i))], shape, axis=0) for i in range(3))
            return query, key, value
        y = self.transpose(self.reshape(packed, [batch, tokens, heads, 3 * depth], (0, 1)), 0, 2, 1, 3)
        query, key, value = self.pieces(y, -1, 3)
        return query, key, value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, depth: int) -> Tensor:
        batch, heads, tokens, _ = query.shape
        scores = self.node("MatMul", [query, self.transpose(key, 0, 1, 3, 2)], [batch, heads, tokens, tokens])
        scores = self.same("Div", scores, self.constant(np.float32(depth**0.5)))
        kind = self.decide(4)
        if kind == 1:
            mask = np.triu(np.full((tokens, tokens), -1e4, np.float32), 1)
            scores = self.same("Add", scores, self.constant(mask))
        elif kind == 2:
            scores = self.same("Add", scores, self.weight((1, heads, tokens, tokens)))
        elif kind == 3:
            allowed = self.constant(np.tril(np.ones((1, 1, tokens, tokens), bool)))
            scores = self.node("Where", [allowed, scores, self.constant(np.float32(-1e4))], scores.shape)
        return self.node("MatMul", [self.same("Softmax", scores, axis=-1), value], [batch, heads, tokens, depth])

    def _repeated(self, x: Tensor, times: int) -> Tensor:
        batch, heads, tokens, depth = x.shape
        wide = self.node("Unsqueeze", [x, self.constant(np.array([2], np.int64))], [batch, heads, 1, tokens, depth])
        target = self.constant(np.array([1, 1, times, 1, 1], np.int64))
        wide = self.node("Expand", [wide, target], [batch, heads, times, tokens, depth])
        return self.reshape(wide, [batch, heads * times, tokens, depth])
