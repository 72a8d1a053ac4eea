"""Keras models for the tests of converters."""

from __future__ import annotations

import keras
from keras import layers


def residual(width: int = 8) -> keras.Model:
    """Two convolutions around a residual, with batch normalisation."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.Conv2D(width, 3, padding="same", use_bias=False, name="conv")(x)
    y = layers.BatchNormalization(name="conv_bn")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, name="head")(x))


def two_inputs() -> keras.Model:
    """A dict of an image's features and ids."""
    keras.utils.set_random_seed(0)
    features, ids = keras.Input((12,), name="features"), keras.Input((5,), dtype="int32", name="ids")
    x = layers.Dense(16, activation="relu")(features)
    y = layers.Flatten()(layers.Embedding(9, 4)(ids))
    return keras.Model({"features": features, "ids": ids}, layers.Dense(3)(layers.Concatenate()([x, y])))


def mobilenet() -> keras.Model:
    """A published architecture of keras.applications."""
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=10)
