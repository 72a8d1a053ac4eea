"""TensorFlow functions for the tests of converters."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


class LeNet(tf.Module):
    """LeNet-5 of plain operators and variables."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(0)

        def variable(name: str, *shape: int) -> tf.Variable:
            spread = np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.1
            return tf.Variable(random.normal(size=shape) * spread, name=name, dtype=tf.float32)

        self.convs = [(variable(f"conv{i}/kernel", 5, 5, *io), variable(f"conv{i}/bias", io[1])) for i, io in _CONVS]
        self.denses = [(variable(f"dense{i}/kernel", *io), variable(f"dense{i}/bias", io[1])) for i, io in _DENSES]

    @tf.function
    def __call__(self, image: tf.Tensor) -> tf.Tensor:
        x = image
        for kernel, bias in self.convs:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME") + bias)
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = tf.reshape(x, (-1, 7 * 7 * 16))
        for at, (kernel, bias) in enumerate(self.denses):
            x = x @ kernel + bias
            x = tf.nn.relu(x) if at < len(self.denses) - 1 else x
        return x


_CONVS = list(enumerate([(1, 6), (6, 16)]))
_DENSES = list(enumerate([(784, 120), (120, 84), (84, 10)]))


def _weight(seed: int, *shape: int) -> tf.Variable:
    return tf.Variable(np.random.default_rng(seed).normal(size=shape) * shape[0] ** -0.5, dtype=tf.float32)


def mixer() -> tf.types.experimental.GenericFunction:
    """Mixing along places, then along channels, with the normalisation that TensorFlow calls one of moments."""
    places, back, channels, head = _weight(0, 9, 20), _weight(1, 20, 9), _weight(2, 8, 8), _weight(3, 8, 5)

    @tf.function
    def network(x: tf.Tensor) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
        y = tf.linalg.matrix_transpose((x - mean) * tf.math.rsqrt(variance + 1e-5))
        x = x + tf.linalg.matrix_transpose(tf.nn.gelu(y @ places, approximate=True) @ back)
        return tf.reduce_mean(x + tf.tanh(x @ channels), axis=1) @ head

    return network


def two_inputs() -> tf.types.experimental.GenericFunction:
    """Features, and ids into a table."""
    table, first, second = _weight(0, 11, 8), _weight(1, 12, 24), _weight(2, 32, 4)

    @tf.function
    def network(features: tf.Tensor, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = tf.concat([tf.nn.relu(features @ first), tf.reduce_sum(tf.gather(table, ids), axis=1)], axis=1)
        return {"scores": tf.nn.softmax(hidden @ second), "hidden": tf.reduce_sum(hidden, axis=1)}

    return network
