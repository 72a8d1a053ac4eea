"""ResNet-20 and StackedUnets as a Flax user writes them: nnx modules over [N, H, W, C]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.frameworks import weights as stored


def conv3x3(inside: int, outside: int, stride: int = 1, *, bias: bool = False, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution over 3x3 pixels with a border of one on each side."""
    return nnx.Conv(inside, outside, (3, 3), stride, padding=1, use_bias=bias, rngs=rngs)


def batch_norm(width: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch normalisation with the constants of the other frameworks."""
    return nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)


class Downsample(nnx.Sequential):
    """What brings a residual to another width and half the size."""

    def __init__(self, inside: int, outside: int, stride: int, *, rngs: nnx.Rngs) -> None:
        conv = nnx.Conv(inside, outside, (1, 1), stride, padding=0, use_bias=False, rngs=rngs)
        super().__init__(conv, batch_norm(outside, rngs))


class BasicBlock(nnx.Module):
    """Two convolutions around a residual, which a third one brings to another width."""

    def __init__(self, inside: int, outside: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = conv3x3(inside, outside, stride, rngs=rngs)
        self.bn1 = batch_norm(outside, rngs)
        self.conv2 = conv3x3(outside, outside, rngs=rngs)
        self.bn2 = batch_norm(outside, rngs)
        self.downsample = Downsample(inside, outside, stride, rngs=rngs) if inside != outside else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nnx.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet20(nnx.Module):
    """ResNet-20 for small images (He et al. 2016): three stages of three blocks, each stage twice as wide."""

    def __init__(self, width: int = 16, *, rngs: nnx.Rngs) -> None:
        self.conv1 = conv3x3(1, width, rngs=rngs)
        self.bn1 = batch_norm(width, rngs)
        self.layer1 = self._stage(width, width, 1, rngs)
        self.layer2 = self._stage(width, 2 * width, 2, rngs)
        self.layer3 = self._stage(2 * width, 4 * width, 2, rngs)
        self.fc = nnx.Linear(4 * width, 10, rngs=rngs)

    @staticmethod
    def _stage(inside: int, outside: int, stride: int, rngs: nnx.Rngs) -> nnx.List[BasicBlock]:
        first = BasicBlock(inside, outside, stride, rngs=rngs)
        return nnx.List([first, *(BasicBlock(outside, outside, 1, rngs=rngs) for _ in range(stored.BLOCKS - 1))])

    def __call__(self, image: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn1(self.conv1(image)))
        for block in (*self.layer1, *self.layer2, *self.layer3):
            x = block(x)
        return self.fc(x.mean(axis=(1, 2)))


class StackedUnets(nnx.Module):
    """Two U-nets side by side, one that pools and one with strided convolutions; numbered as in the paper's figure."""

    def __init__(self, width: int = 8, *, rngs: nnx.Rngs) -> None:
        def conv(stride: int = 1, *, bias: bool = True, inside: int = width) -> nnx.Conv:
            return conv3x3(inside, width, stride, bias=bias, rngs=rngs)

        def norm() -> nnx.BatchNorm:
            return batch_norm(width, rngs)

        self.conv0, self.bn1, self.conv3 = conv(bias=False, inside=1), norm(), conv()
        self.conv5, self.conv7, self.bn9 = conv(), conv(), norm()
        self.conv11, self.conv12 = conv(), conv()
        self.conv14, self.conv15 = conv(), conv()
        self.conv26, self.conv27, self.bn28 = conv(), conv(bias=False), norm()
        self.conv36, self.bn38 = conv(), norm()

        self.conv39, self.bn40 = conv(bias=False, inside=1), norm()
        self.conv42, self.conv43 = conv(2), conv()
        self.conv45, self.bn47, self.conv48, self.conv49 = conv(2), norm(), conv(), conv()
        self.conv50, self.conv51, self.conv52 = conv(2), conv(), conv()
        self.conv63, self.conv64, self.bn65 = conv(), conv(bias=False), norm()
        self.conv73, self.bn75 = conv(), norm()

        self.linear79 = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        x = self._pooled(image) + self._strided(image)
        return self.linear79(x.mean(axis=(1, 2)))

    def _pooled(self, image: jax.Array) -> jax.Array:
        top = self.conv3(nnx.relu(self.bn1(self.conv0(image))))
        upper = self.bn9(nnx.relu(self.conv7(nnx.relu(self.conv5(halved(top))))))
        lower = self.conv12(self.conv11(halved(upper)))
        bottom = self.conv15(self.conv14(halved(lower)))
        rising = upsampled(bottom, lower) + lower
        rising = upsampled(rising, upper) + upper
        rising = nnx.relu(self.bn28(self.conv27(self.conv26(rising))))
        rising = nnx.relu(upsampled(rising, top) + top)
        return self.bn38(nnx.relu(self.conv36(rising)))

    def _strided(self, image: jax.Array) -> jax.Array:
        top = nnx.relu(self.bn40(self.conv39(image)))
        upper = nnx.relu(self.conv43(self.conv42(top)))
        lower = self.conv49(self.conv48(self.bn47(nnx.relu(self.conv45(upper)))))
        bottom = self.conv52(self.conv51(self.conv50(lower)))
        rising = upsampled(bottom, lower) + lower
        rising = upsampled(rising, upper) + upper
        rising = nnx.relu(self.bn65(self.conv64(self.conv63(rising))))
        rising = nnx.relu(upsampled(rising, top) + top)
        return self.bn75(nnx.relu(self.conv73(rising)))


def halved(x: jax.Array) -> jax.Array:
    """The largest of each 2x2 pixels; of an odd size the last row and column count too."""
    return nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2), padding="SAME")


def upsampled(x: jax.Array, like: jax.Array) -> jax.Array:
    """The image with its pixels repeated, and cut to the size of another one."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, : like.shape[1], : like.shape[2]]


def resnet20(weights: str, width: int = 16) -> nnx.Module:
    """The ResNet-20 with the weights of a file."""
    return _with_weights(ResNet20(width, rngs=nnx.Rngs(0)), weights)


def stackedunets(weights: str, width: int = 8) -> nnx.Module:
    """StackedUnets with the weights of a file."""
    return _with_weights(StackedUnets(width, rngs=nnx.Rngs(0)), weights)


def _with_weights(module: nnx.Module, path: str) -> nnx.Module:
    """Every parameter and statistic from the file, by its path; all of the file is used."""
    found = stored.load(path)
    for place, variable in nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat))):
        *layers, role = (str(step) for step in place if step != "layers")
        variable.set_value(jnp.asarray(stored.channels_last(found.pop(".".join([*layers, _ROLES[role]])))))
    if found:
        raise ValueError(f"the network does not have {', '.join(found)}")
    module.eval()
    return module


_ROLES = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}
