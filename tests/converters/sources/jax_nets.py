"""Networks for the tests of the JAX converter: Flax nnx and linen, Equinox, a plain function."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
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


class Encoder(nnx.Module):
    """The block of a vision transformer, over patches of an image."""

    def __init__(self, width: int = 32) -> None:
        rngs = nnx.Rngs(0)
        self.patches = nnx.Conv(3, width, (4, 4), strides=4, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.expand = nnx.Linear(width, 4 * width, rngs=rngs)
        self.contract = nnx.Linear(4 * width, width, rngs=rngs)
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        x = self.patches(image).reshape(-1, 16, self.head.in_features)
        x = x + self.attention(self.norm(x))
        x = x + self.contract(nnx.gelu(self.expand(x)))
        return self.head(x.mean(1))


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


class ResNet18(nn.Module):
    """The published network, in linen as Flax's ImageNet example has it; the stem is that for small images."""

    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def conv(x: jax.Array, channels: int, size: int = 3, stride: int = 1) -> jax.Array:
            x = nn.Conv(channels, (size, size), strides=(stride, stride), use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train)(x)

        x = nn.relu(conv(x, self.width))
        for at in range(8):
            channels, stride = self.width * 2 ** (at // 2), 2 if at in (2, 4, 6) else 1
            y = conv(nn.relu(conv(x, channels, stride=stride)), channels)
            x = nn.relu(y + (conv(x, channels, size=1, stride=stride) if stride == 2 else x))
        return nn.Dense(10)(x.mean((1, 2)))


def _varied(tree: Any) -> Any:
    """Statistics and scales as after a training."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(random.uniform(0.5, 1.5, a.shape), a.dtype) if a.ndim == 1 else a, tree)


def mnist() -> tuple[nn.Module, Any]:
    """The linen module with its variables."""
    module = MnistCNN()
    return module, module.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))


def resnet18(width: int = 64) -> tuple[nn.Module, Any]:
    """The linen module with its variables."""
    module = ResNet18(width)
    return module, _varied(module.init(jax.random.key(0), jnp.ones((1, 32, 32, 3))))


def perceptron() -> Any:
    """An Equinox network, which knows single examples only, over a batch."""
    return jax.vmap(eqx.nn.MLP(12, 5, 24, 2, key=jax.random.key(0)))


_FIRST = jax.random.normal(jax.random.key(1), (6, 16))
_SECOND = jax.random.normal(jax.random.key(2), (16, 2))


def plain(x: jax.Array) -> jax.Array:
    """A function of an array, and of weights that lie beside it."""
    return jax.nn.relu(x @ _FIRST) @ _SECOND
