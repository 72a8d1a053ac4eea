"""ResNet-20 and StackedUnets as a Keras user writes them: the functional API over [N, H, W, C]."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from benchmarks.frameworks import weights as stored

Tensor = Any


def conv(x: Tensor, filters: int, name: str, *, size: int = 3, stride: int = 1, bias: bool = False) -> Tensor:
    """A convolution that keeps the size, divided by the stride and rounded up.

    "same" would put the border of a strided one on its far side only, so it gets its border as in keras.applications.
    """
    if stride == 1 or size == 1:
        return layers.Conv2D(filters, size, stride, padding="same", use_bias=bias, name=name)(x)
    x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(filters, size, stride, use_bias=bias, name=name)(x)


def norm(x: Tensor, name: str) -> Tensor:
    """Batch normalisation with the constants of the other frameworks."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def relu(x: Tensor) -> Tensor:
    """The positive part."""
    return layers.ReLU()(x)


def resnet20(weights: str, width: int = 16) -> keras.Model:
    """A ResNet-20 for grey images of 28x28, with the weights of a file."""
    image = keras.Input((28, 28, 1), name="image")
    x = relu(norm(conv(image, width, "conv1"), "bn1"))
    for stage in range(stored.STAGES):
        for block in range(stored.BLOCKS):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(x, width << stage, f"layer{stage + 1}_{block}", stride)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return _with_weights(keras.Model(image, layers.Dense(10, name="fc")(x), name="resnet20"), weights)


def _basic_block(x: Tensor, filters: int, name: str, stride: int) -> Tensor:
    y = relu(norm(conv(x, filters, f"{name}_conv1", stride=stride), f"{name}_bn1"))
    y = norm(conv(y, filters, f"{name}_conv2"), f"{name}_bn2")
    if stride > 1:
        x = norm(conv(x, filters, f"{name}_downsample_0", size=1, stride=stride), f"{name}_downsample_1")
    return relu(layers.Add(name=f"{name}_add")([y, x]))


def stackedunets(weights: str, width: int = 8) -> keras.Model:
    """Two U-nets side by side, numbered as in the paper's figure, with the weights of a file."""
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Add(name="add76")([_pooled(image, width), _strided(image, width)])
    x = layers.GlobalAveragePooling2D(name="global_pool77")(x)
    model = keras.Model(image, layers.Dense(10, name="linear79")(x), name="stackedunets")
    return _with_weights(model, weights)


def _pooled(image: Tensor, width: int) -> Tensor:
    top = conv(relu(norm(conv(image, width, "conv0"), "bn1")), width, "conv3", bias=True)
    upper = conv(layers.MaxPooling2D(2, padding="same", name="pool4")(top), width, "conv5", bias=True)
    upper = norm(relu(conv(relu(upper), width, "conv7", bias=True)), "bn9")
    lower = conv(layers.MaxPooling2D(2, padding="same", name="pool10")(upper), width, "conv11", bias=True)
    lower = conv(lower, width, "conv12", bias=True)
    bottom = conv(layers.MaxPooling2D(2, padding="same", name="pool13")(lower), width, "conv14", bias=True)
    bottom = conv(bottom, width, "conv15", bias=True)
    rising = layers.Add(name="add20")([_upsampled(bottom, lower, "resize19"), lower])
    rising = layers.Add(name="add25")([_upsampled(rising, upper, "resize24"), upper])
    rising = norm(conv(conv(rising, width, "conv26", bias=True), width, "conv27"), "bn28")
    rising = relu(layers.Add(name="add34")([_upsampled(relu(rising), top, "resize33"), top]))
    return norm(relu(conv(rising, width, "conv36", bias=True)), "bn38")


def _strided(image: Tensor, width: int) -> Tensor:
    top = relu(norm(conv(image, width, "conv39"), "bn40"))
    upper = conv(top, width, "conv42", stride=2, bias=True)
    upper = relu(conv(upper, width, "conv43", bias=True))
    lower = norm(relu(conv(upper, width, "conv45", stride=2, bias=True)), "bn47")
    lower = conv(conv(lower, width, "conv48", bias=True), width, "conv49", bias=True)
    bottom = conv(lower, width, "conv50", stride=2, bias=True)
    bottom = conv(conv(bottom, width, "conv51", bias=True), width, "conv52", bias=True)
    rising = layers.Add(name="add57")([_upsampled(bottom, lower, "resize56"), lower])
    rising = layers.Add(name="add62")([_upsampled(rising, upper, "resize61"), upper])
    rising = norm(conv(conv(rising, width, "conv63", bias=True), width, "conv64"), "bn65")
    rising = relu(layers.Add(name="add71")([_upsampled(relu(rising), top, "resize70"), top]))
    return norm(relu(conv(rising, width, "conv73", bias=True)), "bn75")


def _upsampled(x: Tensor, like: Tensor, name: str) -> Tensor:
    """Each pixel twice in both directions, and cut to the size of another image where that is odd."""
    over = 2 * x.shape[1] - like.shape[1]
    x = layers.UpSampling2D(2, interpolation="nearest", name=name)(x)
    return layers.Cropping2D(((0, over), (0, over)), name=f"{name}_crop")(x) if over else x


def _with_weights(model: keras.Model, path: str) -> keras.Model:
    """Every variable from the file, by its layer's name, which Keras wants without dots; all of the file is used."""
    found = stored.load(path)
    for layer in model.layers:
        if layer.weights:
            scope = layer.name.replace("_", ".")
            names = [f"{scope}.{_ROLES[v.name]}" for v in layer.weights]
            layer.set_weights([stored.channels_last(found.pop(name)) for name in names])
    if found:
        raise ValueError(f"the network does not have {', '.join(found)}")
    return model


_ROLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
