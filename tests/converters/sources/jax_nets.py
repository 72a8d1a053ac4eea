"""Networks for the tests of the JAX converter: Flax nnx and linen, Equinox, a plain function."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


class Residual(nnx.Module):
    """Two convolutions around a residual, with batch normalisation."""

    def __init__(self, width: int = 8) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(3, width, (3, 3), use_bias=False, rngs=rngs)
        self.stem_bn = nnx.BatchNorm(width, rngs=rngs)
        self.conv = nnx.Conv(width, width, (3, 3), use_bias=False, rngs=rngs)
        self.conv_bn = nnx.BatchNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem_bn(self.stem(image)))
        x = nnx.relu(x + self.conv_bn(self.conv(x)))
        return self.head(x.mean((1, 2)))


class MnistCNN(nn.Module):
    """The network of Flax's own MNIST example."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(features=32, kernel_size=(3, 3))(x))
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(features=64, kernel_size=(3, 3))(x))
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        return nn.Dense(features=10)(nn.relu(nn.Dense(features=256)(x)))


def mnist() -> tuple[nn.Module, Any]:
    """The linen module with its variables."""
    module = MnistCNN()
    return module, module.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))


def perceptron() -> Any:
    """An Equinox network, which knows single examples only, over a batch."""
    return jax.vmap(eqx.nn.MLP(12, 5, 24, 2, key=jax.random.key(0)))


_FIRST = jax.random.normal(jax.random.key(1), (6, 16))
_SECOND = jax.random.normal(jax.random.key(2), (16, 2))


def plain(x: jax.Array) -> jax.Array:
    """A function of an array, and of weights that lie beside it."""
    return jax.nn.relu(x @ _FIRST) @ _SECOND
